//! Who of a partition's replicas leads: evenly, and the second in line evenly too.

use super::{Cluster, hash};
use leasehold_types::BrokerId;
use std::collections::VecDeque;

/// Brings a leader to the front of each of `chosen`, so that leaders (those of `existing` counted) are
/// spread as evenly as the replicas permit.
pub(super) fn choose(cluster: &Cluster<'_>, chosen: &mut [Vec<usize>], existing: &[Vec<BrokerId>]) {
    let mut leads = cluster.held(existing, true);
    let mut rack_leads = vec![0usize; cluster.members.len()];
    for (broker, count) in leads.iter().enumerate() {
        rack_leads[cluster.rack[broker]] += count;
    }
    let mut new_leads = vec![0usize; cluster.brokers.len()];
    for (partition, replicas) in chosen.iter_mut().enumerate() {
        let seed = hash(cluster.seed, partition as u64);
        let best = (0..replicas.len()).min_by_key(|&i| {
            let b = replicas[i];
            (
                !cluster.brokers[b].can_lead,
                leads[b],
                rack_leads[cluster.rack[b]],
                cluster.brokers[b].leaders + new_leads[b],
                hash(seed, b as u64),
            )
        });
        let Some(best) = best else { continue };
        replicas.swap(0, best);
        leads[replicas[0]] += 1;
        new_leads[replicas[0]] += 1;
        rack_leads[cluster.rack[replicas[0]]] += 1;
    }
    while even_out(cluster, chosen, &mut leads) {}
    spread_seconds(cluster, chosen);
}

/// Moves one leadership from a broker with two more than another to that other, over a chain of
/// partitions in which each next broker is a replica. False when no such chain is left.
fn even_out(cluster: &Cluster<'_>, chosen: &mut [Vec<usize>], leads: &mut [usize]) -> bool {
    let n = cluster.brokers.len();
    let mut led: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (partition, replicas) in chosen.iter().enumerate() {
        if let Some(&first) = replicas.first() {
            led[first].push(partition);
        }
    }
    let mut by_load: Vec<usize> = (0..n).filter(|&b| !led[b].is_empty()).collect();
    by_load.sort_by_key(|&b| std::cmp::Reverse(leads[b]));
    for from in by_load {
        // Reached from whom, over which partition.
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; n];
        let mut queue = VecDeque::from([from]);
        while let Some(broker) = queue.pop_front() {
            for &partition in &led[broker] {
                for &next in &chosen[partition] {
                    let new = next != from && reached[next].is_none();
                    if !new || !cluster.brokers[next].can_lead {
                        continue;
                    }
                    reached[next] = Some((broker, partition));
                    if leads[next] + 2 <= leads[from] {
                        walk_back(chosen, &reached, from, next);
                        leads[from] -= 1;
                        leads[next] += 1;
                        return true;
                    }
                    queue.push_back(next);
                }
            }
        }
    }
    false
}

fn walk_back(
    chosen: &mut [Vec<usize>],
    reached: &[Option<(usize, usize)>],
    from: usize,
    mut to: usize,
) {
    while to != from {
        let Some((before, partition)) = reached[to] else {
            return;
        };
        let replicas = &mut chosen[partition];
        if let Some(place) = replicas.iter().position(|&b| b == to) {
            replicas.swap(0, place);
        }
        to = before;
    }
}

/// Orders the followers so that those who would take over are spread too.
fn spread_seconds(cluster: &Cluster<'_>, chosen: &mut [Vec<usize>]) {
    let mut seconds = vec![0usize; cluster.brokers.len()];
    for replicas in chosen {
        if let Some(followers) = replicas.get_mut(1..) {
            followers.sort_by_key(|&b| (seconds[b], hash(cluster.seed, b as u64)));
            if let Some(&second) = followers.first() {
                seconds[second] += 1;
            }
        }
    }
}
