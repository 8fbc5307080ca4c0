//! One partition's folder: its small files, its segments batch by batch, and how they fit together.

use super::aborted::{Aborted, Open};
use super::indexes::Indexes;
use super::{Finding, Tell, content, damage, note};
use crate::batch::{BatchHeader, Marker};
use crate::epochs::{EpochCache, Parsed, Rest};
use crate::partition::{
    CLEANED_TO, EPOCHS, LOG_START, RECOVERY_POINT, offset_of, parse_offset_line,
};
use crate::producers::Snapshot;
use crate::scan::{Scan, ScanError};
use crate::segment::{self, CLEANED, DELETED, LOG, SNAPSHOT, SWAP};
use crate::{LogError, disk};
use leasehold_types::Offset;
use std::path::Path;

/// Whether these are the names in a partition's folder.
pub(super) fn is_one(names: &[String]) -> bool {
    names
        .iter()
        .any(|n| n == EPOCHS || offset_of(n, LOG).is_some())
}

/// What is known of the partition besides the segment at hand.
struct Facts {
    epochs: Option<EpochCache>,
    start: Offset,
    point: Offset,
    /// The last life closed everything in order.
    clean: bool,
    /// A cleaned segment is half in its place.
    swapping: bool,
}

/// Tells all that is in a partition's folder; where its log ends.
pub(super) fn inspect(
    folder: &Path,
    mut names: Vec<String>,
    clean: bool,
    tell: &mut Tell<'_>,
) -> Result<Offset, LogError> {
    names.sort();
    tell(Finding::Partition(folder));
    let mut bases: Vec<Offset> = names.iter().filter_map(|n| offset_of(n, LOG)).collect();
    bases.sort_unstable();
    let first = bases.first().copied().unwrap_or_default();
    let facts = Facts {
        point: offset_file(folder, RECOVERY_POINT, tell).unwrap_or_default(),
        start: offset_file(folder, LOG_START, tell).unwrap_or(first),
        epochs: epochs(&folder.join(EPOCHS), tell),
        clean,
        swapping: names.iter().any(|n| n.ends_with(&format!(".{SWAP}"))),
    };
    let _ = offset_file(folder, CLEANED_TO, tell);
    let mut end = first;
    let mut size = 0;
    let mut open = Open::at(folder, first);
    for (i, &base) in bases.iter().enumerate() {
        let path = segment::file(folder, base, LOG);
        if base != end && !facts.swapping {
            let what = format!("it begins at {base}, and the one before it ends at {end}");
            damage(tell, &path, 0, what);
        }
        size = disk::len(&path)?;
        let next = bases.get(i + 1).copied();
        end = walk((&path, base, size), next, &facts, &mut open, tell);
    }
    let last = segment::file(folder, bases.last().copied().unwrap_or_default(), LOG);
    if end < facts.point && !facts.swapping {
        let what = format!(
            "all below {} was flushed, and the log ends at {end}",
            facts.point
        );
        damage(tell, &last, size, what);
    } else if clean && end != facts.point && !bases.is_empty() {
        let what = format!(
            "it was closed in order at {}, and ends at {end}",
            facts.point
        );
        damage(tell, &last, size, what);
    }
    if facts.start > end {
        let what = format!("the log begins at {}, beyond its end, {end}", facts.start);
        damage(tell, &folder.join(LOG_START), 0, what);
    }
    for name in &names {
        other(folder, name, end, tell);
    }
    Ok(end)
}

/// A file of one offset.
fn offset_file(folder: &Path, name: &'static str, tell: &mut Tell<'_>) -> Option<Offset> {
    let path = folder.join(name);
    let content = content(&path, tell)?;
    let Some(offset) = parse_offset_line(&content) else {
        damage(tell, &path, 0, "it is no offset with its checksum");
        return None;
    };
    tell(Finding::OffsetFile { name, offset });
    Some(offset)
}

fn epochs(path: &Path, tell: &mut Tell<'_>) -> Option<EpochCache> {
    let Some(content) = content(path, tell) else {
        damage(
            tell,
            path,
            0,
            "it is missing: the next start reads all batches",
        );
        return None;
    };
    let Parsed {
        epochs,
        sound_to,
        rest,
    } = EpochCache::parse(&content);
    for &(epoch, start) in epochs.entries() {
        tell(Finding::Epoch { epoch, start });
    }
    let what = match rest {
        Rest::Nothing => return Some(epochs),
        Rest::Torn => "a line is cut short: the next start leaves it out",
        Rest::Damaged => "the line is damaged: the next start reads all batches",
    };
    damage(tell, path, sound_to as u64, what);
    (rest == Rest::Torn).then_some(epochs)
}

/// A segment's batches; where the last intact one ends.
fn walk(
    (path, base, size): (&Path, Offset, u64),
    next: Option<Offset>,
    facts: &Facts,
    open: &mut Open,
    tell: &mut Tell<'_>,
) -> Offset {
    tell(Finding::Segment { path, size });
    let sealed = next.is_some_and(|next| next <= facts.point) || (next.is_none() && facts.clean);
    // Those of other segments are made anew from the batches.
    let mut indexes = sealed.then(|| Indexes::open(path, base, size, tell));
    let mut aborted = Aborted::default();
    let mut end = base;
    let mut last_epoch = None;
    let file = match disk::open(path) {
        Ok(file) => file,
        Err(e) => {
            damage(tell, path, 0, e.to_string());
            return end;
        }
    };
    let cut = |end: Offset| match end >= facts.point {
        true => "; it was never flushed, and the next start cuts the log here",
        false => "",
    };
    let mut scan = Scan::new(&file, path, 0, size);
    loop {
        let at = scan.position();
        let (at, header) = match scan.next_header() {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(e) => {
                damage(
                    tell,
                    path,
                    at,
                    format!("no batch is here: {}{}", words(e), cut(end)),
                );
                return end;
            }
        };
        tell(Finding::Batch { at, header });
        if let Err(e) = scan.check_crc(at, &header) {
            damage(
                tell,
                path,
                at,
                format!("the batch is damaged: {}{}", words(e), cut(end)),
            );
        }
        if header.base_offset < end {
            let what = format!(
                "its offset is {} where {end} was next{}",
                header.base_offset,
                cut(end)
            );
            damage(tell, path, at, what);
        }
        let beyond = next.filter(|&next| header.next_offset() > next && !facts.swapping);
        if let Some(next) = beyond {
            let what = format!(
                "its offset is {}, and the next segment begins at {next}",
                header.base_offset
            );
            damage(tell, path, at, what);
        }
        if let Some(what) = wrong_epoch(&header, last_epoch, facts) {
            damage(tell, path, at + 12, what);
        }
        last_epoch = Some(header.leader_epoch);
        if let Some(indexes) = &mut indexes {
            indexes.batch(at, &header, tell);
        }
        let control = header.is_control().then(|| scan.batch(at, &header).ok());
        let marker = control
            .flatten()
            .and_then(|batch| Marker::parse(&header, &batch.bytes));
        aborted.batch(&header, marker, open, tell);
        end = header.next_offset();
    }
    if let Some(indexes) = indexes {
        indexes.end(tell);
        aborted.end(path, tell);
    }
    end
}

fn words(e: ScanError) -> String {
    match e {
        ScanError::Io(e) => e.to_string(),
        ScanError::Bad(e) => e.to_string(),
    }
}

/// No checksum covers a batch's leader epoch, but each epoch's start was written before its first batch.
fn wrong_epoch(
    header: &BatchHeader,
    before: Option<leasehold_types::LeaderEpoch>,
    facts: &Facts,
) -> Option<String> {
    let epoch = header.leader_epoch;
    if let Some(before) = before.filter(|&before| before > epoch) {
        return Some(format!("its leader epoch is {epoch}, after {before}"));
    }
    let epochs = facts.epochs.as_ref()?;
    // Those that end before the log's start are forgotten.
    if header.base_offset < facts.start {
        return None;
    }
    match epochs.of(header.base_offset) {
        Some(known) if known == epoch => None,
        Some(known) => Some(format!(
            "its leader epoch is {epoch}, where {known} is on record"
        )),
        None => Some(format!(
            "its leader epoch is {epoch}, where none is on record"
        )),
    }
}

/// The files that are no segments.
fn other(folder: &Path, name: &str, end: Offset, tell: &mut Tell<'_>) {
    let path = folder.join(name);
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    if let Some(at) = offset_of(name, SNAPSHOT) {
        return snapshot(&path, at, end, tell);
    }
    match suffix {
        SWAP => note(
            tell,
            &path,
            "a cleaned segment half in its place: the next start puts it there",
        ),
        CLEANED | DELETED | "tmp" => note(tell, &path, "a left-over: the next start removes it"),
        _ => {}
    }
}

fn snapshot(path: &Path, at: Offset, end: Offset, tell: &mut Tell<'_>) {
    if at > end {
        return note(
            tell,
            path,
            "it lies beyond the log's end: the next start removes it",
        );
    }
    let Some(content) = content(path, tell) else {
        return;
    };
    let Some(Snapshot { producers, .. }) = Snapshot::decode(&content) else {
        return damage(
            tell,
            path,
            0,
            "its checksum is wrong: an earlier one, or the log, is used",
        );
    };
    for producer in producers.list() {
        tell(Finding::Producer { at, producer });
    }
}
