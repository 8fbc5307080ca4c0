//! Reassignments, draining, replication factors.

use super::bench::*;
use crate::rpc::*;
use leasehold_types::*;

#[test]
fn a_reassignment_ends_when_all_new_replicas_are_in_sync_and_raises_the_leader_epoch() {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[0, 1]], 1);
    assert!(bench.reassign("t", 0, Some(&[2, 3])).is_ok());
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.replicas.clone(), p.adding.clone(), p.removing.clone()),
        (ids(&[2, 3, 0, 1]), ids(&[2, 3]), ids(&[0, 1]))
    );
    assert_eq!((p.leader, p.leader_epoch), (Some(b(0)), LeaderEpoch(0)));
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    assert!(bench.p(topic, 0).is_reassigning());
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2, 3]), 0);
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.replicas, p.isr, p.leader),
        (ids(&[2, 3]), ids(&[2, 3]), Some(b(2)))
    );
    assert_eq!(
        (p.leader_epoch, p.adding, p.removing),
        (LeaderEpoch(1), vec![], vec![])
    );
}

#[test]
fn taking_any_replica_away_raises_the_leader_epoch_even_under_the_same_leader() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 1);
    assert!(bench.reassign("t", 0, Some(&[0, 1])).is_ok());
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.replicas, p.leader, p.leader_epoch),
        (ids(&[0, 1]), Some(b(0)), LeaderEpoch(1))
    );
}

#[test]
fn nobody_of_isr_or_elr_is_taken_away_while_the_isr_is_below_the_minimum() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1]], 2);
    bench.evidence(1);
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.elr), (ids(&[0]), ids(&[1])));
    assert!(bench.reassign("t", 0, Some(&[0])).is_ok());
    assert_eq!(
        bench.p(topic, 0).replicas,
        ids(&[0, 1]),
        "1 may be all that is left of a record"
    );
    assert!(bench.reassign("t", 0, Some(&[0, 2])).is_ok());
    assert_eq!(bench.propose(topic, 0, &[0, 2]), 0);
    assert_eq!(
        bench.p(topic, 0).replicas,
        ids(&[0, 2]),
        "two copies: 1 may go"
    );
}

#[test]
fn nobody_is_taken_away_if_too_few_in_sync_would_stay() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.evidence(0);
    assert!(bench.reassign("t", 0, Some(&[0, 1])).is_ok());
    assert_eq!(bench.p(topic, 0).replicas, ids(&[0, 1, 2]));
    bench.poll(0);
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    let p = bench.p(topic, 0);
    assert_eq!((p.replicas, p.isr), (ids(&[0, 1]), ids(&[0, 1])));
}

#[test]
fn an_unfinished_move_does_not_raise_the_minimum() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0]], 2);
    assert!(bench.reassign("t", 0, Some(&[1])).is_ok());
    let p = bench.p(topic, 0);
    let t = bench.image.topic(&topic).unwrap();
    assert_eq!(bench.image.effective_min_isr(t, &p), 1);
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    assert_eq!(bench.p(topic, 0).replicas, ids(&[1]));
}

#[test]
fn cancelling_brings_the_old_replicas_back() {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[0, 1]], 1);
    assert_eq!(
        bench.reassign("t", 0, None).code,
        codes::NO_REASSIGNMENT_IN_PROGRESS
    );
    assert!(bench.reassign("t", 0, Some(&[2, 3])).is_ok());
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    assert!(bench.reassign("t", 0, None).is_ok());
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.replicas.clone(), p.isr.clone(), p.is_reassigning()),
        (ids(&[0, 1]), ids(&[0, 1]), false)
    );
}

#[test]
fn a_reassignment_to_nowhere_is_refused() {
    let mut bench = Bench::new(3);
    bench.topic("t", &[&[0, 1]], 1);
    for bad in [&[][..], &[1, 1], &[0, 9], &[-1]] {
        assert_eq!(
            bench.reassign("t", 0, Some(bad)).code,
            codes::INVALID_REPLICA_ASSIGNMENT,
            "{bad:?}"
        );
    }
    assert_eq!(
        bench.reassign("t", 7, Some(&[0])).code,
        codes::UNKNOWN_TOPIC_OR_PARTITION
    );
    let request = AdminRequest::AlterReassignments {
        items: vec![Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: Some(ids(&[0])),
        }],
        allow_replication_factor_change: false,
    };
    let AdminResponse::AlterReassignments(outcomes) = bench.admin(request) else {
        panic!()
    };
    assert_eq!(outcomes[0].2.code, codes::INVALID_REPLICA_ASSIGNMENT);
}

fn cordon(bench: &mut Bench, brokers: &[i32]) -> Vec<(BrokerId, Outcome)> {
    match bench.admin(AdminRequest::Cordon {
        brokers: ids(brokers),
    }) {
        AdminResponse::Cordon(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cordoned_broker_is_emptied_a_few_partitions_at_a_time_and_leads_nothing_that_does_not_move() {
    let mut bench = Bench::new(4);
    let mut topic = NewTopic::with_defaults("t");
    (topic.partitions, topic.replication_factor) = (80, 2);
    let id = topic.id;
    bench.admin(AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    });
    let before = bench.image.hosted(b(3));
    assert_eq!((before.leaders, before.replicas), (20, 40));
    cordon(&mut bench, &[3]);
    for p in &bench.image.topic(&id).unwrap().partitions {
        assert!(p.leader != Some(b(3)) || p.draining, "{p:?}");
    }
    let moving = |bench: &Bench| {
        bench
            .image
            .topic(&id)
            .unwrap()
            .partitions
            .iter()
            .filter(|p| p.is_reassigning())
            .count()
    };
    assert_eq!(moving(&bench), 16, "bounded");
    for _ in 0..10 {
        bench.catch_up();
        bench.pass(100, &[0, 1, 2, 3]);
        assert!(moving(&bench) <= 16);
    }
    assert_eq!(bench.image.hosted(b(3)), crate::image::Hosted::default());
    for p in &bench.image.topic(&id).unwrap().partitions {
        assert_eq!(
            (p.replicas.len(), p.isr.len(), p.is_reassigning()),
            (2, 2, false)
        );
    }
    for id in 0..3 {
        let hosted = bench.image.hosted(b(id));
        assert!((50..=57).contains(&hosted.replicas), "{hosted:?}");
    }
}

#[test]
fn a_cordoned_broker_gets_nothing_new() {
    let mut bench = Bench::new(3);
    bench.topic("t", &[&[0, 1]], 1);
    cordon(&mut bench, &[2]);
    assert_eq!(
        bench.reassign("t", 0, Some(&[0, 2])).code,
        codes::INVALID_REPLICA_ASSIGNMENT
    );
    let mut topic = NewTopic::with_defaults("u");
    (topic.partitions, topic.replication_factor) = (10, 2);
    let id = topic.id;
    bench.admin(AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    });
    assert!(
        bench
            .image
            .topic(&id)
            .unwrap()
            .partitions
            .iter()
            .all(|p| !p.replicas.contains(&b(2)))
    );
    let mut topic = NewTopic::with_defaults("v");
    topic.replication_factor = 3;
    let request = AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    let AdminResponse::CreateTopics(created) = bench.admin(request) else {
        panic!()
    };
    assert_eq!(created[0].outcome.code, codes::INVALID_REPLICATION_FACTOR);
}

#[test]
fn a_cordoned_broker_leads_only_if_no_other_can() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 1);
    cordon(&mut bench, &[1]);
    bench.evidence(0);
    assert_eq!(bench.p(topic, 0).leader_epoch, LeaderEpoch(1));
    assert_eq!(bench.leader(topic, 0), Some(2));
    bench.goodbye(2);
    assert_eq!(bench.leader(topic, 0), Some(1));
}

#[test]
fn lifting_the_cordon_calls_the_drain_off() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[2, 0]], 1);
    cordon(&mut bench, &[2]);
    let p = bench.p(topic, 0);
    assert!(p.draining && p.removing == ids(&[2]) && p.adding == ids(&[1]));
    cordon(&mut bench, &[]);
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.replicas, p.draining, p.adding),
        (ids(&[2, 0]), false, vec![])
    );
}

#[test]
fn an_administrators_own_reassignment_is_not_taken_for_a_drain() {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[2, 0]], 1);
    assert!(bench.reassign("t", 0, Some(&[1, 0])).is_ok());
    cordon(&mut bench, &[2]);
    cordon(&mut bench, &[]);
    assert_eq!(bench.p(topic, 0).adding, ids(&[1]));
}

#[test]
fn where_no_one_could_take_over_the_drain_waits() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0, 1]], 1);
    cordon(&mut bench, &[1]);
    bench.pass(2_000, &[0, 1]);
    assert_eq!(bench.p(topic, 0).replicas, ids(&[0, 1]));
    assert_eq!(bench.image.hosted(b(1)).replicas, 1);
    bench.join(2, 102, RestartReport::default());
    assert_eq!(bench.p(topic, 0).adding, ids(&[2]));
}

#[test]
fn a_move_whose_newcomer_dies_gets_another() {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[3, 0]], 1);
    cordon(&mut bench, &[3]);
    let first = bench.p(topic, 0).adding[0].0;
    bench.evidence(first);
    let p = bench.p(topic, 0);
    let awaited: Vec<_> = p
        .adding
        .iter()
        .filter(|b| !p.removing.contains(b))
        .collect();
    assert_eq!(awaited.len(), 1, "{p:?}");
    assert_ne!(awaited[0].0, first);
}

#[test]
fn an_unknown_broker_cannot_be_cordoned() {
    let mut bench = Bench::new(1);
    assert_eq!(
        cordon(&mut bench, &[7])[0].1.code,
        codes::BROKER_ID_NOT_REGISTERED
    );
}

#[test]
fn only_a_fenced_and_empty_broker_is_unregistered() {
    let mut bench = Bench::new(3);
    let unregister =
        |bench: &mut Bench| match bench.admin(AdminRequest::UnregisterBroker { broker: b(2) }) {
            AdminResponse::UnregisterBroker(outcome) => outcome.code,
            other => panic!("{other:?}"),
        };
    bench.topic("t", &[&[0, 2]], 1);
    assert_eq!(unregister(&mut bench), codes::INVALID_REQUEST, "alive");
    bench.goodbye(2);
    assert_eq!(
        unregister(&mut bench),
        codes::INVALID_REQUEST,
        "holds replicas"
    );
    assert!(bench.reassign("t", 0, Some(&[0])).is_ok());
    assert_eq!(unregister(&mut bench), 0);
    assert!(bench.image.broker(b(2)).is_none());
    assert_eq!(unregister(&mut bench), codes::BROKER_ID_NOT_REGISTERED);
}

#[test]
fn another_replication_factor_changes_as_little_as_possible() {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[0, 1], &[1, 2]], 1);
    let set = |bench: &mut Bench, factor| match bench.admin(AdminRequest::SetReplicationFactor {
        topics: vec![("t".to_owned(), factor)],
    }) {
        AdminResponse::SetReplicationFactor(outcomes) => outcomes[0].1.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(set(&mut bench, 3), 0);
    bench.catch_up();
    for n in 0..2 {
        let p = bench.p(topic, n);
        assert_eq!(
            (p.replicas.len(), p.isr.len(), p.is_reassigning()),
            (3, 3, false)
        );
        assert_eq!(p.replicas[0], b(n));
    }
    assert_eq!(set(&mut bench, 1), 0);
    assert_eq!(
        (bench.p(topic, 0).replicas, bench.p(topic, 1).replicas),
        (ids(&[0]), ids(&[1])),
        "the leaders stay"
    );
    assert_eq!(set(&mut bench, 5), codes::INVALID_REPLICATION_FACTOR);
    assert_eq!(set(&mut bench, 0), codes::INVALID_REPLICATION_FACTOR);
}
