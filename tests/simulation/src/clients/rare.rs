//! What administrators rarely ask for, much of which must be refused: nobody waits for the answers, all is judged by the
//! records.

use crate::core::Core;
use leasehold_metadata::balance::{Balancing, Mode};
use leasehold_metadata::features::{Level, METADATA_VERSION};
use leasehold_metadata::quotas::{QuotaEntity, QuotaLimit, Who};
use leasehold_metadata::rpc::{
    AdminRequest, BrokerEndpoints, ConfigChange, ConfigChanges, ConfigOp, ConfigTarget, Direction,
    FeatureUpdate, MorePartitions, NewTopic, QuotaChange, QuotaChanges,
};
use leasehold_types::{BrokerId, TopicId};
use rand::Rng as _;
use rand::seq::SliceRandom as _;

/// Names that no topic can have, and some that one can.
const NAMES: [&str; 7] = ["", ".", "a b", "..", "T", "t", "fine"];

/// One of them, for `topic`.
pub(super) fn anything(core: &mut Core, topic: String) -> AdminRequest {
    match core.rng.random_range(0..8) {
        0 | 1 => AdminRequest::SetBalancing {
            balancing: Balancing {
                mode: [Mode::Auto, Mode::Auto, Mode::PlanOnly, Mode::Off]
                    [core.rng.random_range(0..4)],
                max_moves: core.rng.random_range(0..3),
                bytes_per_second: None,
                due: true,
            },
        },
        2 => assigned(core, topic),
        3 => no_topic(core),
        4 => AdminRequest::AlterConfigs {
            resources: vec![change(core, topic)],
            validate_only: core.chance(100),
        },
        5 => quota(core),
        6 => AdminRequest::UpdateFeatures {
            updates: vec![FeatureUpdate {
                name: match core.chance(900) {
                    true => METADATA_VERSION.to_owned(),
                    false => "another".to_owned(),
                },
                level: Level(core.rng.random_range(0..5)),
                direction: [Direction::Up, Direction::DownIfSafe, Direction::Down]
                    [core.rng.random_range(0..3)],
            }],
            validate_only: core.chance(300),
        },
        _ => match core.chance(700) {
            true => AdminRequest::UnregisterBroker {
                broker: any_broker(core),
            },
            false => AdminRequest::SetEndpoints {
                brokers: vec![BrokerEndpoints {
                    broker: any_broker(core),
                    listeners: Default::default(),
                }],
            },
        },
    }
}

fn any_broker(core: &mut Core) -> BrokerId {
    let node = core.rng.random_range(0..=core.nodes.len());
    BrokerId(i32::try_from(node).unwrap_or(-1))
}

/// Two brokers, at times one twice, or one that there is not.
fn brokers(core: &mut Core) -> Vec<BrokerId> {
    let mut all: Vec<BrokerId> = (0..core.nodes.len()).map(super::admin::broker).collect();
    all.shuffle(&mut core.rng);
    all.truncate(2);
    if core.chance(200) {
        all[0] = any_broker(core);
    }
    all
}

/// One more partition, where its asker wants it.
fn assigned(core: &mut Core, topic: String) -> AdminRequest {
    let now = core
        .check
        .topics
        .iter()
        .find(|(_, known)| known.name == topic);
    let id = now.map(|(id, _)| id.clone()).unwrap_or_default();
    let count = core.check.parts.keys().filter(|(of, _)| *of == id).count();
    let count = i32::try_from(count).unwrap_or(0) + 1;
    AdminRequest::CreatePartitions {
        topics: vec![MorePartitions {
            name: topic,
            count: count.min(super::admin::MOST),
            assignments: Some(vec![brokers(core)]),
        }],
        validate_only: core.chance(500),
    }
}

/// A topic that cannot be, or is only asked about.
fn no_topic(core: &mut Core) -> AdminRequest {
    let mut topic = NewTopic {
        name: NAMES[core.rng.random_range(0..NAMES.len())].to_owned(),
        id: TopicId(uuid::Uuid::from_u128(core.rng.random())),
        ..NewTopic::with_defaults("")
    };
    if core.chance(500) {
        let count = core.rng.random_range(1..3);
        topic.assignments = (0..count).map(|n| (n * 2 - n, brokers(core))).collect();
        topic.partitions = if core.chance(100) { 1 } else { -1 };
        topic.replication_factor = -1;
    } else {
        topic.partitions = core.rng.random_range(-2..3);
        topic.replication_factor = core.rng.random_range(-2..6);
    }
    let twice = core.chance(200);
    let topics = if twice {
        vec![topic.clone(), topic]
    } else {
        vec![topic]
    };
    AdminRequest::CreateTopics {
        topics,
        validate_only: true,
    }
}

/// A setting of a broker, a list, or one that nobody knows.
fn change(core: &mut Core, topic: String) -> ConfigChanges {
    let ops = [
        ConfigOp::Set,
        ConfigOp::Append,
        ConfigOp::Subtract,
        ConfigOp::Delete,
    ];
    let (target, key, value) = match core.rng.random_range(0..4) {
        0 => (
            ConfigTarget::Broker(any_broker(core)),
            "leader.replication.throttled.rate",
            "100000000",
        ),
        1 => (
            ConfigTarget::Topic(topic),
            "follower.replication.throttled.replicas",
            ["0:0", "0:1", "*"][core.rng.random_range(0..3)],
        ),
        2 => (ConfigTarget::Topic(topic), "no.such.key", "1"),
        _ => (
            ConfigTarget::Topic("nowhere".to_owned()),
            "flush.ms",
            "1000",
        ),
    };
    let op = ops[core.rng.random_range(0..ops.len())];
    ConfigChanges {
        target,
        replace_all: false,
        changes: vec![ConfigChange {
            key: key.to_owned(),
            op,
            value: (op != ConfigOp::Delete).then(|| value.to_owned()),
        }],
    }
}

fn quota(core: &mut Core) -> AdminRequest {
    let key = ["producer_byte_rate", "request_percentage", "nothing"][core.rng.random_range(0..3)];
    let limit = match core.chance(300) {
        true => None,
        false => QuotaLimit::new(key, 1e6).ok(),
    };
    let client = core.chance(500).then(|| Who::of(Some("someone")));
    AdminRequest::AlterClientQuotas {
        entities: vec![QuotaChanges {
            entity: QuotaEntity {
                user: core.chance(500).then(|| Who::of(None)),
                client_id: client,
            },
            changes: vec![QuotaChange {
                key: key.to_owned(),
                limit,
            }],
        }],
        validate_only: core.chance(100),
    }
}
