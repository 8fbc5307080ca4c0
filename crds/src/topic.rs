//! `Topic`: a topic that should exist in a cluster.

use crate::condition::Condition;
use crate::{CLUSTER_LABEL, MADE_BY_CLIENT, MADE_BY_LABEL};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a topic should be. The cluster's metadata says what it is; this is the wish.
///
/// Wishes that the cluster cannot fulfil are accepted here and refused in `status`, where they
/// recover as soon as they are mended; only what could never be mended is refused by a rule.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "leasehold.dev",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    shortname = "lt",
    category = "leasehold",
    namespaced,
    status = "TopicStatus",
    derive = "PartialEq",
    doc = "A topic of a Leasehold cluster.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicationFactor"),
    printcolumn(name = "Leaders", type_ = "string", json_path = ".status.leaders", description = "Brokers that lead the first partitions, in order"),
    printcolumn(name = "Under-Replicated", type_ = "integer", json_path = ".status.underReplicatedPartitions"),
    printcolumn(name = "Offline", type_ = "integer", json_path = ".status.offlinePartitions", priority = 1),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Drift", type_ = "string", json_path = ".status.conditions[?(@.type=='Drifted')].message", priority = 1, description = "What others changed that the object wishes otherwise"),
    printcolumn(name = "Made-By", type_ = "string", json_path = ".metadata.labels.leasehold\\.dev/made-by", priority = 1, description = "client where the object only shows what a client made"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.topicName) == has(oldSelf.spec.topicName) && (!has(self.spec.topicName) || self.spec.topicName == oldSelf.spec.topicName) || !has(self.status) || !has(self.status.topicId)").message("spec.topicName cannot be changed once the topic exists: Kafka cannot rename a topic; make a new Topic"),
)]
#[serde(rename_all = "camelCase")]
pub struct TopicSpec {
    /// The Cluster, in the same namespace, that holds the topic.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.cluster cannot be changed: a topic does not move between clusters; make a new Topic"))]
    #[schemars(length(min = 1, max = 63))]
    pub cluster: String,

    /// The topic's name in Kafka, where it differs from the object's: `metadata.name` cannot hold
    /// upper-case letters or `_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub topic_name: Option<String>,

    /// Partitions; may grow, never shrink. Default: the cluster's `num.partitions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub partitions: Option<i32>,

    /// Replicas of each partition. Default: the cluster's `default.replication.factor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 32_767))]
    pub replication_factor: Option<i32>,

    /// Topic configuration by Kafka's names, such as `retention.ms: 3600000`. A key that is taken
    /// out again goes back to the cluster's default; keys set by other tools are left alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::kafka_config")]
    pub config: BTreeMap<String, serde_json::Value>,

    /// Whether deleting this object deletes the topic and its records.
    #[serde(default)]
    pub reclaim_policy: TopicReclaimPolicy,

    /// What becomes of others' changes to what this object wishes, a deletion of the topic included, once
    /// the topic was as wished: `Report` shows them in the condition `Drifted`, and they stay until the spec
    /// is edited; `Revert` shows and undoes them. What this object wishes nothing about is others' to set.
    #[serde(default)]
    pub drift: TopicDrift,
}

impl Topic {
    /// The object for a topic that a client made. It wishes for nothing, and its going deletes nothing.
    pub fn found(object_name: &str, cluster: &str, topic: &str) -> Self {
        let mut found = Self::new(object_name, TopicSpec::found(object_name, cluster, topic));
        let labels = [(CLUSTER_LABEL, cluster), (MADE_BY_LABEL, MADE_BY_CLIENT)];
        found.metadata.labels = Some(labels.map(|(k, v)| (k.into(), v.into())).into());
        found
    }

    /// Whether it is such an object still: one whose spec was edited, or whose label was taken off, is a wish
    /// as any other.
    pub fn is_found(&self) -> bool {
        let labels = self.metadata.labels.as_ref();
        let marked = labels.and_then(|labels| labels.get(MADE_BY_LABEL));
        marked.is_some_and(|by| by == MADE_BY_CLIENT)
            && self.metadata.name.as_ref().is_some_and(|name| {
                let topic = self.topic_name().unwrap_or_default();
                self.spec == TopicSpec::found(name, &self.spec.cluster, topic)
            })
    }

    /// The name in Kafka that it wishes for.
    pub fn topic_name(&self) -> Option<&str> {
        let named = self.spec.topic_name.as_deref();
        named.or(self.metadata.name.as_deref())
    }
}

impl TopicSpec {
    fn found(object_name: &str, cluster: &str, topic: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            topic_name: (topic != object_name).then(|| topic.to_owned()),
            partitions: None,
            replication_factor: None,
            config: BTreeMap::new(),
            reclaim_policy: TopicReclaimPolicy::Retain,
            drift: TopicDrift::Report,
        }
    }
}

/// What becomes of others' changes to a topic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicDrift {
    #[default]
    Report,
    Revert,
}

/// What happens to the topic when its object is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicReclaimPolicy {
    #[default]
    Delete,
    Retain,
}

/// What the topic is. Derived from the cluster's metadata.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The topic's name in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub topic_name: Option<String>,
    /// The topic's id; another topic of the same name has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub topic_id: Option<String>,
    /// Partitions.
    #[serde(default)]
    pub partitions: i32,
    /// Replicas of a partition; the smallest number while it is being changed.
    #[serde(default)]
    pub replication_factor: i32,
    /// Brokers that lead the first partitions, in order; `-` where there is no leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub leaders: Option<String>,
    /// Partitions that have a leader.
    #[serde(default)]
    pub led_partitions: i32,
    /// Partitions that lack a replica in sync.
    #[serde(default)]
    pub under_replicated_partitions: i32,
    /// Partitions without a leader.
    #[serde(default)]
    pub offline_partitions: i32,
    /// When the topic was last as the spec wishes. Differences since then are not this object's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fulfilled: Option<Fulfilled>,
    /// Configuration keys that this object set, so that it can take them back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 256)))]
    pub config_keys: Vec<String>,
    /// The first 64 partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub partition_states: Vec<PartitionState>,
    /// `Ready`; `Drifted` once others changed what the spec wishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A wish that was fulfilled, and for which topic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Fulfilled {
    /// The generation of the spec.
    pub generation: i64,
    /// The id of the cluster: what was true in another one says nothing about this one.
    #[schemars(length(max = 64))]
    pub cluster_id: String,
    /// The id of the topic.
    #[schemars(length(max = 64))]
    pub topic_id: String,
}

/// One partition as the metadata has it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PartitionState {
    /// Its number.
    pub partition: i32,
    /// The broker that leads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<i32>,
    /// Rises by one at every change of the leader.
    pub leader_epoch: i32,
    /// Rises by one at every change of this partition's state.
    pub partition_epoch: i32,
    /// Brokers that hold it; the first is the preferred leader.
    #[schemars(length(max = 64))]
    pub replicas: Vec<i32>,
    /// Replicas in sync.
    #[schemars(length(max = 64))]
    pub isr: Vec<i32>,
    /// Replicas that were in sync when too few were left, and may be elected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub elr: Vec<i32>,
    /// Replicas that a reassignment adds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub adding: Vec<i32>,
    /// Replicas that a reassignment takes away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub removing: Vec<i32>,
    /// Elected from replicas that may have lost records, and not yet back to normal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovering: bool,
}
