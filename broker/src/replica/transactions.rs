//! Transactions in the partitions that this broker leads: markers, and the question whether a partition is part of
//! a transaction at all (KIP-98, KIP-890).
//!
//! Two seams, both wired once the coordinators exist: [`VerifyTransaction`] asks the transaction coordinator,
//! wherever that is; [`MarkerListener`] hears of the markers in `__consumer_offsets`. Without the first, no
//! transactional batch is appended.
//!
//! In version 2 of transactions the question adds the partition, and its producer need not have done so.
//!
//! Promises: a batch begins a transaction only if the coordinator said, after the last marker of its producer was
//! appended here, that the partition is in it; a listener hears of a marker after it was appended, in the log's
//! order with all other appends, and before whoever sent it gets an answer.

use super::manager::ReplicaManager;
use super::partition::Partition;
use super::produce::{Leading, PendingProduce, now_ms};
use super::space::Writer;
use super::types::*;
use crate::group::cluster::OFFSETS_TOPIC;
use leasehold_log::ProducerState;
use leasehold_log::batch::{BatchHeader, Marker, MarkerEpoch};
use leasehold_types::{LeaderEpoch, Offset, ProducerId, TopicId};
use leasehold_wire::ErrorCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a producer of version 2 waits here for the markers of its last transaction, which are under way while it
/// begins the next one; then it is told to come again.
const PATIENCE: Duration = Duration::from_millis(100);
/// Before the coordinator is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether partitions are part of a producer's open transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionQuestion {
    pub transactional_id: String,
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    /// Makes the partitions part of the transaction, rather than asking whether they are.
    pub adds: bool,
    /// By name, as AddPartitionsToTxn has them, and by id.
    pub partitions: Vec<(Arc<str>, PartitionKey)>,
}

/// What a client of transactions knows, by the version of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionClient {
    /// It adds partitions to its transactions itself.
    Adds,
    /// So does this one, and it knows TRANSACTION_ABORTABLE.
    KnowsAbortable,
    /// It lets the leaders of the partitions add them: transactions of version 2.
    LetsAdd,
}

/// Asks the transaction coordinator; AddPartitionsToTxn v4. The coordinator's builder provides it.
#[async_trait::async_trait]
pub trait VerifyTransaction: Send + Sync + 'static {
    /// An answer for each partition, in their order: [`ErrorCode::None`] is yes; that it is not part of the
    /// transaction, TRANSACTION_ABORTABLE. Within a bounded time; a coordinator that cannot be reached is
    /// COORDINATOR_NOT_AVAILABLE or NETWORK_EXCEPTION.
    async fn verify(&self, question: TransactionQuestion) -> Vec<ErrorCode>;
}

/// A marker in the log of a partition that this broker leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedMarker {
    pub topic: TopicId,
    pub partition: i32,
    /// The leader epoch in which it was appended.
    pub leader_epoch: LeaderEpoch,
    /// Its place in the log: not yet below the high watermark.
    pub offset: Offset,
    /// Producer, epochs, and whether the transaction was committed.
    pub marker: Marker,
}

/// Hears of the markers in `__consumer_offsets`: the group coordinator.
pub trait MarkerListener: Send + Sync + 'static {
    /// A marker was appended. Called on the partition's lane: it must not wait.
    fn on_marker(&self, marker: AppendedMarker);
}

/// A marker to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerEntry {
    pub topic: TopicId,
    pub partition: i32,
    pub marker: Marker,
    pub has: MarkerEpoch,
}

/// The seams, empty until they are wired.
#[derive(Default)]
pub struct TransactionSeams {
    verifier: OnceLock<Arc<dyn VerifyTransaction>>,
    listener: OnceLock<Arc<dyn MarkerListener>>,
}

/// Whether a batch, which may be anything, says that it belongs to a transaction.
pub fn is_transactional(batch: &[u8]) -> bool {
    const ATTRIBUTES: usize = 22;
    const TRANSACTIONAL: u8 = 0x10;
    batch
        .get(ATTRIBUTES)
        .is_some_and(|low| low & TRANSACTIONAL != 0)
}

impl ReplicaManager {
    /// From now on transactional batches are appended, if `verifier` says that they may be. Called once.
    pub fn verify_with(&self, verifier: Arc<dyn VerifyTransaction>) {
        let _ = self.transactions().verifier.set(verifier);
    }

    /// From now on `listener` hears of the markers in `__consumer_offsets`. Called once.
    pub fn tell_of_markers(&self, listener: Arc<dyn MarkerListener>) {
        let _ = self.transactions().listener.set(listener);
    }

    /// Asks the transaction coordinator about the entries that would begin a transaction, and writes down in them
    /// what it said. To be called before [`Self::append`], for batches of one producer.
    pub async fn verify(
        &self,
        transactional_id: &str,
        client: TransactionClient,
        entries: &mut [ProduceEntry],
    ) {
        let mut asked: Vec<&mut ProduceEntry> = entries
            .iter_mut()
            .filter(|entry| is_transactional(&entry.records))
            .collect();
        if asked.is_empty() {
            return;
        }
        let Some(verifier) = self.transactions().verifier.get() else {
            let message = "transactions are not served by this broker";
            return refuse_all(&mut asked, ErrorCode::InvalidTxnState, message);
        };
        // What cannot be read is the log's to refuse.
        let header = |entry: &ProduceEntry| BatchHeader::parse(&entry.records).ok();
        let who = |batch: BatchHeader| (batch.producer_id, batch.producer_epoch);
        let mut producers = asked.iter().filter_map(|entry| header(entry).map(who));
        let Some((producer_id, producer_epoch)) = producers.next() else {
            return;
        };
        if producers.any(|other| other != (producer_id, producer_epoch)) {
            let message = "the transactional batches are of more than one producer";
            return refuse_all(&mut asked, ErrorCode::InvalidProducerIdMapping, message);
        }
        let begun = Instant::now();
        loop {
            let mut question = TransactionQuestion {
                transactional_id: transactional_id.to_owned(),
                producer_id,
                producer_epoch,
                adds: client == TransactionClient::LetsAdd,
                partitions: Vec::new(),
            };
            // Each time with new guards: the markers that are waited for make those before void.
            let waiting = self.guard(&mut asked, &mut question);
            if waiting.is_empty() {
                return;
            }
            let adds = question.adds;
            let answers = verifier.verify(question).await;
            let ending = |error: &ErrorCode| *error == ErrorCode::ConcurrentTransactions;
            if adds && answers.iter().all(ending) && begun.elapsed() < PATIENCE {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            return self.judge(&mut asked, waiting, &answers, (producer_id, client));
        }
    }

    /// Guards the batches that would begin a transaction, and asks about their partitions. Gives which they are.
    fn guard(
        &self,
        asked: &mut [&mut ProduceEntry],
        question: &mut TransactionQuestion,
    ) -> Vec<usize> {
        let mut waiting = Vec::new();
        for (index, entry) in asked.iter_mut().enumerate() {
            // What cannot be read is the log's to refuse.
            let Ok(batch) = BatchHeader::parse(&entry.records) else {
                continue;
            };
            let key = (entry.topic, entry.partition);
            // Who does not lead says so at the append.
            let Ok(partition) = self.find(key) else {
                continue;
            };
            if partition.look_leader(|_| ()).is_none() {
                entry.verified = Verified::NotLed;
                continue;
            }
            let guard = begin(&partition, &batch, question.adds);
            entry.verified = match guard {
                Some(guard) if question.adds => Verified::Added(guard),
                Some(guard) => Verified::Guarded(guard),
                None => Verified::NotAsked,
            };
            if guard.is_some() {
                question.partitions.push((partition.topic().clone(), key));
                waiting.push(index);
            }
        }
        waiting
    }

    /// Writes down the answers about the entries that were waiting for them.
    fn judge(
        &self,
        asked: &mut [&mut ProduceEntry],
        waiting: Vec<usize>,
        answers: &[ErrorCode],
        (producer_id, client): (ProducerId, TransactionClient),
    ) {
        for (n, index) in waiting.into_iter().enumerate() {
            let answer = answers.get(n).copied();
            let answer = answer.unwrap_or(ErrorCode::UnknownServerError);
            let Some((error, message)) = judged(answer, client) else {
                continue;
            };
            let entry = &mut asked[index];
            if let Verified::Guarded(guard) | Verified::Added(guard) = entry.verified
                && !matches!(
                    error,
                    ErrorCode::NotEnoughReplicas | ErrorCode::ConcurrentTransactions
                )
                && let Ok(partition) = self.find((entry.topic, entry.partition))
            {
                partition.guards(|log| log.verification_refused(producer_id, guard));
            }
            entry.verified = Verified::Refused(error, message);
        }
    }

    /// Queues the markers before it returns; an answer each, in their order, once they are committed.
    pub fn write_markers(&self, timeout: Duration, entries: Vec<MarkerEntry>) -> PendingProduce {
        let slots = entries.into_iter().map(|entry| {
            self.queued((entry.topic, entry.partition), |partition, reply| {
                let seams = self.transactions().clone();
                let proof = self.proof();
                partition.submit(move |partition| {
                    let write = WriteMarker {
                        at: Leading {
                            partition,
                            acks: Acks::All,
                        },
                        marker: entry.marker,
                        has: entry.has,
                        listener: seams.listener.get(),
                    };
                    write.run(|| proof.holds(partition), reply);
                });
            })
        });
        PendingProduce::new(slots.collect(), Some(timeout))
    }

    /// What the leader knows of the producers of a partition (KIP-664).
    pub async fn producers(&self, key: PartitionKey) -> Result<Vec<ProducerState>, ReadRefused> {
        let asked = self.ask(key, None)?;
        asked.read(|log| Ok(log.active_producers())).await
    }
}

fn refuse_all(entries: &mut [&mut ProduceEntry], error: ErrorCode, message: &str) {
    for entry in entries {
        entry.verified = Verified::Refused(error, message.to_owned());
    }
}

/// With `adds`, what begins the transaction is its first batch: nothing of it may have been lost before.
fn begin(
    partition: &Partition,
    batch: &BatchHeader,
    adds: bool,
) -> Option<leasehold_log::VerificationGuard> {
    let (id, epoch) = (batch.producer_id, batch.producer_epoch);
    let sequence = match adds {
        true => batch.base_sequence.min(0),
        false => batch.base_sequence,
    };
    partition.guards(|log| log.begin_verification(id, epoch, sequence, now_ms()))?
}

/// What a client is told of the coordinator's answer, as Kafka's ReplicaManager has it: errors that pass become
/// one which every producer repeats without looking for another leader.
fn judged(answer: ErrorCode, client: TransactionClient) -> Option<(ErrorCode, String)> {
    use ErrorCode as E;
    use TransactionClient as C;
    Some(match answer {
        E::None => return None,
        // Usual between two transactions of version 2, whose clients expect it.
        E::ConcurrentTransactions if client == C::LetsAdd => (
            answer,
            "the last transaction of this producer is being ended".to_owned(),
        ),
        E::NetworkException
        | E::CoordinatorLoadInProgress
        | E::CoordinatorNotAvailable
        | E::NotCoordinator
        | E::ConcurrentTransactions
        | E::RequestTimedOut
        // The coordinator has not heard of the partition yet, or of another that was asked about with it.
        | E::UnknownTopicOrPartition
        | E::OperationNotAttempted => (
            E::NotEnoughReplicas,
            format!("cannot verify that the partition is part of the transaction: {answer}"),
        ),
        // Since KIP-588 a producer is told so, and may abort and go on.
        E::ProducerFenced => (E::InvalidProducerEpoch, answer.to_string()),
        E::TransactionAbortable if client == C::Adds => (E::InvalidTxnState, answer.to_string()),
        error => (error, error.to_string()),
    })
}

struct WriteMarker<'a> {
    at: Leading<'a>,
    marker: Marker,
    has: MarkerEpoch,
    listener: Option<&'a Arc<dyn MarkerListener>>,
}

/// As many bytes as a marker's batch has, at most.
const LARGEST: usize = 128;

impl WriteMarker<'_> {
    fn run(&self, proven: impl FnOnce() -> bool, reply: oneshot::Sender<ProduceResult>) {
        let partition = self.at.partition;
        let epoch = match self.at.admitted(None, proven) {
            Ok(epoch) => epoch,
            Err(refusal) => {
                let _ = reply.send(refusal);
                return;
            }
        };
        let (Some(log), Some(place)) = (partition.log(), partition.place()) else {
            let _ = reply.send(super::partition::not_leader(partition.hint()));
            return;
        };
        if !place.space.take(LARGEST, Writer::Coordinator) {
            let refused = place.space.refusal();
            let _ = reply.send(ProduceResult::failed(
                ErrorCode::KafkaStorageError,
                Some(refused),
            ));
            return;
        }
        let appended = log.append_marker_of(&self.marker, self.has, epoch, now_ms());
        if let Ok(info) = &appended
            && &**partition.topic() == OFFSETS_TOPIC
            && let Some(listener) = self.listener
        {
            listener.on_marker(AppendedMarker {
                topic: partition.key().0,
                partition: partition.key().1,
                leader_epoch: epoch,
                offset: info.base_offset,
                marker: self.marker,
            });
        }
        self.at.settle(&log, epoch, appended, reply);
    }
}
