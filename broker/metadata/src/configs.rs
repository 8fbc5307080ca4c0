//! Kafka's topic configuration keys: types, defaults, documentation, and what of them is honoured.
//!
//! Promises: every topic key of Apache Kafka 4.3 has a row; a value is either valid and honoured, or refused
//! with a message that names the key, the value and the way out. A key whose function is absent in this
//! release takes its default and nothing else, so nobody believes to have it.

mod check;
mod table;
#[cfg(test)]
mod tests;

pub use check::{check_together, defaults_from, normalize, unknown, validate, validate_all};
pub use table::{NO_TOPIC_KEYS, TOPIC_KEYS};

/// Replicas that must be in sync before acks=all is granted.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Whether a replica that is not in sync may lead when no other is left.
pub const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";

/// A topic key as it is documented and described to clients.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    /// Kafka's name.
    pub name: &'static str,
    pub kind: Kind,
    /// Kafka's default, as a user would write it; `None` where Kafka has null.
    pub default: Option<&'static str>,
    /// The broker key that gives the default for all topics, where there is one.
    pub broker_key: Option<&'static str>,
    pub support: Support,
    pub doc: &'static str,
}

/// The type of a value and what it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Boolean,
    Int {
        min: i64,
        max: i64,
    },
    /// 1 to 9, or -1.
    GzipLevel,
    Long {
        min: i64,
        max: i64,
    },
    Double {
        min: f64,
        max: f64,
    },
    /// One of these.
    Choice(&'static [&'static str]),
    /// Some of these, or none, separated by commas.
    List(&'static [&'static str]),
    /// Pairs of partition and broker, `0:1,0:2`, or `*` for all.
    Replicas,
}

impl Kind {
    /// Kafka's number for the type in DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Choice(_) => 2,
            Self::Int { .. } | Self::GzipLevel => 3,
            Self::Long { .. } => 5,
            Self::Double { .. } => 6,
            Self::List(_) | Self::Replicas => 7,
        }
    }
}

/// Whether a key does what Kafka's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// All valid values.
    Full,
    /// Only the default; the reason why.
    DefaultOnly(&'static str),
}

/// Why a topic configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
    #[error("{key} is not supported: {reason}")]
    Absent {
        key: &'static str,
        reason: &'static str,
    },
    #[error("Invalid value {value:?} for configuration {key}: {reason}")]
    Invalid {
        key: &'static str,
        value: String,
        reason: String,
    },
    #[error("{key}={value} is not supported in this release: {reason}")]
    Unsupported {
        key: &'static str,
        value: String,
        reason: &'static str,
    },
}

/// The key of that name, supported or not; `None` if Kafka has none such.
pub fn find(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}
