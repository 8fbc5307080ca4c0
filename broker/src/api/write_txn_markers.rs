//! WriteTxnMarkers: a transaction coordinator, or an administrator who aborts a hanging transaction, ends
//! transactions in the partitions that this broker leads (KIP-98, KIP-664).
//!
//! Nothing is passed on: whoever sends it looks for the leaders. Each partition has its own error, and success
//! means that the marker is committed.

use super::call::Call;
use super::context::Shared;
use crate::replica::{MarkerEntry, ReplicaManager};
use crate::txn::markers::epoch_of;
use leasehold_log::ProducerId;
use leasehold_log::batch::Marker;
use leasehold_metadata::Image;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::write_txn_markers_request::WritableTxnMarker;
use leasehold_wire::kafka::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use leasehold_wire::kafka::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use std::sync::Arc;
use std::time::Duration;

/// Kafka's `request.timeout.ms`: how long a marker may take to be committed.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn answer(
    shared: Arc<Shared>,
    _call: Call,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    write(&shared.image(), &shared.replicas, request).await
}

/// Also for brokers, which come by another listener.
pub async fn write(
    image: &Image,
    replicas: &ReplicaManager,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut entries = Vec::new();
    let mut markers = Vec::with_capacity(request.markers.len());
    for wanted in request.markers {
        markers.push(plan(image, wanted, &mut entries));
    }
    let written = replicas.write_markers(TIMEOUT, entries).await;
    let error_of = |place: &Place| match place {
        Place::Refused(error) => *error,
        Place::Entry(n) => written
            .get(*n)
            .map_or(ErrorCode::UnknownServerError, |result| result.error),
    };
    let markers = markers.into_iter().map(|(mut result, places)| {
        let mut places = places.iter();
        let partitions = result.topics.iter_mut().flat_map(|t| &mut t.partitions);
        for (partition, place) in partitions.zip(&mut places) {
            partition.error_code = error_of(place).code();
        }
        result
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}

/// A partition of the request: refused already, or the number of its entry.
enum Place {
    Refused(ErrorCode),
    Entry(usize),
}

/// A marker's answer without its errors, and its partitions in their order.
fn plan(
    image: &Image,
    wanted: WritableTxnMarker,
    entries: &mut Vec<MarkerEntry>,
) -> (WritableTxnMarkerResult, Vec<Place>) {
    let marker = Marker {
        producer_id: ProducerId(wanted.producer_id.0),
        producer_epoch: wanted.producer_epoch,
        coordinator_epoch: wanted.coordinator_epoch,
        committed: wanted.transaction_result,
    };
    let has = epoch_of(&wanted);
    let mut places = Vec::new();
    let mut result = WritableTxnMarkerResult::default().with_producer_id(wanted.producer_id);
    for topic in wanted.topics {
        let known = image.topic_by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let there = known.filter(|known| known.partition(index).is_some());
            places.push(match there {
                None => Place::Refused(ErrorCode::UnknownTopicOrPartition),
                Some(_) if marker.producer_id.0 < 0 || marker.producer_epoch < 0 => {
                    Place::Refused(ErrorCode::InvalidRequest)
                }
                Some(known) => {
                    entries.push(MarkerEntry {
                        topic: known.id,
                        partition: index,
                        marker,
                        has,
                    });
                    Place::Entry(entries.len() - 1)
                }
            });
            partitions
                .push(WritableTxnMarkerPartitionResult::default().with_partition_index(index));
        }
        result.topics.push(
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    (result, places)
}
