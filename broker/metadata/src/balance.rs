//! Who should hold and lead what, so that all brokers bear alike: a plan of moves; pure.
//!
//! Promises of a plan, which tests check on random clusters:
//! - a partition has as many replicas after a move as before, each on a broker of its own, in as many racks
//!   at least;
//! - afterwards any two brokers of a rack differ by one replica at most, and so do any two brokers of
//!   different racks as far as the racks allow; the same holds for preferred leaders, as far as replicas allow;
//! - no broker gets something that it would have to give away again: what moves is what lies over the fair share;
//! - an even cluster gets an empty plan, and a plan that was carried out leaves none;
//! - brokers that are away, or to be drained, neither give nor get.
//!
//! What counts is the number of replicas: how many bytes they are is not known here.

mod layout;
mod level;
#[cfg(test)]
mod tests;

use crate::image::{Broker, Image, Partition};
use layout::{Layout, Leaders, Replicas};
use leasehold_types::{BrokerId, TopicId};
use serde::{Deserialize, Serialize};

/// Replicas that one plan moves at most: a larger one is made in parts.
pub const PLAN_AT_MOST: usize = 1_000;

/// Whether the controller moves replicas by itself when brokers come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Auto,
    /// It is told what would move, and nothing moves.
    PlanOnly,
    Off,
}

/// How a cluster is kept even, and whether there is something to do; part of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balancing {
    #[serde(default)]
    pub mode: Mode,
    /// Partitions that gain a replica at the same time.
    pub max_moves: u32,
    /// What each broker sends at most, in bytes per second, to replicas that are being moved; `None`: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Brokers came or went, or somebody asked, and it is not yet done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub due: bool,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            max_moves: 8,
            bytes_per_second: Some(32 << 20),
            due: false,
        }
    }
}

/// A broker as a plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: BrokerId,
    /// Brokers without one count as a rack each.
    pub rack: Option<String>,
    /// Whether it may give and get.
    pub open: bool,
}

/// Who holds a partition, preferred leader first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub topic: TopicId,
    pub partition: i32,
    pub replicas: Vec<BrokerId>,
}

/// Other replicas for one partition, or the same in another order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub topic: TopicId,
    pub partition: i32,
    pub from: Vec<BrokerId>,
    pub to: Vec<BrokerId>,
}

impl Move {
    /// Brokers that must copy the partition.
    pub fn newcomers(&self) -> impl Iterator<Item = BrokerId> {
        self.to.iter().copied().filter(|b| !self.from.contains(b))
    }

    pub fn copies(&self) -> bool {
        self.newcomers().next().is_some()
    }
}

/// What is to be done, copies first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub moves: Vec<Move>,
    /// There is more to do after this.
    pub more: bool,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Replicas that are to be copied.
    pub fn replicas(&self) -> usize {
        self.moves.iter().map(|m| m.newcomers().count()).sum()
    }

    /// Partitions that get another preferred leader.
    pub fn leaders(&self) -> usize {
        let other = |m: &&Move| m.from.first() != m.to.first();
        self.moves.iter().filter(other).count()
    }
}

/// The plan for these brokers and partitions, with `at_most` so many replicas to copy.
pub fn plan(members: &[Member], holdings: &[Holding], at_most: usize) -> Plan {
    let mut layout = Layout::new(members, holdings);
    let mut left = at_most;
    let mut more = false;
    loop {
        if left == 0 {
            more = true;
            break;
        }
        match level::improve(&mut Replicas(&mut layout)) {
            0 => break,
            hops => left = left.saturating_sub(hops),
        }
    }
    // Who should lead is known once it is known who holds.
    while !more && level::improve(&mut Leaders(&mut layout)) > 0 {}
    let mut moves: Vec<Move> = Vec::new();
    for (index, holding) in holdings.iter().enumerate() {
        let to = layout.replicas(index);
        if to != holding.replicas {
            moves.push(Move {
                topic: holding.topic,
                partition: holding.partition,
                from: holding.replicas.clone(),
                to,
            });
        }
    }
    // Neighbours in a topic have like sources and targets: what moves at the same time should not.
    moves.sort_by_key(|m| {
        let seed = crate::assign::seed_of(&m.topic);
        let scatter = crate::assign::hash(seed, m.partition.unsigned_abs().into());
        (!m.copies(), scatter, m.topic, m.partition)
    });
    Plan { moves, more }
}

/// Whether `broker` may give and get.
pub fn is_open(broker: &Broker) -> bool {
    broker.is_eligible() && !broker.cordoned
}

/// Who holds `p` once what moves has moved.
pub fn target(p: &Partition) -> Vec<BrokerId> {
    let stays = |b: &BrokerId| !p.removing.contains(b);
    p.replicas.iter().copied().filter(stays).collect()
}

/// The plan for `image`; what moves already counts as moved.
pub fn of_image(image: &Image, at_most: usize) -> Plan {
    let member = |broker: &std::sync::Arc<Broker>| Member {
        id: broker.id,
        rack: broker.rack.clone(),
        open: is_open(broker),
    };
    let members: Vec<Member> = image.brokers.values().map(member).collect();
    let mut holdings = Vec::new();
    for topic in image.topics.values() {
        for (partition, p) in (0..).zip(&topic.partitions) {
            holdings.push(Holding {
                topic: topic.id,
                partition,
                replicas: target(p),
            });
        }
    }
    plan(&members, &holdings, at_most)
}
