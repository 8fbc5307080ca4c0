//! What is on its way to the log: begun, stored or refused, and never waited for too long.

use super::{Output, Pending, Purpose, Reply, Shard, Timer, Write, WriteId, WriteRecord};
use crate::coordinator::write::InTransaction;
use crate::group::state::{Now, Then};
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::sync::Arc;

impl Shard {
    pub(super) fn write(
        &mut self,
        group: &Arc<str>,
        records: Vec<WriteRecord>,
        purpose: Purpose,
        now: Now,
        out: &mut Output,
    ) {
        self.write_of(None, group, records, purpose, now, out);
    }

    /// The id that the next write will have.
    pub(super) fn next_write(&self) -> WriteId {
        WriteId(self.next_write)
    }

    /// A write that is part of a producer's transaction.
    pub(super) fn write_of(
        &mut self,
        transaction: Option<InTransaction>,
        group: &Arc<str>,
        records: Vec<WriteRecord>,
        purpose: Purpose,
        now: Now,
        out: &mut Output,
    ) {
        let id = self.next_write();
        self.next_write += 1;
        if let Some(entry) = self.groups.get_mut(group) {
            entry.writes += 1;
        }
        let unwaited =
            matches!(purpose, Purpose::Group(_)) && taken_out("a-share-is-given-when-stored");
        let pending = Pending {
            group: group.clone(),
            purpose,
            answered: false,
        };
        self.writes.insert(id, pending);
        self.timers
            .set(Timer::Write(id), now.mono + self.settings.write_timeout_ms);
        out.writes.push(Write {
            id,
            records,
            transaction,
        });
        if unwaited {
            self.written(id, None, now, out);
        }
    }

    /// A write is stored, or is known not to be: then `error` is the log's. Called in the order of
    /// the writes.
    pub fn written(&mut self, id: WriteId, error: Option<ErrorCode>, now: Now, out: &mut Output) {
        self.timers.cancel(&Timer::Write(id));
        let Some(pending) = self.writes.remove(&id) else {
            return;
        };
        let group = pending.group;
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.writes = entry.writes.saturating_sub(1);
        }
        match pending.purpose {
            Purpose::Group(then) => {
                let result = error.map_or(Ok(()), |error| Err(group_error(error)));
                if !pending.answered {
                    self.with_group(&group, now, out, |group, limits, fx| {
                        group.written(then, result, limits, now, fx);
                    });
                }
            }
            Purpose::Consumer => {
                let result = error.map_or(Ok(()), |error| Err(group_error(error)));
                self.consumer_written(&group, result, now, out);
            }
            Purpose::Commit { offsets, token } => {
                self.commit_written(&group, id, offsets, error.is_none());
                if !pending.answered {
                    let error = error.map_or(ErrorCode::None, commit_error);
                    out.replies.push((token, Reply::Commit(error)));
                }
            }
            purpose @ Purpose::Transaction { token, .. } => {
                self.transaction_written(&group, id, purpose, error.is_none(), now);
                if !pending.answered {
                    let error = error.map_or(ErrorCode::None, commit_error);
                    out.replies.push((token, Reply::Commit(error)));
                }
            }
            Purpose::Delete(token) => {
                // The tombstones of its offsets came before; if one of them was refused, the group
                // would come back from the log.
                let left = self
                    .groups
                    .get(&group)
                    .is_some_and(|e| !e.offsets.is_empty());
                let error = error.or(left.then_some(ErrorCode::NotEnoughReplicas));
                self.delete_written(&group, error.is_none(), now);
                if !pending.answered {
                    let error = error.map_or(ErrorCode::None, group_error);
                    out.replies.push((token, Reply::Delete(error)));
                }
            }
            Purpose::DeleteOffsets { partitions, token } => {
                if let (None, Some(entry)) = (error, self.groups.get_mut(&group)) {
                    for (topic, partition) in &partitions {
                        entry.offsets.remove(topic, *partition);
                    }
                }
                if !pending.answered {
                    let error = error.map_or(ErrorCode::None, group_error);
                    out.replies.push((token, Reply::Commit(error)));
                }
            }
            Purpose::Forget(partitions) => {
                if let (None, Some(entry)) = (error, self.groups.get_mut(&group)) {
                    for (topic, partition) in &partitions {
                        entry.offsets.remove(topic, *partition);
                        self.open.superseded(&group, topic, *partition, Some(id));
                    }
                }
            }
        }
        self.forget_if_blank(&group);
    }

    /// Nobody waits longer than the timeout. The write itself may still be stored.
    pub(super) fn write_overdue(&mut self, id: WriteId, now: Now, out: &mut Output) {
        let Some(pending) = self.writes.get_mut(&id) else {
            return;
        };
        pending.answered = true;
        let group = pending.group.clone();
        let error = ErrorCode::CoordinatorNotAvailable;
        match &mut pending.purpose {
            Purpose::Group(then) => {
                let then = std::mem::replace(then, Then::Nothing);
                self.with_group(&group, now, out, |group, limits, fx| {
                    group.written(then, Err(error), limits, now, fx);
                });
            }
            Purpose::Consumer => self.consumer_overdue(&group, out),
            Purpose::Commit { token, .. }
            | Purpose::Transaction { token, .. }
            | Purpose::DeleteOffsets { token, .. } => {
                out.replies.push((*token, Reply::Commit(error)));
            }
            Purpose::Delete(token) => out.replies.push((*token, Reply::Delete(error))),
            Purpose::Forget(_) => {}
        }
    }
}

/// How a client is told that a group could not be stored.
fn group_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        other => other,
    }
}

/// The same for an offset commit, where a client can be told that its commit is too large.
fn commit_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::InvalidCommitOffsetSize,
        other => group_error(other),
    }
}
