//! Admission of processes, and what a restart may have lost.

use super::bench::*;
use crate::controller::*;
use crate::rpc::*;
use leasehold_types::*;

fn records(bench: &Bench) -> usize {
    bench.records.len()
}

#[test]
fn a_broker_is_fenced_until_it_has_applied_its_own_registration() {
    let mut bench = Bench::on(genesis(), settings());
    bench.register(0, 7, RestartReport::default());
    let Response::Registered { at, .. } = bench.answer().clone() else {
        panic!("{:?}", bench.effects)
    };
    assert_eq!(at, bench.image.position.seq);
    assert!(!bench.image.is_live(b(0)));
    bench.poll_with(0, |poll| poll.position = None);
    assert!(!bench.image.is_live(b(0)), "nothing applied yet");
    bench.poll_with(0, |poll| poll.position.as_mut().unwrap().seq = Seq(0));
    assert!(!bench.image.is_live(b(0)), "an older image");
    bench.poll(0);
    assert!(bench.image.is_live(b(0)));
}

#[test]
fn repeating_a_registration_changes_nothing() {
    let mut bench = Bench::new(1);
    let before = bench.image.clone();
    bench.register(0, 100, RestartReport::default());
    assert!(matches!(
        bench.answer(),
        Response::Registered { at: Seq(1), .. }
    ));
    assert_eq!((records(&bench), &bench.image), (0, &before));
}

#[test]
fn a_rack_learnt_later_is_recorded_without_disturbing_anything() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    let before = bench.p(topic, 0);
    let mut registration = bench.registration(0, 100, RestartReport::default());
    registration.rack = Some("a".to_owned());
    let to = bench.token();
    bench.step(Input::Register {
        to,
        registration: Box::new(registration),
    });
    let broker = bench.image.broker(b(0)).unwrap();
    assert_eq!((broker.rack.as_deref(), broker.fenced), (Some("a"), false));
    assert_eq!(bench.p(topic, 0), before);
    // A restart without a rack keeps the last known one.
    bench.evidence(0);
    bench.join(0, 200, intact(100, 200));
    assert_eq!(bench.image.broker(b(0)).unwrap().rack.as_deref(), Some("a"));
}

#[test]
fn an_id_with_a_live_session_is_not_registered_anew_until_that_session_ends() {
    let mut bench = Bench::new(3);
    bench.register(0, 200, intact(100, 200));
    assert_eq!(bench.error(), codes::DUPLICATE_BROKER_REGISTRATION);
    bench.pass(3_100, &[1, 2]);
    bench.register(0, 200, intact(100, 200));
    assert!(matches!(bench.answer(), Response::Registered { .. }));
}

#[test]
fn a_new_controller_admits_the_successor_of_a_process_that_it_never_heard() {
    let mut bench = Bench::new(3);
    bench.take_over();
    bench.register(0, 200, RestartReport::default());
    assert_eq!(
        bench.error(),
        codes::DUPLICATE_BROKER_REGISTRATION,
        "another log directory"
    );
    bench.register(0, 200, intact(100, 200));
    assert!(matches!(bench.answer(), Response::Registered { .. }));
}

#[test]
fn registration_is_one_commit_with_a_new_epoch_for_all_that_the_old_incarnation_led() {
    let mut bench = Bench::new(3);
    let topics = [
        bench.topic("t", &[&[0, 1, 2]], 1),
        bench.topic("u", &[&[0]], 1),
        bench.topic("v", &[&[1, 0]], 1),
    ];
    bench.take_over();
    let all = |bench: &Bench| topics.map(|t| bench.p(t, 0));
    let before = all(&bench);
    bench.register(0, 200, intact(100, 200));
    let after = all(&bench);
    for n in [0, 1] {
        assert_eq!(after[n].leader_epoch, before[n].leader_epoch.next());
    }
    assert_eq!((after[0].leader, after[1].leader), (Some(b(1)), None));
    assert_eq!(after[1].isr, ids(&[0]), "the last member stays");
    assert_eq!(
        (after[2].leader, after[2].leader_epoch),
        (Some(b(1)), before[2].leader_epoch)
    );
    bench.poll(0);
    assert_eq!(bench.leader(topics[1], 0), Some(0));
    assert_eq!(
        bench.p(topics[1], 0).leader_epoch.0,
        before[1].leader_epoch.0 + 2
    );
}

#[test]
fn a_poll_of_a_replaced_incarnation_is_refused() {
    let mut bench = Bench::new(1);
    bench.poll_with(0, |poll| poll.incarnation = Incarnation(99));
    assert_eq!(bench.error(), codes::STALE_BROKER_EPOCH);
    bench.poll_with(0, |poll| poll.broker = b(5));
    assert_eq!(bench.error(), codes::BROKER_ID_NOT_REGISTERED);
}

#[test]
fn only_the_same_memory_or_a_clean_stop_of_the_registered_line_is_intact() {
    let head = Incarnation(5);
    let judge = |change: &dyn Fn(&mut RestartReport)| {
        let mut report = intact(5, 6);
        change(&mut report);
        super::super::restart::is_intact(head, &report)
    };
    let run = |report: &mut RestartReport| report.confirmed.clone().unwrap();
    assert!(judge(&|_| {}));
    assert!(
        !judge(&|r| r.boot_id = "other".to_owned()),
        "the kernel's memory is gone"
    );
    assert!(
        !judge(&|r| r.pod_uid = "other".to_owned()),
        "the pod is another"
    );
    assert!(judge(&|r| {
        r.boot_id = "other".to_owned();
        r.confirmed = Some(ConfirmedRun {
            clean: true,
            ..run(r)
        });
    }));
    assert!(!judge(&|r| r.confirmed = None), "no run file");
    let older = |r: &mut RestartReport| {
        r.confirmed = Some(ConfirmedRun {
            incarnation: Incarnation(4),
            clean: true,
            ..run(r)
        })
    };
    assert!(!judge(&|r| older(r)), "a copy of the disk from before");
    assert!(
        judge(&|r| {
            older(r);
            r.attempted.insert(0, head);
        }),
        "registered, but ended before it could write"
    );
}

#[test]
fn a_broker_that_may_have_lost_data_leaves_isr_and_elr() {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.evidence(2);
    bench.evidence(0);
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.elr), (ids(&[1]), ids(&[0])));
    bench.join(0, 200, lossy(100, 200));
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.elr, p.leader), (ids(&[1]), vec![], Some(b(1))));
}

#[test]
fn the_last_isr_member_leaves_too_if_it_is_lossy_and_an_elr_member_is_left() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0, 1]], 2);
    bench.evidence(0);
    bench.evidence(1);
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.elr, p.leader), (ids(&[1]), ids(&[0]), None));
    bench.join(1, 201, lossy(101, 201));
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.elr, p.leader), (vec![], ids(&[0]), None));
    bench.join(0, 200, intact(100, 200));
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.isr, p.leader, p.recovering),
        (ids(&[0]), Some(b(0)), false)
    );
}

#[test]
fn if_all_may_have_lost_data_the_longest_log_leads_once_all_have_told_and_says_so() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    for id in 0..3 {
        bench.evidence(id);
        if bench.resigned().is_some() {
            bench.take_over();
            bench.evidence(id);
        }
    }
    for id in 0..3 {
        bench.join(
            id,
            200 + i64::from(id),
            lossy(100 + i64::from(id), 200 + i64::from(id)),
        );
    }
    let p = bench.p(topic, 0);
    assert_eq!((p.leader, p.isr.len(), p.elr.len()), (None, 0, 0), "{p:?}");
    let tell = |bench: &mut Bench, id: i32, epoch: i32, end: i64| {
        assert_eq!(bench.image.wanted_log_ends(b(id)), [(topic, 0)]);
        let log_end = LogEnd {
            topic,
            partition: 0,
            last_epoch: LeaderEpoch(epoch),
            end_offset: Offset(end),
        };
        bench.poll_with(id, |poll| poll.state.log_ends = vec![log_end]);
    };
    tell(&mut bench, 0, 1, 50);
    tell(&mut bench, 1, 2, 10);
    assert_eq!(bench.leader(topic, 0), None, "not all have told");
    tell(&mut bench, 2, 2, 9);
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.leader, p.isr.clone(), p.recovering),
        (Some(b(1)), ids(&[1]), true)
    );
    assert!(
        bench
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Event(Event::Leader { unclean: true, .. })))
    );
    assert_eq!(bench.propose(topic, 0, &[1, 2]), 0);
    assert!(
        !bench.p(topic, 0).recovering,
        "recovered once there are enough copies"
    );
}

#[test]
fn after_a_power_loss_of_all_the_longest_log_is_looked_for_among_all_in_whatever_order_they_return()
{
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    // The new controller believes everyone alive, so leadership wanders while they return.
    bench.take_over();
    for id in 0..3 {
        let (before, now) = (100 + i64::from(id), 200 + i64::from(id));
        bench.register(id, now, lossy(before, now));
    }
    let p = bench.p(topic, 0);
    assert_eq!((p.leader, p.lossy.len()), (None, 3), "{p:?}");
    for (id, end) in [(2, 10), (1, 30), (0, 20)] {
        assert_eq!(bench.leader(topic, 0), None);
        let log_end = LogEnd {
            topic,
            partition: 0,
            last_epoch: LeaderEpoch(0),
            end_offset: Offset(end),
        };
        bench.poll_with(id, |poll| poll.state.log_ends = vec![log_end]);
    }
    assert_eq!(bench.leader(topic, 0), Some(1));
}

#[test]
fn a_partition_of_one_replica_is_led_again_even_if_its_broker_lost_data() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0]], 1);
    bench.evidence(0);
    bench.join(0, 200, RestartReport::default());
    let p = bench.p(topic, 0);
    assert_eq!((p.leader, p.recovering), (Some(b(0)), true));
}

#[test]
fn who_never_comes_back_is_waited_for_no_longer_than_the_timeout() {
    let mut bench = Bench::with(
        2,
        Settings {
            unclean_recovery_timeout_ms: 10_000,
            ..settings()
        },
    );
    let topic = bench.topic("t", &[&[0, 1]], 2);
    bench.evidence(0);
    bench.evidence(1);
    bench.join(1, 201, lossy(101, 201));
    // Broker 0 could still be intact.
    bench.pass(20_000, &[1]);
    assert_eq!(bench.leader(topic, 0), None);
    bench.register(0, 200, lossy(100, 200));
    bench.pass(9_000, &[1]);
    assert_eq!(bench.leader(topic, 0), None);
    bench.pass(3_000, &[1]);
    assert_eq!(bench.leader(topic, 0), Some(1));
}

fn public() -> ListenerName {
    ListenerName::parse("public").unwrap()
}

/// Registers the process once more, or another of the same broker, with a listener `public`.
fn with_listener(bench: &mut Bench, id: i32, incarnation: i64, restart: RestartReport) {
    let mut registration = bench.registration(id, incarnation, restart);
    registration.listeners = [(public(), None)].into();
    let to = bench.token();
    bench.step(Input::Register {
        to,
        registration: Box::new(registration),
    });
    assert!(matches!(bench.answer(), Response::Registered { .. }));
}

fn tell(bench: &mut Bench, id: i32, listener: &ListenerName, port: u16) -> Outcome {
    let told = BrokerEndpoints {
        broker: b(id),
        listeners: [(listener.clone(), Some(endpoint(port)))].into(),
    };
    let request = AdminRequest::SetEndpoints {
        brokers: vec![told],
    };
    match bench.admin(request) {
        AdminResponse::SetEndpoints(mut outcomes) => outcomes.remove(0).1,
        other => panic!("{other:?}"),
    }
}

fn told(bench: &Bench, id: i32) -> Option<u16> {
    let broker = bench.image.broker(b(id)).unwrap();
    broker.endpoint(Some(&public())).map(|at| at.port)
}

#[test]
fn an_endpoint_is_told_to_one_broker_and_disturbs_nothing() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    (0..3).for_each(|id| with_listener(&mut bench, id, 100 + i64::from(id), Default::default()));
    assert_eq!(told(&bench, 0), None);
    let before = bench.image.clone();
    assert!(tell(&mut bench, 1, &public(), 31_001).is_ok());
    assert_eq!(records(&bench), 1);
    assert_eq!(told(&bench, 1), Some(31_001));
    for id in [0, 2] {
        assert_eq!(bench.image.broker(b(id)), before.broker(b(id)));
    }
    let (is, was) = (
        bench.image.broker(b(1)).unwrap(),
        before.broker(b(1)).unwrap(),
    );
    assert_eq!(
        (is.incarnation, is.changed_at),
        (was.incarnation, was.changed_at)
    );
    assert!(bench.image.is_live(b(1)));
    assert_eq!(
        bench.image.partition(&topic, 0),
        before.partition(&topic, 0)
    );
    // Again the same: nothing is written.
    assert!(tell(&mut bench, 1, &public(), 31_001).is_ok());
    assert_eq!(records(&bench), 0);
}

#[test]
fn an_endpoint_outlives_its_process_and_is_told_of_a_fenced_broker_too() {
    let mut bench = Bench::new(3);
    with_listener(&mut bench, 1, 101, Default::default());
    assert!(tell(&mut bench, 1, &public(), 31_001).is_ok());
    bench.evidence(1);
    assert!(
        tell(&mut bench, 1, &public(), 31_002).is_ok(),
        "it restarts on another node"
    );
    with_listener(&mut bench, 1, 201, intact(101, 201));
    assert_eq!(told(&bench, 1), Some(31_002));
    // A process without the listener has no endpoint there, and one that opens it anew begins without.
    bench.evidence(1);
    bench.register(1, 301, intact(201, 301));
    assert_eq!(told(&bench, 1), None);
    let refused = tell(&mut bench, 1, &public(), 31_003);
    assert!(
        refused
            .message
            .unwrap()
            .contains("does not listen as public")
    );
}

#[test]
fn an_endpoint_of_an_unknown_broker_is_refused() {
    let mut bench = Bench::new(1);
    let refused = tell(&mut bench, 7, &public(), 31_000);
    assert_eq!(refused.code, codes::BROKER_ID_NOT_REGISTERED);
}
