//! The facts of the metadata log: one JSON object per record, readable with kubectl.
//!
//! Promises: a record says all that its application needs (no clock, no randomness, no lookup of
//! defaults), so that every broker that applies the same entries holds the same image. A field that
//! is absent in JSON keeps its default, so that records of an older release can be read; a kind that is not known
//! is an error. Which release may write what, [`Record::needs`] says.

use crate::balance::Balancing;
use crate::features::{Level, Supported};
use crate::image::{Claim, Endpoint, Listeners, Partition};
use crate::quotas::{QuotaEntity, QuotaLimit};
use leasehold_types::{
    BrokerId, ControllerEpoch, DirectoryId, Incarnation, LeaderEpoch, PartitionEpoch, ProducerId,
    Seq, TopicId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One head write: the unit that is committed and applied as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises by exactly one from entry to entry.
    pub seq: Seq,
    /// The epoch of the controller that wrote it.
    pub epoch: ControllerEpoch,
    /// The head's nonce after this write: 128 random bits as hex. Finding it in the tail proves
    /// that this very write was applied.
    pub nonce: String,
    /// What changed, in this order.
    pub records: Vec<Record>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A candidate became controller. Always the first record of the entry that is its claim.
    Claim(Claim),
    /// A broker's process was admitted (or told a new rack or address).
    RegisterBroker(RegisterBroker),
    /// A broker's standing changed.
    BrokerChange(BrokerChange),
    /// A broker that hosts nothing was forgotten.
    UnregisterBroker { broker: BrokerId },
    /// A topic was created; its partitions follow.
    Topic {
        id: TopicId,
        name: String,
        #[serde(default, skip_serializing_if = "is_false")]
        internal: bool,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        configs: BTreeMap<String, String>,
    },
    /// A topic and all its partitions are gone.
    DeleteTopic { id: TopicId },
    /// A partition's full state: at its creation, and in snapshots.
    Partition {
        topic: TopicId,
        partition: i32,
        #[serde(flatten)]
        state: Partition,
    },
    /// What changed of a partition.
    PartitionChange(PartitionChange),
    /// A configuration value was set, or removed (`None`).
    Config {
        resource: ConfigResource,
        key: String,
        value: Option<String>,
    },
    /// A client quota was set, or removed (`None`).
    ClientQuota {
        entity: QuotaEntity,
        key: String,
        limit: Option<QuotaLimit>,
    },
    /// How brokers are kept even, and whether that is to be seen to.
    Balancing(Balancing),
    /// The level of a feature that is in force from here on; see [`crate::features`].
    FeatureLevel { name: String, level: Level },
    /// Producer ids below `next` have been given out.
    ProducerIds { next: ProducerId },
    /// A recorded recovery from an older copy: raises every epoch above all that were ever seen.
    Recovery {
        /// Added to every leader epoch and partition epoch.
        epoch_jump: i32,
        /// Added to the next producer id.
        producer_id_jump: i64,
        /// Why, for people.
        reason: String,
    },
    /// Nothing; proves that the writer still holds the head.
    NoOp,
    /// Nothing that any release knows: what a release to come may write.
    #[cfg(feature = "next-release")]
    NextRelease {},
}

/// A broker's registration. Sets all of the broker's state; `fenced` is how it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterBroker {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    /// Where clients connect.
    pub client: Endpoint,
    /// Where other brokers connect.
    pub internal: Endpoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    pub fenced: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub shutting_down: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub cordoned: bool,
    /// When this incarnation was admitted. `None`: in the entry that carries this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Seq>,
    /// When it was last registered or fenced. `None`: in the entry that carries this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Seq>,
    /// The log directories that this incarnation may write to; empty from a release that had but one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<DirectoryId>,
    /// Listeners for clients beside the main one; none from a release that had but one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: Listeners,
    /// What its process supports; empty from a release before levels were recorded.
    #[serde(default, skip_serializing_if = "Supported::is_empty")]
    pub features: Supported,
}

/// A change of a broker's standing; `None` keeps what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerChange {
    pub broker: BrokerId,
    /// The incarnation that is meant; the record fits no other.
    pub incarnation: Incarnation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutting_down: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    /// Listeners whose endpoint is another now. A release that knows none passes over it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: Listeners,
}

/// A change of a partition; `None` keeps what is. The epochs are the new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChange {
    pub topic: TopicId,
    pub partition: i32,
    /// Always the former one plus one.
    pub partition_epoch: PartitionEpoch,
    /// The former one, or that plus one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<LeaderEpoch>,
    /// The new leader; the inner `None` (JSON null) means that there is none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub leader: Option<Option<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isr: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elr: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lossy: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adding: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removing: Option<Vec<BrokerId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovering: Option<bool>,
}

/// What a configuration value belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigResource {
    /// One topic, by id.
    Topic(TopicId),
    /// One broker, and every topic there that does not say otherwise; set by an administrator while it runs.
    Broker(BrokerId),
    /// One group, by name, whether there is one or not.
    Group(String),
    /// One subscription to what clients measure, by name.
    ClientMetrics(String),
    /// Every broker and topic that does not say otherwise; set by an administrator while the cluster runs.
    Cluster,
    /// Every topic that neither says otherwise nor has it said by `Cluster`: from the brokers' files.
    Static,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Tells `"leader": null` (no leader) from an absent `leader` (unchanged).
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
