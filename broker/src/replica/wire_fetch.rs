//! Fetch v17 between brokers, to and from this module's own structs.

use super::manager::ReplicaManager;
use super::nearest::Reader;
use super::types::*;
use crate::fetch_session::refusal;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use leasehold_wire::kafka::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse};
use std::time::Duration;

/// The one version that followers speak.
pub const FETCH_VERSION: i16 = 17;

fn int32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn epoch(number: i32) -> Option<LeaderEpoch> {
    (number >= 0).then_some(LeaderEpoch(number))
}

/// A follower's fetch as a message.
pub fn to_request(params: &FetchParams, entries: &[FetchEntry]) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for entry in entries {
        let partition = FetchPartition::default()
            .with_partition(entry.partition)
            .with_current_leader_epoch(entry.current_leader_epoch.map_or(-1, |epoch| epoch.0))
            .with_fetch_offset(entry.fetch_offset.0)
            .with_last_fetched_epoch(entry.last_fetched_epoch.map_or(-1, |epoch| epoch.0))
            .with_log_start_offset(entry.log_start_offset.map_or(-1, |offset| offset.0))
            .with_partition_max_bytes(int32(entry.max_bytes));
        match topics.last_mut() {
            Some(topic) if topic.topic_id == entry.topic.0 => topic.partitions.push(partition),
            _ => topics.push(
                FetchTopic::default()
                    .with_topic_id(entry.topic.0)
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let mut replica = ReplicaState::default();
    if let Some((id, incarnation)) = params.replica {
        replica = replica
            .with_replica_id(id.0.into())
            .with_replica_epoch(incarnation.0);
    }
    FetchRequest::default()
        .with_replica_state(replica)
        .with_max_wait_ms(i32::try_from(params.max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(int32(params.min_bytes))
        .with_max_bytes(int32(params.max_bytes))
        .with_session_epoch(-1)
        .with_topics(topics)
}

/// A message as a follower's fetch; `None` if it does not say who follows.
pub fn from_request(request: FetchRequest) -> Option<(FetchParams, Vec<FetchEntry>)> {
    let replica = &request.replica_state;
    if replica.replica_id.0 < 0 || replica.replica_epoch < 0 {
        return None;
    }
    let params = FetchParams {
        replica: Some((
            BrokerId(replica.replica_id.0),
            Incarnation(replica.replica_epoch),
        )),
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
        min_bytes: size(request.min_bytes),
        max_bytes: size(request.max_bytes),
        read_committed: false,
    };
    let entries = request
        .topics
        .into_iter()
        .flat_map(|topic| {
            let id = TopicId(topic.topic_id);
            topic
                .partitions
                .into_iter()
                .map(move |partition| FetchEntry {
                    topic: id,
                    partition: partition.partition,
                    current_leader_epoch: epoch(partition.current_leader_epoch),
                    fetch_offset: Offset(partition.fetch_offset),
                    last_fetched_epoch: epoch(partition.last_fetched_epoch),
                    log_start_offset: (partition.log_start_offset >= 0)
                        .then_some(Offset(partition.log_start_offset)),
                    max_bytes: size(partition.partition_max_bytes),
                })
        })
        .collect();
    Some((params, entries))
}

fn to_response(results: Vec<FetchResult>) -> FetchResponse {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for result in results {
        let mut data = PartitionData::default()
            .with_partition_index(result.partition)
            .with_error_code(result.error.code())
            .with_high_watermark(result.high_watermark.0)
            .with_last_stable_offset(result.last_stable_offset.0)
            .with_log_start_offset(result.log_start_offset.0)
            .with_records(Some(result.records));
        if let Some((epoch, end)) = result.diverging_epoch {
            data = data.with_diverging_epoch(
                EpochEndOffset::default()
                    .with_epoch(epoch.0)
                    .with_end_offset(end.0),
            );
        }
        if let Some(hint) = result.current_leader {
            data = data.with_current_leader(
                LeaderIdAndEpoch::default()
                    .with_leader_id(hint.leader.map_or(-1, |id| id.0).into())
                    .with_leader_epoch(hint.epoch.0),
            );
        }
        match topics.last_mut() {
            Some(topic) if topic.topic_id == result.topic.0 => topic.partitions.push(data),
            _ => topics.push(
                FetchableTopicResponse::default()
                    .with_topic_id(result.topic.0)
                    .with_partitions(vec![data]),
            ),
        }
    }
    FetchResponse::default().with_responses(topics)
}

/// What the leader answered.
pub fn to_results(response: FetchResponse) -> Result<Vec<FetchResult>, ErrorCode> {
    let error = ErrorCode::from_code(response.error_code);
    if !error.is_ok() {
        return Err(error);
    }
    let results = response.responses.into_iter().flat_map(|topic| {
        let id = TopicId(topic.topic_id);
        topic.partitions.into_iter().map(move |data| FetchResult {
            topic: id,
            partition: data.partition_index,
            error: ErrorCode::from_code(data.error_code),
            high_watermark: Offset(data.high_watermark),
            last_stable_offset: Offset(data.last_stable_offset),
            log_start_offset: Offset(data.log_start_offset),
            records: data.records.unwrap_or_default(),
            aborted: Vec::new(),
            diverging_epoch: (data.diverging_epoch.end_offset >= 0).then_some((
                LeaderEpoch(data.diverging_epoch.epoch),
                Offset(data.diverging_epoch.end_offset),
            )),
            current_leader: epoch(data.current_leader.leader_epoch).map(|epoch| LeaderHint {
                leader: (data.current_leader.leader_id.0 >= 0)
                    .then_some(BrokerId(data.current_leader.leader_id.0)),
                epoch,
            }),
            preferred_replica: None,
        })
    });
    Ok(results.collect())
}

impl ReplicaManager {
    /// Serves a follower's fetch that arrived on the internal listener (Fetch v17).
    pub async fn serve_follower(&self, mut request: FetchRequest) -> FetchResponse {
        let turn = match self.sessions().begin(&mut request, FETCH_VERSION) {
            Ok(turn) => turn,
            Err(error) => return refusal(error),
        };
        let Some((params, entries)) = from_request(request) else {
            return refusal(ErrorCode::InvalidRequest);
        };
        // Where consumers read from followers, those hear of a new high watermark without delay.
        let reader = match self.settings().closest_replica {
            true => Reader::Follower {
                known: turn.known_marks(),
            },
            false => Reader::OfLeader,
        };
        // All partitions of the session count as fetched now: what its owner did not name again stands
        // where it stood.
        let mut response = to_response(self.fetch_for(reader, params, entries).await);
        self.sessions().finish(turn, &mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_fetch_between_brokers_survives_the_wire() {
        let params = FetchParams {
            replica: Some((BrokerId(2), Incarnation(77))),
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 1 << 20,
            read_committed: false,
        };
        let entry = |partition, last| FetchEntry {
            topic: TopicId(uuid::Uuid::from_u128(5)),
            partition,
            current_leader_epoch: Some(LeaderEpoch(4)),
            fetch_offset: Offset(100),
            last_fetched_epoch: last,
            log_start_offset: last.map(|_| Offset(40)),
            max_bytes: 1000,
        };
        let entries = vec![entry(0, Some(LeaderEpoch(3))), entry(1, None)];
        let (params_back, entries_back) = from_request(to_request(&params, &entries)).unwrap();
        assert_eq!(format!("{params_back:?}"), format!("{params:?}"));
        assert_eq!(format!("{entries_back:?}"), format!("{entries:?}"));
    }

    #[test]
    fn an_answer_between_brokers_survives_the_wire() {
        let topic = TopicId(uuid::Uuid::from_u128(5));
        let plain = FetchResult {
            records: Bytes::from_static(b"opaque"),
            high_watermark: Offset(7),
            ..FetchResult::failed(topic, 0, ErrorCode::None)
        };
        let diverging = FetchResult {
            diverging_epoch: Some((LeaderEpoch(3), Offset(9))),
            ..FetchResult::failed(topic, 1, ErrorCode::None)
        };
        let refused = FetchResult {
            current_leader: Some(LeaderHint {
                leader: None,
                epoch: LeaderEpoch(6),
            }),
            ..FetchResult::failed(topic, 2, ErrorCode::NotLeaderOrFollower)
        };
        let results = vec![plain, diverging, refused];
        assert_eq!(to_results(to_response(results.clone())), Ok(results));
    }

    #[test]
    fn a_fetch_without_a_follower_is_refused() {
        assert!(from_request(FetchRequest::default()).is_none());
    }
}
