//! Small conversions between the broker's types and the wire's.

use crate::coordinator::write::Producer;
use leasehold_metadata::Image;
use leasehold_metadata::features::{Level, TRANSACTION_VERSION, levels_of};
use leasehold_metadata::image::Broker;
use leasehold_metadata::rpc::Outcome;
use leasehold_types::{BrokerId, LeaderEpoch, ProducerId, TopicId};
use leasehold_wire::kafka::messages::{
    BrokerId as WireBroker, GroupId, ProducerId as WireProducer, TopicName,
};
use leasehold_wire::{ErrorCode, StrBytes};

pub(super) fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}

pub(super) fn opt_text(value: Option<impl Into<String>>) -> Option<StrBytes> {
    value.map(text)
}

pub(super) fn owned_text(value: &Option<StrBytes>) -> Option<String> {
    value.as_ref().map(|text| text.to_string())
}

pub(super) fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

pub(super) fn group_id(value: &str) -> GroupId {
    GroupId(text(value))
}

pub(super) fn node(id: BrokerId) -> WireBroker {
    WireBroker(id.0)
}

pub(super) fn nodes<'a>(ids: impl IntoIterator<Item = &'a BrokerId>) -> Vec<WireBroker> {
    ids.into_iter().map(|id| node(*id)).collect()
}

pub(super) fn no_node() -> WireBroker {
    WireBroker(-1)
}

/// A topic id as the wire has it: all zero means none.
pub(super) fn wire_topic_id(id: uuid::Uuid) -> Option<TopicId> {
    (!id.is_nil()).then_some(TopicId(id))
}

/// A leader epoch as Fetch has it: negative means unknown.
pub(super) fn epoch(raw: i32) -> Option<LeaderEpoch> {
    (raw >= 0).then_some(LeaderEpoch(raw))
}

/// A leader epoch as other requests have it: −1 means unknown, and what is below is older than all, as in Kafka.
pub(super) fn exact_epoch(raw: i32) -> Option<LeaderEpoch> {
    (raw != -1).then_some(LeaderEpoch(raw))
}

/// A producer as the wire has it.
pub(super) fn producer(id: WireProducer, epoch: i16) -> Producer {
    Producer {
        id: ProducerId(id.0),
        epoch,
    }
}

/// PRODUCER_FENCED, for those who know it: before `from`, clients take INVALID_PRODUCER_EPOCH for it.
pub(super) fn fenced_since(from: i16, version: i16, error: ErrorCode) -> i16 {
    match error {
        ErrorCode::ProducerFenced if version < from => ErrorCode::InvalidProducerEpoch.code(),
        error => error.code(),
    }
}

/// Whether every coordinator that a transaction may have can be asked to add partitions: while an older release is
/// about, clients do so themselves.
pub(super) fn adds_for_clients(image: &Image) -> bool {
    let knows = |broker: &std::sync::Arc<Broker>| {
        levels_of(TRANSACTION_VERSION, &broker.features).contains(Level(2))
    };
    image.brokers.values().all(knows)
}

/// The message of a refusal, for versions that carry one.
pub(super) fn message_of(outcome: &Outcome) -> Option<StrBytes> {
    opt_text(outcome.message.clone())
}

pub(super) fn refused(error: ErrorCode, message: impl Into<String>) -> Outcome {
    Outcome::refused(error.code(), message)
}

/// Too many partitions were created or deleted lately.
pub(super) fn over_quota() -> Outcome {
    refused(
        ErrorCode::ThrottlingQuotaExceeded,
        ErrorCode::ThrottlingQuotaExceeded.message(),
    )
}

/// Kafka's name for "was not asked for": the bits of authorized operations.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// All operations on a topic that Kafka knows (the bit of each is the number of its AclOperation): read, write,
/// create, delete, alter, describe, and describe and alter configurations. Without ACLs everybody may.
pub(super) const ALL_ON_TOPIC: i32 = 0b1101_1111_1000;

/// On a group: read, delete, describe, and describe and alter its configuration.
pub(super) const ALL_ON_GROUP: i32 = 0b1101_0100_1000;

/// On the cluster: create, alter, describe, cluster actions, configurations, idempotent writes.
pub(super) const ALL_ON_CLUSTER: i32 = 0b1_1111_1010_0000;

/// The operations that a client may do, if it asked.
pub(super) fn operations(asked: bool, all: i32) -> i32 {
    if asked { all } else { NOT_ASKED }
}
