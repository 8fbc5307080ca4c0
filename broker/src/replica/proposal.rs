//! The one ISR change that a leader may have outstanding.
//!
//! Promises: a retry carries the same bytes as the first attempt; a withdrawal proposes the
//! committed ISR at the same partition epoch; nothing but a record with a higher partition epoch
//! ends a proposal, because until then any copy of the request may still be committed.

use super::view::View;
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, PartitionEpoch};
use std::time::{Duration, Instant};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// What is asked of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IsrRequest {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    /// The wanted ISR, each with the incarnation under which it was judged.
    pub isr: Vec<(BrokerId, Incarnation)>,
}

/// What an answer hints at. None of them says what is committed; the record stream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsrHint {
    /// Committed, or identical to what is: the record is on its way.
    Accepted,
    /// The proposed members are not eligible: a retry cannot succeed.
    Ineligible,
    /// No answer, another controller, stale epochs: say it again unless a record comes.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Delivery {
    DueAt(Instant),
    InFlight,
}

/// A change of the ISR that the leader has asked for.
#[derive(Clone, Debug, Hash)]
pub struct Proposal {
    request: IsrRequest,
    withdrawing: bool,
    delivery: Delivery,
    retry: Duration,
}

impl Proposal {
    /// A new proposal, due at once.
    pub fn new(request: IsrRequest, now: Instant) -> Self {
        Self {
            request,
            withdrawing: false,
            delivery: Delivery::DueAt(now),
            retry: FIRST_RETRY,
        }
    }

    /// Whether `id` would be in the ISR if this were committed.
    pub fn contains(&self, id: BrokerId) -> bool {
        self.request.isr.iter().any(|(member, _)| *member == id)
    }

    /// The proposed members.
    pub fn members(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.request.isr.iter().map(|(id, _)| *id)
    }

    /// The partition epoch on which it builds.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.request.partition_epoch
    }

    /// Whether a record with `partition_epoch` ends this proposal, one way or the other.
    pub fn ended_by(&self, partition_epoch: PartitionEpoch) -> bool {
        partition_epoch > self.request.partition_epoch
    }

    /// Whether this proposal is being taken back.
    pub fn is_withdrawing(&self) -> bool {
        self.withdrawing
    }

    /// Withdraws if a member that was to join has since gone: the controller will refuse it for good.
    pub fn judge_again(&mut self, view: &View) {
        let lost = |(id, incarnation): &(BrokerId, Incarnation)| {
            !view.in_sync(*id)
                && !view
                    .member(*id)
                    .is_some_and(|m| m.may_join && m.incarnation == *incarnation)
        };
        let gone = self.request.isr.iter().any(lost) && !taken_out("a-retry-is-identical");
        if !self.withdrawing && gone {
            self.withdrawing = true;
        }
    }

    /// What to send now, if anything is due; it is in flight from then on.
    pub fn take_due(&mut self, view: &View, now: Instant) -> Option<IsrRequest> {
        match self.delivery {
            Delivery::DueAt(at) if at <= now => {
                self.delivery = Delivery::InFlight;
                Some(if self.withdrawing {
                    committed_isr(view)
                } else if taken_out("a-retry-is-identical") {
                    judged_anew(&self.request, view)
                } else {
                    self.request.clone()
                })
            }
            _ => None,
        }
    }

    /// When the next attempt is due; `None` while one is in flight.
    pub fn due_at(&self) -> Option<Instant> {
        match self.delivery {
            Delivery::DueAt(at) => Some(at),
            Delivery::InFlight => None,
        }
    }

    /// Takes the hint of an answer. It never ends the proposal.
    pub fn answered(&mut self, hint: IsrHint, now: Instant) {
        let wait = match hint {
            IsrHint::Accepted => LAST_RETRY,
            IsrHint::Ineligible => {
                self.withdrawing = true;
                self.retry
            }
            IsrHint::Unknown => self.retry,
        };
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.delivery = Delivery::DueAt(now + wait);
    }
}

/// What a retry must not be: the same members in the incarnations that they have now.
fn judged_anew(request: &IsrRequest, view: &View) -> IsrRequest {
    let now = |(id, was): &(BrokerId, Incarnation)| (*id, view.incarnation(*id).unwrap_or(*was));
    IsrRequest {
        isr: request.isr.iter().map(now).collect(),
        ..request.clone()
    }
}

/// The request that leaves the ISR as it is: what a withdrawal sends.
fn committed_isr(view: &View) -> IsrRequest {
    IsrRequest {
        leader_epoch: view.leader_epoch,
        partition_epoch: view.partition_epoch,
        isr: view
            .isr
            .iter()
            .filter_map(|id| Some((*id, view.incarnation(*id)?)))
            .collect(),
    }
}
