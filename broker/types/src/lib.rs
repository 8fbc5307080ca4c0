//! Newtypes for the ids, epochs and offsets that every crate of Leasehold passes around.
//!
//! A wrong argument must not compile: an offset is no epoch, a broker id no partition. Each type is
//! a plain integer or string on the wire and in JSON (`serde(transparent)`), so that the metadata
//! stays readable with `kubectl`.

pub mod seams;

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! int_newtype {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                Self(value)
            }
        }
    };
}

int_newtype! {
    /// A broker's id; on Kubernetes the ordinal of its pod.
    BrokerId(i32)
}
int_newtype! {
    /// One life of a broker process: random, non-negative. Rides in Kafka's broker-epoch fields.
    Incarnation(i64)
}
int_newtype! {
    /// Raised by one at every change of a partition's leader or of the leader's incarnation.
    LeaderEpoch(i32)
}
int_newtype! {
    /// Raised by one at every change of a partition's state (ISR, replicas, leader).
    PartitionEpoch(i32)
}
int_newtype! {
    /// A record's place in its partition.
    Offset(i64)
}
int_newtype! {
    /// Raised at every claim of the controller role; fences its predecessors.
    ControllerEpoch(i64)
}
int_newtype! {
    /// Number of a head write: rises by exactly one per write.
    Seq(u64)
}
int_newtype! {
    /// Identifies an idempotent producer.
    ProducerId(i64)
}

impl Incarnation {
    /// Draws the incarnation of a new process.
    pub fn random() -> Self {
        Self(rand::random::<i64>() & i64::MAX)
    }
}

impl LeaderEpoch {
    /// "No epoch known", as Kafka writes it.
    pub const NONE: Self = Self(-1);

    /// The next epoch.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl PartitionEpoch {
    /// The next epoch.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Seq {
    /// The next head write.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ControllerEpoch {
    /// The next claim.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Identifies a cluster for its whole life; every object, directory and RPC carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub String);

impl ClusterId {
    /// A new cluster id in Kafka's shape: a random UUID in 22 characters of URL-safe base64.
    pub fn random() -> Self {
        Self(encode_uuid(uuid::Uuid::new_v4()))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a listener for clients beside the main one, such as `public`; part of the names of its Services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ListenerName(String);

impl ListenerName {
    /// The longest: with a Cluster's name and a broker's number it must fit into a Service's name.
    pub const LONGEST: usize = 11;

    /// The name, if it is one: lower-case letters, digits and `-`, beginning with a letter.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let good = begins && text.len() <= Self::LONGEST && text.chars().all(legal);
        (good && !text.ends_with('-')).then(|| Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for ListenerName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a listener's name")))
    }
}

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A fresh one.
            pub fn random() -> Self {
                let bytes = crate::seams::random_u128().to_be_bytes();
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// Parses the form that `Display` prints. `None` if `text` is not 16 bytes of URL-safe base64.
            pub fn parse(text: &str) -> Option<Self> {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
                    .decode(text)
                    .ok()?;
                Some(Self(uuid::Uuid::from_bytes(bytes.try_into().ok()?)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode_uuid(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text)
                    .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not {}", $what)))
            }
        }
    };
}

uuid_newtype! {
    /// Identifies a topic across deletion and re-creation under one name. Shown as Kafka shows it: base64.
    TopicId, "a topic id"
}
uuid_newtype! {
    /// Identifies a log directory for its whole life, wherever it is mounted; as Kafka's `directory.id`.
    DirectoryId, "a directory id"
}

fn encode_uuid(id: uuid::Uuid) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_survives_its_text_form() {
        let id = TopicId::random();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<TopicId>(&json).unwrap(), id);
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(TopicId::parse("short"), None);
    }

    #[test]
    fn a_listeners_name_fits_into_the_name_of_a_service() {
        for good in ["a", "public", "public-2", "abcdefghijk"] {
            assert_eq!(ListenerName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "2", "-a", "a-", "Public", "a_b", "a.b", "abcdefghijkl"] {
            assert_eq!(ListenerName::parse(bad), None, "{bad:?}");
            assert!(serde_json::from_value::<ListenerName>(bad.into()).is_err());
        }
    }

    #[test]
    fn an_incarnation_is_never_negative() {
        assert!((0..1000).all(|_| Incarnation::random().0 >= 0));
    }
}
