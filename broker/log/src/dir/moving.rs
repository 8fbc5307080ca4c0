//! Moving a partition's log from one directory of the broker to another while it is in use.
//!
//! The files are copied to `<partition>.future` in the target. Then, with the log held still and the copy complete and on
//! the disk, the source decides: its folder is renamed to `<partition>.<target's id>.left`. From that moment on the log
//! is the one in the target, whatever ends the process: where a start finds what is left, it gives the copy its name.
//! It is the source that decides, as the target may be offline at that start: what the source still had under the
//! partition's own name would serve again, and later outrank the copy that had gone on.
//!
//! What a start finds, and does about it:
//! | source | target | |
//! |---|---|---|
//! | the log | a copy | the copy is thrown away; whoever hosts the partition may begin anew |
//! | what is left | a copy | the copy gets its name, what is left goes |
//! | what is left | the log | what is left goes |
//! | what is left | offline | nothing: the log lies in the target |
//! | what is left | nothing | nothing, and loudly: the log is gone, and what is left may lack what came after |
//! | offline | a copy | nothing: what it is will be known when the source is back |
//! | nothing | a copy | the copy is thrown away |

use super::copy::{FolderCopy, Side};
use super::{LogDir, PartitionId, name_of, parse_folder};
use crate::{LogConfig, LogError, PartitionLog, disk};
use leasehold_types::DirectoryId;
use std::sync::Arc;

const FUTURE: &str = "future";
const LEFT: &str = "left";

/// The folder of a copy that is being made.
pub(super) fn future_of(id: PartitionId) -> String {
    format!("{}.{FUTURE}", name_of(id))
}

/// The folder of a log that now lies in `target`.
fn left_of(id: PartitionId, target: DirectoryId) -> String {
    format!("{}.{target}.{LEFT}", name_of(id))
}

pub(crate) fn parse_future(name: &str) -> Option<PartitionId> {
    parse_folder(name.strip_suffix(FUTURE)?.strip_suffix('.')?)
}

pub(crate) fn parse_left(name: &str) -> Option<(PartitionId, DirectoryId)> {
    let (folder, target) = name
        .strip_suffix(LEFT)?
        .strip_suffix('.')?
        .rsplit_once('.')?;
    Some((parse_folder(folder)?, DirectoryId::parse(target)?))
}

/// What an unfinished move left in one directory.
#[derive(Default)]
struct Found {
    futures: Vec<PartitionId>,
    lefts: Vec<(PartitionId, DirectoryId)>,
    logs: Vec<PartitionId>,
}

impl Found {
    fn in_dir(dir: &LogDir) -> Result<Self, LogError> {
        let names = disk::names(&dir.path)?;
        Ok(Self {
            futures: names.iter().filter_map(|name| parse_future(name)).collect(),
            lefts: names.iter().filter_map(|name| parse_left(name)).collect(),
            logs: names.iter().filter_map(|name| parse_folder(name)).collect(),
        })
    }
}

/// At a start, before anything is opened: what moves were begun are ended, or undone; returned are those that were undone.
/// `all_here`: no directory is offline. An error of a disk is of the directory with that number.
pub(super) fn settle(
    dirs: &[Arc<LogDir>],
    all_here: bool,
) -> Result<Vec<(PartitionId, DirectoryId)>, (usize, LogError)> {
    let mut found = Vec::new();
    for (n, dir) in dirs.iter().enumerate() {
        found.push(Found::in_dir(dir).map_err(|e| (n, e))?);
    }
    for (n, here) in found.iter().enumerate() {
        for (id, target) in &here.lefts {
            let Some(to) = dirs.iter().position(|dir| dir.id == *target) else {
                tracing::warn!(partition = name_of(*id), %target, "its log lies in a log directory that is offline");
                continue;
            };
            let is_there = found[to].logs.contains(id);
            if !is_there && !found[to].futures.contains(id) {
                tracing::error!(partition = name_of(*id), left = %dirs[n].path.join(left_of(*id, *target)).display(),
                    directory = %dirs[to].path.display(),
                    "its log was moved to this directory and is not there; what was left at its former place may lack what came after");
                continue;
            }
            if !is_there {
                dirs[to].take_over(*id).map_err(|e| (to, e))?;
                tracing::info!(partition = name_of(*id), directory = %dirs[to].path.display(), "finished its move to this log directory");
            }
            let left = dirs[n].path.join(left_of(*id, *target));
            disk::remove_folder(&left).map_err(|e| (n, e))?;
        }
    }
    let mut undone = Vec::new();
    for (n, here) in found.iter().enumerate() {
        for id in &here.futures {
            let taken = |other: &Found| {
                other
                    .lefts
                    .iter()
                    .any(|(left, target)| left == id && *target == dirs[n].id)
            };
            if found.iter().any(taken) {
                continue;
            }
            let is_somewhere = found.iter().any(|other| other.logs.contains(id));
            if is_somewhere || all_here {
                let future = dirs[n].path.join(future_of(*id));
                disk::remove_folder(&future).map_err(|e| (n, e))?;
            }
            if is_somewhere {
                undone.push((*id, dirs[n].id));
            }
        }
    }
    Ok(undone)
}

impl LogDir {
    /// A copy gets the partition's own name, durably.
    fn take_over(&self, id: PartitionId) -> Result<(), LogError> {
        disk::rename(&self.path.join(future_of(id)), &self.folder(id))?;
        disk::sync_folder(&self.path)
    }

    /// Removes what is left here of a partition that lies elsewhere now.
    pub(super) fn clear(&self, id: PartitionId) -> Result<(), LogError> {
        let names = self.judged(disk::names(&self.path))?;
        for name in names
            .iter()
            .filter(|name| parse_left(name).is_some_and(|(left, _)| left == id))
        {
            self.judged(disk::remove_folder(&self.path.join(name)))?;
        }
        Ok(())
    }

    /// The log that lies here lies in `target` from now on, durably.
    fn give_away(&self, id: PartitionId, target: DirectoryId) -> Result<(), LogError> {
        disk::rename(&self.folder(id), &self.path.join(left_of(id, target)))?;
        disk::sync_folder(&self.path)
    }
}

/// How a move ended that did not fail altogether.
pub enum Turn {
    /// The log lies in the other directory now, and this is it.
    Moved(Arc<PartitionLog>),
    /// All is as before, as the log is being compacted or flushed. See [`Move::wait_for_rest`].
    Busy(Box<Move>),
    /// All is as before, for this reason.
    Stayed(Box<Move>, LogError),
}

/// A move under way. Dropped, it leaves its copy to the next start.
pub struct Move {
    id: PartitionId,
    log: Arc<PartitionLog>,
    from: Arc<LogDir>,
    to: Arc<LogDir>,
    copy: FolderCopy,
}

impl Move {
    pub(super) fn begin(
        id: PartitionId,
        log: Arc<PartitionLog>,
        from: Arc<LogDir>,
        to: Arc<LogDir>,
    ) -> Result<Self, LogError> {
        let future = to.path.join(future_of(id));
        let copy = to.judged(FolderCopy::begin(future))?;
        Ok(Self {
            id,
            log,
            from,
            to,
            copy,
        })
    }

    /// Which partition it is.
    pub fn partition(&self) -> PartitionId {
        self.id
    }

    /// Where it goes.
    pub fn target(&self) -> &Arc<LogDir> {
        &self.to
    }

    /// Copies what changed since the last pass, and returns how many bytes that was; `None` once `pace`, which is
    /// asked before each piece and may wait, says that nobody wants it any more.
    pub fn pass(&mut self, pace: &mut dyn FnMut(u64) -> bool) -> Result<Option<u64>, LogError> {
        let done = self.copy.pass(&self.log, pace);
        self.judge(done)
    }

    fn judge<T>(&self, done: Result<T, Side>) -> Result<Option<T>, LogError> {
        let (dir, error) = match done {
            Ok(done) => return Ok(Some(done)),
            Err(Side::Stopped) => return Ok(None),
            Err(Side::From(e)) => (&self.from, e),
            Err(Side::To(e)) => (&self.to, e),
        };
        dir.judged(Err(error))
    }

    /// Makes the copy complete and puts it in the log's place. Nobody may append meanwhile, and `now` is called right
    /// before the files' names change: from then on the old log is not to be used. An error means that the log can be
    /// used neither here nor there until the next start.
    pub fn turn(mut self, now: impl FnOnce()) -> Result<Turn, LogError> {
        if let Some(reason) = self.to.failure() {
            let path = self.to.path.clone();
            let error = LogError::Offline { path, reason };
            return Ok(Turn::Stayed(Box::new(self), error));
        }
        let log = self.log.clone();
        let still = match log.hold_still() {
            Ok(Some(still)) => still,
            Ok(None) => return Ok(Turn::Busy(Box::new(self))),
            Err(e) => return Ok(Turn::Stayed(Box::new(self), e)),
        };
        let last = self.copy.pass(&log, &mut |_| true);
        if let Err(e) = self.judge(last) {
            return Ok(Turn::Stayed(Box::new(self), e));
        }
        now();
        still.end("its place is another log directory now");
        let is_there = disk::exists(log.folder());
        if self.from.judged(is_there)? {
            self.from.judged(self.from.give_away(self.id, self.to.id))?;
            self.to.judged(self.to.take_over(self.id))?;
        } else {
            // It was never appended to: there is nothing to decide about.
            let nothing = self.copy.give_up();
            self.to.judged(nothing)?;
        }
        self.from.slots.lock().remove(&self.id);
        let config = LogConfig::clone(&log.config());
        let moved = self.to.open_moved(self.id, config)?;
        // Without a folder, an epoch that was begun is known in memory only.
        if let Some(epoch) = log.last_epoch().filter(|_| moved.last_epoch().is_none()) {
            moved.begin_epoch(epoch)?;
        }
        Ok(Turn::Moved(moved))
    }

    /// Waits until nobody compacts the log or flushes its old segments. It may take long.
    pub fn wait_for_rest(self: Box<Self>) -> Box<Self> {
        self.log.wait_for_rest();
        self
    }

    /// The copy goes, and all stays as it is.
    pub fn give_up(self) -> Result<(), LogError> {
        let Self { to, copy, .. } = self;
        to.judged(copy.give_up())
    }
}
