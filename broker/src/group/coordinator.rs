//! The group coordinator as the API layer calls it: one async method per group API.

use super::types::*;
use leasehold_wire::ErrorCode;

/// Coordinates the groups whose `__consumer_offsets` partition this broker leads.
pub struct GroupCoordinator {}

impl GroupCoordinator {
    /// FindCoordinator for one key; `key_type` 0 is a group. Creates the offsets topic on demand.
    pub async fn find_coordinator(&self, _key_type: i8, _key: &str) -> FoundCoordinator {
        todo!()
    }

    /// JoinGroup. Answers when the rebalance is complete, so it may take minutes.
    pub async fn join(&self, _request: JoinRequest) -> JoinResponse {
        todo!()
    }

    /// SyncGroup. Answers when the leader's assignment is stored.
    pub async fn sync(&self, _request: SyncRequest) -> SyncResponse {
        todo!()
    }

    /// Heartbeat.
    pub async fn heartbeat(&self, _request: HeartbeatRequest) -> ErrorCode {
        todo!()
    }

    /// LeaveGroup.
    pub async fn leave(&self, _request: LeaveRequest) -> LeaveResponse {
        todo!()
    }

    /// ListGroups.
    pub async fn list(&self, _request: ListRequest) -> ListResponse {
        todo!()
    }

    /// DescribeGroups: one answer per id, in order.
    pub async fn describe(&self, _api_version: i16, _group_ids: Vec<String>) -> Vec<DescribedGroup> {
        todo!()
    }

    /// DeleteGroups: one answer per id, in order.
    pub async fn delete(&self, _group_ids: Vec<String>) -> Vec<(String, ErrorCode)> {
        todo!()
    }

    /// OffsetCommit.
    pub async fn commit(&self, _request: CommitRequest) -> CommitResponse {
        todo!()
    }

    /// OffsetFetch of one group.
    pub async fn fetch(&self, _request: FetchRequest) -> FetchResponse {
        todo!()
    }
}
