//! Where replicas go: evenly over brokers and racks, counting what exists.
//!
//! Promises, for one topic: every broker gets as many replicas as any other, give or take one, as far as racks
//! allow; so does every rack among racks of equal size; the same holds for leaders; replicas of one
//! partition are in distinct racks while there are enough racks. What a topic cannot
//! even out (one partition over three brokers) goes to those who hold least in all. Deterministic:
//! ties are broken by a hash of the seed, which callers derive from the topic's id.
//!
//! How: first a quota per broker, filled from the lowest up; then each partition takes from the racks
//! with the most quota left, which never runs into a dead end; then leaders are chosen and evened out along
//! chains of exchanges.

mod leaders;
#[cfg(test)]
mod tests;

use leasehold_types::{BrokerId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A broker that may get replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: BrokerId,
    /// Brokers without one count as a rack each.
    pub rack: Option<String>,
    /// Whether it may be first in an assignment (a fenced broker may not).
    pub can_lead: bool,
    /// Replicas that it holds already, of all topics.
    pub replicas: usize,
    /// Partitions that it leads already.
    pub leaders: usize,
}

/// A seed that differs from topic to topic.
pub fn seed_of(topic: &TopicId) -> u64 {
    let (high, low) = topic.0.as_u64_pair();
    high ^ low
}

/// Places `partitions` new partitions of `factor` replicas each, preferred leader first. `existing` are the
/// replicas of the topic's partitions so far. `None` if there are fewer candidates than `factor`, none may lead,
/// or nothing is asked for.
pub fn place(
    candidates: &[Candidate],
    seed: u64,
    partitions: usize,
    factor: usize,
    existing: &[Vec<BrokerId>],
) -> Option<Vec<Vec<BrokerId>>> {
    if factor == 0 || candidates.len() < factor || !candidates.iter().any(|c| c.can_lead) {
        return None;
    }
    let cluster = Cluster::new(candidates, seed);
    let mut quota = cluster.quotas(partitions, factor, existing);
    let mut chosen: Vec<Vec<usize>> = Vec::new();
    for partition in existing.len()..existing.len() + partitions {
        chosen.push(cluster.take(&mut quota, partition as u64, factor));
    }
    leaders::choose(&cluster, &mut chosen, existing);
    let ids = |p: Vec<usize>| p.into_iter().map(|b| candidates[b].id).collect();
    Some(chosen.into_iter().map(ids).collect())
}

/// The best broker to join a partition that is held by `holders`: in a rack of its own if possible,
/// then the one that holds least. `None` if every candidate holds it already.
pub fn pick(candidates: &[Candidate], seed: u64, holders: &[BrokerId]) -> Option<BrokerId> {
    let racks: BTreeSet<String> = candidates
        .iter()
        .filter(|c| holders.contains(&c.id))
        .map(rack_of)
        .collect();
    candidates
        .iter()
        .filter(|c| !holders.contains(&c.id))
        .min_by_key(|c| {
            let shared = racks.contains(&rack_of(c));
            (shared, !c.can_lead, c.replicas, hash(seed, c.id.0 as u64))
        })
        .map(|c| c.id)
}

fn rack_of(candidate: &Candidate) -> String {
    match &candidate.rack {
        Some(rack) => rack.clone(),
        None => format!("\0{}", candidate.id),
    }
}

/// The candidates by index, with their racks by index.
struct Cluster<'a> {
    brokers: &'a [Candidate],
    /// Rack of each broker.
    rack: Vec<usize>,
    /// Brokers of each rack.
    members: Vec<Vec<usize>>,
    seed: u64,
}

impl<'a> Cluster<'a> {
    fn new(brokers: &'a [Candidate], seed: u64) -> Self {
        let mut names: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, broker) in brokers.iter().enumerate() {
            names.entry(rack_of(broker)).or_default().push(index);
        }
        let members: Vec<Vec<usize>> = names.into_values().collect();
        let mut rack = vec![0; brokers.len()];
        for (index, rack_members) in members.iter().enumerate() {
            for &broker in rack_members {
                rack[broker] = index;
            }
        }
        Self {
            brokers,
            rack,
            members,
            seed,
        }
    }

    /// What each broker of the topic holds already, by index.
    fn held(&self, existing: &[Vec<BrokerId>], only_first: bool) -> Vec<usize> {
        let index: BTreeMap<BrokerId, usize> = self
            .brokers
            .iter()
            .enumerate()
            .map(|(i, b)| (b.id, i))
            .collect();
        let mut held = vec![0; self.brokers.len()];
        for replicas in existing {
            let take = if only_first { 1 } else { replicas.len() };
            for broker in replicas.iter().take(take) {
                if let Some(&i) = index.get(broker) {
                    held[i] += 1;
                }
            }
        }
        held
    }

    /// How many of the new replicas each broker gets: one at a time to whoever has least of the
    /// topic. A rack gets at most one of each partition while there are enough racks, at least one
    /// where there are not.
    fn quotas(&self, partitions: usize, factor: usize, existing: &[Vec<BrokerId>]) -> Vec<i64> {
        let racks = self.members.len();
        let mut fill = Fill {
            cluster: self,
            held: self.held(existing, false),
            rack_held: vec![0; racks],
            quota: vec![0; self.brokers.len()],
            rack_quota: vec![0; racks],
            most: partitions,
        };
        for (broker, held) in fill.held.iter().enumerate() {
            fill.rack_held[self.rack[broker]] += held;
        }
        let all = 0..self.brokers.len();
        if factor <= racks {
            for _ in 0..partitions * factor {
                let open = |fill: &Fill<'_>, b: usize| fill.rack_quota[self.rack[b]] < partitions;
                fill.one(all.clone().filter(|&b| open(&fill, b)).collect());
            }
        } else {
            for members in &self.members {
                for _ in 0..partitions {
                    fill.one(members.clone());
                }
            }
            for _ in 0..partitions * (factor - racks) {
                fill.one(all.clone().collect());
            }
        }
        fill.quota.into_iter().map(|q| q as i64).collect()
    }

    /// The replicas of one partition, out of the quotas: from racks not yet used first, then those with
    /// most left; of a rack, the broker with most left.
    fn take(&self, quota: &mut [i64], partition: u64, factor: usize) -> Vec<usize> {
        let mut rack_left: Vec<i64> = vec![0; self.members.len()];
        for (broker, left) in quota.iter().enumerate() {
            rack_left[self.rack[broker]] += *left;
        }
        let mut used = vec![false; self.members.len()];
        let mut chosen: Vec<usize> = Vec::with_capacity(factor);
        let seed = hash(self.seed, partition);
        for _ in 0..factor {
            let next = (0..self.brokers.len())
                .filter(|b| !chosen.contains(b))
                .min_by_key(|&b| {
                    let rack = self.rack[b];
                    (
                        used[rack],
                        -rack_left[rack],
                        // Racks that are alike must not share their brokers out in turns.
                        hash(seed, !(rack as u64)),
                        -quota[b],
                        hash(seed, b as u64),
                    )
                });
            let Some(next) = next else { break };
            quota[next] -= 1;
            rack_left[self.rack[next]] -= 1;
            used[self.rack[next]] = true;
            chosen.push(next);
        }
        chosen
    }
}

/// Quotas being filled.
struct Fill<'a> {
    cluster: &'a Cluster<'a>,
    /// What each broker and rack has of the topic already.
    held: Vec<usize>,
    rack_held: Vec<usize>,
    quota: Vec<usize>,
    rack_quota: Vec<usize>,
    /// No broker gets more: a partition has it once.
    most: usize,
}

impl Fill<'_> {
    /// One more replica to whoever of `among` has least.
    fn one(&mut self, among: Vec<usize>) {
        let least = among
            .into_iter()
            .filter(|&b| self.quota[b] < self.most)
            .min_by_key(|&b| {
                let rack = self.cluster.rack[b];
                (
                    self.held[b] + self.quota[b],
                    self.rack_held[rack] + self.rack_quota[rack],
                    self.cluster.brokers[b].replicas + self.quota[b],
                    hash(self.cluster.seed, b as u64),
                )
            });
        if let Some(broker) = least {
            self.quota[broker] += 1;
            self.rack_quota[self.cluster.rack[broker]] += 1;
        }
    }
}

/// A deterministic scatter (SplitMix64's finalizer).
pub(crate) fn hash(seed: u64, value: u64) -> u64 {
    let mut x = seed ^ value.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
