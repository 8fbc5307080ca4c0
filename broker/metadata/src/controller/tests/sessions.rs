//! Who is believed alive.

use super::bench::*;
use crate::controller::*;
use crate::rpc::*;
use leasehold_types::*;
use std::collections::BTreeSet;

#[test]
fn silence_for_a_session_timeout_fences_and_moves_leaders_in_the_same_commit() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.pass(2_800, &[1, 2]);
    assert!(bench.image.is_live(b(0)));
    let seq = bench.image.position.seq;
    bench.pass(300, &[1, 2]);
    assert!(!bench.image.is_live(b(0)));
    assert_eq!(bench.image.position.seq, seq.next());
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.leader, p.isr, p.leader_epoch),
        (Some(b(1)), ids(&[1, 2]), LeaderEpoch(1))
    );
}

#[test]
fn evidence_fences_at_once_but_only_the_incarnation_that_is_meant() {
    let mut bench = Bench::new(3);
    bench.step(Input::SessionEvidence {
        broker: b(0),
        incarnation: Incarnation(99),
        evidence: String::new(),
    });
    assert!(bench.image.is_live(b(0)));
    bench.evidence(0);
    assert!(!bench.image.is_live(b(0)));
}

#[test]
fn a_false_alarm_costs_a_blip() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.evidence(0);
    bench.poll(0);
    assert!(bench.image.is_live(b(0)));
    assert_eq!(bench.leader(topic, 0), Some(1));
    assert_eq!(bench.propose(topic, 0, &[1, 2, 0]), 0);
}

#[test]
fn a_position_that_does_not_move_for_a_session_timeout_fences() {
    let mut bench = Bench::new(3);
    let stuck = bench.image.position;
    bench.topic("t", &[&[0, 1, 2]], 2);
    for _ in 0..29 {
        bench.now = bench.now.plus(100);
        bench.poll(1);
        bench.poll(2);
        bench.poll_with(0, |poll| poll.position = Some(stuck));
    }
    assert!(bench.image.is_live(b(0)));
    for _ in 0..3 {
        bench.now = bench.now.plus(100);
        bench.poll_with(0, |poll| poll.position = Some(stuck));
    }
    assert!(!bench.image.is_live(b(0)));
    bench.poll_with(0, |poll| poll.position = Some(stuck));
    assert!(!bench.image.is_live(b(0)), "not before it has caught up");
    bench.poll(0);
    assert!(bench.image.is_live(b(0)));
}

#[test]
fn a_position_that_is_behind_but_moves_keeps_the_session() {
    let mut bench = Bench::new(3);
    for n in 0..60 {
        bench.now = bench.now.plus(100);
        if n % 10 == 0 {
            bench.topic(&format!("t{n}"), &[&[1]], 1);
            bench.topic(&format!("u{n}"), &[&[1]], 1);
        }
        bench.poll(1);
        bench.poll(2);
        let behind = bench.image.position.seq.0 - 1;
        bench.poll_with(0, |poll| poll.position.as_mut().unwrap().seq = Seq(behind));
    }
    assert!(bench.image.is_live(b(0)));
}

#[test]
fn time_in_which_the_controller_did_not_run_does_not_count() {
    let mut bench = Bench::new(3);
    bench.now = bench.now.plus(60_000);
    bench.step(Input::Tick);
    bench.now = bench.now.plus(60_000);
    bench.poll(1);
    assert!((0..3).all(|id| bench.image.is_live(b(id))));
    assert!(bench.resigned().is_none());
}

#[test]
fn deadlines_are_early_enough_for_every_session() {
    let mut bench = Bench::new(3);
    for _ in 0..100 {
        let due = bench.controller.next_deadline();
        assert!(due > bench.now && due.since(bench.now) <= 500);
        bench.now = due;
        bench.poll(1);
        bench.poll(2);
        bench.step(Input::Tick);
    }
    assert!(!bench.image.is_live(b(0)));
}

#[test]
fn a_new_controller_gives_everyone_a_full_session_timeout() {
    let mut bench = Bench::new(3);
    bench.pass(2_000, &[1, 2]);
    bench.take_over();
    bench.pass(2_500, &[1, 2]);
    assert!(bench.image.is_live(b(0)));
    bench.pass(600, &[1, 2]);
    assert!(!bench.image.is_live(b(0)));
}

#[test]
fn a_controller_that_would_lose_the_majority_resigns_instead_once() {
    let mut bench = Bench::new(5);
    let lost: BTreeSet<_> = ids(&[2, 3, 4]).into_iter().collect();
    bench.pass(3_200, &[0, 1]);
    assert!(
        (0..5).all(|id| bench.image.is_live(b(id))),
        "nobody was fenced"
    );
    assert_eq!(bench.resigned(), Some(lost.clone()));
    // It stood back and nobody claimed: on the same evidence it goes on.
    let settings = bench.controller.settings.clone();
    bench.controller =
        Controller::new(bench.image.clone(), settings, bench.now).after_standing_back(lost);
    bench.pass(3_200, &[0, 1]);
    assert_eq!(bench.image.brokers.values().filter(|b| b.fenced).count(), 3);
}

#[test]
fn losses_that_trickle_in_add_up_to_a_majority() {
    let mut bench = Bench::new(5);
    bench.evidence(1);
    bench.evidence(2);
    assert!(bench.resigned().is_none());
    bench.evidence(3);
    assert_eq!(bench.resigned().map(|lost| lost.len()), Some(3));
    assert!(bench.image.is_live(b(3)));
}

#[test]
fn the_loss_of_one_or_of_one_in_two_never_makes_a_controller_resign() {
    for n in [1, 2, 3] {
        let mut bench = Bench::new(n);
        bench.evidence(n - 1);
        assert!(bench.resigned().is_none());
        assert!(!bench.image.is_live(b(n - 1)));
    }
    let mut bench = Bench::new(2);
    bench.pass(4_000, &[]);
    assert!(bench.image.brokers.values().all(|b| b.fenced));
}

#[test]
fn after_resigning_nothing_is_decided() {
    let mut bench = Bench::new(5);
    bench.evidence(1);
    bench.evidence(2);
    bench.evidence(3);
    let to = bench.token();
    let request = AdminRequest::UnregisterBroker { broker: b(1) };
    bench.step(Input::Admin {
        to,
        request,
        deadline: bench.now.plus(1000),
    });
    assert_eq!(bench.error(), codes::REQUEST_TIMED_OUT);
}

#[test]
fn goodbye_fences_and_a_late_poll_is_no_sign_of_life() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.goodbye(0);
    assert_eq!(bench.answer(), &Response::Goodbye);
    assert!(!bench.image.is_live(b(0)));
    assert_eq!(bench.leader(topic, 0), Some(1));
    bench.poll(0);
    assert_eq!(bench.error(), codes::STALE_BROKER_EPOCH);
    bench.join(0, 200, intact(100, 200));
}

#[test]
fn leaders_move_before_a_broker_that_shuts_down_may_stop() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2], &[1, 0, 2]], 2);
    let alone = bench.topic("u", &[&[0]], 2);
    assert!(!bench.image.may_stop(b(0)));
    bench.shut_down(0);
    assert!(bench.image.may_stop(b(0)));
    assert_eq!(
        (bench.leader(topic, 0), bench.p(topic, 0).leader_epoch),
        (Some(1), LeaderEpoch(1))
    );
    assert_eq!(
        bench.p(topic, 1).isr,
        ids(&[1, 2]),
        "no one waits for it any more"
    );
    assert_eq!(
        bench.leader(alone, 0),
        Some(0),
        "what no one else has it leads to the end"
    );
    assert_eq!(
        bench.propose(topic, 0, &[1, 2, 0]),
        codes::INELIGIBLE_REPLICA
    );
    bench.goodbye(0);
    assert_eq!(
        (bench.leader(alone, 0), bench.p(alone, 0).isr),
        (None, ids(&[0]))
    );
    bench.join(0, 200, intact(100, 200));
    assert_eq!(bench.leader(alone, 0), Some(0));
}

#[test]
fn a_broker_that_shuts_down_is_elected_nowhere() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0, 1]], 2);
    bench.shut_down(1);
    assert_eq!(bench.p(topic, 0).elr, ids(&[1]));
    bench.evidence(0);
    assert!(bench.image.is_live(b(1)));
    assert_eq!(bench.leader(topic, 0), None);
    let mut new = NewTopic::with_defaults("u");
    (new.partitions, new.replication_factor) = (1, 1);
    let topics = vec![new];
    let request = AdminRequest::CreateTopics {
        topics,
        validate_only: false,
    };
    let AdminResponse::CreateTopics(created) = bench.admin(request) else {
        panic!("{:?}", bench.effects)
    };
    assert_eq!(created[0].outcome.code, codes::INVALID_REPLICATION_FACTOR);
}

#[test]
fn a_broker_that_shuts_down_hands_over_when_a_follower_catches_up() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0, 1]], 1);
    bench.evidence(1);
    bench.poll(1);
    bench.shut_down(0);
    assert_eq!(bench.leader(topic, 0), Some(0));
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    let p = bench.p(topic, 0);
    assert_eq!((p.leader, p.isr), (Some(b(1)), ids(&[1])));
}

#[test]
fn a_frozen_controller_decides_nothing() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    let before = bench.image.clone();
    bench.step(Input::Freeze {
        reason: "a point off the table".to_owned(),
    });
    assert_eq!(bench.controller.frozen(), Some("a point off the table"));
    bench.pass(10_000, &[1]);
    bench.evidence(0);
    bench.poll(2);
    let request = bench.proposal(topic, 0, &[0, 1]);
    assert_eq!(bench.alter(request), codes::REQUEST_TIMED_OUT);
    bench.register(7, 1, RestartReport::default());
    assert_eq!(bench.error(), codes::REQUEST_TIMED_OUT);
    assert_eq!(bench.image, before);
}

#[test]
fn an_administrators_wish_is_not_applied_after_its_deadline() {
    let mut bench = Bench::new(1);
    let mut topic = NewTopic::with_defaults("late");
    topic.replication_factor = 1;
    let (to, deadline) = (bench.token(), bench.now);
    let request = AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    bench.step(Input::Admin {
        to,
        request,
        deadline,
    });
    assert_eq!(bench.error(), codes::REQUEST_TIMED_OUT);
    assert!(bench.image.topic_by_name("late").is_none());
}

#[test]
fn the_records_of_a_wish_name_the_time_before_which_they_must_be_written() {
    let mut bench = Bench::new(1);
    let mut topic = NewTopic::with_defaults("t");
    topic.replication_factor = 1;
    let request = AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    let deadline = bench.now.plus(5);
    let input = Input::Admin {
        to: ReplyTo(1),
        request,
        deadline,
    };
    let output = bench.controller.step(input, bench.now);
    assert_eq!(output.write_before, Some(deadline));
}
