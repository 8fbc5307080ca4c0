//! One segment: a `.log` file of batches, named by its first offset, and its indexes.
//!
//! The writer keeps the file of the segment that it appends to open until the segment is sealed
//! and flushed; a reader of a colder one opens it for the read and keeps no handle. The size is
//! raised after the write, and the log end offset after the size, so a reader that goes by a log
//! end offset finds all bytes below it.

use crate::batch::{BatchHeader, HEADER_LEN};
use crate::index::{self, MemoryIndex, OffsetEntry, TimeEntry};
use crate::scan::{Scan, ScanError};
use crate::{LogError, disk};
use bytes::Bytes;
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

/// See the module's documentation.
pub(crate) struct Segment {
    base: Offset,
    path: PathBuf,
    size: AtomicU64,
    index: RwLock<Index>,
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

    /// A segment whose index is in memory.
    pub fn with_index(folder: &Path, base: Offset, size: u64, index: MemoryIndex) -> Self {
        Self {
            index: RwLock::new(Index::Memory(index)),
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
        disk::remove(&self.path.with_extension(TIME_INDEX))
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
        Ok(())
    }

    /// The index files are whole and the segment takes no more: gives up memory and handle.
    pub fn seal(&self) {
        *self.index.write() = Index::Disk;
        self.close();
    }

    /// fsyncs the batches.
    pub fn sync(&self) -> Result<(), LogError> {
        disk::sync(&*self.writer()?, &self.path)
    }

    /// The last index entry at or before `offset`. An index that cannot be used is made anew.
    fn find(&self, offset: Offset, interval: u32) -> Result<OffsetEntry, LogError> {
        let relative = u32::try_from(offset.0 - self.base.0).unwrap_or(u32::MAX);
        let entry = match &*self.index.read() {
            Index::Memory(index) if !index.is_from_files() => return Ok(index.find(relative)),
            Index::Memory(index) => Ok(index.find(relative)),
            Index::Disk => index::find_on_disk(&self.path.with_extension(INDEX), relative),
        };
        if let Ok(entry) = entry
            && self.is_batch(entry)?
        {
            return Ok(entry);
        }
        self.make_index(interval, |index| index.find(relative))
    }

    /// Makes an index that cannot be used anew. An append meanwhile waits, to be in it.
    fn make_index<T>(
        &self,
        interval: u32,
        look: impl FnOnce(&MemoryIndex) -> T,
    ) -> Result<T, LogError> {
        let mut slot = self.index.write();
        let index = self.scan_index(interval)?;
        let found = look(&index);
        *slot = Index::Memory(index);
        Ok(found)
    }

    /// Whether the entry names a batch that is there.
    fn is_batch(&self, entry: OffsetEntry) -> Result<bool, LogError> {
        if entry == OffsetEntry::default() {
            return Ok(true);
        }
        let mut head = Vec::new();
        let at = u64::from(entry.position);
        disk::read_into(&*self.reader()?, &self.path, at, HEADER_LEN, &mut head)?;
        let expected = self.base.0 + i64::from(entry.relative);
        Ok(BatchHeader::parse(&head).is_ok_and(|h| h.base_offset.0 == expected))
    }

    /// Whether the entry names a batch with records that reached its time.
    fn is_time_of_batch(&self, entry: TimeEntry, interval: u32) -> Result<bool, LogError> {
        let at = self.at(entry);
        let batch = self.locate(at, interval)?.map(|(_, header)| header);
        Ok(batch.is_some_and(|h| {
            (h.base_offset, h.max_timestamp) == (at, entry.timestamp) && h.record_count > 0
        }))
    }

    fn at(&self, entry: TimeEntry) -> Offset {
        Offset(self.base.0 + i64::from(entry.relative))
    }

    /// The batch with the greatest timestamp, as offset and time.
    pub fn max_timestamp(&self, interval: u32) -> Result<Option<(i64, Offset)>, LogError> {
        let absolute = |e: TimeEntry| (e.timestamp, self.at(e));
        let max = match &*self.index.read() {
            Index::Memory(index) if !index.is_from_files() => return Ok(index.max().map(absolute)),
            Index::Memory(index) => Ok(index.max()),
            Index::Disk => index::max_on_disk(&self.path.with_extension(TIME_INDEX)),
        };
        match max {
            Ok(None) => Ok(None),
            Ok(Some(max)) if self.is_time_of_batch(max, interval)? => Ok(Some(absolute(max))),
            _ => self.make_index(interval, |index| index.max().map(absolute)),
        }
    }

    /// From which offset on `timestamp` may first have been reached.
    pub fn find_time(&self, timestamp: i64, interval: u32) -> Result<Offset, LogError> {
        let entry = match &*self.index.read() {
            Index::Memory(index) if !index.is_from_files() => {
                let entry = index.find_time(timestamp);
                return Ok(entry.map_or(self.base, |entry| self.at(entry)));
            }
            Index::Memory(index) => Ok(index.find_time(timestamp)),
            Index::Disk => {
                index::find_time_on_disk(&self.path.with_extension(TIME_INDEX), timestamp)
            }
        };
        match entry {
            Ok(Some(entry)) if self.is_time_of_batch(entry, interval)? => Ok(self.at(entry)),
            // Without the file, or with a damaged one, from the start: slower, and as right.
            _ => Ok(self.base),
        }
    }

    /// Where the batch lies that holds `offset`, or the first after it; `None` if all are before it.
    pub fn locate(
        &self,
        offset: Offset,
        interval: u32,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let mut found = None;
        self.walk(offset, interval, |at, header| {
            found = Some((at, *header));
            Ok(false)
        })?;
        Ok(found)
    }

    /// Visits the batches from the one that holds `from` on, until `visit` says `false`.
    pub fn walk(
        &self,
        from: Offset,
        interval: u32,
        mut visit: impl FnMut(u64, &BatchHeader) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        let entry = self.find(from, interval)?;
        let file = self.reader()?;
        let mut scan = Scan::new(&file, &self.path, entry.position.into(), self.size());
        loop {
            let at = scan.position();
            match scan.next_header() {
                Ok(Some((at, header))) => {
                    if header.next_offset() > from && !visit(at, &header)? {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(e) => return Err(self.damaged(at, e)),
            }
        }
    }

    /// The bytes of one batch.
    pub fn batch(&self, at: u64, header: &BatchHeader) -> Result<Bytes, LogError> {
        let mut bytes = Vec::new();
        disk::read_into(
            &*self.reader()?,
            &self.path,
            at,
            header.total_len(),
            &mut bytes,
        )?;
        Ok(bytes.into())
    }

    /// Whole batches from the one that holds `from`, all below `limit`; see `PartitionLog::read`.
    /// `None` if the segment ends before `from`.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        limit: Offset,
        at_least_one: bool,
        interval: u32,
    ) -> Result<Option<Bytes>, LogError> {
        let size = self.size();
        let file = self.reader()?;
        let entry = self.find(from, interval)?;
        let mut at = u64::from(entry.position);
        // The batches between the index entry and `from` are read along: one read, as a rule.
        let slack = match self.base.0 + i64::from(entry.relative) == from.0 {
            true => 0,
            false => interval as usize,
        };
        let mut want = max_bytes.saturating_add(slack).max(1024);
        let mut buffer = Vec::new();
        loop {
            let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            disk::read_into(&file, &self.path, at, want.min(left), &mut buffer)?;
            let Some((start, first)) = self.skip_before(&buffer, at, size, from)? else {
                return Ok(None);
            };
            let Some(header) = first else {
                at += start as u64;
                continue;
            };
            let len = header.total_len();
            if header.next_offset() > limit || (len > max_bytes && !at_least_one) {
                return Ok(Some(Bytes::new()));
            }
            if start + len > buffer.len() {
                // Larger than what was read: again, from its start, and whole this time.
                at += start as u64;
                want = len.max(max_bytes);
                continue;
            }
            let end = start + whole_batches(&buffer[start..], max_bytes.max(len), limit);
            return Ok(Some(Bytes::from(buffer).slice(start..end)));
        }
    }

    /// Finds the first batch in `buffer`, which lies at `at` of the file, that ends after `from`. Its
    /// place and header; no header if another read must begin at that place; `None` at the file's end.
    fn skip_before(
        &self,
        buffer: &[u8],
        at: u64,
        size: u64,
        from: Offset,
    ) -> Result<Option<(usize, Option<BatchHeader>)>, LogError> {
        let mut start = 0;
        loop {
            let here = at + start as u64;
            if here >= size {
                return Ok(None);
            }
            let rest = buffer.get(start..).unwrap_or_default();
            if rest.len() < HEADER_LEN && start > 0 {
                return Ok(Some((start, None)));
            }
            let header =
                BatchHeader::parse(rest).map_err(|e| self.damaged(here, ScanError::Bad(e)))?;
            let len = header.total_len();
            if here + len as u64 > size {
                let what = crate::batch::BatchError::Truncated {
                    have: (size - here) as usize,
                    need: len,
                };
                return Err(self.damaged(here, ScanError::Bad(what)));
            }
            if header.next_offset() > from {
                return Ok(Some((start, Some(header))));
            }
            start += len;
        }
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

/// Bytes of the whole batches at the front of `bytes` that end within `max_bytes` and `limit`.
fn whole_batches(bytes: &[u8], max_bytes: usize, limit: Offset) -> usize {
    let mut end = 0;
    while let Ok(header) = BatchHeader::parse(&bytes[end..]) {
        let next = end + header.total_len();
        if next > bytes.len() || next > max_bytes || header.next_offset() > limit {
            break;
        }
        end = next;
    }
    end
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
