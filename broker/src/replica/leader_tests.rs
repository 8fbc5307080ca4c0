//! Each rule of leading, alone: taken out of `leader.rs` or `proposal.rs`, its test fails.

use super::leader::{Leader, Refusal};
use super::proposal::{IsrHint, IsrRequest};
use super::view::{Member, View};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, PartitionEpoch};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ME: BrokerId = BrokerId(0);
const F1: BrokerId = BrokerId(1);
const F2: BrokerId = BrokerId(2);
const LAG: Duration = Duration::from_secs(30);

fn inc(id: BrokerId) -> Incarnation {
    Incarnation(100 + i64::from(id.0))
}

fn view(isr: &[BrokerId]) -> View {
    View {
        leader: Some(ME),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(10),
        replicas: vec![ME, F1, F2],
        isr: isr.to_vec(),
        effective_min: 2,
        unclean: false,
        moves: false,
        throttled_leaders: Default::default(),
        throttled_followers: Default::default(),
        members: [ME, F1, F2]
            .map(|id| Member {
                id,
                incarnation: inc(id),
                may_join: true,
            })
            .to_vec(),
    }
}

struct Bench {
    leader: Leader,
    now: Instant,
}

impl Bench {
    /// A leader whose epoch begins at `start`, with everything before committed.
    fn at(isr: &[BrokerId], start: i64) -> Self {
        let now = Instant::now();
        let leader = Leader::new(
            ME,
            Arc::new(view(isr)),
            (Offset(start), Offset(start)),
            Offset(start),
            now,
        );
        Self { leader, now }
    }

    fn fetch(&mut self, id: BrokerId, offset: i64) -> bool {
        self.leader.fetched(id, inc(id), Offset(offset), self.now)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn request(&mut self) -> Option<IsrRequest> {
        self.leader.next_request(LAG, self.now)
    }

    fn observe(&mut self, change: impl FnOnce(&mut View)) {
        let mut next = (**self.leader.view()).clone();
        change(&mut next);
        self.leader.observe(Arc::new(next), self.now);
    }

    fn hw(&self) -> i64 {
        self.leader.high_watermark().0
    }
}

fn ids(request: &IsrRequest) -> Vec<BrokerId> {
    request.isr.iter().map(|(id, _)| *id).collect()
}

#[test]
fn the_high_watermark_waits_for_every_member_of_the_committed_isr() {
    let mut b = Bench::at(&[ME, F1, F2], 0);
    b.leader.appended(Offset(8));
    b.fetch(F1, 8);
    assert_eq!(b.hw(), 0, "F2 has not fetched in this epoch");
    b.fetch(F2, 3);
    assert_eq!(b.hw(), 3);
    b.fetch(F2, 8);
    assert_eq!(b.hw(), 8);
}

#[test]
fn the_high_watermark_never_falls() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.leader.appended(Offset(8));
    b.fetch(F1, 8);
    b.fetch(F1, 2);
    assert_eq!(b.hw(), 8);
}

#[test]
fn the_high_watermark_is_frozen_below_the_effective_minimum() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.observe(|v| {
        v.isr = vec![ME];
        v.partition_epoch = PartitionEpoch(11);
    });
    assert!(!b.leader.has_min_isr());
    b.leader.appended(Offset(4));
    assert_eq!(b.hw(), 0);
    b.observe(|v| v.effective_min = 1);
    assert_eq!(b.hw(), 4);
}

#[test]
fn a_follower_counts_only_in_the_incarnation_of_the_image() {
    let b = Bench::at(&[ME, F1], 0);
    let stale = Incarnation(1);
    assert_eq!(b.leader.admit(F1, inc(F1), LeaderEpoch(5)), Ok(()));
    assert_eq!(
        b.leader.admit(F1, stale, LeaderEpoch(5)),
        Err(Refusal::WrongIncarnation)
    );
    assert_eq!(
        b.leader.admit(BrokerId(9), stale, LeaderEpoch(5)),
        Err(Refusal::WrongIncarnation)
    );
}

#[test]
fn a_fetch_counts_only_in_this_leader_epoch_and_a_newer_one_deposes() {
    let b = Bench::at(&[ME, F1], 0);
    assert_eq!(
        b.leader.admit(F1, inc(F1), LeaderEpoch(4)),
        Err(Refusal::Fenced)
    );
    assert_eq!(
        b.leader.admit(F1, inc(F1), LeaderEpoch(6)),
        Err(Refusal::Deposed)
    );
}

#[test]
fn a_new_incarnation_of_a_follower_starts_from_nothing() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F1, 0);
    b.leader.appended(Offset(4));
    b.fetch(F1, 4);
    assert_eq!(b.hw(), 4);
    let later = Incarnation(999);
    b.observe(|v| v.members[1].incarnation = later);
    assert_eq!(b.leader.follower_log_end(F1), None);
    b.leader.appended(Offset(9));
    assert_eq!(b.hw(), 4, "what the old incarnation held proves nothing");
    b.leader.fetched(F1, later, Offset(9), b.now);
    assert_eq!(b.hw(), 9);
}

#[test]
fn a_member_of_a_pending_expansion_holds_the_high_watermark_back() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F1, 0);
    b.fetch(F2, 0);
    assert_eq!(ids(&b.request().unwrap()), [ME, F1, F2]);
    b.leader.appended(Offset(4));
    b.fetch(F1, 4);
    assert_eq!(b.hw(), 0, "the controller may have committed F2 already");
    b.fetch(F2, 4);
    assert_eq!(b.hw(), 4);
}

#[test]
fn a_pending_shrink_still_counts_the_member_that_leaves() {
    let mut b = Bench::at(&[ME, F1, F2], 0);
    b.leader.appended(Offset(4));
    b.fetch(F1, 4);
    b.wait(LAG + Duration::from_secs(1));
    b.fetch(F1, 4);
    assert_eq!(ids(&b.request().unwrap()), [ME, F1]);
    assert_eq!(b.hw(), 0);
    b.observe(|v| {
        v.isr = vec![ME, F1];
        v.partition_epoch = PartitionEpoch(11);
    });
    assert_eq!(b.hw(), 4);
}

#[test]
fn joining_needs_the_high_watermark() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.leader.appended(Offset(4));
    b.fetch(F1, 4);
    assert_eq!(b.hw(), 4);
    b.fetch(F2, 3);
    assert_eq!(b.request(), None);
    b.fetch(F2, 4);
    assert_eq!(ids(&b.request().unwrap()), [ME, F1, F2]);
}

#[test]
fn joining_needs_the_start_of_the_epoch_even_if_the_high_watermark_is_lower() {
    let now = Instant::now();
    let leader = Leader::new(
        ME,
        Arc::new(view(&[ME, F1])),
        (Offset(6), Offset(6)),
        Offset(2),
        now,
    );
    let mut b = Bench { leader, now };
    b.fetch(F2, 5);
    assert_eq!(b.request(), None);
    b.fetch(F2, 6);
    assert!(b.request().is_some());
}

#[test]
fn a_fenced_or_leaving_broker_is_not_proposed() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.observe(|v| v.members[2].may_join = false);
    b.fetch(F2, 0);
    assert_eq!(b.request(), None);
}

#[test]
fn there_is_one_proposal_at_a_time_and_a_retry_is_the_same_request() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F2, 0);
    let first = b.request().unwrap();
    assert_eq!(b.request(), None, "it is in flight");
    b.leader.answered(&first, IsrHint::Unknown, b.now);
    b.wait(Duration::from_secs(1));
    // Even though the image names a new incarnation of a *committed* member by now.
    b.observe(|v| v.members[1].incarnation = Incarnation(999));
    assert_eq!(b.request().unwrap(), first);
}

#[test]
fn no_answer_ends_a_proposal() {
    for hint in [IsrHint::Accepted, IsrHint::Ineligible, IsrHint::Unknown] {
        let mut b = Bench::at(&[ME, F1], 0);
        b.fetch(F1, 0);
        b.fetch(F2, 0);
        let request = b.request().unwrap();
        b.leader.answered(&request, hint, b.now);
        b.wait(Duration::from_secs(3600));
        b.leader.appended(Offset(4));
        b.fetch(F1, 4);
        assert_eq!(
            b.hw(),
            0,
            "after {hint:?} the request may still be committed"
        );
    }
}

#[test]
fn only_a_record_with_a_higher_partition_epoch_ends_a_proposal() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F2, 0);
    b.request().unwrap();
    b.observe(|_| {});
    assert!(b.leader.proposal().is_some());
    b.observe(|v| v.partition_epoch = PartitionEpoch(11));
    assert!(b.leader.proposal().is_none());
}

#[test]
fn a_withdrawal_proposes_the_committed_isr_at_the_same_partition_epoch() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F2, 0);
    let first = b.request().unwrap();
    b.leader.answered(&first, IsrHint::Ineligible, b.now);
    b.wait(Duration::from_secs(1));
    let withdrawal = b.request().unwrap();
    assert_eq!(ids(&withdrawal), [ME, F1]);
    assert_eq!(withdrawal.partition_epoch, first.partition_epoch);
    assert!(b.leader.maximal_isr().any(|id| id == F2));
}

#[test]
fn a_proposed_member_that_is_fenced_or_restarted_leads_to_a_withdrawal() {
    for change in [
        (|v: &mut View| v.members[2].may_join = false) as fn(&mut View),
        |v| v.members[2].incarnation = Incarnation(999),
    ] {
        let mut b = Bench::at(&[ME, F1], 0);
        b.fetch(F2, 0);
        let first = b.request().unwrap();
        b.leader.answered(&first, IsrHint::Unknown, b.now);
        b.observe(change);
        b.wait(Duration::from_secs(1));
        assert_eq!(ids(&b.request().unwrap()), [ME, F1]);
    }
}

#[test]
fn after_a_withdrawal_the_leader_rests_before_it_proposes_a_new_member() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F2, 0);
    let first = b.request().unwrap();
    b.leader.answered(&first, IsrHint::Ineligible, b.now);
    b.observe(|v| v.partition_epoch = PartitionEpoch(11));
    assert_eq!(b.request(), None);
    b.wait(Duration::from_secs(2));
    assert_eq!(b.request().unwrap().partition_epoch, PartitionEpoch(11));
}

#[test]
fn a_late_answer_to_an_older_proposal_does_not_touch_the_present_one() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F2, 0);
    let old = b.request().unwrap();
    b.observe(|v| v.partition_epoch = PartitionEpoch(11));
    let new = b.request().unwrap();
    b.leader.answered(&old, IsrHint::Ineligible, b.now);
    b.wait(Duration::from_secs(9));
    assert_eq!(b.request(), None, "the new one is still in flight");
    b.leader.answered(&new, IsrHint::Unknown, b.now);
    b.wait(Duration::from_secs(9));
    assert_eq!(b.request(), Some(new));
}

#[test]
fn a_follower_that_lags_too_long_is_proposed_to_leave_and_one_that_keeps_up_is_not() {
    let mut b = Bench::at(&[ME, F1, F2], 0);
    for second in 0..40 {
        // F1 always fetches up to where the log ended at its last fetch, F2 does not move.
        b.fetch(F1, second * 10);
        b.fetch(F2, 0);
        b.leader.appended(Offset(second * 10 + 10));
        if second < 30 {
            assert_eq!(b.request(), None, "at {second} s");
        }
        b.wait(Duration::from_secs(1));
    }
    assert_eq!(ids(&b.request().unwrap()), [ME, F1]);
}

#[test]
fn who_was_put_out_for_its_silence_comes_back_only_when_it_keeps_up_again() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F1, 0);
    b.leader.appended(Offset(4));
    b.wait(LAG + Duration::from_secs(1));
    assert_eq!(ids(&b.request().expect("F1 lags")), [ME]);
    b.observe(|v| {
        v.isr = vec![ME];
        v.partition_epoch = PartitionEpoch(11);
    });
    // Below the minimum the high watermark stands where F1 fell silent: it has reached it, and more is asked of it.
    assert_eq!(b.hw(), 0);
    assert_eq!(b.request(), None, "it would be put out again at once");
    b.fetch(F1, 0);
    assert_eq!(b.request(), None);
    b.fetch(F1, 4);
    assert_eq!(ids(&b.request().expect("F1 keeps up")), [ME, F1]);
}

#[test]
fn an_idle_partition_keeps_its_isr() {
    let mut b = Bench::at(&[ME, F1, F2], 0);
    b.leader.appended(Offset(4));
    b.fetch(F1, 4);
    b.fetch(F2, 4);
    b.wait(LAG * 10);
    assert_eq!(b.request(), None);
}

#[test]
fn leadership_is_proved_by_recent_fetches_of_the_whole_maximal_isr() {
    let mut b = Bench::at(&[ME, F1], 0);
    b.fetch(F1, 0);
    assert!(b.leader.confirmed_by_followers(b.now));
    let before = b.now;
    b.wait(Duration::from_secs(3));
    assert!(b.leader.confirmed_by_followers(before));
    assert!(!b.leader.confirmed_by_followers(b.now));
    b.fetch(F1, 0);
    assert!(b.leader.confirmed_by_followers(b.now));
    assert!(!b.leader.alone());
}

#[test]
fn a_leader_alone_in_the_maximal_isr_needs_no_proof_unless_elections_may_be_unclean() {
    let mut b = Bench::at(&[ME], 0);
    assert!(b.leader.alone());
    b.observe(|v| v.unclean = true);
    assert!(!b.leader.alone());
    b.observe(|v| v.unclean = false);
    b.fetch(F1, 0);
    b.request().unwrap();
    assert!(!b.leader.alone(), "F1 may be in the ISR by now");
}

#[test]
fn the_low_watermark_is_where_the_last_live_replica_begins() {
    let mut b = Bench::at(&[ME, F1], 9);
    let low = |b: &Bench, own| b.leader.low_watermark(Offset(own)).map(|low| low.0);
    assert_eq!(low(&b, 7), None, "nobody has told");
    assert!(
        !b.leader.begins_at(F1, Offset(7)),
        "only what a counted fetch tells is heard"
    );
    b.fetch(F1, 9);
    assert!(b.leader.begins_at(F1, Offset(4)));
    assert_eq!(low(&b, 7), None, "a replica outside of the ISR counts too");
    b.fetch(F2, 9);
    assert!(b.leader.begins_at(F2, Offset(8)));
    assert_eq!(low(&b, 7), Some(4));
    assert!(!b.leader.begins_at(F1, Offset(4)), "no news");
    assert!(b.leader.begins_at(F1, Offset(7)));
    assert_eq!(low(&b, 7), Some(7));
    // F1 comes back as another process, and has not told.
    b.observe(|v| v.members[1].incarnation = Incarnation(999));
    assert_eq!(low(&b, 7), None);
    // While it is fenced, nobody waits for it.
    b.observe(|v| v.members[1].may_join = false);
    assert_eq!(low(&b, 7), Some(7));
}
