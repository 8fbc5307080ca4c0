//! The state of one partition's leader during one leader epoch: pure, without clock, disk or network.
//!
//! Invariants:
//! - a follower's position counts only under its id, the incarnation that the image names, and this
//!   leader epoch (a new epoch is a new `Leader`);
//! - the high watermark is never above the position of any member of committed ISR ∪ proposal, and
//!   stands still while the committed ISR is smaller than the effective minimum;
//! - a follower is proposed only with a position at or past both the high watermark and the start of
//!   this epoch;
//! - at most one proposal is outstanding, and only a record ends it (`proposal.rs`).

use super::proposal::{IsrHint, IsrRequest, Proposal};
use super::view::View;
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How far a follower has fetched, in one incarnation of it.
#[derive(Clone, Debug, Hash)]
struct Follower {
    incarnation: Incarnation,
    log_end: Offset,
    /// Where its log begins, once it told.
    log_start: Option<Offset>,
    fetched_at: Instant,
    leader_end_at_fetch: Offset,
    caught_up_at: Instant,
}

/// What a leader knows of a follower that tells where its log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerState {
    pub log_start: Offset,
    pub log_end: Offset,
    pub fetched_at: Instant,
    pub caught_up_at: Instant,
}

/// Why a follower's fetch does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It follows an older leader epoch.
    Fenced,
    /// It knows a newer leader epoch: this leader has been replaced and must stop serving.
    Deposed,
    /// It is not the incarnation that the image names, or no replica of the partition.
    WrongIncarnation,
}

/// The leader of a partition in one leader epoch.
#[derive(Clone, Debug, Hash)]
pub struct Leader {
    me: BrokerId,
    view: Arc<View>,
    since: Instant,
    start: Offset,
    log_end: Offset,
    high_watermark: Offset,
    followers: BTreeMap<BrokerId, Follower>,
    proposal: Option<Proposal>,
    /// No new member is proposed before this: the last proposal had to be withdrawn.
    no_join_before: Option<Instant>,
}

/// How long a leader waits after a withdrawal before it proposes a new member again.
const REST_AFTER_WITHDRAWAL: Duration = Duration::from_secs(1);

impl Leader {
    /// Begins to lead at `view.leader_epoch`, whose first offset is `start`; the log ends at `log_end`.
    pub fn new(
        me: BrokerId,
        view: Arc<View>,
        (start, log_end): (Offset, Offset),
        high_watermark: Offset,
        now: Instant,
    ) -> Self {
        let mut leader = Self {
            me,
            view,
            since: now,
            start,
            log_end,
            high_watermark: high_watermark.min(log_end),
            followers: BTreeMap::new(),
            proposal: None,
            no_join_before: None,
        };
        leader.advance();
        leader
    }

    /// The epoch in which this leader leads.
    pub fn epoch(&self) -> LeaderEpoch {
        self.view.leader_epoch
    }

    /// The log's end when the epoch began.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The image's word on this partition.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The first offset that is not known to be committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The offset that the next record gets.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Whether acks=all may be promised: enough members in the committed ISR.
    pub fn has_min_isr(&self) -> bool {
        self.view.isr.len() >= self.view.effective_min
    }

    /// The outstanding proposal.
    pub fn proposal(&self) -> Option<&Proposal> {
        self.proposal.as_ref()
    }

    /// Takes a newer image of the same leader epoch. Returns whether the high watermark moved.
    pub fn observe(&mut self, view: Arc<View>, now: Instant) -> bool {
        debug_assert_eq!(view.leader_epoch, self.view.leader_epoch);
        if let Some(proposal) = &mut self.proposal {
            if proposal.ended_by(view.partition_epoch) {
                if proposal.is_withdrawing() {
                    self.no_join_before = Some(now + REST_AFTER_WITHDRAWAL);
                }
                self.proposal = None;
            } else {
                proposal.judge_again(&view);
            }
        }
        self.view = view;
        let view = &self.view;
        self.followers.retain(|id, follower| {
            view.incarnation(*id) == Some(follower.incarnation)
                || taken_out("follower-state-is-reset")
        });
        self.advance()
    }

    /// The log ends at `log_end` now. Returns whether the high watermark moved.
    pub fn appended(&mut self, log_end: Offset) -> bool {
        self.log_end = self.log_end.max(log_end);
        self.advance()
    }

    /// Whether a fetch of this follower counts here.
    pub fn admit(
        &self,
        id: BrokerId,
        incarnation: Incarnation,
        epoch: LeaderEpoch,
    ) -> Result<(), Refusal> {
        if epoch > self.epoch() {
            return Err(Refusal::Deposed);
        }
        if epoch < self.epoch() && !taken_out("fetch-of-an-older-epoch") {
            return Err(Refusal::Fenced);
        }
        if (self.view.incarnation(id) != Some(incarnation) && !taken_out("fetch-incarnation"))
            || !self.view.replicas.contains(&id)
        {
            return Err(Refusal::WrongIncarnation);
        }
        Ok(())
    }

    /// An admitted follower, whose log agrees with ours so far, fetches from `offset`: it holds all
    /// before. Returns whether the high watermark moved.
    pub fn fetched(
        &mut self,
        id: BrokerId,
        incarnation: Incarnation,
        offset: Offset,
        now: Instant,
    ) -> bool {
        let log_end = self.log_end;
        let since = self.since;
        let fresh = || Follower {
            incarnation,
            log_end: offset,
            log_start: None,
            fetched_at: now,
            leader_end_at_fetch: log_end,
            caught_up_at: since,
        };
        let follower = self.followers.entry(id).or_insert_with(fresh);
        if follower.incarnation != incarnation {
            *follower = fresh();
        }
        if offset >= log_end {
            follower.caught_up_at = now;
        } else if offset >= follower.leader_end_at_fetch {
            follower.caught_up_at = follower.caught_up_at.max(follower.fetched_at);
        }
        follower.log_end = offset;
        follower.fetched_at = now;
        follower.leader_end_at_fetch = log_end;
        self.advance()
    }

    /// A follower whose fetch was counted told where its log begins. Returns whether that is news.
    pub fn begins_at(&mut self, id: BrokerId, log_start: Offset) -> bool {
        let Some(follower) = self.followers.get_mut(&id) else {
            return false;
        };
        follower.log_start.replace(log_start) != Some(log_start)
    }

    /// The smallest offset at which a live replica's log begins, this one's at `own`. `None` as long as
    /// one of them has not told. Who is fenced or about to stop is not waited for: it takes the
    /// leader's start over before it counts again.
    pub fn low_watermark(&self, own: Offset) -> Option<Offset> {
        let lives = |id: &&BrokerId| self.view.member(**id).is_some_and(|m| m.may_join);
        let others = self.view.replicas.iter().filter(|id| **id != self.me);
        others.filter(lives).try_fold(own, |low, id| {
            Some(low.min(self.followers.get(id)?.log_start?))
        })
    }

    /// Everyone whose log must hold a record before it counts as committed: the committed ISR and
    /// the members of an unresolved proposal.
    pub fn maximal_isr(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let proposed = self.proposal.iter().flat_map(Proposal::members);
        let joining =
            proposed.filter(|id| !self.view.in_sync(*id) && !taken_out("hw-counts-the-proposal"));
        let stays = |id: &BrokerId| {
            let leaves = self.proposal.as_ref().is_some_and(|p| !p.contains(*id));
            !(leaves && taken_out("hw-counts-who-is-to-leave"))
        };
        self.view.isr.iter().copied().filter(stays).chain(joining)
    }

    fn advance(&mut self) -> bool {
        if !self.has_min_isr() && !taken_out("hw-needs-the-minimum") {
            return false;
        }
        let mut reached = self.log_end;
        for id in self.maximal_isr() {
            if id == self.me {
                continue;
            }
            let Some(follower) = self.followers.get(&id) else {
                if taken_out("hw-needs-every-member") {
                    continue;
                }
                return false;
            };
            reached = reached.min(follower.log_end);
        }
        if reached <= self.high_watermark {
            return false;
        }
        self.high_watermark = reached;
        true
    }

    /// How far `id` is known to have fetched, in the incarnation that the image names.
    pub fn follower_log_end(&self, id: BrokerId) -> Option<Offset> {
        self.followers.get(&id).map(|follower| follower.log_end)
    }

    /// What is known of `id`, in the incarnation that the image names.
    pub fn follower_state(&self, id: BrokerId) -> Option<FollowerState> {
        let follower = self.followers.get(&id)?;
        Some(FollowerState {
            log_start: follower.log_start?,
            log_end: follower.log_end,
            fetched_at: follower.fetched_at,
            caught_up_at: follower.caught_up_at,
        })
    }

    /// Whether every other member of the maximal ISR fetched in this epoch since `since`: then no
    /// other leader can have committed anything before that moment.
    pub fn confirmed_by_followers(&self, since: Instant) -> bool {
        self.maximal_isr().filter(|id| *id != self.me).all(|id| {
            self.followers
                .get(&id)
                .is_some_and(|follower| follower.fetched_at >= since)
        })
    }

    /// Whether no one but this broker can be elected without data loss being allowed.
    pub fn alone(&self) -> bool {
        !self.view.unclean && self.maximal_isr().all(|id| id == self.me)
    }

    /// What to ask of the controller now, if anything.
    pub fn next_request(&mut self, lag_max: Duration, now: Instant) -> Option<IsrRequest> {
        if self.proposal.is_none() || taken_out("one-proposal-at-a-time") {
            let wanted = self
                .joined(lag_max, now)
                .or_else(|| self.shrunk(lag_max, now))?;
            let isr = wanted
                .into_iter()
                .map(|id| Some((id, self.view.incarnation(id)?)))
                .collect::<Option<Vec<_>>>()?;
            let request = IsrRequest {
                leader_epoch: self.view.leader_epoch,
                partition_epoch: self.view.partition_epoch,
                isr,
            };
            self.proposal = Some(Proposal::new(request, now));
        }
        self.proposal.as_mut()?.take_due(&self.view, now)
    }

    /// When `next_request` may have something to say again without any other event; `None` if only an event can.
    pub fn request_due(&self) -> Option<Instant> {
        self.proposal.as_ref()?.due_at()
    }

    /// The controller (or nobody) answered the request in flight.
    pub fn answered(&mut self, request: &IsrRequest, hint: IsrHint, now: Instant) {
        if request.leader_epoch == self.view.leader_epoch
            && let Some(proposal) = &mut self.proposal
            && proposal.partition_epoch() == request.partition_epoch
        {
            proposal.answered(hint, now);
            if taken_out("only-a-record-ends-a-proposal") {
                self.proposal = None;
            }
        }
    }

    /// The committed ISR and everyone eligible to join it, if there is one. Whoever would be put out again at once
    /// stays out: one who fell silent where the high watermark stands still has reached it all the same.
    fn joined(&self, lag_max: Duration, now: Instant) -> Option<Vec<BrokerId>> {
        if self.no_join_before.is_some_and(|rest| now < rest) {
            return None;
        }
        let eligible = |id: &BrokerId| {
            *id != self.me
                && !self.view.in_sync(*id)
                && self.view.member(*id).is_some_and(|m| m.may_join)
                && self.followers.get(id).is_some_and(|f| {
                    (f.log_end >= self.high_watermark || taken_out("join-at-the-high-watermark"))
                        && (f.log_end >= self.start || taken_out("join-at-the-epochs-start"))
                        && self.keeps_up(f, lag_max, now)
                })
        };
        let joining: Vec<_> = self
            .view
            .replicas
            .iter()
            .copied()
            .filter(eligible)
            .collect();
        (!joining.is_empty()).then(|| self.view.isr.iter().copied().chain(joining).collect())
    }

    /// The committed ISR without those who lag, if there is one.
    fn shrunk(&self, lag_max: Duration, now: Instant) -> Option<Vec<BrokerId>> {
        let keeps_up = |id: &BrokerId| {
            let Some(follower) = self.followers.get(id) else {
                return now.saturating_duration_since(self.since) <= lag_max;
            };
            self.keeps_up(follower, lag_max, now)
        };
        let kept: Vec<_> = self
            .view
            .isr
            .iter()
            .copied()
            .filter(|id| *id == self.me || keeps_up(id))
            .collect();
        (kept.len() < self.view.isr.len()).then_some(kept)
    }

    /// Whether a follower has all there is, or had it not long ago.
    fn keeps_up(&self, follower: &Follower, lag_max: Duration, now: Instant) -> bool {
        follower.log_end >= self.log_end
            || now.saturating_duration_since(follower.caught_up_at) <= lag_max
    }
}
