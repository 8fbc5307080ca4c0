//! Each rule by itself: who is refused, and with what.

use super::testing::*;
use super::*;
use crate::group::types::*;
use leasehold_wire::ErrorCode;

fn error(world: &World, token: Token) -> ErrorCode {
    world.join_answer(token).error
}

#[test]
fn a_new_member_must_come_back_with_its_id_since_version_4_and_not_before() {
    let mut world = World::new();
    let token = world.send_join(joining("").version(4));
    let answer = world.join_answer(token);
    assert_eq!(answer.error, ErrorCode::MemberIdRequired);
    assert!(!answer.member_id.is_empty());
    assert_eq!(answer.generation, -1);
    let mut world = World::new();
    let token = world.send_join(joining("").version(3));
    world.pass(3_000);
    assert_eq!(error(&world, token), ErrorCode::None);
}

#[test]
fn an_id_that_was_handed_out_lapses_after_its_session() {
    let mut world = World::new();
    let token = world.send_join(joining(""));
    let id = world.join_answer(token).member_id.clone();
    world.pass(SESSION as u64);
    let late = world.send_join(joining(&id));
    assert_eq!(error(&world, late), ErrorCode::UnknownMemberId);
    assert!(world.group.is_blank());
}

#[test]
fn ids_are_not_handed_out_without_bound() {
    let mut world = World::new();
    for _ in 0..world.limits.max_pending {
        let token = world.send_join(joining(""));
        assert_eq!(error(&world, token), ErrorCode::MemberIdRequired);
    }
    let token = world.send_join(joining(""));
    assert_eq!(error(&world, token), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_rebalance_waits_for_an_id_that_was_handed_out() {
    let (mut world, ids) = World::stable(1);
    let first = world.send_join(joining(""));
    let id = world.join_answer(first).member_id.clone();
    let rejoin = world.send_join(joining(&ids[0]));
    assert!(world.joined(rejoin).is_none());
    let join = world.send_join(joining(&id));
    assert_eq!(world.join_answer(join).generation, 2);
    assert_eq!(world.join_answer(rejoin).members.len(), 2);
}

#[test]
fn a_member_that_nobody_knows_is_refused() {
    let (mut world, _) = World::stable(1);
    let token = world.send_join(joining("stranger"));
    assert_eq!(error(&world, token), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat("stranger"), ErrorCode::UnknownMemberId);
    assert_eq!(world.leave("stranger", None), ErrorCode::UnknownMemberId);
    let token = world.send_sync("stranger", &[]);
    assert_eq!(world.sync_answer(token).error, ErrorCode::UnknownMemberId);
    assert_eq!(world.group.state(), State::Stable, "and disturbs nobody");
}

#[test]
fn protocols_must_have_one_in_common_and_the_same_type() {
    let (mut world, ids) = World::stable(1);
    for wrong in [
        joining("").protocols(&["sticky"]),
        joining("").protocol_type("connect"),
        joining("").protocols(&[]),
        joining(&ids[0]).protocols(&["sticky"]),
    ] {
        let token = world.send_join(wrong);
        assert_eq!(error(&world, token), ErrorCode::InconsistentGroupProtocol);
    }
    let mut empty = World::new();
    for wrong in [joining("").protocols(&[]), joining("").protocol_type("")] {
        let token = empty.send_join(wrong);
        assert_eq!(error(&empty, token), ErrorCode::InconsistentGroupProtocol);
    }
}

#[test]
fn the_protocol_with_the_most_votes_among_the_common_ones_is_chosen() {
    let mut world = World::new();
    let votes: [&[&str]; 3] = [&["only-mine", "b", "a"], &["a", "b"], &["a", "b"]];
    let mut token = Token(0);
    for protocols in votes {
        token = world.send_join(joining("").version(3).protocols(protocols));
    }
    world.pass(60_000);
    assert_eq!(world.join_answer(token).protocol_name.as_deref(), Some("a"));
}

#[test]
fn a_full_group_takes_nobody_and_keeps_its_members() {
    let (mut world, ids) = World::stable(2);
    world.limits.max_size = 2;
    let token = world.send_join(joining(""));
    assert_eq!(error(&world, token), ErrorCode::GroupMaxSizeReached);
    let token = world.send_join(joining(&ids[1]));
    assert_eq!(error(&world, token), ErrorCode::None);
    assert_eq!(world.group.state(), State::Stable);
}

#[test]
fn during_a_rebalance_the_places_go_to_those_who_come_first() {
    let (mut world, ids) = World::stable(3);
    world.limits.max_size = 2;
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    let token = world.send_join(joining(&ids[2]));
    assert_eq!(error(&world, token), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.group.members().len(), 2);
    assert_eq!(world.group.state(), State::CompletingRebalance);
}

#[test]
fn a_group_that_is_loaded_over_its_limit_rebalances() {
    let (mut world, ids) = World::stable(3);
    world.limits.max_size = 2;
    world.call(|group, limits, now, fx| group.resume(limits, now, fx));
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_follower_that_joins_a_stable_group_unchanged_gets_the_generation_again() {
    let (mut world, ids) = World::stable(2);
    let token = world.send_join(joining(&ids[1]));
    assert_eq!(world.join_answer(token).generation, 1);
    assert_eq!(world.group.state(), State::Stable);
    let token = world.send_join(joining(&ids[1]).metadata(b"other topics"));
    assert!(world.joined(token).is_none());
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn a_leader_that_joins_again_starts_a_rebalance() {
    let (mut world, ids) = World::stable(2);
    let token = world.send_join(joining(&ids[0]));
    assert!(world.joined(token).is_none());
    assert_eq!(world.heartbeat(&ids[1]), ErrorCode::RebalanceInProgress);
}

#[test]
fn while_the_leader_assigns_a_member_whose_answer_was_lost_gets_it_again() {
    let (mut world, ids) = World::stable(2);
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    let again = world.send_join(joining(&ids[0]));
    let answer = world.join_answer(again);
    assert_eq!((answer.generation, answer.members.len()), (2, 2));
    assert_eq!(world.group.state(), State::CompletingRebalance);
}

#[test]
fn a_second_join_of_a_parked_member_answers_the_first_one() {
    let (mut world, ids) = World::stable(2);
    let first = world.send_join(joining(&ids[0]));
    let second = world.send_join(joining(&ids[0]));
    assert_eq!(error(&world, first), ErrorCode::RebalanceInProgress);
    assert!(world.joined(second).is_none());
}

#[test]
fn heartbeats_tell_what_to_do() {
    let (mut world, ids) = World::stable(2);
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::None);
    assert_eq!(
        world.heartbeat_at(&ids[0], 0, None),
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        world.heartbeat_at(&ids[0], 2, None),
        ErrorCode::IllegalGeneration
    );
    world.enter();
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::RebalanceInProgress);
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    assert_eq!(world.group.state(), State::CompletingRebalance);
    assert_eq!(world.heartbeat(&ids[0]), ErrorCode::None);
}

#[test]
fn syncs_of_another_generation_or_protocol_are_refused() {
    let (mut world, ids) = World::stable(1);
    let good = SyncRequest {
        api_version: 5,
        group_id: "g".to_owned(),
        generation: 1,
        member_id: ids[0].clone(),
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        ..SyncRequest::default()
    };
    let cases: [(SyncRequest, ErrorCode); 6] = [
        (good.clone(), ErrorCode::None),
        (
            SyncRequest {
                generation: 0,
                ..good.clone()
            },
            ErrorCode::IllegalGeneration,
        ),
        (
            SyncRequest {
                protocol_name: Some("sticky".to_owned()),
                ..good.clone()
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            SyncRequest {
                protocol_type: Some("connect".to_owned()),
                ..good.clone()
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            SyncRequest {
                protocol_name: None,
                ..good.clone()
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            SyncRequest {
                api_version: 4,
                protocol_name: None,
                protocol_type: None,
                ..good
            },
            ErrorCode::None,
        ),
    ];
    for (request, expected) in cases {
        let described = format!("{request:?}");
        let token = world.sync_with(request);
        assert_eq!(world.sync_answer(token).error, expected, "{described}");
    }
    world.enter();
    let token = world.send_sync(&ids[0], &[]);
    assert_eq!(
        world.sync_answer(token).error,
        ErrorCode::RebalanceInProgress
    );
}

#[test]
fn an_assignment_is_handed_out_only_once_it_is_stored() {
    let (mut world, ids) = World::stable(2);
    world.store_at_once = false;
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    let tokens = world.sync_all();
    assert!(tokens.values().all(|token| world.synced(*token).is_none()));
    assert_eq!(world.group.state(), State::CompletingRebalance);
    assert_eq!(world.writes[0].0.members[1].assignment, ids[1].as_bytes());
    world.store(Ok(()));
    for (id, token) in tokens {
        assert_eq!(world.sync_answer(token).assignment, id.as_bytes());
    }
    assert_eq!(world.group.state(), State::Stable);
}

#[test]
fn an_assignment_that_cannot_be_stored_is_taken_back_and_the_group_rebalances() {
    let (mut world, ids) = World::stable(2);
    world.store_at_once = false;
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    let tokens = world.sync_all();
    world.store(Err(ErrorCode::CoordinatorNotAvailable));
    for token in tokens.values() {
        assert_eq!(
            world.sync_answer(*token).error,
            ErrorCode::CoordinatorNotAvailable
        );
    }
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn an_assignment_that_is_stored_after_a_newer_rebalance_began_counts_no_more() {
    let (mut world, ids) = World::stable(2);
    world.store_at_once = false;
    world.send_join(joining(&ids[0]));
    world.send_join(joining(&ids[1]));
    let tokens = world.sync_all();
    world.leave(&ids[1], None);
    assert_eq!(
        world.sync_answer(tokens[&ids[1]]).error,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        world.sync_answer(tokens[&ids[0]]).error,
        ErrorCode::RebalanceInProgress
    );
    world.store(Ok(()));
    assert_eq!(world.group.state(), State::PreparingRebalance);
}

#[test]
fn commits_are_taken_from_members_of_the_generation_and_from_consumers_without_a_group() {
    let mut empty = World::new();
    assert_eq!(empty.check_commit("", -1), ErrorCode::None);
    let (mut world, ids) = World::stable(1);
    assert_eq!(world.check_commit(&ids[0], 1), ErrorCode::None);
    assert_eq!(world.check_commit(&ids[0], 0), ErrorCode::IllegalGeneration);
    assert_eq!(
        world.check_commit("stranger", 1),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        world.check_commit("", -1),
        ErrorCode::UnknownMemberId,
        "the group has members"
    );
    world.enter();
    assert_eq!(
        world.check_commit(&ids[0], 1),
        ErrorCode::None,
        "before it joins again"
    );
    world.send_join(joining(&ids[0]));
    assert_eq!(world.group.state(), State::CompletingRebalance);
    assert_eq!(world.check_commit(&ids[0], 1), ErrorCode::IllegalGeneration);
    assert_eq!(
        world.check_commit(&ids[0], 2),
        ErrorCode::RebalanceInProgress
    );
}

#[test]
fn a_commit_keeps_a_session_alive() {
    let (mut world, ids) = World::stable(1);
    for _ in 0..5 {
        world.pass(8_000);
        assert_eq!(world.check_commit(&ids[0], 1), ErrorCode::None);
    }
}

#[test]
fn a_group_that_is_being_deleted_takes_nobody() {
    let mut world = World::new();
    world.call(|group, _, now, _| group.set_deleting(true, now));
    let token = world.send_join(joining(""));
    assert_eq!(error(&world, token), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(
        world.check_commit("", -1),
        ErrorCode::CoordinatorNotAvailable
    );
    assert_eq!(world.heartbeat("m"), ErrorCode::CoordinatorNotAvailable);
    world.call(|group, _, now, _| group.set_deleting(false, now));
    assert_eq!(world.check_commit("", -1), ErrorCode::None);
}

#[test]
fn several_members_leave_in_one_request_each_with_its_own_outcome() {
    let (mut world, ids) = World::stable(3);
    let leaving = |id: &str| LeavingMember {
        member_id: id.to_owned(),
        ..LeavingMember::default()
    };
    let request = LeaveRequest {
        group_id: "g".to_owned(),
        members: vec![
            leaving(&ids[0]),
            leaving("stranger"),
            leaving(&ids[2]),
            leaving(""),
        ],
    };
    let response = world.call(|group, limits, now, fx| group.leave(&request, limits, now, fx));
    let errors: Vec<_> = response.members.iter().map(|member| member.error).collect();
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(errors, [ErrorCode::None, unknown, ErrorCode::None, unknown]);
    assert_eq!(response.error, ErrorCode::None);
    assert_eq!(world.group.members().len(), 1);
    assert_eq!(world.group.leader(), Some(&*ids[1]));
}
