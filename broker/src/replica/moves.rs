//! Replicas on their way from one log directory of this broker to another, by AlterReplicaLogDirs (KIP-113,
//! <https://cwiki.apache.org/confluence/display/KAFKA/KIP-113%3A+Support+replicas+movement+between+log+directories>).
//!
//! Promises: the replica serves from where it lies until its copy is complete, and is out of reach only for the moment in which
//! the files' names change; what ends a move before that leaves it as it was. A newer wish takes the place of an older one, and
//! one for where the replica lies already ends the move. As many copies are made at a time as there are directories, together
//! within `replica.alter.log.dirs.io.max.bytes.per.second`, and none takes the room that a disk must keep.
//!
//! Here is what is wished for and what is under way; [`super::mover`] does it.

use super::manager::ReplicaManager;
use super::mover::Mover;
use super::partition::is_offline;
use super::types::PartitionKey;
use leasehold_metadata::features::Level;
use leasehold_types::seams::HashMap;
use leasehold_types::{DirectoryId, Offset};
use leasehold_wire::ErrorCode;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as Line, Semaphore, watch};
use tokio::task::JoinSet;

/// What the metadata must permit.
const MOVES: &str = "moves of replicas from one log directory to another";

/// A copy that is not complete yet.
#[derive(Clone, Debug)]
pub struct FutureLog {
    pub to: DirectoryId,
    pub bytes: u64,
    /// Where it ends, as of the last pass.
    pub log_end: Offset,
}

#[derive(Default)]
pub(super) struct Progress {
    pub bytes: AtomicU64,
    pub log_end: AtomicI64,
}

struct Underway {
    to: DirectoryId,
    progress: Arc<Progress>,
    /// Dropped, it ends the move.
    word: watch::Sender<Word>,
}

/// What a move hears from those who began it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    GoOn,
    /// Nobody wants it any more.
    Stop,
    /// This process ends; the copy stays, as the next one goes on.
    Leave,
}

/// All moves of a broker.
pub struct Moves {
    underway: Mutex<HashMap<PartitionKey, Underway>>,
    /// Of the moves of one replica the next begins when the one before has cleared away what it made.
    lines: Mutex<HashMap<PartitionKey, Arc<Line<()>>>>,
    tasks: Mutex<JoinSet<()>>,
    turns: Arc<Semaphore>,
    /// A move may be begun by a log thread.
    runtime: Handle,
}

impl Moves {
    /// `directories`: how many there are. Within a runtime, of which moves are tasks.
    pub fn new(directories: usize) -> Self {
        Self {
            underway: Mutex::default(),
            lines: Mutex::default(),
            tasks: Mutex::default(),
            turns: Arc::new(Semaphore::new(directories.max(1))),
            runtime: Handle::current(),
        }
    }

    /// This replica stays where it is.
    pub fn end(&self, key: PartitionKey) {
        self.underway.lock().remove(&key);
    }

    /// This process ends: all stay where they are, until the next one.
    pub fn leave_all(&self) {
        for (_, one) in self.underway.lock().drain() {
            one.word.send_replace(Word::Leave);
        }
        self.tasks.lock().abort_all();
    }

    fn line(&self, key: PartitionKey) -> Arc<Line<()>> {
        let mut lines = self.lines.lock();
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        lines.entry(key).or_default().clone()
    }

    /// The move with this progress is over.
    pub(super) fn forget(&self, key: PartitionKey, progress: &Arc<Progress>) {
        let mut underway = self.underway.lock();
        if underway
            .get(&key)
            .is_some_and(|one| Arc::ptr_eq(&one.progress, progress))
        {
            underway.remove(&key);
        }
    }

    /// The copy that is being made of this replica.
    pub fn of(&self, key: PartitionKey) -> Option<FutureLog> {
        let underway = self.underway.lock();
        let one = underway.get(&key)?;
        Some(FutureLog {
            to: one.to,
            bytes: one.progress.bytes.load(Ordering::Relaxed),
            log_end: Offset(one.progress.log_end.load(Ordering::Relaxed)),
        })
    }
}

impl ReplicaManager {
    /// This replica's log is open: if the last process was moving it, that goes on.
    pub(super) fn resume_move(self: &Arc<Self>, key: PartitionKey) {
        if let Some(to) = self.disks().dirs().was_moved_to(key) {
            let error = self.alter_log_dir(key, to);
            tracing::info!(topic_id = %key.0, partition = key.1, directory = %to, ?error,
                "the replica was on its way to another log directory when this broker ended");
        }
    }

    /// Has this broker's replica lie in `to`, one of its directories. It is answered once the move is begun, or need not be:
    /// where a replica lies is for DescribeLogDirs. A replica that is not here yet will be begun there
    /// (REPLICA_NOT_AVAILABLE); as long as a directory is offline nothing moves (KAFKA_STORAGE_ERROR), nor as long as a
    /// broker may be put back to a release that does not know what a move leaves on the disks (UNSUPPORTED_VERSION).
    pub fn alter_log_dir(self: &Arc<Self>, key: PartitionKey, to: DirectoryId) -> ErrorCode {
        let image = self.last_image();
        let permitted = image
            .as_ref()
            .map(|image| image.permits(Level::NAMED, MOVES));
        if let Some(Err(message)) = permitted {
            tracing::warn!(topic_id = %key.0, partition = key.1, "{message}");
            return ErrorCode::UnsupportedVersion;
        }
        let disks = self.disks().status();
        if disks.iter().any(|disk| disk.id == Some(to) && !disk.online) {
            return ErrorCode::KafkaStorageError;
        }
        let found = match self.find(key) {
            Ok(partition) => partition,
            Err(refused) if refused.error == ErrorCode::UnknownTopicOrPartition => {
                return refused.error;
            }
            Err(_) => {
                let is_known = |(topic, index): &PartitionKey| {
                    let known = image.as_ref().and_then(|i| i.partition(topic, *index));
                    known.is_some()
                };
                self.disks().dirs().prefer(key, to, is_known);
                return ErrorCode::ReplicaNotAvailable;
            }
        };
        if found.look(is_offline) {
            return ErrorCode::KafkaStorageError;
        }
        let (Some(place), Some(log)) = (found.place(), found.log()) else {
            return ErrorCode::ReplicaNotAvailable;
        };
        let mut underway = self.moves().underway.lock();
        if underway.get(&key).is_some_and(|one| one.to != to) {
            underway.remove(&key);
        }
        if place.dir.id() == to || underway.contains_key(&key) {
            return ErrorCode::None;
        }
        let target = self.disks().dirs().all().iter().find(|dir| dir.id() == to);
        let target = target.and_then(|dir| self.disks().place(dir.clone()));
        let all_online = disks.iter().all(|disk| disk.online);
        let Some(target) = target.filter(|_| all_online) else {
            return ErrorCode::KafkaStorageError;
        };
        if !target.space.has_room_for(log.size()) {
            tracing::warn!(topic = %found.topic(), partition = key.1, directory = %target.dir.path().display(),
                bytes = log.size(), "the replica does not move to this log directory: {}", target.space.refusal());
            return ErrorCode::KafkaStorageError;
        }
        let (word, told) = watch::channel(Word::GoOn);
        let progress = Arc::new(Progress::default());
        let start = log.log_start_offset().0;
        progress.log_end.store(start, Ordering::Relaxed);
        let one = Underway {
            to,
            progress: progress.clone(),
            word,
        };
        underway.insert(key, one);
        drop(underway);
        let mover = Mover {
            manager: Arc::downgrade(self),
            partition: found,
            to,
            space: target.space,
            progress,
            word: told,
            line: self.moves().line(key),
            turns: self.moves().turns.clone(),
        };
        let mut tasks = self.moves().tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(mover.run(), &self.moves().runtime);
        ErrorCode::None
    }
}
