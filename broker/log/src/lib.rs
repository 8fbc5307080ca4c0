//! The partition log on disk. Knows no network.
//!
//! - [`LogDir`]: one log directory of one broker: exclusive lock, owner, `run` file, checkpoints.
//! - [`PartitionLog`]: one partition's segmented, append-only log: append, read, truncate, retain,
//!   compact.
//! - [`batch`]: record batches v2 as bytes: parse, check, iterate, build.
//!
//! Promises: record batches are opaque bytes from socket to disk to socket; only base offset and
//! leader epoch are set on the way (and the leader's time, or another codec, where the topic wants it). The log end
//! offset counts only what `write()` returned for. Hostile bytes give errors, never panics. An I/O
//! error takes the partition offline with its reason and loses nothing acknowledged.
//!
//! Every call may block on the disk, but for the getters (`log_end_offset`, `end_offset_for_epoch`,
//! ...): call them from `spawn_blocking` or from threads of their own.

pub mod batch;
mod clean;
mod config;
mod dir;
pub mod disk;
mod epochs;
mod error;
#[cfg(test)]
mod faults;
mod index;
pub mod inspect;
mod lines;
mod partition;
mod producers;
mod repack;
mod scan;
mod segment;
mod validate;

pub use clean::Cleanable;
pub use config::{Compression, LogConfig, TimestampType, UnknownCompression};
pub use dir::{Confirmed, LogDir, RestartReport};
pub use error::{AppendError, LogError, ReadError, StorageError};
pub use leasehold_types::{LeaderEpoch, Offset, ProducerId, TopicId};
pub use partition::{AppendInfo, Cleaned, PartitionLog, TimestampedOffset};
