//! A group as a queue: its members share the partitions, whoever comes and goes.

use super::testing::*;
use super::*;
use leasehold_wire::ErrorCode;

#[test]
fn two_members_get_one_leader_and_each_its_own_share() {
    let mut world = World::new();
    let (a, join_a) = world.enter();
    let (b, join_b) = world.enter();
    assert!(
        world.joined(join_a).is_none(),
        "the first rebalance waits for more members"
    );
    world.pass(6_000);
    let (answer_a, answer_b) = (world.join_answer(join_a), world.join_answer(join_b));
    assert_eq!((answer_a.generation, answer_b.generation), (1, 1));
    assert_eq!(answer_a.leader, a);
    assert_eq!(answer_b.leader, a);
    assert_eq!(answer_a.members.len(), 2, "the leader sees everyone");
    assert!(answer_b.members.is_empty());
    assert_eq!(answer_a.protocol_name.as_deref(), Some("range"));

    let sync_b = world.send_sync(&b, &[]);
    assert!(
        world.synced(sync_b).is_none(),
        "a follower waits for the leader"
    );
    let sync_a = world.send_sync(&a, &[(&a, b"p0"), (&b, b"p1")]);
    assert_eq!(&world.sync_answer(sync_a).assignment[..], b"p0");
    assert_eq!(&world.sync_answer(sync_b).assignment[..], b"p1");
    assert_eq!(world.group.state(), State::Stable);
    assert_eq!(world.heartbeat(&a), ErrorCode::None);
}

#[test]
fn the_first_rebalance_is_over_when_its_delay_passes_without_anybody_new() {
    let mut world = World::new();
    let (_, join) = world.enter();
    world.pass(2_999);
    assert!(world.joined(join).is_none());
    world.pass(1);
    assert_eq!(world.join_answer(join).generation, 1);
}

#[test]
fn each_newcomer_prolongs_the_first_rebalance_up_to_the_rebalance_timeout() {
    let mut world = World::new();
    world.limits.max_size = 100;
    let first = world.enter().1;
    for _ in 0..19 {
        world.pass(2_990);
        world.enter();
        assert!(
            world.joined(first).is_none(),
            "somebody new came within each delay"
        );
    }
    world.pass(60_000 - 19 * 2_990 - 1);
    assert!(world.joined(first).is_none());
    world.pass(1);
    assert!(world.joined(first).is_some(), "but not for ever");
}

#[test]
fn without_an_initial_delay_the_first_member_is_answered_at_once() {
    let mut world = World::new();
    world.limits.initial_rebalance_delay_ms = 0;
    let (_, join) = world.enter();
    world.pass(0);
    assert_eq!(world.join_answer(join).generation, 1);
}

#[test]
fn a_surplus_member_idles_with_an_empty_share_and_takes_over_when_another_leaves() {
    let (mut world, ids) = World::stable(2);
    let sync = world.send_sync(&ids[1], &[]);
    assert!(!world.sync_answer(sync).assignment.is_empty());
    // A third comes; the leader has nothing for it.
    let (surplus, join) = world.enter();
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::RebalanceInProgress);
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    assert_eq!(world.join_answer(join).generation, 2);
    let idle = world.send_sync(&surplus, &[]);
    let leader = world.send_sync(&ids[0], &[(&ids[0], b"p0"), (&ids[1], b"p1")]);
    assert_eq!(world.sync_answer(leader).error, ErrorCode::None);
    assert!(world.sync_answer(idle).assignment.is_empty());
    world.send_sync(&ids[1], &[]);

    assert_eq!(world.leave(&ids[1], None), ErrorCode::None);
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&surplus));
    let takes_over = world.send_sync(&surplus, &[]);
    world.send_sync(&ids[0], &[(&ids[0], b"p0"), (&surplus, b"p1")]);
    assert_eq!(&world.sync_answer(takes_over).assignment[..], b"p1");
}

#[test]
fn a_dead_members_partitions_are_given_on_after_its_session() {
    let (mut world, ids) = World::stable(2);
    // The leader dies; the other keeps its session with heartbeats.
    for _ in 0..4 {
        world.pass(2_499);
        assert_eq!(world.heartbeat(&ids[1]), ErrorCode::None);
    }
    world.pass(100);
    assert_eq!(world.heartbeat(&ids[1]), ErrorCode::RebalanceInProgress);
    let join = world.send_join(joining(&ids[1]));
    let answer = world.join_answer(join);
    assert_eq!(answer.leader, ids[1], "the survivor leads");
    assert_eq!(answer.members.len(), 1);
    let sync = world.send_sync(&ids[1], &[(&ids[1], b"all")]);
    assert_eq!(&world.sync_answer(sync).assignment[..], b"all");
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::UnknownMemberId);
}

#[test]
fn a_member_that_does_not_join_a_rebalance_in_time_is_out() {
    let (mut world, ids) = World::stable(2);
    let (_, join) = world.enter();
    let rejoined = world.send_join(joining(&ids[1]));
    for _ in 0..12 {
        world.pass(5_000);
        world.heartbeat(&ids[0]);
    }
    assert_eq!(
        world.join_answer(join).leader,
        ids[1],
        "the absent leader is replaced"
    );
    assert_eq!(world.join_answer(rejoined).members.len(), 2);
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::UnknownMemberId);
}

#[test]
fn a_member_that_joins_but_never_syncs_is_out() {
    let (mut world, ids) = World::stable(2);
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    assert_eq!(world.group.state(), State::CompletingRebalance);
    let leader = world.group.leader().unwrap().to_owned();
    let other = ids.iter().find(|id| **id != leader).unwrap();
    world.send_sync(&leader, &[]);
    for _ in 0..15 {
        world.pass(4_000);
        world.heartbeat(&leader);
        world.heartbeat(other);
    }
    assert_eq!(world.heartbeat(other), ErrorCode::UnknownMemberId);
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn the_last_member_leaves_an_empty_group_which_is_stored_as_such() {
    let (mut world, ids) = World::stable(1);
    world.store_at_once = false;
    assert_eq!(world.leave(&ids[0], None), ErrorCode::None);
    assert_eq!(world.group.state(), State::Empty);
    let (value, then) = world.writes.back().unwrap();
    assert_eq!(*then, Then::Nothing);
    assert_eq!((value.generation, value.members.len()), (2, 0));
    assert_eq!(value.protocol, None);
    assert_eq!(value.leader, None);
}

#[test]
fn a_new_coordinator_goes_on_where_the_stored_group_was() {
    let (mut world, ids) = World::stable(2);
    world.store_at_once = false;
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    world.sync_all();
    let (value, _) = world.writes.pop_back().unwrap();
    let mut moved = World::with(Group::from_value("g".into(), value, world.now), world.now);
    moved.call(|group, limits, now, fx| group.resume(limits, now, fx));
    assert_eq!(moved.group.state(), State::Stable);
    assert_eq!(moved.group.generation(), 2);
    assert_eq!(moved.group.leader(), Some(&*ids[0]));
    assert_eq!(moved.heartbeat(&ids[0]), ErrorCode::None);
    assert_eq!(moved.heartbeat(&ids[1]), ErrorCode::None);
    let sync = moved.send_sync(&ids[1], &[]);
    assert_eq!(&moved.sync_answer(sync).assignment[..], ids[1].as_bytes());
    // And whoever does not come back to the new coordinator is given up.
    for _ in 0..3 {
        moved.pass(5_000);
        moved.heartbeat(&ids[0]);
    }
    assert_eq!(moved.heartbeat(&ids[1]), ErrorCode::UnknownMemberId);
}
