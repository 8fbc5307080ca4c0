//! Fetch: records out of partitions.
//!
//! Traps: topics go by name up to version 12 and by id from 13. Fetch sessions
//! ([`crate::fetch_session`]) complete a request before it is planned. An answer is
//! empty before the client's max wait only if something is wrong with a partition. Followers fetch on
//! the brokers' own listener; here everyone is a consumer and reads to the high watermark or the last stable
//! offset, of a follower as well.

use super::call::Call;
use super::context::Shared;
use super::convert::{epoch, no_node, node, topic_name, wire_topic_id};
use super::hints::{Named, hint, wants_hint};
use super::seen::Seen;
use crate::fetch_session::refusal;
use crate::replica::{FetchEntry, FetchParams, FetchResult, Reader};
use leasehold_log::AbortedTxn;
use leasehold_metadata::quotas::CONSUMER_BYTE_RATE;
use leasehold_metadata::{Image, Topic};
use leasehold_types::{BrokerId, Offset, TopicId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use leasehold_wire::kafka::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// What one reply may hold even when many replies are waiting to be read: below this, fetching
/// would crawl.
const SMALLEST_REPLY: usize = 64 * 1024;

/// From this version of Fetch on a consumer tells its rack and may read from followers (KIP-392).
const KNOWS_RACKS: i16 = 11;

/// Where a partition of the request ended up.
enum Place {
    Refused(ErrorCode),
    Entry(usize),
}

/// A topic of the request.
struct PlannedTopic {
    /// Repeats the name or id that was asked for.
    head: FetchableTopicResponse,
    /// Which topic that is, if there is one.
    id: Option<TopicId>,
    partitions: Vec<(i32, Place)>,
}

struct Plan {
    topics: Vec<PlannedTopic>,
    entries: Vec<FetchEntry>,
    all_good: bool,
}

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    mut request: FetchRequest,
) -> FetchResponse {
    let turn = match shared.fetch_sessions.begin(&mut request, call.version) {
        Ok(turn) => turn,
        Err(error) => return refusal(error),
    };
    let plan = plan(
        &shared.image(),
        shared.broker,
        call.version,
        &request.topics,
    );
    call.connection.await_reply_room().await;
    let nothing_to_wait_for = !plan.all_good || plan.entries.is_empty();
    let params = FetchParams {
        replica: None,
        max_wait: match nothing_to_wait_for {
            true => Duration::ZERO,
            false => Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
        },
        min_bytes: size(request.min_bytes),
        max_bytes: size(request.max_bytes)
            .min(size(shared.config.fetch_max_bytes))
            .min(call.throttle.at_once(CONSUMER_BYTE_RATE))
            .min((call.connection.reply_room() / 4).max(SMALLEST_REPLY)),
        read_committed: request.isolation_level == 1,
    };
    let read_committed = params.read_committed;
    // Nobody is sent to a replica that is not to be reached where the client comes in.
    let near = call.version >= KNOWS_RACKS && call.sees(&shared.image()).has_all();
    let reader = match near {
        true => Reader::Near {
            rack: (!request.rack_id.is_empty()).then(|| request.rack_id.to_string()),
        },
        false => Reader::OfLeader,
    };
    let results = if plan.entries.is_empty() {
        Vec::new()
    } else {
        shared
            .replicas
            .fetch_for(reader, params, plan.entries)
            .await
    };
    let bytes: usize = results.iter().map(|result| result.records.len()).sum();
    let wait = call.throttle.take(CONSUMER_BYTE_RATE, bytes as f64);
    if !wait.is_zero() {
        // As in Kafka: nothing now, and the same again after the wait.
        call.throttle.take_back(CONSUMER_BYTE_RATE, bytes as f64);
        return turn.postponed();
    }
    let mut reply = reply(
        call.sees(&shared.image()),
        call.version,
        read_committed,
        plan.topics,
        results,
    );
    shared.fetch_sessions.finish(turn, &mut reply);
    reply
}

fn size(raw: i32) -> usize {
    usize::try_from(raw).unwrap_or(0)
}

fn plan(image: &Image, me: BrokerId, version: i16, topics: &[FetchTopic]) -> Plan {
    let mut plan = Plan {
        topics: Vec::new(),
        entries: Vec::new(),
        all_good: true,
    };
    let mut seen = HashSet::new();
    for asked in topics {
        let (topic, unknown) = if version >= 13 {
            let found = wire_topic_id(asked.topic_id).and_then(|id| image.topic(&id));
            (found, ErrorCode::UnknownTopicId)
        } else {
            (
                image.topic_by_name(&asked.topic),
                ErrorCode::UnknownTopicOrPartition,
            )
        };
        let mut partitions = Vec::new();
        let found = topic.map(AsRef::as_ref).ok_or(unknown);
        let found = found.and_then(|topic| readable(image, me, topic, version));
        for partition in &asked.partitions {
            let place = match found.and_then(|topic| place(topic, partition, &mut seen)) {
                Ok(entry) => {
                    plan.entries.push(entry);
                    Place::Entry(plan.entries.len() - 1)
                }
                Err(error) => {
                    plan.all_good = false;
                    Place::Refused(error)
                }
            };
            partitions.push((partition.partition, place));
        }
        let mut head = FetchableTopicResponse::default();
        if version >= 13 {
            head.topic_id = asked.topic_id;
        } else {
            head.topic = topic_name(&asked.topic);
        }
        plan.topics.push(PlannedTopic {
            head,
            id: topic.map(|topic| topic.id),
            partitions,
        });
    }
    plan
}

/// Clients from before zstd are told so where all of a topic is packed in it.
fn readable<'a>(
    image: &Image,
    me: BrokerId,
    topic: &'a Topic,
    version: i16,
) -> Result<&'a Topic, ErrorCode> {
    const KNOWS_ZSTD: i16 = 10;
    let packed = || image.topic_config_at(me, topic, "compression.type");
    if version < KNOWS_ZSTD && packed() == Some("zstd") {
        return Err(ErrorCode::UnsupportedCompressionType);
    }
    Ok(topic)
}

fn place(
    topic: &Topic,
    asked: &FetchPartition,
    seen: &mut HashSet<(TopicId, i32)>,
) -> Result<FetchEntry, ErrorCode> {
    if topic.partition(asked.partition).is_none() {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    // A repeated partition would multiply the work of a parked fetch.
    if !seen.insert((topic.id, asked.partition)) {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(FetchEntry {
        topic: topic.id,
        partition: asked.partition,
        current_leader_epoch: epoch(asked.current_leader_epoch),
        fetch_offset: Offset(asked.fetch_offset),
        last_fetched_epoch: epoch(asked.last_fetched_epoch),
        log_start_offset: None,
        max_bytes: size(asked.partition_max_bytes),
    })
}

fn reply(
    image: Seen<'_>,
    version: i16,
    read_committed: bool,
    topics: Vec<PlannedTopic>,
    results: Vec<FetchResult>,
) -> FetchResponse {
    let mut named = Named::default();
    let mut results: Vec<Option<FetchResult>> = results.into_iter().map(Some).collect();
    let responses = topics.into_iter().map(|topic| {
        let PlannedTopic {
            head,
            id,
            partitions,
        } = topic;
        let partitions = partitions.into_iter().map(|(index, place)| {
            let result = match place {
                Place::Refused(error) => failed(id, index, error),
                Place::Entry(number) => results
                    .get_mut(number)
                    .and_then(Option::take)
                    .unwrap_or_else(|| failed(id, index, ErrorCode::UnknownServerError)),
            };
            let mut reply = partition_reply(version, read_committed, index, &result);
            if version >= 12
                && wants_hint(result.error)
                && let Some(hint) = hint(&image, result.topic, index, result.current_leader)
            {
                named.add(&hint);
                reply.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(hint.leader.map_or_else(no_node, node))
                    .with_leader_epoch(hint.epoch.0);
            }
            reply
        });
        head.with_partitions(partitions.collect())
    });
    let mut reply = FetchResponse::default().with_responses(responses.collect());
    if version >= 16 {
        reply.node_endpoints = named.fetch_endpoints(image);
    }
    reply
}

fn failed(topic: Option<TopicId>, index: i32, error: ErrorCode) -> FetchResult {
    FetchResult::failed(topic.unwrap_or_default(), index, error)
}

fn aborted(result: &FetchResult) -> Vec<AbortedTransaction> {
    let one = |txn: &AbortedTxn| {
        AbortedTransaction::default()
            .with_producer_id(txn.producer_id.0.into())
            .with_first_offset(txn.first_offset.0)
    };
    result.aborted.iter().map(one).collect()
}

fn partition_reply(
    version: i16,
    read_committed: bool,
    index: i32,
    result: &FetchResult,
) -> PartitionData {
    let mut reply = PartitionData::default()
        .with_partition_index(index)
        .with_error_code(result.error.code())
        .with_high_watermark(result.high_watermark.0)
        .with_last_stable_offset(result.last_stable_offset.0)
        .with_log_start_offset(result.log_start_offset.0)
        .with_aborted_transactions(read_committed.then(|| aborted(result)))
        .with_records(Some(result.records.clone()));
    if version >= KNOWS_RACKS
        && let Some(closest) = result.preferred_replica
    {
        reply.preferred_read_replica = node(closest);
    }
    if version >= 12
        && let Some((epoch, end)) = result.diverging_epoch
    {
        reply.diverging_epoch = EpochEndOffset::default()
            .with_epoch(epoch.0)
            .with_end_offset(end.0);
    }
    reply
}
