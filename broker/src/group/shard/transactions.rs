//! Offsets committed in transactions: pending until the marker of the end is in the offsets topic.

use super::offsets::Taken;
use super::{Output, Purpose, Shard, WriteId};
use crate::coordinator::write::Producer;
use crate::group::state::{Now, Token};
use crate::group::store::loaded::ABORTED_SHOW_NOT;
use crate::group::store::records::OffsetValue;
use crate::group::types::{CommitRequest, TxnCommitRequest};
use leasehold_types::seams::taken_out;
use leasehold_types::{Offset, ProducerId};
use leasehold_wire::ErrorCode;

impl Shard {
    /// TxnOffsetCommit; answers as [`Shard::commit`] does.
    pub fn commit_in_transaction(
        &mut self,
        request: &TxnCommitRequest,
        token: Token,
        now: Now,
        out: &mut Output,
    ) -> (Taken, Option<Token>) {
        let commit = &request.commit;
        if let Err(error) = self.check_transactional(commit, now) {
            return (commit.all_partitions(error), None);
        }
        let mut taken = Taken::new();
        let mut offsets = Vec::new();
        let mut records = Vec::new();
        for topic in &commit.topics {
            let mut partitions = Vec::new();
            for wanted in &topic.partitions {
                let error = match self.offset_record(commit, &topic.name, wanted, now) {
                    Ok((value, record)) => {
                        offsets.push(((topic.name.clone(), wanted.partition), value));
                        records.push(record);
                        ErrorCode::None
                    }
                    Err(error) => error,
                };
                partitions.push((wanted.partition, error));
            }
            taken.push((topic.name.clone(), partitions));
        }
        let Some(entry) = self.groups.get(commit.group_id.as_str()) else {
            return (commit.all_partitions(ErrorCode::UnknownServerError), None);
        };
        if records.is_empty() {
            self.forget_if_blank(&commit.group_id);
            return (taken, None);
        }
        let group = entry.group.id().clone();
        let Producer { id, .. } = request.transaction.producer;
        let write = self.next_write();
        for (key, value) in &offsets {
            let (key, value) = (key.clone(), value.clone());
            self.open.begin(id, &group, key, write, value);
        }
        let purpose = Purpose::Transaction {
            producer: id,
            offsets,
            token,
            at: None,
            markers: Vec::new(),
        };
        let transaction = Some(request.transaction.clone());
        self.write_of(transaction, &group, records, purpose, now, out);
        (taken, Some(token))
    }

    /// As of an ordinary commit, but that a producer which tells no member may commit at any time, and one
    /// that does even while the group waits for its assignment (KIP-447).
    fn check_transactional(&mut self, request: &CommitRequest, now: Now) -> Result<(), ErrorCode> {
        if !self.groups.contains_key(request.group_id.as_str()) {
            if request.generation >= 0 {
                return Err(ErrorCode::IllegalGeneration);
            }
            self.create(&request.group_id, now);
        }
        let Some(entry) = self.groups.get(request.group_id.as_str()) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        entry.group.check_transactional_commit(request)
    }

    /// Where a write is stored. Comes before [`Shard::written`].
    pub fn stored_at(&mut self, id: WriteId, offset: Offset) {
        if let Some(pending) = self.writes.get_mut(&id)
            && let Purpose::Transaction { at, .. } = &mut pending.purpose
        {
            *at = Some(offset);
        }
    }

    /// The write of a commit in a transaction is stored, or known not to be.
    pub(super) fn transaction_written(
        &mut self,
        group: &str,
        write: WriteId,
        purpose: Purpose,
        stored: bool,
        now: Now,
    ) {
        let Purpose::Transaction {
            producer,
            offsets,
            at,
            markers,
            ..
        } = purpose
        else {
            return;
        };
        let at = at.filter(|_| stored);
        let ended = at.and_then(|at| markers.into_iter().find(|(marker, _)| *marker > at));
        let ended = ended.filter(|_| !taken_out("an-end-that-is-heard-of-first-counts"));
        // A marker that was heard of first, but is behind it in the log, ended it.
        let open = at.filter(|_| ended.is_none());
        self.open.written(producer, group, write, open);
        if let Some((_, true)) = ended {
            for ((topic, partition), value) in offsets {
                self.show(group, &topic, partition, value, now);
            }
        }
    }

    /// The marker of a transaction's end is in the log: what was committed before it shows, or is gone.
    pub fn transaction_ended(
        &mut self,
        producer: ProducerId,
        marker: Offset,
        commit: bool,
        now: Now,
    ) {
        for pending in self.writes.values_mut() {
            if let Purpose::Transaction {
                producer: of,
                markers,
                ..
            } = &mut pending.purpose
                && *of == producer
            {
                markers.push((marker, commit));
            }
        }
        for (group, (topic, partition), value) in self.open.end(producer, marker) {
            if commit || taken_out(ABORTED_SHOW_NOT) {
                self.show(&group, &topic, partition, value, now);
            }
            self.forget_if_blank(&group);
        }
    }

    fn show(&mut self, group: &str, topic: &str, partition: i32, value: OffsetValue, now: Now) {
        if !self.groups.contains_key(group) {
            self.create(group, now);
        }
        if let Some(entry) = self.groups.get_mut(group) {
            entry.offsets.begin(topic, partition);
            entry.offsets.end(topic, partition, Some(value));
        }
    }
}

#[cfg(test)]
#[path = "transactions_tests.rs"]
mod tests;
