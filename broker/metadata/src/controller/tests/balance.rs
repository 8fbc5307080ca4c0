//! Brokers come and go, and the controller keeps them even.

use super::bench::*;
use crate::balance::*;
use crate::controller::*;
use crate::rpc::*;
use leasehold_types::*;

/// Brokers 0 to 2 with 30 partitions of three replicas on each, and default limits but for these.
fn three(max_moves: u32) -> (Bench, TopicId) {
    let settings = Settings {
        preferred_leader_delay_ms: 1_000,
        preferred_leader_check_ms: 500,
        ..settings()
    };
    let mut bench = Bench::with(3, settings);
    let mut topic = NewTopic::with_defaults("t");
    (topic.partitions, topic.replication_factor) = (30, 3);
    let id = topic.id;
    bench.admin(AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    });
    let limits = Balancing {
        max_moves,
        ..Balancing::default()
    };
    assert!(set(&mut bench, limits).is_ok());
    (bench, id)
}

fn set(bench: &mut Bench, balancing: Balancing) -> Outcome {
    match bench.admin(AdminRequest::SetBalancing { balancing }) {
        AdminResponse::SetBalancing(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn join(bench: &mut Bench, id: i32) {
    bench.join(id, 100 + i64::from(id), RestartReport::default());
}

fn cordon(bench: &mut Bench, brokers: &[i32]) {
    bench.admin(AdminRequest::Cordon {
        brokers: ids(brokers),
    });
}

fn moving(bench: &Bench) -> usize {
    let partitions = bench.image.topics.values().flat_map(|t| &t.partitions);
    partitions.filter(|p| p.is_reassigning()).count()
}

fn replicas(bench: &Bench, brokers: &[i32]) -> Vec<usize> {
    let hosted = |id: &i32| bench.image.hosted(b(*id)).replicas;
    brokers.iter().map(hosted).collect()
}

fn leaders(bench: &Bench, brokers: &[i32]) -> Vec<usize> {
    let hosted = |id: &i32| bench.image.hosted(b(*id)).leaders;
    brokers.iter().map(hosted).collect()
}

/// Until nothing is due any more; followers catch up at once.
fn settle(bench: &mut Bench, alive: &[i32]) {
    for _ in 0..600 {
        if !bench.image.balancing.due {
            return;
        }
        bench.catch_up();
        bench.pass(200, alive);
    }
    panic!("still due: {:?}", replicas(bench, alive));
}

const FIVE: [i32; 5] = [0, 1, 2, 3, 4];

#[test]
fn new_brokers_get_their_share_a_few_partitions_at_a_time() {
    let (mut bench, _) = three(4);
    join(&mut bench, 3);
    assert!(bench.image.balancing.due);
    bench.pass(5_000, &[0, 1, 2, 3]);
    join(&mut bench, 4);
    bench.pass(9_000, &FIVE);
    assert_eq!(moving(&bench), 0, "others may follow");
    bench.pass(2_000, &FIVE);
    assert_eq!(moving(&bench), 4);
    let mut most = 0;
    for _ in 0..100 {
        bench.catch_up();
        bench.pass(100, &FIVE);
        most = most.max(moving(&bench));
        let mut partitions = bench.image.topics.values().flat_map(|t| &t.partitions);
        assert!(partitions.all(|p| p.replication_factor() == 3));
    }
    assert_eq!(most, 4);
    settle(&mut bench, &FIVE);
    bench.pass(3_000, &FIVE);
    assert_eq!(replicas(&bench, &FIVE), [18; 5]);
    assert_eq!(leaders(&bench, &FIVE), [6; 5]);
    assert_eq!(of_image(&bench.image, usize::MAX), Plan::default());
}

#[test]
fn a_later_controller_goes_on() {
    let (mut bench, _) = three(4);
    join(&mut bench, 3);
    bench.pass(11_000, &[0, 1, 2, 3]);
    assert_eq!(moving(&bench), 4);
    bench.take_over();
    settle(&mut bench, &[0, 1, 2, 3]);
    assert_eq!(replicas(&bench, &[3]), [22]);
}

#[test]
fn an_even_cluster_is_left_alone() {
    let (mut bench, _) = three(4);
    let balancing = Balancing {
        due: true,
        ..bench.image.balancing
    };
    assert!(set(&mut bench, balancing).is_ok());
    assert!(bench.image.balancing.due);
    let before = bench.image.topics.clone();
    settle(&mut bench, &[0, 1, 2]);
    assert_eq!(bench.image.topics, before);
}

#[test]
fn where_a_user_placed_replicas_they_stay_though_brokers_restart() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1], &[0, 1], &[0, 1]], 1);
    bench.evidence(2);
    bench.join(2, 777, intact(102, 777));
    bench.pass(30_000, &[0, 1, 2]);
    assert!(!bench.image.balancing.due);
    assert_eq!(bench.p(topic, 0).replicas, ids(&[0, 1]));
}

#[test]
fn with_a_plan_only_or_off_nothing_moves_until_it_is_on_again() {
    let (mut bench, _) = three(4);
    for mode in [Mode::PlanOnly, Mode::Off] {
        let limits = Balancing {
            mode,
            ..Balancing::default()
        };
        assert!(set(&mut bench, limits).is_ok());
        if mode == Mode::PlanOnly {
            join(&mut bench, 3);
        }
        bench.pass(20_000, &[0, 1, 2, 3]);
        assert_eq!(replicas(&bench, &[3]), [0]);
        assert_eq!(of_image(&bench.image, usize::MAX).replicas(), 22);
    }
    assert!(set(&mut bench, Balancing::default()).is_ok());
    settle(&mut bench, &[0, 1, 2, 3]);
    assert_eq!(replicas(&bench, &[3]), [22]);
}

#[test]
fn limits_of_nothing_are_refused() {
    let mut bench = Bench::new(1);
    for bad in [
        Balancing {
            max_moves: 0,
            ..Balancing::default()
        },
        Balancing {
            bytes_per_second: Some(0),
            ..Balancing::default()
        },
    ] {
        assert_eq!(set(&mut bench, bad).code, codes::INVALID_REQUEST);
    }
    assert_eq!(bench.image.balancing, Balancing::default());
}

#[test]
fn a_new_broker_that_stays_away_is_not_waited_for_and_gets_its_share_when_it_is_back() {
    let (mut bench, _) = three(4);
    join(&mut bench, 3);
    join(&mut bench, 4);
    bench.pass(11_000, &FIVE);
    bench.evidence(4);
    let alive = [0, 1, 2, 3];
    let to_4 = |bench: &Bench| replicas(bench, &[4])[0];
    assert!(to_4(&bench) > 0);
    bench.pass(30_000, &alive);
    bench.catch_up();
    assert!(to_4(&bench) > 0, "it may be back at once");
    let begun = moving(&bench);
    bench.pass(20_000, &alive);
    assert_eq!(moving(&bench), begun, "nothing begins meanwhile");
    for _ in 0..200 {
        bench.pass(200, &alive);
        bench.catch_up();
    }
    assert_eq!(replicas(&bench, &alive).iter().sum::<usize>(), 90);
    assert_eq!(replicas(&bench, &[3, 4]), [22, 0]);
    assert!(bench.image.balancing.due, "broker 4 is not even yet");
    bench.join(4, 777, intact(104, 777));
    settle(&mut bench, &FIVE);
    assert_eq!(replicas(&bench, &FIVE), [18; 5]);
}

#[test]
fn a_drain_goes_first_and_takes_over_what_moves_to_the_drained() {
    let (mut bench, _) = three(8);
    join(&mut bench, 3);
    join(&mut bench, 4);
    bench.pass(11_000, &FIVE);
    assert_eq!(moving(&bench), 8);
    let to_4 = replicas(&bench, &[4])[0];
    assert!(to_4 > 0);
    cordon(&mut bench, &[4]);
    bench.pass(2_000, &FIVE);
    assert_eq!(
        replicas(&bench, &[4]),
        [0],
        "nothing goes on to it, though nobody has caught up"
    );
    for _ in 0..100 {
        bench.pass(200, &FIVE);
        bench.catch_up();
    }
    assert_eq!(replicas(&bench, &[4]), [0]);
    settle(&mut bench, &FIVE);
    assert_eq!(replicas(&bench, &[3]), [22]);
    cordon(&mut bench, &[]);
    assert!(bench.image.balancing.due, "a broker is back in the fold");
    settle(&mut bench, &FIVE);
    assert_eq!(replicas(&bench, &FIVE), [18; 5]);
}

#[test]
fn nothing_begins_while_a_broker_may_be_back_at_once() {
    let (mut bench, _) = three(8);
    join(&mut bench, 3);
    settle(&mut bench, &[0, 1, 2, 3]);
    join(&mut bench, 4);
    bench.evidence(3);
    let alive = [0, 1, 2, 4];
    bench.pass(50_000, &alive);
    assert_eq!(moving(&bench), 0, "though some partitions do without it");
    bench.pass(20_000, &alive);
    assert_eq!(moving(&bench), 8, "those that do");
}

#[test]
fn nothing_begins_while_a_broker_is_drained() {
    let (mut bench, _) = three(8);
    join(&mut bench, 3);
    settle(&mut bench, &[0, 1, 2, 3]);
    join(&mut bench, 4);
    cordon(&mut bench, &[0]);
    // Nobody catches up: the drain lasts, and what does not concern it could move.
    bench.pass(20_000, &FIVE);
    let partitions = bench.image.topics.values().flat_map(|t| &t.partitions);
    let partitions: Vec<_> = partitions.collect();
    assert!(partitions.iter().any(|p| p.draining));
    assert!(!partitions.iter().any(|p| p.balancing));
    assert!(partitions.iter().any(|p| !p.is_reassigning()));
    assert!(bench.image.balancing.due);
}

#[test]
fn after_a_broker_was_forgotten_the_rest_is_even() {
    let (mut bench, topic) = three(8);
    join(&mut bench, 3);
    settle(&mut bench, &[0, 1, 2, 3]);
    // By hand, all on the others, unevenly.
    for n in 0..30 {
        if bench.p(topic, n).replicas.contains(&b(3)) {
            bench.reassign("t", n, Some(&[0, 1, 2]));
        }
    }
    bench.catch_up();
    bench.goodbye(3);
    bench.admin(AdminRequest::UnregisterBroker { broker: b(3) });
    assert!(bench.image.balancing.due);
    settle(&mut bench, &[0, 1, 2]);
    bench.pass(3_000, &[0, 1, 2]);
    assert_eq!(leaders(&bench, &[0, 1, 2]), [10; 3]);
}

#[test]
fn an_administrators_own_move_is_let_alone() {
    let (mut bench, topic) = three(8);
    join(&mut bench, 3);
    assert!(bench.reassign("t", 0, Some(&[3, 1, 2])).is_ok());
    for _ in 0..60 {
        bench.pass(500, &[0, 1, 2, 3]);
        for n in 1..30 {
            let all: Vec<i32> = bench.p(topic, n).replicas.iter().map(|b| b.0).collect();
            if all.len() > 3 {
                assert_eq!(bench.propose(topic, n, &all), 0);
            }
        }
    }
    assert_eq!(bench.p(topic, 0).adding, ids(&[3]));
    assert_eq!(replicas(&bench, &[3]), [22], "it counts as moved");
    assert!(!bench.image.balancing.due);
}

#[test]
fn a_cancelled_move_gives_its_first_replica_its_turn_to_lead_back() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0, 1], &[0, 1], &[0, 1]], 1);
    join(&mut bench, 2);
    bench.pass(11_000, &[0, 1, 2]);
    let takes_over = |n: &i32| bench.p(topic, *n).replicas.first() == Some(&b(2));
    let n = (0..3).find(takes_over).unwrap();
    let p = bench.p(topic, n);
    assert!(p.balancing && p.removing == ids(&[0]), "{p:?}");
    assert!(bench.reassign("t", n, None).is_ok());
    let p = bench.p(topic, n);
    assert_eq!((p.replicas, p.balancing), (ids(&[0, 1]), false));
}
