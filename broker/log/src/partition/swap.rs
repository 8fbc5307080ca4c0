//! Putting a rewritten segment in the place of those that it was made from.
//!
//! `<base>.cleaned` is written and fsynced: a crash before the next step forgets it. Renamed to
//! `<base>.<end>.swap`, it is decided: whatever ends the process from here on, the next start finishes the
//! swap from that name alone. Then the old files go, durably, since beside the new one they would make
//! offsets lie in two segments; then the new one gets its name.
//!
//! Readers: the new segment is read through its open file, whatever its name, and the view's generation
//! is raised before the first old file is touched, so that a read which spans this is done again.

use super::open::offset_of;
use super::{PartitionLog, retire};
use crate::index::MemoryIndex;
use crate::segment::{self, INDEX, LOG, SNAPSHOT, SWAP, Segment, TIME_INDEX, TXN_INDEX};
use crate::{LogError, disk};
use leasehold_types::Offset;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What takes the place of one or several segments: written, fsynced, and not yet part of the log.
pub(super) struct Rewritten {
    pub file: File,
    pub path: PathBuf,
    pub base: Offset,
    pub end: Offset,
    pub size: u64,
    pub index: MemoryIndex,
    /// Whether it differs from what it was made from.
    pub changed: bool,
}

impl PartitionLog {
    /// Replaces `old`, neighbours and none of them the active segment, by `new`. Returns the view's new
    /// generation; `None`, and `new` is removed, if the log is no longer as it was at `generation`.
    pub(super) fn swap(
        &self,
        old: &[Arc<Segment>],
        new: Rewritten,
        generation: u64,
    ) -> Result<Option<u64>, LogError> {
        // Nobody shall write an index of an old segment to a name that is the new one's.
        let _no_flush = self.flushing.lock();
        let writer = self.writer.lock();
        self.check_writable()?;
        let view = self.snapshot();
        let first = old.first();
        let at = first.and_then(|first| view.segments.iter().position(|s| Arc::ptr_eq(s, first)));
        let place = at.map(|at| at..at + old.len()).filter(|place| {
            view.generation == generation
                && place.end < view.segments.len()
                && view.segments[place.clone()]
                    .iter()
                    .zip(old)
                    .all(|(a, b)| Arc::ptr_eq(a, b))
        });
        let Some(place) = place else {
            disk::remove(&new.path)?;
            return Ok(None);
        };
        step("written");
        let decided = swap_file(&self.folder, new.base, new.end);
        disk::rename(&new.path, &decided)?;
        step("decided");
        let failed = |e| self.failed(e);
        // A failure from here on takes the log offline: the next start finishes what is begun.
        disk::sync_folder(&self.folder).map_err(failed)?;
        let segment = Arc::new(Segment::rewritten(
            &self.folder,
            new.base,
            new.size,
            new.index,
            new.file,
        ));
        let generation = {
            let mut view = self.view.write();
            let mut segments = Vec::clone(&view.segments);
            segments.splice(place, [segment.clone()]);
            view.segments = Arc::new(segments);
            view.generation += 1;
            view.generation
        };
        let retired = self.replace_files(old, &decided).map_err(failed)?;
        // What follows may be lost in a crash, so appends need not wait for it.
        drop(writer);
        self.settle_swapped(&segment, generation).map_err(failed)?;
        for path in retired {
            disk::remove(&path).map_err(failed)?;
        }
        Ok(Some(generation))
    }

    fn replace_files(
        &self,
        old: &[Arc<Segment>],
        decided: &Path,
    ) -> Result<Vec<PathBuf>, LogError> {
        let mut retired = Vec::new();
        let Some((first, others)) = old.split_first() else {
            return Ok(retired);
        };
        for segment in others {
            retired.push(retire(&self.shared, segment)?);
            step("one retired");
        }
        for suffix in [INDEX, TIME_INDEX, TXN_INDEX] {
            disk::remove(&first.path().with_extension(suffix))?;
            step("an index removed");
        }
        // Alone, the first is replaced by the renaming itself; an index of it that came back would lead
        // to batches that are there, or be found out.
        if !others.is_empty() {
            disk::sync_folder(&self.folder)?;
        }
        disk::rename(decided, first.path())?;
        step("in place");
        Ok(retired)
    }

    fn settle_swapped(&self, segment: &Segment, generation: u64) -> Result<(), LogError> {
        disk::sync_folder(&self.folder)?;
        let saved = segment.save_index();
        step("index written");
        let _writer = self.writer.lock();
        // A truncation, or a deletion, meanwhile has its own way with the files.
        let view = self.view.read();
        let here = view.segments.iter().any(|s| std::ptr::eq(&**s, segment));
        if view.generation == generation && here {
            saved?;
            segment.seal();
        }
        Ok(())
    }
}

/// At opening: finishes the swaps that were decided.
pub(super) fn finish(folder: &Path) -> Result<(), LogError> {
    let names = disk::names(folder)?;
    for (base, end) in names.iter().filter_map(|name| parse_swap(name)) {
        for name in &names {
            let among = |suffix: &str| {
                let at = offset_of(name, suffix)?;
                (at >= base && at < end).then_some(at)
            };
            let replaced = [LOG, SNAPSHOT]
                .iter()
                .any(|suffix| among(suffix).is_some_and(|at| at > base));
            let index = [INDEX, TIME_INDEX, TXN_INDEX]
                .iter()
                .any(|s| among(s).is_some());
            if replaced || index {
                disk::remove(&folder.join(name))?;
            }
        }
        disk::sync_folder(folder)?;
        let decided = swap_file(folder, base, end);
        disk::rename(&decided, &segment::file(folder, base, LOG))?;
        disk::sync_folder(folder)?;
        tracing::info!(folder = %folder.display(), %base, %end, "finished the swap of a cleaned segment");
    }
    Ok(())
}

fn swap_file(folder: &Path, base: Offset, end: Offset) -> PathBuf {
    folder.join(format!("{:020}.{:020}.{SWAP}", base.0, end.0))
}

fn parse_swap(name: &str) -> Option<(Offset, Offset)> {
    let (base, rest) = name.split_once('.')?;
    let base = offset_of(&format!("{base}.{LOG}"), LOG)?;
    let end = offset_of(rest, SWAP)?;
    (base < end).then_some((base, end))
}

/// Tells a test how far a swap is.
pub(super) fn step(name: &'static str) {
    #[cfg(test)]
    watch::tell(name);
    #[cfg(not(test))]
    let _ = name;
}

/// Lets a test look at the files at each step, as a crash there would leave them.
#[cfg(test)]
pub(super) mod watch {
    use std::cell::RefCell;

    type Look = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
    }

    /// Has `look` called at each step of what `run` does on this thread.
    pub fn steps<T>(look: impl FnMut(&'static str) + 'static, run: impl FnOnce() -> T) -> T {
        LOOK.with(|slot| *slot.borrow_mut() = Some(Box::new(look)));
        let result = run();
        LOOK.with(|slot| *slot.borrow_mut() = None);
        result
    }

    pub fn tell(name: &'static str) {
        LOOK.with(|slot| {
            if let Some(look) = &mut *slot.borrow_mut() {
                look(name);
            }
        });
    }
}
