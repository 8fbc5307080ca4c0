//! Where the controller is believed to be.

use leasehold_metadata::image::Endpoint;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::ControllerHint;
use leasehold_metadata::store::LeaseRecord;
use leasehold_types::BrokerId;

/// A place to ask for the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub broker: BrokerId,
    pub internal: Endpoint,
}

impl Target {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        address_of(&self.internal)
    }
}

/// `host:port` of an endpoint, with brackets around an IPv6 address.
pub fn address_of(endpoint: &Endpoint) -> String {
    let host = &endpoint.host;
    if host.contains(':') && !host.starts_with('[') {
        return format!("[{host}]:{}", endpoint.port);
    }
    format!("{host}:{}", endpoint.port)
}

/// Reads `host:port`, with or without brackets around an IPv6 address.
pub fn parse_address(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Endpoint {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

/// Who holds the Lease, and where.
pub fn holder_of(lease: &LeaseRecord) -> Option<(Holder, Endpoint)> {
    let holder = Holder::parse(lease.holder.as_deref()?)?;
    Some((holder, parse_address(lease.address.as_deref()?)?))
}

/// The Lease as a hint for others.
pub fn hint_of(lease: Option<&LeaseRecord>) -> Option<ControllerHint> {
    let (holder, internal) = holder_of(lease?)?;
    Some(ControllerHint {
        broker: holder.broker,
        internal,
    })
}

impl From<ControllerHint> for Target {
    fn from(hint: ControllerHint) -> Self {
        Self {
            broker: hint.broker,
            internal: hint.internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_text_ipv6_included() {
        for host in ["127.0.0.1", "fd00::1", "broker-0"] {
            let endpoint = Endpoint {
                host: host.into(),
                port: 9091,
            };
            assert_eq!(parse_address(&address_of(&endpoint)), Some(endpoint));
        }
        assert_eq!(parse_address("nonsense"), None);
    }
}
