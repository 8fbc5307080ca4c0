//! A disk that tests, and the simulation, can crash and break.
//!
//! [`Watched`] takes hold of all calls that change what is below a folder. It keeps a journal of them,
//! from which `replay.rs` makes what the disk may look like after a crash at any point, and has any one
//! of them fail. The promises that are held against this are in `check.rs`.

#[cfg(test)]
mod check;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod flip_tests;
#[cfg(test)]
mod open_tests;
mod replay;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod transactions;

pub use replay::{Change, Crash, Replay, Tree, lay_out};

use crate::LogError;
use crate::disk::{Op, put};
use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
#[cfg(test)]
use std::cell::Cell;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

static DISKS: RwLock<Vec<Arc<Disk>>> = RwLock::new(Vec::new());

#[cfg(test)]
thread_local! {
    static FLUSHES_ARE_STEPS: Cell<bool> = const { Cell::new(false) };
}

/// Whether what this thread does leaves the flushes in the background to the test, as steps of its own.
#[cfg(test)]
pub(crate) fn flushes_are_steps() -> bool {
    FLUSHES_ARE_STEPS.get()
}

/// What happens in the background happens, on this thread from now on, only when the test says so.
#[cfg(test)]
pub(crate) fn flush_in_steps() {
    FLUSHES_ARE_STEPS.set(true);
}

/// The watched disk that `path` is on.
pub(crate) fn disk_of(path: &Path) -> Option<Arc<Disk>> {
    let disks = DISKS.read();
    disks.iter().find(|d| path.starts_with(&d.root)).cloned()
}

/// A folder to test in: in memory, where the machine has such a place, as fsync is recorded anyhow.
#[cfg(test)]
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// One call that shall fail.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which, counted from 0.
    pub at: usize,
    /// With what.
    pub errno: Errno,
}

/// What is known of one watched folder.
pub struct Disk {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: usize,
    journal: Vec<Change>,
    fault: Option<Fault>,
    broken: Vec<(PathBuf, Errno)>,
    failed: Option<(&'static str, PathBuf)>,
    bytes_read: u64,
}

impl Disk {
    /// How many calls have changed, or tried to change, the disk.
    pub fn calls(&self) -> usize {
        self.state.lock().calls
    }

    /// The journal so far.
    pub fn journal(&self) -> Vec<Change> {
        self.state.lock().journal.clone()
    }

    /// The journal since this was last asked, which is then empty.
    pub fn take_journal(&self) -> Vec<Change> {
        std::mem::take(&mut self.state.lock().journal)
    }

    /// Has a call fail.
    pub fn fail(&self, fault: Fault) {
        self.state.lock().fault = Some(fault);
    }

    /// Has every call fail that would change what is in `folder`, until [`Self::mend`].
    pub fn break_folder(&self, folder: &Path, errno: Errno) {
        self.state.lock().broken.push((folder.to_owned(), errno));
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        self.state.lock().broken.clear();
    }

    /// What the call that failed was to do, and to what.
    pub fn failed(&self) -> Option<(&'static str, PathBuf)> {
        self.state.lock().failed.clone()
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    pub(crate) fn has_read(&self, bytes: usize) {
        self.state.lock().bytes_read += bytes as u64;
    }

    /// One call after the other, so that the journal's order is that of the disk.
    pub(crate) fn change<T>(
        &self,
        op: Op<'_>,
        path: &Path,
        run: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, LogError> {
        let mut state = self.state.lock();
        let call = state.calls;
        state.calls += 1;
        let failed = |e: io::Error| LogError::io(op.action(), path, e);
        if let Some(fault) = state.fault.filter(|fault| fault.at == call) {
            state.failed = Some((op.action(), path.to_owned()));
            if let Op::Write { file, at, parts } = op {
                // A disk that is full, or breaks, has taken a part.
                let all = parts.concat();
                put(file, at, [&all[..all.len() / 2], &[]]).map_err(failed)?;
            }
            return Err(failed(fault.errno.into()));
        }
        let broken = state.broken.iter();
        let broken = broken.filter(|(folder, _)| path.starts_with(folder));
        if let Some(errno) = broken.map(|(_, errno)| *errno).next() {
            if let Op::Write { file, at, parts } = op
                && errno != Errno::ROFS
            {
                // Here, too, a part is there, which is on record as the rest is.
                let mut all = parts.concat();
                all.truncate(all.len() / 2);
                put(file, at, [&all, &[]]).map_err(failed)?;
                let parts: [&[u8]; 2] = [&all, &[]];
                let change = record(Op::Write { file, at, parts }, path).map_err(failed)?;
                state.journal.extend(change);
            }
            return Err(failed(errno.into()));
        }
        let done = run().map_err(failed)?;
        let change = record(op, path).map_err(failed)?;
        state.journal.extend(change);
        Ok(done)
    }
}

fn record(op: Op<'_>, path: &Path) -> io::Result<Option<Change>> {
    let path = path.to_owned();
    Ok(Some(match op {
        Op::Create => Change::Create {
            inode: std::fs::metadata(&path)?.ino(),
            path,
        },
        Op::Write { file, at, parts } => Change::Write {
            inode: file.metadata()?.ino(),
            at: at as usize,
            bytes: parts.concat().into(),
        },
        Op::SetLen { file, len } => Change::SetLen {
            inode: file.metadata()?.ino(),
            len: len as usize,
        },
        Op::SetModified => return Ok(None),
        Op::Sync(file) => Change::Sync {
            inode: file.metadata()?.ino(),
        },
        Op::SyncFolder => Change::SyncFolder { path },
        Op::Rename(to) => Change::Rename {
            from: path,
            to: to.to_owned(),
        },
        Op::Remove => Change::Remove { path },
        Op::CreateFolder => Change::CreateFolder { path },
        Op::RemoveFolder => Change::RemoveFolder { path },
    }))
}

/// A folder whose changes are watched until this is dropped.
pub struct Watched(Arc<Disk>);

impl Watched {
    /// Watches what is below `root` from now on.
    pub fn new(root: &Path) -> Self {
        let disk = Arc::new(Disk {
            root: root.to_owned(),
            state: Mutex::default(),
        });
        DISKS.write().push(disk.clone());
        Self(disk)
    }
}

impl Deref for Watched {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        DISKS.write().retain(|disk| !Arc::ptr_eq(disk, &self.0));
    }
}
