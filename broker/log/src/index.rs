//! A segment's sparse indexes: offset to position, and time to offset.
//!
//! While a segment is written they live in memory. Once it is sealed and flushed they live in its
//! `.index` (offset less base, position; u32 each) and `.timeindex` (timestamp i64, offset less
//! base u32) files, big-endian, and a lookup reads a few entries. An entry names a batch's base
//! offset. A time entry (t, o): the batch at o was the first whose max timestamp reached t, and
//! none before the next entry's batch went above it but those not yet indexed.

use crate::batch::BatchHeader;
use crate::{LogError, disk};
use std::fs::File;
use std::path::Path;

const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;

/// Offset (less the segment's base) and position of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct OffsetEntry {
    pub relative: u32,
    pub position: u32,
}

/// A timestamp, and the batch that was first to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub timestamp: i64,
    pub relative: u32,
}

/// Both indexes of a segment that is being written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MemoryIndex {
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    max: Option<TimeEntry>,
    bytes_since_entry: u64,
    /// The entries were read from files: they may be damaged, and are held against the batch that they
    /// name before they are used.
    from_files: bool,
}

impl MemoryIndex {
    /// Takes note of the batch that was appended at `position`.
    pub fn note(&mut self, header: &BatchHeader, base: i64, position: u64, interval: u32) {
        let relative = (header.base_offset.0 - base) as u32;
        // A batch that compaction emptied has its time still, and no record of that time.
        if header.max_timestamp >= 0
            && header.record_count > 0
            && self
                .max
                .is_none_or(|max| header.max_timestamp > max.timestamp)
        {
            self.max = Some(TimeEntry {
                timestamp: header.max_timestamp,
                relative,
            });
        }
        if self.bytes_since_entry > u64::from(interval) {
            self.offsets.push(OffsetEntry {
                relative,
                position: position as u32,
            });
            self.note_max();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.total_len() as u64;
    }

    fn note_max(&mut self) {
        if let Some(max) = self.max
            && self.times.last() != Some(&max)
        {
            self.times.push(max);
        }
    }

    /// Whether an entry may be damaged.
    pub fn is_from_files(&self) -> bool {
        self.from_files
    }

    /// Bytes of the offset index.
    pub fn offsets_len(&self) -> usize {
        self.offsets.len() * OFFSET_ENTRY
    }

    /// The batch with the greatest timestamp.
    pub fn max(&self) -> Option<TimeEntry> {
        self.max
    }

    /// The last entry at or before `relative`; the segment's start if there is none.
    pub fn find(&self, relative: u32) -> OffsetEntry {
        let after = self.offsets.partition_point(|e| e.relative <= relative);
        after
            .checked_sub(1)
            .map(|i| self.offsets[i])
            .unwrap_or_default()
    }

    /// The batch from which on `timestamp` may first have been reached; `None` is the first.
    pub fn find_time(&self, timestamp: i64) -> Option<TimeEntry> {
        let after = self.times.partition_point(|e| e.timestamp <= timestamp);
        after.checked_sub(1).map(|i| self.times[i])
    }

    /// Forgets everything from `position` on. Returns where a walk must begin that notes again the
    /// batches before `position` that no entry covers.
    pub fn truncate(&mut self, position: u64) -> u64 {
        let keep = self
            .offsets
            .partition_point(|e| u64::from(e.position) < position);
        // That entry's own batch is noted again, and with it the entry.
        let last = keep.checked_sub(1).map(|i| self.offsets[i]);
        self.offsets.truncate(keep.saturating_sub(1));
        let from = last.unwrap_or_default();
        self.times
            .retain(|e| last.is_some() && e.relative < from.relative);
        self.max = self.times.last().copied();
        // So that the batch at `from` gets its entry again.
        self.bytes_since_entry = if last.is_some() { u64::MAX >> 1 } else { 0 };
        u64::from(from.position)
    }

    /// The two files' contents.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut offsets = Vec::with_capacity(self.offsets_len());
        for entry in &self.offsets {
            offsets.extend_from_slice(&entry.relative.to_be_bytes());
            offsets.extend_from_slice(&entry.position.to_be_bytes());
        }
        let max = self.max.filter(|max| self.times.last() != Some(max));
        let mut times = Vec::with_capacity((self.times.len() + 1) * TIME_ENTRY);
        for entry in self.times.iter().chain(&max) {
            times.extend_from_slice(&entry.timestamp.to_be_bytes());
            times.extend_from_slice(&entry.relative.to_be_bytes());
        }
        (offsets, times)
    }

    /// The files' contents read back; `None` if they cannot be those of a segment of `size` bytes.
    pub fn decode(offsets: &[u8], times: &[u8], size: u64) -> Option<Self> {
        let (offsets, rest) = offsets.as_chunks::<OFFSET_ENTRY>();
        let (times, more) = times.as_chunks::<TIME_ENTRY>();
        if !rest.is_empty() || !more.is_empty() {
            return None;
        }
        let offsets: Vec<_> = offsets.iter().map(decode_offset).collect();
        let times: Vec<_> = times.iter().map(decode_time).collect();
        let rises =
            |a: &OffsetEntry, b: &OffsetEntry| a.relative < b.relative && a.position < b.position;
        let sound = offsets.is_sorted_by(rises)
            && times.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.relative < b.relative)
            && offsets.last().is_none_or(|e| u64::from(e.position) < size);
        sound.then(|| Self {
            max: times.last().copied(),
            offsets,
            times,
            bytes_since_entry: 0,
            from_files: true,
        })
    }
}

/// The entries in the content of an `.index` file, as far as they are whole.
pub(crate) fn offset_entries(content: &[u8]) -> Vec<OffsetEntry> {
    content.as_chunks().0.iter().map(decode_offset).collect()
}

/// The entries in the content of a `.timeindex` file, as far as they are whole.
pub(crate) fn time_entries(content: &[u8]) -> Vec<TimeEntry> {
    content.as_chunks().0.iter().map(decode_time).collect()
}

fn decode_offset(bytes: &[u8; OFFSET_ENTRY]) -> OffsetEntry {
    let [a, b, c, d, e, f, g, h] = *bytes;
    OffsetEntry {
        relative: u32::from_be_bytes([a, b, c, d]),
        position: u32::from_be_bytes([e, f, g, h]),
    }
}

fn decode_time(bytes: &[u8; TIME_ENTRY]) -> TimeEntry {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    TimeEntry {
        timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        relative: u32::from_be_bytes([i, j, k, l]),
    }
}

/// [`MemoryIndex::find`] in an `.index` file.
pub(crate) fn find_on_disk(path: &Path, relative: u32) -> Result<OffsetEntry, LogError> {
    let found = search(path, decode_offset, |e| e.relative <= relative)?;
    Ok(found.unwrap_or_default())
}

/// [`MemoryIndex::find_time`] in a `.timeindex` file.
pub(crate) fn find_time_on_disk(
    path: &Path,
    timestamp: i64,
) -> Result<Option<TimeEntry>, LogError> {
    search(path, decode_time, |e| e.timestamp <= timestamp)
}

/// [`MemoryIndex::max`] of a sealed segment: the last entry of its `.timeindex` file.
pub(crate) fn max_on_disk(path: &Path) -> Result<Option<TimeEntry>, LogError> {
    search(path, decode_time, |_| true)
}

/// The last entry for which `before` holds; the entries for which it holds come first. Halves the
/// range until one read of a page can settle it, so that a lookup costs a few small reads.
fn search<T, const N: usize>(
    path: &Path,
    decode: impl Fn(&[u8; N]) -> T,
    before: impl Fn(&T) -> bool,
) -> Result<Option<T>, LogError> {
    let file = disk::open(path)?;
    let len = disk::file_len(&file, path)?;
    if len % N as u64 != 0 {
        return Err(LogError::Unreadable {
            path: path.to_owned(),
            reason: format!("{len} bytes are no whole number of entries"),
        });
    }
    let mut buffer = Vec::new();
    let mut read = |file: &File, from: u64, to: u64| -> Result<Vec<T>, LogError> {
        let at = from * N as u64;
        disk::read_into(file, path, at, (to - from) as usize * N, &mut buffer)?;
        Ok(buffer.as_chunks::<N>().0.iter().map(&decode).collect())
    };
    let (mut low, mut high) = (0, len / N as u64);
    while high - low > 256 {
        let middle = low + (high - low) / 2;
        match read(&file, middle, middle + 1)?.first() {
            Some(entry) if before(entry) => low = middle,
            _ => high = middle,
        }
    }
    let entries = read(&file, low, high)?;
    let after = entries.partition_point(&before);
    Ok(entries.into_iter().take(after).next_back())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchHeader, RecordBatchBuilder};
    use leasehold_types::{LeaderEpoch, Offset};

    const BASE: i64 = 1000;

    /// Batches of one record at BASE + i with timestamps that rise, fall and repeat.
    fn headers(count: i64) -> Vec<(u64, BatchHeader)> {
        let mut at = 0;
        let mut headers = Vec::new();
        for i in 0..count {
            let mut b = RecordBatchBuilder::new().at(Offset(BASE + i), LeaderEpoch(0));
            b.push(100 + i / 3 * 5 - (i % 4) * 7, None, Some(&[0; 50]));
            let bytes = b.build();
            headers.push((at, BatchHeader::parse(&bytes).unwrap()));
            at += bytes.len() as u64;
        }
        headers
    }

    fn index(headers: &[(u64, BatchHeader)]) -> MemoryIndex {
        let mut index = MemoryIndex::default();
        for (at, header) in headers {
            index.note(header, BASE, *at, 300);
        }
        index
    }

    #[test]
    fn the_files_answer_as_the_memory_does() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let all = headers(4000);
        let index = index(&all);
        let (offsets, times) = index.encode();
        disk::write(&a, &offsets).unwrap();
        disk::write(&b, &times).unwrap();
        for i in 0..4000 {
            assert_eq!(find_on_disk(&a, i).unwrap(), index.find(i));
        }
        for t in 0..7000 {
            // The files also hold the greatest, so they may know better, never worse.
            let relative = |found: Option<TimeEntry>| found.map_or(0, |e| e.relative);
            let disk = relative(find_time_on_disk(&b, t).unwrap());
            let memory = relative(index.find_time(t));
            assert!(disk >= memory);
            let first = all.iter().position(|(_, h)| h.max_timestamp >= t);
            assert!(first.is_none_or(|first| first as u32 >= disk));
        }
        assert_eq!(max_on_disk(&b).unwrap(), index.max());
    }

    #[test]
    fn truncated_and_noted_again_it_is_as_if_the_rest_had_never_been() {
        let all = headers(200);
        for cut in 0..200 {
            let position = all[cut].0;
            let mut truncated = index(&all);
            let from = truncated.truncate(position);
            for (at, header) in all[..cut].iter().filter(|(at, _)| *at >= from) {
                truncated.note(header, BASE, *at, 300);
            }
            let fresh = index(&all[..cut]);
            assert_eq!(truncated.encode(), fresh.encode(), "cut at {cut}");
            assert_eq!(truncated.max(), fresh.max(), "cut at {cut}");
        }
    }

    #[test]
    fn files_that_are_not_sound_are_refused() {
        let (offsets, times) = index(&headers(100)).encode();
        assert!(MemoryIndex::decode(&offsets, &times, 1 << 20).is_some());
        assert!(MemoryIndex::decode(&offsets, &times, 100).is_none());
        assert!(MemoryIndex::decode(&offsets[1..], &times, 1 << 20).is_none());
        let mut twice = offsets.clone();
        twice.extend_from_slice(&offsets);
        assert!(MemoryIndex::decode(&twice, &times, 1 << 20).is_none());
    }
}
