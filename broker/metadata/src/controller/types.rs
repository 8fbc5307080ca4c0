//! What goes into the controller and what comes out.

use crate::broker_config::BrokerConfig;
use crate::configs;
use crate::features::Level;
use crate::group_configs::GroupDefaults;
use crate::image::Listeners;
use crate::records::Record;
use crate::rpc::{AdminRequest, AlterPartition, Poll, Registration, Response};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, PartitionEpoch, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A point on the driver's monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How long `self` is after `earlier`; 0 if it is not.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The driver's token for one question that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// What happens to a controller.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A process asks to be admitted.
    Register {
        to: ReplyTo,
        registration: Box<Registration>,
    },
    /// A heartbeat. A reply is returned only if it is refused; otherwise the driver answers it when
    /// there is news, or after a while without, with what is *committed*.
    Poll { to: ReplyTo, poll: Poll },
    /// This broker's connection ended, and a reconnect was refused, unreachable or unanswered.
    SessionEvidence {
        broker: BrokerId,
        incarnation: Incarnation,
        /// What was seen, for the log.
        evidence: String,
    },
    /// A broker says that it ends now.
    Goodbye {
        to: ReplyTo,
        broker: BrokerId,
        incarnation: Incarnation,
    },
    /// A leader proposes ISRs.
    AlterPartition {
        to: ReplyTo,
        request: AlterPartition,
    },
    AllocateProducerIds {
        to: ReplyTo,
        broker: BrokerId,
        incarnation: Incarnation,
    },
    /// An administrator's wish; not applied at or after `deadline`.
    Admin {
        to: ReplyTo,
        request: AdminRequest,
        deadline: Millis,
    },
    /// A broker's position lies on no line that leads here, confirmed: decide nothing any more.
    Freeze { reason: String },
}

/// What a step decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// To be committed, in this order.
    pub records: Vec<Record>,
    /// To be released once everything returned so far is known to be committed.
    pub effects: Vec<Effect>,
    /// The records are nothing but expansions of ISRs: they may wait up to half a second for company.
    pub can_wait: bool,
    /// The deadline of the administrator's wish that led to the records: their write must begin before
    /// it, or never (then drop the controller).
    pub write_before: Option<Millis>,
}

/// What a decision does besides its records.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Reply {
        to: ReplyTo,
        response: Response,
    },
    /// For the log (and Kubernetes Events): one line each.
    Event(Event),
    /// Give the role up, wait one Lease duration, and claim only if nobody did; then pass `lost` to
    /// [`super::Controller::after_standing_back`].
    Resign {
        reason: String,
        lost: BTreeSet<BrokerId>,
    },
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Registered {
        broker: BrokerId,
        incarnation: Incarnation,
        /// Whether it kept everything it ever confirmed.
        intact: bool,
    },
    Fenced {
        broker: BrokerId,
        incarnation: Incarnation,
        reason: String,
    },
    Unfenced {
        broker: BrokerId,
        incarnation: Incarnation,
    },
    ShuttingDown {
        broker: BrokerId,
        incarnation: Incarnation,
    },
    /// A partition has another leader, or none.
    Leader {
        partition: PartitionName,
        leader: Option<BrokerId>,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        isr: Vec<BrokerId>,
        /// Committed records may be missing.
        unclean: bool,
        reason: String,
    },
    /// A partition's ISR changed under the same leader.
    Isr {
        partition: PartitionName,
        isr: Vec<BrokerId>,
        elr: Vec<BrokerId>,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
    },
    /// A reassignment began, ended or was called off.
    Reassignment {
        partition: PartitionName,
        replicas: Vec<BrokerId>,
        what: String,
    },
    TopicCreated {
        name: String,
        id: TopicId,
    },
    TopicDeleted {
        name: String,
        id: TopicId,
    },
    Cordoned {
        broker: BrokerId,
        cordoned: bool,
    },
    /// Clients of these listeners of a broker are told another endpoint.
    Endpoints {
        broker: BrokerId,
        listeners: Listeners,
    },
    /// Brokers are to be made even, or are.
    Balance {
        what: String,
    },
    Unregistered {
        broker: BrokerId,
    },
    /// From here on the cluster is at this level.
    FeatureLevel {
        name: String,
        level: Level,
    },
    Frozen {
        reason: String,
    },
    /// Something an operator should look at.
    Warning {
        message: String,
    },
}

/// A partition as people know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionName {
    pub topic: String,
    pub id: TopicId,
    pub partition: i32,
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A topic that a coordinator keeps its state in, as it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    pub partitions: i32,
    pub replication_factor: i16,
    pub segment_bytes: i32,
    /// `None`: the default of all topics.
    pub min_isr: Option<i32>,
}

/// How the controller behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Without a poll, or with a position that does not move, for this long a broker is fenced.
    pub session_timeout_ms: u64,
    /// A broker gets its preferred leaderships back only after it was unfenced for this long.
    pub preferred_leader_delay_ms: u64,
    /// How often it is checked whether preferred leaders can be restored.
    pub preferred_leader_check_ms: u64,
    /// Whether preferred leaders are restored at all.
    pub auto_leader_rebalance: bool,
    /// Leaderships restored in one step at most.
    pub max_restored_per_check: usize,
    pub default_partitions: i32,
    pub default_replication_factor: i16,
    /// `__consumer_offsets`, as it is created.
    pub offsets_topic: InternalTopic,
    /// `__transaction_state`, as it is created.
    pub transactions_topic: InternalTopic,
    pub delete_topics: bool,
    /// Partitions that one request may create.
    pub max_partitions_per_request: usize,
    /// Partitions that are being moved off cordoned brokers at the same time.
    pub max_draining: usize,
    /// Over how long planned changes of all partitions' leadership would be spread.
    pub leader_spread_ms: u64,
    /// Replicas are moved to keep brokers even only once every broker has been unfenced for this long.
    pub balance_settle_ms: u64,
    /// A broker that has been away for this long is not waited for, nor is what moves to it.
    pub balance_patience_ms: u64,
    /// How long to wait for the last of those who may have lost data before the longest log leads.
    pub unclean_recovery_timeout_ms: u64,
    /// Producer ids given to a broker at a time.
    pub producer_id_block: i64,
    /// What a group may be given, and what it has otherwise.
    pub groups: GroupDefaults,
    /// Topic keys from this broker's file: the defaults of all topics (`ConfigResource::Static`).
    pub topic_defaults: BTreeMap<String, String>,
    /// Whether an operator tells the controller of changed defaults ([`crate::rpc::AdminRequest::SetTopicDefaults`]).
    /// Then a file counts for the first controller only: brokers that started with different ones do not undo
    /// each other's.
    pub defaults_are_told: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::from_config(&BrokerConfig::default())
    }
}

impl Settings {
    /// The settings that follow from a broker's configuration.
    pub fn from_config(config: &BrokerConfig) -> Self {
        let ms = |value: i64| u64::try_from(value).unwrap_or(0);
        let factor = |value: i32| i16::try_from(value).unwrap_or(i16::MAX);
        Self {
            session_timeout_ms: ms(config.broker_session_timeout_ms).max(1),
            preferred_leader_delay_ms: ms(config.leader_restore_delay_ms),
            preferred_leader_check_ms: ms(config.leader_restore_delay_ms).clamp(100, 5_000),
            auto_leader_rebalance: config.auto_leader_rebalance_enable,
            max_restored_per_check: 500,
            default_partitions: config.num_partitions,
            default_replication_factor: factor(config.default_replication_factor),
            offsets_topic: InternalTopic {
                partitions: config.offsets_topic_num_partitions,
                replication_factor: factor(config.offsets_topic_replication_factor),
                segment_bytes: config.offsets_topic_segment_bytes,
                min_isr: None,
            },
            transactions_topic: InternalTopic {
                partitions: config.transaction_state_log_num_partitions,
                replication_factor: factor(config.transaction_state_log_replication_factor),
                segment_bytes: config.transaction_state_log_segment_bytes,
                min_isr: Some(config.transaction_state_log_min_isr),
            },
            delete_topics: config.delete_topic_enable,
            max_partitions_per_request: 10_000,
            max_draining: 16,
            leader_spread_ms: 15_000,
            balance_settle_ms: 10_000,
            balance_patience_ms: 60_000,
            unclean_recovery_timeout_ms: 300_000,
            producer_id_block: 1_000,
            groups: GroupDefaults::from_config(config),
            topic_defaults: configs::defaults_from(config),
            defaults_are_told: false,
        }
    }
}
