//! Static members: a `group.instance.id` keeps its place over restarts.

use super::testing::*;
use super::*;
use leasehold_wire::ErrorCode;

/// A stable group of two static members, "a" (the leader) and "b"; their member ids.
fn stable() -> (World, String, String) {
    let mut world = World::new();
    let a = world.send_join(joining("").instance("a"));
    let b = world.send_join(joining("").instance("b"));
    world.pass(6_000);
    let a = world.join_answer(a).member_id.clone();
    let b = world.join_answer(b).member_id.clone();
    world.sync_all();
    assert_eq!(world.group.state(), State::Stable);
    (world, a, b)
}

#[test]
fn a_static_member_gets_its_id_without_a_second_round() {
    let (_, a, b) = stable();
    assert!(a.starts_with("a-") && b.starts_with("b-"));
}

#[test]
fn a_static_follower_that_restarts_takes_its_place_without_a_rebalance() {
    let (mut world, a, b) = stable();
    let token = world.send_join(joining("").instance("b"));
    let answer = world.join_answer(token).clone();
    assert_eq!((answer.error, answer.generation), (ErrorCode::None, 1));
    assert_ne!(answer.member_id, b);
    assert_eq!(answer.leader, a);
    assert!(!answer.skip_assignment);
    assert_eq!(world.group.state(), State::Stable);
    assert_eq!(world.heartbeat(&a), ErrorCode::None, "nobody else notices");
    let sync = world.send_sync(&answer.member_id, &[]);
    assert_eq!(
        &world.sync_answer(sync).assignment[..],
        b.as_bytes(),
        "its old share"
    );
}

#[test]
fn whoever_still_uses_the_old_id_is_fenced() {
    let (mut world, _, b) = stable();
    world.send_join(joining("").instance("b"));
    assert_eq!(
        world.heartbeat_at(&b, 1, Some("b")),
        ErrorCode::FencedInstanceId
    );
    let join = world.send_join(joining(&b).instance("b"));
    assert_eq!(world.join_answer(join).error, ErrorCode::FencedInstanceId);
    assert_eq!(world.leave(&b, Some("b")), ErrorCode::FencedInstanceId);
    assert_eq!(
        world.heartbeat_at(&b, 1, Some("nobody")),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_static_leader_that_restarts_is_told_to_skip_the_assignment() {
    let (mut world, _, _) = stable();
    let token = world.send_join(joining("").instance("a"));
    let answer = world.join_answer(token);
    assert!(answer.skip_assignment);
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(answer.members.len(), 2);
    assert_eq!(world.group.state(), State::Stable);
}

#[test]
fn an_older_static_leader_is_not_told_that_it_leads_lest_it_assigns_anew() {
    let (mut world, a, _) = stable();
    let token = world.send_join(joining("").instance("a").version(8));
    let answer = world.join_answer(token);
    assert_eq!(answer.leader, a, "the id that it had before");
    assert!(answer.members.is_empty() && !answer.skip_assignment);
}

#[test]
fn a_new_static_id_is_used_only_once_it_is_stored() {
    let (mut world, _, b) = stable();
    world.store_at_once = false;
    let token = world.send_join(joining("").instance("b"));
    assert!(world.joined(token).is_none());
    let stored = &world.writes[0].0.members[1];
    assert_ne!(stored.member_id, b);
    assert_eq!(&stored.assignment[..], b.as_bytes());
    world.store(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(
        world.join_answer(token).error,
        ErrorCode::CoordinatorNotAvailable
    );
    // The client tries again, as a new process would.
    let token = world.send_join(joining("").instance("b"));
    world.store(Ok(()));
    assert_eq!(world.join_answer(token).error, ErrorCode::None);
}

#[test]
fn a_static_member_that_changes_the_protocol_makes_the_group_rebalance() {
    let mut world = World::new();
    let both: &[&str] = &["range", "sticky"];
    world.send_join(joining("").instance("a").protocols(both));
    world.pass(6_000);
    world.sync_all();
    let token = world.send_join(joining("").instance("a").protocols(&["sticky"]));
    let answer = world.join_answer(token);
    assert_eq!(answer.protocol_name.as_deref(), Some("sticky"));
    assert_eq!(answer.generation, 2);
}

#[test]
fn a_restart_while_the_leader_assigns_starts_the_rebalance_again() {
    let (mut world, a, b) = stable();
    world.send_join(joining(&a).instance("a"));
    world.send_join(joining(&b).instance("b"));
    assert_eq!(world.group.state(), State::CompletingRebalance);
    let parked = world.send_sync(&b, &[]);
    world.send_join(joining("").instance("b"));
    assert_eq!(world.sync_answer(parked).error, ErrorCode::FencedInstanceId);
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn a_static_member_keeps_its_place_until_its_session_ends() {
    let (mut world, a, b) = stable();
    let (_, join) = world.enter();
    world.send_join(joining(&a).instance("a"));
    // "b" neither joins nor beats: it is out when its session ends, and the rebalance goes on.
    assert!(world.joined(join).is_none());
    world.pass(SESSION as u64);
    assert_eq!(world.join_answer(join).generation, 2);
    assert_eq!(
        world.heartbeat_at(&b, 2, Some("b")),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance_id_alone() {
    let (mut world, _, _) = stable();
    assert_eq!(world.leave("", Some("b")), ErrorCode::None);
    assert_eq!(world.leave("", Some("b")), ErrorCode::UnknownMemberId);
    assert_eq!(world.group.members().len(), 1);
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn a_static_member_whose_new_id_was_stored_slowly_is_watched_again() {
    let (mut world, a, _) = stable();
    world.store_at_once = false;
    let token = world.send_join(joining("").instance("b"));
    for _ in 0..3 {
        world.pass(SESSION as u64 / 2);
        world.heartbeat(&a);
    }
    world.store(Ok(()));
    assert_eq!(world.join_answer(token).error, ErrorCode::None);
    assert_eq!(world.group.members().len(), 2);
    for _ in 0..3 {
        world.pass(SESSION as u64 / 2);
        world.heartbeat(&a);
    }
    assert_eq!(world.group.members().len(), 1, "it never came back");
}
