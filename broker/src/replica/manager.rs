//! The manager of this broker's replicas.

use super::types::*;
use bytes::Bytes;
use leasehold_types::{LeaderEpoch, Offset, TopicId};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// All replicas of this broker; shared as `Arc<ReplicaManager>`.
pub struct ReplicaManager {}

/// Resolves when every entry of one produce is answered, in the order of the entries.
pub struct PendingProduce {}

impl Future for PendingProduce {
    type Output = Vec<ProduceResult>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

impl ReplicaManager {
    /// Queues the appends before it returns, so calls in a connection's order append in that order;
    /// the future waits for what `acks` asks, at most `timeout`. Dropping it cancels nothing.
    pub fn append(
        &self,
        acks: Acks,
        timeout: Duration,
        entries: Vec<ProduceEntry>,
    ) -> PendingProduce {
        let _ = (acks, timeout, entries);
        todo!()
    }

    /// Answers when `min_bytes` can be returned, when any entry has an error, or after `max_wait`. Results in the order of `entries`.
    pub async fn fetch(&self, params: FetchParams, entries: Vec<FetchEntry>) -> Vec<FetchResult> {
        let _ = (params, entries);
        todo!()
    }

    /// ListOffsets: −1 latest, −2 earliest, −3 largest timestamp, −4 earliest local, −5 latest tiered, else the first record at or after `timestamp`.
    pub async fn list_offsets(
        &self,
        key: PartitionKey,
        current_leader_epoch: Option<LeaderEpoch>,
        timestamp: i64,
        read_committed: bool,
    ) -> Result<FoundOffset, ReadRefused> {
        let _ = (key, current_leader_epoch, timestamp, read_committed);
        todo!()
    }

    /// OffsetForLeaderEpoch: the largest epoch not above `epoch` and its end; (NONE, −1) if unknown.
    pub async fn offset_for_leader_epoch(
        &self,
        key: PartitionKey,
        current_leader_epoch: Option<LeaderEpoch>,
        epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), ReadRefused> {
        let _ = (key, current_leader_epoch, epoch);
        todo!()
    }

    /// The leadership of this broker over a partition, if it has it now.
    pub fn leads(&self, topic: TopicId, partition: i32) -> Option<LeaderState> {
        let _ = (topic, partition);
        todo!()
    }

    /// Whole batches of a partition that this broker leads, from `from` on, about `max_bytes` (at least one batch); empty at the end.
    pub async fn read_local(
        &self,
        key: PartitionKey,
        from: Offset,
        up_to: ReadUpTo,
        max_bytes: usize,
    ) -> Result<Bytes, ReadRefused> {
        let _ = (key, from, up_to, max_bytes);
        todo!()
    }

    /// Every partition that is led now, then every change, in order and without loss.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<LeadershipChange> {
        todo!()
    }
}
