//! Carries the end of a transaction to the leaders of all its partitions (WriteTxnMarkers).
//!
//! Promises: an ending is done when every partition that there still is has its marker; one whose leader
//! moves, or cannot take it now, is tried again, for as long as the leadership of the coordinator lasts.
//! Endings that come together for one broker share a request.

use super::peers::Lines;
use super::types::Ending;
use crate::coordinator::write::Producer;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use leasehold_log::batch::MarkerEpoch;
use leasehold_metadata::image::Image;
use leasehold_types::seams::{HashMap, one_thread, taken_out};
use leasehold_types::{BrokerId, LeaderEpoch};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use leasehold_wire::kafka::messages::{TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use leasehold_wire::kafka::protocol::StrBytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Before a partition that refused its marker is tried again, if the metadata does not change sooner.
const RETRY: Duration = Duration::from_millis(100);
/// How often is looked for a newer image where nobody can wait for it.
const LOOK: Duration = Duration::from_millis(5);
/// Requests under way to one broker.
const IN_FLIGHT: usize = 4;
/// The tag that says that a marker's epoch is a later one than its transaction's. Kafka has a field for that since
/// version 2 of the request (KIP-1228), which older releases refuse; a tag they pass over.
const BUMPED: i32 = 10_000;
/// Endings in one request.
const TOGETHER: usize = 500;

type Partition = (String, i32);

/// Writes markers.
pub trait MarkerWriter: Send + Sync + 'static {
    /// Resolves once `ending` is in all its partitions, or is refused since a newer coordinator (or a
    /// newer epoch of the producer) was there. `epoch` is that of the coordinator's leadership.
    fn write(
        &self,
        ending: Ending,
        epoch: LeaderEpoch,
    ) -> BoxFuture<'static, Result<(), ErrorCode>>;
}

/// Markers on their way to one broker.
struct Parcel {
    producer: Producer,
    commit: bool,
    bumped: bool,
    epoch: LeaderEpoch,
    partitions: Vec<Partition>,
    reply: oneshot::Sender<Vec<(Partition, ErrorCode)>>,
}

/// The markers that this broker sends. Cheap to clone.
#[derive(Clone)]
pub struct Markers {
    image: watch::Receiver<Arc<Image>>,
    lines: Arc<dyn Lines>,
    queues: Arc<Mutex<HashMap<BrokerId, mpsc::UnboundedSender<Parcel>>>>,
}

impl Markers {
    /// Sends over `lines` to the leaders that `image` names.
    pub fn new(image: watch::Receiver<Arc<Image>>, lines: Arc<dyn Lines>) -> Self {
        Self {
            image,
            lines,
            queues: Arc::default(),
        }
    }

    async fn carry(self, ending: Ending, epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        let mut image = self.image.clone();
        let each = ending.partitions.iter().flat_map(|(topic, partitions)| {
            let name = |p: &i32| (topic.clone(), *p);
            partitions.iter().map(name)
        });
        let mut left: BTreeSet<Partition> = each.collect();
        loop {
            let plan = plan(&image.borrow_and_update(), &left);
            for partition in plan.gone {
                left.remove(&partition);
            }
            let asked = plan.by_leader.into_iter().map(|(broker, partitions)| {
                let (reply, answer) = oneshot::channel();
                self.queue(
                    broker,
                    Parcel {
                        producer: ending.producer,
                        commit: ending.commit,
                        bumped: ending.bumped,
                        epoch,
                        partitions,
                        reply,
                    },
                );
                answer
            });
            let answers = join_all(asked).await;
            let refused = !answers.is_empty();
            for answer in answers {
                // Not answered: to be asked again.
                for (partition, error) in answer.unwrap_or_default() {
                    match judge(error) {
                        Judgement::Done => drop(left.remove(&partition)),
                        Judgement::Over => return Err(error),
                        Judgement::Again => {
                            let (topic, partition) = partition;
                            tracing::debug!(transactional_id = %ending.transactional_id, topic, partition, %error, "a marker is to be written again");
                        }
                    }
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            // A leader that is elected is news; that a partition has enough replicas again is, too. But not
            // that a broker answers again.
            let news = match refused {
                true => tokio::time::timeout(RETRY, changed(&mut image)).await,
                false => Ok(changed(&mut image).await),
            };
            if let Ok(Err(_)) = news {
                // The broker ends: its coordinators are about to be let go.
                std::future::pending::<()>().await;
            }
        }
    }

    fn queue(&self, broker: BrokerId, parcel: Parcel) {
        let mut queues = self.queues.lock();
        let queue = queues.entry(broker).or_insert_with(|| {
            let (sender, parcels) = mpsc::unbounded_channel();
            tokio::spawn(deliver(broker, self.lines.clone(), parcels));
            sender
        });
        // The task lives as long as the queue.
        let _ = queue.send(parcel);
    }
}

impl MarkerWriter for Markers {
    fn write(
        &self,
        ending: Ending,
        epoch: LeaderEpoch,
    ) -> BoxFuture<'static, Result<(), ErrorCode>> {
        Box::pin(self.clone().carry(ending, epoch))
    }
}

/// Resolves when there is a newer image. Where all happens on one thread, several who wait for one would be woken in
/// an order of chance: they look.
async fn changed(image: &mut watch::Receiver<Arc<Image>>) -> Result<(), watch::error::RecvError> {
    while one_thread() && !image.has_changed()? {
        tokio::time::sleep(LOOK).await;
    }
    image.changed().await
}

struct Plan {
    /// Deleted: nobody can read them.
    gone: Vec<Partition>,
    by_leader: BTreeMap<BrokerId, Vec<Partition>>,
}

/// Who leads what. A partition without a leader is in neither: it is waited for.
///
/// A partition that the image does not know was deleted: whoever added it to the transaction knew it, and
/// the metadata of a coordinator is never older than that of its predecessors in the role.
fn plan(image: &Image, left: &BTreeSet<Partition>) -> Plan {
    let mut plan = Plan {
        gone: Vec::new(),
        by_leader: BTreeMap::new(),
    };
    for (name, index) in left {
        let topic = image.topic_by_name(name);
        match topic.and_then(|topic| topic.partition(*index)) {
            None => plan.gone.push((name.clone(), *index)),
            Some(partition) => {
                if let Some(leader) = partition.leader {
                    let of_leader = plan.by_leader.entry(leader).or_default();
                    of_leader.push((name.clone(), *index));
                }
            }
        }
    }
    plan
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Done,
    Again,
    /// Somebody newer has taken over the transaction.
    Over,
}

fn judge(error: ErrorCode) -> Judgement {
    match error {
        ErrorCode::None => Judgement::Done,
        ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
            Judgement::Over
        }
        _ if taken_out("a-marker-is-sent-until-it-is-in") => Judgement::Done,
        _ => Judgement::Again,
    }
}

/// Sends what is queued for one broker.
async fn deliver(
    broker: BrokerId,
    lines: Arc<dyn Lines>,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            parcel = parcels.recv(), if under_way.len() < IN_FLIGHT => {
                let Some(parcel) = parcel else { return };
                let mut together = vec![parcel];
                while together.len() < TOGETHER && let Ok(parcel) = parcels.try_recv() {
                    together.push(parcel);
                }
                // Whoever does not wait any more is no coordinator of it now.
                together.retain(|parcel| !parcel.reply.is_closed());
                if !together.is_empty() {
                    under_way.push(send(broker, &*lines, together));
                }
            }
        }
    }
}

async fn send(broker: BrokerId, lines: &dyn Lines, parcels: Vec<Parcel>) {
    let request =
        WriteTxnMarkersRequest::default().with_markers(parcels.iter().map(marker).collect());
    let answers = match lines.write_markers(broker, request).await {
        Ok(response) => errors(&response),
        Err(error) => {
            tracing::debug!(%broker, %error, "markers could not be sent; they will be again");
            return;
        }
    };
    for parcel in parcels {
        let id = parcel.producer.id.0;
        let answer = parcel.partitions.into_iter().map(|partition| {
            let error = answers.get(&(id, partition.clone())).copied();
            // Not in the answer: not written, as far as anybody can tell.
            (partition, error.unwrap_or(ErrorCode::UnknownServerError))
        });
        // Gone: it does not coordinate the transaction any more.
        let _ = parcel.reply.send(answer.collect());
    }
}

fn marker(parcel: &Parcel) -> WritableTxnMarker {
    let mut topics: Vec<WritableTxnMarkerTopic> = Vec::new();
    // In the order of their topics, as they were planned.
    for (topic, partition) in &parcel.partitions {
        match topics.last_mut() {
            Some(last) if last.name.as_str() == topic => last.partition_indexes.push(*partition),
            _ => topics.push(
                WritableTxnMarkerTopic::default()
                    .with_name(TopicName(StrBytes::from_string(topic.clone())))
                    .with_partition_indexes(vec![*partition]),
            ),
        }
    }
    let mut marker = WritableTxnMarker::default();
    if parcel.bumped {
        marker = marker.with_unknown_tagged_field(BUMPED, Bytes::new());
    }
    marker
        .with_producer_id(parcel.producer.id.0.into())
        .with_producer_epoch(parcel.producer.epoch)
        .with_transaction_result(parcel.commit)
        .with_coordinator_epoch(parcel.epoch.0)
        .with_topics(topics)
}

/// Which epoch a marker has, by what its coordinator says of it. One of an older release says nothing.
pub fn epoch_of(marker: &WritableTxnMarker) -> MarkerEpoch {
    match marker.unknown_tagged_fields.get(&BUMPED) {
        Some(_) => MarkerEpoch::Later,
        None => MarkerEpoch::Any,
    }
}

fn errors(response: &WriteTxnMarkersResponse) -> HashMap<(i64, Partition), ErrorCode> {
    let mut errors = HashMap::default();
    for marker in &response.markers {
        for topic in &marker.topics {
            for partition in &topic.partitions {
                let key = (topic.name.to_string(), partition.partition_index);
                let error = ErrorCode::from_code(partition.error_code);
                errors.insert((marker.producer_id.0, key), error);
            }
        }
    }
    errors
}

#[cfg(test)]
#[path = "markers_tests.rs"]
mod tests;
