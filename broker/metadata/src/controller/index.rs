//! Who hosts what, kept beside the image so that losing one broker does not mean looking at every topic.

use crate::image::{Image, Partition};
use leasehold_types::{BrokerId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A partition's place in the image.
pub(super) type At = (TopicId, i32);

#[derive(Default)]
pub(super) struct Index {
    hosted: BTreeMap<BrokerId, BTreeSet<At>>,
    leaders: BTreeMap<BrokerId, usize>,
    /// Partitions without a leader.
    pub leaderless: BTreeSet<At>,
    /// Partitions of which the longest log must be found ([`Partition::wants_log_ends`]).
    pub unsure: BTreeSet<At>,
    /// Partitions that are being moved off cordoned brokers.
    pub draining: BTreeSet<At>,
    /// Partitions that are being moved to keep brokers even.
    pub balancing: BTreeSet<At>,
}

impl Index {
    pub fn of(image: &Image) -> Self {
        let mut index = Self::default();
        for topic in image.topics.values() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                index.add((topic.id, number), partition);
            }
        }
        index
    }

    pub fn add(&mut self, at: At, p: &Partition) {
        for &broker in &p.replicas {
            self.hosted.entry(broker).or_default().insert(at);
        }
        match p.leader {
            Some(leader) => *self.leaders.entry(leader).or_default() += 1,
            None => {
                self.leaderless.insert(at);
            }
        }
        if p.wants_log_ends() {
            self.unsure.insert(at);
        }
        if p.draining {
            self.draining.insert(at);
        }
        if p.balancing {
            self.balancing.insert(at);
        }
    }

    pub fn remove(&mut self, at: At, p: &Partition) {
        for broker in &p.replicas {
            if let Some(hosted) = self.hosted.get_mut(broker) {
                hosted.remove(&at);
            }
        }
        if let Some(count) = p.leader.and_then(|leader| self.leaders.get_mut(&leader)) {
            *count = count.saturating_sub(1);
        }
        self.leaderless.remove(&at);
        self.unsure.remove(&at);
        self.draining.remove(&at);
        self.balancing.remove(&at);
    }

    /// What `broker` is a replica of.
    pub fn hosted(&self, broker: BrokerId) -> impl Iterator<Item = At> {
        self.hosted.get(&broker).into_iter().flatten().copied()
    }

    pub fn replicas(&self, broker: BrokerId) -> usize {
        self.hosted.get(&broker).map_or(0, BTreeSet::len)
    }

    /// Partitions that have a leader.
    pub fn led(&self) -> usize {
        self.leaders.values().sum()
    }

    pub fn leaders(&self, broker: BrokerId) -> usize {
        self.leaders.get(&broker).copied().unwrap_or(0)
    }
}
