//! Produce: records into partitions.
//!
//! The appends of a request are queued before the next request of its connection is looked at, so
//! they happen in order; the wait for acks is pipelined. Records pass through untouched. With acks=0
//! there is no reply, so an error closes the connection, which makes the client look for the leader.

use super::call::Call;
use super::context::Shared;
use super::convert::{adds_for_clients, no_node, node, opt_text, text};
use super::hints::{Named, hint, wants_hint};
use super::seen::Seen;
use crate::replica::{
    Acks, LeaderHint, ProduceEntry, ProduceResult, TransactionClient, Verified, is_transactional,
};
use crate::server::{Refusal, Reply};
use bytes::Bytes;
use leasehold_metadata::Image;
use leasehold_metadata::quotas::PRODUCER_BYTE_RATE;
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::produce_request::TopicProduceData;
use leasehold_wire::kafka::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
};
use leasehold_wire::kafka::messages::{ProduceRequest, ProduceResponse, TopicName};
use std::sync::Arc;
use std::time::Duration;

/// A partition of the request: refused already, or the number of its entry.
enum Place {
    Refused(ErrorCode, &'static str),
    Entry(usize, TopicId),
}

/// What is wrong with the request as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unfit {
    /// A transactional batch without a transactional id: that comes before everything else.
    Transactional,
    /// As in Kafka, it is told of partitions only that are there and get a batch.
    Acks,
}

/// The request without its records: what is needed to answer it.
type Plan = Vec<(TopicName, Vec<(i32, Place)>)>;

/// From this version on clients know the error of that name (KIP-890).
const KNOWS_TRANSACTION_ABORTABLE: i16 = 11;

/// From this version on the client lets the leader add its partition to the transaction (KIP-890). As in Kafka that
/// goes by the version, whatever level of the feature is in force: a client may have begun before it was changed.
const LETS_ADD: i16 = 12;

/// From this version on an answer says why, and names the records that are to blame (KIP-467).
const TELLS_WHY: i16 = 8;

/// Records that one answer names at most, over all its partitions: about a megabyte.
const MAX_RECORD_ERRORS: usize = 10_000;

/// How long a produce waits for a partition that is just coming into being here.
const NEWBORN: Duration = Duration::from_millis(250);

pub(super) async fn serve(shared: &Arc<Shared>, call: Call, body: Bytes) -> Result<Reply, Refusal> {
    let bytes = body.len();
    let request: ProduceRequest = call.decode(body)?;
    let wait = call.throttle.take(PRODUCER_BYTE_RATE, bytes as f64);
    if !wait.is_zero() {
        // At once: what is pipelined behind this request waits, too.
        call.connection.mute(wait);
    }
    await_newborn(shared, &request).await;
    let acks = Acks::from_kafka(request.acks);
    let unfit = if request.transactional_id.is_none() && has_transactional(&request) {
        Some(Unfit::Transactional)
    } else if acks.is_none() {
        Some(Unfit::Acks)
    } else {
        None
    };
    let transactional_id = request.transactional_id;
    let image = shared.image();
    let mut entries = Vec::new();
    let plan = plan(&image, request.topic_data, unfit, &mut entries);
    if let Some(id) = transactional_id {
        let client = match call.version {
            LETS_ADD.. if adds_for_clients(&image) => TransactionClient::LetsAdd,
            KNOWS_TRANSACTION_ABORTABLE.. => TransactionClient::KnowsAbortable,
            _ => TransactionClient::Adds,
        };
        let verified = shared.replicas.verify(&id, client, &mut entries);
        verified.await;
    }
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let acks = acks.unwrap_or(Acks::Leader);
    // Queued here, before the connection's next request: this is what keeps the order.
    let pending = shared.replicas.append(acks, timeout, entries);
    let shared = shared.clone();
    Ok(Reply::Pipelined(Box::pin(async move {
        let results = pending.await;
        if acks == Acks::None {
            return match first_error(&plan, &results) {
                None => Ok(None),
                Some(error) => Err(Refusal::new(format!(
                    "a produce with acks=0 failed: {error}"
                ))),
            };
        }
        let reply = reply(call.sees(&shared.image()), call.version, plan, &results);
        call.encode::<ProduceRequest>(&reply).map(Some)
    })))
}

fn has_transactional(request: &ProduceRequest) -> bool {
    let mut partitions = request.topic_data.iter().flat_map(|t| &t.partition_data);
    partitions.any(|p| p.records.as_deref().is_some_and(is_transactional))
}

/// A new topic is known to the broker that told the client of it a moment before its leader knows.
/// Refusing the first produce then would let a pipelining client's later ones overtake it; so wait
/// until the news is here. An unknown topic costs its own connection this wait, and nobody else.
async fn await_newborn(shared: &Shared, request: &ProduceRequest) {
    let asked = || {
        request.topic_data.iter().flat_map(|topic| {
            topic
                .partition_data
                .iter()
                .map(|partition| (topic.name.as_str(), partition.index))
        })
    };
    let known = |image: &Image| {
        asked().all(|(name, index)| {
            image
                .topic_by_name(name)
                .is_some_and(|topic| topic.partition(index).is_some())
        })
    };
    if !known(&shared.image()) && !shared.image_shows(NEWBORN, known).await {
        return;
    }
    let mine_but_not_led = || {
        let image = shared.image();
        asked().any(|(name, index)| {
            image.topic_by_name(name).is_some_and(|topic| {
                let leader = topic
                    .partition(index)
                    .and_then(|partition| partition.leader);
                leader == Some(shared.broker) && shared.replicas.leads(topic.id, index).is_none()
            })
        })
    };
    if !mine_but_not_led() {
        return;
    }
    let mut changes = shared.replicas.subscribe();
    let led = async { while mine_but_not_led() && changes.recv().await.is_some() {} };
    // Not led in time: the append says why.
    let _late = tokio::time::timeout(NEWBORN, led).await;
}

fn plan(
    image: &Image,
    topics: Vec<TopicProduceData>,
    unfit: Option<Unfit>,
    entries: &mut Vec<ProduceEntry>,
) -> Plan {
    let place_of = |name: &TopicName, index: i32, records: Option<Bytes>, entries: &mut Vec<_>| {
        if unfit == Some(Unfit::Transactional) {
            return Place::Refused(
                ErrorCode::TransactionalIdAuthorizationFailed,
                "a transactional batch without a transactional id",
            );
        }
        let Some(topic) = image
            .topic_by_name(name)
            .filter(|t| t.partition(index).is_some())
        else {
            return Place::Refused(ErrorCode::UnknownTopicOrPartition, "no such partition here");
        };
        let Some(records) = records.filter(|records| !records.is_empty()) else {
            return Place::Refused(ErrorCode::InvalidRecord, "there is no record batch");
        };
        if unfit == Some(Unfit::Acks) {
            return Place::Refused(
                ErrorCode::InvalidRequiredAcks,
                "acks is none of -1, 0 and 1",
            );
        }
        if topic.internal {
            // Only its coordinator writes there, and it does not come this way.
            return Place::Refused(
                ErrorCode::InvalidTopicException,
                "clients cannot append to an internal topic",
            );
        }
        entries.push(ProduceEntry {
            topic: topic.id,
            partition: index,
            records,
            leader_epoch: None,
            verified: Verified::NotAsked,
        });
        Place::Entry(entries.len() - 1, topic.id)
    };
    topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partition_data
                .into_iter()
                .map(|p| (p.index, place_of(&topic.name, p.index, p.records, entries)))
                .collect();
            (topic.name, partitions)
        })
        .collect()
}

fn first_error(plan: &Plan, results: &[ProduceResult]) -> Option<ErrorCode> {
    plan.iter()
        .flat_map(|(_, partitions)| partitions)
        .find_map(|(_, place)| match place {
            Place::Refused(error, _) => Some(*error),
            Place::Entry(number, _) => results
                .get(*number)
                .map(|result| result.error)
                .filter(|error| !error.is_ok()),
        })
}

fn reply(image: Seen<'_>, version: i16, plan: Plan, results: &[ProduceResult]) -> ProduceResponse {
    let mut named = Named::default();
    let mut left = MAX_RECORD_ERRORS;
    let mut responses = Vec::with_capacity(plan.len());
    for (name, partitions) in plan {
        let partitions = partitions.into_iter().map(|(index, place)| match place {
            Place::Refused(error, message) => {
                let message = Some(message.to_owned());
                partition_reply(
                    version,
                    index,
                    &ProduceResult::failed(error, message),
                    None,
                    &mut left,
                )
            }
            Place::Entry(number, topic) => match results.get(number) {
                None => {
                    let lost = ProduceResult::failed(ErrorCode::UnknownServerError, None);
                    partition_reply(version, index, &lost, None, &mut left)
                }
                Some(result) => {
                    let hint = (version >= 10 && wants_hint(result.error))
                        .then(|| hint(&image, topic, index, result.current_leader))
                        .flatten();
                    hint.iter().for_each(|hint| named.add(hint));
                    partition_reply(version, index, result, hint, &mut left)
                }
            },
        });
        responses.push(
            TopicProduceResponse::default()
                .with_partition_responses(partitions.collect())
                .with_name(name),
        );
    }
    ProduceResponse::default()
        .with_responses(responses)
        .with_node_endpoints(named.produce_endpoints(image))
}

fn partition_reply(
    version: i16,
    index: i32,
    result: &ProduceResult,
    hint: Option<LeaderHint>,
    left: &mut usize,
) -> PartitionProduceResponse {
    let mut reply = PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(result.error.code())
        .with_base_offset(result.base_offset.0)
        .with_log_append_time_ms(result.log_append_time)
        .with_log_start_offset(result.log_start_offset.0);
    if version >= TELLS_WHY && !result.error.is_ok() {
        reply.error_message = opt_text(result.message.clone());
        let rows = result.record_errors.iter().flat_map(|errors| errors.rows());
        reply.record_errors = rows
            .take(*left)
            .map(|(index, message)| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(index)
                    .with_batch_index_error_message(Some(text(message)))
            })
            .collect();
        *left -= reply.record_errors.len();
    }
    if let Some(hint) = hint {
        reply.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(hint.leader.map_or_else(no_node, node))
            .with_leader_epoch(hint.epoch.0);
    }
    reply
}
