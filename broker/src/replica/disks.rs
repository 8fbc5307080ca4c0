//! The log directories with the room on their disks, and the high watermarks that are written to them.

use super::partition::{Partition, Place};
use super::space::Space;
use super::types::PartitionKey;
use leasehold_log::{LogDir, LogDirs, LogError};
use leasehold_types::seams::HashMap;
use leasehold_types::{DirectoryId, Offset};
use parking_lot::Mutex;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

type Marks = Vec<(PartitionKey, Offset)>;

/// One configured directory, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskStatus {
    pub path: PathBuf,
    /// None of one that could not be opened.
    pub id: Option<DirectoryId>,
    pub online: bool,
    /// Why it is offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Partitions that lie in it.
    pub partitions: usize,
    /// As last seen; none where nobody watches it.
    pub free_bytes: Option<u64>,
    /// Whether records are refused for want of room.
    pub nearly_full: bool,
}

/// All log directories of this broker.
pub struct Disks {
    dirs: Arc<LogDirs>,
    /// In the order of the directories that could be opened.
    spaces: Vec<Arc<Space>>,
    /// The high watermarks as they are on the disks now; one writer at a time.
    written: Mutex<HashMap<DirectoryId, Marks>>,
}

impl Disks {
    /// Watches the free bytes of each, of which `min_free` are to stay so. Blocks.
    pub fn new(dirs: Arc<LogDirs>, min_free: u64) -> Self {
        let all = dirs.all().iter();
        Self {
            spaces: all
                .map(|dir| Arc::new(Space::of(dir.path(), min_free)))
                .collect(),
            dirs,
            written: Mutex::default(),
        }
    }

    /// The directories themselves.
    pub fn dirs(&self) -> &Arc<LogDirs> {
        &self.dirs
    }

    /// The room on each disk.
    pub fn spaces(&self) -> &[Arc<Space>] {
        &self.spaces
    }

    fn all(&self) -> impl Iterator<Item = (&Arc<LogDir>, &Arc<Space>)> {
        self.dirs.all().iter().zip(&self.spaces)
    }

    /// A directory of this broker as a partition's place.
    pub fn place(&self, dir: Arc<LogDir>) -> Option<Place> {
        let space = self.all().find(|(one, _)| one.id() == dir.id())?.1.clone();
        Some(Place { dir, space })
    }

    /// Asks each disk that is online how much is free. Blocks.
    pub fn look(&self) {
        for (dir, space) in self.all() {
            if dir.failure().is_none() {
                space.look();
            }
        }
    }

    /// Writes the high watermarks of each directory's partitions to it, if they changed. One that is offline
    /// is left alone. The first error, after all were tried. Blocks.
    pub fn checkpoint(&self, partitions: &[Arc<Partition>]) -> Result<(), LogError> {
        let mut written = self.written.lock();
        let mut marks: HashMap<DirectoryId, Marks> = HashMap::default();
        for partition in partitions {
            if let Some(place) = partition.place() {
                let mark = partition.look(|state| state.high_watermark());
                let here = marks.entry(place.dir.id()).or_default();
                here.push((partition.key(), mark));
            }
        }
        let mut result = Ok(());
        for dir in self.dirs.all().iter().filter(|dir| dir.failure().is_none()) {
            let mut here = marks.remove(&dir.id()).unwrap_or_default();
            here.sort_unstable();
            let before = written.entry(dir.id()).or_default();
            if here == *before {
                continue;
            }
            match dir.checkpoint_high_watermarks(here.iter().copied()) {
                Ok(()) => *before = here,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// How each is.
    pub fn status(&self) -> Vec<DiskStatus> {
        let mut spaces = self.spaces.iter();
        let states = self.dirs.states().into_iter();
        states
            .map(|state| {
                let space = state.id.and_then(|_| spaces.next());
                let free = space.map(|space| space.free());
                DiskStatus {
                    path: state.path,
                    id: state.id,
                    online: state.failure.is_none(),
                    reason: state.failure.map(|reason| reason.to_string()),
                    partitions: state.partitions,
                    free_bytes: free.filter(|free| *free != u64::MAX),
                    nearly_full: space.is_some_and(|space| space.is_low()),
                }
            })
            .collect()
    }
}
