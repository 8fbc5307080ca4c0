//! DeleteRecords: takes what lies below an offset away, here and on every live replica.
//!
//! Promises: only committed records go; the leader's log begins at the offset, durably, before anyone is
//! told; the answer waits until every live replica's log begins there too, so that no change of leader
//! brings the records back to those who were told that they are gone. Followers learn the leader's start
//! from its answers to their fetches, and tell their own with the next one.

use super::manager::ReplicaManager;
use super::partition::{Partition, is_offline};
use super::types::*;
use super::wait::Waiter;
use leasehold_log::LogError;
use leasehold_types::Offset;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// Stands for the high watermark.
const HIGH_WATERMARK: Offset = Offset(-1);

impl DeletedRecords {
    fn failed(error: ErrorCode) -> Self {
        Self {
            error,
            low_watermark: Offset(-1),
        }
    }
}

/// One partition's part of a request.
enum Part {
    /// Gone here; the others are still to follow.
    Follows(Arc<Partition>, Offset),
    Done(DeletedRecords),
}

/// A deletion from this broker's log that is queued, and from where on that log will begin.
type Begun = (Arc<Partition>, oneshot::Receiver<Result<Offset, ErrorCode>>);

impl ReplicaManager {
    /// Deletes the records below an offset in each of these partitions; −1 is the high watermark. Waits
    /// for live replicas, for `timeout` at most. Results in the order of `wanted`.
    pub async fn delete_records(
        &self,
        wanted: Vec<(PartitionKey, Offset)>,
        timeout: Duration,
    ) -> Vec<DeletedRecords> {
        let deadline = tokio::time::Instant::now() + timeout;
        let begun: Vec<_> = wanted
            .into_iter()
            .map(|(key, before)| self.begin_deletion(key, before))
            .collect();
        let mut parts = Vec::with_capacity(begun.len());
        for begun in begun {
            parts.push(match begun {
                Err(error) => Part::Done(DeletedRecords::failed(error)),
                Ok((partition, raised)) => match raised.await {
                    Ok(Ok(start)) => Part::Follows(partition, start),
                    Ok(Err(error)) => Part::Done(DeletedRecords::failed(error)),
                    // Its job was dropped: the broker shuts down, or the job panicked.
                    Err(_) => Part::Done(DeletedRecords::failed(ErrorCode::NotLeaderOrFollower)),
                },
            });
        }
        let waiter = Waiter::new(parts.len());
        let mut last_look = false;
        loop {
            let mut waiting = false;
            for (index, part) in parts.iter_mut().enumerate() {
                let Part::Follows(partition, start) = part else {
                    continue;
                };
                // Arm first, look second: a change in between leaves a wake-up behind.
                let changed = partition.starts.arm(&waiter, index);
                let settled = (changed || last_look)
                    .then(|| self.settled(partition, *start, last_look))
                    .flatten();
                match settled {
                    Some(done) => *part = Part::Done(done),
                    None => waiting = true,
                }
            }
            if !waiting {
                break;
            }
            last_look = timeout_at(deadline, waiter.woken()).await.is_err();
        }
        let done = parts.into_iter().map(|part| match part {
            Part::Done(done) => done,
            // The last look settles every part.
            Part::Follows(..) => DeletedRecords::failed(ErrorCode::UnknownServerError),
        });
        done.collect()
    }

    /// Queues the deletion from this broker's log.
    fn begin_deletion(&self, key: PartitionKey, before: Offset) -> Result<Begun, ErrorCode> {
        let partition = self.find(key).map_err(|refused| refused.error)?;
        let (reply, raised) = oneshot::channel();
        let proof = self.proof();
        partition.submit(move |partition| {
            let proven = || proof.holds(partition);
            // Nobody may wait any more: then the log begins there all the same.
            let _ = reply.send(raise(partition, before, proven));
        });
        Ok((partition, raised))
    }

    /// What to answer, once every live replica begins at `start` or later, or the time is up.
    fn settled(
        &self,
        partition: &Partition,
        start: Offset,
        last_look: bool,
    ) -> Option<DeletedRecords> {
        let low_watermark = match self.low_watermark(partition) {
            Ok(low) => low,
            Err(error) => return Some(DeletedRecords::failed(error)),
        };
        let all = low_watermark >= start || taken_out("a-deletion-waits-for-the-replicas");
        let error = match all {
            true => ErrorCode::None,
            false if last_look => ErrorCode::RequestTimedOut,
            false => return None,
        };
        Some(DeletedRecords {
            error,
            low_watermark,
        })
    }

    /// Where the last of the live replicas begins; −1 as long as one has not told.
    fn low_watermark(&self, partition: &Partition) -> Result<Offset, ErrorCode> {
        let log = partition.log().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let own = log.log_start_offset();
        match partition.look_leader(|leader| leader.low_watermark(own)) {
            Some(low) => Ok(low.unwrap_or(Offset(-1))),
            None => Err(match self.find(partition.key()) {
                Err(refused) => refused.error,
                Ok(_) => not_led(partition),
            }),
        }
    }
}

fn not_led(partition: &Partition) -> ErrorCode {
    match partition.look(is_offline) {
        true => ErrorCode::KafkaStorageError,
        false => ErrorCode::NotLeaderOrFollower,
    }
}

/// Makes the leader's log begin at `before`, and returns that offset.
fn raise(
    partition: &Partition,
    before: Offset,
    proven: impl FnOnce() -> bool,
) -> Result<Offset, ErrorCode> {
    let leads = partition.look_leader(|leader| leader.high_watermark());
    let (Some(high_watermark), Some(log)) = (leads, partition.log()) else {
        return Err(not_led(partition));
    };
    if !proven() {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let config = log.config();
    if config.compact && !config.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let before = match before {
        HIGH_WATERMARK => high_watermark,
        offset => offset,
    };
    let beyond = before > high_watermark && !taken_out("only-what-is-committed-is-deleted");
    if before < Offset(0) || beyond {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let log_start = log.delete_records_before(before).map_err(|error| {
        if let LogError::Storage(storage) = &error {
            partition.fail(storage.to_string());
        }
        ErrorCode::from_code(error.kafka_code())
    })?;
    tracing::info!(topic = %partition.topic(), partition = partition.key().1, before = before.0,
        log_start = log_start.0, "deleted records for a client");
    // Followers that wait for records hear of the new start now.
    partition.grown.wake();
    Ok(before)
}
