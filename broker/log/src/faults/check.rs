//! The promises, held against a directory that a crash or an error left.
//!
//! `past` is what the directory held after each step, and the crash came after step `at`, within the
//! next. Then:
//! - the directory opens, and every log in it;
//! - each log holds a beginning of what it held at one of these moments, byte for byte: at the two next
//!   to the crash, if the process was killed; if the power was cut, at any since all of it was durable.
//!   What was flushed is in it, and none of what was deleted by request;
//! - its epochs, indexes, producers and transactions are those of its batches;
//! - the high watermarks, and what the `run` file says, are those of before or after the step; a clean
//!   marker is there only if nothing is lost;
//! - and the log goes on from there, through a clean close.

use super::replay::Crash;
use super::scenario::{
    COMPACTED, Failure, Held, Moment, PARTITIONS, PRODUCER, Step, World, config, header,
    next_sequence, open_dir, read, records, topic,
};
use super::transactions::transactions;
use crate::batch::{BatchHeader, RecordBatchBuilder, batches};
use crate::{LogDir, PartitionLog};
use bytes::Bytes;
use leasehold_types::{Incarnation, Offset};
use std::path::Path;
use std::sync::Arc;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

/// Starts a broker on what the crash left, and checks it. The broker is returned, and runs. `again`: an
/// earlier start on it got no further than this one may.
pub(super) fn after_crash(
    path: &Path,
    past: &[Moment],
    at: usize,
    crash: Crash,
    again: bool,
) -> Result<World, Failure> {
    let before = &past[at];
    let after = past.get(at + 1).unwrap_or(before);
    let dir = open_dir(path)?;
    let clean = dir.was_clean();
    ensure!(
        clean == before.clean || clean == after.clean || (again && !clean),
        "the clean marker: {clean}, which it was neither before nor after"
    );
    let marks = dir.high_watermark_checkpoints();
    ensure!(
        marks == before.marks || marks == after.marks,
        "high watermarks {marks:?}, neither {:?} nor {:?}",
        before.marks,
        after.marks
    );
    let life = begin(&dir, before, after, again)?;
    let mut logs = Vec::new();
    let mut now = Moment {
        marks,
        confirmed: Some(life),
        ..Moment::default()
    };
    for p in 0..PARTITIONS {
        let log = dir.open_partition(topic(), p as i32, config(p));
        let log = log.map_err(|e| e.to_string())?;
        let since = match crash {
            Crash::Killed => at,
            _ => (0..=at).rev().find(|&i| past[i].settled[p]).unwrap_or(0),
        };
        let moments = &past[since..past.len().min(at + 2)];
        now.logs[p] = log_after_crash(&log, moments, p, crash, clean)
            .map_err(|e| format!("partition {p}: {e}"))?;
        logs.push(log);
    }
    Ok(World::with(path.to_owned(), dir, logs, now, life.0))
}

/// Registers a new life, and checks what it is told of those before.
fn begin(
    dir: &LogDir,
    before: &Moment,
    after: &Moment,
    again: bool,
) -> Result<Incarnation, Failure> {
    let last = [before, after]
        .iter()
        .flat_map(|m| m.attempted.last().max(m.confirmed.as_ref()))
        .max();
    let life = Incarnation(last.map_or(0, |last| last.0) + if again { 2 } else { 1 });
    let clean = dir.was_clean();
    let report = dir.begin(life).map_err(|e| e.to_string())?;
    let confirmed = report.confirmed.as_ref().map(|c| c.incarnation);
    ensure!(
        again
            || [before, after].iter().any(|m| {
                let attempted = m.attempted.iter().copied().chain([life]);
                m.confirmed == confirmed && attempted.eq(report.attempted.iter().copied())
            }),
        "the run file says {report:?}"
    );
    ensure!(
        report.confirmed.is_none_or(|c| c.clean == clean),
        "two opinions of the clean marker"
    );
    dir.confirm(life).map_err(|e| e.to_string())?;
    Ok(life)
}

/// The batches of `held` within two offsets.
fn between(held: &Held, start: i64, end: i64) -> Vec<&Bytes> {
    let ends = |b: &&Bytes| header(b).next_offset().0;
    let inside = |b: &&Bytes| ends(b) > start && ends(b) <= end;
    held.batches.iter().filter(inside).collect()
}

/// The batches of `held` within two offsets; `None` if it never held all of these.
fn within(held: &Held, start: i64, end: i64) -> Option<Vec<&Bytes>> {
    let ends = held.end == end
        || held
            .batches
            .iter()
            .any(|b| header(b).next_offset().0 == end);
    let begins = held.start <= start;
    ((ends && begins) || start == end).then(|| between(held, start, end))
}

fn is_one_of(found: &[Bytes], moments: &[Moment], p: usize, start: i64, end: i64) -> Option<usize> {
    for (i, moment) in moments.iter().enumerate().rev() {
        let held = &moment.logs[p];
        let Some(was) = within(held, start, end) else {
            continue;
        };
        if found.iter().eq(was.iter().copied()) {
            return Some(i);
        }
        // A cleaning swaps one segment after the other.
        let cleaned = moments
            .get(i + 1)
            .filter(|next| p == COMPACTED && matches!(next.step, Some(Step::Clean) | None));
        if let Some(now) = cleaned.map(|next| between(&next.logs[p], start, end)) {
            let known = found.iter().all(|b| was.contains(&b) || now.contains(&b));
            let both = was.iter().filter(|b| now.contains(b));
            if known && both.into_iter().all(|b| found.contains(b)) {
                return Some(i);
            }
        }
    }
    None
}

fn log_after_crash(
    log: &PartitionLog,
    moments: &[Moment],
    p: usize,
    crash: Crash,
    clean: bool,
) -> Result<Held, Failure> {
    let found = read(log)?;
    let (start, end) = (log.log_start_offset().0, log.log_end_offset().0);
    let range = format!("{start} to {end}");
    let held: Vec<&Held> = moments.iter().map(|m| &m.logs[p]).collect();
    let cut = matches!(crash, Crash::Killed);
    let (before, after) = match held[..] {
        [.., before, after] => (before, after),
        [only] => (only, only),
        [] => unreachable!(),
    };
    let reset = moments.last().and_then(|m| m.step);
    let reset = matches!(reset, Some(Step::Reset(q, _)) if q == p);
    let empty = found.is_empty()
        && (reset
            || matches!(
                moments.last().and_then(|m| m.step),
                Some(Step::DeletePartition)
            ));
    let matched = is_one_of(&found, moments, p, start, end);
    ensure!(
        matched.is_some() || empty,
        "it holds {range}, {}, which it never did: then {}",
        offsets(&found),
        held.iter()
            .map(|h| offsets(&h.batches))
            .collect::<Vec<_>>()
            .join("; ")
    );
    let was = match matched {
        // An empty log is what it was at any of these moments; if it knows producers, before it started anew.
        _ if found.is_empty() && !log.active_producers().is_empty() => before,
        Some(i) => held[i],
        None => after,
    };
    if !reset {
        let sure = match cut {
            true => before.end.min(after.end),
            false => before.durable_to.min(after.durable_to),
        };
        let most = held.iter().map(|h| h.end).max().unwrap_or(0);
        ensure!(
            end >= sure && end <= most,
            "it holds {range}, where {sure} was sure"
        );
        let least = held.iter().map(|h| h.start).min().unwrap_or(0);
        let most = held.iter().map(|h| h.start).max().unwrap_or(0);
        ensure!(
            start >= least.min(end) && start <= most.max(0),
            "it starts at {start}, which was within {least} to {most}"
        );
        let deleted = before.deleted_to.min(after.deleted_to).min(end);
        ensure!(
            start >= deleted,
            "it starts at {start}, and {deleted} was deleted"
        );
    }
    if clean {
        ensure!(
            [before, after]
                .iter()
                .any(|h| h.end == end && h.start == start),
            "a clean marker, and {range} is not all"
        );
    }
    epochs(log, &found, before, after)?;
    if !empty {
        indexes(log, &found)?;
        producers(log, was, start, end, p)?;
    }
    let mut ever = was.ever.clone();
    ever.retain(|b| header(b).next_offset().0 <= end);
    if !empty {
        transactions(log, &found, &ever)?;
    }
    Ok(Held {
        created: log.folder().exists(),
        start,
        end,
        batches: found,
        ever,
        epochs: log.epochs().iter().map(|(e, o)| (e.0, o.0)).collect(),
        deleted_to: 0,
        durable_to: end,
    })
}

fn offsets(found: &[Bytes]) -> String {
    let one = |b: &Bytes| {
        let h = header(b);
        format!("{}@{}e{}", h.base_offset, h.record_count, h.leader_epoch)
    };
    found.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn epochs(log: &PartitionLog, found: &[Bytes], before: &Held, after: &Held) -> Result<(), Failure> {
    let known = log.epochs();
    for batch in found {
        let h = header(batch);
        ensure!(
            log.epoch_of(h.base_offset) == Some(h.leader_epoch),
            "the batch at {} is of epoch {}; the epochs are {known:?}",
            h.base_offset,
            h.leader_epoch
        );
    }
    let (first, end) = (log.log_start_offset().0, log.log_end_offset().0);
    let both = before.epochs.iter().filter(|e| after.epochs.contains(e));
    for &(epoch, start) in both.filter(|_| before.created) {
        ensure!(
            // Of one that began before the log does, it matters only that its batches have it.
            start > end || start < first || known.iter().any(|(e, s)| (e.0, s.0) == (epoch, start)),
            "epoch {epoch} at {start} is not among {known:?}"
        );
    }
    ensure!(
        known.iter().all(|(_, start)| start.0 <= end),
        "the epochs {known:?} go beyond the end, {end}"
    );
    Ok(())
}

/// Whatever is looked up is found where a search from the start finds it.
pub(super) fn indexes(log: &PartitionLog, found: &[Bytes]) -> Result<(), Failure> {
    let end = log.log_end_offset();
    let start = log.log_start_offset().0;
    for batch in found {
        let h = header(batch);
        for at in [h.base_offset.0.max(start), h.last_offset().0] {
            let first = log
                .read(Offset(at), 1, end, true)
                .map_err(|e| e.to_string())?;
            ensure!(first == batch, "a read at {at} gives another batch");
        }
    }
    let all: Vec<_> = found
        .iter()
        .flat_map(records)
        .filter(|r| r.0 >= start)
        .collect();
    let times: Vec<i64> = all.iter().map(|r| r.1).collect();
    let (first, last) = (times.first().copied(), times.last().copied());
    let some = [
        first,
        first.map(|t| t + 3),
        times.get(times.len() / 2).copied(),
        last,
    ];
    for time in some.into_iter().flatten().chain([0]) {
        let want = all.iter().find(|r| r.1 >= time);
        let got = log
            .offset_for_timestamp(time, end)
            .map_err(|e| e.to_string())?;
        let got = got.map(|g| (g.offset.0, g.timestamp));
        ensure!(
            got.as_ref() == want,
            "time {time}: {got:?} where {want:?} is right"
        );
    }
    let newest = log.max_timestamp(end).map_err(|e| e.to_string())?;
    let want = times.iter().max().copied();
    ensure!(
        newest.map(|n| n.timestamp) == want,
        "newest: {newest:?}, not {want:?}"
    );
    Ok(())
}

/// The idempotent producer goes on where it ended, and a repeat is recognized.
fn producers(
    log: &PartitionLog,
    was: &Held,
    start: i64,
    end: i64,
    p: usize,
) -> Result<(), Failure> {
    let ever: Vec<_> = was
        .ever
        .iter()
        .filter(|b| header(b).next_offset().0 <= end)
        .cloned()
        .collect();
    let Some(next) = next_sequence(&ever, PRODUCER) else {
        return Ok(());
    };
    let known = log.producers();
    let sent = ever.iter().map(header);
    let sent = sent.filter(|h| h.producer_id == PRODUCER);
    let last: Vec<BatchHeader> = sent.collect();
    let kept = match p {
        COMPACTED => 1,
        _ => 5,
    };
    for h in last
        .iter()
        .rev()
        .take(kept)
        .filter(|h| h.base_offset.0 >= start)
    {
        let repeat = known
            .check(h, None)
            .map_err(|e| format!("a repeat of {}: {e}", h.base_offset))?;
        ensure!(
            repeat.is_some_and(|r| r.base_offset == h.base_offset),
            "a repeat of {} is taken for {repeat:?}",
            h.base_offset
        );
    }
    let b = RecordBatchBuilder::new()
        .producer(PRODUCER, 0, next)
        .build();
    let judged = known.check(&header(&b), None);
    ensure!(
        judged == Ok(None),
        "the producer's next sequence, {next}: {judged:?}"
    );
    Ok(())
}

/// The broker goes on, closes in order, and a start after that finds all of it.
pub(super) fn goes_on(mut world: World, path: &Path) -> Result<(), Failure> {
    use Step::{Close, Epoch, FlushSealed, Follow, Lead, Produce, Transact};
    let mut steps = Vec::new();
    for p in [super::scenario::PLAIN, COMPACTED] {
        steps.extend([
            Epoch(p),
            Lead(p),
            Produce(p),
            Transact(p),
            Step::End(p, false),
            FlushSealed(p),
            Follow(p, 3, true),
        ]);
    }
    steps.push(Close);
    let (past, failure) = world.live(&steps, || 0);
    ensure!(failure.is_none(), "it does not go on: {failure:?}");
    let open = past.len() - 2;
    let closed = &past[open];
    let dir = open_dir(path)?;
    ensure!(dir.was_clean(), "it was closed in order, and is not clean");
    for (p, held) in closed.logs.iter().enumerate() {
        let log = dir
            .open_partition(topic(), p as i32, config(p))
            .map_err(|e| e.to_string())?;
        let found = read(&log)?;
        ensure!(
            found == held.batches,
            "partition {p}: what was closed is not what is opened"
        );
        let epochs: Vec<_> = log.epochs().iter().map(|(e, o)| (e.0, o.0)).collect();
        ensure!(
            !held.created || epochs == held.epochs,
            "partition {p}: epochs {epochs:?}, not {:?}",
            held.epochs
        );
        indexes(&log, &found)?;
        producers(&log, held, held.start, held.end, p)?;
        transactions(&log, &found, &held.ever)?;
    }
    Ok(())
}

/// Whether reading a log gives batches that are not damaged, or says where it is damaged.
pub(super) fn reads_or_says_why(log: &PartitionLog) -> Option<Vec<Bytes>> {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let mut all = Vec::new();
    while at < end {
        let bytes = log.read(at, 400, end, true).ok()?;
        let before = at;
        for batch in batches(bytes) {
            let batch = batch.ok().filter(|b| b.check_crc().is_ok())?;
            at = batch.header.next_offset();
            all.push(batch.bytes);
        }
        if at <= before {
            return None;
        }
    }
    Some(all)
}

/// The logs of a directory that is opened as it is.
pub(super) fn open_all(path: &Path) -> Result<(Arc<LogDir>, Vec<Arc<PartitionLog>>), Failure> {
    let dir = open_dir(path)?;
    dir.begin(Incarnation(1000)).map_err(|e| e.to_string())?;
    dir.confirm(Incarnation(1000)).map_err(|e| e.to_string())?;
    let open = |p| dir.open_partition(topic(), p as i32, config(p));
    let logs: Result<Vec<_>, _> = (0..PARTITIONS).map(open).collect();
    Ok((dir.clone(), logs.map_err(|e| e.to_string())?))
}
