//! Compacting: reads what is dirty, writes the segments anew, and has them swapped in.
//!
//! Appends and reads go on meanwhile; the writer's lock is taken to begin, for each swap, and to note
//! how far all is clean. Whatever fails before a swap leaves the log as it was and online. Segments go in
//! their order, each durable before the next: a tombstone is never dropped before what it deletes.

use super::open::rebuild_producers;
use super::swap::Rewritten;
use super::{CLEANED_TO, PartitionLog, View, offset_line};
use crate::aborted::AbortedTxn;
use crate::batch::Batch;
use crate::clean::{
    Cleanable, Fate, Filtered, LastOffsets, Pass, Rules, SegmentFacts, Verdict, filter, groups,
    keyed_records, plan,
};
use crate::index::MemoryIndex;
use crate::producers::LastRecord;
use crate::scan::{Scan, ScanError};
use crate::segment::{self, CLEANED, Segment, damaged};
use crate::{LogConfig, LogError, disk};
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, ProducerId};
use std::cell::Cell;
use std::sync::Arc;

/// What a cleaning did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// Bytes of the segments that were looked at.
    pub bytes_before: u64,
    /// Bytes of those that took their place.
    pub bytes_after: u64,
    /// Below it, all is clean now.
    pub clean_to: Offset,
}

impl PartitionLog {
    /// Whether the log is compacted and has enough to clean.
    pub fn cleanable(&self, now_ms: i64, high_watermark: Offset) -> Result<Cleanable, LogError> {
        let config = self.config();
        if !config.compact {
            return Ok(Cleanable::No);
        }
        let last_stable = self.last_stable_offset(high_watermark);
        let cleaned_to = self.writer.lock().cleaned_to;
        let view = self.snapshot();
        let judged = self.judge(&view, &config, cleaned_to, last_stable, now_ms);
        // Retention or a truncation may have taken away what was looked at: look again later.
        if judged.is_err() && !self.is_there(view.generation, view.segments.first()) {
            return Ok(Cleanable::Later);
        }
        Ok(match judged?.0 {
            Verdict::No => Cleanable::No,
            Verdict::Later => Cleanable::Later,
            Verdict::Now { dirty_ratio, .. } => Cleanable::Now { dirty_ratio },
        })
    }

    /// Cleans what is due: of each key, the records before its last go. Looks at as many as `max_keys`
    /// different keys; what is above is left to the next call. `None` if nothing is due, or if the log was
    /// truncated or deleted from meanwhile; then what was swapped in before stays.
    pub fn clean(
        &self,
        now_ms: i64,
        high_watermark: Offset,
        max_keys: usize,
    ) -> Result<Option<Cleaned>, LogError> {
        let _one_at_a_time = self.cleaning.lock();
        let config = self.config();
        if !config.compact {
            return Ok(None);
        }
        // Before the view is taken: what was decided below it is known of there.
        let last_stable = self.last_stable_offset(high_watermark);
        let (view, cleaned_to, producers) = {
            let writer = self.writer.lock();
            self.check_writable()?;
            let producers = writer.producers.last_records();
            (self.snapshot(), writer.cleaned_to, producers)
        };
        let run = Run {
            log: self,
            config: &config,
            view: &view,
            generation: Cell::new(view.generation),
            next: Cell::new(0),
        };
        let cleaned = self
            .judge(&view, &config, cleaned_to, last_stable, now_ms)
            .and_then(|(verdict, facts)| {
                let Verdict::Now { segments, .. } = verdict else {
                    return Ok(None);
                };
                let first_dirty = cleaned_to.max(view.start);
                let aborted = run.aborted(segments)?;
                let keys = run.last_offsets(segments, first_dirty, max_keys, &aborted)?;
                let below = facts[..segments].partition_point(|s| s.base < keys.end());
                // What a record supersedes must not be gone for good before that record is there for good.
                if view.segments[..below].iter().any(|s| s.is_unsettled()) {
                    self.flush_all_sealed()?;
                }
                let producers = run.last_records(below, keys.end(), producers)?;
                let rules = Rules {
                    keys: &keys,
                    producers: &producers,
                    now_ms,
                    delete_retention_ms: config.delete_retention_ms,
                };
                run.rewrite_all(&facts[..below], &rules, aborted)
            });
        match cleaned {
            Err(e) if self.offline().is_none() && run.is_current() => Err(e),
            // What failed is no longer part of the log; or the log is offline, and says so itself.
            Err(_) => self.check_online().map(|()| None).map_err(Into::into),
            done => done,
        }
    }

    /// Whether `first` is still part of the log, and so all after it is, as at `generation`.
    fn is_there(&self, generation: u64, first: Option<&Arc<Segment>>) -> bool {
        let now = self.snapshot();
        now.generation == generation
            && first.is_none_or(|first| now.segments.iter().any(|s| Arc::ptr_eq(s, first)))
    }

    fn judge(
        &self,
        view: &View,
        config: &LogConfig,
        cleaned_to: Offset,
        last_stable: Offset,
        now_ms: i64,
    ) -> Result<(Verdict, Vec<SegmentFacts>), LogError> {
        let interval = config.index_interval_bytes;
        let mut facts = Vec::with_capacity(view.segments.len());
        let sealed = view.segments.len().saturating_sub(1);
        for (i, segment) in view.segments[..sealed].iter().enumerate() {
            let end = view.end_of(i);
            let dirty = end > cleaned_to;
            // Times cost reads, so they are read only where they count.
            let first_ms = match dirty && config.max_compaction_lag_ms < i64::MAX {
                true => super::open::first_timestamp(segment, interval)?,
                false => None,
            };
            let last_ms = match dirty && config.min_compaction_lag_ms > 0 {
                true => last_ms(segment, interval)?,
                false => 0,
            };
            facts.push(SegmentFacts {
                base: segment.base(),
                end,
                size: segment.size(),
                first_ms,
                last_ms,
            });
        }
        let verdict = plan(&facts, config, cleaned_to, last_stable, now_ms);
        Ok((verdict, facts))
    }

    /// Notes durably that all below `to` is clean. Not if the log was truncated meanwhile.
    fn save_cleaned_to(&self, to: Offset, generation: u64) -> Result<bool, LogError> {
        let mut writer = self.writer.lock();
        self.check_writable()?;
        if self.view.read().generation != generation {
            return Ok(false);
        }
        disk::write_durably(&self.file(CLEANED_TO), offset_line(to).as_bytes())?;
        writer.cleaned_to = to;
        Ok(true)
    }
}

/// One cleaning.
struct Run<'a> {
    log: &'a PartitionLog,
    config: &'a LogConfig,
    /// As it was at the beginning.
    view: &'a View,
    /// The view's generation since our last swap.
    generation: Cell<u64>,
    /// The first segment that is still to be swapped.
    next: Cell<usize>,
}

impl Run<'_> {
    /// Whether what is still to be swapped is part of the log.
    fn is_current(&self) -> bool {
        let first = self.view.segments.get(self.next.get());
        self.log.is_there(self.generation.get(), first)
    }

    /// The transactions that were aborted and have records in the first `count` segments. All below the last
    /// stable offset are decided, but a marker may lie further on.
    fn aborted(&self, count: usize) -> Result<Vec<AbortedTxn>, LogError> {
        let end = self.view.end_of(count.saturating_sub(1));
        let all = self.log.aborted_within(self.view, self.view.start, end);
        all.map_err(|(_, e)| e)
    }

    /// Where each key occurs last, from `first_dirty` to the end of the first `count` segments.
    fn last_offsets(
        &self,
        count: usize,
        first_dirty: Offset,
        max_keys: usize,
        aborted: &[AbortedTxn],
    ) -> Result<LastOffsets, LogError> {
        let mut pass = Pass::new(aborted.to_vec());
        let mut keys = LastOffsets::new(first_dirty, max_keys);
        for (i, segment) in self.view.segments[..count].iter().enumerate() {
            if self.view.end_of(i) <= first_dirty {
                continue;
            }
            let fits = self.each_batch(segment, |at, batch| {
                if pass.judge(&batch.header, &batch.bytes) != Fate::Counts {
                    return Ok(true);
                }
                let noted = keyed_records(batch, |offset, key| {
                    offset < first_dirty || keys.note(key, offset)
                });
                noted.map_err(|e| damaged(segment.path(), at, ScanError::Bad(e)))
            })?;
            if !fits {
                break;
            }
            keys.noted_to(self.view.end_of(i));
        }
        Ok(keys)
    }

    /// What the first `count` segments, which end at `end`, must keep of each producer that is `known`: the last that
    /// they have themselves. What comes after `end` may be cut off again, by a power cut or the next leader; and a
    /// follower may not have it yet.
    fn last_records(
        &self,
        count: usize,
        end: Offset,
        mut known: HashMap<ProducerId, LastRecord>,
    ) -> Result<HashMap<ProducerId, LastRecord>, LogError> {
        if known.is_empty() {
            return Ok(known);
        }
        let segments = &self.view.segments[..count];
        let interval = self.config.index_interval_bytes;
        let then = rebuild_producers(&self.log.folder, segments, end, interval, end)?;
        for (producer, last) in then.producers.last_records() {
            known.entry(producer).and_modify(|known| *known = last);
        }
        Ok(known)
    }

    fn rewrite_all(
        &self,
        facts: &[SegmentFacts],
        rules: &Rules<'_>,
        aborted: Vec<AbortedTxn>,
    ) -> Result<Option<Cleaned>, LogError> {
        let mut pass = Pass::new(aborted);
        let mut done = Cleaned {
            bytes_before: 0,
            bytes_after: 0,
            clean_to: rules.keys.end(),
        };
        for group in groups(facts, self.config) {
            let old = &self.view.segments[group.clone()];
            let end = facts[group.end - 1].end;
            let rewritten = self.rewrite(old, end, rules, &mut pass)?;
            done.bytes_before += old.iter().map(|s| s.size()).sum::<u64>();
            done.bytes_after += rewritten.size;
            if !rewritten.changed {
                disk::remove(&rewritten.path)?;
            } else if let Some(now) = self.log.swap(old, rewritten, self.generation.get())? {
                self.generation.set(now);
            } else {
                return Ok(None);
            }
            self.next.set(group.end);
        }
        super::swap::step("all swapped");
        let noted = self
            .log
            .save_cleaned_to(done.clean_to, self.generation.get())?;
        Ok(noted.then_some(done))
    }

    /// Writes what is left of `old` to a new file, fsynced.
    fn rewrite(
        &self,
        old: &[Arc<Segment>],
        end: Offset,
        rules: &Rules<'_>,
        pass: &mut Pass,
    ) -> Result<Rewritten, LogError> {
        let base = old.first().map_or(end, |s| s.base());
        let path = segment::file(&self.log.folder, base, CLEANED);
        let out = Output {
            file: disk::Writer::create(path.clone())?,
            base,
            index: MemoryIndex::default(),
            interval: self.config.index_interval_bytes,
            end: base,
            changed: old.len() > 1,
        };
        self.fill(out, old, end, rules, pass).inspect_err(|_| {
            // The first error says why; what is left over goes at the next start at the latest.
            if let Err(e) = disk::remove(&path) {
                tracing::warn!(partition = %self.log.name, "{e}");
            }
        })
    }

    fn fill(
        &self,
        mut out: Output,
        old: &[Arc<Segment>],
        end: Offset,
        rules: &Rules<'_>,
        pass: &mut Pass,
    ) -> Result<Rewritten, LogError> {
        let mut written_ms = 0;
        for segment in old {
            written_ms = written_ms.max(disk::modified_ms(segment.path())?);
            self.each_batch(segment, |at, batch| {
                let must_stay = batch.header.next_offset() == end;
                let fate = pass.judge(&batch.header, &batch.bytes);
                let filtered = filter(batch, rules, fate, must_stay)
                    .map_err(|e| damaged(segment.path(), at, ScanError::Bad(e)))?;
                match filtered {
                    Filtered::Same => out.push(&batch.bytes)?,
                    Filtered::Changed(bytes) => {
                        out.changed = true;
                        out.push(&bytes)?;
                    }
                    Filtered::Gone => out.changed = true,
                }
                Ok(true)
            })?;
        }
        let path = out.file.path().to_owned();
        if out.end != end {
            let reason = format!("it ends at {} where {end} was expected", out.end);
            return Err(LogError::Unreadable { path, reason });
        }
        Ok(Rewritten {
            path,
            base: out.base,
            end,
            size: out.file.len(),
            index: out.index,
            changed: out.changed,
            // Retention by time goes by the file's where no record is left that has one.
            file: out.file.finish(written_ms)?,
        })
    }

    /// Visits a segment's batches, CRCs checked, until `visit` says `false`; whether it never did.
    /// Ends early if the log goes offline: it may be that the broker stops.
    fn each_batch(
        &self,
        segment: &Segment,
        mut visit: impl FnMut(u64, &Batch) -> Result<bool, LogError>,
    ) -> Result<bool, LogError> {
        let file = disk::open(segment.path())?;
        let mut scan = Scan::new(&file, segment.path(), 0, segment.size());
        loop {
            self.log.check_online()?;
            let at = scan.position();
            let batch = match scan.next_header() {
                Ok(None) => return Ok(true),
                Ok(Some((at, header))) => scan.batch(at, &header),
                Err(e) => Err(e),
            };
            let batch = batch.map_err(|e| damaged(segment.path(), at, e))?;
            if !visit(at, &batch)? {
                return Ok(false);
            }
        }
    }
}

/// A segment that is being written.
struct Output {
    file: disk::Writer,
    base: Offset,
    index: MemoryIndex,
    interval: u32,
    end: Offset,
    /// Whether it differs from what it is made from.
    changed: bool,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let at = self.file.len();
        let header = crate::batch::BatchHeader::parse(bytes)
            .map_err(|e| damaged(self.file.path(), at, ScanError::Bad(e)))?;
        self.file.push(bytes)?;
        self.index.note(&header, self.base.0, at, self.interval);
        self.end = header.next_offset();
        Ok(())
    }
}

/// The greatest time in a segment; when it was written, if no record has one.
fn last_ms(segment: &Segment, interval: u32) -> Result<i64, LogError> {
    match segment.max_timestamp(interval)? {
        Some((time, _)) => Ok(time),
        None => disk::modified_ms(segment.path()),
    }
}
