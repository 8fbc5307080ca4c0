//! What is on its way to the log: begun, stored or refused, and never waited for too long.

use super::{Output, Pending, Reply, Shard, Timer, Waits};
use crate::coordinator::Now;
use crate::coordinator::write::{Producer, Write, WriteId, WriteRecord};
use crate::txn::state::{Metadata, NO_EPOCH, State, Transaction};
use crate::txn::store::{encode_key, encode_value};
use crate::txn::types::{EndAnswer, Ending, InitAnswer};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// Before a write that was refused is tried again.
const RETRY_MS: u64 = 100;

impl Shard {
    pub(super) fn store(
        &mut self,
        id: &Arc<str>,
        next: Metadata,
        waits: Waits,
        now: Now,
        out: &mut Output,
    ) {
        let record = encode_key(id).and_then(|key| Ok((key, Some(encode_value(&next)?))));
        match record {
            Ok(record) => {
                if let Some(transaction) = self.transactions.get_mut(id) {
                    transaction.storing(next);
                }
                self.write(id, vec![record], waits, now, out);
            }
            Err(error) => {
                // A name that no record can hold.
                tracing::warn!(transactional_id = %id, %error, "the transactional id cannot be stored");
                answer(waits, ErrorCode::InvalidRequest, out);
                self.forget_if_new(id);
            }
        }
    }

    pub(super) fn write(
        &mut self,
        id: &Arc<str>,
        records: Vec<WriteRecord>,
        waits: Waits,
        now: Now,
        out: &mut Output,
    ) {
        let write = WriteId(self.next_write);
        self.next_write += 1;
        let pending = Pending {
            id: id.clone(),
            waits,
        };
        self.writes.insert(write, pending);
        let overdue = now.mono + self.settings.write_timeout_ms;
        self.timers.set(Timer::Write(write), overdue);
        out.writes.push(Write {
            id: write,
            records,
            transaction: None,
        });
    }

    /// Nobody waits longer than the timeout. The write itself may still be stored.
    pub(super) fn write_overdue(&mut self, id: WriteId, out: &mut Output) {
        if let Some(pending) = self.writes.get_mut(&id) {
            let waits = std::mem::replace(&mut pending.waits, Waits::Nobody);
            answer(waits, ErrorCode::CoordinatorNotAvailable, out);
        }
    }

    /// A write is stored, or is known not to be: then `error` is the log's.
    pub fn written(&mut self, id: WriteId, error: Option<ErrorCode>, now: Now, out: &mut Output) {
        self.timers.cancel(&Timer::Write(id));
        let Some(Pending { id, waits }) = self.writes.remove(&id) else {
            return;
        };
        let Some(transaction) = self.transactions.get_mut(&id) else {
            return;
        };
        match error {
            None => {
                transaction.stored();
                answer(waits, ErrorCode::None, out);
                self.changed(&id, out);
            }
            Some(error) => {
                transaction.refused();
                let ending = transaction.metadata().state.ending().is_some();
                answer(waits, client_error(error), out);
                if ending {
                    // Its markers are written; what is left is to say so.
                    let at = now.mono + RETRY_MS;
                    self.timers.set(Timer::Complete(id.clone()), at);
                }
                self.set_deadline(&id);
                self.forget_if_new(&id);
            }
        }
    }

    /// The transaction has a new state: sets its deadline, sends its markers, or forgets it.
    pub(super) fn changed(&mut self, id: &Arc<str>, out: &mut Output) {
        let Some(metadata) = self.transactions.get(id).map(Transaction::metadata) else {
            return;
        };
        if metadata.state == State::Dead {
            tracing::info!(transactional_id = %id, "the transactional id has expired");
            self.transactions.remove(id);
        } else if let Some(commit) = metadata.state.ending() {
            out.endings.push(Ending {
                transactional_id: id.clone(),
                producer: Producer {
                    id: metadata.producer,
                    epoch: metadata.epoch,
                },
                commit,
                bumped: metadata.bumped,
                partitions: metadata.partitions.clone(),
            });
        }
        self.set_deadline(id);
    }

    pub(super) fn set_deadline(&mut self, id: &Arc<str>) {
        match self.transactions.get(id).and_then(Transaction::deadline) {
            Some(at) => {
                let at = u64::try_from(at).unwrap_or(0);
                self.deadlines.set(id.clone(), at);
            }
            None => self.deadlines.cancel(id),
        }
    }

    /// An id of which nothing could be stored was never there.
    fn forget_if_new(&mut self, id: &Arc<str>) {
        let new = |t: &Transaction| t.metadata().epoch == NO_EPOCH && !t.is_changing();
        if self.transactions.get(id).is_some_and(new) {
            self.transactions.remove(id);
        }
    }
}

fn answer(waits: Waits, error: ErrorCode, out: &mut Output) {
    match waits {
        Waits::Nobody => {}
        Waits::Init(token, done) => {
            let answer = match error {
                ErrorCode::None => done,
                error => InitAnswer::Refused(error),
            };
            out.replies.push((token, Reply::Init(answer)));
        }
        Waits::Change(token) => out.replies.push((token, Reply::Changed(error))),
        Waits::End(token, producer) => {
            let answer = match error {
                ErrorCode::None => EndAnswer::Done(producer),
                error => EndAnswer::Refused(error),
            };
            out.replies.push((token, Reply::Ended(answer)));
        }
    }
}

/// How a client is told that a transaction could not be stored.
fn client_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => ErrorCode::UnknownServerError,
        other => other,
    }
}
