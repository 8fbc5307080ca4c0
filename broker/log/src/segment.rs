//! One segment: a `.log` file of batches, named by its first offset, and its indexes.
//!
//! The writer keeps the file of the segment that it appends to open until the segment is sealed
//! and flushed; a reader of a colder one opens it for the read and keeps no handle. The size is
//! raised after the write, and the log end offset after the size, so a reader that goes by a log
//! end offset finds all bytes below it.

mod aborted;
mod lookup;
mod read;

use crate::aborted::AbortedTxn;
use crate::batch::BatchHeader;
use crate::index::MemoryIndex;
use crate::scan::{Scan, ScanError};
use crate::{LogError, disk};
use leasehold_types::Offset;
use parking_lot::{Mutex, RwLock};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
pub(crate) const DELETED: &str = "deleted";
/// A cleaned segment that is being written: of no value after a crash.
pub(crate) const CLEANED: &str = "cleaned";
/// A whole cleaned segment on its way into the log: see `partition/swap.rs`.
pub(crate) const SWAP: &str = "swap";

/// `<20 digits>.<suffix>` in `folder`.
pub(crate) fn file(folder: &Path, offset: Offset, suffix: &str) -> PathBuf {
    folder.join(format!("{offset:020}.{suffix}", offset = offset.0))
}

enum Index {
    /// Not yet in the files.
    Memory(MemoryIndex),
    /// In the files, which are read at need.
    Disk,
}

/// The transactions that were aborted by a marker in this segment.
enum Aborted {
    /// As far as is known, and not yet in the file.
    Memory(Vec<AbortedTxn>),
    /// In the file, if there are any.
    Disk,
}

/// See the module's documentation.
pub(crate) struct Segment {
    base: Offset,
    path: PathBuf,
    size: AtomicU64,
    index: RwLock<Index>,
    aborted: RwLock<Aborted>,
    /// The writer's handle.
    open: Mutex<Option<Arc<File>>>,
}

impl Segment {
    /// A new, empty segment with its file.
    pub fn create(folder: &Path, base: Offset) -> Result<Self, LogError> {
        let path = file(folder, base, LOG);
        let open = disk::create(&path)?;
        let segment = Self::with_index(folder, base, 0, MemoryIndex::default());
        *segment.open.lock() = Some(Arc::new(open));
        Ok(segment)
    }

    /// A segment whose index files are whole.
    pub fn sealed(folder: &Path, base: Offset, size: u64) -> Self {
        Self {
            base,
            path: file(folder, base, LOG),
            size: AtomicU64::new(size),
            index: RwLock::new(Index::Disk),
            aborted: RwLock::new(Aborted::Disk),
            open: Mutex::new(None),
        }
    }

    /// A segment that takes the place of others: read through `open`, wherever that file is at the
    /// moment, until it is sealed.
    pub fn rewritten(
        folder: &Path,
        base: Offset,
        size: u64,
        index: MemoryIndex,
        open: File,
    ) -> Self {
        let segment = Self::with_index(folder, base, size, index);
        *segment.open.lock() = Some(Arc::new(open));
        segment
    }

    /// A segment whose index is in memory; of aborted transactions, it has none until told.
    pub fn with_index(folder: &Path, base: Offset, size: u64, index: MemoryIndex) -> Self {
        Self {
            index: RwLock::new(Index::Memory(index)),
            aborted: RwLock::new(Aborted::Memory(Vec::new())),
            ..Self::sealed(folder, base, size)
        }
    }

    /// The first offset that it may hold.
    pub fn base(&self) -> Offset {
        self.base
    }

    /// The `.log` file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of whole batches.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Whether the index is in memory: it, or the batches, may not be on disk yet.
    pub fn is_unsettled(&self) -> bool {
        matches!(&*self.index.read(), Index::Memory(_))
    }

    /// Bytes of the offset index, as far as it is in memory.
    pub fn index_len(&self) -> usize {
        match &*self.index.read() {
            Index::Memory(index) => index.offsets_len(),
            Index::Disk => 0,
        }
    }

    /// The file to read: the writer's handle, or one for this read.
    fn reader(&self) -> Result<Arc<File>, LogError> {
        match &*self.open.lock() {
            Some(open) => Ok(open.clone()),
            None => Ok(Arc::new(disk::open(&self.path)?)),
        }
    }

    /// The file to write, which stays open.
    pub fn writer(&self) -> Result<Arc<File>, LogError> {
        let mut open = self.open.lock();
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let file = Arc::new(disk::open_to_write(&self.path)?);
        *open = Some(file.clone());
        Ok(file)
    }

    /// Has the disk set `bytes` aside for what is going to be written here; the file's length stays what is
    /// in it. Where the file system cannot, or has no room for all of it, nothing is set aside.
    pub fn reserve(&self, bytes: u64) {
        let Some(file) = self.open.lock().clone() else {
            return;
        };
        if let Err(e) = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            tracing::warn!(segment = %self.path.display(), bytes, "cannot preallocate: {e}");
        }
    }

    /// Gives back what was set aside and not written to.
    pub fn give_back(&self) -> Result<(), LogError> {
        disk::shorten(&*self.writer()?, &self.path, self.size())
    }

    /// Gives back the writer's handle.
    pub fn close(&self) {
        *self.open.lock() = None;
    }

    /// Writes `head` and `body`, which together are whole batches, at the end. The segment does not
    /// hold them before [`Segment::note`].
    pub fn write(&self, head: &[u8], body: &[u8]) -> Result<(), LogError> {
        disk::write_at(&*self.writer()?, &self.path, self.size(), head, body)
    }

    /// Takes note of a batch written at the end.
    pub fn note(&self, header: &BatchHeader, interval: u32) {
        let position = self.size();
        if let Index::Memory(index) = &mut *self.index.write() {
            index.note(header, self.base.0, position, interval);
        }
        let end = position + header.total_len() as u64;
        self.size.store(end, Ordering::Release);
    }

    /// The index of the batches before `position`, where one begins, and where the last of them ends: a
    /// cut's first half, which changes nothing.
    pub fn index_until(
        &self,
        position: u64,
        interval: u32,
    ) -> Result<(MemoryIndex, Offset), LogError> {
        let known = match &*self.index.read() {
            Index::Memory(index) => Some(index.clone()),
            Index::Disk => None,
        };
        let known = match known {
            Some(index) => Some(index),
            None => read_index_files(&self.path, self.size())?,
        };
        let mut index = known.unwrap_or_default();
        let from = index.truncate(position);
        let file = self.reader()?;
        let noted = note_all(
            &mut index, &file, &self.path, self.base, from, position, interval,
        );
        match noted {
            // It may be the entry that is damaged, and not the batches.
            Err(LogError::Unreadable { .. }) if index.is_from_files() => {
                index = MemoryIndex::default();
                let end = note_all(
                    &mut index, &file, &self.path, self.base, 0, position, interval,
                )?;
                Ok((index, end))
            }
            noted => noted.map(|end| (index, end)),
        }
    }

    /// A cut's second half: from now on the segment ends at `position`. To be called where readers
    /// learn of it, before the file is shortened.
    pub fn set_size(&self, position: u64) {
        self.size.store(position, Ordering::Release);
    }

    /// A cut's last part: the file. `index` is what [`Segment::index_until`] gave.
    pub fn shorten(&self, index: MemoryIndex) -> Result<(), LogError> {
        *self.index.write() = Index::Memory(index);
        disk::shorten(&*self.writer()?, &self.path, self.size())?;
        disk::remove(&self.path.with_extension(INDEX))?;
        disk::remove(&self.path.with_extension(TIME_INDEX))?;
        disk::remove(&self.path.with_extension(TXN_INDEX))
    }

    /// Makes the index anew from the batches.
    fn scan_index(&self, interval: u32) -> Result<MemoryIndex, LogError> {
        tracing::warn!(segment = %self.path.display(), "the index is missing or damaged: it is rebuilt");
        let mut index = MemoryIndex::default();
        let file = self.reader()?;
        note_all(
            &mut index,
            &file,
            &self.path,
            self.base,
            0,
            self.size(),
            interval,
        )?;
        Ok(index)
    }

    /// Writes the index files, fsynced. The index stays in memory. Each file is whole or not there: that of
    /// a compacted segment lies below the recovery point, where one cut short would be believed.
    pub fn save_index(&self) -> Result<(), LogError> {
        let (offsets, times) = match &*self.index.read() {
            Index::Memory(index) => index.encode(),
            Index::Disk => return Ok(()),
        };
        for (suffix, content) in [(INDEX, offsets), (TIME_INDEX, times)] {
            let path = self.path.with_extension(suffix);
            disk::replace(&path, &content)?;
        }
        self.save_aborted()
    }

    /// The index files are whole and the segment takes no more: gives up memory and handle.
    pub fn seal(&self) {
        *self.index.write() = Index::Disk;
        self.settle_aborted();
        self.close();
    }

    /// fsyncs the batches.
    pub fn sync(&self) -> Result<(), LogError> {
        disk::sync(&*self.writer()?, &self.path)
    }

    fn damaged(&self, at: u64, e: ScanError) -> LogError {
        damaged(&self.path, at, e)
    }
}

/// The walk's error as this crate's.
pub(crate) fn damaged(path: &Path, at: u64, e: ScanError) -> LogError {
    match e {
        ScanError::Io(e) => e,
        ScanError::Bad(what) => LogError::Unreadable {
            path: path.to_owned(),
            reason: format!("no intact batch at byte {at}: {what}"),
        },
    }
}

/// Reads the index files; `None` if they are missing or not sound.
pub(crate) fn read_index_files(path: &Path, size: u64) -> Result<Option<MemoryIndex>, LogError> {
    let offsets = disk::read_if_there(&path.with_extension(INDEX))?;
    let times = disk::read_if_there(&path.with_extension(TIME_INDEX))?;
    Ok(match (offsets, times) {
        (Some(offsets), Some(times)) => MemoryIndex::decode(&offsets, &times, size),
        _ => None,
    })
}

/// Notes the batches between two positions of a segment's file. Returns where the last of them ends;
/// the segment's base if there is none.
fn note_all(
    index: &mut MemoryIndex,
    file: &File,
    path: &Path,
    base: Offset,
    from: u64,
    to: u64,
    interval: u32,
) -> Result<Offset, LogError> {
    let mut scan = Scan::new(file, path, from, to);
    let mut end = base;
    loop {
        let at = scan.position();
        match scan.next_header() {
            Ok(None) => return Ok(end),
            Ok(Some((at, header))) => {
                index.note(&header, base.0, at, interval);
                end = header.next_offset();
            }
            Err(e) => return Err(damaged(path, at, e)),
        }
    }
}
