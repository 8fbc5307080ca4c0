//! What the coordinator needs of the log of `__consumer_offsets`. The replicas provide it; tests
//! have one in memory.

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_types::{LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;

/// A partition of the offsets topic, led by this broker in an epoch. A coordinator's state belongs to
/// exactly one of these, and is dropped with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    pub topic: TopicId,
    pub partition: i32,
    pub epoch: LeaderEpoch,
}

/// Where a led log begins and ends, committed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub log_start: Offset,
    pub log_end: Offset,
}

/// The log of the partitions that this broker leads.
#[async_trait]
pub trait OffsetsLog: Send + Sync + 'static {
    /// Queues the append before it returns; the future resolves once the batch is stored on all
    /// in-sync replicas, or with the reason why not. Fails if `at` is over.
    fn append(&self, at: Leadership, batch: Bytes) -> BoxFuture<'static, Result<(), ErrorCode>>;

    /// `None` if `at` is over.
    fn bounds(&self, at: Leadership) -> Option<Bounds>;

    /// Committed batches from `from` on, about 1 MiB at most; waits a while if there are none yet.
    async fn read(&self, at: Leadership, from: Offset) -> Result<Bytes, ErrorCode>;
}
