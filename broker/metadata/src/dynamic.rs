//! Broker keys that are changed while brokers run, for all of them or for one.
//!
//! Promises: whoever sets, keeps, describes or applies such a value asks here, so that nothing can be set that
//! nobody applies. Which keys are dynamic is Kafka's choice
//! (<https://kafka.apache.org/documentation/#dynamicbrokerconfigs>), among those that Leasehold honours.

use crate::broker_config::{self, BROKER_KEYS, BrokerConfig, BrokerKey};
use crate::configs::{
    self, Kind, MIN_INSYNC_REPLICAS, TOPIC_KEYS, TopicKey, UNCLEAN_LEADER_ELECTION_ENABLE,
};

/// Client connections at most.
pub const MAX_CONNECTIONS: &str = "max.connections";
/// What leaders send to followers that a topic names.
pub const LEADER_THROTTLED_RATE: &str = "leader.replication.throttled.rate";
/// What followers that a topic names copy.
pub const FOLLOWER_THROTTLED_RATE: &str = "follower.replication.throttled.rate";
/// What is copied from one of a broker's log directories to another.
pub const ALTER_LOG_DIRS_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
/// How soon the cleaner looks again at a log that waits for time to pass.
pub const LOG_CLEANER_BACKOFF_MS: &str = "log.cleaner.backoff.ms";
/// How many logs the cleaner compacts at a time.
pub const LOG_CLEANER_THREADS: &str = "log.cleaner.threads";

/// Dynamic keys beside those that are defaults for topics.
const OWN: [&str; 6] = [
    FOLLOWER_THROTTLED_RATE,
    LEADER_THROTTLED_RATE,
    LOG_CLEANER_BACKOFF_MS,
    LOG_CLEANER_THREADS,
    MAX_CONNECTIONS,
    ALTER_LOG_DIRS_RATE,
];
/// The controller decides by them, for all replicas of a partition together.
const FOR_ALL: [&str; 2] = [MIN_INSYNC_REPLICAS, UNCLEAN_LEADER_ELECTION_ENABLE];

/// A key that can be changed while brokers run.
#[derive(Clone, Copy, Debug)]
pub enum DynamicKey {
    /// It is the default of this topic key, and kept under its name.
    Topics(&'static TopicKey),
    /// It concerns the broker alone.
    Own(&'static BrokerKey),
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DynamicError {
    #[error(
        "{0} cannot be changed while brokers run: it takes effect when they start with it in their configuration"
    )]
    Static(String),
    #[error("{0} holds for all brokers together: set it on the broker resource with an empty name")]
    ForAll(&'static str),
    #[error(transparent)]
    Topic(#[from] configs::ConfigError),
    #[error(transparent)]
    Broker(#[from] broker_config::ConfigError),
}

impl DynamicKey {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = |key: &&BrokerKey| OWN.contains(&key.name);
        let own = BROKER_KEYS.iter().filter(own).map(Self::Own);
        TOPIC_KEYS.iter().map(Self::Topics).chain(own)
    }

    /// The key of that name: Kafka's broker key (`log.retention.ms`), or the topic key (`retention.ms`).
    pub fn find(name: &str) -> Result<Self, DynamicError> {
        let found = Self::all().find(|key| key.described_as() == name || key.kept_as() == name);
        found.ok_or_else(|| match broker_config::is_known(name) {
            true => DynamicError::Static(name.to_owned()),
            false => broker_config::ConfigError::Unknown(name.to_owned()).into(),
        })
    }

    /// Under which name its value is kept.
    pub fn kept_as(self) -> &'static str {
        match self {
            Self::Topics(key) => key.name,
            Self::Own(key) => key.name,
        }
    }

    /// Its name among the keys of a broker.
    pub fn described_as(self) -> &'static str {
        match self {
            Self::Topics(key) => key.broker_key.unwrap_or(key.name),
            Self::Own(key) => key.name,
        }
    }

    /// Whether values can be added to it and taken away.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Topics(key) if matches!(key.kind, Kind::List(_) | Kind::Replicas))
    }

    /// The form in which `value` is kept, if it is valid.
    pub fn normalize(self, value: &str) -> Result<String, DynamicError> {
        match self {
            Self::Topics(key) => {
                configs::validate(key.name, value)?;
                Ok(configs::normalize(key, value))
            }
            Self::Own(key) => {
                let mut config = BrokerConfig::default();
                config.set(key.name, value)?;
                Ok(config.get(key.name).unwrap_or_else(|| value.to_owned()))
            }
        }
    }

    /// Whether a single broker may have a value of its own.
    pub fn check_for_one(self) -> Result<(), DynamicError> {
        match FOR_ALL.iter().find(|name| **name == self.kept_as()) {
            Some(name) => Err(DynamicError::ForAll(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_both_names_and_others_are_told_apart() {
        for (name, kept, described) in [
            ("log.retention.ms", "retention.ms", "log.retention.ms"),
            ("retention.ms", "retention.ms", "log.retention.ms"),
            (
                "message.max.bytes",
                "max.message.bytes",
                "message.max.bytes",
            ),
            ("compression.type", "compression.type", "compression.type"),
            ("max.connections", "max.connections", "max.connections"),
        ] {
            let key = DynamicKey::find(name).unwrap();
            assert_eq!((key.kept_as(), key.described_as()), (kept, described));
        }
        for name in [
            "num.partitions",
            "log.retention.hours",
            "log.dirs",
            "node.id",
        ] {
            let refused = DynamicKey::find(name).unwrap_err();
            assert_eq!(refused, DynamicError::Static(name.to_owned()));
        }
        let unknown = DynamicKey::find("no.such.key").unwrap_err();
        assert!(matches!(unknown, DynamicError::Broker(_)), "{unknown}");
    }

    #[test]
    fn no_two_keys_are_kept_or_described_under_one_name() {
        for name in [DynamicKey::kept_as, DynamicKey::described_as] {
            let all: Vec<_> = DynamicKey::all().map(name).collect();
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len());
        }
        assert_eq!(
            DynamicKey::all()
                .filter(|key| matches!(key, DynamicKey::Own(_)))
                .count(),
            OWN.len()
        );
    }

    #[test]
    fn values_are_held_to_the_tables() {
        let of = |name: &str, value: &str| DynamicKey::find(name).unwrap().normalize(value);
        assert_eq!(of("max.connections", " 7 ").unwrap(), "7");
        assert_eq!(
            of("log.cleanup.policy", "compact, delete").unwrap(),
            "compact,delete"
        );
        for (name, value) in [
            ("max.connections", "-1"),
            ("max.connections", "many"),
            ("log.cleaner.threads", "-2"),
            ("log.retention.ms", "-2"),
            ("compression.type", "rar"),
        ] {
            let refused = of(name, value).unwrap_err().to_string();
            assert!(refused.contains(value), "{refused}");
        }
        let for_one = |name: &str| DynamicKey::find(name).unwrap().check_for_one();
        assert_eq!(for_one("log.retention.ms"), Ok(()));
        assert!(for_one("min.insync.replicas").is_err());
        assert!(for_one("unclean.leader.election.enable").is_err());
    }
}
