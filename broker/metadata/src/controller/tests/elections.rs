//! Who leads.

use super::bench::*;
use crate::controller::*;
use crate::rpc::*;
use leasehold_types::*;

#[test]
fn the_first_live_member_of_the_isr_in_assignment_order_leads() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[2, 0, 1]], 1);
    assert_eq!(bench.propose(topic, 0, &[2, 1]), 0);
    bench.evidence(2);
    assert_eq!(
        bench.leader(topic, 0),
        Some(1),
        "0 comes first but is not in sync"
    );
}

#[test]
fn each_change_of_leader_raises_the_leader_epoch_by_one() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 1);
    for (round, id) in [0, 1].into_iter().enumerate() {
        bench.evidence(id);
        bench.poll(id);
        assert_eq!(
            bench.p(topic, 0).leader_epoch,
            LeaderEpoch(round as i32 + 1)
        );
    }
}

#[test]
fn with_every_replica_fenced_the_isr_stays_and_the_first_to_return_leads() {
    let mut bench = Bench::with(2, settings());
    let topic = bench.topic("t", &[&[0, 1]], 1);
    bench.pass(4_000, &[]);
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.leader), (ids(&[0, 1]), None));
    bench.poll(1);
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.leader), (ids(&[1]), Some(b(1))));
}

#[test]
fn without_a_clean_candidate_nobody_leads_unless_the_topic_says_so() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1]], 1);
    assert_eq!(bench.propose(topic, 0, &[0]), 0);
    bench.evidence(0);
    assert_eq!(bench.leader(topic, 0), None);
    assert!(
        bench
            .config("t", "unclean.leader.election.enable", Some("true"))
            .is_ok()
    );
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.leader, p.isr, p.recovering),
        (Some(b(1)), ids(&[1]), true)
    );
    assert!(
        bench
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Event(Event::Leader { unclean: true, .. })))
    );
}

#[test]
fn a_broker_that_came_back_gets_its_leaderships_only_after_the_delay() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.evidence(0);
    bench.poll(0);
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    bench.pass(59_000, &[0, 1, 2]);
    assert_eq!(bench.leader(topic, 0), Some(1));
    bench.pass(7_000, &[0, 1, 2]);
    assert_eq!(bench.leader(topic, 0), Some(0));
    assert_eq!(bench.p(topic, 0).leader_epoch, LeaderEpoch(2));
}

#[test]
fn a_preferred_leader_out_of_sync_is_not_restored() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.evidence(0);
    bench.poll(0);
    bench.pass(70_000, &[0, 1, 2]);
    assert_eq!(bench.leader(topic, 0), Some(1));
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    bench.pass(6_000, &[0, 1, 2]);
    assert_eq!(bench.leader(topic, 0), Some(0));
}

#[test]
fn preferred_leaders_stay_where_they_are_if_it_is_switched_off() {
    let mut bench = Bench::with(
        3,
        Settings {
            auto_leader_rebalance: false,
            ..settings()
        },
    );
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    bench.evidence(0);
    bench.poll(0);
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    bench.pass(70_000, &[0, 1, 2]);
    assert_eq!(bench.leader(topic, 0), Some(1));
}

fn elect(bench: &mut Bench, kind: ElectionKind) -> i16 {
    let partitions = Some(vec![("t".to_owned(), 0)]);
    match bench.admin(AdminRequest::ElectLeaders { kind, partitions }) {
        AdminResponse::ElectLeaders(outcomes) => outcomes[0].2.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn elections_on_request_answer_as_kafkas() {
    let mut bench = Bench::new(3);
    let topic = bench.topic("t", &[&[0, 1]], 1);
    assert_eq!(
        elect(&mut bench, ElectionKind::Preferred),
        codes::ELECTION_NOT_NEEDED
    );
    bench.evidence(0);
    assert_eq!(
        elect(&mut bench, ElectionKind::Preferred),
        codes::PREFERRED_LEADER_NOT_AVAILABLE
    );
    bench.poll(0);
    assert_eq!(bench.propose(topic, 0, &[1, 0]), 0);
    assert_eq!(elect(&mut bench, ElectionKind::Preferred), 0);
    assert_eq!(bench.leader(topic, 0), Some(0));
    assert_eq!(
        elect(&mut bench, ElectionKind::Unclean),
        codes::ELECTION_NOT_NEEDED
    );
    assert_eq!(bench.propose(topic, 0, &[0]), 0);
    bench.evidence(0);
    assert_eq!(elect(&mut bench, ElectionKind::Unclean), 0);
    assert!(bench.p(topic, 0).recovering);
    bench.goodbye(1);
    assert_eq!(
        elect(&mut bench, ElectionKind::Unclean),
        codes::ELIGIBLE_LEADERS_NOT_AVAILABLE
    );
    let all = AdminRequest::ElectLeaders {
        kind: ElectionKind::Preferred,
        partitions: None,
    };
    assert_eq!(
        bench.admin(all),
        AdminResponse::ElectLeaders(vec![(
            "t".to_owned(),
            0,
            Outcome::refused(
                codes::PREFERRED_LEADER_NOT_AVAILABLE,
                "the preferred replica is not in the ISR, fenced, or shutting down"
            ),
        )])
    );
}
