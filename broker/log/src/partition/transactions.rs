//! Transactions in a partition's log (KIP-98): markers, the last stable offset, what a consumer of committed
//! records must skip, and the guard of a batch that begins a transaction (KIP-890).
//!
//! The aborted transactions are known per segment, where the marker lies; a file that is damaged is made up for
//! by the batches, read from the last producer snapshot before that segment on.

use super::open::rebuild_producers;
use super::{AppendInfo, PartitionLog, View, Writer};
use crate::aborted::AbortedTxn;
use crate::batch::{BatchHeader, HEADER_LEN, Marker, MarkerEpoch};
use crate::producers::{ProducerState, Snapshot};
use crate::segment::Segment;
use crate::transactions::VerificationGuard;
use crate::{AppendError, LogError, ReadError, TimestampType};
use bytes::Bytes;
use leasehold_types::{LeaderEpoch, Offset, ProducerId};
use std::path::Path;
use std::sync::Arc;

/// Batches for whoever reads committed records only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedRead {
    /// As [`PartitionLog::read`] gives them: those of aborted transactions are among them.
    pub batches: Bytes,
    /// The aborted transactions that have records in these batches.
    pub aborted: Vec<AbortedTxn>,
}

impl PartitionLog {
    /// Appends a marker as leader. `epoch` must have been begun. Older producers are fenced from then on.
    pub fn append_marker(
        &self,
        marker: &Marker,
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        self.append_marker_of(marker, MarkerEpoch::Any, epoch, now_ms)
    }

    /// The same, for a marker of which more is known: one that comes late does not end the next transaction.
    pub fn append_marker_of(
        &self,
        marker: &Marker,
        has: MarkerEpoch,
        epoch: LeaderEpoch,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        let config = self.config();
        let by_leader = config.timestamp_type == TimestampType::LogAppendTime;
        let bytes = marker.build(now_ms, by_leader);
        let mut header = BatchHeader::parse(&bytes)?;
        let writer = self.writer.lock();
        let view = self.check_leads(epoch)?;
        writer.producers.check_marker(marker, has)?;
        header.leader_epoch = epoch;
        let body = (&bytes[HEADER_LEN..], Some(*marker));
        let time = (now_ms, if by_leader { now_ms } else { -1 });
        self.append_checked(writer, &config, &view, (header, &bytes), body, time)
    }

    /// The first offset that is not decided yet, at most the high watermark: consumers of committed records
    /// read to here. The log's start, if records of an open transaction were deleted.
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        let stable = self.stability.last_stable(high_watermark);
        match stable == high_watermark {
            true => stable,
            false => stable.max(self.log_start_offset()).min(high_watermark),
        }
    }

    /// A guard for a batch of this producer, to be asked for before the transaction coordinator is. `None` if
    /// its transaction is open here: then there is nothing to ask. Does not wait for the disk.
    pub fn begin_verification(
        &self,
        producer: ProducerId,
        epoch: i16,
        sequence: i32,
        now_ms: i64,
    ) -> Option<VerificationGuard> {
        self.stability
            .change(|t| t.ask(producer, epoch, sequence, now_ms))
    }

    /// The coordinator said that the batch is not part of a transaction: its guard is void. So a client that makes
    /// producers up leaves nothing behind.
    pub fn verification_refused(&self, producer: ProducerId, guard: VerificationGuard) {
        self.stability.change(|t| t.refused(producer, guard));
    }

    /// This log takes the place of `former`, of which it is a copy: guards that were given there hold here, and none is given
    /// twice.
    pub fn take_over_guards(&self, former: &Self) {
        let former = former.stability.look(Clone::clone);
        self.stability.change(|t| t.take_over_guards(&former));
    }

    /// How many transactions are open.
    pub fn open_transactions(&self) -> usize {
        self.stability.open_count()
    }

    /// What is known of each producer. Waits for the writer.
    pub fn active_producers(&self) -> Vec<ProducerState> {
        self.writer.lock().producers.list()
    }

    /// Writes the producers' snapshot.
    pub(super) fn save_producers(&self, writer: &Writer, path: &Path) -> Result<(), LogError> {
        let ended = self.stability.look(|t| t.ended().clone());
        Snapshot::save(&writer.producers, &ended, path)
    }

    /// As [`Self::read`], with the aborted transactions that have records in what is returned.
    pub fn read_committed(
        &self,
        from: Offset,
        max_bytes: usize,
        limit: Offset,
        at_least_one: bool,
    ) -> Result<CommittedRead, ReadError> {
        self.with_view(|view| {
            let batches = self.read_view(view, from, max_bytes, limit, at_least_one)?;
            let Ok(batches) = batches else {
                return Ok(batches.map(|_| CommittedRead::default()));
            };
            let aborted = match end_of(&batches) {
                Some(end) => self.aborted_within(view, from, end)?,
                None => Vec::new(),
            };
            Ok(Ok(CommittedRead { batches, aborted }))
        })
    }

    /// The aborted transactions with records within two offsets.
    pub(super) fn aborted_within(
        &self,
        view: &View,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTxn>, (Arc<Segment>, LogError)> {
        let mut found = Vec::new();
        let first = view.index_of(from).unwrap_or(0);
        for (i, segment) in view.segments.iter().enumerate().skip(first) {
            let mut complete = false;
            self.look_aborted(view, i, |all| {
                found.extend(all.iter().filter(|txn| txn.touches(from, to)));
                complete = all.last().is_some_and(|txn| txn.last_stable_offset >= to);
            })
            .map_err(|e| (segment.clone(), e))?;
            if complete {
                break;
            }
        }
        Ok(found)
    }

    /// Looks at the aborted transactions of the `i`th segment. A damaged file is made up for by the batches.
    pub(super) fn look_aborted<R>(
        &self,
        view: &View,
        i: usize,
        mut look: impl FnMut(&[AbortedTxn]) -> R,
    ) -> Result<R, LogError> {
        let segment = &view.segments[i];
        if let Some(seen) = segment.look_aborted(&mut look)? {
            return Ok(seen);
        }
        tracing::warn!(segment = %segment.path().display(), "the index of aborted transactions is damaged: it is rebuilt");
        let interval = self.config().index_interval_bytes;
        let (upto, end) = (&view.segments[..=i], view.end_of(i));
        let rebuilt = rebuild_producers(&self.folder, upto, end, interval, segment.base())?;
        let mut aborted = rebuilt.aborted.into_iter().map(|(_, all)| all);
        let aborted = aborted.next().unwrap_or_default();
        let seen = look(&aborted);
        segment.set_aborted(aborted);
        Ok(seen)
    }
}

/// Where the last of these whole batches ends.
fn end_of(mut batches: &[u8]) -> Option<Offset> {
    let mut end = None;
    while let Ok(header) = BatchHeader::parse(batches) {
        end = Some(header.next_offset());
        batches = batches.get(header.total_len()..)?;
    }
    end
}
