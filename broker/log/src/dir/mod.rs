//! One log directory of one broker: whose it is, who holds it, and the logs in it. `set.rs` has them all.
//!
//! Files: `.lock` (flock), `meta` (the owner, and the directory's id), `run` (see `run.rs`),
//! `high-watermarks`, and a folder `<topic id>-<partition>` per partition that was ever appended to; for a while also
//! those of `moving.rs`.
//!
//! Promise: the first I/O error in it, of whatever log, takes the whole directory offline: nothing in it is
//! read, written or closed in order after that.

mod copy;
mod lock;
pub(crate) mod marks;
pub(crate) mod meta;
pub(crate) mod moving;
#[cfg(test)]
mod moving_tests;
pub(crate) mod run;
mod set;
#[cfg(test)]
mod set_tests;

#[cfg(test)]
mod tests;

pub use moving::{Move, Turn};
pub use run::{Confirmed, RestartReport};
pub use set::{DirectoryStart, DirectoryState, LogDirs};

use crate::{LogConfig, LogError, PartitionLog, StorageError, disk};
use leasehold_types::seams::{self, HashMap};
use leasehold_types::{BrokerId, ClusterId, DirectoryId, Incarnation, Offset, TopicId};
use parking_lot::Mutex;
use run::RunFile;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};

pub(crate) const REMOVED: &str = ".removed";
/// fsyncs of many logs at a close go together into the file system's journal.
const CLOSERS: usize = 8;

type PartitionId = (TopicId, i32);
type Slot = Arc<Mutex<Option<Arc<PartitionLog>>>>;

/// What the directory shares with its logs. It lives, and holds the lock, as long as any of them.
pub(crate) struct Shared {
    confirmed: AtomicBool,
    flusher: Sender<Weak<PartitionLog>>,
    on_roll: OnceLock<Box<dyn Fn() + Send + Sync>>,
    numbers: AtomicU64,
    /// Why nothing in it is read or written any more.
    failure: OnceLock<Arc<str>>,
    on_failure: OnceLock<Box<dyn Fn() + Send + Sync>>,
    path: PathBuf,
    _lock: File,
}

impl Shared {
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    /// For the name of a file or folder that is on its way out: no two get the same.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Why the directory is offline, if it is.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        self.failure.get()
    }

    /// `e` was met: if the disk did not do what it was told, the directory goes offline with all its logs.
    pub(crate) fn judge(&self, e: &LogError) {
        if e.is_of_the_disk() && self.failure.set(e.to_string().into()).is_ok() {
            tracing::error!(directory = %self.path.display(), "{e}: the log directory goes offline");
            if let Some(tell) = self.on_failure.get() {
                tell();
            }
        }
    }

    /// A compacted log has one more segment that the cleaner may take.
    pub(crate) fn rolled(&self) {
        if let Some(tell) = self.on_roll.get() {
            tell();
        }
    }

    /// Has the sealed segments of a log fsynced by the flusher's thread.
    pub(crate) fn flush_later(&self, log: Weak<PartitionLog>) {
        #[cfg(test)]
        if crate::faults::flushes_are_steps() {
            return;
        }
        #[cfg(feature = "simulation")]
        if let Some(world) = seams::simulated::world() {
            return (world.background)(Box::new(move || flush_one(&log)));
        }
        // The receiver ends only with this sender.
        let _ = self.flusher.send(log);
    }
}

/// An open log directory, locked against other processes until it and its logs are dropped.
pub struct LogDir {
    path: PathBuf,
    id: DirectoryId,
    clean: bool,
    shared: Arc<Shared>,
    run: Mutex<RunFile>,
    slots: Mutex<HashMap<PartitionId, Slot>>,
}

impl LogDir {
    /// Opens (or creates) the directory. Blocks while another process holds it, and says so in a
    /// log line. A directory of another cluster or broker is refused.
    pub fn open(
        path: impl Into<PathBuf>,
        cluster: &ClusterId,
        broker: BrokerId,
    ) -> Result<Arc<Self>, LogError> {
        let path = path.into();
        disk::create_folder(&path)?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            disk::sync_folder(parent)?;
        }
        let lock = lock::wait_for(&path)?;
        let names = disk::names(&path)?;
        let holds_logs = names.iter().any(|name| parse_folder(name).is_some());
        let id = meta::check(&path, cluster, broker, holds_logs)?;
        for name in names.iter().filter(|name| name.ends_with(REMOVED)) {
            disk::remove_folder(&path.join(name))?;
        }
        let run = RunFile::load(&path)?;
        let (flusher, jobs) = channel();
        std::thread::Builder::new()
            .name("log-flush".into())
            .spawn(move || flush_loop(&jobs))
            .map_err(|e| LogError::io("start the flusher of", &path, e))?;
        Ok(Arc::new(Self {
            id,
            clean: run.is_clean(),
            shared: Arc::new(Shared {
                confirmed: AtomicBool::new(false),
                flusher,
                on_roll: OnceLock::new(),
                numbers: AtomicU64::new(0),
                failure: OnceLock::new(),
                on_failure: OnceLock::new(),
                path: path.clone(),
                _lock: lock,
            }),
            run: Mutex::new(run),
            slots: Mutex::default(),
            path,
        }))
    }

    /// Has `tell` called, on whatever thread, when a compacted log begins a new segment: then the one
    /// before may be cleaned. It must return at once. Only the first that is given counts.
    pub fn on_roll(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.on_roll.set(Box::new(tell));
    }

    /// Has `tell` called, on whatever thread, when the directory goes offline. It must return at once. Only
    /// the first that is given counts.
    pub fn on_failure(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.on_failure.set(Box::new(tell));
    }

    /// Why the directory is offline, with all that is in it: the first I/O error that was met.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.failure().cloned()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which it is, wherever it is mounted.
    pub fn id(&self) -> DirectoryId {
        self.id
    }

    /// Passes a result on; an error of the disk takes the directory offline.
    fn judged<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.inspect_err(|e| self.shared.judge(e))
    }

    /// Whether the last process closed it in order; then its logs open without recovery.
    pub fn was_clean(&self) -> bool {
        self.clean
    }

    /// Before registering: adds `incarnation` to the attempted ones and removes the clean marker,
    /// durably. Repeats give the same report.
    pub fn begin(&self, incarnation: Incarnation) -> Result<RestartReport, LogError> {
        let begun = self.run.lock().begin(incarnation);
        self.judged(begun)
    }

    /// Once the registration is committed: makes `incarnation` the confirmed one, durably. Only
    /// from now on do this directory's logs take writes.
    pub fn confirm(&self, incarnation: Incarnation) -> Result<(), LogError> {
        let confirmed = self.run.lock().confirm(incarnation);
        self.judged(confirmed)?;
        self.shared.confirmed.store(true, Ordering::Release);
        Ok(())
    }

    /// Opens a partition's log, recovering it if need be; the same log again if it is open. A
    /// partition without a folder opens empty, and has none until its first append.
    pub fn open_partition(
        &self,
        topic: TopicId,
        partition: i32,
        config: LogConfig,
    ) -> Result<Arc<PartitionLog>, LogError> {
        let id = (topic, partition);
        if let Some(reason) = self.failure() {
            return Err(StorageError {
                partition: name_of(id).into(),
                reason,
            }
            .into());
        }
        let slot = self.slots.lock().entry(id).or_default().clone();
        // Held over the recovery of this one log only.
        let mut slot = slot.lock();
        if let Some(log) = &*slot {
            return Ok(log.clone());
        }
        let opened =
            PartitionLog::open(id, self.folder(id), config, self.shared.clone(), self.clean);
        let log = self.judged(opened)?;
        *slot = Some(log.clone());
        Ok(log)
    }

    /// Opens a log whose files are as a clean close leaves them, though the directory was not closed so.
    fn open_moved(
        &self,
        id: PartitionId,
        config: LogConfig,
    ) -> Result<Arc<PartitionLog>, LogError> {
        let slot = self.slots.lock().entry(id).or_default().clone();
        let mut slot = slot.lock();
        let opened = PartitionLog::open(id, self.folder(id), config, self.shared.clone(), true);
        let log = self.judged(opened)?;
        *slot = Some(log.clone());
        Ok(log)
    }

    /// The partitions that have a folder here, open or not.
    pub fn partitions(&self) -> Result<Vec<(TopicId, i32)>, LogError> {
        let names = disk::names(&self.path)?;
        Ok(names.iter().filter_map(|name| parse_folder(name)).collect())
    }

    /// Deletes a partition's log, open or not. Whoever still holds it finds it offline.
    pub fn delete_partition(&self, topic: TopicId, partition: i32) -> Result<(), LogError> {
        let id = (topic, partition);
        let slot = self.slots.lock().entry(id).or_default().clone();
        let mut slot = slot.lock();
        if let Some(log) = slot.take() {
            log.shut("it was deleted");
        }
        let folder = self.folder(id);
        // By renaming first: a half-deleted folder must not be taken for a log.
        let number = self.shared.number();
        let removed = self.path.join(format!("{}.{number}{REMOVED}", name_of(id)));
        self.judged((|| {
            if !disk::exists(&folder)? {
                return Ok(());
            }
            disk::rename(&folder, &removed)?;
            disk::sync_folder(&self.path)?;
            disk::remove_folder(&removed)
        })())
    }

    /// Writes the high watermarks of all partitions, durably, in place of those before.
    pub fn checkpoint_high_watermarks(
        &self,
        marks: impl IntoIterator<Item = ((TopicId, i32), Offset)>,
    ) -> Result<(), LogError> {
        self.judged(marks::save(&self.path, marks))
    }

    /// The high watermarks as last written; empty if there are none or they cannot be read.
    pub fn high_watermark_checkpoints(&self) -> HashMap<(TopicId, i32), Offset> {
        marks::load(&self.path)
    }

    /// Closes every log in order and leaves the clean marker. If a log is offline, or cannot be
    /// closed, no marker is left and the error says why.
    pub fn close_clean(&self) -> Result<(), LogError> {
        if let Some(reason) = self.failure() {
            return Err(LogError::Offline {
                path: self.path.clone(),
                reason,
            });
        }
        // Nothing is written beside the marker, not even to a log that is opened meanwhile.
        self.shared.confirmed.store(false, Ordering::Release);
        let slots: Vec<Slot> = self.slots.lock().values().cloned().collect();
        let logs: Vec<_> = slots.iter().filter_map(|s| s.lock().clone()).collect();
        let next = AtomicU64::new(0);
        let failure = Mutex::new(None);
        let close = || {
            while let Some(log) = logs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                if let Err(e) = log.close() {
                    failure.lock().get_or_insert(e);
                }
            }
        };
        if seams::one_thread() {
            close();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..CLOSERS.min(logs.len()) {
                    scope.spawn(close);
                }
            });
        }
        match failure.into_inner() {
            Some(e) => Err(e),
            None => self.run.lock().mark_clean(),
        }
    }

    fn folder(&self, id: PartitionId) -> PathBuf {
        self.path.join(name_of(id))
    }
}

fn name_of((topic, partition): PartitionId) -> String {
    format!("{topic}-{partition}")
}

/// The partition of a folder's name, `<topic id>-<partition>`; a topic id may itself hold a `-`.
pub(crate) fn parse_folder(name: &str) -> Option<PartitionId> {
    let (topic, partition) = name.rsplit_once('-')?;
    let id = (TopicId::parse(topic)?, partition.parse().ok()?);
    (name_of(id) == name && id.1 >= 0).then_some(id)
}

/// The thread that fsyncs sealed segments; ends with the directory and its logs.
fn flush_loop(jobs: &Receiver<Weak<PartitionLog>>) {
    while let Ok(log) = jobs.recv() {
        flush_one(&log);
    }
}

fn flush_one(log: &Weak<PartitionLog>) {
    if let Some(log) = log.upgrade() {
        log.flush_sealed();
    }
}
