//! The crate's errors. Those that a client gets to see map one-to-one to Kafka's error codes.

use crate::RecordErrors;
use crate::batch::BatchError;
use leasehold_types::{LeaderEpoch, Offset, ProducerId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a partition's log is offline: an I/O error met earlier, or the log was closed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log of {partition} is offline: {reason}")]
pub struct StorageError {
    /// `<topic id>-<partition>`.
    pub partition: Arc<str>,
    /// What happened, with the path and the system's own words.
    pub reason: Arc<str>,
}

/// Why an append was refused. Nothing was appended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The bytes are no intact batch (length, CRC).
    #[error("the batch is corrupt: {0}")]
    Corrupt(String),
    /// The batch is larger than `max.message.bytes`.
    #[error("a batch of {size} bytes is larger than max.message.bytes = {max}")]
    TooLarge {
        /// The batch's size.
        size: usize,
        /// The topic's bound.
        max: usize,
    },
    /// The batch is larger than a whole segment.
    #[error("a batch of {size} bytes is larger than segment.bytes = {max}")]
    LargerThanSegment {
        /// The batch's size.
        size: usize,
        /// The topic's bound.
        max: usize,
    },
    /// The batch is intact but breaks a rule for what clients may send.
    #[error("invalid record batch: {0}")]
    InvalidRecord(String),
    /// Magic 0 or 1: the message formats before Kafka 0.11.
    #[error("message format v{0} is not supported: only v2 (Kafka 0.11 and later)")]
    UnsupportedMagic(i8),
    /// A timestamp outside the topic's bounds.
    #[error("invalid timestamp: {0}")]
    InvalidTimestamp(String),
    /// The batch is intact, and the topic does not take some of its records.
    #[error(transparent)]
    Records(#[from] Arc<RecordErrors>),
    /// The sequence does not follow the producer's last one.
    #[error("producer {producer} sent sequence {got} where {expected} was next")]
    OutOfOrderSequence {
        /// Who.
        producer: ProducerId,
        /// The sequence that would have been right.
        expected: i32,
        /// The sequence sent.
        got: i32,
    },
    /// A newer instance of this producer has written already.
    #[error("producer {producer} sent epoch {got}, and epoch {current} has written already")]
    InvalidProducerEpoch {
        /// Who.
        producer: ProducerId,
        /// The epoch on record.
        current: i16,
        /// The epoch sent.
        got: i16,
    },
    /// A transactional batch of a producer that has no transaction open here, and none that was verified.
    #[error("producer {0} sent a record that is not part of an ongoing transaction")]
    NotInTransaction(ProducerId),
    /// A batch outside of transactions, from a producer that has one open here.
    #[error("producer {0} sent a record outside of the transaction that it has open")]
    WithinTransaction(ProducerId),
    /// A marker of a transaction coordinator that has been replaced.
    #[error(
        "a coordinator of epoch {got} ends a transaction of producer {producer}, and epoch {current} has done so already"
    )]
    CoordinatorFenced {
        /// Whose transaction.
        producer: ProducerId,
        /// The epoch on record.
        current: i32,
        /// The epoch of the marker.
        got: i32,
    },
    /// The leader epoch is behind the last one in this log.
    #[error("leader epoch {got} is behind {last}, the last one in the log")]
    FencedEpoch {
        /// The log's last epoch.
        last: LeaderEpoch,
        /// The epoch of the append.
        got: LeaderEpoch,
    },
    /// `begin_epoch` was not called for this leader epoch.
    #[error("leader epoch {0} was not begun in this log: call begin_epoch before the first append")]
    EpochNotBegun(LeaderEpoch),
    /// A follower's batch begins below the end of the log, or of the batch before it.
    #[error("the batch at {got} does not continue the log, which ends at {end}")]
    NotAtEnd {
        /// The log end offset.
        end: Offset,
        /// The batch's base offset.
        got: Offset,
    },
    /// The registration of this process is not confirmed in the `run` file.
    #[error("{0}: nothing is appended before this process's registration is confirmed")]
    NotConfirmed(Arc<str>),
    /// An I/O error, now or earlier.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AppendError {
    /// Kafka's error code, as Apache Kafka answers a Produce.
    pub fn kafka_code(&self) -> i16 {
        match self {
            Self::Corrupt(_) => 2,
            Self::TooLarge { .. } => 10,
            Self::LargerThanSegment { .. } => 18,
            // Kafka answers INVALID_RECORD for an old magic in a Produce of v3 and later.
            Self::InvalidRecord(_) | Self::UnsupportedMagic(_) => 87,
            Self::InvalidTimestamp(_) => 32,
            Self::Records(errors) if errors.is_about_time() => 32,
            Self::Records(_) => 87,
            Self::OutOfOrderSequence { .. } => 45,
            Self::InvalidProducerEpoch { .. } => 47,
            Self::NotInTransaction(_) | Self::WithinTransaction(_) => 48,
            Self::CoordinatorFenced { .. } => 52,
            Self::FencedEpoch { .. } => 74,
            // The leader's own doing, not the client's: it shall look again who leads.
            Self::EpochNotBegun(_) | Self::NotConfirmed(_) => 6,
            Self::NotAtEnd { .. } => -1,
            Self::Storage(_) => 56,
        }
    }
}

impl From<BatchError> for AppendError {
    fn from(e: BatchError) -> Self {
        match e {
            BatchError::Magic(magic) => Self::UnsupportedMagic(magic),
            e => Self::Corrupt(e.to_string()),
        }
    }
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {from} is outside of the log, which holds {start} to {end} (exclusive)")]
    OutOfRange {
        /// The offset asked for.
        from: Offset,
        /// The log start offset.
        start: Offset,
        /// The log end offset.
        end: Offset,
    },
    /// An I/O error, now or earlier.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReadError {
    /// Kafka's error code.
    pub fn kafka_code(&self) -> i16 {
        match self {
            Self::OutOfRange { .. } => 1,
            Self::Storage(_) => 56,
        }
    }
}

/// What can go wrong with a log directory, or with a log outside of append and read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "write", "open", ...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The directory belongs to another cluster or broker.
    #[error(
        "{} belongs to broker {found}, not to broker {wanted}: start it with the directory that is its own", path.display()
    )]
    Foreign {
        /// The log directory.
        path: PathBuf,
        /// Its owner.
        found: String,
        /// Who opened it.
        wanted: String,
    },
    /// A file of the directory cannot be understood.
    #[error("{} cannot be understood ({reason})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What may be there once was found in two log directories.
    #[error(
        "{what} is in {} and in {} at once: take one of the two away", first.display(), second.display()
    )]
    Twice {
        /// What.
        what: String,
        /// A log directory.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// The log directory is offline: an I/O error met earlier.
    #[error("the log directory {} is offline: {reason}", path.display())]
    Offline {
        /// The log directory.
        path: PathBuf,
        /// What happened.
        reason: Arc<str>,
    },
    /// The leader epoch is behind the last one in this log.
    #[error("leader epoch {got} is behind {last}, the last one in the log")]
    FencedEpoch {
        /// The log's last epoch.
        last: LeaderEpoch,
        /// The epoch to begin.
        got: LeaderEpoch,
    },
    /// An offset outside of the log.
    #[error("offset {offset} is outside of the log, which holds {start} to {end} (exclusive)")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log start offset.
        start: Offset,
        /// The log end offset.
        end: Offset,
    },
    /// The registration of this process is not confirmed in the `run` file.
    #[error("{0}: nothing is written before this process's registration is confirmed")]
    NotConfirmed(Arc<str>),
    /// The log is offline.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl LogError {
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// Whether the disk did not do what it was told. That the system is short of handles for a moment is not
    /// the disk's doing, and a file whose content is damaged concerns nobody but its log.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Io { .. }) && !self.is_passing()
    }

    /// Out of file handles: nothing was opened, so nothing was changed, and it may work a moment later.
    pub fn is_passing(&self) -> bool {
        use rustix::io::Errno;
        let Self::Io { source, .. } = self else {
            return false;
        };
        [Errno::MFILE, Errno::NFILE]
            .iter()
            .any(|short| source.raw_os_error() == Some(short.raw_os_error()))
    }

    /// Kafka's error code.
    pub fn kafka_code(&self) -> i16 {
        match self {
            Self::OutOfRange { .. } => 1,
            Self::FencedEpoch { .. } => 74,
            Self::NotConfirmed(_) => 6,
            _ => 56,
        }
    }
}
