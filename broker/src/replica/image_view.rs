//! From the metadata image to what replicas need: views, addresses, topic settings.

use super::throttle::Named;
use super::types::{LeaderHint, PartitionKey};
use super::view::{Member, View};
use leasehold_log::{LogConfig, TimestampType};
use leasehold_metadata::image::{Image, Topic};
use leasehold_types::seams::HashMap;
use leasehold_types::{BrokerId, Incarnation};

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
            may_join: image.may_lead(partition, *id),
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
        moves: partition.balancing || partition.draining,
        throttled_leaders: named(topic, "leader.replication.throttled.replicas", index),
        throttled_followers: named(topic, "follower.replication.throttled.replicas", index),
        members: partition.replicas.iter().filter_map(member).collect(),
    })
}

fn named(topic: &Topic, key: &str, partition: i32) -> Named {
    let list = topic.configs.get(key);
    list.map_or(Named::Nobody, |list| Named::of(list, partition))
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

fn value<T: std::str::FromStr>(image: &Image, me: BrokerId, topic: &Topic, key: &str) -> Option<T> {
    image.topic_config_at(me, topic, key)?.trim().parse().ok()
}

/// The log settings of `topic` at broker `me`: its own, else the broker's, else the cluster's, else Kafka's defaults.
/// Values were validated before they were committed; one that cannot be read keeps the default.
pub fn log_config(image: &Image, me: BrokerId, topic: &Topic) -> LogConfig {
    let mut config = LogConfig::default();
    macro_rules! take {
        ($($field:ident = $key:literal),* $(,)?) => {
            $(if let Some(value) = value(image, me, topic, $key) { config.$field = value; })*
        };
    }
    take!(
        segment_bytes = "segment.bytes",
        segment_ms = "segment.ms",
        segment_jitter_ms = "segment.jitter.ms",
        preallocate = "preallocate",
        file_delete_delay_ms = "file.delete.delay.ms",
        segment_index_bytes = "segment.index.bytes",
        index_interval_bytes = "index.interval.bytes",
        retention_ms = "retention.ms",
        retention_bytes = "retention.bytes",
        compression = "compression.type",
        gzip_level = "compression.gzip.level",
        zstd_level = "compression.zstd.level",
        max_message_bytes = "max.message.bytes",
        timestamp_before_max_ms = "message.timestamp.before.max.ms",
        timestamp_after_max_ms = "message.timestamp.after.max.ms",
        min_cleanable_dirty_ratio = "min.cleanable.dirty.ratio",
        min_compaction_lag_ms = "min.compaction.lag.ms",
        max_compaction_lag_ms = "max.compaction.lag.ms",
        delete_retention_ms = "delete.retention.ms",
        flush_messages = "flush.messages",
        flush_ms = "flush.ms",
    );
    if value::<String>(image, me, topic, "message.timestamp.type").as_deref()
        == Some("LogAppendTime")
    {
        config.timestamp_type = TimestampType::LogAppendTime;
    }
    if let Some(policy) = value::<String>(image, me, topic, "cleanup.policy") {
        let names = |wanted| policy.split(',').any(|part| part.trim() == wanted);
        (config.compact, config.delete) = (names("compact"), names("delete"));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::configs::{Kind, Support, TOPIC_KEYS};
    use leasehold_metadata::image::{Broker, Endpoint, Partition};
    use leasehold_types::{ClusterId, Seq, TopicId};
    use std::sync::Arc;

    fn broker(id: i32) -> Broker {
        let endpoint = Endpoint {
            host: "h".into(),
            port: 1,
        };
        Broker {
            id: BrokerId(id),
            incarnation: Incarnation(10 + i64::from(id)),
            client: endpoint.clone(),
            internal: endpoint,
            http: None,
            rack: None,
            version: String::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
            registered_at: Seq(1),
            changed_at: Seq(1),
            directories: Vec::new(),
            listeners: Default::default(),
            features: Default::default(),
        }
    }

    fn image() -> (Image, Topic) {
        let mut image = Image::genesis(ClusterId("c".into()));
        let fenced = Broker {
            fenced: true,
            ..broker(1)
        };
        let leaving = Broker {
            shutting_down: true,
            ..broker(2)
        };
        for broker in [broker(0), fenced, leaving] {
            image.brokers.insert(broker.id, Arc::new(broker));
        }
        let partition = Partition {
            replicas: (0..4).map(BrokerId).collect(),
            isr: vec![BrokerId(0)],
            ..Partition::default()
        };
        let topic = Topic {
            id: TopicId(uuid::Uuid::from_u128(1)),
            name: "t".into(),
            internal: false,
            partitions: vec![Arc::new(partition)],
            configs: Default::default(),
        };
        (image, topic)
    }

    #[test]
    fn only_a_registered_live_broker_that_stays_may_join() {
        let (image, topic) = image();
        let view = view_of(&image, &topic, 0).unwrap();
        let may_join = |id| view.member(BrokerId(id)).map(|member| member.may_join);
        assert_eq!(
            [0, 1, 2, 3].map(may_join),
            [Some(true), Some(false), Some(false), None]
        );
        assert_eq!(view.incarnation(BrokerId(1)), Some(Incarnation(11)));
        assert_eq!(view_of(&image, &topic, 1), None);
    }

    #[test]
    fn only_the_registered_incarnation_is_this_process() {
        let (image, _) = image();
        assert!(is_registered(&image, BrokerId(0), Incarnation(10)));
        assert!(!is_registered(&image, BrokerId(0), Incarnation(11)));
        assert!(!is_registered(&image, BrokerId(9), Incarnation(10)));
    }

    #[test]
    fn a_topics_own_settings_come_before_the_clusters() {
        let (mut image, mut topic) = image();
        assert_eq!(
            log_config(&image, BrokerId(1), &topic),
            LogConfig::default()
        );
        let cluster = [("retention.ms", "5"), ("segment.bytes", "2000000")];
        let pairs = cluster.map(|(key, value)| (key.to_owned(), value.to_owned()));
        image.cluster_configs = Arc::new(pairs.into());
        let own = [("retention.ms".into(), "6".into())].into();
        image.broker_configs = Arc::new([(BrokerId(1), own)].into());
        let retention = |broker| log_config(&image, BrokerId(broker), &topic).retention_ms;
        assert_eq!((retention(1), retention(2)), (6, 5), "the broker's own");
        topic.configs.insert("retention.ms".into(), "7".into());
        topic
            .configs
            .insert("message.timestamp.type".into(), "LogAppendTime".into());
        let config = log_config(&image, BrokerId(1), &topic);
        assert_eq!((config.retention_ms, config.segment_bytes), (7, 2_000_000));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
    }

    #[test]
    fn every_key_of_a_log_that_is_honoured_reaches_it() {
        let (image, topic) = image();
        // What the metadata and the group coordinator go by, not the log.
        let elsewhere = [
            "min.insync.replicas",
            "unclean.leader.election.enable",
            "leader.replication.throttled.replicas",
            "follower.replication.throttled.replicas",
        ];
        for key in TOPIC_KEYS {
            let value = match key.kind {
                _ if key.support != Support::Full || elsewhere.contains(&key.name) => continue,
                Kind::Boolean => "true",
                Kind::Choice(values) => {
                    let other = values.iter().find(|value| Some(**value) != key.default);
                    other.unwrap()
                }
                Kind::List(_) => "compact",
                Kind::Double { .. } => "0.25",
                _ => "7",
            };
            let mut topic = topic.clone();
            topic.configs.insert(key.name.into(), value.into());
            let config = log_config(&image, BrokerId(1), &topic);
            assert_ne!(config, LogConfig::default(), "{}={value}", key.name);
        }
    }

    #[test]
    fn the_cleanup_policy_says_whether_a_log_is_compacted_deleted_from_or_both() {
        let (image, mut topic) = image();
        for (policy, compact, delete) in [
            ("delete", false, true),
            ("compact", true, false),
            ("compact,delete", true, true),
            ("delete,compact", true, true),
            ("", false, false),
        ] {
            topic.configs.insert("cleanup.policy".into(), policy.into());
            let config = log_config(&image, BrokerId(1), &topic);
            assert_eq!(
                (config.compact, config.delete),
                (compact, delete),
                "{policy}"
            );
        }
        for (key, value) in [
            ("min.cleanable.dirty.ratio", "0.1"),
            ("min.compaction.lag.ms", "2"),
            ("max.compaction.lag.ms", "3"),
            ("delete.retention.ms", "4"),
        ] {
            topic.configs.insert(key.into(), value.into());
        }
        let config = log_config(&image, BrokerId(1), &topic);
        let lags = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
        assert_eq!((lags, config.delete_retention_ms), ((2, 3), 4));
        assert!((config.min_cleanable_dirty_ratio - 0.1).abs() < 1e-9);
    }
}
