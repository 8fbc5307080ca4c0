//! What a coordinator needs of the log that its state is kept in. The replicas provide it; tests
//! have one in memory.

use crate::replica::Verified;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_types::{LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;

/// A partition of an internal topic, led by this broker in an epoch. A coordinator's state belongs to
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
pub trait StateLog: Send + Sync + 'static {
    /// Queues the append before it returns; the future resolves with the batch's offset once it is stored
    /// on all in-sync replicas, or with the reason why not. Fails if `at` is over. `verified` is what the
    /// transaction coordinator said of a batch that is part of a transaction.
    fn append(
        &self,
        at: Leadership,
        batch: Bytes,
        verified: Verified,
    ) -> BoxFuture<'static, Result<Offset, ErrorCode>>;

    /// `None` if `at` is over.
    fn bounds(&self, at: Leadership) -> Option<Bounds>;

    /// Committed batches from `from` on, about 1 MiB at most; waits a while if there are none yet.
    async fn read(&self, at: Leadership, from: Offset) -> Result<Bytes, ErrorCode>;
}
