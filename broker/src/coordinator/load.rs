//! Reading a coordinator's state back from its log, at the beginning of a leadership.
//!
//! Promise: what is taken is committed, and all of it that was appended before the leadership.

use super::log::{Leadership, StateLog};
use bytes::Bytes;
use leasehold_log::batch::{Batch, batches};
use leasehold_types::Offset;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::time::Duration;

/// Pause after a read of the log that failed while the leadership still stands.
const READ_RETRY: Duration = Duration::from_millis(100);

/// Gives every batch of the log to `take`, in order, with the offset from which on its records count;
/// returns the log's end, or `None` if the leadership is over.
pub async fn load(
    log: &dyn StateLog,
    at: Leadership,
    mut take: impl FnMut(&Batch, Offset),
) -> Option<Offset> {
    let mut next = log.bounds(at)?.log_start;
    // Nobody else appends in this epoch, and we do not while we load. Waiting until all of it is
    // committed keeps a state from being shown that a later leader may not have.
    let end = log.bounds(at)?.log_end;
    loop {
        next = next.max(log.bounds(at)?.log_start);
        if next >= end || taken_out("all-is-loaded-first") {
            return Some(end);
        }
        match log.read(at, next).await {
            Ok(bytes) => next = each(bytes, next, &mut take),
            Err(error) => {
                let Leadership {
                    partition, epoch, ..
                } = at;
                tracing::debug!(partition, %epoch, %error, offset = %next, "cannot read the state yet");
                tokio::time::sleep(READ_RETRY).await;
            }
        }
    }
}

/// Takes the batches of `bytes` that end behind `next`; returns the offset behind them.
pub fn each(bytes: Bytes, mut next: Offset, take: &mut impl FnMut(&Batch, Offset)) -> Offset {
    for batch in batches(bytes) {
        let Ok(batch) = batch else {
            break;
        };
        let after = batch.header.next_offset();
        if after <= next {
            continue;
        }
        take(&batch, next);
        next = after;
    }
    next
}

/// Refusals that come before anything is appended.
pub fn surely_not_stored(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotEnoughReplicas
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage
            | ErrorCode::InvalidRecord
            | ErrorCode::InvalidTimestamp
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidTxnState
            | ErrorCode::ConcurrentTransactions
            | ErrorCode::OutOfOrderSequenceNumber
    )
}
