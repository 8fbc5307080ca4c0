//! The cleaner: compacts the logs of the topics that want it, leaders and followers alike, each for
//! itself.
//!
//! Promises: as many logs at a time as `log.cleaner.threads` says, the dirtiest first, on threads that may
//! block, and never one log twice at a time; nothing at or above the high watermark is touched. It sleeps until a compacted log begins a segment, is opened, or has its
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
use std::future::{Future, pending};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep};

/// After a failure: long enough that a damaged segment or a full disk costs little, short enough that
/// a disk with room again is made use of.
const AFTER_FAILURE: Duration = Duration::from_secs(300);

/// Logs whose compaction failed, and until when they are left in peace.
type Failed = HashMap<PartitionKey, Instant>;

/// How a compaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The log is compacted, or changed meanwhile: whether it is due is asked anew.
    Fine,
    Failed,
}

/// The compactions that run.
#[derive(Default)]
pub(super) struct Crew {
    jobs: JoinSet<End>,
    /// Beside the jobs, so that a job that panics gives its log back too.
    logs: HashMap<task::Id, PartitionKey>,
}

impl Crew {
    pub(super) fn has_room(&self, threads: usize) -> bool {
        self.jobs.len() < threads.max(1)
    }

    pub(super) fn is_at(&self, log: PartitionKey) -> bool {
        self.logs.values().any(|busy| *busy == log)
    }

    pub(super) fn begin(
        &mut self,
        log: PartitionKey,
        job: impl Future<Output = End> + Send + 'static,
    ) {
        self.logs.insert(self.jobs.spawn(job).id(), log);
    }

    /// Which log's compaction ended, and how. Waits for ever where none runs.
    pub(super) async fn ended(&mut self) -> (PartitionKey, End) {
        while let Some(ended) = self.jobs.join_next_with_id().await {
            let (id, end) = ended.unwrap_or_else(|error| (error.id(), End::Failed));
            if let Some(log) = self.logs.remove(&id) {
                return (log, end);
            }
        }
        pending().await
    }
}

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
    let mut crew = Crew::default();
    loop {
        let Some(manager) = manager.upgrade() else {
            return;
        };
        let (backoff, threads) = (manager.cleaner_backoff(), manager.cleaner_threads());
        let next = match crew.has_room(threads) {
            true => look(&manager, &mut failed, &crew).await,
            false => Some(Next::Sleep),
        };
        let pause = match next {
            Some(Next::Clean(partition)) => {
                // What they keep in memory is for all of them together.
                let keys = manager.settings().cleaner_keys / threads.max(1);
                crew.begin(partition.key(), clean(manager, partition, keys));
                continue;
            }
            Some(Next::Later) => Some(backoff),
            Some(Next::Sleep) => None,
            // The runtime ends.
            None => return,
        };
        drop(manager);
        // Whichever comes first: a log that is done, a new segment, or the end of the pause.
        tokio::select! {
            (log, end) = crew.ended() => if end == End::Failed {
                failed.insert(log, Instant::now() + AFTER_FAILURE);
            },
            () = due.notified() => {}
            () = async { sleep(pause.unwrap_or_default()).await }, if pause.is_some() => {}
        }
    }
}

/// Judging reads index files, so it is done off the async workers.
async fn look(manager: &ReplicaManager, failed: &mut Failed, crew: &Crew) -> Option<Next> {
    failed.retain(|_, until| *until > Instant::now());
    let mut partitions = manager.all();
    partitions.retain(|partition| partition.log().is_some_and(|log| log.config().compact));
    partitions.retain(|partition| !crew.is_at(partition.key()));
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

async fn clean(manager: Arc<ReplicaManager>, partition: Arc<Partition>, keys: usize) -> End {
    let counters = manager.counters();
    let Some(log) = partition.log() else {
        return End::Fine;
    };
    let job = {
        let (partition, log) = (partition.clone(), log.clone());
        move || -> Result<Option<Cleaned>, LogError> {
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
            return End::Fine;
        }
        // The log changed under it.
        Ok(Ok(None)) => return End::Fine,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    // A log that was closed, deleted or moved meanwhile is no failure; one that an I/O error took offline is.
    match partition.log().and_then(|log| log.offline()) {
        Some(storage) if manager.find(partition.key()).is_err() => {
            tracing::debug!(%topic, partition = index, %storage, "the log went while it was compacted");
        }
        _ if partition.log().is_none_or(|now| !Arc::ptr_eq(&now, &log)) => {
            tracing::debug!(%topic, partition = index, error, "the log moved while it was compacted");
            return End::Fine;
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
    End::Failed
}
