//! The image: what all records so far add up to.
//!
//! Promises: applying is pure and checked (a record that does not fit is an error and leaves the
//! image as it was); a clone costs next to nothing, so that every reader may keep its own; the same
//! entries give the same image everywhere.

mod apply;
mod query;
mod snapshot;
#[cfg(test)]
mod tests;

pub use apply::ApplyError;
pub use query::{ConfigSource, Hosted, Standing};

use crate::balance::Balancing;
use crate::features::{Level, Supported};
use crate::quotas::Quotas;
use imbl::{OrdMap, Vector};
use leasehold_types::{
    BrokerId, ClusterId, ControllerEpoch, DirectoryId, Incarnation, LeaderEpoch, ListenerName,
    PartitionEpoch, ProducerId, Seq, TopicId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Everything that is known about the cluster at one position of the metadata log.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub cluster_id: ClusterId,
    pub position: Position,
    /// Who became controller when, oldest first, beginning with genesis.
    pub claims: Vector<Claim>,
    pub brokers: OrdMap<BrokerId, Arc<Broker>>,
    pub topics: OrdMap<TopicId, Arc<Topic>>,
    pub names: OrdMap<String, TopicId>,
    /// What an administrator set for single brokers, under the names of [`crate::dynamic`]. Who has nothing is not
    /// in it; who is not registered may be.
    pub broker_configs: Arc<BTreeMap<BrokerId, BTreeMap<String, String>>>,
    /// What an administrator set for single groups, under the names of [`crate::group_configs`]. Who has nothing is
    /// not in it; of whom there is something need not exist.
    pub group_configs: Named,
    /// Subscriptions to what clients measure, under the names of [`crate::client_metrics`].
    pub client_metrics: Named,
    /// What an administrator set for the whole cluster, under the same names.
    pub cluster_configs: Arc<BTreeMap<String, String>>,
    /// Topic keys from the brokers' files, as the last controller had them.
    pub static_configs: Arc<BTreeMap<String, String>>,
    /// Limits of users and client ids.
    pub client_quotas: Arc<Quotas>,
    /// How brokers are kept even, and whether they are.
    pub balancing: Balancing,
    /// The level of `metadata.version` that was recorded, if one was; see [`Image::metadata_level`].
    pub metadata_version: Option<Level>,
    /// The levels of Kafka's own features, of those that are in force; see [`Image::feature_level`].
    pub features: Arc<BTreeMap<String, Level>>,
    pub next_producer_id: ProducerId,
}

/// Configurations of what has a name; all share one copy.
pub type Named = Arc<BTreeMap<String, BTreeMap<String, String>>>;

/// A point of the metadata log. Never compared as a pair (epoch, seq): see [`Image::locate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: ControllerEpoch,
    pub claim_id: ClaimId,
    pub seq: Seq,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch,
            claim_id,
            seq,
        } = self;
        write!(f, "epoch {epoch} (claim {claim_id}) seq {seq}")
    }
}

/// A claim of the controller role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub epoch: ControllerEpoch,
    pub claim_id: ClaimId,
    /// The seq of the head write that made the claim.
    pub first_seq: Seq,
    pub broker: BrokerId,
    pub incarnation: Incarnation,
}

/// 128 random bits that tell one claim from another of the same epoch (after an etcd restore).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClaimId(pub u128);

impl ClaimId {
    /// Draws the id of a new claim.
    pub fn random() -> Self {
        Self(leasehold_types::seams::random_u128())
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for ClaimId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClaimId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is not a claim id")))
    }
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Listeners for clients beside the main one, with the endpoint that clients of each are told.
pub type Listeners = BTreeMap<ListenerName, Option<Endpoint>>;

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: BrokerId,
    pub incarnation: Incarnation,
    /// Where clients connect who come from nowhere else.
    pub client: Endpoint,
    /// The further listeners that this incarnation has open, and what clients of each are told; `None`: not
    /// known yet.
    pub listeners: Listeners,
    /// Where other brokers connect.
    pub internal: Endpoint,
    pub http: Option<Endpoint>,
    pub rack: Option<String>,
    pub version: String,
    /// Without a live session, or not caught up yet: leads nothing.
    pub fenced: bool,
    /// Is about to end: gets no leadership and joins no ISR.
    pub shutting_down: bool,
    /// Is to be emptied: gets nothing new.
    pub cordoned: bool,
    /// The entry that admitted this incarnation.
    pub registered_at: Seq,
    /// The entry that last registered or fenced it; it must have applied that to be unfenced.
    pub changed_at: Seq,
    /// The log directories that this incarnation may write to. Empty: one, of which no id was told.
    pub directories: Vec<DirectoryId>,
    /// What its process supports. Empty: it is of a release that did not tell.
    pub features: Supported,
}

impl Broker {
    /// Whether it may become leader or join an ISR.
    pub fn is_eligible(&self) -> bool {
        !self.fenced && !self.shutting_down
    }

    /// What a client is told who came through `listener` (`None`: the main one). `None` if this broker does not
    /// listen there, or does not know yet how it is reached.
    pub fn endpoint(&self, listener: Option<&ListenerName>) -> Option<&Endpoint> {
        match listener {
            None => Some(&self.client),
            Some(name) => self.listeners.get(name)?.as_ref(),
        }
    }
}

/// A topic with all its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub internal: bool,
    /// Partition n at index n.
    pub partitions: Vec<Arc<Partition>>,
    /// What this topic has of its own; see [`Image::topic_config`].
    pub configs: BTreeMap<String, String>,
}

impl Topic {
    /// The partition of that number, `None` if there is none (a negative number included).
    pub fn partition(&self, partition: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}

/// One partition's state: who holds it and who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Everyone who holds or shall hold it; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// Of `replicas`: new ones of a reassignment under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding: Vec<BrokerId>,
    /// Of `replicas`: those that a reassignment under way will take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<BrokerId>,
    /// Replicas that have every committed record. Empty only without a leader.
    pub isr: Vec<BrokerId>,
    /// Left the ISR while it was below the effective minimum, so they have every committed record too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<BrokerId>,
    /// Left ISR or ELR because they may have lost data, and have not been in sync since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lossy: Vec<BrokerId>,
    /// Replicas whose log failed under the present incarnation of their broker, which serves others: they
    /// neither lead nor join the ISR before that broker registers anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<BrokerId>,
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    /// The leader was elected without having every committed record for certain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovering: bool,
    /// The reassignment under way empties a cordoned broker (and ends if that is called off).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The reassignment under way keeps brokers even (and is called off if its newcomer stays away).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub balancing: bool,
}

impl Partition {
    /// Whether replicas are being added or taken away.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The number of replicas that users were promised: those of an unfinished reassignment do not count.
    pub fn replication_factor(&self) -> usize {
        self.replicas.len().saturating_sub(self.adding.len()).max(1)
    }

    /// Whether this replica's log failed while its broker goes on.
    pub fn is_offline(&self, replica: BrokerId) -> bool {
        self.offline.contains(&replica)
    }

    /// Whether all who had every record may have lost some, so that the longest log must lead.
    pub fn wants_log_ends(&self) -> bool {
        self.leader.is_none() && self.isr.is_empty() && self.elr.is_empty()
    }
}

impl Image {
    /// The image of a cluster in which nothing has happened yet.
    pub fn genesis(cluster_id: ClusterId) -> Self {
        let position = Position {
            epoch: ControllerEpoch(0),
            claim_id: ClaimId(0),
            seq: Seq(0),
        };
        Self {
            cluster_id,
            position,
            claims: Vector::unit(Claim {
                epoch: position.epoch,
                claim_id: position.claim_id,
                first_seq: position.seq,
                broker: BrokerId(-1),
                incarnation: Incarnation(-1),
            }),
            brokers: OrdMap::new(),
            topics: OrdMap::new(),
            names: OrdMap::new(),
            broker_configs: Arc::default(),
            group_configs: Arc::default(),
            client_metrics: Arc::default(),
            cluster_configs: Arc::default(),
            static_configs: Arc::default(),
            client_quotas: Arc::default(),
            balancing: Balancing::default(),
            metadata_version: None,
            features: Arc::default(),
            next_producer_id: ProducerId(0),
        }
    }
}
