//! All groups of one `__consumer_offsets` partition in one leader epoch: pure, like the groups in it.
//!
//! Joins the groups to their offsets, their timers and their writes. What a call wants stored comes
//! out as [`Write`]s, in the order in which they must be appended; the owner reports each of them as
//! [`Shard::written`], in that same order. Answers that depend on a write come out after it.
//!
//! Promises:
//! - an offset is visible, and its commit answered, only once it is stored;
//! - every write is answered within `offsets.commit.timeout.ms`, stored or not; what is stored later
//!   still counts;
//! - a group that is being deleted takes no commit and no member until its tombstones are stored.

mod cleanup;
mod consumer;
#[cfg(test)]
mod consumer_tests;
mod delete_offsets;
mod kind;
mod offsets;
mod transactions;
mod writes;

#[cfg(test)]
mod tests;

use super::consumer::cell::Op;
use super::consumer::{Cell, ConsumerGroup, ConsumerSettings, ConsumerTimer};
use super::offsets::{Offsets, TopicPartition};
use super::open::OpenTransactions;
use super::state::{Answer, Effects, Group, GroupTimer, Limits, Now, State, Then, TimerOp, Token};
use super::store::FieldError;
use super::store::loaded::LoadedGroup;
use super::store::records::{GroupValue, Key, OffsetValue};
use super::timer::TimerQueue;
use super::types::*;
use kind::Kind;
use leasehold_metadata::image::Image;
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, ProducerId};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

pub use crate::coordinator::write::{Write, WriteId, WriteRecord};
pub use offsets::Taken;

/// The broker's settings as far as a shard obeys them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub limits: Limits,
    pub consumer: ConsumerSettings,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_check_interval_ms: u64,
    /// `offsets.commit.timeout.ms`.
    pub write_timeout_ms: u64,
}

/// An answer to somebody who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Group(Answer),
    /// An offset commit is stored, or why not.
    Commit(ErrorCode),
    /// A deletion is stored, or why not.
    Delete(ErrorCode),
    ConsumerHeartbeat(ConsumerHeartbeatResponse),
}

/// What calls want done.
#[derive(Debug, Default)]
pub struct Output {
    pub replies: Vec<(Token, Reply)>,
    pub writes: Vec<Write>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Timer {
    Group(Arc<str>, GroupTimer),
    Consumer(Arc<str>, ConsumerTimer),
    /// A write was not stored in time.
    Write(WriteId),
    /// Look for expired offsets.
    Cleanup,
}

/// What a write is for.
#[derive(Debug)]
enum Purpose {
    Group(Then),
    /// Of a group of the newer protocol; it knows itself what follows.
    Consumer,
    Commit {
        offsets: Vec<(String, i32, OffsetValue)>,
        token: Token,
    },
    /// Offsets that are part of a transaction; it may end before the write is known to be stored.
    Transaction {
        producer: ProducerId,
        offsets: Vec<(TopicPartition, OffsetValue)>,
        token: Token,
        /// Where it is stored, as soon as that is known.
        at: Option<Offset>,
        /// The producer's markers since: where they lie, and whether they commit.
        markers: Vec<(Offset, bool)>,
    },
    Delete(Token),
    /// Offsets that an administrator takes back.
    DeleteOffsets {
        partitions: Vec<(String, i32)>,
        token: Token,
    },
    /// Offsets that nobody needs any more.
    Forget(Vec<(String, i32)>),
}

#[derive(Debug)]
struct Pending {
    group: Arc<str>,
    purpose: Purpose,
    /// Whoever waited was told that it took too long.
    answered: bool,
}

#[derive(Debug)]
struct Entry {
    group: Kind,
    offsets: Offsets,
    writes: usize,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub groups: usize,
    pub members: usize,
    pub offsets: usize,
}

/// The groups of one partition.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    /// The topics, as this broker knows them.
    image: Arc<Image>,
    groups: HashMap<Arc<str>, Entry>,
    open: OpenTransactions,
    timers: TimerQueue<Timer>,
    writes: HashMap<WriteId, Pending>,
    next_write: u64,
}

impl Shard {
    /// The shard as its log tells.
    pub fn new(
        settings: Settings,
        image: Arc<Image>,
        loaded: HashMap<String, LoadedGroup>,
        open: OpenTransactions,
        now: Now,
        out: &mut Output,
    ) -> Self {
        let mut shard = Self {
            settings,
            image,
            groups: HashMap::default(),
            open,
            timers: TimerQueue::default(),
            writes: HashMap::default(),
            next_write: 0,
        };
        for (id, loaded) in loaded {
            let id: Arc<str> = id.into();
            let group = match loaded.metadata {
                Some(value) => Kind::Classic(Box::new(Group::from_value(id.clone(), value, now))),
                None if loaded.consumer == Default::default() => {
                    Kind::Classic(Box::new(Group::new(id.clone(), now)))
                }
                None => {
                    let group = ConsumerGroup::loaded(id.clone(), loaded.consumer);
                    Kind::Consumer(Box::new(Cell::new(group)))
                }
            };
            let entry = Entry {
                group,
                offsets: Offsets::loaded(loaded.offsets),
                writes: 0,
            };
            shard.groups.insert(id.clone(), entry);
            shard.with_group(&id, now, out, |group, limits, fx| {
                group.resume(limits, now, fx)
            });
            shard.resume_consumer(&id, now, out);
        }
        shard.timers.set(
            Timer::Cleanup,
            now.mono + settings.offsets_check_interval_ms,
        );
        shard
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            groups: self.groups.len(),
            ..Counts::default()
        };
        for entry in self.groups.values() {
            counts.members += entry.group.members();
            counts.offsets += entry.offsets.len();
        }
        counts
    }

    /// When [`Shard::tick`] is to be called next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now, out: &mut Output) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Group(id, timer) => {
                    self.with_group(&id, now, out, |group, limits, fx| {
                        group.due(timer, limits, now, fx)
                    });
                }
                Timer::Consumer(id, timer) => self.consumer_op(&id, Op::Due(timer), now, out),
                Timer::Write(id) => self.write_overdue(id, now, out),
                Timer::Cleanup => {
                    self.remove_expired(now, out);
                    let next = now.mono + self.settings.offsets_check_interval_ms.max(1);
                    self.timers.set(Timer::Cleanup, next);
                }
            }
        }
    }

    /// JoinGroup; the answer comes under `token`. `fresh_id` is for a member without id.
    pub fn join(
        &mut self,
        request: &JoinRequest,
        fresh_id: Arc<str>,
        token: Token,
        now: Now,
        out: &mut Output,
    ) {
        if !self.groups.contains_key(request.group_id.as_str()) {
            if !request.member_id.is_empty() {
                let refused = JoinResponse::refused(&request.member_id, ErrorCode::UnknownMemberId);
                return out
                    .replies
                    .push((token, Reply::Group(Answer::Join(refused))));
            }
            self.create(&request.group_id, now);
        }
        self.make_classic(&request.group_id, now, out);
        if self.consumer_join(request, &fresh_id, token, now, out) {
            return;
        }
        self.with_group(&request.group_id, now, out, |group, limits, fx| {
            group.join(request, fresh_id, token, limits, now, fx);
        });
    }

    /// SyncGroup; the answer comes under `token`.
    pub fn sync(&mut self, request: &SyncRequest, token: Token, now: Now, out: &mut Output) {
        if let Some(response) = self.consumer_sync(request, now) {
            out.replies
                .push((token, Reply::Group(Answer::Sync(response))));
            return;
        }
        let known = self.with_group(&request.group_id, now, out, |group, _, fx| {
            group.sync(request, token, now, fx);
        });
        if known.is_none() {
            let refused = SyncResponse::refused(ErrorCode::UnknownMemberId);
            out.replies
                .push((token, Reply::Group(Answer::Sync(refused))));
        }
    }

    /// Heartbeat.
    pub fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        now: Now,
        out: &mut Output,
    ) -> ErrorCode {
        if let Some(error) = self.classic_heartbeat(request, now) {
            return error;
        }
        self.with_group(&request.group_id, now, out, |group, _, fx| {
            group.heartbeat(request, now, fx)
        })
        .unwrap_or(ErrorCode::UnknownMemberId)
    }

    /// LeaveGroup.
    pub fn leave(&mut self, request: &LeaveRequest, now: Now, out: &mut Output) -> LeaveResponse {
        if let Some(response) = self.consumer_leave(request, now, out) {
            return response;
        }
        let left = self.with_group(&request.group_id, now, out, |group, limits, fx| {
            group.leave(request, limits, now, fx)
        });
        left.unwrap_or_else(|| LeaveResponse {
            error: ErrorCode::None,
            members: request.members.iter().map(unknown_member).collect(),
        })
    }

    /// The groups that pass the filters.
    pub fn list(&self, request: &ListRequest) -> Vec<ListedGroup> {
        let passes = |filter: &[String], value: &str| {
            filter.is_empty() || filter.iter().any(|f| f.trim().eq_ignore_ascii_case(value))
        };
        let groups = self.groups.values().map(|entry| &entry.group);
        groups
            .filter(|group| passes(&request.types, group.type_name()))
            .filter(|group| passes(&request.states, group.state_name()))
            .map(|group| ListedGroup {
                group_id: group.id().to_string(),
                protocol_type: group.protocol_type().to_owned(),
                state: group.state_name(),
                group_type: group.type_name(),
            })
            .collect()
    }

    /// One group in detail.
    pub fn describe(&self, group_id: &str, api_version: i16) -> DescribedGroup {
        let group = match self.groups.get(group_id).map(|entry| &entry.group) {
            Some(Kind::Classic(group)) => group,
            Some(Kind::Consumer(_)) => {
                let message = format!("Group {group_id} is not a classic group.");
                return DescribedGroup::dead(group_id, api_version, message);
            }
            None => return DescribedGroup::missing(group_id, api_version),
        };
        let stable = group.state() == State::Stable;
        let members = group.members().map(|member| DescribedMember {
            member_id: member.id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            // Between generations there is no protocol to read them by.
            metadata: if stable {
                member.metadata(group.protocol())
            } else {
                Default::default()
            },
            assignment: if stable {
                member.assignment.clone()
            } else {
                Default::default()
            },
        });
        DescribedGroup {
            error: ErrorCode::None,
            error_message: None,
            group_id: group_id.to_owned(),
            state: group.state().name(),
            protocol_type: group.protocol_type().unwrap_or_default().to_owned(),
            protocol_data: if stable {
                group.protocol().unwrap_or_default().to_owned()
            } else {
                String::new()
            },
            members: members.collect(),
        }
    }

    fn create(&mut self, group_id: &str, now: Now) {
        let id: Arc<str> = group_id.into();
        let entry = Entry {
            group: Kind::Classic(Box::new(Group::new(id.clone(), now))),
            offsets: Offsets::default(),
            writes: 0,
        };
        self.groups.insert(id, entry);
    }

    /// Calls a classic group and carries out what it wants. `None` if there is no such group.
    fn with_group<R>(
        &mut self,
        group_id: &str,
        now: Now,
        out: &mut Output,
        call: impl FnOnce(&mut Group, &Limits, &mut Effects) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(group_id)?.group.classic_mut()?;
        let id = group.id().clone();
        let mut fx = Effects::default();
        let result = call(group, &self.settings.limits, &mut fx);
        // A write that cannot even be encoded fails at once, and may ask for more to be done.
        while let Some(failed) = self.carry_out(&id, fx, now, out) {
            fx = Effects::default();
            if let Some(group) = self.groups.get_mut(&id).and_then(|e| e.group.classic_mut()) {
                let limits = &self.settings.limits;
                group.written(
                    failed,
                    Err(ErrorCode::UnknownServerError),
                    limits,
                    now,
                    &mut fx,
                );
            }
        }
        self.forget_if_blank(&id);
        Some(result)
    }

    /// Returns what a write was for that could not be encoded.
    fn carry_out(
        &mut self,
        id: &Arc<str>,
        fx: Effects,
        now: Now,
        out: &mut Output,
    ) -> Option<Then> {
        for op in fx.timers {
            match op {
                TimerOp::Set(timer, at) => self.timers.set(Timer::Group(id.clone(), timer), at),
                TimerOp::Cancel(timer) => self.timers.cancel(&Timer::Group(id.clone(), timer)),
            }
        }
        let answers = fx.answers.into_iter();
        out.replies
            .extend(answers.map(|(token, answer)| (token, Reply::Group(answer))));
        let mut failed = None;
        for (value, then) in fx.writes {
            match encode_group(id, &value) {
                Ok(record) => self.write(id, vec![record], Purpose::Group(then), now, out),
                Err(error) => {
                    tracing::error!(group = %id, %error, "the group cannot be stored");
                    failed = Some(then);
                }
            }
        }
        failed
    }

    fn forget_if_blank(&mut self, group_id: &str) {
        let open = self.open.has_any(group_id);
        let blank =
            |e: &Entry| e.group.is_blank() && e.offsets.is_empty() && e.writes == 0 && !open;
        if self.groups.get(group_id).is_some_and(blank) {
            self.groups.remove(group_id);
        }
    }
}

fn unknown_member(leaving: &LeavingMember) -> LeftMember {
    LeftMember {
        member_id: leaving.member_id.clone(),
        instance_id: leaving.instance_id.clone(),
        error: ErrorCode::UnknownMemberId,
    }
}

fn encode_group(group: &str, value: &GroupValue) -> Result<WriteRecord, FieldError> {
    let key = Key::Group {
        group: group.to_owned(),
    };
    Ok((key.encode()?, Some(value.encode()?)))
}
