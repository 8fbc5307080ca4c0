//! The partition log on disk. Knows no network.
//!
//! - [`LogDirs`]: the log directories of one broker; where a partition lies, and which have failed.
//! - [`LogDir`]: one of them: exclusive lock, owner, `run` file, checkpoints.
//! - [`PartitionLog`]: one partition's segmented, append-only log: append, read, truncate, retain,
//!   compact.
//! - [`batch`]: record batches v2 as bytes: parse, check, iterate, build.
//!
//! Promises: record batches are opaque bytes from socket to disk to socket; only base offset and
//! leader epoch are set on the way (and the leader's time, or another codec, where the topic wants it). The log end
//! offset counts only what `write()` returned for. Hostile bytes give errors, never panics. An I/O
//! error takes the directory offline with its reason and loses nothing acknowledged.
//!
//! Every call may block on the disk, but for the getters (`log_end_offset`, `end_offset_for_epoch`,
//! ...): call them from `spawn_blocking` or from threads of their own.

mod aborted;
pub mod batch;
mod clean;
mod config;
mod dir;
pub mod disk;
mod epochs;
mod error;
#[cfg(any(test, feature = "simulation"))]
pub mod faults;
mod index;
pub mod inspect;
mod lines;
mod partition;
mod producers;
mod record_errors;
mod repack;
mod scan;
mod segment;
mod transactions;
mod validate;

pub use aborted::AbortedTxn;
pub use clean::Cleanable;
pub use config::{Compression, LogConfig, TimestampType, UnknownCompression};
pub use dir::{
    Confirmed, DirectoryStart, DirectoryState, LogDir, LogDirs, Move, RestartReport, Turn,
};
pub use error::{AppendError, LogError, ReadError, StorageError};
pub use leasehold_types::{LeaderEpoch, Offset, ProducerId, TopicId};
pub use partition::{AppendInfo, Cleaned, CommittedRead, PartitionLog, TimestampedOffset};
pub use producers::ProducerState;
pub use record_errors::RecordErrors;
pub use transactions::VerificationGuard;
