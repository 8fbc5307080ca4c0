//! What group members ask and are told: the product's own plain forms of Kafka's requests.

use leasehold_broker::group::types::{
    CommitRequest, CommitResponse, FetchRequest, FetchResponse, FoundCoordinator, HeartbeatRequest,
    JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, SyncRequest, SyncResponse,
};
use leasehold_wire::ErrorCode;

/// A question.
#[derive(Clone, Debug)]
pub enum Ask {
    Find(String),
    Join(JoinRequest),
    Sync(SyncRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveRequest),
    Commit(CommitRequest),
    Fetch(FetchRequest),
}

/// Its answer.
#[derive(Clone, Debug)]
pub enum Answer {
    Find(FoundCoordinator),
    Join(JoinResponse),
    Sync(SyncResponse),
    Heartbeat(ErrorCode),
    Leave(LeaveResponse),
    Commit(CommitResponse),
    Fetch(FetchResponse),
}

impl Ask {
    /// The group that is asked about.
    pub fn group(&self) -> &str {
        match self {
            Self::Find(group) => group,
            Self::Join(request) => &request.group_id,
            Self::Sync(request) => &request.group_id,
            Self::Heartbeat(request) => &request.group_id,
            Self::Leave(request) => &request.group_id,
            Self::Commit(request) => &request.group_id,
            Self::Fetch(request) => &request.group_id,
        }
    }
}

impl Answer {
    /// Its error; of a commit the first of its partitions'.
    pub fn error(&self) -> ErrorCode {
        match self {
            Self::Find(found) => found.error,
            Self::Join(response) => response.error,
            Self::Sync(response) => response.error,
            Self::Heartbeat(error) => *error,
            Self::Leave(response) => response.single_error(),
            Self::Commit(response) => {
                let mut partitions = response.topics.iter().flat_map(|(_, all)| all);
                let failed = partitions.find(|(_, error)| !error.is_ok());
                failed.map_or(ErrorCode::None, |(_, error)| *error)
            }
            Self::Fetch(response) => response.error,
        }
    }
}
