//! Questions to the image.

use super::{Broker, Image, Partition, Position, Topic};
use crate::configs;
use leasehold_types::{BrokerId, TopicId};
use std::sync::Arc;

/// How a position lies to an image's table of claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A point that this image passed through (or is at).
    OnTable,
    /// Ahead of this image on what may be the same line: read the head again.
    Newer,
    /// From before the oldest claim that is still remembered.
    TooOld,
    /// On no line that leads here: one of the two was restored from a copy. Freeze.
    OffTable,
}

/// Where a configuration value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// The topic's own.
    Topic,
    /// Set for the one broker while it runs.
    Broker,
    /// Set for the whole cluster while it runs.
    Cluster,
    /// From the brokers' configuration files.
    Static,
    /// Kafka's default.
    Default,
    /// The group's own.
    Group,
    /// The own one of a subscription to client metrics.
    ClientMetrics,
}

/// What a broker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosted {
    pub leaders: usize,
    pub replicas: usize,
}

impl Image {
    pub fn topic(&self, id: &TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(id)
    }

    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    pub fn partition(&self, topic: &TopicId, partition: i32) -> Option<&Arc<Partition>> {
        self.topic(topic)?.partition(partition)
    }

    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// Whether `broker` is registered, unfenced.
    pub fn is_live(&self, broker: BrokerId) -> bool {
        self.broker(broker).is_some_and(|b| !b.fenced)
    }

    /// Whether `broker` may become leader or join an ISR.
    pub fn is_eligible(&self, broker: BrokerId) -> bool {
        self.broker(broker).is_some_and(|b| b.is_eligible())
    }

    /// Whether `replica` of `partition` is there: its broker unfenced, its log in service.
    pub fn serves(&self, partition: &Partition, replica: BrokerId) -> bool {
        self.is_live(replica) && !partition.is_offline(replica)
    }

    /// Whether `replica` may lead `partition`, or join its ISR.
    pub fn may_lead(&self, partition: &Partition, replica: BrokerId) -> bool {
        self.is_eligible(replica) && !partition.is_offline(replica)
    }

    /// A topic key's value in force: the topic's own, else the cluster's, else the brokers' files',
    /// else Kafka's default. `None` for a key that no topic has, and for keys without a default.
    pub fn topic_config<'a>(&'a self, topic: &'a Topic, key: &str) -> Option<&'a str> {
        self.topic_config_source(topic, key).map(|(value, _)| value)
    }

    /// Like [`Self::topic_config`], and where the value comes from.
    pub fn topic_config_source<'a>(
        &'a self,
        topic: &'a Topic,
        key: &str,
    ) -> Option<(&'a str, ConfigSource)> {
        if let Some(value) = topic.configs.get(key) {
            return Some((value, ConfigSource::Topic));
        }
        self.default_config(key)
    }

    /// Like [`Self::topic_config`] on `broker`, which may have a default of its own.
    pub fn topic_config_at<'a>(
        &'a self,
        broker: BrokerId,
        topic: &'a Topic,
        key: &str,
    ) -> Option<&'a str> {
        self.topic_config_source_at(broker, topic, key)
            .map(|(value, _)| value)
    }

    /// Like [`Self::topic_config_at`], and where the value comes from.
    pub fn topic_config_source_at<'a>(
        &'a self,
        broker: BrokerId,
        topic: &'a Topic,
        key: &str,
    ) -> Option<(&'a str, ConfigSource)> {
        if let Some(value) = topic.configs.get(key) {
            return Some((value, ConfigSource::Topic));
        }
        match self.broker_config(broker, key) {
            Some(value) => Some((value, ConfigSource::Broker)),
            None => self.default_config(key),
        }
    }

    /// What was set for `broker` alone, under the name by which [`crate::dynamic`] keeps it.
    pub fn broker_config(&self, broker: BrokerId, key: &str) -> Option<&str> {
        let values = self.broker_configs.get(&broker)?;
        values.get(key).map(String::as_str)
    }

    /// What was set while brokers run, for `broker` or else for all.
    pub fn dynamic_config(&self, broker: BrokerId, key: &str) -> Option<&str> {
        let for_all = || self.cluster_configs.get(key).map(String::as_str);
        self.broker_config(broker, key).or_else(for_all)
    }

    /// The value of a topic key for topics that do not say otherwise.
    pub fn default_config(&self, key: &str) -> Option<(&str, ConfigSource)> {
        if let Some(value) = self.cluster_configs.get(key) {
            return Some((value, ConfigSource::Cluster));
        }
        if let Some(value) = self.static_configs.get(key) {
            return Some((value, ConfigSource::Static));
        }
        let default = configs::find(key)?.default?;
        Some((default, ConfigSource::Default))
    }

    /// Like [`Self::default_config`], without what was set for the whole cluster.
    pub fn static_config(&self, key: &str) -> Option<&str> {
        let file = self.static_configs.get(key).map(String::as_str);
        file.or_else(|| configs::find(key)?.default)
    }

    /// `min.insync.replicas` of the topic, not yet bounded by any replication factor.
    pub fn min_isr(&self, topic: &Topic) -> usize {
        self.topic_config(topic, configs::MIN_INSYNC_REPLICAS)
            .and_then(|value| value.parse().ok())
            .unwrap_or(1)
            .max(1)
    }

    /// How many in-sync replicas acks=all needs: min(min.insync.replicas, replication factor).
    pub fn effective_min_isr(&self, topic: &Topic, partition: &Partition) -> usize {
        self.min_isr(topic).min(partition.replication_factor())
    }

    /// Whether a replica that is not in sync may lead when no other is left.
    pub fn unclean_election_allowed(&self, topic: &Topic) -> bool {
        self.topic_config(topic, configs::UNCLEAN_LEADER_ELECTION_ENABLE) == Some("true")
    }

    /// What `broker` holds. One pass over everything.
    pub fn hosted(&self, broker: BrokerId) -> Hosted {
        let mut hosted = Hosted::default();
        for partition in self.topics.values().flat_map(|t| &t.partitions) {
            hosted.leaders += usize::from(partition.leader == Some(broker));
            hosted.replicas += usize::from(partition.replicas.contains(&broker));
        }
        hosted
    }

    /// Whether `broker`, which asked to end, leads nothing that another could lead instead.
    pub fn may_stop(&self, broker: BrokerId) -> bool {
        if !self.broker(broker).is_some_and(|b| b.shutting_down) {
            return false;
        }
        !self.topics.values().flat_map(|t| &t.partitions).any(|p| {
            let other = |&r: &BrokerId| r != broker && self.may_lead(p, r);
            p.leader == Some(broker) && p.isr.iter().any(other)
        })
    }

    /// The partitions of which `broker` should report its log's end at its polls: all who had every
    /// record may have lost some, so the longest log must lead. One pass over everything: ask when
    /// the image changed, not at every poll.
    pub fn wanted_log_ends(&self, broker: BrokerId) -> Vec<(TopicId, i32)> {
        let mut wanted = Vec::new();
        for topic in self.topics.values() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.wants_log_ends() && partition.replicas.contains(&broker) {
                    wanted.push((topic.id, index));
                }
            }
        }
        wanted
    }

    /// Whether this image's line of claims leads through `position`, or begins after it.
    pub fn leads_through(&self, position: &Position) -> bool {
        matches!(self.locate(position), Standing::OnTable | Standing::TooOld)
    }

    /// How `position` lies to this image's line of claims. A position is only acceptable on it:
    /// after a restore of the store a new claim may overtake any (epoch, seq).
    pub fn locate(&self, position: &Position) -> Standing {
        let here = &self.position;
        if position.epoch > here.epoch {
            return Standing::Newer;
        }
        let Some(oldest) = self.claims.front() else {
            return Standing::OffTable;
        };
        if position.epoch < oldest.epoch {
            return Standing::TooOld;
        }
        let Some(index) = self.claims.iter().position(|c| c.epoch == position.epoch) else {
            return Standing::OffTable;
        };
        let claim = &self.claims[index];
        if claim.claim_id != position.claim_id || position.seq < claim.first_seq {
            return Standing::OffTable;
        }
        match self.claims.get(index + 1) {
            Some(next) if position.seq >= next.first_seq => Standing::OffTable,
            None if position.seq > here.seq => Standing::Newer,
            _ => Standing::OnTable,
        }
    }
}
