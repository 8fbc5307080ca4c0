//! TxnOffsetCommit: how far a group has read, as part of a transaction. It shows once the transaction is
//! committed.
//!
//! The coordinator of the transaction is asked first whether the group is in it (KIP-890): what comes late
//! must not begin a transaction in the offsets topic that nobody ends. Trap: a client takes part in it by
//! the group's coordinator, which leads the same partition that the question is about.

use super::call::Call;
use super::context::Shared;
use super::convert::{adds_for_clients, producer, topic_name};
use crate::coordinator::write::{InTransaction, Producer, transactional_sample};
use crate::group::GroupCoordinator;
use crate::group::types::{CommitPartition, CommitRequest, CommitTopic, TxnCommitRequest};
use crate::replica::{ProduceEntry, ReplicaManager, TransactionClient, Verified};
use leasehold_metadata::Image;
use leasehold_metadata::controller::OFFSETS_TOPIC;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use leasehold_wire::kafka::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use std::sync::Arc;

/// Clients before this version do not know what it means that a coordinator is still loading (KAFKA-7296).
const KNOWS_LOADING: i16 = 2;

/// From this version on clients know TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 4;

/// From this version on the client lets the group's coordinator add the group to the transaction (KIP-890).
const LETS_ADD: i16 = 5;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let version = call.version;
    let producer = producer(request.producer_id, request.producer_epoch);
    let transactional_id = request.transactional_id.to_string();
    let client = match version {
        LETS_ADD.. if adds_for_clients(&shared.image()) => TransactionClient::LetsAdd,
        KNOWS_ABORTABLE.. => TransactionClient::KnowsAbortable,
        _ => TransactionClient::Adds,
    };
    let image = shared.image();
    let asked = (transactional_id.as_str(), producer, client);
    let here = (&*shared.groups, &*shared.replicas);
    let committed = commit(&image, here, asked, plain(request)).await;
    let rows = committed.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition, error)| {
            let error = match error {
                ErrorCode::CoordinatorLoadInProgress if version < KNOWS_LOADING => {
                    ErrorCode::CoordinatorNotAvailable
                }
                error => error,
            };
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(error.code())
        });
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(partitions.collect())
    });
    TxnOffsetCommitResponse::default().with_topics(rows.collect())
}

/// The error of each partition, by topic.
pub type Answers = Vec<(String, Vec<(i32, ErrorCode)>)>;

/// Commits a group's offsets in a transaction, and says so of each partition.
pub async fn commit(
    image: &Image,
    (groups, replicas): (&GroupCoordinator, &ReplicaManager),
    asked: (&str, Producer, TransactionClient),
    wish: CommitRequest,
) -> Answers {
    let (wish, unknown) = without_unknown(image, wish);
    let mut committed = if wish.topics.is_empty() {
        Vec::new()
    } else {
        let producer = asked.1;
        match verify(image, (groups, replicas), asked, &wish.group_id).await {
            Verified::Refused(error, _) => wish.all_partitions(offsets_error(error)),
            verified => {
                let request = TxnCommitRequest {
                    transaction: InTransaction { producer, verified },
                    commit: wish,
                };
                groups.commit_in_transaction(request).await.topics
            }
        }
    };
    for (name, partitions) in unknown {
        match committed.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.extend(partitions),
            None => committed.push((name, partitions)),
        }
    }
    committed
}

/// Takes out what does not exist. As in Kafka, that is told whatever the transaction is.
fn without_unknown(image: &Image, mut commit: CommitRequest) -> (CommitRequest, Answers) {
    let mut unknown = Vec::new();
    for topic in &mut commit.topics {
        let found = image.topic_by_name(&topic.name);
        let exists =
            |p: &CommitPartition| found.is_some_and(|t| t.partition(p.partition).is_some());
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition(exists);
        topic.partitions = kept;
        if !gone.is_empty() {
            let error = ErrorCode::UnknownTopicOrPartition;
            let gone = gone.iter().map(|p| (p.partition, error)).collect();
            unknown.push((topic.name.clone(), gone));
        }
    }
    commit.topics.retain(|topic| !topic.partitions.is_empty());
    (commit, unknown)
}

/// Asks as a Produce to the group's partition of the offsets topic would.
async fn verify(
    image: &Image,
    (groups, replicas): (&GroupCoordinator, &ReplicaManager),
    (transactional_id, producer, client): (&str, Producer, TransactionClient),
    group_id: &str,
) -> Verified {
    let topic = image.topic_by_name(OFFSETS_TOPIC);
    let (Some(topic), Some(partition)) = (topic, groups.partition_for(group_id)) else {
        return Verified::Refused(ErrorCode::NotCoordinator, String::new());
    };
    let mut entries = [ProduceEntry {
        topic: topic.id,
        partition,
        records: transactional_sample(producer),
        leader_epoch: None,
        verified: Verified::NotAsked,
    }];
    replicas
        .verify(transactional_id, client, &mut entries)
        .await;
    let [entry] = entries;
    entry.verified
}

/// What a coordinator says where the leader of a partition would say that producers are to try again.
fn offsets_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotEnoughReplicas => ErrorCode::CoordinatorNotAvailable,
        error => error,
    }
}

fn plain(request: TxnOffsetCommitRequest) -> CommitRequest {
    let topics = request.topics.into_iter().map(|topic| CommitTopic {
        name: topic.name.to_string(),
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| CommitPartition {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.map(|m| m.to_string()),
            })
            .collect(),
    });
    CommitRequest {
        // The answers that OffsetCommit's versions tell apart are none of this API's.
        api_version: 0,
        group_id: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        retention_ms: -1,
        topics: topics.collect(),
    }
}
