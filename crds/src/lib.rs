//! The custom resources of Leasehold: [`Cluster`] and [`Topic`], group `leasehold.dev`, v1alpha1.
//!
//! These types are the only definition: the YAML beside them (`crds/*.yaml`) and in the Helm chart
//! is generated from them (`cargo run -p leasehold-crds -- --write`), and a test fails when it is
//! not current. Every list, map and string has a bound, so that the API server can price the
//! validation rules; every rule says what is wrong and what to do.

mod cluster;
mod condition;
mod listener;
mod network;
mod schema;
mod topic;
mod yaml;

pub use cluster::{
    BalancingMode, BalancingSpec, ClientTopics, Cluster, ClusterSpec, ClusterStatus,
    LocalReference, LossPolicy, PullPolicy, RackSpec, ReclaimPolicy, RollingSpec, RollingUnit,
    ScalePolicy, StorageKind, StorageSpec, UnavailablePolicy,
};
pub use condition::{Condition, Conditions};
pub use listener::{ListenerBroker, ListenerKind, ListenerSpec, ListenerStatus, TrafficPolicy};
pub use network::{IpBlock, Labels, NetworkPolicySpec, Peer};
pub use topic::{
    Fulfilled, PartitionState, Topic, TopicDrift, TopicReclaimPolicy, TopicSpec, TopicStatus,
};
pub use yaml::{Generated, generated};

/// The API group of all kinds.
pub const GROUP: &str = "leasehold.dev";
/// Label on everything that belongs to a cluster; its value is the cluster's name.
pub const CLUSTER_LABEL: &str = "leasehold.dev/cluster";
/// Label on the Services of a listener; its value is the listener's name.
pub const LISTENER_LABEL: &str = "leasehold.dev/listener";
/// Label on a Topic that the operator made for a topic that it found; its value is [`MADE_BY_CLIENT`].
pub const MADE_BY_LABEL: &str = "leasehold.dev/made-by";
/// The topic is a client's doing: an AdminClient's, Kafka Streams', or that of a first Produce.
pub const MADE_BY_CLIENT: &str = "client";
/// Annotation on volumes: the id of the cluster whose data they hold.
pub const CLUSTER_ID_ANNOTATION: &str = "leasehold.dev/cluster-id";
/// Annotation on a Cluster or Topic: with `"true"` the operator leaves the object alone.
pub const PAUSED_ANNOTATION: &str = "leasehold.dev/paused";
/// Annotation on a Cluster whose metadata was lost or put back: makes a head from the brokers' copies. Its
/// value says whose copy counts: `newest`, or a broker's number. The operator takes it off when it is done.
pub const RECOVER_ANNOTATION: &str = "leasehold.dev/recover";
/// Annotation on a pod: the zone of its node, written by the operator, read by the broker.
pub const RACK_ANNOTATION: &str = "leasehold.dev/rack";
/// Annotation on a pod: what its image and static configuration were when it was made.
pub const REVISION_ANNOTATION: &str = "leasehold.dev/revision";
/// Annotation that asks for a restart, whatever its value: on a pod, of that broker; on a Cluster, of all of its
/// brokers, one after the other. It goes with the pod that it was on; the operator takes it off the Cluster
/// when it has passed it on to the pods.
pub const RESTART_ANNOTATION: &str = "leasehold.dev/restart";
/// Annotation on a Cluster that asks for a look at how even its brokers are, whatever its value: as when brokers
/// came or went. The operator takes it off when it has told the controller.
pub const REBALANCE_ANNOTATION: &str = "leasehold.dev/rebalance";
/// Annotation on a Cluster: numbers of brokers, with commas, that are kept empty while they stay. They lead
/// nothing and get no replicas; what they hold moves to the others as far as there is room.
pub const MAINTENANCE_ANNOTATION: &str = "leasehold.dev/maintenance";
/// Finalizer of a Cluster with `reclaimPolicy: Delete`.
pub const CLUSTER_FINALIZER: &str = "leasehold.dev/reclaim";
/// Finalizer of a Topic with `reclaimPolicy: Delete`.
pub const TOPIC_FINALIZER: &str = "leasehold.dev/topic";
