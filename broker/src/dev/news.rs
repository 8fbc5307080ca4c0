//! What changed between two images, in words for the terminal of `dev`. Pure.

use leasehold_metadata::image::{Image, Partition};
use std::sync::Arc;

/// At most so many elections are printed one by one; the rest are counted.
const DETAILED: usize = 12;

/// One line for each thing that a person at the terminal wants to know, in order of weight.
pub fn between(old: &Image, new: &Image) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(was), Some(is)) = (old.claims.last(), new.claims.last())
        && was.claim_id != is.claim_id
    {
        lines.push(format!(
            "broker {} is controller, epoch {}",
            is.broker, is.epoch
        ));
    }
    for (id, broker) in &new.brokers {
        let before = old.brokers.get(id).map(|broker| broker.fenced);
        match (before, broker.fenced) {
            (Some(true) | None, false) => lines.push(format!("broker {id} joined")),
            (Some(false), true) => lines.push(format!("broker {id} is fenced: no sign of life")),
            _ => {}
        }
    }
    let elections = elections(old, new);
    let more = elections.len().saturating_sub(DETAILED);
    lines.extend(elections.into_iter().take(DETAILED));
    if more > 0 {
        lines.push(format!("... and {more} more elections"));
    }
    lines
}

fn elections(old: &Image, new: &Image) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, topic) in &new.topics {
        let before = old.topics.get(id);
        if before.is_some_and(|before| Arc::ptr_eq(before, topic)) {
            continue;
        }
        for (index, now) in topic.partitions.iter().enumerate() {
            let was = before.and_then(|topic| topic.partitions.get(index));
            lines.extend(was.and_then(|was| election(&topic.name, index, was, now)));
        }
    }
    lines
}

fn election(topic: &str, index: usize, was: &Partition, now: &Partition) -> Option<String> {
    if was.leader == now.leader {
        return None;
    }
    let unclean = if now.recovering {
        ", recovering: records may be lost"
    } else {
        ""
    };
    Some(match (was.leader, now.leader) {
        (Some(from), Some(to)) => {
            format!(
                "{topic}-{index}: leader {from} -> {to}, leader epoch {}{unclean}",
                now.leader_epoch
            )
        }
        (None, Some(to)) => format!(
            "{topic}-{index}: leader {to}, leader epoch {}{unclean}",
            now.leader_epoch
        ),
        (_, None) => format!(
            "{topic}-{index}: no leader, leader epoch {}",
            now.leader_epoch
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::image::Topic;
    use leasehold_types::{BrokerId, ClusterId, LeaderEpoch, TopicId};

    fn image(id: TopicId, leader: Option<i32>, epoch: i32) -> Image {
        let mut image = Image::genesis(ClusterId("c".to_owned()));
        let partition = Partition {
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch(epoch),
            ..Partition::default()
        };
        let topic = Topic {
            id,
            name: "orders".to_owned(),
            internal: false,
            partitions: vec![Arc::new(partition)],
            configs: Default::default(),
        };
        image.topics.insert(id, Arc::new(topic));
        image
    }

    #[test]
    fn an_election_is_told_with_both_leaders_and_the_epoch() {
        let id = TopicId::random();
        let lines = between(&image(id, Some(1), 3), &image(id, Some(2), 4));
        assert_eq!(lines, ["orders-0: leader 1 -> 2, leader epoch 4"]);
        let lines = between(&image(id, Some(1), 3), &image(id, None, 4));
        assert_eq!(lines, ["orders-0: no leader, leader epoch 4"]);
        assert!(between(&image(id, Some(1), 3), &image(id, Some(1), 3)).is_empty());
    }
}
