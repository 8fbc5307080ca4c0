//! What administrators ask for besides topics: nobody waits for the answers, all is judged by the records.

use super::any_partition;
use crate::check::name_of;
use crate::core::Core;
use crate::disk::Key;
use leasehold_metadata::rpc::{
    AdminRequest, ConfigChange, ConfigChanges, ConfigOp, ConfigTarget, ElectionKind,
    MorePartitions, Reassignment,
};
use leasehold_types::BrokerId;
use rand::Rng as _;
use rand::seq::SliceRandom as _;

pub(super) fn broker(node: usize) -> BrokerId {
    BrokerId(i32::try_from(node).unwrap_or(-1))
}

/// The most partitions that a topic gets.
pub(super) const MOST: i32 = 4;

/// A partition is to be on two or more other brokers.
pub(super) fn reassign(core: &mut Core) -> Option<AdminRequest> {
    let key = any_partition(core)?;
    let topic = core.check.topics.get(&name_of(key).0)?.name.clone();
    let mut brokers: Vec<BrokerId> = (0..core.nodes.len()).map(broker).collect();
    brokers.shuffle(&mut core.rng);
    brokers.truncate(core.rng.random_range(2..=3));
    core.note(format!("wish  {topic}-{} on {brokers:?}", key.1));
    let replicas = match core.chance(100) {
        true => None,
        false => Some(brokers),
    };
    let item = Reassignment {
        topic,
        partition: key.1,
        replicas,
    };
    Some(AdminRequest::AlterReassignments {
        items: vec![item],
        allow_replication_factor_change: true,
    })
}

/// A partition is to be led by a broker that has no replica of it yet.
pub(super) fn move_away(core: &mut Core, key: Key) {
    let name = name_of(key);
    let Some((part, topic)) = core
        .check
        .parts
        .get(&name)
        .zip(core.check.topics.get(&name.0))
    else {
        return;
    };
    let id = |node: &usize| i64::try_from(*node).unwrap_or(-1);
    let mut nodes = 0..core.nodes.len();
    let Some(fresh) = nodes.find(|node| !part.replicas.contains(&id(node))) else {
        return;
    };
    let others = 0..core.nodes.len();
    let stays = |node: &usize| part.replicas.contains(&id(node)) && part.leader != Some(id(node));
    let brokers: Vec<BrokerId> = std::iter::once(fresh)
        .chain(others.filter(stays))
        .map(broker)
        .collect();
    let (topic, partition) = (topic.name.clone(), key.1);
    core.note(format!("wish  {topic}-{partition} on {brokers:?}"));
    let request = AdminRequest::AlterReassignments {
        items: vec![Reassignment {
            topic,
            partition,
            replicas: Some(brokers),
        }],
        allow_replication_factor_change: true,
    };
    super::ask_for(core, request);
}

/// One of the rarer wishes.
pub(super) fn anything(core: &mut Core) -> Option<AdminRequest> {
    // The coordinators' own has the number of partitions and the settings that it began with, as in any cluster
    // in its senses.
    let key = any_partition(core).filter(|key| !core.check.is_internal(*key))?;
    let topic = core.check.topics.get(&name_of(key).0)?.name.clone();
    let request = match core.rng.random_range(0..9) {
        6.. => super::rare::anything(core, topic),
        0 => AdminRequest::CreatePartitions {
            topics: vec![MorePartitions {
                name: topic,
                count: core.rng.random_range(1..=MOST),
                assignments: None,
            }],
            validate_only: core.chance(100),
        },
        1 => AdminRequest::AlterConfigs {
            resources: vec![change(core, topic)],
            validate_only: core.chance(100),
        },
        2 => {
            let kind = match core.chance(200) {
                true => ElectionKind::Unclean,
                false => ElectionKind::Preferred,
            };
            let all = core.chance(300);
            AdminRequest::ElectLeaders {
                kind,
                partitions: (!all).then(|| vec![(topic, key.1)]),
            }
        }
        3 => AdminRequest::SetReplicationFactor {
            topics: vec![(topic, core.rng.random_range(2..=3))],
        },
        4 => {
            let node = core.rng.random_range(0..core.nodes.len());
            let cordon = core.nodes.len() > 3 && core.chance(400);
            AdminRequest::Cordon {
                brokers: cordon.then(|| broker(node)).into_iter().collect(),
            }
        }
        _ => AdminRequest::UnregisterBroker {
            broker: broker(core.nodes.len()),
        },
    };
    core.note(format!("wish  {request:?}"));
    Some(request)
}

/// Any setting of any topic.
pub(super) fn settle_something(core: &mut Core) {
    let key = any_partition(core).filter(|key| !core.check.is_internal(*key));
    let topic = key.and_then(|key| core.check.topics.get(&name_of(key).0));
    if let Some(topic) = topic.map(|topic| topic.name.clone()) {
        let request = AdminRequest::AlterConfigs {
            resources: vec![change(core, topic)],
            validate_only: false,
        };
        super::ask_for(core, request);
    }
}

/// A topic's settings change, or that of all topics, in ways that change no promise.
fn change(core: &mut Core, topic: String) -> ConfigChanges {
    let (key, value) = match core.rng.random_range(0..5) {
        0 => ("segment.ms", core.rng.random_range(200..3_000)),
        1 => ("index.interval.bytes", core.rng.random_range(50..500)),
        2 => ("flush.messages", core.rng.random_range(1..20)),
        3 => ("flush.ms", core.rng.random_range(100..2_000)),
        _ => ("segment.index.bytes", core.rng.random_range(40..400)),
    };
    // What has segments rolled would have the coordinators' log compacted, too, which the checker cannot follow.
    let rolls = key.starts_with("segment.");
    let target = match !rolls && core.chance(200) {
        true => ConfigTarget::Cluster,
        false => ConfigTarget::Topic(topic),
    };
    let delete = core.chance(150);
    ConfigChanges {
        target,
        replace_all: false,
        changes: vec![ConfigChange {
            key: key.to_owned(),
            op: if delete {
                ConfigOp::Delete
            } else {
                ConfigOp::Set
            },
            value: (!delete).then(|| value.to_string()),
        }],
    }
}
