//! Looks at a log directory, or at one partition's folder, and tells what is in it and what is damaged.
//!
//! Promises: it only reads, and leaves lock and names alone; what it finds it tells one by one, so that a
//! large log costs no memory; whatever the bytes are, it comes to an end. It asks for no more than what a
//! broker that was killed leaves: what the next start makes anew or finishes is no damage.

mod aborted;
mod directory;
mod indexes;
mod partition;

#[cfg(test)]
mod tests;

use crate::aborted::AbortedTxn;
use crate::batch::{BatchHeader, Marker};
use crate::producers::ProducerState;
use crate::{LogError, disk};
use leasehold_types::{BrokerId, ClusterId, DirectoryId, Incarnation, LeaderEpoch, Offset};
use std::path::{Path, PathBuf};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding<'a> {
    /// A whole log directory; what is in it follows.
    Directory(&'a Path),
    /// The `meta` file: whose it is.
    Owner {
        /// The cluster.
        cluster: ClusterId,
        /// The broker.
        broker: BrokerId,
        /// Which of its directories; none in one of an earlier release.
        directory: Option<DirectoryId>,
    },
    /// The `run` file.
    Run {
        /// The last confirmed life.
        confirmed: Option<crate::Confirmed>,
        /// The incarnations that tried to register since.
        attempted: Vec<Incarnation>,
    },
    /// A line of the `high-watermarks` file.
    HighWatermark {
        /// `<topic id>-<partition>`.
        partition: String,
        /// Where it was last written to be.
        offset: Offset,
    },
    /// A partition's folder; what is in it follows.
    Partition(&'a Path),
    /// A file that holds one offset: `recovery-point`, `log-start`, `cleaned-to`.
    OffsetFile {
        /// Its name.
        name: &'static str,
        /// What it says.
        offset: Offset,
    },
    /// Where an epoch starts, by the checkpoint file.
    Epoch {
        /// Which.
        epoch: LeaderEpoch,
        /// Its first offset.
        start: Offset,
    },
    /// A segment's `.log` file; its batches follow.
    Segment {
        /// The file.
        path: &'a Path,
        /// Its bytes.
        size: u64,
    },
    /// A batch.
    Batch {
        /// The byte of the segment at which it begins.
        at: u64,
        /// Its header.
        header: BatchHeader,
    },
    /// The end of a transaction, in the batch just shown.
    Marker {
        /// Its offset.
        at: Offset,
        /// Whose, and how it ended.
        marker: Marker,
    },
    /// An entry of the index of aborted transactions of the segment just shown.
    AbortedTransaction {
        /// The file.
        path: &'a Path,
        /// The entry.
        txn: AbortedTxn,
    },
    /// An index of the segment just shown.
    Index {
        /// The file.
        path: &'a Path,
        /// How many entries it has.
        entries: usize,
    },
    /// A producer in a snapshot.
    Producer {
        /// The state before this offset.
        at: Offset,
        /// Who, and what is known of it.
        producer: ProducerState,
    },
    /// Worth knowing, and no damage.
    Note {
        /// Of what.
        path: &'a Path,
        /// What.
        what: String,
    },
    /// Something is not as it was written.
    Damage {
        /// The file.
        path: &'a Path,
        /// The byte from which on.
        at: u64,
        /// What is wrong there.
        what: String,
    },
}

/// Whoever is told.
pub(crate) type Tell<'t> = dyn FnMut(Finding<'_>) + 't;

/// Tells all that is found in `path`: a log directory, or a partition's folder. An error means that it is
/// neither, or that nothing can be read.
pub fn inspect(path: &Path, tell: &mut dyn FnMut(Finding<'_>)) -> Result<(), LogError> {
    let neither = |reason: &str| LogError::Unreadable {
        path: PathBuf::from(path),
        reason: reason.into(),
    };
    if !path.is_dir() {
        return Err(neither("there is no such folder"));
    }
    let names = disk::names(path)?;
    if directory::is_one(&names) {
        directory::inspect(path, names, tell)
    } else if partition::is_one(&names) {
        partition::inspect(path, names, false, tell).map(drop)
    } else {
        Err(neither("it is no log directory and no partition's folder"))
    }
}

/// Tells a damage.
pub(crate) fn damage(tell: &mut Tell<'_>, path: &Path, at: u64, what: impl Into<String>) {
    tell(Finding::Damage {
        path,
        at,
        what: what.into(),
    });
}

/// Tells what is no damage.
pub(crate) fn note(tell: &mut Tell<'_>, path: &Path, what: impl Into<String>) {
    tell(Finding::Note {
        path,
        what: what.into(),
    });
}

/// The content of a small file, or damage.
pub(crate) fn content(path: &Path, tell: &mut Tell<'_>) -> Option<Vec<u8>> {
    match disk::read_if_there(path) {
        Ok(content) => content,
        Err(e) => {
            damage(tell, path, 0, e.to_string());
            None
        }
    }
}
