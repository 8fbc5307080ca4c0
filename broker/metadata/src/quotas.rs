//! Client quotas: whose, of what, and which one holds for a connection (KIP-13, 124, 257, 546, 599).
//!
//! Promise: of several quotas that fit a user and client id, the one that Kafka takes holds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes per second that producers may send.
pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
/// Bytes per second that consumers may get.
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// Share of one thread's time, in percent, that requests may take.
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
/// Partitions per second that may be created or deleted.
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";

/// One part of an entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Whoever has no quota by name.
    Default,
    Named(String),
}

impl Who {
    /// As the protocol has it: no name means the default.
    pub fn of(name: Option<&str>) -> Self {
        name.map_or(Self::Default, |name| Self::Named(name.to_owned()))
    }

    /// The reverse of [`Self::of`].
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Named(name) => Some(name),
        }
    }
}

/// Whom a quota is for: a user, a client id, or a user's client id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaEntity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Who>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Who>,
}

/// A quota's value: a positive number.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuotaLimit(f64);

// None is NaN.
impl Eq for QuotaLimit {}

impl fmt::Display for QuotaLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl QuotaLimit {
    /// The limit `value` of the quota `key`; else why it is none.
    pub fn new(key: &str, value: f64) -> Result<Self, String> {
        let whole = match key {
            PRODUCER_BYTE_RATE | CONSUMER_BYTE_RATE => true,
            REQUEST_PERCENTAGE | CONTROLLER_MUTATION_RATE => false,
            other => return Err(format!("Invalid configuration key {other}")),
        };
        if !value.is_finite() || value <= 0.0 {
            return Err(format!("Quota {key} must be greater than 0"));
        }
        // Kafka's tolerance.
        if whole && (value - value.round()).abs() > 1e-6 {
            return Err(format!("{key} must be a whole number"));
        }
        Ok(Self(if whole { value.round() } else { value }))
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

/// Limits by key.
pub type QuotaLimits = BTreeMap<String, QuotaLimit>;
/// All quotas.
pub type Quotas = BTreeMap<QuotaEntity, QuotaLimits>;

/// The quota `key` for `client_id` of `user`: which entity's it is, and its limit.
pub fn find<'a>(
    quotas: &'a Quotas,
    user: &str,
    client_id: &str,
    key: &str,
) -> Option<(&'a QuotaEntity, QuotaLimit)> {
    let named = |name: &str| Some(Who::Named(name.to_owned()));
    let default = || Some(Who::Default);
    // Kafka's order, the most special first.
    let order = [
        (named(user), named(client_id)),
        (named(user), default()),
        (named(user), None),
        (default(), named(client_id)),
        (default(), default()),
        (default(), None),
        (None, named(client_id)),
        (None, default()),
    ];
    order.into_iter().find_map(|(user, client_id)| {
        let (entity, limits) = quotas.get_key_value(&QuotaEntity { user, client_id })?;
        Some((entity, *limits.get(key)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<Option<&str>>, client_id: Option<Option<&str>>) -> QuotaEntity {
        QuotaEntity {
            user: user.map(Who::of),
            client_id: client_id.map(Who::of),
        }
    }

    #[test]
    fn the_most_special_quota_holds() {
        let ladder = [
            entity(None, Some(None)),
            entity(None, Some(Some("c"))),
            entity(Some(None), None),
            entity(Some(None), Some(None)),
            entity(Some(None), Some(Some("c"))),
            entity(Some(Some("u")), None),
            entity(Some(Some("u")), Some(None)),
            entity(Some(Some("u")), Some(Some("c"))),
        ];
        let mut quotas = Quotas::new();
        assert_eq!(find(&quotas, "u", "c", PRODUCER_BYTE_RATE), None);
        for (n, entity) in (1i32..).zip(&ladder) {
            let limit = QuotaLimit::new(PRODUCER_BYTE_RATE, n.into()).unwrap();
            let limits = QuotaLimits::from([(PRODUCER_BYTE_RATE.to_owned(), limit)]);
            quotas.insert(entity.clone(), limits);
            let found = find(&quotas, "u", "c", PRODUCER_BYTE_RATE);
            assert_eq!(found, Some((entity, limit)));
        }
        assert_eq!(find(&quotas, "u", "c", CONSUMER_BYTE_RATE), None);
        let other = find(&quotas, "v", "d", PRODUCER_BYTE_RATE).unwrap();
        assert_eq!(other.0, &ladder[3]);
    }

    #[test]
    fn a_limit_is_a_positive_number_of_a_known_kind() {
        assert!(QuotaLimit::new("no_such_rate", 1.0).is_err());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(QuotaLimit::new(REQUEST_PERCENTAGE, bad).is_err(), "{bad}");
        }
        assert!(QuotaLimit::new(PRODUCER_BYTE_RATE, 1.5).is_err());
        assert_eq!(QuotaLimit::new(REQUEST_PERCENTAGE, 1.5).unwrap().get(), 1.5);
    }
}
