//! A group and what is to be done with it, in order.
//!
//! The group is what is stored. Changes are worked out on a copy, several at once where they come
//! together, and stored as one write; while that is on its way, everything else waits. So a refused write
//! leaves nothing behind, and no decision ever rests on something that may not be in the log.

use super::group::ConsumerGroup;
use super::{Refused, World, diff};
use crate::coordinator::write::WriteRecord;
use crate::group::state::{Answer, Group, Token};
use crate::group::store::FieldError;
use crate::group::store::consumer::MemberState;
use crate::group::store::records::{GroupValue, Key};
use crate::group::types::*;
use leasehold_wire::ErrorCode;
use std::collections::VecDeque;
use std::sync::Arc;

/// Changes that are worked out before they are stored together.
const AT_ONCE: usize = 64;
/// How long until a deadline is tried again that could not be stored.
const RETRY_MS: u64 = 1_000;

/// A deadline of a group of the newer protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerTimer {
    /// A member's session.
    Session(Arc<str>),
    /// What a member in this epoch must have given up.
    Rebalance(Arc<str>, i32),
    /// A classic member was told to join; it is set once for each time.
    Join(Arc<str>),
    /// A classic member has joined and must sync.
    Sync(Arc<str>),
    /// A classic member has left.
    Left(Arc<str>),
    /// Another look at the topics.
    Topics,
}

/// Something to be done with a group.
#[derive(Debug)]
pub enum Op {
    Ask(Ask),
    /// A deadline has passed.
    Due(ConsumerTimer),
}

/// A question, and who waits for its answer.
#[derive(Debug)]
pub enum Ask {
    Heartbeat {
        request: Box<ConsumerHeartbeatRequest>,
        fresh_id: Arc<str>,
        token: Token,
    },
    /// A classic member joins.
    Join {
        request: Box<JoinRequest>,
        fresh_id: Arc<str>,
        token: Token,
    },
}

/// A change of a deadline: set to so many milliseconds from now, or (with `None`) cancelled.
pub type TimerChange = (ConsumerTimer, Option<u64>);

/// An answer of a group of the newer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    Heartbeat(Token, ConsumerHeartbeatResponse),
    Join(Token, JoinResponse),
}

#[derive(Debug)]
struct Storing {
    next: ConsumerGroup,
    /// The group is a classic one from then on.
    downgrade: Option<GroupValue>,
    answers: Vec<Ready>,
    /// Deadlines that have passed: nobody repeats them if they cannot be stored.
    due: Vec<ConsumerTimer>,
    /// Those who waited were told that it took too long.
    overdue: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Cell {
    group: ConsumerGroup,
    /// The classic group whose place this one takes once it is stored.
    former: Option<Box<Group>>,
    /// That group as one of the newer protocol, if it has members.
    upgrade: Option<ConsumerGroup>,
    queue: VecDeque<Op>,
    storing: Option<Storing>,
    deleting: bool,
}

/// What working through the queue wants done.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answers: Vec<Ready>,
    pub timers: Vec<TimerChange>,
    /// To be stored as one; [`Cell::stored`] follows, and nothing else happens before.
    pub records: Vec<WriteRecord>,
}

/// What follows from a write.
#[derive(Debug, Default)]
pub struct Stored {
    pub answers: Vec<Ready>,
    pub timers: Vec<TimerChange>,
    /// The group is this classic one now; what waited is to be done with that.
    pub downgrade: Option<(GroupValue, VecDeque<Op>)>,
}

impl Cell {
    /// A group that is stored as it is, or (if blank) not at all.
    pub fn new(group: ConsumerGroup) -> Self {
        Self {
            group,
            former: None,
            upgrade: None,
            queue: VecDeque::new(),
            storing: None,
            deleting: false,
        }
    }

    /// A group that takes the place of a classic one, and (with `upgrade`) its members.
    pub fn replacing(former: Box<Group>, upgrade: Option<ConsumerGroup>) -> Self {
        let mut cell = Self::new(ConsumerGroup::new(former.id().clone()));
        cell.former = Some(former);
        cell.upgrade = upgrade;
        cell
    }

    /// The group, as it is stored.
    pub fn group(&self) -> &ConsumerGroup {
        &self.group
    }

    /// Whether nothing is to be done, nor on its way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.storing.is_none() && !self.deleting
    }

    /// Whether [`Cell::work`] would do anything now.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() && self.storing.is_none() && !self.deleting
    }

    /// Whether the group's deletion is on its way.
    pub fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// Its deletion begins or is taken back.
    pub fn set_deleting(&mut self, deleting: bool) {
        self.deleting = deleting;
    }

    /// The classic group that still counts, with its members, until this one is stored.
    pub fn upgrading(&self) -> Option<&Group> {
        self.former
            .as_deref()
            .filter(|former| former.members().len() > 0)
    }

    /// Gives back the classic group whose place this one did not take after all.
    pub fn take_former(&mut self) -> Option<Box<Group>> {
        self.former.take()
    }

    /// Those who wait for the classic group are told to try again.
    pub fn interrupt_former(&mut self) -> Vec<(Token, Answer)> {
        let mut fx = crate::group::state::Effects::default();
        if let Some(former) = &mut self.former {
            former.interrupt(&mut fx);
        }
        fx.answers
    }

    /// Takes something to do, or gives the answer at once.
    pub fn push(&mut self, op: Op) -> Option<Ready> {
        let stuck = self.storing.as_ref().is_some_and(|storing| storing.overdue);
        match op {
            Op::Ask(ask) if stuck || self.deleting => {
                Some(ask.refuse(ErrorCode::CoordinatorNotAvailable))
            }
            op => {
                self.queue.push_back(op);
                None
            }
        }
    }

    /// Works through what waits, as far as nothing is on its way. `is_set`: whether a deadline has been
    /// set again since it passed.
    pub fn work(&mut self, world: &World<'_>, is_set: impl Fn(&ConsumerTimer) -> bool) -> Outcome {
        let mut outcome = Outcome::default();
        if !self.has_work() {
            return outcome;
        }
        let upgrade = self.upgrade.take();
        let mut next = upgrade.clone().unwrap_or_else(|| self.group.clone());
        let mut storing = Storing {
            next: self.group.clone(),
            downgrade: None,
            answers: Vec::new(),
            due: Vec::new(),
            overdue: false,
        };
        let mut changed = false;
        for _ in 0..AT_ONCE {
            let Some(op) = self.queue.pop_front() else {
                break;
            };
            let before = next.clone();
            match op {
                Op::Due(timer) if is_set(&timer) => {}
                Op::Due(timer) => {
                    due(&mut next, &timer, world);
                    storing.due.push(timer);
                    changed = true;
                }
                Op::Ask(ask) => match ask.apply(&mut next, world) {
                    (answer, Some(timers)) => {
                        storing.answers.push(answer);
                        outcome.timers.extend(timers);
                        changed = true;
                    }
                    (answer, None) => {
                        storing.answers.push(answer);
                        next = before.clone();
                    }
                },
            }
            let newer = |group: &ConsumerGroup| group.members().any(|m| m.classic().is_none());
            if newer(&before) && !newer(&next) {
                storing.downgrade = next.downgraded(world);
                if storing.downgrade.is_some() {
                    break;
                }
            }
        }
        // Nobody came in: the classic group stays what it is.
        if !changed && upgrade.is_some() {
            outcome.answers = storing.answers;
            return outcome;
        }
        storing.next = next;
        match self.records(&storing) {
            Ok(records) if records.is_empty() => {
                self.group = storing.next;
                outcome.answers = storing.answers;
            }
            Ok(records) => {
                outcome.records = records;
                self.storing = Some(storing);
            }
            Err(error) => {
                tracing::error!(group = %self.group.id(), %error, "the group cannot be stored");
                outcome.answers = refuse_all(storing.answers, ErrorCode::UnknownServerError);
                outcome.timers.extend(again(storing.due));
            }
        }
        outcome
    }

    fn records(&self, storing: &Storing) -> Result<Vec<WriteRecord>, FieldError> {
        let id = self.group.id();
        let key = || Key::Group {
            group: id.to_string(),
        };
        if let Some(classic) = &storing.downgrade {
            let mut records = diff::tombstones(&self.group)?;
            records.push((key().encode()?, Some(classic.encode()?)));
            tracing::info!(group = %id, "the group goes back to the classic protocol");
            return Ok(records);
        }
        let mut records = diff::records(&self.group, &storing.next)?;
        if let Some(former) = self.former.as_ref().filter(|former| !former.is_blank())
            && !records.is_empty()
        {
            records.insert(0, (key().encode()?, None));
            tracing::info!(group = %id, members = former.members().len(), "the group takes the newer protocol");
        }
        Ok(records)
    }

    /// The write is stored, or is known not to be.
    pub fn stored(&mut self, result: Result<(), ErrorCode>) -> Stored {
        let Some(storing) = self.storing.take() else {
            return Stored::default();
        };
        let mut stored = Stored::default();
        match result {
            Ok(()) => {
                stored.timers = timer_changes(&self.group, &storing.next);
                stored.answers = storing.answers;
                self.former = None;
                self.group = storing.next;
                stored.downgrade = storing
                    .downgrade
                    .map(|classic| (classic, std::mem::take(&mut self.queue)));
            }
            Err(error) => {
                stored.answers = refuse_all(storing.answers, error);
                stored.timers = again(storing.due);
            }
        }
        if storing.overdue {
            stored.answers.clear();
        }
        if self.upgrading().is_some() {
            // The classic group stays, so what came for its successor came too early.
            for op in self.queue.drain(..) {
                if let Op::Ask(ask) = op {
                    let refused = ask.refuse(ErrorCode::CoordinatorNotAvailable);
                    stored.answers.push(refused);
                }
            }
        }
        stored
    }

    /// The write takes too long: nobody waits for it any longer, though it may still be stored.
    pub fn overdue(&mut self) -> Vec<Ready> {
        let Some(storing) = &mut self.storing else {
            return Vec::new();
        };
        storing.overdue = true;
        let error = ErrorCode::CoordinatorNotAvailable;
        let mut answers = refuse_all(std::mem::take(&mut storing.answers), error);
        for op in std::mem::take(&mut self.queue) {
            match op {
                Op::Due(_) => self.queue.push_back(op),
                Op::Ask(ask) => answers.push(ask.refuse(error)),
            }
        }
        answers
    }

    /// The deadlines of a group that was just loaded: every session starts anew.
    pub fn resume(&self, session_timeout_ms: i32) -> Vec<TimerChange> {
        let empty = ConsumerGroup::new(self.group.id().clone());
        let mut timers = timer_changes(&empty, &self.group);
        for member in self.group.members().filter(|m| m.classic().is_none()) {
            let after = Some(millis(session_timeout_ms));
            timers.push((ConsumerTimer::Session(member.id.clone()), after));
        }
        timers
    }

    /// A classic member's heartbeat; it is answered by what is stored.
    pub fn classic_heartbeat(&self, request: &HeartbeatRequest) -> (ErrorCode, Vec<TimerChange>) {
        match self.upgrading() {
            Some(former) => (in_between(former, &request.member_id), Vec::new()),
            None => self.group.classic_heartbeat(request),
        }
    }

    /// A classic member's sync; it is answered by what is stored.
    pub fn classic_sync(
        &self,
        request: &SyncRequest,
        world: &World<'_>,
    ) -> (SyncResponse, Vec<TimerChange>) {
        match self.upgrading() {
            Some(former) => {
                let error = in_between(former, &request.member_id);
                (SyncResponse::refused(error), Vec::new())
            }
            None => self.group.classic_sync(request, world.image),
        }
    }

    /// Classic members leave; who they are is told by what is stored.
    pub fn classic_leave(&self, request: &LeaveRequest) -> (LeaveResponse, Vec<Arc<str>>) {
        match self.upgrading() {
            Some(_) => {
                let error = ErrorCode::CoordinatorNotAvailable;
                (LeaveResponse::refused(error), Vec::new())
            }
            None => self.group.classic_leave(request),
        }
    }
}

/// While a group changes its protocol, its members are asked to join again.
fn in_between(former: &Group, member_id: &str) -> ErrorCode {
    match former.members().any(|member| &*member.id == member_id) {
        true => ErrorCode::RebalanceInProgress,
        false => ErrorCode::UnknownMemberId,
    }
}

impl Ask {
    /// Does it with `group`, which is half changed if the second part is `None`; else that part has the
    /// deadlines that it sets.
    fn apply(
        self,
        group: &mut ConsumerGroup,
        world: &World<'_>,
    ) -> (Ready, Option<Vec<TimerChange>>) {
        match self {
            Self::Heartbeat {
                request,
                fresh_id,
                token,
            } => match group.heartbeat(&request, &fresh_id, world) {
                Ok(response) => {
                    let timers = session(&response, world).into_iter().collect();
                    (Ready::Heartbeat(token, response), Some(timers))
                }
                Err(refused) => {
                    let response = ConsumerHeartbeatResponse::refused(refused);
                    (Ready::Heartbeat(token, response), None)
                }
            },
            Self::Join {
                request,
                fresh_id,
                token,
            } => match group.classic_join(&request, &fresh_id, world) {
                Ok(response) => {
                    let timers = ConsumerGroup::join_timers(&request, &response);
                    (Ready::Join(token, response), Some(timers))
                }
                Err(response) => (Ready::Join(token, *response), None),
            },
        }
    }

    /// The answer of one that is not done.
    fn refuse(self, error: ErrorCode) -> Ready {
        match self {
            Self::Heartbeat { token, .. } => {
                let response = ConsumerHeartbeatResponse::failed(error);
                Ready::Heartbeat(token, response)
            }
            Self::Join { token, request, .. } => {
                let response = JoinResponse::refused(&request.member_id, error);
                Ready::Join(token, response)
            }
        }
    }
}

fn session(response: &ConsumerHeartbeatResponse, world: &World<'_>) -> Option<TimerChange> {
    let member: Arc<str> = response.member_id.as_deref()?.into();
    let after = millis(world.settings.session_timeout_ms);
    (response.member_epoch >= 0).then_some((ConsumerTimer::Session(member), Some(after)))
}

/// What could not be stored is tried again a little later.
fn again(due: Vec<ConsumerTimer>) -> Vec<TimerChange> {
    due.into_iter()
        .map(|timer| (timer, Some(RETRY_MS)))
        .collect()
}

fn due(group: &mut ConsumerGroup, timer: &ConsumerTimer, world: &World<'_>) {
    let (id, why) = match timer {
        ConsumerTimer::Session(id) => (id, "its session ended"),
        ConsumerTimer::Rebalance(id, epoch) => {
            let waits = |m: &&Arc<super::member::Member>| {
                m.current.state == MemberState::Unrevoked && m.epoch() == *epoch
            };
            if group.member(id).filter(waits).is_none() {
                return;
            }
            (id, "it did not give up its partitions in time")
        }
        ConsumerTimer::Join(id) => (id, "it did not join the rebalance in time"),
        ConsumerTimer::Sync(id) => (id, "it did not sync in time"),
        ConsumerTimer::Left(id) => (id, "it left"),
        ConsumerTimer::Topics => return group.topics_changed(world),
    };
    if group.member(id).is_some() {
        tracing::info!(group = %group.id(), member = %id, "removed: {why}");
        group.remove(id, world);
    }
}

/// What a change means for the deadlines.
fn timer_changes(before: &ConsumerGroup, after: &ConsumerGroup) -> Vec<TimerChange> {
    let revokes = |group: &ConsumerGroup, id: &str| {
        let member = group.member(id)?;
        // A classic member has the time of its next join.
        let revokes = member.current.state == MemberState::Unrevoked && member.classic().is_none();
        revokes.then(|| (member.epoch(), member.metadata.rebalance_timeout_ms))
    };
    let mut changes = Vec::new();
    for member in before.members() {
        let id = &member.id;
        if after.member(id).is_none() {
            changes.push((ConsumerTimer::Session(id.clone()), None));
            changes.push((ConsumerTimer::Join(id.clone()), None));
            changes.push((ConsumerTimer::Sync(id.clone()), None));
        }
        if let Some((epoch, _)) = revokes(before, id)
            && revokes(after, id).is_none_or(|(newer, _)| newer != epoch)
        {
            changes.push((ConsumerTimer::Rebalance(id.clone(), epoch), None));
        }
    }
    for member in after.members() {
        let id = &member.id;
        if let Some(classic) = member.classic()
            && before.member(id).is_none()
        {
            let session = ConsumerTimer::Session(id.clone());
            changes.push((session, Some(millis(classic.session_timeout_ms))));
        }
        if let Some((epoch, timeout)) = revokes(after, id)
            && revokes(before, id).is_none_or(|(older, _)| older != epoch)
        {
            let timer = ConsumerTimer::Rebalance(id.clone(), epoch);
            changes.push((timer, Some(millis(timeout))));
        }
    }
    changes
}

fn refuse_all(answers: Vec<Ready>, error: ErrorCode) -> Vec<Ready> {
    let refused = |answer: Ready| match answer {
        Ready::Heartbeat(token, response) if response.error.is_ok() => {
            Ready::Heartbeat(token, ConsumerHeartbeatResponse::failed(error))
        }
        Ready::Join(token, response) if response.error.is_ok() => {
            Ready::Join(token, JoinResponse::refused(response.member_id, error))
        }
        // Refused already, for a reason of its own.
        other => other,
    };
    answers.into_iter().map(refused).collect()
}

/// A timeout from the wire; a negative one is over at once.
fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

impl ConsumerHeartbeatResponse {
    /// A refusal with its message.
    pub fn refused(refused: Refused) -> Self {
        Self {
            error_message: Some(refused.message),
            ..Self::failed(refused.error)
        }
    }
}
