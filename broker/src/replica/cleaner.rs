//! The cleaner: compacts the logs of the topics that want it, leaders and followers alike, each for
//! itself.
//!
//! Promises: one log at a time, the dirtiest first, on a thread that may block; nothing at or above the
//! high watermark is touched. It sleeps until a compacted log begins a segment, is opened, or has its
//! settings changed; only while some log waits for time to pass, or for its newest segment to be
//! committed, does it look again after a while. A log whose compaction failed is left in peace for a
//! time, and stays as it was.

use super::io::blocking;
use super::manager::ReplicaManager;
use super::partition::Partition;
use super::produce::now_ms;
use super::types::PartitionKey;
use leasehold_log::{Cleanable, Cleaned, LogError};
use leasehold_types::seams::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// After a failure: long enough that a damaged segment or a full disk costs little, short enough that
/// a disk with room again is made use of.
const AFTER_FAILURE: Duration = Duration::from_secs(300);

/// Logs whose compaction failed, and until when they are left in peace.
type Failed = HashMap<PartitionKey, Instant>;

/// What to do next.
enum Next {
    /// This log is due, and the dirtiest.
    Clean(Arc<Partition>),
    /// None is due; some will be.
    Later,
    /// Nothing, until something happens.
    Sleep,
}

/// Runs as long as the manager.
pub async fn run(manager: Weak<ReplicaManager>, due: Arc<Notify>) {
    let mut failed = Failed::default();
    loop {
        let Some(manager) = manager.upgrade() else {
            return;
        };
        let backoff = manager.cleaner_backoff();
        match look(&manager, &mut failed).await {
            Some(Next::Clean(partition)) => clean(&manager, &partition, &mut failed).await,
            Some(next) => {
                drop(manager);
                match next {
                    // Whichever comes first: the end of the pause or a new segment.
                    Next::Later => drop(tokio::time::timeout(backoff, due.notified()).await),
                    _ => due.notified().await,
                }
            }
            // The runtime ends.
            None => return,
        }
    }
}

/// Judging reads index files, so it is done off the async workers.
async fn look(manager: &ReplicaManager, failed: &mut Failed) -> Option<Next> {
    failed.retain(|_, until| *until > Instant::now());
    let mut partitions = manager.all();
    partitions.retain(|partition| partition.log().is_some_and(|log| log.config().compact));
    // A log that is rewritten takes room before it gives any.
    let waits = |partition: &Arc<Partition>| {
        let low = partition.place().is_some_and(|place| place.space.is_low());
        low || failed.contains_key(&partition.key())
    };
    let waiting = partitions.iter().any(waits);
    partitions.retain(|partition| !waits(partition));
    let chosen = blocking(move || choose(partitions)).await;
    match chosen.ok()? {
        Next::Sleep if waiting => Some(Next::Later),
        next => Some(next),
    }
}

fn choose(partitions: Vec<Arc<Partition>>) -> Next {
    let mut dirtiest: Option<(f64, Arc<Partition>)> = None;
    let mut later = false;
    for partition in partitions {
        let Some(log) = partition.log() else { continue };
        let high_watermark = partition.look(|state| state.high_watermark());
        let ratio = match log.cleanable(now_ms(), high_watermark) {
            Ok(Cleanable::Now { dirty_ratio }) => dirty_ratio,
            Ok(Cleanable::Later) => {
                later = true;
                continue;
            }
            Ok(Cleanable::No) => continue,
            // Cleaning it says the same, and is where failures are counted.
            Err(_) if log.offline().is_none() => 0.0,
            Err(_) => continue,
        };
        if dirtiest.as_ref().is_none_or(|(most, _)| ratio > *most) {
            dirtiest = Some((ratio, partition));
        }
    }
    match dirtiest {
        Some((_, partition)) => Next::Clean(partition),
        None if later => Next::Later,
        None => Next::Sleep,
    }
}

async fn clean(manager: &ReplicaManager, partition: &Arc<Partition>, failed: &mut Failed) {
    let keys = manager.settings().cleaner_keys;
    let counters = manager.counters();
    let job = {
        let partition = partition.clone();
        move || -> Result<Option<Cleaned>, LogError> {
            let Some(log) = partition.log() else {
                return Ok(None);
            };
            let high_watermark = partition.look(|state| state.high_watermark());
            log.clean(now_ms(), high_watermark, keys)
        }
    };
    let (topic, index) = (partition.topic(), partition.key().1);
    let error = match blocking(job).await {
        Ok(Ok(Some(done))) => {
            counters.cleaner_runs.add(1);
            counters.cleaner_bytes_before.add(done.bytes_before);
            counters.cleaner_bytes_after.add(done.bytes_after);
            tracing::info!(%topic, partition = index, bytes_before = done.bytes_before,
                bytes_after = done.bytes_after, clean_to = done.clean_to.0, "compacted the log");
            return;
        }
        // The log changed under it: whether it is due is asked anew.
        Ok(Ok(None)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    failed.insert(partition.key(), Instant::now() + AFTER_FAILURE);
    // A log that was closed or deleted meanwhile is no failure; one that an I/O error took offline is.
    match partition.log().and_then(|log| log.offline()) {
        Some(storage) if manager.find(partition.key()).is_err() => {
            tracing::debug!(%topic, partition = index, %storage, "the log went while it was compacted");
        }
        Some(storage) => {
            counters.cleaner_failures.add(1);
            if !partition.notice_failure() {
                partition.fail(storage.to_string());
            }
        }
        None => {
            counters.cleaner_failures.add(1);
            tracing::warn!(%topic, partition = index, error, "the log cannot be compacted; it stays as it is");
        }
    }
}
