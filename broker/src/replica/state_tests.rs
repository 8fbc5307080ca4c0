//! The rules of a replica's role.

use super::state::{Replica, Role};
use super::view::{Member, View};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, PartitionEpoch};
use std::sync::Arc;
use std::time::Instant;

const ME: BrokerId = BrokerId(0);
const OTHER: BrokerId = BrokerId(1);

fn view(leader: Option<BrokerId>, epoch: i32) -> Arc<View> {
    Arc::new(View {
        leader,
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(epoch),
        replicas: vec![ME, OTHER],
        isr: vec![ME, OTHER],
        effective_min: 2,
        unclean: false,
        moves: false,
        throttled_leaders: Default::default(),
        throttled_followers: Default::default(),
        members: [ME, OTHER]
            .map(|id| Member {
                id,
                incarnation: Incarnation(7),
                may_join: true,
            })
            .to_vec(),
    })
}

fn at(end: i64) -> (Offset, Offset) {
    (Offset(end), Offset(end))
}

fn leading(epoch: i32) -> Replica<&'static str> {
    let now = Instant::now();
    let mut replica = Replica::new(ME, Offset(0), Offset(0));
    let change = replica.observe(view(Some(ME), epoch), now);
    assert_eq!(change.prepare, Some(LeaderEpoch(epoch)));
    assert!(replica.begun(LeaderEpoch(epoch), at(0), now));
    replica
}

#[test]
fn nothing_is_served_before_the_epoch_is_in_the_log() {
    let mut replica = Replica::<()>::new(ME, Offset(0), Offset(3));
    replica.observe(view(Some(ME), 1), Instant::now());
    assert!(replica.leader().is_none());
    assert!(!replica.begun(LeaderEpoch(2), at(3), Instant::now()));
    assert!(replica.begun(LeaderEpoch(1), at(3), Instant::now()));
    assert_eq!(replica.leader().unwrap().start(), Offset(3));
}

#[test]
fn a_preparation_that_the_image_overtook_does_not_lead() {
    let now = Instant::now();
    let mut replica = Replica::<()>::new(ME, Offset(0), Offset(0));
    replica.observe(view(Some(ME), 1), now);
    replica.observe(view(Some(OTHER), 2), now);
    assert!(!replica.begun(LeaderEpoch(1), at(0), now));
    assert!(matches!(replica.role(), Role::Following { .. }));
}

#[test]
fn every_change_of_epoch_fails_the_acknowledgements_that_wait() {
    for next in [view(Some(OTHER), 2), view(Some(ME), 2), view(None, 2)] {
        let mut replica = leading(1);
        replica.appended(LeaderEpoch(1), Offset(1), Some((Offset(0), "waiting")));
        let change = replica.observe(next, Instant::now());
        assert_eq!(change.failed, ["waiting"]);
        assert!(change.committed.is_empty());
    }
}

#[test]
fn a_record_appended_in_one_epoch_is_never_acknowledged_by_another() {
    let mut replica = leading(1);
    replica.observe(view(Some(ME), 2), Instant::now());
    replica.begun(LeaderEpoch(2), at(0), Instant::now());
    let change = replica.appended(LeaderEpoch(1), Offset(1), Some((Offset(0), "late")));
    assert_eq!(change.failed, ["late"]);
}

#[test]
fn hearing_of_a_newer_epoch_stops_serving_until_the_image_has_it() {
    let now = Instant::now();
    let mut replica = leading(3);
    replica.appended(LeaderEpoch(3), Offset(1), Some((Offset(0), "waiting")));
    let change = replica.heard(LeaderEpoch(5));
    assert_eq!(change.failed, ["waiting"]);
    assert!(replica.leader().is_none());
    assert_eq!(replica.observe(view(Some(ME), 3), now).prepare, None);
    assert_eq!(replica.observe(view(Some(ME), 4), now).prepare, None);
    assert_eq!(
        replica.observe(view(Some(ME), 5), now).prepare,
        Some(LeaderEpoch(5))
    );
}

#[test]
fn an_older_image_changes_nothing() {
    let mut replica = leading(3);
    let change = replica.observe(view(Some(OTHER), 2), Instant::now());
    assert!(!change.role_changed);
    assert_eq!(replica.leader().unwrap().epoch(), LeaderEpoch(3));
}

#[test]
fn the_high_watermark_survives_a_change_of_role_and_falls_with_the_log() {
    let now = Instant::now();
    let mut replica = leading(1);
    replica.appended(LeaderEpoch(1), Offset(5), None);
    let change = replica.with_leader(LeaderEpoch(1), |leader| {
        leader.fetched(OTHER, Incarnation(7), Offset(4), now)
    });
    assert!(change.moved);
    replica.observe(view(Some(OTHER), 2), now);
    assert_eq!(replica.high_watermark(), Offset(4));
    replica.truncated(Offset(2));
    assert_eq!(replica.high_watermark(), Offset(2));
    replica.followed(Offset(3), Offset(9));
    assert_eq!(
        replica.high_watermark(),
        Offset(3),
        "min(leader's, own end)"
    );
}

#[test]
fn a_replica_whose_storage_failed_stays_offline_whatever_the_image_says() {
    let mut replica = leading(1);
    replica.fail("disk".to_owned());
    assert_eq!(
        replica.observe(view(Some(ME), 2), Instant::now()).prepare,
        None
    );
    assert!(matches!(replica.role(), Role::Offline(_)));
}

#[test]
fn a_log_that_has_seen_a_newer_epoch_than_the_image_neither_leads_nor_follows() {
    let now = Instant::now();
    let mut replica = Replica::<()>::new(ME, Offset(0), Offset(0));
    replica.observe(view(Some(OTHER), 3), now);
    replica.opened(Offset(0), Offset(9), LeaderEpoch(7));
    assert!(matches!(
        replica.role(),
        Role::Following { leader: None, .. }
    ));
    replica.observe(view(Some(OTHER), 4), now);
    assert!(matches!(
        replica.role(),
        Role::Following { leader: None, .. }
    ));
    assert_eq!(replica.observe(view(Some(ME), 5), now).prepare, None);
    let recovered = replica.observe(view(Some(ME), 1029), now);
    assert_eq!(recovered.prepare, Some(LeaderEpoch(1029)));
}
