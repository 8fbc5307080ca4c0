use super::*;
use crate::txn::peers::{CallFailed, MARKERS_VERSION};
use crate::txn::types::Partitions;
use async_trait::async_trait;
use leasehold_metadata::image::{Partition as ImagePartition, Topic};
use leasehold_types::{ClusterId, ProducerId, TopicId};
use leasehold_wire::kafka::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use leasehold_wire::kafka::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use leasehold_wire::kafka::protocol::{Decodable as _, Encodable as _};
use std::collections::{HashMap as StdMap, VecDeque};

/// Brokers that answer as they are told; what is not told is written.
#[derive(Default)]
struct Brokers {
    asked: Mutex<Vec<(BrokerId, WriteTxnMarkersRequest)>>,
    /// Errors for the next answers about a partition.
    errors: Mutex<StdMap<i32, VecDeque<ErrorCode>>>,
    dead: Mutex<BTreeSet<BrokerId>>,
}

#[async_trait]
impl Lines for Brokers {
    async fn write_markers(
        &self,
        to: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, CallFailed> {
        self.asked.lock().push((to, request.clone()));
        if self.dead.lock().contains(&to) {
            return Err(CallFailed::Gone(to));
        }
        let partition = |index: &i32| {
            let mut errors = self.errors.lock();
            let next = errors.get_mut(index).and_then(VecDeque::pop_front);
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(*index)
                .with_error_code(next.unwrap_or(ErrorCode::None).code())
        };
        let topic = |topic: &WritableTxnMarkerTopic| {
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(topic.partition_indexes.iter().map(partition).collect())
        };
        let markers = request.markers.iter().map(|marker| {
            WritableTxnMarkerResult::default()
                .with_producer_id(marker.producer_id)
                .with_topics(marker.topics.iter().map(topic).collect())
        });
        Ok(WriteTxnMarkersResponse::default().with_markers(markers.collect()))
    }

    async fn verify(
        &self,
        to: BrokerId,
        _: AddPartitionsToTxnRequest,
    ) -> Result<AddPartitionsToTxnResponse, CallFailed> {
        Err(CallFailed::Gone(to))
    }
}

/// A topic "t" whose partitions have these leaders.
fn image(leaders: &[Option<i32>]) -> Arc<Image> {
    let mut image = Image::genesis(ClusterId::random());
    let partition = |leader: &Option<i32>| {
        Arc::new(ImagePartition {
            leader: leader.map(BrokerId),
            ..ImagePartition::default()
        })
    };
    let topic = Topic {
        id: TopicId::random(),
        name: "t".to_owned(),
        internal: false,
        partitions: leaders.iter().map(partition).collect(),
        configs: BTreeMap::new(),
    };
    image.names.insert("t".into(), topic.id);
    image.topics.insert(topic.id, Arc::new(topic));
    Arc::new(image)
}

fn ending(producer: i64, partitions: &[i32]) -> Ending {
    Ending {
        transactional_id: format!("id-{producer}").into(),
        producer: Producer {
            id: ProducerId(producer),
            epoch: 4,
        },
        commit: true,
        bumped: producer % 2 == 0,
        partitions: Partitions::from([("t".to_owned(), partitions.iter().copied().collect())]),
    }
}

struct Stage {
    brokers: Arc<Brokers>,
    image: watch::Sender<Arc<Image>>,
    markers: Markers,
}

fn stage(leaders: &[Option<i32>]) -> Stage {
    let brokers = Arc::new(Brokers::default());
    let (sender, receiver) = watch::channel(image(leaders));
    Stage {
        markers: Markers::new(receiver, brokers.clone()),
        brokers,
        image: sender,
    }
}

const EPOCH: LeaderEpoch = LeaderEpoch(9);

#[tokio::test(start_paused = true)]
async fn every_leader_gets_the_markers_of_its_partitions_with_the_coordinators_epoch() {
    let stage = stage(&[Some(1), Some(2), Some(1), Some(3)]);
    let written = stage.markers.write(ending(7, &[0, 1, 2]), EPOCH).await;
    assert_eq!(written, Ok(()));
    let mut asked = stage.brokers.asked.lock().clone();
    asked.sort_by_key(|(to, _)| *to);
    let to: Vec<i32> = asked.iter().map(|(to, _)| to.0).collect();
    assert_eq!(to, [1, 2]);
    let marker = &asked[0].1.markers[0];
    assert_eq!((marker.producer_id.0, marker.producer_epoch), (7, 4));
    assert_eq!(
        (marker.coordinator_epoch, marker.transaction_result),
        (9, true)
    );
    assert_eq!(marker.topics[0].partition_indexes, [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_told_of_a_marker_that_has_a_later_epoch_than_its_transaction() {
    for (producer, has) in [(7, MarkerEpoch::Any), (8, MarkerEpoch::Later)] {
        let stage = stage(&[Some(1)]);
        let written = stage.markers.write(ending(producer, &[0]), EPOCH).await;
        assert_eq!(written, Ok(()));
        let request = stage.brokers.asked.lock()[0].1.clone();
        let mut sent = bytes::BytesMut::new();
        request.encode(&mut sent, MARKERS_VERSION).unwrap();
        let told = WriteTxnMarkersRequest::decode(&mut sent.freeze(), MARKERS_VERSION).unwrap();
        assert_eq!(epoch_of(&told.markers[0]), has);
    }
}

#[tokio::test(start_paused = true)]
async fn endings_that_come_together_share_a_request() {
    let stage = stage(&[Some(1)]);
    let writes = (0..20).map(|producer| stage.markers.write(ending(producer, &[0]), EPOCH));
    for written in join_all(writes).await {
        assert_eq!(written, Ok(()));
    }
    assert!(stage.brokers.asked.lock().len() <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_take_its_marker_is_tried_again_and_only_that() {
    let stage = stage(&[Some(1), Some(1)]);
    let again = [ErrorCode::NotLeaderOrFollower, ErrorCode::NotEnoughReplicas];
    stage.brokers.errors.lock().insert(1, again.into());
    let written = stage.markers.write(ending(7, &[0, 1]), EPOCH).await;
    assert_eq!(written, Ok(()));
    let asked = stage.brokers.asked.lock();
    let partitions = asked
        .iter()
        .map(|(_, request)| request.markers[0].topics[0].partition_indexes.clone());
    assert_eq!(
        partitions.collect::<Vec<_>>(),
        [vec![0, 1], vec![1], vec![1]]
    );
}

#[tokio::test(start_paused = true)]
async fn a_marker_follows_its_partition_to_the_next_leader_as_soon_as_there_is_one() {
    let stage = stage(&[Some(1)]);
    stage.brokers.dead.lock().insert(BrokerId(1));
    let mut written = tokio::spawn(stage.markers.write(ending(7, &[0]), EPOCH));
    let soon = Duration::from_secs(5);
    assert!(tokio::time::timeout(soon, &mut written).await.is_err());
    stage.image.send_replace(image(&[None]));
    assert!(tokio::time::timeout(soon, &mut written).await.is_err());
    let asked = stage.brokers.asked.lock().len();
    stage.image.send_replace(image(&[Some(2)]));
    assert_eq!(written.await.unwrap(), Ok(()));
    assert_eq!(stage.brokers.asked.lock().len(), asked + 1);
    assert_eq!(stage.brokers.asked.lock()[asked].0, BrokerId(2));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_partition_needs_no_marker() {
    let stage = stage(&[Some(1)]);
    let written = stage.markers.write(ending(7, &[0, 5]), EPOCH).await;
    assert_eq!(written, Ok(()));
    stage
        .image
        .send_replace(Arc::new(Image::genesis(ClusterId::random())));
    let written = stage.markers.write(ending(8, &[0]), EPOCH).await;
    assert_eq!(written, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_is_fenced_by_a_newer_coordinator_stops() {
    let stage = stage(&[Some(1)]);
    let fenced = ErrorCode::TransactionCoordinatorFenced;
    stage.brokers.errors.lock().insert(0, [fenced].into());
    let written = stage.markers.write(ending(7, &[0]), EPOCH).await;
    assert_eq!(written, Err(fenced));
}
