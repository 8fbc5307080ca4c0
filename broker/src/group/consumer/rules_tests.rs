//! The rules of ConsumerGroupHeartbeat one by one.

use super::testing::*;
use super::*;
use crate::group::store::consumer::{MemberState, Partitions};
use crate::group::types::*;

fn one() -> (Bench, i32) {
    let mut bench = Bench::new(&[("t", 4)]);
    let epoch = bench.settled("a", &["t"]);
    (bench, epoch)
}

fn error(bench: &mut Bench, request: ConsumerHeartbeatRequest) -> ErrorCode {
    bench.beat(request).error
}

fn owning(member: &str, epoch: i32, owned: Partitions) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        owned: Some(owned),
        ..beating(member, epoch)
    }
}

fn of_instance(instance: &str, request: ConsumerHeartbeatRequest) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        instance_id: Some(instance.to_owned()),
        ..request
    }
}

#[test]
fn the_first_member_gets_everything_at_once_and_hears_of_it_only_once() {
    let mut bench = Bench::new(&[("t", 4)]);
    let response = bench.beat(joining("a", &["t"]));
    assert_eq!(response.error, ErrorCode::None);
    assert_eq!(
        (response.member_epoch, response.heartbeat_interval_ms),
        (1, 1_000)
    );
    assert_eq!(response.assignment, Some(share(&[("t", &[0, 1, 2, 3])])));
    assert_eq!(bench.beat(beating("a", 1)).assignment, None);
    assert_eq!(bench.group().state().name(), "Stable");
}

#[test]
fn a_newcomer_waits_until_the_others_have_given_up_its_share() {
    let (mut bench, epoch) = one();
    let newcomer = bench.beat(joining("b", &["t"]));
    assert_eq!(
        (newcomer.member_epoch, newcomer.assignment),
        (2, Some(Partitions::new()))
    );
    assert_eq!(bench.group().state().name(), "Reconciling");
    // It is told what to give up, and stays in its epoch until it says that it has.
    let all = share(&[("t", &[0, 1, 2, 3])]);
    let told = bench.beat(owning("a", epoch, all.clone()));
    let kept = told.assignment.expect("less than before");
    assert_eq!(told.member_epoch, epoch);
    assert_eq!(kept[&topic_id("t")].len(), 2);
    assert_eq!(bench.beat(owning("a", epoch, all)).member_epoch, epoch);
    assert_eq!(
        bench.beat(beating("b", 2)).assignment,
        None,
        "nothing is free yet"
    );
    assert_eq!(bench.beat(owning("a", epoch, kept.clone())).member_epoch, 2);
    let got = bench.beat(beating("b", 2)).assignment.expect("its share");
    assert_eq!(got[&topic_id("t")].len(), 2);
    assert!(got[&topic_id("t")].is_disjoint(&kept[&topic_id("t")]));
    assert_eq!(bench.group().state().name(), "Stable");
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_out() {
    let (mut bench, epoch) = one();
    bench.beat(joining("b", &["t"]));
    bench.beat(beating("a", epoch));
    bench.pass(REBALANCE as u64 - 1);
    assert_eq!(bench.members().len(), 2);
    bench.beat(beating("a", epoch));
    bench.pass(1);
    assert_eq!(bench.members(), ["b".to_owned()].into());
    assert_eq!(
        error(&mut bench, beating("a", epoch)),
        ErrorCode::UnknownMemberId
    );
    let got = bench.beat(beating("b", 2)).assignment.expect("everything");
    assert_eq!(got[&topic_id("t")].len(), 4);
}

#[test]
fn a_silent_member_is_out_after_its_session_and_a_heartbeat_begins_it_anew() {
    let (mut bench, epoch) = one();
    bench.pass(9_999);
    assert_eq!(error(&mut bench, beating("a", epoch)), ErrorCode::None);
    bench.pass(9_999);
    assert_eq!(bench.members().len(), 1);
    bench.pass(1);
    assert!(bench.members().is_empty());
    assert_eq!(bench.group().state().name(), "Empty");
    assert_eq!(bench.group().epoch(), epoch + 1);
}

#[test]
fn epochs_that_are_not_the_members_are_fenced_but_for_the_one_before_with_no_more_than_was_given() {
    let (mut bench, _) = one();
    assert_eq!(
        error(&mut bench, beating("a", 2)),
        ErrorCode::FencedMemberEpoch
    );
    bench.topic("t", 5);
    let all = share(&[("t", &[0, 1, 2, 3])]);
    assert_eq!(bench.beat(owning("a", 1, all.clone())).member_epoch, 2);
    // The answer was lost.
    let again = bench.beat(owning("a", 1, all));
    assert_eq!((again.error, again.member_epoch), (ErrorCode::None, 2));
    let more = share(&[("u", &[0])]);
    assert_eq!(
        error(&mut bench, owning("a", 1, more)),
        ErrorCode::FencedMemberEpoch
    );
    assert_eq!(
        error(&mut bench, beating("a", 1)),
        ErrorCode::FencedMemberEpoch
    );
    assert_eq!(
        error(&mut bench, beating("x", 1)),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn a_join_whose_answer_was_lost_may_be_repeated() {
    let (mut bench, epoch) = one();
    let again = bench.beat(joining("a", &["t"]));
    assert_eq!((again.error, again.member_epoch), (ErrorCode::None, epoch));
    assert_eq!(again.assignment, Some(share(&[("t", &[0, 1, 2, 3])])));
}

#[test]
fn a_static_member_keeps_its_partitions_while_it_is_away() {
    let mut bench = Bench::new(&[("t", 2)]);
    bench.beat(of_instance("i", joining("a", &["t"])));
    let early = bench.beat(of_instance("i", joining("b", &["t"])));
    assert_eq!(early.error, ErrorCode::UnreleasedInstanceId);
    let left = bench.beat(of_instance("i", beating("a", -2)));
    assert_eq!((left.error, left.member_epoch), (ErrorCode::None, -2));
    let epoch = bench.group().epoch();
    let back = bench.beat(of_instance("i", joining("b", &["t"])));
    assert_eq!(back.assignment, Some(share(&[("t", &[0, 1])])));
    assert_eq!(bench.group().epoch(), epoch, "nobody else is disturbed");
    let old = bench.beat(of_instance("i", beating("a", 1)));
    assert_eq!(old.error, ErrorCode::FencedInstanceId);
    bench.beat(of_instance("i", beating("b", -2)));
    bench.pass(10_000);
    assert!(
        bench.members().is_empty(),
        "its session went on while it was away"
    );
    let gone = bench.beat(of_instance("i", beating("b", 1)));
    assert_eq!(gone.error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_topic_that_comes_grows_or_goes_raises_the_epoch_without_a_heartbeat() {
    let mut bench = Bench::new(&[("t", 1)]);
    bench.beat(joining("a", &["t", "later"]));
    for (topic, partitions) in [("later", 1), ("later", 2), ("t", 0)] {
        let before = bench.group().epoch();
        bench.topic(topic, partitions);
        assert_eq!(bench.group().epoch(), before + 1);
    }
    let before = bench.group().epoch();
    bench.topic("of-others", 3);
    assert_eq!(bench.group().epoch(), before);
    assert_eq!(bench.group().state().name(), "Assigning");
}

#[test]
fn a_regular_expression_follows_the_topics_and_a_bad_one_is_refused() {
    let mut bench = Bench::new(&[("app-1", 1), ("other", 1)]);
    let regex = |regex: &str| ConsumerHeartbeatRequest {
        topics: None,
        regex: Some(regex.to_owned()),
        ..joining("a", &[])
    };
    assert_eq!(
        error(&mut bench, regex("app-(")),
        ErrorCode::InvalidRegularExpression
    );
    assert!(bench.group().is_blank());
    let joined = bench.beat(regex("app-.*"));
    assert_eq!(joined.assignment, Some(share(&[("app-1", &[0])])));
    bench.topic("app-2", 1);
    let more = bench.beat(beating("a", joined.member_epoch)).assignment;
    assert_eq!(more, Some(share(&[("app-1", &[0]), ("app-2", &[0])])));
}

#[test]
fn a_subscription_that_shrinks_gives_up_what_it_lost() {
    let mut bench = Bench::new(&[("t", 2), ("u", 2)]);
    let epoch = bench.settled("a", &["t", "u"]);
    let less = ConsumerHeartbeatRequest {
        topics: Some(["t".to_owned()].into()),
        owned: Some(share(&[("t", &[0, 1]), ("u", &[0, 1])])),
        ..beating("a", epoch)
    };
    let told = bench.beat(less);
    assert_eq!(told.assignment, Some(share(&[("t", &[0, 1])])));
    assert_eq!(
        bench.group().member("a").unwrap().current.state,
        MemberState::Unrevoked
    );
    assert_eq!(
        bench
            .beat(owning("a", epoch, share(&[("t", &[0, 1])])))
            .member_epoch,
        epoch + 1
    );
}

#[test]
fn the_assignor_that_most_choose_is_taken_and_an_unknown_one_refused() {
    let mut bench = Bench::new(&[("t", 2), ("u", 2)]);
    let choosing = |member: &str, assignor: &str| ConsumerHeartbeatRequest {
        assignor: Some(assignor.to_owned()),
        ..joining(member, &["t", "u"])
    };
    assert_eq!(
        error(&mut bench, choosing("a", "mine")),
        ErrorCode::UnsupportedAssignor
    );
    bench.beat(choosing("a", "range"));
    assert_eq!(bench.group().assignor(&bench.settings).name(), "range");
    bench.beat(joining("b", &["t", "u"]));
    assert_eq!(
        *bench.group().target("b"),
        share(&[("t", &[1]), ("u", &[1])])
    );
}

#[test]
fn a_full_group_takes_nobody() {
    let mut bench = Bench::new(&[("t", 2)]);
    for n in 0..6 {
        bench.beat(joining(&format!("m{n}"), &["t"]));
    }
    assert_eq!(
        error(&mut bench, joining("x", &["t"])),
        ErrorCode::GroupMaxSizeReached
    );
    assert_eq!(error(&mut bench, joining("m0", &["t"])), ErrorCode::None);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let mut bench = Bench::new(&[]);
    let good = joining("a", &["t"]);
    type Change = fn(&mut ConsumerHeartbeatRequest);
    let bad: [Change; 9] = [
        |r| r.member_id.clear(),
        |r| r.group_id.clear(),
        |r| r.instance_id = Some(String::new()),
        |r| r.rack_id = Some(" ".to_owned()),
        |r| r.rebalance_timeout_ms = -1,
        |r| r.owned = None,
        |r| r.topics = None,
        |r| r.member_epoch = -2,
        |r| r.member_epoch = -3,
    ];
    for (n, change) in bad.iter().enumerate() {
        let mut request = good.clone();
        change(&mut request);
        let response = bench.beat(request);
        assert_eq!(response.error, ErrorCode::InvalidRequest, "{n}");
        assert!(response.error_message.is_some());
    }
    let of_version_0 = ConsumerHeartbeatRequest {
        api_version: 0,
        member_id: String::new(),
        ..good
    };
    assert_eq!(
        bench.beat(of_version_0).member_id.as_deref(),
        Some("fresh-10")
    );
}

#[test]
fn nobody_is_answered_before_it_is_stored_and_a_refused_write_leaves_nothing_behind() {
    let mut bench = Bench::new(&[("t", 2)]);
    bench.store_at_once = false;
    let first = bench.send(joining("a", &["t"]));
    let second = bench.send(joining("b", &["t"]));
    assert!(bench.answers.is_empty() && bench.members().is_empty());
    bench.store(Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(
        bench.answers[&first].error,
        ErrorCode::CoordinatorNotAvailable
    );
    assert!(
        bench.members().is_empty(),
        "but the second is worked out by now"
    );
    assert!(!bench.answers.contains_key(&second));
    bench.store(Ok(()));
    assert_eq!(bench.answers[&second].error, ErrorCode::None);
    assert_eq!(bench.members(), ["b".to_owned()].into());
}

#[test]
fn a_write_that_takes_too_long_is_not_waited_for_but_counts_if_it_is_stored_after_all() {
    let mut bench = Bench::new(&[("t", 2)]);
    bench.store_at_once = false;
    bench.send(joining("a", &["t"]));
    let waiting = bench.send(joining("b", &["t"]));
    let told = bench.cell.overdue();
    bench.answer(told);
    assert_eq!(bench.answers.len(), 2);
    for response in std::mem::take(&mut bench.answers).into_values() {
        assert_eq!(response.error, ErrorCode::CoordinatorNotAvailable);
    }
    let meanwhile = bench.beat(joining("c", &["t"]));
    assert_eq!(meanwhile.error, ErrorCode::CoordinatorNotAvailable);
    bench.store(Ok(()));
    assert!(bench.answers.is_empty(), "{waiting:?} was told already");
    assert_eq!(bench.members(), ["a".to_owned()].into());
}
