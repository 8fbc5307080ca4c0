//! Opening a log: as a clean close left it, or by recovery.
//!
//! After a clean close only the active segment's index, the producers' snapshot and the small
//! checkpoint files are read. Recovery reads every batch from the segment that holds the recovery
//! point on, checks its CRC and that it continues the one before, rebuilds indexes, epochs and
//! producers on the way, cuts at the first bad batch and deletes what follows.

use super::{
    CLEANED_TO, EPOCHS, LOG_START, PartitionLog, RECOVERY_POINT, View, Writer, offset_line,
    read_hint, read_offset,
};
use crate::aborted::AbortedTxn;
use crate::batch::{BatchHeader, Marker};
use crate::dir::Shared;
use crate::epochs::{EpochCache, Rest};
use crate::index::MemoryIndex;
use crate::producers::{Producers, Snapshot};
use crate::scan::{Scan, ScanError};
use crate::segment::{
    self, CLEANED, DELETED, INDEX, LOG, SNAPSHOT, Segment, TIME_INDEX, TXN_INDEX,
};
use crate::transactions::{Stability, Transactions};
use crate::{LogConfig, LogError, disk};
use leasehold_types::{Offset, TopicId};
use parking_lot::{Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The segments as found, and what was learnt on the way.
struct Found {
    segments: Vec<Arc<Segment>>,
    end: Offset,
    epochs: EpochCache,
    /// Below it, the batches and the index files are on disk.
    recovery_point: Offset,
    /// Whether the files are as a clean close leaves them.
    clean: bool,
}

impl PartitionLog {
    /// Opens the log in `folder`, which need not be there. With `clean`, the last process closed it
    /// in order; what does not look like it is recovered all the same.
    pub(crate) fn open(
        id: (TopicId, i32),
        folder: PathBuf,
        config: LogConfig,
        shared: Arc<Shared>,
        clean: bool,
    ) -> Result<Arc<Self>, LogError> {
        let name: Arc<str> = format!("{}-{}", id.0, id.1).into();
        let interval = config.index_interval_bytes;
        let created = disk::exists(&folder)?;
        let mut bases = match created {
            true => tidy(&folder)?,
            false => Vec::new(),
        };
        // Not without it, if it is damaged: that would bring deleted records back.
        let start_file = folder.join(LOG_START);
        let deleted_to = read_offset(&start_file)?;
        remove_below(&folder, &mut bases, deleted_to.unwrap_or_default())?;
        let point = read_hint(&folder.join(RECOVERY_POINT))?.unwrap_or_default();
        let found = match clean {
            true => open_clean(&folder, &bases, point, interval)?,
            false => None,
        };
        let found = match found {
            Some(found) => found,
            None if !created => Found {
                segments: Vec::new(),
                end: Offset(0),
                epochs: EpochCache::default(),
                recovery_point: Offset(0),
                clean: true,
            },
            None => recover(&name, &folder, &bases, point, interval)?,
        };
        let Found { segments, end, .. } = &found;
        let first = segments.first().map_or(*end, |s| s.base());
        let deleted_to = deleted_to.unwrap_or(first);
        if deleted_to > *end {
            // What is appended from here on was never deleted.
            disk::write_durably(&start_file, offset_line(*end).as_bytes())?;
        }
        let start = deleted_to.max(first).min((*end).max(first));
        let mut saved_point = point;
        if *end < point {
            // Damage below the point: what is appended there next is neither fsynced nor indexed.
            let line = offset_line(found.recovery_point);
            disk::write_durably(&folder.join(RECOVERY_POINT), line.as_bytes())?;
            saved_point = found.recovery_point;
        }
        let cleaned_file = folder.join(CLEANED_TO);
        let mut cleaned_to = read_hint(&cleaned_file)?.unwrap_or_default();
        if cleaned_to > *end {
            // What is appended from here on was never compacted.
            disk::write_durably(&cleaned_file, offset_line(*end).as_bytes())?;
            cleaned_to = *end;
        }
        let (producers, transactions) = known_of_producers(&folder, &found, created, interval)?;
        let first_timestamp = match segments.last() {
            Some(active) => first_timestamp(active, interval)?,
            None => None,
        };
        let flush_soon = !found.clean && segments.len() > 1;
        let writer = Writer {
            created,
            producers,
            recovery_point: found.recovery_point,
            cleaned_to,
            first_timestamp,
            draw: leasehold_types::seams::random_u128() as u64,
            dirty: !found.clean,
            unflushed_records: 0,
            unflushed_since_ms: None,
        };
        let view = View {
            start,
            end: *end,
            segments: Arc::new(found.segments),
            epochs: Arc::new(found.epochs),
            generation: 0,
        };
        let log = Arc::new_cyclic(|myself| Self {
            id,
            name,
            folder,
            shared,
            myself: myself.clone(),
            config: RwLock::new(Arc::new(config)),
            cleaning: Mutex::new(()),
            flushing: Mutex::new(()),
            writer: Mutex::new(writer),
            saved_point: Mutex::new(saved_point),
            view: RwLock::new(view),
            stability: Stability::new(transactions),
            discarded: Mutex::default(),
            offline: OnceLock::new(),
        });
        if flush_soon {
            log.shared.flush_later(Arc::downgrade(&log));
        }
        Ok(log)
    }
}

/// Removes what a crash left half-done; returns the segments' base offsets, rising.
fn tidy(folder: &Path) -> Result<Vec<Offset>, LogError> {
    super::swap::finish(folder)?;
    let names = disk::names(folder)?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|n| offset_of(n, LOG)).collect();
    bases.sort_unstable();
    for name in &names {
        let orphan = [INDEX, TIME_INDEX, TXN_INDEX]
            .iter()
            .filter_map(|suffix| offset_of(name, suffix))
            .any(|base| bases.binary_search(&base).is_err());
        let left_over = ["tmp", DELETED, CLEANED]
            .iter()
            .any(|suffix| name.rsplit_once('.').is_some_and(|(_, s)| s == *suffix));
        if orphan || left_over {
            disk::remove(&folder.join(name))?;
        }
    }
    Ok(bases)
}

/// Removes the segments that end at or below `start`: they were deleted, and came back by a power cut.
fn remove_below(folder: &Path, bases: &mut Vec<Offset>, start: Offset) -> Result<(), LogError> {
    let gone = bases.windows(2).take_while(|two| two[1] <= start).count();
    for base in bases.drain(..gone) {
        for suffix in [LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT] {
            disk::remove(&segment::file(folder, base, suffix))?;
        }
    }
    Ok(())
}

/// The offset in a file's name, `<20 digits>.<suffix>`.
pub(crate) fn offset_of(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix)?.strip_suffix('.')?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    well_formed
        .then(|| digits.parse().ok().map(Offset))
        .flatten()
}

/// The offsets of the producer snapshots in a folder.
pub(super) fn snapshots(folder: &Path) -> Result<Vec<Offset>, LogError> {
    let names = disk::names(folder)?;
    Ok(names
        .iter()
        .filter_map(|name| offset_of(name, SNAPSHOT))
        .collect())
}

/// The log as a clean close left it; `None` if anything does not fit together.
fn open_clean(
    folder: &Path,
    bases: &[Offset],
    point: Offset,
    interval: u32,
) -> Result<Option<Found>, LogError> {
    let Some((&active, sealed)) = bases.split_last() else {
        return Ok(None);
    };
    let saved = EpochCache::load(&folder.join(EPOCHS))?;
    let Some(epochs) = saved.filter(|s| s.rest == Rest::Nothing).map(|s| s.epochs) else {
        return Ok(None);
    };
    let mut segments = Vec::with_capacity(bases.len());
    for &base in sealed {
        let size = disk::len(&segment::file(folder, base, LOG))?;
        segments.push(Arc::new(Segment::sealed(folder, base, size)));
    }
    let path = segment::file(folder, active, LOG);
    let size = disk::len(&path)?;
    let Some(mut index) = segment::read_index_files(&path, size)? else {
        return Ok(None);
    };
    let mut end = active;
    if size > 0 {
        let from = index.truncate(size);
        let file = disk::open(&path)?;
        let mut scan = Scan::new(&file, &path, from, size);
        loop {
            match scan.next_header() {
                Ok(Some((at, header))) if header.base_offset >= end => {
                    index.note(&header, active.0, at, interval);
                    end = header.next_offset();
                }
                Ok(None) => break,
                Err(ScanError::Io(e)) => return Err(e),
                Ok(Some(_)) | Err(ScanError::Bad(_)) => return Ok(None),
            }
        }
    }
    let segment = Segment::with_index(folder, active, size, index);
    segments.push(Arc::new(segment));
    // A clean close puts the recovery point at the end: all agrees, or nothing is believed.
    Ok((end == point).then_some(Found {
        segments,
        end,
        epochs,
        recovery_point: end,
        clean: true,
    }))
}

/// See the module's documentation.
fn recover(
    name: &str,
    folder: &Path,
    bases: &[Offset],
    point: Offset,
    interval: u32,
) -> Result<Found, LogError> {
    let path = folder.join(EPOCHS);
    let saved = EpochCache::load(&path)?;
    // Without the file, or a part of it, the epochs are in the batches, all of them.
    let point = match &saved {
        Some(saved) if saved.rest != Rest::Damaged => point,
        _ => Offset(0),
    };
    let mut epochs = saved
        .as_ref()
        .map_or_else(EpochCache::default, |s| s.epochs.clone());
    let mut seen = EpochCache::default();
    let mut segments = Vec::new();
    let mut end = bases.first().copied().unwrap_or_default();
    let mut trusted = Offset(0);
    let mut cut = false;
    let mut rest = bases.iter().copied().peekable();
    while let Some(base) = rest.next() {
        let file = segment::file(folder, base, LOG);
        let size = disk::len(&file)?;
        if let Some(&next) = rest.peek()
            && next <= point
        {
            segments.push(Arc::new(Segment::sealed(folder, base, size)));
            (end, trusted) = (next, next);
            continue;
        }
        let checked = check_segment(&file, base, size, interval, &mut seen)?;
        end = checked.end;
        let segment = Segment::with_index(folder, base, checked.valid, checked.index);
        segments.push(Arc::new(segment));
        let hole = rest.peek().is_some_and(|&next| next != end);
        if checked.valid == size && !hole {
            continue;
        }
        let later: Vec<_> = rest.collect();
        let why = checked
            .why
            .unwrap_or_else(|| "the next segment does not continue it".into());
        tracing::warn!(
            partition = name, segment = %file.display(), why, end = %end,
            cut_bytes = size - checked.valid, deleted_segments = later.len(),
            "recovery cuts the log at the first bad batch"
        );
        // From the end, so that a crash in between leaves no hole.
        for &base in later.iter().rev() {
            disk::remove(&segment::file(folder, base, LOG))?;
            disk::remove(&segment::file(folder, base, INDEX))?;
            disk::remove(&segment::file(folder, base, TIME_INDEX))?;
            disk::remove(&segment::file(folder, base, TXN_INDEX))?;
        }
        let open = disk::open_to_write(&file)?;
        disk::shorten(&open, &file, checked.valid)?;
        disk::sync(&open, &file)?;
        cut = true;
        break;
    }
    // An epoch may have been begun at the very end; one beyond it belongs to what was cut.
    epochs.truncate_from(Offset(end.0 + 1));
    epochs.merge(&seen);
    if saved.is_none_or(|saved| saved.rest != Rest::Nothing || saved.epochs != epochs) {
        epochs.save(&path)?;
    }
    for at in snapshots(folder)? {
        if at > end {
            disk::remove(&segment::file(folder, at, SNAPSHOT))?;
            cut = true;
        }
    }
    if cut {
        // Before anything takes the place of what was cut off: a power cut could bring that back behind
        // the new, or a snapshot of other producers.
        disk::sync_folder(folder)?;
    }
    Ok(Found {
        segments,
        end,
        epochs,
        recovery_point: trusted,
        clean: false,
    })
}

struct Checked {
    /// Bytes of intact batches.
    valid: u64,
    end: Offset,
    index: MemoryIndex,
    /// What is wrong with the bytes after those.
    why: Option<String>,
}

/// Reads a whole segment, up to the first batch that is not intact or does not continue the log.
fn check_segment(
    path: &Path,
    base: Offset,
    size: u64,
    interval: u32,
    epochs: &mut EpochCache,
) -> Result<Checked, LogError> {
    let file = disk::open(path)?;
    let mut scan = Scan::new(&file, path, 0, size);
    let mut checked = Checked {
        valid: 0,
        end: base,
        index: MemoryIndex::default(),
        why: None,
    };
    loop {
        let step = scan.next_header().and_then(|next| match next {
            Some((at, header)) => scan.check_crc(at, &header).map(|()| Some((at, header))),
            None => Ok(None),
        });
        let (at, header) = match step {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(ScanError::Io(e)) => return Err(e),
            Err(ScanError::Bad(why)) => {
                checked.why = Some(why.to_string());
                break;
            }
        };
        if let Some(why) = out_of_place(&header, base, checked.end) {
            checked.why = Some(why);
            break;
        }
        checked.index.note(&header, base.0, at, interval);
        epochs.assign(header.leader_epoch, header.base_offset);
        checked.end = header.next_offset();
        checked.valid = at + header.total_len() as u64;
    }
    Ok(checked)
}

/// Whether an intact batch does not belong where it was found.
fn out_of_place(header: &BatchHeader, base: Offset, end: Offset) -> Option<String> {
    let here = header.base_offset;
    // Above it may lie: compaction, here or on the leader that it came from, leaves holes. What a crash
    // cuts off is a segment's end, and that has none (`clean`).
    if here < end {
        return Some(format!("its offset is {here} where {end} was next"));
    }
    (header.last_offset().0 - base.0 > i64::from(u32::MAX))
        .then(|| format!("offset {here} is too far from the segment's {base}"))
}

/// What the batches tell of producers and their transactions.
pub(super) struct Rebuilt {
    pub producers: Producers,
    pub transactions: Transactions,
    /// Of each segment that was asked for, with its number, the transactions that were aborted in it.
    pub aborted: Vec<(usize, Vec<AbortedTxn>)>,
}

/// The producers' state before `end`: from the last snapshot that is whole, and the batches after it. Of the
/// segments from `aborted_from` on, the aborted transactions too.
pub(super) fn rebuild_producers(
    folder: &Path,
    segments: &[Arc<Segment>],
    end: Offset,
    interval: u32,
    aborted_from: Offset,
) -> Result<Rebuilt, LogError> {
    let mut offsets = snapshots(folder)?;
    // One from before the first segment does not know of what was in those between.
    let first = segments.first().map_or(end, |s| s.base());
    offsets.retain(|&at| at >= first && at <= end.min(aborted_from));
    offsets.sort_unstable();
    let mut from = Offset(0);
    let mut snapshot = Snapshot::default();
    for &at in offsets.iter().rev() {
        if let Some(saved) = Snapshot::load(&segment::file(folder, at, SNAPSHOT))? {
            (from, snapshot) = (at, saved);
            break;
        }
    }
    let Snapshot {
        mut producers,
        ended,
    } = snapshot;
    let mut transactions = Transactions::restored(producers.open(), ended);
    let mut aborted = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        let segment_end = segments.get(i + 1).map_or(end, |next| next.base());
        if segment_end <= from && segment.base() < aborted_from {
            continue;
        }
        let mut here = Vec::new();
        segment.walk(from.max(segment.base()), interval, |at, header| {
            let marker = match header.is_control() {
                true => Marker::parse(header, &segment.batch(at, header)?),
                false => None,
            };
            let noted = producers.note(header, marker);
            here.extend(transactions.note(noted));
            Ok(true)
        })?;
        if segment.base() >= aborted_from {
            aborted.push((i, here));
        }
    }
    Ok(Rebuilt {
        producers,
        transactions,
        aborted,
    })
}

/// What the producers had written when the log ended here, and the aborted transactions of the segments that are
/// not settled: as a clean close left it, or from the batches.
fn known_of_producers(
    folder: &Path,
    found: &Found,
    there: bool,
    interval: u32,
) -> Result<(Producers, Transactions), LogError> {
    let Found { segments, end, .. } = found;
    let mut unsettled = segments.iter().filter(|s| s.is_unsettled());
    let mut aborted_from = unsettled.next().map_or(*end, |s| s.base());
    if found.clean && there {
        // Only the active one is not.
        let mut sound = true;
        if let Some(active) = segments.last() {
            sound = active.load_aborted()?;
        }
        let saved = Snapshot::load(&segment::file(folder, *end, SNAPSHOT))?;
        if sound && let Some(Snapshot { producers, ended }) = saved {
            let transactions = Transactions::restored(producers.open(), ended);
            return Ok((producers, transactions));
        }
        if sound {
            aborted_from = *end;
        }
    }
    let rebuilt = rebuild_producers(folder, segments, *end, interval, aborted_from)?;
    for (i, aborted) in rebuilt.aborted {
        segments[i].set_aborted(aborted);
    }
    Ok((rebuilt.producers, rebuilt.transactions))
}

/// The max timestamp of a segment's first batch.
pub(super) fn first_timestamp(segment: &Segment, interval: u32) -> Result<Option<i64>, LogError> {
    let first = segment.locate(segment.base(), interval)?;
    Ok(first
        .map(|(_, header)| header.max_timestamp)
        .filter(|&t| t >= 0))
}
