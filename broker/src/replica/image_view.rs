//! From the metadata image to what replicas need: views, addresses, topic settings.

use super::types::{LeaderHint, PartitionKey};
use super::view::{Member, View};
use leasehold_log::{LogConfig, TimestampType};
use leasehold_metadata::image::{Image, Topic};
use leasehold_types::{BrokerId, Incarnation};
use std::collections::HashMap;

/// Whether `me` is registered with this very process in `image`. Nothing is done on an image that
/// does not say so: it is older than this process, or this process was replaced.
pub fn is_registered(image: &Image, me: BrokerId, incarnation: Incarnation) -> bool {
    image
        .broker(me)
        .is_some_and(|broker| broker.incarnation == incarnation)
}

/// Partition `index` of `topic` as `image` shows it.
pub fn view_of(image: &Image, topic: &Topic, index: i32) -> Option<View> {
    let partition = topic.partition(index)?;
    let member = |id: &BrokerId| {
        let broker = image.broker(*id)?;
        Some(Member {
            id: *id,
            incarnation: broker.incarnation,
            may_join: broker.is_eligible(),
        })
    };
    Some(View {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        effective_min: image.effective_min_isr(topic, partition),
        unclean: image.unclean_election_allowed(topic),
        members: partition.replicas.iter().filter_map(member).collect(),
    })
}

/// Whom `image` names as leader of `key`; `None` if there is no such partition.
pub fn hint_of(image: &Image, key: PartitionKey) -> Option<LeaderHint> {
    let partition = image.partition(&key.0, key.1)?;
    Some(LeaderHint {
        leader: partition.leader,
        epoch: partition.leader_epoch,
    })
}

/// Where a leader serves followers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderAddress {
    pub id: BrokerId,
    pub incarnation: Incarnation,
    pub host: String,
    pub port: u16,
}

/// The addresses of all brokers but `me`.
pub fn addresses(image: &Image, me: BrokerId) -> HashMap<BrokerId, LeaderAddress> {
    let others = image.brokers.iter().filter(|(id, _)| **id != me);
    others
        .map(|(id, broker)| {
            let address = LeaderAddress {
                id: *id,
                incarnation: broker.incarnation,
                host: broker.internal.host.clone(),
                port: broker.internal.port,
            };
            (*id, address)
        })
        .collect()
}

fn value<T: std::str::FromStr>(image: &Image, topic: &Topic, key: &str) -> Option<T> {
    image.topic_config(topic, key)?.trim().parse().ok()
}

/// The log settings of `topic`: its own, else the cluster's, else Kafka's defaults. Values were
/// validated before they were committed; one that cannot be read keeps the default.
pub fn log_config(image: &Image, topic: &Topic) -> LogConfig {
    let mut config = LogConfig::default();
    macro_rules! take {
        ($($field:ident = $key:literal),* $(,)?) => {
            $(if let Some(value) = value(image, topic, $key) { config.$field = value; })*
        };
    }
    take!(
        segment_bytes = "segment.bytes",
        segment_ms = "segment.ms",
        segment_index_bytes = "segment.index.bytes",
        index_interval_bytes = "index.interval.bytes",
        retention_ms = "retention.ms",
        retention_bytes = "retention.bytes",
        max_message_bytes = "max.message.bytes",
        timestamp_before_max_ms = "message.timestamp.before.max.ms",
        timestamp_after_max_ms = "message.timestamp.after.max.ms",
        flush_messages = "flush.messages",
        flush_ms = "flush.ms",
    );
    if value::<String>(image, topic, "message.timestamp.type").as_deref() == Some("LogAppendTime") {
        config.timestamp_type = TimestampType::LogAppendTime;
    }
    config
}
