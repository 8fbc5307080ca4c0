//! The log directories of one broker: which there are, where each partition lies, and what is left when one
//! fails.
//!
//! Promises: a partition has one place. It is where its folder was found, or the online directory with the
//! fewest partitions; one that lies in a directory that is offline is not begun anew in another, and one that
//! was found in two is refused. No directory is opened twice, nor beside a copy of itself.

use super::moving::{self, Move, Turn};
use super::{LogDir, PartitionId, RestartReport};
use crate::{LogConfig, LogError, PartitionLog, StorageError, disk};
use leasehold_types::seams::HashMap;
use leasehold_types::{BrokerId, ClusterId, DirectoryId, Incarnation, Offset, TopicId};
use parking_lot::Mutex;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What one directory brings to a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryStart {
    /// Which it is.
    pub id: DirectoryId,
    /// What its `run` file says.
    pub restart: RestartReport,
    /// The partitions that have a log in it.
    pub partitions: Vec<(TopicId, i32)>,
}

/// How one configured directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryState {
    /// Where it is.
    pub path: PathBuf,
    /// Which it is, if it could be opened.
    pub id: Option<DirectoryId>,
    /// Why it is offline, if it is.
    pub failure: Option<Arc<str>>,
    /// How many partitions lie in it, as far as is known.
    pub partitions: usize,
}

/// Where the partitions lie.
struct Places {
    /// A directory's place in the list. More than one is an error.
    of: HashMap<PartitionId, Vec<usize>>,
    /// How many lie in each directory: asked for at every new one, of which there may be thousands at once.
    counts: Vec<usize>,
    /// Where those are to lie that lie nowhere yet.
    preferred: HashMap<PartitionId, DirectoryId>,
    /// Where those were on their way to that the last process did not bring there.
    cut_short: HashMap<PartitionId, DirectoryId>,
}

impl Places {
    fn add(&mut self, id: PartitionId, n: usize) {
        self.of.entry(id).or_default().push(n);
        self.counts[n] += 1;
    }

    fn remove(&mut self, id: PartitionId, n: usize) {
        let Some(left) = self.of.get_mut(&id) else {
            return;
        };
        let before = left.len();
        left.retain(|other| *other != n);
        self.counts[n] -= before - left.len();
        if left.is_empty() {
            self.of.remove(&id);
        }
    }
}

/// Those that could be opened, locked, and those that could not.
pub struct LogDirs {
    dirs: Vec<Arc<LogDir>>,
    unreadable: Vec<(PathBuf, Arc<str>)>,
    /// Held for its lock, if the broker's own files lie in none of the others.
    _home: Option<Arc<LogDir>>,
    places: Mutex<Places>,
}

impl LogDirs {
    /// Opens (or creates) all of `paths`, and `home`, where the broker keeps what is not a log; it may be one
    /// of them. Blocks while another process holds one. A directory that cannot be read or written is left out,
    /// unless it is `home` or the last; one of another cluster or broker is refused.
    pub fn open(
        home: &Path,
        paths: &[PathBuf],
        cluster: &ClusterId,
        broker: BrokerId,
    ) -> Result<Arc<Self>, LogError> {
        let home_folder = folder(home)?;
        let home = LogDir::open(home, cluster, broker)?;
        let mut home_is_one = false;
        let mut seen: Vec<((u64, u64), PathBuf)> = Vec::new();
        let (mut dirs, mut unreadable) = (Vec::<Arc<LogDir>>::new(), Vec::new());
        for path in paths {
            let opened = folder(path).and_then(|folder| {
                if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == folder) {
                    return Err(twice("one log directory".into(), first, path));
                }
                seen.push((folder, path.clone()));
                let is_home = folder == home_folder;
                let dir = match is_home {
                    true => home.clone(),
                    false => LogDir::open(path, cluster, broker)?,
                };
                home_is_one |= is_home;
                // Whether it can be listed.
                dir.partitions().map(|_| dir)
            });
            match opened {
                Ok(dir) => {
                    if let Some(first) = dirs.iter().find(|d| d.id == dir.id) {
                        let what = format!("directory id {}", dir.id);
                        return Err(twice(what, first.path(), path));
                    }
                    dirs.push(dir);
                }
                Err(e) if e.is_of_the_disk() => {
                    tracing::error!(directory = %path.display(), "{e}: the log directory is offline");
                    unreadable.push((path.clone(), e));
                }
                Err(e) => return Err(e),
            }
        }
        // What a move that was cut short did decides where a partition lies.
        let mut cut_short = HashMap::default();
        loop {
            match moving::settle(&dirs, unreadable.is_empty()) {
                Ok(undone) => {
                    cut_short.extend(undone);
                    break;
                }
                Err((n, e)) if e.is_of_the_disk() => {
                    tracing::error!(directory = %dirs[n].path().display(), "{e}: the log directory is offline");
                    unreadable.push((dirs.remove(n).path().to_owned(), e));
                }
                Err((_, e)) => return Err(e),
            }
        }
        if dirs.is_empty()
            && let Some((_, e)) = unreadable.pop()
        {
            return Err(e);
        }
        let mut found = Places {
            of: HashMap::default(),
            counts: vec![0; dirs.len()],
            preferred: HashMap::default(),
            cut_short,
        };
        for (n, dir) in dirs.iter().enumerate() {
            for partition in dir.partitions()? {
                found.add(partition, n);
            }
        }
        let said = |(path, e): (PathBuf, LogError)| (path, e.to_string().into());
        Ok(Arc::new(Self {
            dirs,
            unreadable: unreadable.into_iter().map(said).collect(),
            _home: (!home_is_one).then_some(home),
            places: Mutex::new(found),
        }))
    }

    /// Those that could be opened, in the order of the configuration; some may be offline by now.
    pub fn all(&self) -> &[Arc<LogDir>] {
        &self.dirs
    }

    fn online(&self) -> impl Iterator<Item = (usize, &Arc<LogDir>)> {
        let all = self.dirs.iter().enumerate();
        all.filter(|(_, dir)| dir.failure().is_none())
    }

    /// How every configured directory is.
    pub fn states(&self) -> Vec<DirectoryState> {
        let counts = self.places.lock().counts.clone();
        let opened = self
            .dirs
            .iter()
            .zip(counts)
            .map(|(dir, partitions)| DirectoryState {
                path: dir.path().to_owned(),
                id: Some(dir.id()),
                failure: dir.failure(),
                partitions,
            });
        let unreadable = self.unreadable.iter().map(|(path, why)| DirectoryState {
            path: path.clone(),
            id: None,
            failure: Some(why.clone()),
            partitions: 0,
        });
        opened.chain(unreadable).collect()
    }

    /// Once none is left: why the last one went.
    pub fn none_left(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for dir in &self.dirs {
            reasons.push(format!("{}: {}", dir.path().display(), dir.failure()?));
        }
        Some(format!("no log directory is left ({})", reasons.join("; ")))
    }

    /// Before registering: [`LogDir::begin`] for each, and how many could not be read. An error if none is left.
    pub fn begin(&self, incarnation: Incarnation) -> Result<(Vec<DirectoryStart>, u32), LogError> {
        let mut starts = Vec::new();
        let mut last = None;
        for (n, dir) in self.online() {
            match dir.begin(incarnation) {
                Ok(restart) => starts.push(DirectoryStart {
                    id: dir.id(),
                    restart,
                    partitions: self.found_in(n),
                }),
                Err(e) => last = Some(e),
            }
        }
        let configured = self.dirs.len() + self.unreadable.len();
        match last {
            Some(e) if starts.is_empty() => Err(e),
            _ => {
                let missing = configured - starts.len();
                Ok((starts, missing.try_into().unwrap_or(u32::MAX)))
            }
        }
    }

    /// Once the registration is committed: [`LogDir::confirm`] for each. An error if none is left.
    pub fn confirm(&self, incarnation: Incarnation) -> Result<(), LogError> {
        let mut last = None;
        let mut confirmed = 0;
        for (_, dir) in self.online() {
            match dir.confirm(incarnation) {
                Ok(()) => confirmed += 1,
                Err(e) => last = Some(e),
            }
        }
        match last {
            Some(e) if confirmed == 0 => Err(e),
            _ => Ok(()),
        }
    }

    /// Opens a partition's log where it lies, and tells which directory that is; see [`LogDir::open_partition`].
    pub fn open_partition(
        &self,
        topic: TopicId,
        partition: i32,
        config: LogConfig,
    ) -> Result<(Arc<PartitionLog>, Arc<LogDir>), LogError> {
        let dir = self.place((topic, partition))?;
        let log = dir.open_partition(topic, partition, config)?;
        Ok((log, dir))
    }

    /// Where the last process was moving this partition to when it ended; told once.
    pub fn was_moved_to(&self, id: PartitionId) -> Option<DirectoryId> {
        self.places.lock().cut_short.remove(&id)
    }

    /// A partition that lies nowhere yet shall be begun in `dir`, if that is online then. Remembered for as long as this
    /// lives and `is_known` holds, which is asked of all that are remembered.
    pub fn prefer(
        &self,
        id: PartitionId,
        dir: DirectoryId,
        is_known: impl Fn(&PartitionId) -> bool,
    ) {
        let mut places = self.places.lock();
        places.preferred.retain(|id, _| is_known(id));
        if !places.of.contains_key(&id) && is_known(&id) {
            places.preferred.insert(id, dir);
        }
    }

    /// Begins to move a partition's log to another directory. It must be open, and nothing may be moving it yet.
    pub fn begin_move(&self, log: &Arc<PartitionLog>, to: DirectoryId) -> Result<Move, LogError> {
        let id = log.id();
        let from = self.place(id)?;
        let target = self.dirs.iter().find(|dir| dir.id == to);
        let Some(target) = target.filter(|dir| dir.failure().is_none()) else {
            let partition = format!("{}-{}", id.0, id.1).into();
            let reason = format!("log directory {to} is offline").into();
            return Err(StorageError { partition, reason }.into());
        };
        Move::begin(id, log.clone(), from, target.clone())
    }

    /// Ends a move; see [`Move::turn`]. From then on the partition lies where it was moved to. What its former place still
    /// has is for [`Self::clear_after_move`].
    pub fn end_move(&self, moving: Move, now: impl FnOnce()) -> Result<Turn, LogError> {
        let (id, to) = (moving.partition(), moving.target().id);
        let turn = moving.turn(now)?;
        if matches!(turn, Turn::Moved(_)) {
            let mut places = self.places.lock();
            for n in places.of.get(&id).cloned().unwrap_or_default() {
                places.remove(id, n);
            }
            if let Some(n) = self.dirs.iter().position(|dir| dir.id == to) {
                places.add(id, n);
            }
        }
        Ok(turn)
    }

    /// Removes what the former place of a partition still has of it. It may take long.
    pub fn clear_after_move(&self, topic: TopicId, partition: i32) -> Result<(), LogError> {
        let cleared = self.online().map(|(_, dir)| dir.clear((topic, partition)));
        cleared.collect()
    }

    fn place(&self, id: PartitionId) -> Result<Arc<LogDir>, LogError> {
        let mut places = self.places.lock();
        let known = places.of.get(&id).map_or(&[][..], Vec::as_slice);
        match *known {
            [one] => Ok(self.dirs[one].clone()),
            [first, second, ..] => {
                let what = format!("partition {}-{}", id.0, id.1);
                let (first, second) = (&self.dirs[first], &self.dirs[second]);
                Err(twice(what, first.path(), second.path()))
            }
            [] => {
                let preferred = places.preferred.remove(&id);
                let preferred = self.online().find(|(_, dir)| Some(dir.id) == preferred);
                let fewest = || self.online().min_by_key(|(n, _)| places.counts[*n]);
                let Some((n, dir)) = preferred.or_else(fewest) else {
                    let reason = "no log directory is left".into();
                    let partition = format!("{}-{}", id.0, id.1).into();
                    return Err(StorageError { partition, reason }.into());
                };
                places.add(id, n);
                Ok(dir.clone())
            }
        }
    }

    fn found_in(&self, n: usize) -> Vec<PartitionId> {
        let places = self.places.lock();
        let here = places.of.iter().filter(|(_, dirs)| dirs.contains(&n));
        let mut here: Vec<PartitionId> = here.map(|(id, _)| *id).collect();
        here.sort_unstable();
        here
    }

    /// The partitions that have a folder in a directory that is online, open or not.
    pub fn partitions(&self) -> Result<Vec<(TopicId, i32)>, LogError> {
        let mut all = Vec::new();
        for (_, dir) in self.online() {
            all.extend(dir.partitions()?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Deletes a partition's log wherever it is, open or not; see [`LogDir::delete_partition`]. What lies in a
    /// directory that is offline stays, and stays known.
    pub fn delete_partition(&self, topic: TopicId, partition: i32) -> Result<(), LogError> {
        let id = (topic, partition);
        let places = self.places.lock().of.get(&id).cloned().unwrap_or_default();
        for n in places {
            let dir = &self.dirs[n];
            if let Some(reason) = dir.failure() {
                return Err(LogError::Offline {
                    path: dir.path().to_owned(),
                    reason,
                });
            }
            dir.delete_partition(topic, partition)?;
            self.places.lock().remove(id, n);
        }
        Ok(())
    }

    /// The high watermarks of all directories, as last written. Only what a directory says of a partition that
    /// lies in it: of another it may tell an old tale.
    pub fn high_watermark_checkpoints(&self) -> HashMap<(TopicId, i32), Offset> {
        let places = self.places.lock();
        let mut marks = HashMap::default();
        for (n, dir) in self.online() {
            let all = dir.high_watermark_checkpoints().into_iter();
            marks.extend(all.filter(|(id, _)| places.of.get(id).is_some_and(|at| **at == [n])));
        }
        marks
    }

    /// [`LogDir::close_clean`] for each: the clean marker of one does not hang on another. The first error.
    pub fn close_clean(&self) -> Result<(), LogError> {
        let closed: Vec<_> = self.dirs.iter().map(|dir| dir.close_clean()).collect();
        closed.into_iter().collect()
    }
}

fn twice(what: String, first: &Path, second: &Path) -> LogError {
    LogError::Twice {
        what,
        first: first.to_owned(),
        second: second.to_owned(),
    }
}

/// Which folder a path leads to: two paths may lead to one, and its lock would wait for itself.
fn folder(path: &Path) -> Result<(u64, u64), LogError> {
    disk::create_folder(path)?;
    let meta = std::fs::metadata(path).map_err(|e| LogError::io("stat", path, e))?;
    Ok((meta.dev(), meta.ino()))
}
