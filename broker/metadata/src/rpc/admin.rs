//! What administrators ask for, and what they are told: per item a Kafka error code and a message.

use super::Outcome;
use crate::balance::Balancing;
use crate::features::Level;
use crate::image::Listeners;
use crate::quotas::{QuotaEntity, QuotaLimit};
use leasehold_types::{BrokerId, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An administrator's wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRequest {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
    },
    CreatePartitions {
        topics: Vec<MorePartitions>,
        validate_only: bool,
    },
    AlterConfigs {
        resources: Vec<ConfigChanges>,
        validate_only: bool,
    },
    AlterReassignments {
        items: Vec<Reassignment>,
        /// Whether the number of replicas may change (Kafka's clients say so from version 1 on).
        allow_replication_factor_change: bool,
    },
    /// Leasehold's own: as many replicas for every partition of a topic; the controller chooses where.
    SetReplicationFactor {
        topics: Vec<(String, i16)>,
    },
    ElectLeaders {
        kind: ElectionKind,
        /// `None`: all partitions.
        partitions: Option<Vec<(String, i32)>>,
    },
    /// Leasehold's own: exactly these brokers are to be emptied; all others are not (any more).
    Cordon {
        brokers: Vec<BrokerId>,
    },
    /// Leasehold's own: how brokers are kept even; with `due`, that is seen to now.
    SetBalancing {
        balancing: Balancing,
    },
    /// Leasehold's own: these, and no others, are the defaults that the brokers' files give to topics.
    SetTopicDefaults {
        configs: BTreeMap<String, String>,
    },
    /// Leasehold's own: what clients of these brokers' further listeners are told from now on. Who is not named
    /// keeps what is.
    SetEndpoints {
        brokers: Vec<BrokerEndpoints>,
    },
    AlterClientQuotas {
        entities: Vec<QuotaChanges>,
        validate_only: bool,
    },
    /// Other levels of features: all or none.
    UpdateFeatures {
        updates: Vec<FeatureUpdate>,
        validate_only: bool,
    },
    /// Forget a broker that is fenced and hosts nothing.
    UnregisterBroker {
        broker: BrokerId,
    },
}

/// How one broker is reached through its further listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerEndpoints {
    pub broker: BrokerId,
    /// `None`: it is not known how, any more.
    pub listeners: Listeners,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    pub name: String,
    /// Drawn at random by whoever asks first; a repeat with the same id is a no-op that succeeds.
    pub id: TopicId,
    /// -1: the default, or as many as `assignments` has.
    pub partitions: i32,
    /// -1: the default, or as `assignments` has it.
    pub replication_factor: i16,
    /// Replicas by partition; empty: the controller chooses.
    #[serde(default)]
    pub assignments: Vec<(i32, Vec<BrokerId>)>,
    #[serde(default)]
    pub configs: BTreeMap<String, Option<String>>,
}

impl NewTopic {
    /// A topic with every default, under a fresh id.
    pub fn with_defaults(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: TopicId::random(),
            partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: BTreeMap::new(),
        }
    }
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// A topic that is to have more partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MorePartitions {
    pub name: String,
    /// The new total.
    pub count: i32,
    /// Replicas of the new partitions; `None`: the controller chooses.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// Whose configuration an administrator changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigTarget {
    Topic(String),
    /// One broker.
    Broker(BrokerId),
    /// One group, by name. Who asks has seen that the level permits it, so that the controller knows what this is.
    Group(String),
    /// One subscription to what clients measure; likewise.
    ClientMetrics(String),
    /// What holds for all brokers and topics (Kafka's BROKER resource with an empty name).
    Cluster,
}

/// Changes to one resource's configuration: all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanges {
    pub target: ConfigTarget,
    /// Kafka's older AlterConfigs: what is not named is removed.
    #[serde(default)]
    pub replace_all: bool,
    pub changes: Vec<ConfigChange>,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    pub key: String,
    pub op: ConfigOp,
    pub value: Option<String>,
}

/// Kafka's incremental operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigOp {
    Set,
    Delete,
    Append,
    Subtract,
}

/// Changes to the quotas of one entity: all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaChanges {
    pub entity: QuotaEntity,
    pub changes: Vec<QuotaChange>,
}

/// One quota's change; without a limit it is taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaChange {
    pub key: String,
    pub limit: Option<QuotaLimit>,
}

/// Another level of a feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureUpdate {
    pub name: String,
    /// 0: the feature is to be off.
    pub level: Level,
    pub direction: Direction,
}

/// Which way a level may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Up,
    /// Down, if nothing is lost by it.
    DownIfSafe,
    Down,
}

/// New replicas for one partition; `None` cancels what is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    pub topic: String,
    pub partition: i32,
    pub replicas: Option<Vec<BrokerId>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElectionKind {
    Preferred,
    Unclean,
}

/// The answer to the [`AdminRequest`] of the same name, items in the order asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminResponse {
    CreateTopics(Vec<CreatedTopic>),
    DeleteTopics(Vec<DeletedTopic>),
    CreatePartitions(Vec<(String, Outcome)>),
    AlterConfigs(Vec<(ConfigTarget, Outcome)>),
    AlterReassignments(Vec<(String, i32, Outcome)>),
    SetReplicationFactor(Vec<(String, Outcome)>),
    /// With `partitions: None` only those where something was to do, as Kafka has it.
    ElectLeaders(Vec<(String, i32, Outcome)>),
    Cordon(Vec<(BrokerId, Outcome)>),
    SetBalancing(Outcome),
    SetTopicDefaults(Outcome),
    SetEndpoints(Vec<(BrokerId, Outcome)>),
    AlterClientQuotas(Vec<Outcome>),
    UpdateFeatures(Outcome),
    UnregisterBroker(Outcome),
}

/// What became of a topic to create (or would, with `validate_only`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedTopic {
    pub name: String,
    pub outcome: Outcome,
    /// The rest is meaningful on success only.
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
}

/// What became of a topic to delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedTopic {
    /// As asked, completed where it is known.
    pub name: Option<String>,
    pub id: Option<TopicId>,
    pub outcome: Outcome,
}
