//! A segment's index files, held against its batches as these are walked.

use super::{Finding, Tell, content, damage, note};
use crate::batch::BatchHeader;
use crate::disk;
use crate::index::{OffsetEntry, TimeEntry, offset_entries, time_entries};
use crate::segment::{INDEX, TIME_INDEX};
use leasehold_types::Offset;
use std::path::{Path, PathBuf};

/// The entries of a file that no batch has answered yet.
struct Rest<T> {
    path: PathBuf,
    entries: Vec<T>,
    /// How many were answered, and how many bytes each has.
    next: usize,
    width: u64,
}

impl<T> Rest<T> {
    /// Where the next entry lies in the file.
    fn at(&self) -> u64 {
        self.next as u64 * self.width
    }
}

/// Both files of one segment.
pub(super) struct Indexes {
    base: Offset,
    offsets: Option<Rest<OffsetEntry>>,
    times: Option<Rest<TimeEntry>>,
    /// The greatest time of a batch with records.
    greatest: Option<i64>,
}

impl Indexes {
    /// Reads the files of the segment at `segment`, which has `size` bytes.
    pub fn open(segment: &Path, base: Offset, size: u64, tell: &mut Tell<'_>) -> Self {
        Self {
            base,
            offsets: read(segment.with_extension(INDEX), size, 8, offset_entries, tell),
            times: read(
                segment.with_extension(TIME_INDEX),
                size,
                12,
                time_entries,
                tell,
            ),
            greatest: None,
        }
    }

    /// The batch at `at`, which comes after those before.
    pub fn batch(&mut self, at: u64, header: &BatchHeader, tell: &mut Tell<'_>) {
        let relative = header.base_offset.0 - self.base.0;
        if header.record_count > 0 && header.max_timestamp >= 0 {
            self.greatest = self.greatest.max(Some(header.max_timestamp));
        }
        if let Some(rest) = &mut self.offsets {
            while let Some(entry) = rest.entries.get(rest.next) {
                if u64::from(entry.position) > at {
                    break;
                }
                if u64::from(entry.position) < at || i64::from(entry.relative) != relative {
                    let offset = self.base.0 + i64::from(entry.relative);
                    let what = format!(
                        "it has offset {offset} at byte {}: no batch of that offset is there",
                        entry.position
                    );
                    damage(tell, &rest.path, rest.at(), what);
                }
                rest.next += 1;
            }
        }
        if let Some(rest) = &mut self.times {
            while let Some(entry) = rest.entries.get(rest.next) {
                if i64::from(entry.relative) > relative {
                    break;
                }
                if i64::from(entry.relative) < relative || entry.timestamp != header.max_timestamp {
                    let offset = self.base.0 + i64::from(entry.relative);
                    let what = format!(
                        "it has time {} reached at offset {offset}: no batch is like that",
                        entry.timestamp
                    );
                    damage(tell, &rest.path, rest.at(), what);
                }
                rest.next += 1;
            }
        }
    }

    /// After the segment's last batch: nothing may be left.
    pub fn end(self, tell: &mut Tell<'_>) {
        let beyond = "it has an entry beyond the segment's last batch";
        if let Some(rest) = self.offsets.filter(|rest| rest.next < rest.entries.len()) {
            damage(tell, &rest.path, rest.at(), beyond);
        }
        let Some(rest) = self.times else {
            return;
        };
        let last = rest.entries.last().map(|entry| entry.timestamp);
        if rest.next < rest.entries.len() {
            damage(tell, &rest.path, rest.at(), beyond);
        } else if last != self.greatest {
            let what = format!(
                "its last time is {last:?}, the segment's greatest {:?}",
                self.greatest
            );
            damage(tell, &rest.path, rest.at(), what);
        }
    }
}

fn read<T>(
    path: PathBuf,
    size: u64,
    width: u64,
    decode: impl Fn(&[u8]) -> Vec<T>,
    tell: &mut Tell<'_>,
) -> Option<Rest<T>> {
    if !path.exists() {
        note(
            tell,
            &path,
            "it is missing: it is made anew when it is needed",
        );
        return None;
    }
    // No batch is as small as its entry.
    if let Ok(len) = disk::len(&path)
        && len > size + width
    {
        damage(
            tell,
            &path,
            0,
            format!("{len} bytes for a segment of {size}"),
        );
        return None;
    }
    let bytes = content(&path, tell)?;
    let whole = bytes.len() as u64 / width * width;
    if whole < bytes.len() as u64 {
        damage(tell, &path, whole, "the last entry is cut short");
    }
    let entries = decode(&bytes);
    tell(Finding::Index {
        path: &path,
        entries: entries.len(),
    });
    Some(Rest {
        path,
        entries,
        next: 0,
        width,
    })
}
