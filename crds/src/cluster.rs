//! `Cluster`: a set of brokers that share metadata and hold topics.

use crate::condition::Condition;
use crate::listener::{ListenerSpec, ListenerStatus};
use crate::network::NetworkPolicySpec;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a cluster of brokers should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "leasehold.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "lc",
    category = "leasehold",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A cluster of Leasehold brokers, which Kafka clients use as they would use Kafka.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Brokers", type_ = "string", json_path = ".status.brokers", description = "Brokers that serve / brokers wanted"),
    printcolumn(name = "Controller", type_ = "string", json_path = ".status.controller"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.controllerEpoch", description = "Controller epoch"),
    printcolumn(name = "Rolling", type_ = "string", json_path = ".status.conditions[?(@.type=='Rolling')].reason", priority = 1),
    printcolumn(name = "Balanced", type_ = "string", json_path = ".status.conditions[?(@.type=='Balanced')].reason", priority = 1),
    printcolumn(name = "Topics", type_ = "integer", json_path = ".status.topics"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "Under-Replicated", type_ = "integer", json_path = ".status.underReplicatedPartitions"),
    printcolumn(name = "Offline", type_ = "integer", json_path = ".status.offlinePartitions", priority = 1),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40").message("a Cluster's name is part of its pods' and Services' names: at most 40 lower-case letters, digits and '-', beginning with a letter and without dots"),
    validation = Rule::new("self.spec.replicas > 0 || self.spec.storage.type != 'Ephemeral'").message("replicas: 0 keeps the disks and stops the brokers, but with storage.type Ephemeral every record would be lost: delete the Cluster if that is meant"),
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// How many brokers. 0 stops them all and keeps disks and metadata.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 500))]
    pub replicas: i32,

    /// Image of the brokers. Default: the operator's own image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When the kubelet pulls the image. Default: Kubernetes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,

    /// Secrets with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalReference>,

    /// Broker configuration by Kafka's names, such as `min.insync.replicas: 2`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::kafka_config")]
    pub config: BTreeMap<String, serde_json::Value>,

    /// Where the brokers keep their logs.
    pub storage: StorageSpec,

    /// What happens to metadata and volumes when the Cluster is deleted. With `Retain`, applying
    /// the same Cluster again brings the data back.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,

    /// How clients come in. Without a listener of type `Internal` there is one besides, `internal`, on port 9092. To
    /// add or remove one restarts the brokers, one after the other; a changed address restarts none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(a, self.exists_one(b, b.port == a.port))").message("each listener has a port of its own on the brokers: two of them have the same"),
        validation = Rule::new("self.exists(l, l.type == 'Internal') || self.all(l, l.port != 9092 && l.name != 'internal')").message("the listener that is there without one of type Internal has the name internal and the port 9092: take others, or add a listener of type Internal")
    )]
    #[schemars(length(max = 8))]
    pub listeners: Vec<ListenerSpec>,

    /// Who may reach the brokers' pods, apart from their listeners. A change restarts nobody.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,

    /// CPU and memory of a broker's container, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::preserved_object")]
    pub resources: Option<serde_json::Value>,

    /// How replicas are spread over racks.
    #[serde(default)]
    pub rack: RackSpec,

    /// How brokers are restarted when something that they read at their start has changed.
    #[serde(default)]
    pub rolling: RollingSpec,

    /// How replicas and leaders are kept even over the brokers.
    #[serde(default)]
    pub balancing: BalancingSpec,

    /// Whether topics that clients made get Topic objects too, which show them and wish for nothing.
    #[serde(default)]
    pub client_topics: ClientTopics,

    /// How long a broker has to hand over its leaders before it is killed.
    #[serde(default = "default_grace")]
    #[x_kube(validation = Rule::new("self >= 60").message("a broker needs at least 60 seconds to hand over its leaders: set terminationGracePeriodSeconds to 60 or more"))]
    #[schemars(range(max = 86_400))]
    pub termination_grace_period_seconds: i64,

    /// DNS domain of the Kubernetes cluster; part of the addresses that clients are told.
    #[serde(default = "default_domain")]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("clusterDomain must be a DNS name such as cluster.local"))]
    #[schemars(length(min = 1, max = 253))]
    pub cluster_domain: String,

    /// Overrides for the brokers' pods: `metadata` (labels, annotations) and `spec` as in a pod
    /// template. Containers are merged by name; the broker's is called `broker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::preserved_object")]
    pub pod_template: Option<serde_json::Value>,
}

fn default_replicas() -> i32 {
    3
}

fn default_grace() -> i64 {
    60
}

fn default_domain() -> String {
    "cluster.local".to_owned()
}

/// What becomes of topics that clients made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientTopics {
    /// Each has a Topic object, with the label `leasehold.dev/made-by: client`.
    #[default]
    Show,
    /// They have none, and those that were made for them go.
    Hide,
}

/// Names another object in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// When the kubelet pulls an image.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Where a broker keeps its log.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == oldSelf.type").message("storage.type cannot be changed: the brokers' data would be left behind; make a new Cluster"))]
#[x_kube(validation = Rule::new("self.type == 'Ephemeral' || has(self.size)").message("storage.size is needed, such as 100Gi; or set storage.type to Ephemeral for data that may be lost"))]
#[x_kube(validation = Rule::new("!has(oldSelf.size) || has(self.size)").message("storage.size cannot be taken away"))]
#[x_kube(validation = Rule::new("!has(oldSelf.size) || !has(self.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0").message("storage.size can only grow: no volume becomes smaller"))]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storage.storageClassName cannot be changed: the volume claims of a StatefulSet are fixed"))]
#[x_kube(validation = Rule::new("self.volumes == oldSelf.volumes").message("storage.volumes cannot be changed in this release: the replicas of a volume that is taken away would be lost, and a new one would stay empty; make a new Cluster"))]
#[x_kube(validation = Rule::new("self.volumes == 1 || self.type == 'Persistent'").message("several storage.volumes are for storage.type Persistent: an Ephemeral broker has the one directory of its pod"))]
pub struct StorageSpec {
    /// `Persistent`: volumes of each broker's own. `Ephemeral`: lost with the pod; for trying things out.
    #[serde(rename = "type", default)]
    pub kind: StorageKind,

    /// Size of each of a broker's volumes, such as `100Gi`; with `Ephemeral`, the limit of the directory. It can grow where
    /// the StorageClass allows it (`allowVolumeExpansion`), without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("storage.size must be a quantity above zero, such as 100Gi"))]
    #[schemars(length(min = 1, max = 32))]
    pub size: Option<String>,

    /// How many volumes each broker has, each of `size`: its replicas are spread over them, and one that fails takes
    /// only those with it that lie there.
    #[serde(default = "one_volume")]
    #[schemars(range(min = 1, max = 8))]
    pub volumes: i32,

    /// StorageClass of the volumes. Default: the Kubernetes cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,

    /// What happens to the volume of a broker that was drained and removed.
    #[serde(default)]
    pub when_scaled: ScalePolicy,

    /// What happens when a broker's volume is gone for good: its PersistentVolume was deleted, or can be used only on
    /// nodes that are no more.
    #[serde(default)]
    pub on_loss: LossPolicy,
}

fn one_volume() -> i32 {
    1
}

/// What happens when a broker's volume is gone for good.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossPolicy {
    /// The condition StorageReady names the claim, and the commands that let the broker begin with an empty volume.
    #[default]
    Hold,
    /// The operator does so itself, unless the broker has the last replica in sync of some partition.
    Replace,
}

/// The kind of a broker's storage.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageKind {
    #[default]
    Persistent,
    Ephemeral,
}

/// What happens to the volume of a broker that was scaled away.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScalePolicy {
    #[default]
    Retain,
    Delete,
}

/// What happens to data when a Cluster is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReclaimPolicy {
    #[default]
    Retain,
    Delete,
}

/// How replicas are spread over racks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RackSpec {
    /// Label of the nodes whose value is a broker's rack.
    #[serde(default = "default_topology_key")]
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
}

fn default_topology_key() -> String {
    "topology.kubernetes.io/zone".to_owned()
}

impl Default for RackSpec {
    fn default() -> Self {
        Self {
            topology_key: default_topology_key(),
        }
    }
}

/// How brokers are restarted: one (or one rack) at a time, the controller last, the next only when the one before is ready,
/// unfenced and back in every ISR.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RollingSpec {
    /// How long every broker must have been ready before the next one goes, so that clients and DNS know the
    /// new address of the last.
    #[serde(default = "default_settle")]
    #[schemars(range(min = 0, max = 3600))]
    pub settle_seconds: i32,

    /// What to do where a partition needs every one of its replicas for acks=all (replication factor 1, or
    /// min.insync.replicas as large as it): `Refuse` restarts none of its brokers, and does not let them be
    /// evicted; `Proceed` lets such partitions be unavailable meanwhile.
    #[serde(default)]
    pub when_unavailable: UnavailablePolicy,

    /// What goes at the same time: `Broker`, one broker; `Rack`, as many brokers of one rack as partitions can
    /// do without, one rack after the other.
    #[serde(default)]
    pub unit: RollingUnit,
}

/// What is restarted at the same time.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RollingUnit {
    #[default]
    Broker,
    Rack,
}

fn default_settle() -> i32 {
    10
}

impl Default for RollingSpec {
    fn default() -> Self {
        Self {
            settle_seconds: default_settle(),
            when_unavailable: UnavailablePolicy::default(),
            unit: RollingUnit::default(),
        }
    }
}

/// What becomes of partitions that cannot do without any of their replicas.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnavailablePolicy {
    #[default]
    Refuse,
    Proceed,
}

/// How brokers are kept even: when brokers came or went for good, the controller moves as few replicas as that
/// takes, and leaders. A change restarts nobody.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BalancingSpec {
    /// `Auto`: the controller moves by itself. `PlanOnly`: the condition `Balanced` tells what would move, and
    /// nothing moves. `Off`: nothing moves. What moves already ends in any case.
    #[serde(default)]
    pub mode: BalancingMode,

    /// Partitions that gain a replica at the same time.
    #[serde(default = "default_max_moves")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_moves: i32,

    /// What each broker sends at most, in bytes per second, to replicas that are being moved or drained; 0
    /// for no bound. It must be more than producers write to a partition that moves, or the move never ends.
    #[serde(default = "default_move_rate")]
    #[schemars(range(min = 0))]
    pub bytes_per_second: i64,
}

fn default_max_moves() -> i32 {
    8
}

fn default_move_rate() -> i64 {
    32 << 20
}

impl Default for BalancingSpec {
    fn default() -> Self {
        Self {
            mode: BalancingMode::default(),
            max_moves: default_max_moves(),
            bytes_per_second: default_move_rate(),
        }
    }
}

/// Whether the controller moves replicas and leaders by itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalancingMode {
    #[default]
    Auto,
    PlanOnly,
    Off,
}

/// What the cluster is. Derived from its metadata; losing it loses nothing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's id, fixed at its genesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cluster_id: Option<String>,
    /// Pods of brokers.
    #[serde(default)]
    pub replicas: i32,
    /// Selects the brokers' pods; for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Brokers that are registered and unfenced.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods of today's image, resources, configuration and pod template.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Brokers that serve / brokers wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub brokers: Option<String>,
    /// The pod that is controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub controller: Option<String>,
    /// Rises at every claim of the controller role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_epoch: Option<i64>,
    /// Topics, internal ones included.
    #[serde(default)]
    pub topics: i32,
    /// Partitions of all topics.
    #[serde(default)]
    pub partitions: i32,
    /// Partitions that lack a replica in sync.
    #[serde(default)]
    pub under_replicated_partitions: i32,
    /// Partitions without a leader.
    #[serde(default)]
    pub offline_partitions: i32,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub bootstrap: Option<String>,
    /// How clients come in, where `spec.listeners` is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub listeners: Vec<ListenerStatus>,
    /// `Ready`, `Accepted`, `ListenersReady`, `Rolling`, `Draining`, `Balanced`, `DisruptionAllowed`, `Paused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
