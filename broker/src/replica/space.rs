//! Room on the log directory's disk.
//!
//! Promises: before the disk is full, records are refused, of producers and of leaders that are followed, so
//! that what the broker itself must write (checkpoints, epochs, its copy of the metadata) still finds room, and
//! no log goes offline for want of it. Both are asked to try again, and find the broker willing once there
//! is room: nothing needs a restart. The group coordinator's own small records go on for longer, as consumers
//! are no reason for a full disk.
//!
//! The disk is asked each second, and in between whenever half of the room that was left has been written.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

type Measure = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// Who wants to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A producer, or a leader that is followed.
    Records,
    /// The broker's own coordinators.
    Coordinator,
}

/// Watches the free bytes of one disk.
pub struct Space {
    /// `log.dir.min.free.bytes`; 0 watches nothing.
    min: u64,
    measure: parking_lot::RwLock<Measure>,
    free: AtomicU64,
    /// Bytes that may be written before the disk is asked again.
    budget: AtomicI64,
    low: AtomicBool,
}

impl Space {
    /// Watches the disk of `path`, of which `min` bytes are to stay free. Blocks.
    pub fn of(path: &Path, min: u64) -> Self {
        let path = path.to_owned();
        let measure = move || {
            #[cfg(feature = "simulation")]
            if let Some(world) = leasehold_types::seams::simulated::world() {
                return Ok((world.free_bytes)(&path));
            }
            let disk = rustix::fs::statvfs(&path)?;
            // What is left to one who is not root.
            Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
        };
        Self::measured_by(min, Box::new(measure))
    }

    fn measured_by(min: u64, measure: Measure) -> Self {
        let space = Self {
            min,
            measure: parking_lot::RwLock::new(measure),
            free: AtomicU64::new(u64::MAX),
            budget: AtomicI64::new(0),
            low: AtomicBool::new(false),
        };
        space.look();
        space
    }

    /// Lets a test say how much is free.
    #[cfg(test)]
    pub fn pretend(&self, free: u64) {
        *self.measure.write() = Box::new(move || Ok(free));
        self.look();
    }

    /// Free bytes, as last seen.
    pub fn free(&self) -> u64 {
        self.free.load(Relaxed)
    }

    /// Whether records are refused.
    pub fn is_low(&self) -> bool {
        self.low.load(Relaxed)
    }

    /// Asks the disk. Blocks.
    pub fn look(&self) {
        if self.min == 0 {
            return;
        }
        let free = match (self.measure.read())() {
            Ok(free) => free,
            Err(error) => {
                // What was known stays; a disk that cannot be asked fails by itself when it is written to.
                tracing::warn!(%error, "cannot ask for the free space of the log directory's disk");
                return;
            }
        };
        self.free.store(free, Relaxed);
        let room = free.saturating_sub(self.min);
        self.budget
            .store(i64::try_from(room / 2).unwrap_or(i64::MAX), Relaxed);
        // A little more room than the least, before it counts as room again.
        let enough = match self.is_low() {
            true => room > self.min / 8,
            false => room > 0,
        };
        if self.low.swap(!enough, Relaxed) == enough {
            match enough {
                true => tracing::info!(free, "the disk has room again: records are taken"),
                false => tracing::error!(
                    free,
                    min = self.min,
                    "the disk is nearly full: records are refused until there is room (log.dir.min.free.bytes)"
                ),
            }
        }
    }

    /// Whether `writer` may write `bytes` more.
    pub fn take(&self, bytes: usize, writer: Writer) -> bool {
        if self.min == 0 || bytes == 0 {
            return true;
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = self.budget.fetch_sub(bytes, Relaxed).saturating_sub(bytes);
        if left < 0 && !self.is_low() {
            self.look();
        }
        match writer {
            Writer::Records => !self.is_low(),
            Writer::Coordinator => self.free() > self.min / 4,
        }
    }

    /// Whether `bytes` more would leave what is to stay free, as of the last look.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.min == 0 || self.free() > self.min.saturating_add(bytes)
    }

    /// Why records are refused, for people.
    pub fn refusal(&self) -> String {
        format!(
            "the disk of this broker has {} bytes free, and {} are to stay so (log.dir.min.free.bytes)",
            self.free(),
            self.min
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A disk with 1,000 bytes to stay free, of which what was taken is gone.
    fn disk(free: u64) -> (Arc<AtomicU64>, Space) {
        let real = Arc::new(AtomicU64::new(free));
        let measure = real.clone();
        let measure = move || Ok(measure.load(Relaxed));
        (real, Space::measured_by(1000, Box::new(measure)))
    }

    #[test]
    fn what_must_stay_free_does_however_it_is_written_to() {
        for size in [1, 7, 100, 999] {
            let (real, space) = disk(50_000);
            while space.take(size, Writer::Records) {
                real.fetch_sub(size as u64, Relaxed);
            }
            let free = real.load(Relaxed);
            assert!(
                free < 1000 + 3 * size as u64,
                "stopped early, at {free} by {size}"
            );
            assert!(
                free + 1 >= 1000 - size as u64,
                "went on, to {free} by {size}"
            );
            assert!(space.is_low());
        }
    }

    #[test]
    fn records_are_taken_again_once_there_is_a_little_more_than_the_least() {
        let (real, space) = disk(900);
        assert!(!space.take(1, Writer::Records));
        for (free, takes) in [(1001, false), (1126, true), (1001, true), (1000, false)] {
            real.store(free, Relaxed);
            space.look();
            assert_eq!(space.take(1, Writer::Records), takes, "{free}");
        }
    }

    #[test]
    fn the_coordinator_goes_on_until_little_is_left() {
        let (real, space) = disk(900);
        assert!(!space.take(1, Writer::Records));
        assert!(space.take(1, Writer::Coordinator));
        real.store(250, Relaxed);
        space.look();
        assert!(!space.take(1, Writer::Coordinator));
    }

    #[test]
    fn nothing_is_refused_where_nothing_is_to_stay_free() {
        let space = Space::measured_by(0, Box::new(|| Ok(0)));
        assert!(space.take(1 << 30, Writer::Records));
        let (_, full) = disk(0);
        assert!(
            full.take(0, Writer::Records),
            "an answer without records is no writing"
        );
    }

    #[test]
    fn a_real_disk_tells_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::of(folder.path(), 1);
        assert!(space.free() > 0 && space.free() < u64::MAX);
    }
}
