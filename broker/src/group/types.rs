//! What the group APIs ask and answer, as plain values: no version, no wire type reaches further in.
//!
//! The API layer fills these from Kafka's requests and turns the answers back. Where an answer
//! depends on the request's version, the version is a field of the request and the decision is made
//! behind it; what a version cannot carry is left out by the encoder.

use super::store::consumer::Partitions;
use crate::coordinator::write::InTransaction;
use bytes::Bytes;
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use std::collections::BTreeSet;

/// JoinGroup. Absent strings are empty where Kafka says so.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// Decides about MEMBER_ID_REQUIRED (v4+) and `skip_assignment` (v9+).
    pub api_version: i16,
    pub group_id: String,
    pub session_timeout_ms: i32,
    /// -1 in v0, which has no such field: the session timeout then serves as both.
    pub rebalance_timeout_ms: i32,
    /// Empty on the first join.
    pub member_id: String,
    /// `group.instance.id` of a static member (v5+).
    pub instance_id: Option<String>,
    pub protocol_type: String,
    /// In the client's order of preference.
    pub protocols: Vec<Protocol>,
    /// Why the client joins (v8+); for the log.
    pub reason: Option<String>,
    /// From the request's header; empty if null.
    pub client_id: String,
    /// As Kafka prints it: a slash and the address, such as `/127.0.0.1`.
    pub client_host: String,
}

/// One way of sharing partitions that a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// The answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    pub error: ErrorCode,
    /// -1 with an error.
    pub generation: i32,
    /// v7+.
    pub protocol_type: Option<String>,
    /// Not nullable before v7: send "" there.
    pub protocol_name: Option<String>,
    /// Empty with an error.
    pub leader: String,
    /// v9+.
    pub skip_assignment: bool,
    pub member_id: String,
    /// Only the leader gets them.
    pub members: Vec<JoinMember>,
}

/// A member as its group's leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

impl JoinResponse {
    /// A refusal.
    pub fn refused(member_id: impl Into<String>, error: ErrorCode) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        }
    }
}

/// SyncGroup.
#[derive(Clone, Debug, Default)]
pub struct SyncRequest {
    pub api_version: i16,
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// v5+.
    pub protocol_type: Option<String>,
    /// v5+.
    pub protocol_name: Option<String>,
    /// From the leader: who gets what.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    pub error: ErrorCode,
    /// v5+.
    pub protocol_type: Option<String>,
    /// v5+.
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

impl SyncResponse {
    /// A refusal.
    pub fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

/// Heartbeat. The answer is an error code.
#[derive(Clone, Debug, Default)]
pub struct HeartbeatRequest {
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// LeaveGroup. Before v3 there is exactly one member, without instance id.
#[derive(Clone, Debug, Default)]
pub struct LeaveRequest {
    pub group_id: String,
    pub members: Vec<LeavingMember>,
}

/// Who leaves: by member id, or by instance id alone (an administrator's removal).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeavingMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    /// v5+; for the log.
    pub reason: Option<String>,
}

/// The answer to LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveResponse {
    pub error: ErrorCode,
    pub members: Vec<LeftMember>,
}

/// How one member's leaving went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub error: ErrorCode,
}

impl LeaveResponse {
    /// A refusal of the whole request.
    pub fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            members: Vec::new(),
        }
    }

    /// The one error code that v0 to v2 can carry.
    pub fn single_error(&self) -> ErrorCode {
        match (self.error, self.members.first()) {
            (ErrorCode::None, Some(member)) => member.error,
            (error, _) => error,
        }
    }
}

/// ListGroups; empty filters let everything through.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// v4+: states, in any case.
    pub states: Vec<String>,
    /// v5+: types ("classic", "consumer"), in any case.
    pub types: Vec<String>,
}

/// The answer to ListGroups: the groups that this broker coordinates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResponse {
    pub error: ErrorCode,
    pub groups: Vec<ListedGroup>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group_id: String,
    pub protocol_type: String,
    /// v4+.
    pub state: &'static str,
    /// v5+.
    pub group_type: &'static str,
}

/// One group's part of the answer to DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    pub error: ErrorCode,
    /// v6+.
    pub error_message: Option<String>,
    pub group_id: String,
    pub state: &'static str,
    pub protocol_type: String,
    pub protocol_data: String,
    pub members: Vec<DescribedMember>,
}

/// A member of a described group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    /// v4+.
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// OffsetCommit.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    pub api_version: i16,
    pub group_id: String,
    /// -1 from consumers without group management.
    pub generation: i32,
    pub member_id: String,
    /// v7+.
    pub instance_id: Option<String>,
    /// v2 to v4: how long to keep the offsets; -1 (or absent) for the broker's default.
    pub retention_ms: i64,
    pub topics: Vec<CommitTopic>,
}

/// TxnOffsetCommit: the same as part of a transaction.
#[derive(Clone, Debug)]
pub struct TxnCommitRequest {
    pub transaction: InTransaction,
    pub commit: CommitRequest,
}

/// The commits of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    pub name: String,
    pub partitions: Vec<CommitPartition>,
}

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    pub partition: i32,
    pub offset: i64,
    /// v6+; -1 if absent.
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// The answer to OffsetCommit: per topic, an error code per partition, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitResponse {
    pub topics: Vec<(String, Vec<(i32, ErrorCode)>)>,
}

/// OffsetFetch of one group (v8+ carries several).
#[derive(Clone, Debug, Default)]
pub struct FetchRequest {
    pub group_id: String,
    /// `None` (a null array, v2+): all partitions with a committed offset.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
    /// v7+. Not to be given an offset that a transaction is about to change.
    pub require_stable: bool,
    /// v9+: who asks, if it is a member; groups of the newer protocol check it.
    pub member_id: Option<String>,
    /// v9+; -1 from those who are no members.
    pub member_epoch: i32,
}

/// OffsetDelete of one group.
#[derive(Clone, Debug, Default)]
pub struct DeleteOffsetsRequest {
    pub group_id: String,
    pub topics: Vec<(String, Vec<i32>)>,
}

/// One group's part of the answer to OffsetFetch. With an error there are no topics; v1 must then
/// repeat the error for every partition asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    pub group_id: String,
    pub error: ErrorCode,
    pub topics: Vec<(String, Vec<FetchedOffset>)>,
}

/// A committed offset; offset -1 and epoch -1 where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    pub partition: i32,
    pub error: ErrorCode,
    pub offset: i64,
    /// v5+.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// ConsumerGroupHeartbeat. What is `None` stays as the member told it before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerHeartbeatRequest {
    /// Decides whether a member must bring its own id (v1+).
    pub api_version: i16,
    pub group_id: String,
    pub member_id: String,
    /// 0 joins, -1 leaves, -2 leaves as a static member that may come back.
    pub member_epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    /// -1 if unchanged.
    pub rebalance_timeout_ms: i32,
    pub topics: Option<BTreeSet<String>>,
    /// v1+; empty takes the expression back.
    pub regex: Option<String>,
    pub assignor: Option<String>,
    /// What the member has.
    pub owned: Option<Partitions>,
    /// From the request's header; empty if null.
    pub client_id: String,
    /// As Kafka prints it: a slash and the address, such as `/127.0.0.1`.
    pub client_host: String,
}

/// The answer to ConsumerGroupHeartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeatResponse {
    pub error: ErrorCode,
    pub error_message: Option<String>,
    pub member_id: Option<String>,
    pub member_epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// What the member has from now on; `None` if that did not change.
    pub assignment: Option<Partitions>,
}

impl ConsumerHeartbeatResponse {
    /// A refusal.
    pub fn failed(error: ErrorCode) -> Self {
        Self {
            error,
            error_message: None,
            member_id: None,
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
        }
    }
}

/// One group's part of the answer to ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescribedGroup {
    pub error: ErrorCode,
    pub error_message: Option<String>,
    pub group_id: String,
    pub state: &'static str,
    pub epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: &'static str,
    pub members: Vec<ConsumerDescribedMember>,
}

/// A member of a described group of the newer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescribedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub topics: Vec<String>,
    pub regex: Option<String>,
    pub assignment: Vec<DescribedPartitions>,
    pub target: Vec<DescribedPartitions>,
    /// v1+: 0 uses the classic protocol, 1 the newer one.
    pub member_type: i8,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedPartitions {
    pub topic_id: TopicId,
    pub topic: String,
    pub partitions: Vec<i32>,
}

impl ConsumerDescribedGroup {
    /// A group that could not be described.
    pub fn refused(group_id: &str, error: ErrorCode, message: Option<String>) -> Self {
        Self {
            error,
            error_message: message,
            group_id: group_id.to_owned(),
            state: "",
            epoch: 0,
            assignment_epoch: 0,
            assignor: "",
            members: Vec::new(),
        }
    }
}

pub use crate::coordinator::find::FoundCoordinator;

impl CommitRequest {
    /// The same answer for every partition.
    pub fn all_partitions(&self, error: ErrorCode) -> Vec<(String, Vec<(i32, ErrorCode)>)> {
        let each = |topic: &CommitTopic| {
            let partitions = topic.partitions.iter();
            (
                topic.name.clone(),
                partitions.map(|p| (p.partition, error)).collect(),
            )
        };
        self.topics.iter().map(each).collect()
    }
}

impl DescribedGroup {
    /// A group that could not be described.
    pub fn refused(group_id: &str, error: ErrorCode) -> Self {
        Self {
            error,
            error_message: None,
            group_id: group_id.to_owned(),
            state: "",
            protocol_type: String::new(),
            protocol_data: String::new(),
            members: Vec::new(),
        }
    }

    /// A group that does not exist: an error since v6, a dead group before.
    pub fn missing(group_id: &str, api_version: i16) -> Self {
        Self::dead(
            group_id,
            api_version,
            format!("Group {group_id} not found."),
        )
    }

    /// A group that this API does not describe, and why.
    pub fn dead(group_id: &str, api_version: i16, message: String) -> Self {
        let mut described = Self::refused(group_id, ErrorCode::None);
        described.state = "Dead";
        if api_version >= 6 {
            described.error = ErrorCode::GroupIdNotFound;
            described.error_message = Some(message);
        }
        described
    }
}

impl FetchResponse {
    /// A refusal.
    pub fn refused(group_id: &str, error: ErrorCode) -> Self {
        Self {
            group_id: group_id.to_owned(),
            error,
            topics: Vec::new(),
        }
    }
}
