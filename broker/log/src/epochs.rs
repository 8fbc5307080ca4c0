//! Where each leader epoch starts in a partition's log.
//!
//! The cache is pure; beside it, its checkpoint file: one line `epoch start` per epoch begun, each
//! fsynced before any record of that epoch is appended. A torn last line was never acknowledged
//! by fsync, so no record of its epoch exists, and it is left out. From a damaged line on, the epochs are
//! read from the batches: a wrong start would have a follower cut off the wrong records.

use crate::lines::{is_sealed, seal, unseal};
use crate::{LogError, disk};
use leasehold_types::{LeaderEpoch, Offset};
use std::path::Path;

/// Epochs with their starts, both rising.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

/// What a checkpoint says.
#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    /// By its sound lines, up to the first that is not.
    pub epochs: EpochCache,
    /// The bytes of those.
    pub sound_to: usize,
    pub rest: Rest,
}

/// What follows a checkpoint's sound lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    /// A part of a line. The file must be written anew before another is added: both together would be
    /// one line, of another epoch.
    Torn,
    /// What may have been a line. Its epochs are in the batches.
    Damaged,
}

impl EpochCache {
    /// All epochs with their starts.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The last epoch and where it starts.
    pub fn last(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` starts at `start`. Epochs noted at or after `start` had no records and
    /// are forgotten. `false`, and nothing changes, unless `epoch` is above the last.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch.0 < 0 || self.last().is_some_and(|(last, _)| last >= epoch) {
            return false;
        }
        self.entries.retain(|&(_, s)| s < start);
        self.entries.push((epoch, start));
        true
    }

    /// The greatest epoch not above `epoch`, and where it ends; `end` is the log end offset. For an
    /// epoch before the first known one: itself, ending where the first starts, as Kafka answers. No epoch ends
    /// nowhere.
    pub fn end_of(&self, epoch: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch == LeaderEpoch::NONE {
            return None;
        }
        let after = self.entries.partition_point(|&(e, _)| e <= epoch);
        match (after.checked_sub(1), self.entries.get(after)) {
            (Some(floor), Some(&(_, next))) => Some((self.entries[floor].0, next)),
            (Some(floor), None) if self.entries[floor].0 == epoch => Some((epoch, end)),
            (None, Some(&(_, first))) => Some((epoch, first)),
            _ => None,
        }
    }

    /// Where `epoch` starts.
    pub fn start_of(&self, epoch: LeaderEpoch) -> Option<Offset> {
        self.entries
            .iter()
            .find(|&&(e, _)| e == epoch)
            .map(|&(_, start)| start)
    }

    /// The epoch of the record at `offset`.
    pub fn of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|&(_, s)| s <= offset);
        after.checked_sub(1).map(|i| self.entries[i].0)
    }

    /// Forgets the epochs that start at or after `offset`; whether there were any.
    pub fn truncate_from(&mut self, offset: Offset) -> bool {
        let keep = self.entries.partition_point(|&(_, s)| s < offset);
        let any = keep < self.entries.len();
        self.entries.truncate(keep);
        any
    }

    /// Forgets the epochs that end before `start`, the log start offset; whether there were any. One
    /// that ends right there stays: cut back to its start, the log ends with that epoch.
    pub fn truncate_before(&mut self, start: Offset) -> bool {
        let after = self.entries.partition_point(|&(_, s)| s < start);
        let drop = after.saturating_sub(1);
        self.entries.drain(..drop);
        drop > 0
    }

    /// Adds those of `later` that are above the last.
    pub fn merge(&mut self, later: &Self) {
        for &(epoch, start) in &later.entries {
            self.assign(epoch, start);
        }
    }

    /// Reads the checkpoint; `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Parsed>, LogError> {
        let content = disk::read_if_there(path)?;
        let parsed = content.map(|content| Self::parse(&content));
        if let Some(parsed) = parsed.as_ref().filter(|p| p.rest == Rest::Damaged) {
            let (file, at) = (path.display(), parsed.sound_to);
            tracing::warn!(%file, at, "an epoch is damaged: they are read from the batches");
        }
        Ok(parsed)
    }

    /// What a checkpoint of this content says.
    pub fn parse(content: &[u8]) -> Parsed {
        let mut epochs = Self::default();
        let mut sound_to = 0;
        let mut rest = Rest::Nothing;
        for line in content.split_inclusive(|&b| b == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else {
                // Torn, unless only its end is not what it was.
                let whole = line.split_last().map(|(_, whole)| whole);
                let whole = whole.filter(|whole| is_sealed(whole)).and_then(entry);
                rest = match whole {
                    Some(_) => Rest::Damaged,
                    None => Rest::Torn,
                };
                break;
            };
            let entry = entry(text);
            // An append that failed after its epoch was saved says it again when it is retried.
            let again = entry.is_some() && entry == epochs.last();
            if !again && !entry.is_some_and(|(epoch, start)| epochs.assign(epoch, start)) {
                rest = Rest::Damaged;
                break;
            }
            sound_to += line.len();
        }
        Parsed {
            epochs,
            sound_to,
            rest,
        }
    }

    /// Writes the whole checkpoint anew, durably.
    pub fn save(&self, path: &Path) -> Result<(), LogError> {
        disk::write_durably(path, lines(&self.entries).as_bytes())
    }

    /// Adds the epochs after `known` to the checkpoint that holds up to `known`, durably.
    pub fn save_after(&self, known: Option<LeaderEpoch>, path: &Path) -> Result<(), LogError> {
        let from = self
            .entries
            .partition_point(|&(e, _)| known.is_some_and(|known| e <= known));
        disk::append_durably(path, lines(&self.entries[from..]).as_bytes())
    }
}

fn lines(entries: &[(LeaderEpoch, Offset)]) -> String {
    let line = |(epoch, start): &(LeaderEpoch, Offset)| seal(&format!("{epoch} {start}"));
    entries.iter().map(line).collect()
}

/// A line's epoch and start.
fn entry(line: &[u8]) -> Option<(LeaderEpoch, Offset)> {
    let (epoch, start) = unseal(line)?.split_once(' ')?;
    let entry = (
        LeaderEpoch(epoch.parse().ok()?),
        Offset(start.parse().ok()?),
    );
    (entry.1.0 >= 0).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for &(epoch, start) in entries {
            assert!(cache.assign(LeaderEpoch(epoch), Offset(start)));
        }
        cache
    }

    #[test]
    fn it_answers_as_kafka_does() {
        let cache = cache(&[(2, 10), (5, 30), (7, 40)]);
        let end_of = |e| {
            cache
                .end_of(LeaderEpoch(e), Offset(99))
                .map(|(e, o)| (e.0, o.0))
        };
        assert_eq!(end_of(1), Some((1, 10)));
        assert_eq!(end_of(2), Some((2, 30)));
        assert_eq!(end_of(4), Some((2, 30)));
        assert_eq!(end_of(6), Some((5, 40)));
        assert_eq!(end_of(7), Some((7, 99)));
        assert_eq!(end_of(8), None);
        assert_eq!(end_of(-1), None, "Kafka's word for no epoch");
        assert_eq!(
            EpochCache::default().end_of(LeaderEpoch(0), Offset(9)),
            None
        );
        assert_eq!(cache.of(Offset(9)), None);
        assert_eq!(cache.of(Offset(39)), Some(LeaderEpoch(5)));
        assert_eq!(cache.of(Offset(40)), Some(LeaderEpoch(7)));
    }

    #[test]
    fn an_epoch_without_records_gives_way_to_the_next() {
        let mut cache = cache(&[(2, 10), (5, 30)]);
        assert!(cache.assign(LeaderEpoch(6), Offset(30)));
        assert_eq!(cache.start_of(LeaderEpoch(5)), None);
        assert!(!cache.assign(LeaderEpoch(6), Offset(40)));
        assert!(!cache.assign(LeaderEpoch(3), Offset(40)));
    }

    #[test]
    fn truncation_to_an_epochs_start_forgets_it() {
        let mut cache = cache(&[(2, 10), (5, 30)]);
        assert!(!cache.truncate_from(Offset(31)));
        assert!(cache.truncate_from(Offset(30)));
        assert_eq!(cache.last(), Some((LeaderEpoch(2), Offset(10))));
    }

    #[test]
    fn the_epoch_of_the_log_start_survives_retention() {
        let mut cache = cache(&[(2, 10), (5, 30), (6, 40)]);
        assert!(cache.truncate_before(Offset(35)));
        assert_eq!(cache.of(Offset(35)), Some(LeaderEpoch(5)));
        assert!(!cache.truncate_before(Offset(35)));
    }

    #[test]
    fn a_torn_line_is_left_out_and_all_before_it_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("epochs");
        let mut written = cache(&[(2, 10)]);
        written.save(&path).unwrap();
        written.assign(LeaderEpoch(5), Offset(30));
        written.save_after(Some(LeaderEpoch(2)), &path).unwrap();
        let load = || {
            let parsed = EpochCache::load(&path).unwrap().unwrap();
            assert_eq!(parsed.epochs, written);
            parsed.rest
        };
        assert_eq!(load(), Rest::Nothing);
        let whole = b"2 10\n5 30\n5 30\n".to_vec();
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(load(), Rest::Nothing);
        for torn in [&b"6 1"[..], b"6", b"\0\0\0", b"6 40 crc32c=1"] {
            std::fs::write(&path, [&whole, torn].concat()).unwrap();
            assert_eq!(load(), Rest::Torn);
        }
        let mut last = seal("6 40").into_bytes();
        *last.last_mut().unwrap() = b'x';
        for damaged in [
            &b"\0\0\0\0\n"[..],
            b"6 -1\n",
            b"x y\n",
            b"6 40 crc32c=1\n",
            &last,
        ] {
            std::fs::write(&path, [&whole, damaged].concat()).unwrap();
            assert_eq!(load(), Rest::Damaged);
        }
    }
}
