//! The promises of a plan, over random clusters.

use super::*;
use crate::assign::{self, Candidate};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

type Counts = BTreeMap<BrokerId, usize>;

fn member(id: i32, rack: Option<usize>, open: bool) -> Member {
    Member {
        id: BrokerId(id),
        rack: rack.map(|rack| format!("rack-{rack}")),
        open,
    }
}

fn members(n: i32) -> Vec<Member> {
    (0..n).map(|id| member(id, None, true)).collect()
}

fn topic(number: usize) -> TopicId {
    TopicId(Uuid::from_u128(number as u128 + 1))
}

fn holdings(topics: &[&[&[i32]]]) -> Vec<Holding> {
    let mut all = Vec::new();
    for (number, partitions) in topics.iter().enumerate() {
        for (partition, replicas) in (0..).zip(*partitions) {
            all.push(Holding {
                topic: topic(number),
                partition,
                replicas: replicas.iter().copied().map(BrokerId).collect(),
            });
        }
    }
    all
}

/// What is there once `plan` was carried out.
fn after(plan: &Plan, holdings: &[Holding]) -> Vec<Holding> {
    let mut after = holdings.to_vec();
    for m in &plan.moves {
        let same = |h: &&mut Holding| h.topic == m.topic && h.partition == m.partition;
        let holding = after.iter_mut().find(same).unwrap();
        assert_eq!(holding.replicas, m.from);
        holding.replicas = m.to.clone();
    }
    after
}

fn count(members: &[Member], holdings: &[Holding], only_first: bool) -> Counts {
    let open = members.iter().filter(|m| m.open);
    let mut counts: Counts = open.map(|m| (m.id, 0)).collect();
    for holding in holdings {
        let take = if only_first {
            1
        } else {
            holding.replicas.len()
        };
        for id in holding.replicas.iter().take(take) {
            if let Some(count) = counts.get_mut(id) {
                *count += 1;
            }
        }
    }
    counts
}

fn spread(counts: impl IntoIterator<Item = usize>) -> usize {
    let counts: Vec<usize> = counts.into_iter().collect();
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

fn racks(members: &[Member], replicas: &[BrokerId]) -> usize {
    let rack = |id: &BrokerId| {
        let of = members.iter().find(|m| m.id == *id);
        of.and_then(|m| m.rack.clone()).unwrap_or(format!("\0{id}"))
    };
    replicas.iter().map(rack).collect::<BTreeSet<_>>().len()
}

/// What every plan owes.
fn check(members: &[Member], before: &[Holding]) -> (Plan, Vec<Holding>) {
    let plan = plan(members, before, usize::MAX);
    assert!(!plan.more);
    let after = after(&plan, before);
    let open = |id: &BrokerId| members.iter().any(|m| m.id == *id && m.open);
    for (old, new) in before.iter().zip(&after) {
        let (old, new) = (&old.replicas, &new.replicas);
        assert_eq!(old.len(), new.len(), "the replication factor stays");
        let distinct: BTreeSet<_> = new.iter().collect();
        assert_eq!(
            distinct.len(),
            new.len(),
            "no broker holds it twice: {new:?}"
        );
        let spread = (racks(members, old), racks(members, new));
        assert!(
            spread.1 >= spread.0,
            "{old:?} was in more racks than {new:?}"
        );
        for id in new.iter().filter(|id| !old.contains(id)) {
            assert!(open(id), "{id} gets nothing");
        }
        for id in old.iter().filter(|id| !new.contains(id)) {
            assert!(open(id), "{id} gives nothing");
        }
    }
    let counts = count(members, &after, false);
    for (one, other) in pairs(members) {
        if one.rack.is_some() && one.rack == other.rack {
            let difference = counts[&one.id].abs_diff(counts[&other.id]);
            assert!(difference <= 1, "within a rack: {counts:?}");
        }
        if counts[&one.id] >= counts[&other.id] + 2 {
            let better = after
                .iter()
                .find(|h| may_move(members, h, one.id, other.id));
            assert_eq!(better, None, "{} could give to {}", one.id, other.id);
        }
    }
    let leads = count(members, &after, true);
    for (one, other) in pairs(members) {
        if leads[&one.id] >= leads[&other.id] + 2 {
            let better = after
                .iter()
                .find(|h| h.replicas.first() == Some(&one.id) && h.replicas.contains(&other.id));
            assert_eq!(better, None, "{} could lead for {}", other.id, one.id);
        }
    }
    let again = super::plan(members, &after, usize::MAX);
    assert_eq!(again, Plan::default(), "nothing is left to do");
    (plan, after)
}

fn pairs(members: &[Member]) -> Vec<(&Member, &Member)> {
    let mut pairs = Vec::new();
    for one in members.iter().filter(|m| m.open) {
        let others = members.iter().filter(|m| m.open);
        pairs.extend(others.map(|other| (one, other)));
    }
    pairs
}

fn may_move(members: &[Member], holding: &Holding, from: BrokerId, to: BrokerId) -> bool {
    let old = &holding.replicas;
    if !old.contains(&from) || old.contains(&to) {
        return false;
    }
    let new: Vec<BrokerId> = old
        .iter()
        .map(|&b| if b == from { to } else { b })
        .collect();
    racks(members, &new) >= racks(members, old)
}

/// As many replicas as lie over the fair share, if those who have most keep what is over an even number.
fn over_the_share(counts: &Counts) -> usize {
    let mut counts: Vec<usize> = counts.values().copied().collect();
    counts.sort_by(|a, b| b.cmp(a));
    let (share, over) = (
        counts.iter().sum::<usize>() / counts.len(),
        counts.iter().sum::<usize>() % counts.len(),
    );
    let keeps = |place: usize| share + usize::from(place < over);
    let lost = |(place, count): (usize, &usize)| count.saturating_sub(keeps(place));
    counts.iter().enumerate().map(lost).sum()
}

/// Topics as the controller places them, on the first `n` of these brokers.
fn placed(members: &[Member], n: usize, topics: &[(usize, usize)]) -> Vec<Holding> {
    let mut all = Vec::new();
    for (number, &(partitions, factor)) in topics.iter().enumerate() {
        let of = |m: &Member| Candidate {
            id: m.id,
            rack: m.rack.clone(),
            can_lead: true,
            replicas: 0,
            leaders: 0,
        };
        let candidates: Vec<Candidate> = members[..n].iter().map(of).collect();
        let factor = factor.min(n);
        let placed = assign::place(&candidates, number as u64, partitions, factor, &[]).unwrap();
        for (partition, replicas) in (0..).zip(placed) {
            all.push(Holding {
                topic: topic(number),
                partition,
                replicas,
            });
        }
    }
    all
}

#[test]
fn two_new_brokers_get_their_share_of_replicas_and_leaders_and_nothing_else_moves() {
    let members = members(5);
    let before = placed(&members, 3, &[(10, 3), (20, 3)]);
    let (plan, after) = check(&members, &before);
    assert_eq!(plan.replicas(), 36, "90 replicas: 18 for each of the two");
    for only_first in [false, true] {
        let counts = count(&members, &after, only_first);
        assert_eq!(spread(counts.values().copied()), 0, "{counts:?}");
    }
    // No topic is on few brokers, though the fewest moves do not make each as even as all together.
    for number in 0..2 {
        let of: Vec<Holding> = after
            .iter()
            .filter(|h| h.topic == topic(number))
            .cloned()
            .collect();
        let counts = count(&members, &of, false);
        assert!(spread(counts.values().copied()) <= 2, "{counts:?}");
    }
}

#[test]
fn an_even_cluster_gets_an_empty_plan_even_if_a_topic_is_not() {
    let even = holdings(&[&[&[0], &[0]], &[&[1], &[1]]]);
    assert_eq!(check(&members(2), &even).0, Plan::default());
    assert_eq!(plan(&[], &[], usize::MAX), Plan::default());
}

#[test]
fn leaders_alone_are_evened_without_copying() {
    let before = holdings(&[&[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]]]);
    let (plan, after) = check(&members(3), &before);
    assert_eq!((plan.replicas(), plan.leaders()), (0, 2));
    let leads = count(&members(3), &after, true);
    assert_eq!(spread(leads.values().copied()), 0);
}

#[test]
fn who_is_away_or_drained_neither_gives_nor_gets() {
    let mut three = members(3);
    three[0].open = false;
    let before = holdings(&[&[&[0], &[0], &[0], &[1], &[1]]]);
    let (plan, after) = check(&three, &before);
    assert_eq!(plan.replicas(), 1);
    assert_eq!(after[..3], before[..3]);
}

#[test]
fn no_replica_leaves_its_rack_where_that_would_join_two_of_a_partition() {
    let at = |id, rack| member(id, Some(rack), true);
    // A rack of one broker, one of three: each partition has one replica in both.
    let members = [at(0, 0), at(1, 1), at(2, 1), at(3, 1)];
    let before = holdings(&[&[&[0, 1], &[0, 1], &[0, 1], &[0, 2], &[0, 2], &[0, 2]]]);
    let (plan, after) = check(&members, &before);
    let counts = count(&members, &after, false);
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [6, 2, 2, 2]);
    assert_eq!(plan.replicas(), 2);
}

#[test]
fn what_no_single_move_can_even_out_goes_over_a_third_broker() {
    let at = |id, rack| member(id, Some(rack), true);
    // All of broker 0's partitions have a replica in rack 1 already.
    let members = [at(0, 0), at(1, 1), at(2, 1), at(3, 2), at(4, 3)];
    let mut partitions: Vec<&[i32]> = vec![&[0, 1]; 3];
    partitions.extend(vec![&[0, 2][..]; 3]);
    partitions.extend(vec![&[3, 4][..]; 4]);
    let (_, after) = check(&members, &holdings(&[&partitions]));
    let counts = count(&members, &after, false);
    assert_eq!(spread(counts.values().copied()), 0, "{counts:?}");
}

#[test]
fn a_move_to_another_rack_is_preferred_where_it_spreads_a_partition() {
    let at = |id, rack| member(id, Some(rack), true);
    let members = [at(0, 0), at(1, 0), at(2, 1), at(3, 2)];
    let before = holdings(&[&[&[2, 0], &[0, 2], &[0, 1], &[1, 2]]]);
    let (_, after) = check(&members, &before);
    assert!(after[2].replicas.contains(&BrokerId(3)), "{after:?}");
}

#[test]
fn a_large_plan_is_made_in_parts() {
    let members = members(4);
    let mut now = placed(&members, 3, &[(40, 2)]);
    let whole = plan(&members, &now, usize::MAX).replicas();
    let mut moved = 0;
    loop {
        let part = plan(&members, &now, 7);
        assert!(part.replicas() <= 7);
        moved += part.replicas();
        now = after(&part, &now);
        if !part.more {
            break;
        }
    }
    assert_eq!(moved, whole);
    assert_eq!(plan(&members, &now, 7), Plan::default());
}

#[test]
fn copies_come_before_changes_of_order_and_sources_are_mixed() {
    let members = members(5);
    let plan = plan(&members, &placed(&members, 3, &[(60, 3)]), usize::MAX);
    let copies: Vec<bool> = plan.moves.iter().map(Move::copies).collect();
    assert!(copies.is_sorted_by(|a, b| a >= b), "{copies:?}");
    let order: Vec<i32> = plan.moves.iter().map(|m| m.partition).collect();
    assert!(!order.is_sorted());
}

/// Racks by size (0: brokers without), brokers that are not open, topics by partitions and factor.
fn cluster() -> impl Strategy<Value = (Vec<Member>, Vec<Holding>)> {
    let racks = proptest::collection::vec((0usize..3, proptest::bool::weighted(0.9)), 1..7);
    let seeds = proptest::collection::vec(any::<u64>(), 0..40);
    (racks, any::<bool>(), seeds, 1usize..4).prop_map(|(brokers, racked, seeds, factor)| {
        let of =
            |(id, (rack, open)): (i32, (usize, bool))| member(id, racked.then_some(rack), open);
        let members: Vec<Member> = (0..).zip(brokers).map(of).collect();
        let factor = factor.min(members.len());
        let mut all = Vec::new();
        for (partition, seed) in (0..).zip(seeds) {
            let mut order: Vec<BrokerId> = members.iter().map(|m| m.id).collect();
            order.sort_by_key(|id| assign::hash(seed, id.0 as u64));
            order.truncate(factor);
            all.push(Holding {
                topic: topic((seed % 3) as usize),
                partition,
                replicas: order,
            });
        }
        (members, all)
    })
}

proptest! {
    #[test]
    fn every_plan_keeps_its_promises((members, before) in cluster()) {
        check(&members, &before);
    }

    #[test]
    fn without_racks_all_is_even_and_only_what_is_over_the_share_moves((mut members, before) in cluster()) {
        for member in &mut members {
            (member.rack, member.open) = (None, true);
        }
        let (plan, after) = check(&members, &before);
        let counts = count(&members, &after, false);
        prop_assert!(spread(counts.values().copied()) <= 1, "{counts:?}");
        prop_assert_eq!(plan.replicas(), over_the_share(&count(&members, &before, false)));
    }

    #[test]
    fn what_the_controller_placed_is_even_in_racks_of_one_size_once_brokers_joined(
        per_rack in 1usize..3, more in 0usize..2, topics in proptest::collection::vec((1usize..20, 1usize..4), 1..4)
    ) {
        let id = |rack: usize, n: usize| (n * 3 + rack) as i32;
        let brokers = (0..per_rack + more).flat_map(|n| (0..3).map(move |rack| (rack, n)));
        let members: Vec<Member> = brokers.map(|(rack, n)| member(id(rack, n), Some(rack), true)).collect();
        let before = placed(&members, per_rack * 3, &topics);
        let (_, after) = check(&members, &before);
        let counts = count(&members, &after, false);
        prop_assert!(spread(counts.values().copied()) <= 1, "{counts:?}");
        // Of a partition with one replica nobody else can lead.
        if topics.iter().all(|(_, factor)| *factor > 1) {
            let leads = count(&members, &after, true);
            prop_assert!(spread(leads.values().copied()) <= 1, "{leads:?}");
        }
    }
}
