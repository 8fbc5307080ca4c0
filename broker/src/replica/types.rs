//! What the rest of the broker asks of its replicas, and the answers, as plain structs.

use bytes::Bytes;
use leasehold_log::{AbortedTxn, RecordErrors, VerificationGuard};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// A partition's name inside the broker.
pub type PartitionKey = (TopicId, i32);

/// Whom to ask instead (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    pub leader: Option<BrokerId>,
    pub epoch: LeaderEpoch,
}

/// How many replicas must have a record before its producer hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// acks=0: nobody waits for the answer.
    None,
    /// acks=1: the leader has written it.
    Leader,
    /// acks=all: it is below the high watermark.
    All,
}

impl Acks {
    /// Kafka's number; `None` if it is none of −1, 0, 1.
    pub fn from_kafka(acks: i16) -> Option<Self> {
        match acks {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            -1 => Some(Self::All),
            _ => None,
        }
    }
}

/// Records for one partition.
#[derive(Clone, Debug)]
pub struct ProduceEntry {
    pub topic: TopicId,
    pub partition: i32,
    /// One record batch, as it came from the socket.
    pub records: Bytes,
    /// Append only in this leader epoch (for the broker's own coordinators); clients have none.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What the transaction coordinator said.
    pub verified: Verified,
}

/// Whether the transaction coordinator knows the partition as part of the batch's transaction (KIP-890). Set by
/// [`super::ReplicaManager::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verified {
    /// It was not asked: the batch belongs to no transaction, or to one that is open here.
    #[default]
    NotAsked,
    /// It is, as long as this guard holds.
    Guarded(VerificationGuard),
    /// The same, and it was added for its producer just now. A guard that is void by then says that the marker of the
    /// transaction before came in between: to be asked again, and no fault of the producer.
    Added(VerificationGuard),
    /// It was not asked, since this broker did not lead the partition then.
    NotLed,
    /// It is not, or nobody could say: nothing is appended.
    Refused(ErrorCode, String),
}

/// What became of a [`ProduceEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceResult {
    pub error: ErrorCode,
    pub message: Option<String>,
    /// Offset of the first record; −1 on error.
    pub base_offset: Offset,
    /// −1 unless the topic stamps the time of the append.
    pub log_append_time: i64,
    pub log_start_offset: Offset,
    /// Set with NOT_LEADER_OR_FOLLOWER.
    pub current_leader: Option<LeaderHint>,
    /// Which records are to blame, if single ones are (KIP-467).
    pub record_errors: Option<Arc<RecordErrors>>,
}

impl ProduceResult {
    /// A refusal.
    pub fn failed(error: ErrorCode, message: Option<String>) -> Self {
        Self {
            error,
            message,
            base_offset: Offset(-1),
            log_append_time: -1,
            log_start_offset: Offset(-1),
            current_leader: None,
            record_errors: None,
        }
    }
}

/// Who fetches, and how patiently.
#[derive(Clone, Debug)]
pub struct FetchParams {
    /// A follower and its incarnation (internal listener only); `None` for a client.
    pub replica: Option<(BrokerId, Incarnation)>,
    pub max_wait: Duration,
    pub min_bytes: usize,
    /// Over all partitions; the first batch is returned whole even if it is larger.
    pub max_bytes: usize,
    pub read_committed: bool,
}

/// One partition of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchEntry {
    pub topic: TopicId,
    pub partition: i32,
    /// The epoch in which the fetcher believes; `None` if it said nothing.
    pub current_leader_epoch: Option<LeaderEpoch>,
    pub fetch_offset: Offset,
    /// The epoch of the last record that the fetcher holds; `None` if it said nothing.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Where a follower's log begins; `None` of clients.
    pub log_start_offset: Option<Offset>,
    pub max_bytes: usize,
}

/// The answer to a [`FetchEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResult {
    pub topic: TopicId,
    pub partition: i32,
    pub error: ErrorCode,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    pub records: Bytes,
    /// The aborted transactions that have records in these; only for who reads committed ones.
    pub aborted: Vec<AbortedTxn>,
    /// The fetcher's log parts from ours: the largest epoch not above its own, and where it ends.
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// Set with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH.
    pub current_leader: Option<LeaderHint>,
    /// A follower that is closer to the consumer (KIP-392); then there are no records.
    pub preferred_replica: Option<BrokerId>,
}

impl FetchResult {
    /// A refusal.
    pub fn failed(topic: TopicId, partition: i32, error: ErrorCode) -> Self {
        Self {
            topic,
            partition,
            error,
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start_offset: Offset(-1),
            records: Bytes::new(),
            aborted: Vec::new(),
            diverging_epoch: None,
            current_leader: None,
            preferred_replica: None,
        }
    }
}

/// A refusal of a read that is not a fetch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ReadRefused {
    pub error: ErrorCode,
    pub current_leader: Option<LeaderHint>,
}

/// The answer to ListOffsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// −1 where the question was not about time, or nothing was found.
    pub timestamp: i64,
    /// −1 if nothing was found.
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What the leader knows of its own partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderState {
    pub epoch: LeaderEpoch,
    /// The log's end when this leadership began: all that was ever committed before lies below.
    pub epoch_start: Offset,
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub log_end: Offset,
}

/// A change of leadership of a partition that this broker hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadershipChange {
    pub topic: TopicId,
    pub partition: i32,
    /// The epoch in which this broker leads from now on; `None`: it leads no longer.
    pub leads: Option<LeaderEpoch>,
}

/// What became of a wish to delete a partition's records below an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedRecords {
    pub error: ErrorCode,
    /// The smallest offset at which a live replica begins; −1 if not known.
    pub low_watermark: Offset,
}

/// How far a local read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadUpTo {
    HighWatermark,
    /// Everything, committed or not: how a coordinator loads its state.
    LogEnd,
}
