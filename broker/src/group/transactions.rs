//! What the coordinator of groups has to do with transactions: offsets that are part of one, and its end.

use super::coordinator::{GroupCoordinator, merge};
use super::hash::partition_of;
use super::log::Leadership;
use super::task::Command;
use super::types::{CommitResponse, TxnCommitRequest};
use crate::replica::{AppendedMarker, MarkerListener};
use leasehold_wire::ErrorCode;

impl GroupCoordinator {
    /// The partition of the offsets topic that a group belongs to; `None` while there is no such topic.
    pub fn partition_for(&self, group_id: &str) -> Option<i32> {
        let partitions = self.cluster.offsets_partitions()?;
        Some(partition_of(group_id, partitions))
    }

    /// TxnOffsetCommit.
    pub async fn commit_in_transaction(&self, mut request: TxnCommitRequest) -> CommitResponse {
        let unknown = self.take_out_unknown(&mut request.commit);
        let topics = &request.commit.topics;
        let order: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        if topics.iter().all(|topic| topic.partitions.is_empty()) {
            return merge(order, Vec::new(), unknown);
        }
        let group_id = request.commit.group_id.clone();
        let asked = request.commit.all_partitions(ErrorCode::None);
        // Unlike OffsetCommit, for which the group without a name is one of simple consumers.
        if group_id.is_empty() {
            let refused = super::shard::Reply::spread(asked, ErrorCode::InvalidGroupId);
            return merge(order, refused.topics, unknown);
        }
        let answer = self
            .ask(&group_id, |reply| {
                Command::CommitInTransaction(request, reply)
            })
            .await;
        let topics = match answer {
            Ok(response) => response.topics,
            Err(error) => super::shard::Reply::spread(asked, error).topics,
        };
        merge(order, topics, unknown)
    }
}

/// The marker of a transaction's end lies in the offsets topic: what it commits shows. That the marker may yet
/// be lost does not matter: what it says is decided, and it would be written again.
impl MarkerListener for GroupCoordinator {
    fn on_marker(&self, marker: AppendedMarker) {
        let at = Leadership {
            topic: marker.topic,
            partition: marker.partition,
            epoch: marker.leader_epoch,
        };
        // A shard that is not there yet finds it in the log.
        self.shards.tell(at, Command::TransactionEnded(marker));
    }
}
