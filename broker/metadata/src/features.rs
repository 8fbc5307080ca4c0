//! Feature levels: which forms of the metadata every broker of a cluster can read.
//!
//! A release knows more kinds of records than the one before it. What an older process would skip or take for
//! something else is written only once the cluster's level says that none is left, so brokers are rolled first and
//! the level is raised afterwards. Promises: [`Record::needs`] names the lowest level of every record, and a record,
//! or a field of one, that has no level yet does not compile; a level that this release does not know is an error
//! that says so, before anything is read by it.
//!
//! The levels of `metadata.version` are Leasehold's own; those of Kafka, which begin at 7, mean other records. The other
//! features are Kafka's, with Kafka's levels ([`KAFKAS`]).

use crate::image::Image;
use crate::records::{ConfigResource, PartitionChange, Record, RegisterBroker};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The feature that tells which records there may be, by the name that Kafka's tools know.
pub const METADATA_VERSION: &str = "metadata.version";

/// Kafka's feature of transactions, with Kafka's own levels: from 2 on clients that can do so use version 2 (KIP-890).
pub const TRANSACTION_VERSION: &str = "transaction.version";

/// Kafka's feature of consumer groups, with Kafka's own levels: 1 is the protocol of KIP-848.
pub const GROUP_VERSION: &str = "group.version";

/// A level of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(pub i16);

impl Level {
    /// Brokers, topics and their configurations, producer ids: the records that there always were.
    pub const FIRST: Self = Self(1);
    /// Client quotas, balancing, configurations of single brokers, several log directories per broker.
    pub const ADMINISTERED: Self = Self(2);
    /// The level itself is a record.
    pub const RECORDED: Self = Self(3);
    /// Configurations of groups, and of subscriptions to what clients measure. Logs that move to another directory, too: what
    /// such a move that was cut short leaves on the disks, an older release would take for a log that is not there.
    pub const NAMED: Self = Self(4);
    /// The made-up record of the release to come.
    #[cfg(feature = "next-release")]
    pub const NEXT: Self = Self(5);
    /// Where a new cluster begins.
    #[cfg(not(feature = "next-release"))]
    pub const NEWEST: Self = Self::NAMED;
    #[cfg(feature = "next-release")]
    pub const NEWEST: Self = Self::NEXT;
    /// Of Kafka's features: it is not in force, which is not recorded.
    pub const OFF: Self = Self(0);
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Levels from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelRange {
    pub min: Level,
    pub max: Level,
}

impl LevelRange {
    pub fn contains(&self, level: Level) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl fmt::Display for LevelRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

/// What a process supports, by feature.
pub type Supported = BTreeMap<String, LevelRange>;

/// The levels of `metadata.version` that this release reads and writes.
pub const METADATA_VERSIONS: LevelRange = LevelRange {
    min: Level::FIRST,
    max: Level::NEWEST,
};

/// Kafka's own features that this release has, with the highest level of each. A new cluster begins at that; clients
/// go by what is in force, and no form of the metadata depends on it.
pub const KAFKAS: [(&str, Level); 2] = [(GROUP_VERSION, Level(1)), (TRANSACTION_VERSION, Level(2))];

/// What this release supports.
pub fn supported() -> Supported {
    let kafkas = KAFKAS.map(|(name, max)| {
        let min = Level::OFF;
        (name.to_owned(), LevelRange { min, max })
    });
    let mut all = BTreeMap::from(kafkas);
    all.insert(METADATA_VERSION.to_owned(), METADATA_VERSIONS);
    all
}

/// Which levels of `feature` a process supports that registered with `features`. One that does not name it knows
/// nothing of it.
pub fn levels_of(feature: &str, features: &Supported) -> LevelRange {
    let none = LevelRange {
        min: Level::OFF,
        max: Level::OFF,
    };
    features.get(feature).copied().unwrap_or(none)
}

/// Which levels of `metadata.version` a process supports that registered with `features` and so many log directories.
/// One that told none is of a release before levels were recorded; if it named its directories it wrote, and so
/// reads, all that came before.
pub fn metadata_versions(features: &Supported, directories: usize) -> LevelRange {
    let untold = LevelRange {
        min: Level::FIRST,
        max: match directories {
            0 => Level::FIRST,
            _ => Level::ADMINISTERED,
        },
    };
    features.get(METADATA_VERSION).copied().unwrap_or(untold)
}

/// The metadata is of a level that this release does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster is at {feature} {level}, and this release ({}) supports {}: run a release that knows that level; it cannot be lowered",
    env!("CARGO_PKG_VERSION"), shown(feature)
)]
pub struct Unsupported {
    pub feature: String,
    pub level: Level,
}

fn shown(feature: &str) -> String {
    match supported().get(feature) {
        Some(range) => range.to_string(),
        None => "no such feature".to_owned(),
    }
}

/// Refuses what this release cannot read.
pub fn check(feature: &str, level: Level) -> Result<(), Unsupported> {
    match supported().get(feature) {
        Some(range) if range.contains(level) => Ok(()),
        _ => Err(Unsupported {
            feature: feature.to_owned(),
            level,
        }),
    }
}

impl Image {
    /// The level of `metadata.version` in force. Without a record of it the cluster is of a release before levels
    /// were recorded: the last of these named log directories in every registration, the ones before knew none.
    pub fn metadata_level(&self) -> Level {
        let named = || self.brokers.values().any(|b| !b.directories.is_empty());
        match self.metadata_version {
            Some(level) => level,
            None if named() => Level::ADMINISTERED,
            None => Level::FIRST,
        }
    }

    /// Why `what`, which is written from level `needed` on, may not be yet, and the way out.
    pub fn permits(&self, needed: Level, what: &str) -> Result<(), String> {
        let level = self.metadata_level();
        if level >= needed {
            return Ok(());
        }
        let raise = needed.max(Level::RECORDED);
        Err(format!(
            "{what} need {METADATA_VERSION} {needed}, and the cluster is at {level}: once every broker runs a release that supports it, raise the level with kafka-features.sh upgrade --feature {METADATA_VERSION}={raise}"
        ))
    }

    /// The level of `feature` in force.
    pub fn feature_level(&self, feature: &str) -> Level {
        match feature {
            METADATA_VERSION => self.metadata_level(),
            other => self.features.get(other).copied().unwrap_or(Level::OFF),
        }
    }
}

impl Record {
    /// The lowest level of `metadata.version` at which this may be written.
    ///
    /// A field that an older release passes over without harm needs none of its own, any other does.
    pub fn needs(&self) -> Level {
        let only_if = |newer: bool| match newer {
            true => Level::ADMINISTERED,
            false => Level::FIRST,
        };
        match self {
            Self::Claim(_)
            | Self::BrokerChange(_)
            | Self::UnregisterBroker { .. }
            | Self::Topic { .. }
            | Self::DeleteTopic { .. }
            | Self::ProducerIds { .. }
            | Self::Recovery { .. }
            | Self::NoOp => Level::FIRST,
            Self::RegisterBroker(RegisterBroker {
                broker: _,
                incarnation: _,
                client: _,
                internal: _,
                http: _,
                rack: _,
                version: _,
                fenced: _,
                shutting_down: _,
                cordoned: _,
                registered_at: _,
                changed_at: _,
                directories,
                // Whoever passes over them serves no such listener.
                listeners: _,
                // Whoever passes over it takes the broker for one that supports less.
                features: _,
            }) => only_if(!directories.is_empty()),
            Self::Partition { state, .. } => only_if(!state.offline.is_empty() || state.balancing),
            Self::PartitionChange(PartitionChange {
                topic: _,
                partition: _,
                partition_epoch: _,
                leader_epoch: _,
                leader: _,
                isr: _,
                elr: _,
                lossy: _,
                offline,
                replicas: _,
                adding: _,
                removing: _,
                draining: _,
                balancing,
                recovering: _,
            }) => only_if(offline.is_some() || balancing.is_some()),
            Self::Config { resource, .. } => match resource {
                ConfigResource::Topic(_) | ConfigResource::Cluster | ConfigResource::Static => {
                    Level::FIRST
                }
                ConfigResource::Broker(_) => Level::ADMINISTERED,
                ConfigResource::Group(_) | ConfigResource::ClientMetrics(_) => Level::NAMED,
            },
            Self::ClientQuota { .. } | Self::Balancing(_) => Level::ADMINISTERED,
            Self::FeatureLevel { .. } => Level::RECORDED,
            #[cfg(feature = "next-release")]
            Self::NextRelease {} => Level::NEXT,
        }
    }
}
