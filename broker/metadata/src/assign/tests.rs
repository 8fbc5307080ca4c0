//! The promises of the assignment, over random clusters.

use super::*;
use proptest::prelude::*;

fn cluster(racks: &[usize]) -> Vec<Candidate> {
    let mut brokers = Vec::new();
    for (rack, &size) in racks.iter().enumerate() {
        for _ in 0..size {
            brokers.push(Candidate {
                id: BrokerId(brokers.len() as i32),
                rack: Some(format!("rack-{rack}")),
                can_lead: true,
                replicas: 0,
                leaders: 0,
            });
        }
    }
    brokers
}

fn without_racks(n: usize) -> Vec<Candidate> {
    let mut brokers = cluster(&[n]);
    for broker in &mut brokers {
        broker.rack = None;
    }
    brokers
}

fn spread(counts: impl IntoIterator<Item = usize>) -> usize {
    let counts: Vec<usize> = counts.into_iter().collect();
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

fn count(assignment: &[Vec<BrokerId>], n: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut replicas, mut leaders) = (vec![0; n], vec![0; n]);
    for partition in assignment {
        leaders[partition[0].0 as usize] += 1;
        for broker in partition {
            replicas[broker.0 as usize] += 1;
        }
    }
    (replicas, leaders)
}

fn by_rack(brokers: &[Candidate], counts: &[usize]) -> Vec<usize> {
    let mut racks = BTreeMap::new();
    for (broker, count) in brokers.iter().zip(counts) {
        *racks.entry(rack_of(broker)).or_insert(0) += count;
    }
    racks.into_values().collect()
}

#[test]
fn of_three_partitions_with_two_replicas_every_of_three_brokers_leads_one_and_follows_one() {
    for seed in 0..100 {
        let assignment = place(&without_racks(3), seed, 3, 2, &[]).unwrap();
        let (replicas, leaders) = count(&assignment, 3);
        assert_eq!(leaders, [1, 1, 1], "{assignment:?}");
        assert_eq!(replicas, [2, 2, 2], "{assignment:?}");
    }
}

#[test]
fn what_cannot_be_even_goes_to_whoever_holds_least() {
    let mut brokers = without_racks(3);
    (brokers[0].replicas, brokers[0].leaders) = (5, 5);
    (brokers[2].replicas, brokers[2].leaders) = (7, 7);
    assert_eq!(place(&brokers, 9, 1, 1, &[]).unwrap(), [[BrokerId(1)]]);
}

#[test]
fn more_partitions_even_out_what_the_topic_has() {
    let existing = vec![
        vec![BrokerId(0), BrokerId(1)],
        vec![BrokerId(0), BrokerId(1)],
    ];
    let new = place(&without_racks(4), 1, 2, 2, &existing).unwrap();
    let all: Vec<_> = existing.into_iter().chain(new).collect();
    let (replicas, leaders) = count(&all, 4);
    assert_eq!(spread(replicas), 0, "{all:?}");
    assert_eq!(leaders, [2, 0, 1, 1], "{all:?}");
}

#[test]
fn a_broker_that_may_not_lead_is_never_first() {
    let mut brokers = without_racks(3);
    brokers[1].can_lead = false;
    let assignment = place(&brokers, 3, 30, 3, &[]).unwrap();
    assert!(assignment.iter().all(|p| p[0] != BrokerId(1)));
    assert_eq!(count(&assignment, 3).1, [15, 0, 15]);
}

#[test]
fn too_few_brokers_are_no_assignment() {
    assert_eq!(place(&without_racks(2), 0, 1, 3, &[]), None);
    assert_eq!(place(&[], 0, 1, 1, &[]), None);
}

#[test]
fn a_replacement_comes_from_a_free_rack_then_from_whoever_holds_least() {
    let mut brokers = cluster(&[2, 2, 2]);
    brokers[4].replicas = 3;
    let holders = [BrokerId(0), BrokerId(2)];
    assert_eq!(pick(&brokers, 0, &holders), Some(BrokerId(5)));
    let holders = [BrokerId(0), BrokerId(2), BrokerId(5)];
    assert!(pick(&brokers, 0, &holders).is_some());
    assert_eq!(pick(&brokers[..1], 0, &holders), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_fresh_topic_is_even_over_brokers_and_racks_of_equal_size(
        racks in 1usize..6, size in 1usize..5, partitions in 1usize..60, factor in 1usize..6, seed: u64,
        load in proptest::collection::vec(0usize..20, 32),
    ) {
        let mut brokers = cluster(&vec![size; racks]);
        let n = brokers.len();
        prop_assume!(factor <= n);
        for (broker, load) in brokers.iter_mut().zip(&load) {
            (broker.replicas, broker.leaders) = (*load, *load / 2);
        }
        let assignment = place(&brokers, seed, partitions, factor, &[]).unwrap();
        let (replicas, leaders) = count(&assignment, n);
        prop_assert!(spread(replicas.clone()) <= 1, "replicas {replicas:?}");
        prop_assert!(spread(leaders.clone()) <= 1, "leaders {leaders:?}");
        prop_assert!(spread(by_rack(&brokers, &replicas)) <= 1, "by rack {replicas:?}");
        for partition in &assignment {
            let distinct: BTreeSet<_> = partition.iter().collect();
            prop_assert_eq!(distinct.len(), factor);
            let used: BTreeSet<_> = partition.iter().map(|b| rack_of(&brokers[b.0 as usize])).collect();
            prop_assert_eq!(used.len(), factor.min(racks), "{:?}", partition);
        }
        prop_assert_eq!(place(&brokers, seed, partitions, factor, &[]).unwrap(), assignment);
    }

    #[test]
    fn replicas_are_in_distinct_racks_whatever_the_racks_sizes(
        racks in proptest::collection::vec(1usize..5, 1..6), partitions in 1usize..40, factor in 1usize..5, seed: u64,
    ) {
        let brokers = cluster(&racks);
        prop_assume!(factor <= brokers.len());
        let assignment = place(&brokers, seed, partitions, factor, &[]).unwrap();
        let (replicas, _) = count(&assignment, brokers.len());
        for partition in &assignment {
            let used: BTreeSet<_> = partition.iter().map(|b| rack_of(&brokers[b.0 as usize])).collect();
            prop_assert_eq!(used.len(), factor.min(racks.len()), "{:?}", partition);
        }
        // Within a rack all are alike, so nothing excuses a difference there.
        let mut first = 0;
        for size in racks {
            prop_assert!(spread(replicas[first..first + size].iter().copied()) <= 1, "{replicas:?}");
            first += size;
        }
    }
}
