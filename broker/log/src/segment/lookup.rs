//! Where something lies in a segment: by offset, by time. An index that does not fit its batches is not believed.

use super::{INDEX, Index, Segment, TIME_INDEX};
use crate::batch::{BatchHeader, HEADER_LEN};
use crate::index::{self, MemoryIndex, OffsetEntry, TimeEntry};
use crate::scan::Scan;
use crate::{LogError, disk};
use leasehold_types::Offset;

impl Segment {
    /// The last index entry at or before `offset`. An index that cannot be used is made anew.
    pub(super) fn find(&self, offset: Offset, interval: u32) -> Result<OffsetEntry, LogError> {
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
}
