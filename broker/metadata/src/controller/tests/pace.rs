//! Planned changes of leadership come one after the other; what cannot wait does not.

use super::bench::*;
use crate::controller::*;
use crate::rpc::*;
use leasehold_types::*;

const PARTITIONS: i32 = 60;
const SPREAD_MS: u64 = 15_000;
/// What may change within a second: its share of all, and what a step may be ahead.
const PER_SECOND: usize = PARTITIONS as usize / 15 + 1;
const ALL: [i32; 5] = [0, 1, 2, 3, 4];

fn five(partitions: i32) -> (Bench, TopicId) {
    let settings = Settings {
        leader_spread_ms: SPREAD_MS,
        preferred_leader_delay_ms: 1_000,
        preferred_leader_check_ms: 100,
        ..settings()
    };
    let mut bench = Bench::with(5, settings);
    let mut topic = NewTopic::with_defaults("t");
    (topic.partitions, topic.replication_factor) = (partitions, 3);
    let id = topic.id;
    bench.admin(AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    });
    (bench, id)
}

fn cordon(bench: &mut Bench, brokers: &[i32]) {
    bench.admin(AdminRequest::Cordon {
        brokers: ids(brokers),
    });
}

/// How many partitions' leader epochs were raised, all in all.
fn changes(bench: &Bench, topic: TopicId) -> usize {
    let partitions = &bench.image.topic(&topic).unwrap().partitions;
    partitions.iter().map(|p| p.leader_epoch.0 as usize).sum()
}

fn empty(bench: &Bench, brokers: &[i32]) -> bool {
    let mut hosted = brokers.iter().map(|id| bench.image.hosted(b(*id)));
    hosted.all(|hosted| hosted == crate::image::Hosted::default())
}

/// Followers catch up at once. How many changes there were in each second until `done`.
fn seconds(bench: &mut Bench, topic: TopicId, done: impl Fn(&Bench) -> bool) -> Vec<usize> {
    let mut counts = Vec::new();
    while !done(bench) {
        assert!(counts.len() < 60, "{counts:?}");
        let before = changes(bench, topic);
        for _ in 0..10 {
            bench.catch_up();
            bench.pass(100, &ALL);
        }
        counts.push(changes(bench, topic) - before);
    }
    counts
}

#[test]
fn a_drain_changes_no_more_partitions_in_a_second_than_its_share_and_each_about_once() {
    let (mut bench, topic) = five(PARTITIONS);
    let held = |p: &&std::sync::Arc<crate::image::Partition>| {
        p.replicas.iter().any(|id| [b(3), b(4)].contains(id))
    };
    let partitions = &bench.image.topic(&topic).unwrap().partitions;
    let least = partitions.iter().filter(held).count();
    cordon(&mut bench, &[3, 4]);
    let counts = seconds(&mut bench, topic, |bench| empty(bench, &[3, 4]));
    println!("{counts:?}");
    assert!(counts.iter().all(|n| *n <= PER_SECOND), "{counts:?}");
    let all: usize = counts.iter().sum();
    assert!((least..=least * 3 / 2).contains(&all), "{all} of {least}");
    // Who leads is who is to lead.
    let after = changes(&bench, topic);
    bench.pass(20_000, &ALL);
    assert_eq!(changes(&bench, topic), after);
}

#[test]
fn with_many_partitions_a_step_changes_many_and_the_drain_takes_no_longer() {
    let (mut bench, topic) = five(600);
    cordon(&mut bench, &[3]);
    // What is planned of leaders alone: nobody catches up.
    let mut most = 0;
    for _ in 0..50 {
        let before = changes(&bench, topic);
        bench.pass(100, &ALL);
        most = most.max(changes(&bench, topic) - before);
    }
    assert!((3..=8).contains(&most), "{most} within 100 ms");
    let left = bench.image.hosted(b(3)).leaders;
    assert!(left <= 16, "{left}: none but those that move");
}

#[test]
fn a_broker_that_ends_or_fails_is_not_waited_for() {
    let (mut bench, topic) = five(PARTITIONS);
    cordon(&mut bench, &[4]);
    bench.catch_up();
    let before = changes(&bench, topic);
    bench.goodbye(4);
    assert_eq!(bench.image.hosted(b(4)).leaders, 0, "it was being drained");
    bench.evidence(3);
    assert_eq!(bench.image.hosted(b(3)).leaders, 0);
    assert!(changes(&bench, topic) > before + PER_SECOND);
}

#[test]
fn preferred_leaders_return_one_after_the_other() {
    let (mut bench, topic) = five(PARTITIONS);
    bench.goodbye(0);
    bench.pass(1_000, &[1, 2, 3, 4]);
    bench.join(0, 200, intact(100, 200));
    let back = |bench: &Bench| bench.image.hosted(b(0)).leaders == PARTITIONS as usize / 5;
    let counts = seconds(&mut bench, topic, back);
    println!("{counts:?}");
    assert!(counts.len() >= 3, "{counts:?}");
    assert!(counts.iter().all(|n| *n <= PER_SECOND), "{counts:?}");
}

#[test]
fn a_later_controller_ends_moves_that_waited_for_their_turn() {
    let (mut bench, _) = five(PARTITIONS);
    cordon(&mut bench, &[3]);
    bench.catch_up();
    bench.pass(100, &ALL);
    let moving = |bench: &Bench| {
        let partitions = bench.image.topics.values().flat_map(|t| &t.partitions);
        partitions.filter(|p| p.is_reassigning()).count()
    };
    let before = moving(&bench);
    assert!(before > PER_SECOND, "{before}");
    bench.take_over();
    // Nobody proposes anything any more.
    bench.pass(20_000, &ALL);
    let stuck = bench.image.topics.values().flat_map(|t| &t.partitions);
    let in_sync = stuck.filter(|p| p.draining && p.isr.len() == p.replicas.len());
    assert_eq!(in_sync.count(), 0);
}

#[test]
fn what_somebody_asked_for_by_name_happens_at_once() {
    let (mut bench, topic) = five(PARTITIONS);
    cordon(&mut bench, &[4]);
    bench.catch_up();
    for n in 0..PARTITIONS {
        let p = bench.p(topic, n);
        if p.draining || p.replicas.contains(&b(4)) {
            continue;
        }
        let two: Vec<i32> = p.replicas.iter().take(2).map(|id| id.0).collect();
        assert!(bench.reassign("t", n, Some(&two)).is_ok());
        assert_eq!(bench.p(topic, n).replicas, ids(&two));
    }
}
