//! Who shall have which partitions.
//!
//! Promises, of each: a partition goes to exactly one of the members that subscribe to its topic, and
//! to nobody else; the same question gives the same answer.

mod range;
mod uniform;

#[cfg(test)]
mod tests;

use crate::group::store::consumer::Partitions;
use leasehold_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A server-side assignor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// As even as it goes, and as much as before as it goes.
    Uniform,
    /// Of each topic, neighbouring partitions to each member.
    Range,
}

/// A member, as an assignor sees it.
#[derive(Clone, Debug, Default)]
pub struct Subscriber {
    pub instance: Option<Arc<str>>,
    pub topics: BTreeSet<TopicId>,
    /// Its former target.
    pub before: Partitions,
}

/// What is to be assigned to whom. Topics that do not exist are left out of the subscriptions.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub members: BTreeMap<Arc<str>, Subscriber>,
    /// How many partitions each topic has.
    pub topics: BTreeMap<TopicId, i32>,
}

/// Each member's share.
pub type Shares = BTreeMap<Arc<str>, Partitions>;

impl Assignor {
    /// How many there are.
    pub const COUNT: usize = 2;

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// Reads `group.consumer.assignors`: names with commas between them, each once.
    pub fn list(text: &str) -> Option<[Option<Self>; Self::COUNT]> {
        let mut list = [None; Self::COUNT];
        let mut slots = list.iter_mut();
        let mut seen = Vec::new();
        for name in text.split(',') {
            let assignor = Self::parse(name.trim())?;
            if seen.contains(&assignor) {
                return None;
            }
            seen.push(assignor);
            *slots.next()? = Some(assignor);
        }
        Some(list)
    }

    /// Answers.
    pub fn assign(self, question: &Question) -> Shares {
        match self {
            Self::Uniform => uniform::assign(question),
            Self::Range => range::assign(question),
        }
    }
}

impl Question {
    fn partitions(&self, topic: &TopicId) -> i32 {
        self.topics.get(topic).copied().unwrap_or(0)
    }

    /// Whether `partition` exists and `member` wants it.
    fn wants(&self, member: &Subscriber, topic: &TopicId, partition: i32) -> bool {
        member.topics.contains(topic) && (0..self.partitions(topic)).contains(&partition)
    }
}
