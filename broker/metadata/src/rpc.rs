//! What brokers and the controller say to each other, as JSON over the internal listener.
//!
//! Every call is wrapped in [`Call`], which carries the cluster id; a foreign one is refused. Every
//! answer is given only after what it reports is known to be committed, refusals included.
//! Error codes are Kafka's ([`codes`]), so that they can be passed on to clients.

mod admin;
pub mod codes;

pub use admin::*;

use crate::features::Supported;
use crate::image::{Endpoint, Listeners, Position};
use crate::records::{Entry, Record};
use leasehold_types::{
    BrokerId, ClusterId, DirectoryId, Incarnation, LeaderEpoch, Offset, PartitionEpoch, ProducerId,
    Seq, TopicId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A request with the cluster it is meant for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub cluster_id: ClusterId,
    pub request: Request,
}

/// What a broker (or the operator) asks of the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Admit this process. Repeats are no-ops.
    Register(Box<Registration>),
    /// Heartbeat and wish for news: answered when there are entries after `position`, or after a
    /// while without.
    Poll(Poll),
    /// Change the ISR of partitions that the sender leads.
    AlterPartition(AlterPartition),
    /// The sender is about to end; answered when its leaderships and ISR places are given up.
    Goodbye {
        broker: BrokerId,
        incarnation: Incarnation,
    },
    /// A block of producer ids for the sender to give out.
    AllocateProducerIds {
        broker: BrokerId,
        incarnation: Incarnation,
    },
    /// An administrator's wish. `timeout_ms` from its arrival it must not be applied any more.
    Admin {
        request: AdminRequest,
        timeout_ms: u64,
    },
    /// Who is controller? Answered by anyone; a frozen controller refuses, with the reason.
    WhoIsController,
}

/// A broker's wish to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub client: Endpoint,
    pub internal: Endpoint,
    pub http: Option<Endpoint>,
    /// `None`: the last known one stays.
    pub rack: Option<String>,
    pub version: String,
    /// Of the first log directory: all that an older controller asks for.
    pub restart: RestartReport,
    /// Every log directory that can be read. Empty from a broker that has one and tells no id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<DirectoryReport>,
    /// Log directories of its configuration that cannot be read: what is in none of the others may be there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u32,
    /// Listeners for clients beside the main one. Of an endpoint that is `None` the last known one stays: others
    /// tell it ([`AdminRequest::SetEndpoints`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listeners: Listeners,
    /// What this process supports. Empty from a release that did not tell.
    #[serde(default, skip_serializing_if = "Supported::is_empty")]
    pub features: Supported,
}

/// One log directory, as it was found at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryReport {
    pub id: DirectoryId,
    pub restart: RestartReport,
    /// The partitions that have a log in it.
    pub partitions: Vec<(TopicId, i32)>,
}

/// What a log directory's `run` file says, and what is true now; the controller judges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartReport {
    /// The last incarnation that was confirmed; `None` if there is no `run` file, or it is unreadable.
    pub confirmed: Option<ConfirmedRun>,
    /// Every incarnation attempted since, this one included.
    pub attempted: Vec<Incarnation>,
    /// Identifies the kernel's present run.
    pub boot_id: String,
    /// Identifies the present pod (outside Kubernetes: a constant).
    pub pod_uid: String,
}

/// The last life of this log directory that wrote to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedRun {
    pub incarnation: Incarnation,
    pub boot_id: String,
    pub pod_uid: String,
    /// Whether it ended in order: everything is on the disk.
    pub clean: bool,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    /// What this broker has durably applied; `None`: nothing yet, send a snapshot.
    pub position: Option<Position>,
    #[serde(default)]
    pub state: BrokerState,
}

/// What a broker tells about itself at every poll.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerState {
    /// SIGTERM was received: move my leaderships away.
    #[serde(default)]
    pub wants_shutdown: bool,
    /// Ends of the logs that [`crate::image::Image::wanted_log_ends`] asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_ends: Vec<LogEnd>,
    /// Replicas that refused an epoch of the metadata because their own log is ahead of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs_ahead: Vec<LogEnd>,
    /// Replicas whose log failed, while this broker goes on with others; told until the metadata says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<(TopicId, i32)>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How far one replica's log goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    pub topic: TopicId,
    pub partition: i32,
    /// Epoch of the last batch; -1 for an empty log.
    pub last_epoch: LeaderEpoch,
    pub end_offset: Offset,
}

/// ISR proposals of one leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterPartition {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub proposals: Vec<IsrProposal>,
}

/// One proposed ISR; a retry is byte-identical.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrProposal {
    pub topic: TopicId,
    pub partition: i32,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    /// The members, each with its incarnation as captured when it was judged eligible.
    pub isr: Vec<(BrokerId, Incarnation)>,
}

/// The verdict on one proposal. A hint only: the record stream says what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrVerdict {
    pub topic: TopicId,
    pub partition: i32,
    pub outcome: Outcome,
}

/// The controller's (or any broker's) answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Admitted; act on no image older than `at`.
    Registered {
        incarnation: Incarnation,
        at: Seq,
    },
    /// News, heartbeat, or both.
    Poll(PollAnswer),
    AlterPartition(Vec<IsrVerdict>),
    /// The sender is fenced and leads nothing.
    Goodbye,
    ProducerIds {
        first: ProducerId,
        count: i64,
    },
    Admin(AdminResponse),
    /// Who is controller as far as the one asked knows.
    Controller(Option<ControllerHint>),
    /// The one asked is not the controller. Nothing was applied.
    NotController {
        hint: Option<ControllerHint>,
    },
    /// Refused as a whole.
    Error(Outcome),
}

/// Where the controller is believed to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerHint {
    pub broker: BrokerId,
    pub internal: Endpoint,
}

/// What a poll brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// The controller's committed position when it answered.
    pub committed: Position,
    pub news: News,
    /// The sender leads nothing that another could take over: it may end.
    #[serde(default)]
    pub may_stop: bool,
    /// Why the controller decides nothing at present; `None` in good times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
}

/// How a broker gets from its position to the committed one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// The entries that follow the sender's position, without a gap; may be empty.
    Entries(Vec<Entry>),
    /// Everything, as of `position`.
    Snapshot {
        position: Position,
        records: Vec<Record>,
    },
}

/// A Kafka error code with a message for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub code: i16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Outcome {
    /// Success.
    pub fn ok() -> Self {
        Self::default()
    }

    /// A refusal.
    pub fn refused(code: i16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    pub fn is_ok(&self) -> bool {
        self.code == codes::NONE
    }
}
