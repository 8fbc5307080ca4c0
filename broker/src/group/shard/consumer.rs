//! The groups of the newer protocol among the others: how they come into being, and how what they want
//! done is carried out.

use super::kind::Kind;
use super::{Entry, Output, Purpose, Reply, Shard, Timer};
use crate::group::consumer::cell::{Ask, Op, Outcome, Ready, TimerChange};
use crate::group::consumer::{Cell, ConsumerGroup, ConsumerTimer, World, diff, heartbeat};
use crate::group::offsets::Offsets;
use crate::group::state::{Answer, Now, State, Token};
use crate::group::store::records::GroupValue;
use crate::group::types::*;
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;
use std::collections::VecDeque;
use std::sync::Arc;

/// The epoch of a member that joins.
const JOINING: i32 = 0;

impl Shard {
    /// ConsumerGroupHeartbeat; the answer comes under `token`. `fresh_id` is for a member of version 0
    /// that joins without an id.
    pub fn consumer_heartbeat(
        &mut self,
        request: ConsumerHeartbeatRequest,
        fresh_id: Arc<str>,
        token: Token,
        now: Now,
        out: &mut Output,
    ) {
        let refuse = |out: &mut Output, response| {
            out.replies
                .push((token, Reply::ConsumerHeartbeat(response)));
        };
        if let Err(refused) = heartbeat::validate(&request, &self.settings.consumer) {
            return refuse(out, ConsumerHeartbeatResponse::refused(refused));
        }
        let id: Arc<str> = request.group_id.as_str().into();
        let joins = request.member_epoch == JOINING;
        if let Err(response) = self.make_consumer(&id, joins, now) {
            return refuse(out, response);
        }
        let op = Op::Ask(Ask::Heartbeat {
            request: Box::new(request),
            fresh_id,
            token,
        });
        self.consumer_op(&id, op, now, out);
    }

    /// Sees to it that there is a group of the newer protocol, if `joins` by making one: where there is
    /// none, or in the place of a classic one that nobody is in.
    fn make_consumer(
        &mut self,
        id: &Arc<str>,
        joins: bool,
        now: Now,
    ) -> Result<(), ConsumerHeartbeatResponse> {
        let refused = |message: String| {
            let refused = crate::group::consumer::Refused::new(ErrorCode::GroupIdNotFound, message);
            Err(ConsumerHeartbeatResponse::refused(refused))
        };
        let world = World {
            image: &self.image,
            settings: self.settings.consumer.of_group(&self.image, id),
            now,
        };
        match self.groups.get_mut(id) {
            None if joins => {
                let cell = Cell::new(ConsumerGroup::new(id.clone()));
                let entry = Entry {
                    group: Kind::Consumer(Box::new(cell)),
                    offsets: Offsets::default(),
                    writes: 0,
                };
                self.groups.insert(id.clone(), entry);
                Ok(())
            }
            None => refused(format!("Group {id} not found.")),
            Some(entry) => match &mut entry.group {
                Kind::Consumer(_) => Ok(()),
                Kind::Classic(group) if group.state() == State::Dead => Err(
                    ConsumerHeartbeatResponse::failed(ErrorCode::CoordinatorNotAvailable),
                ),
                Kind::Classic(group) if joins => {
                    // Ids that were only handed out lose nothing: any id may join.
                    let upgrade = match group.members().len() {
                        0 => None,
                        _ => {
                            let upgraded = ConsumerGroup::upgraded(group, &world);
                            Some(upgraded.map_err(ConsumerHeartbeatResponse::refused)?)
                        }
                    };
                    let former =
                        std::mem::replace(group, Box::new(super::Group::new(id.clone(), now)));
                    let cell = Cell::replacing(former, upgrade);
                    entry.group = Kind::Consumer(Box::new(cell));
                    Ok(())
                }
                Kind::Classic(_) => refused(format!("Group {id} is not a consumer group.")),
            },
        }
    }

    /// A classic member joins: an empty group of the newer protocol makes room for it. What is stored of
    /// it goes; if that fails, the classic group's own record says later which of the two counts.
    pub(super) fn make_classic(&mut self, group_id: &str, now: Now, out: &mut Output) {
        let Some(entry) = self.groups.get_mut(group_id) else {
            return;
        };
        let Some(cell) = entry.group.consumer().filter(|_| entry.group.is_idle()) else {
            return;
        };
        let id = cell.group().id().clone();
        let tombstones = diff::tombstones(cell.group());
        entry.group = Kind::Classic(Box::new(super::Group::new(id.clone(), now)));
        match tombstones {
            Ok(records) => self.write(&id, records, Purpose::Forget(Vec::new()), now, out),
            Err(error) => tracing::error!(group = %id, %error, "the group cannot be removed"),
        }
    }

    /// ConsumerGroupDescribe, for one group.
    pub fn consumer_describe(&self, group_id: &str, now: Now) -> ConsumerDescribedGroup {
        let refused = |message| {
            ConsumerDescribedGroup::refused(group_id, ErrorCode::GroupIdNotFound, Some(message))
        };
        match self.groups.get(group_id).map(|entry| &entry.group) {
            Some(Kind::Consumer(cell)) => cell.group().describe(&self.world(group_id, now)),
            Some(Kind::Classic(_)) => refused(format!("Group {group_id} is not a consumer group.")),
            None => refused(format!("Group {group_id} not found.")),
        }
    }

    /// Topics were created, grew or were deleted: the groups that consume them get a new epoch.
    pub fn topics_changed(&mut self, image: Arc<Image>, now: Now, out: &mut Output) {
        self.image = image;
        let consumers = self
            .groups
            .iter()
            .filter(|(_, e)| e.group.consumer().is_some());
        for id in consumers.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.consumer_op(&id, Op::Due(ConsumerTimer::Topics), now, out);
        }
    }

    /// A loaded group: its deadlines, and what happened to its topics while nobody led it.
    pub(super) fn resume_consumer(&mut self, id: &Arc<str>, now: Now, out: &mut Output) {
        let Some(cell) = self.groups.get(id).and_then(|e| e.group.consumer()) else {
            return;
        };
        let settings = self.settings.consumer.of_group(&self.image, id);
        let timers = cell.resume(settings.session_timeout_ms);
        self.set_timers(id, timers, now);
        self.consumer_op(id, Op::Due(ConsumerTimer::Topics), now, out);
    }

    pub(super) fn consumer_op(&mut self, id: &Arc<str>, op: Op, now: Now, out: &mut Output) {
        let Some(cell) = self.groups.get_mut(id).and_then(|e| e.group.consumer_mut()) else {
            return;
        };
        if let Some(answer) = cell.push(op) {
            answer_all(vec![answer], out);
        }
        self.work(id, now, out);
    }

    fn work(&mut self, id: &Arc<str>, now: Now, out: &mut Output) {
        loop {
            let world = World {
                image: &self.image,
                settings: self.settings.consumer.of_group(&self.image, id),
                now,
            };
            let Some(cell) = self.groups.get_mut(id).and_then(|e| e.group.consumer_mut()) else {
                return;
            };
            let timers = &self.timers;
            let outcome = cell.work(&world, |timer| {
                timers.contains(&Timer::Consumer(id.clone(), timer.clone()))
            });
            let Outcome {
                answers,
                timers,
                records,
            } = outcome;
            let waits = !records.is_empty();
            if waits {
                let interrupted = cell.interrupt_former().into_iter();
                out.replies
                    .extend(interrupted.map(|(token, answer)| (token, Reply::Group(answer))));
            }
            let done = !cell.has_work();
            answer_all(answers, out);
            self.set_timers(id, timers, now);
            if waits {
                return self.write(id, records, Purpose::Consumer, now, out);
            }
            if done {
                break;
            }
        }
        self.restore_former(id, now, out);
        self.forget_if_blank(id);
    }

    /// The write of a group of the newer protocol is stored, or is known not to be.
    pub(super) fn consumer_written(
        &mut self,
        id: &Arc<str>,
        result: Result<(), ErrorCode>,
        now: Now,
        out: &mut Output,
    ) {
        let Some(cell) = self.groups.get_mut(id).and_then(|e| e.group.consumer_mut()) else {
            return;
        };
        let stored = cell.stored(result);
        answer_all(stored.answers, out);
        self.set_timers(id, stored.timers, now);
        match stored.downgrade {
            Some((value, ops)) => self.downgrade(id, value, ops, now, out),
            None => self.work(id, now, out),
        }
    }

    /// The group is a classic one from now on.
    fn downgrade(
        &mut self,
        id: &Arc<str>,
        value: GroupValue,
        ops: VecDeque<Op>,
        now: Now,
        out: &mut Output,
    ) {
        let Some(entry) = self.groups.get_mut(id) else {
            return;
        };
        entry.group = Kind::Classic(Box::new(super::Group::from_value(id.clone(), value, now)));
        self.with_group(id, now, out, |group, limits, fx| {
            group.reopen(limits, now, fx);
        });
        for op in ops {
            match op {
                Op::Ask(Ask::Heartbeat {
                    request,
                    fresh_id,
                    token,
                }) => self.consumer_heartbeat(*request, fresh_id, token, now, out),
                Op::Ask(Ask::Join {
                    request,
                    fresh_id,
                    token,
                }) => self.join(&request, fresh_id, token, now, out),
                // Its sessions have begun anew.
                Op::Due(_) => {}
            }
        }
    }

    /// Gives the place back to the classic group that a group of the newer protocol did not get to
    /// replace.
    pub(super) fn restore_former(&mut self, id: &Arc<str>, now: Now, out: &mut Output) {
        let Some(entry) = self.groups.get_mut(id).filter(|e| e.group.is_blank()) else {
            return;
        };
        let former = entry.group.consumer_mut().and_then(Cell::take_former);
        let Some(former) = former else { return };
        entry.group = Kind::Classic(former);
        self.with_group(id, now, out, |group, limits, fx| {
            group.reopen(limits, now, fx);
        });
    }

    /// A join of a classic member in a group of the newer protocol; `false` if there is none.
    pub(super) fn consumer_join(
        &mut self,
        request: &JoinRequest,
        fresh_id: &Arc<str>,
        token: Token,
        now: Now,
        out: &mut Output,
    ) -> bool {
        let entry = self.groups.get(request.group_id.as_str());
        let Some(cell) = entry.and_then(|entry| entry.group.consumer()) else {
            return false;
        };
        let id = cell.group().id().clone();
        let op = Op::Ask(Ask::Join {
            request: Box::new(request.clone()),
            fresh_id: fresh_id.clone(),
            token,
        });
        self.consumer_op(&id, op, now, out);
        true
    }

    /// A sync of a classic member in a group of the newer protocol.
    pub(super) fn consumer_sync(
        &mut self,
        request: &SyncRequest,
        now: Now,
    ) -> Option<SyncResponse> {
        let entry = self.groups.get(request.group_id.as_str())?;
        let cell = entry.group.consumer()?;
        let id = cell.group().id().clone();
        let (response, timers) = cell.classic_sync(request, &self.world(&id, now));
        self.set_timers(&id, timers, now);
        Some(response)
    }

    /// A heartbeat of a classic member in a group of the newer protocol.
    pub(super) fn classic_heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        now: Now,
    ) -> Option<ErrorCode> {
        let entry = self.groups.get(request.group_id.as_str())?;
        let cell = entry.group.consumer()?;
        let id = cell.group().id().clone();
        let (error, timers) = cell.classic_heartbeat(request);
        self.set_timers(&id, timers, now);
        Some(error)
    }

    /// Classic members leave a group of the newer protocol.
    pub(super) fn consumer_leave(
        &mut self,
        request: &LeaveRequest,
        now: Now,
        out: &mut Output,
    ) -> Option<LeaveResponse> {
        let entry = self.groups.get(request.group_id.as_str())?;
        let cell = entry.group.consumer()?;
        let id = cell.group().id().clone();
        let (response, gone) = cell.classic_leave(request);
        for member in gone {
            self.consumer_op(&id, Op::Due(ConsumerTimer::Left(member)), now, out);
        }
        Some(response)
    }

    pub(super) fn consumer_overdue(&mut self, id: &Arc<str>, out: &mut Output) {
        if let Some(cell) = self.groups.get_mut(id).and_then(|e| e.group.consumer_mut()) {
            answer_all(cell.overdue(), out);
        }
    }

    fn set_timers(&mut self, id: &Arc<str>, changes: Vec<TimerChange>, now: Now) {
        for (timer, after) in changes {
            let timer = Timer::Consumer(id.clone(), timer);
            // It counts from when the member was first told to join.
            let once = matches!(&timer, Timer::Consumer(_, ConsumerTimer::Join(_)));
            match after {
                Some(_) if once && self.timers.contains(&timer) => {}
                Some(ms) => self.timers.set(timer, now.mono.saturating_add(ms)),
                None => self.timers.cancel(&timer),
            }
        }
    }

    pub(super) fn world(&self, group_id: &str, now: Now) -> World<'_> {
        World {
            image: &self.image,
            settings: self.settings.consumer.of_group(&self.image, group_id),
            now,
        }
    }
}

fn answer_all(answers: Vec<Ready>, out: &mut Output) {
    let reply = |answer: Ready| match answer {
        Ready::Heartbeat(token, response) => (token, Reply::ConsumerHeartbeat(response)),
        Ready::Join(token, response) => (token, Reply::Group(Answer::Join(response))),
    };
    out.replies.extend(answers.into_iter().map(reply));
}
