//! AlterPartition, its checks in their order, and the eligible leader replicas.

use super::bench::*;
use crate::rpc::*;
use leasehold_types::*;

fn three() -> (Bench, TopicId) {
    let mut bench = Bench::new(4);
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    (bench, topic)
}

#[test]
fn an_isr_is_committed_with_the_next_partition_epoch_and_the_same_leader_epoch() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0, 2]), 0);
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.isr, p.partition_epoch, p.leader_epoch),
        (ids(&[0, 2]), PartitionEpoch(1), LeaderEpoch(0))
    );
}

/// Each of these requests breaks one rule more than the one before it in the list is answered for.
#[test]
fn the_checks_are_made_in_their_order() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    bench.evidence(0); // leader 1, epochs (1, 2)
    let good = bench.proposal(topic, 0, &[1]);
    let mut refused = |change: &dyn Fn(&mut AlterPartition)| {
        let mut request = good.clone();
        change(&mut request);
        bench.alter(request)
    };
    type Change = fn(&mut AlterPartition);
    let strange: Change = |r| r.proposals[0].isr = vec![(b(3), Incarnation(103))];
    let old_partition_epoch: Change = |r| r.proposals[0].partition_epoch = PartitionEpoch(1);
    let not_leader: Change = |r| (r.broker, r.incarnation) = (b(2), Incarnation(102));
    let old_leader_epoch: Change = |r| r.proposals[0].leader_epoch = LeaderEpoch(0);
    let ahead: Change = |r| r.proposals[0].partition_epoch = PartitionEpoch(9);
    let ahead_too: Change = |r| r.proposals[0].leader_epoch = LeaderEpoch(9);
    let wrong_sender: Change = |r| r.incarnation = Incarnation(1);
    let wrong_member: Change = |r| r.proposals[0].isr[0].1 = Incarnation(5);
    assert_eq!(
        refused(&|r| [wrong_member].iter().for_each(|f| f(r))),
        codes::INELIGIBLE_REPLICA
    );
    assert_eq!(
        refused(&|r| [strange].iter().for_each(|f| f(r))),
        codes::INVALID_REQUEST
    );
    assert_eq!(
        refused(&|r| [strange, old_partition_epoch].iter().for_each(|f| f(r))),
        codes::INVALID_UPDATE_VERSION
    );
    assert_eq!(
        refused(&|r| [old_partition_epoch, not_leader].iter().for_each(|f| f(r))),
        codes::INVALID_REQUEST
    );
    assert_eq!(
        refused(&|r| [not_leader, old_leader_epoch].iter().for_each(|f| f(r))),
        codes::FENCED_LEADER_EPOCH
    );
    assert_eq!(
        refused(&|r| [old_leader_epoch, ahead].iter().for_each(|f| f(r))),
        codes::NOT_CONTROLLER
    );
    assert_eq!(refused(&|r| ahead_too(r)), codes::NOT_CONTROLLER);
    assert_eq!(
        refused(&|r| [ahead, wrong_sender].iter().for_each(|f| f(r))),
        codes::STALE_BROKER_EPOCH
    );
    assert_eq!(
        refused(&|r| r.proposals[0].partition = 5),
        codes::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        refused(&|r| r.proposals[0].topic = TopicId::random()),
        codes::UNKNOWN_TOPIC_ID
    );
    assert_eq!(
        refused(&|r| r.proposals[0].isr.push((b(1), Incarnation(101)))),
        codes::INVALID_REQUEST
    );
    assert_eq!(refused(&|_| {}), 0);
}

#[test]
fn a_retry_of_what_is_committed_succeeds_without_another_commit() {
    let (mut bench, topic) = three();
    let request = bench.proposal(topic, 0, &[0, 1]);
    assert_eq!(bench.alter(request.clone()), 0);
    let p = bench.p(topic, 0);
    assert_eq!(bench.alter(request.clone()), 0);
    assert_eq!(bench.p(topic, 0), p);
    // Later commits that lead to the same ISR are as good, another ISR is not.
    assert_eq!(bench.propose(topic, 0, &[0]), 0);
    assert_eq!(bench.alter(request), codes::INVALID_UPDATE_VERSION);
}

#[test]
fn a_retry_by_names_of_other_incarnations_is_no_retry() {
    let (mut bench, topic) = three();
    let mut request = bench.proposal(topic, 0, &[0, 1]);
    assert_eq!(bench.alter(request.clone()), 0);
    request.proposals[0].isr[1].1 = Incarnation(55);
    assert_eq!(bench.alter(request), codes::INVALID_UPDATE_VERSION);
}

#[test]
fn a_withdrawal_is_committed_as_the_next_partition_epoch_and_makes_the_old_proposal_late() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    let expansion = bench.proposal(topic, 0, &[0, 1, 2]);
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    assert_eq!(bench.p(topic, 0).partition_epoch, PartitionEpoch(2));
    assert_eq!(bench.alter(expansion), codes::INVALID_UPDATE_VERSION);
}

#[test]
fn a_late_proposal_does_not_readmit_a_restarted_broker() {
    let (mut bench, topic) = three();
    bench.evidence(2);
    bench.poll(2);
    let expansion = bench.proposal(topic, 0, &[0, 1, 2]);
    bench.evidence(2);
    bench.join(2, 202, lossy(102, 202));
    assert_eq!(bench.alter(expansion), codes::INELIGIBLE_REPLICA);
}

#[test]
fn a_fenced_broker_does_not_join() {
    let (mut bench, topic) = three();
    bench.evidence(2);
    assert_eq!(
        bench.propose(topic, 0, &[0, 1, 2]),
        codes::INELIGIBLE_REPLICA
    );
}

#[test]
fn only_expansions_of_an_isr_that_is_large_enough_may_wait() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    assert!(!bench.can_wait, "a shrink lets producers go on");
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), 0);
    assert!(bench.can_wait);
    assert_eq!(bench.propose(topic, 0, &[0]), 0);
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    assert!(!bench.can_wait, "producers wait for it");
}

#[test]
fn who_leaves_below_the_minimum_stays_eligible_until_the_isr_is_large_enough_again() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0, 1]), 0);
    assert_eq!(
        bench.p(topic, 0).elr,
        vec![],
        "2 had left at the minimum, not below it"
    );
    bench.evidence(1);
    assert_eq!(bench.p(topic, 0).elr, ids(&[1]));
    bench.evidence(0);
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.isr, p.leader),
        (ids(&[0]), None),
        "2 is alive, but no clean candidate"
    );
    bench.poll(1);
    let p = bench.p(topic, 0);
    assert_eq!(
        (p.isr, p.elr, p.leader, p.recovering),
        (ids(&[1]), ids(&[0]), Some(b(1)), false)
    );
    assert_eq!(bench.propose(topic, 0, &[1, 2]), 0);
    assert_eq!(bench.p(topic, 0).elr, vec![]);
}

#[test]
fn a_leader_may_shrink_to_itself_below_the_minimum() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0]), 0);
    let p = bench.p(topic, 0);
    assert_eq!((p.isr, p.elr), (ids(&[0]), ids(&[1, 2])));
}

#[test]
fn lowering_the_minimum_empties_the_elr_in_the_same_commit() {
    let (mut bench, topic) = three();
    assert_eq!(bench.propose(topic, 0, &[0]), 0);
    assert!(bench.config("t", "min.insync.replicas", Some("1")).is_ok());
    assert_eq!(bench.p(topic, 0).elr, vec![]);
    // Also by way of the cluster's default.
    let other = bench.topic("u", &[&[0, 1]], 2);
    assert!(bench.config("u", "min.insync.replicas", None).is_ok());
    let default = |value: &str| AdminRequest::AlterConfigs {
        resources: vec![ConfigChanges {
            target: ConfigTarget::Cluster,
            replace_all: false,
            changes: vec![ConfigChange {
                key: "min.insync.replicas".to_owned(),
                op: ConfigOp::Set,
                value: Some(value.to_owned()),
            }],
        }],
        validate_only: false,
    };
    bench.admin(default("2"));
    assert_eq!(bench.propose(other, 0, &[0]), 0);
    assert_eq!(bench.p(other, 0).elr, ids(&[1]));
    bench.admin(default("1"));
    assert_eq!(bench.p(other, 0).elr, vec![]);
}

#[test]
fn the_minimum_is_bounded_by_the_replication_factor() {
    let mut bench = Bench::new(2);
    let topic = bench.topic("t", &[&[0]], 2);
    let p = bench.p(topic, 0);
    let topic = bench.image.topic(&topic).unwrap();
    assert_eq!(bench.image.effective_min_isr(topic, &p), 1);
}
