//! Kafka's `range`: of each topic, its partitions in order over its subscribers in order, the first of
//! them with one more where it does not divide. Members with equal subscriptions thus get the same
//! numbers of all topics, which joins of co-partitioned topics need.

use super::{Question, Shares, Subscriber};
use leasehold_types::TopicId;
use std::collections::BTreeMap;
use std::sync::Arc;

struct Dealing {
    each: i32,
    /// So many members still get one more.
    extra: i32,
    next: i32,
}

pub(super) fn assign(question: &Question) -> Shares {
    let mut order: Vec<(&Arc<str>, &Subscriber)> = question.members.iter().collect();
    // Static members come first, by what stays of them over a restart.
    order.sort_by_key(|(id, member)| match &member.instance {
        Some(instance) => (false, instance.clone()),
        None => (true, Arc::clone(id)),
    });
    let mut subscribers: BTreeMap<TopicId, i32> = BTreeMap::new();
    for (_, member) in &order {
        for topic in &member.topics {
            *subscribers.entry(*topic).or_default() += 1;
        }
    }
    let deal = |(topic, members): (TopicId, i32)| {
        let partitions = question.partitions(&topic);
        let dealing = Dealing {
            each: partitions / members,
            extra: partitions % members,
            next: 0,
        };
        (topic, dealing)
    };
    let mut dealings: BTreeMap<TopicId, Dealing> = subscribers.into_iter().map(deal).collect();
    let mut shares = Shares::new();
    for (id, member) in order {
        let share = shares.entry(id.clone()).or_default();
        for topic in &member.topics {
            let Some(dealing) = dealings.get_mut(topic) else {
                continue;
            };
            let more = i32::from(dealing.extra > 0);
            dealing.extra -= more;
            let end = dealing.next + dealing.each + more;
            if dealing.next < end {
                share.insert(*topic, (dealing.next..end).collect());
            }
            dealing.next = end;
        }
    }
    shares
}
