//! Who this process is: its broker id, its addresses, its parent, its limits.

use crate::cli::RunArgs;
use crate::session::find::parse_address;
use anyhow::{Context as _, bail};
use leasehold_metadata::image::Endpoint;
use leasehold_types::BrokerId;
use rustix::process::{Resource, Rlimit, Signal};
use std::net::SocketAddr;

/// The broker id from the arguments, or from the number at the end of the host name.
pub fn broker_id(args: &RunArgs) -> anyhow::Result<BrokerId> {
    if let Some(id) = args.id {
        anyhow::ensure!(id >= 0, "--id {id}: a broker id is not negative");
        return Ok(BrokerId(id));
    }
    let name = match std::env::var("POD_NAME") {
        Ok(name) => name,
        Err(_) => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("cannot read the host name")?,
    };
    ordinal(name.trim()).map(BrokerId)
}

fn ordinal(name: &str) -> anyhow::Result<i32> {
    let number = name.rsplit('-').next().unwrap_or_default();
    match number.parse() {
        Ok(id) if name.contains('-') && id >= 0 => Ok(id),
        _ => bail!("{name:?} does not end in -NUMBER, so it gives no broker id; use --id"),
    }
}

/// Reads `host:port` of the argument `name`.
pub fn endpoint(name: &str, text: &str) -> anyhow::Result<Endpoint> {
    parse_address(text).with_context(|| format!("{name} {text:?} is not host:port"))
}

/// An address that was bound, as an endpoint.
pub fn socket_endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
    }
}

/// What other brokers are told: what was asked for, or the bound address if others can reach that.
pub fn internal_endpoint(advertise: Option<&str>, bound: SocketAddr) -> anyhow::Result<Endpoint> {
    match advertise {
        Some(text) => endpoint("--internal-advertise", text),
        None if bound.ip().is_unspecified() => bail!(
            "--internal-listen {bound} names no address that other brokers could use: give --internal-advertise too"
        ),
        None => Ok(socket_endpoint(bound)),
    }
}

/// Asks the kernel for SIGTERM when the parent ends. An error if it has ended already.
pub fn end_with_parent(parent: Option<u32>) -> anyhow::Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if now != i32::try_from(parent).ok() {
        bail!("the parent process {parent} has ended");
    }
    Ok(())
}

/// Takes all the open files that the system allows: each connection and each segment needs one.
pub fn raise_open_files() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_ordinal_is_its_broker_id() {
        assert_eq!(ordinal("demo-broker-12").unwrap(), 12);
        assert!(ordinal("laptop").is_err());
        assert!(ordinal("12").is_err());
        assert!(ordinal("a-b").is_err());
    }

    #[test]
    fn an_address_that_nobody_can_reach_is_not_advertised() {
        let any: SocketAddr = ([0, 0, 0, 0], 9091).into();
        assert!(internal_endpoint(None, any).is_err());
        assert_eq!(
            internal_endpoint(Some("10.0.0.7:9091"), any).unwrap().host,
            "10.0.0.7"
        );
        let local: SocketAddr = ([127, 0, 0, 1], 4000).into();
        assert_eq!(internal_endpoint(None, local).unwrap().port, 4000);
    }
}
