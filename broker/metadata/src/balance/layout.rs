//! Who holds and leads what while a plan is being made, and the two things that are levelled.

use super::level::Load;
use super::{Holding, Member};
use leasehold_types::{BrokerId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// Per broker: which partitions, and how many of each topic.
#[derive(Default)]
struct Share {
    partitions: BTreeSet<usize>,
    by_topic: BTreeMap<usize, usize>,
}

impl Share {
    fn add(&mut self, partition: usize, topic: usize) {
        if self.partitions.insert(partition) {
            *self.by_topic.entry(topic).or_default() += 1;
        }
    }

    fn remove(&mut self, partition: usize, topic: usize) {
        if self.partitions.remove(&partition)
            && let Some(count) = self.by_topic.get_mut(&topic)
        {
            *count = count.saturating_sub(1);
        }
    }

    fn of_topic(&self, topic: usize) -> usize {
        self.by_topic.get(&topic).copied().unwrap_or(0)
    }
}

struct Node {
    id: BrokerId,
    rack: usize,
    open: bool,
    holds: Share,
    /// What it is the preferred leader of.
    leads: Share,
}

struct Part {
    topic: usize,
    /// By place in the list of brokers.
    replicas: Vec<usize>,
    /// Whether it moves already.
    touched: bool,
}

pub(super) struct Layout {
    nodes: Vec<Node>,
    parts: Vec<Part>,
}

impl Layout {
    pub fn new(members: &[Member], holdings: &[Holding]) -> Self {
        let mut layout = Self {
            nodes: Vec::new(),
            parts: Vec::new(),
        };
        let mut places: BTreeMap<BrokerId, usize> = BTreeMap::new();
        let mut racks: BTreeMap<String, usize> = BTreeMap::new();
        for member in members {
            let rack = racks.len();
            let alone = || format!("\0{}", member.id);
            let name = member.rack.clone().unwrap_or_else(alone);
            let rack = *racks.entry(name).or_insert(rack);
            places.insert(member.id, layout.nodes.len());
            layout.nodes.push(Node::new(member.id, rack, member.open));
        }
        let mut topics: BTreeMap<TopicId, usize> = BTreeMap::new();
        for (number, holding) in holdings.iter().enumerate() {
            let next = topics.len();
            let topic = *topics.entry(holding.topic).or_insert(next);
            let mut replicas = Vec::with_capacity(holding.replicas.len());
            for &id in &holding.replicas {
                // A broker that nobody registered takes no part, and its rack is nobody else's.
                let place = *places.entry(id).or_insert_with(|| {
                    let rack = racks.len() + layout.nodes.len();
                    layout.nodes.push(Node::new(id, rack, false));
                    layout.nodes.len() - 1
                });
                layout.nodes[place].holds.add(number, topic);
                if replicas.is_empty() {
                    layout.nodes[place].leads.add(number, topic);
                }
                replicas.push(place);
            }
            layout.parts.push(Part {
                topic,
                replicas,
                touched: false,
            });
        }
        layout
    }

    /// The present replicas of the partition that was given at `number`.
    pub fn replicas(&self, number: usize) -> Vec<BrokerId> {
        let part = &self.parts[number];
        part.replicas.iter().map(|&b| self.nodes[b].id).collect()
    }

    fn open(&self) -> Vec<usize> {
        let all = 0..self.nodes.len();
        all.filter(|&b| self.nodes[b].open).collect()
    }

    /// In how many racks more a partition would be with `to` in the place of `from`.
    fn gain(&self, part: &Part, from: usize, to: usize) -> i32 {
        let others = |rack: usize| {
            let mut others = part.replicas.iter().filter(|&&b| b != from);
            others.any(|&b| self.nodes[b].rack == rack)
        };
        let (lost, won) = (!others(self.nodes[from].rack), !others(self.nodes[to].rack));
        i32::from(won) - i32::from(lost)
    }
}

impl Node {
    fn new(id: BrokerId, rack: usize, open: bool) -> Self {
        Self {
            id,
            rack,
            open,
            holds: Share::default(),
            leads: Share::default(),
        }
    }
}

/// How much more of `topic` the one has than the other: what moves should even its topic out, too.
fn surplus(from: &Share, to: &Share, topic: usize) -> i64 {
    from.of_topic(topic) as i64 - to.of_topic(topic) as i64
}

/// Replicas, to be levelled.
pub(super) struct Replicas<'a>(pub &'a mut Layout);

impl Load for Replicas<'_> {
    fn brokers(&self) -> Vec<usize> {
        self.0.open()
    }

    fn of(&self, broker: usize) -> usize {
        self.0.nodes[broker].holds.partitions.len()
    }

    fn unit(&self, from: usize, to: usize, used: &[usize]) -> Option<usize> {
        let (giver, taker) = (&self.0.nodes[from], &self.0.nodes[to]);
        let fit = giver.holds.partitions.iter().copied().filter_map(|number| {
            let part = &self.0.parts[number];
            if part.replicas.contains(&to) || used.contains(&number) {
                return None;
            }
            let gain = self.0.gain(part, from, to);
            let surplus = surplus(&giver.holds, &taker.holds, part.topic);
            // A follower's move is felt by nobody.
            let follows = part.replicas.first() != Some(&from);
            // The others have to wait for who is away.
            let movable = part.replicas.iter().all(|&b| self.0.nodes[b].open);
            (gain >= 0).then_some(((movable, gain, surplus, follows), number))
        });
        best(fit)
    }

    fn hand(&mut self, number: usize, from: usize, to: usize) {
        let part = &mut self.0.parts[number];
        let topic = part.topic;
        part.touched = true;
        let led = part.replicas.first() == Some(&from);
        for replica in part.replicas.iter_mut().filter(|b| **b == from) {
            *replica = to;
        }
        let nodes = &mut self.0.nodes;
        nodes[from].holds.remove(number, topic);
        nodes[to].holds.add(number, topic);
        if led {
            nodes[from].leads.remove(number, topic);
            nodes[to].leads.add(number, topic);
        }
    }
}

/// Preferred leaderships, to be levelled.
pub(super) struct Leaders<'a>(pub &'a mut Layout);

impl Load for Leaders<'_> {
    fn brokers(&self) -> Vec<usize> {
        self.0.open()
    }

    fn of(&self, broker: usize) -> usize {
        self.0.nodes[broker].leads.partitions.len()
    }

    fn unit(&self, from: usize, to: usize, used: &[usize]) -> Option<usize> {
        let (giver, taker) = (&self.0.nodes[from], &self.0.nodes[to]);
        let fit = giver.leads.partitions.iter().copied().filter_map(|number| {
            let part = &self.0.parts[number];
            if !part.replicas.contains(&to) || used.contains(&number) {
                return None;
            }
            let surplus = surplus(&giver.leads, &taker.leads, part.topic);
            // One that moves anyway changes its leader anyway, too.
            Some(((surplus, part.touched), number))
        });
        best(fit)
    }

    fn hand(&mut self, number: usize, from: usize, to: usize) {
        let part = &mut self.0.parts[number];
        part.touched = true;
        if let Some(place) = part.replicas.iter().position(|&b| b == to) {
            part.replicas.swap(0, place);
        }
        let topic = part.topic;
        let nodes = &mut self.0.nodes;
        nodes[from].leads.remove(number, topic);
        nodes[to].leads.add(number, topic);
    }
}

/// The unit with the greatest merit; of equals the first.
fn best<M: Ord>(fit: impl Iterator<Item = (M, usize)>) -> Option<usize> {
    fit.max_by(|(a, i), (b, j)| a.cmp(b).then(j.cmp(i)))
        .map(|(_, number)| number)
}
