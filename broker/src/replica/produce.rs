//! Produce: appends on the leader, and acknowledgements.
//!
//! Promises: entries for one partition are appended in the order of the calls; with acks=all an
//! entry succeeds only once its records are below the high watermark of the leader epoch in which
//! they were appended; an error after the append never means "surely not written".

use super::counters::Counters;
use super::manager::ReplicaManager;
use super::partition::{AckWaiter, Partition, hint, is_offline, not_leader};
use super::space::Writer;
use super::types::*;
use leasehold_log::batch::BatchHeader;
use leasehold_log::{AppendError, AppendInfo, PartitionLog};
use leasehold_types::{LeaderEpoch, Offset, seams};
use leasehold_wire::ErrorCode;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Sleep;

pub(super) enum Slot {
    Waiting(oneshot::Receiver<ProduceResult>, Arc<Partition>),
    Done(ProduceResult),
    Taken,
}

/// Resolves when every entry of one produce is answered, in the order of the entries.
pub struct PendingProduce {
    slots: Vec<Slot>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl PendingProduce {
    pub(super) fn new(slots: Vec<Slot>, timeout: Option<Duration>) -> Self {
        let deadline = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        Self { slots, deadline }
    }
}

impl Future for PendingProduce {
    type Output = Vec<ProduceResult>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut waiting = false;
        for slot in &mut this.slots {
            if let Slot::Waiting(reply, partition) = slot {
                match Pin::new(reply).poll(cx) {
                    Poll::Ready(Ok(result)) => *slot = Slot::Done(result),
                    // Its job was dropped: the broker shuts down, or the job panicked.
                    Poll::Ready(Err(_)) => *slot = Slot::Done(not_leader(partition.hint())),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            let Some(deadline) = &mut this.deadline else {
                return Poll::Pending;
            };
            if deadline.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let results =
            this.slots
                .iter_mut()
                .map(|slot| match std::mem::replace(slot, Slot::Taken) {
                    Slot::Done(result) => result,
                    Slot::Waiting(_, partition) => timed_out(&partition),
                    Slot::Taken => ProduceResult::failed(ErrorCode::UnknownServerError, None),
                });
        Poll::Ready(results.collect())
    }
}

fn timed_out(partition: &Partition) -> ProduceResult {
    let enough = partition.look_leader(|leader| leader.has_min_isr());
    let error = match enough {
        Some(false) => ErrorCode::NotEnoughReplicasAfterAppend,
        _ => ErrorCode::RequestTimedOut,
    };
    ProduceResult::failed(error, None)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    seams::wall_ms()
}

impl ReplicaManager {
    /// Queues the appends before it returns, so calls in a connection's order append in that order;
    /// the future waits for what `acks` asks, with acks=all at most `timeout`. Dropping it cancels
    /// nothing.
    pub fn append(
        &self,
        acks: Acks,
        timeout: Duration,
        entries: Vec<ProduceEntry>,
    ) -> PendingProduce {
        let slots = entries.into_iter().map(|entry| {
            if let Verified::Refused(error, message) = entry.verified {
                return Slot::Done(ProduceResult::failed(error, Some(message)));
            }
            self.queued((entry.topic, entry.partition), |partition, reply| {
                let proof = self.proof();
                let counters = self.counters().clone();
                partition.submit(move |partition| {
                    let append = Append {
                        at: Leading { partition, acks },
                        entry: &entry,
                        counters: &counters,
                    };
                    append.run(|| proof.holds(partition), reply);
                });
            })
        });
        PendingProduce::new(slots.collect(), (acks == Acks::All).then_some(timeout))
    }

    /// Has `submit` queue something on a partition's lane that will answer.
    pub(super) fn queued(
        &self,
        key: PartitionKey,
        submit: impl FnOnce(&Arc<Partition>, oneshot::Sender<ProduceResult>),
    ) -> Slot {
        match self.find(key) {
            Ok(partition) => {
                let (reply, answer) = oneshot::channel();
                submit(&partition, reply);
                Slot::Waiting(answer, partition)
            }
            Err(refused) => Slot::Done(ProduceResult {
                current_leader: refused.current_leader,
                ..ProduceResult::failed(refused.error, None)
            }),
        }
    }
}

/// A partition on whose lane something is appended as leader.
pub(super) struct Leading<'a> {
    pub partition: &'a Partition,
    pub acks: Acks,
}

struct Append<'a> {
    at: Leading<'a>,
    entry: &'a ProduceEntry,
    counters: &'a Counters,
}

impl Append<'_> {
    fn run(&self, proven: impl FnOnce() -> bool, reply: oneshot::Sender<ProduceResult>) {
        let epoch = match self
            .at
            .admitted(self.entry.leader_epoch, proven)
            .and_then(|epoch| self.in_order(epoch))
        {
            Ok(epoch) => epoch,
            Err(refusal) => return self.refuse(refusal, reply),
        };
        let (Some(log), Some(place)) = (self.at.partition.log(), self.at.partition.place()) else {
            let _ = reply.send(not_leader(self.at.partition.hint()));
            return;
        };
        let writer = match self.entry.leader_epoch {
            Some(_) => Writer::Coordinator,
            None => Writer::Records,
        };
        if !place.space.take(self.entry.records.len(), writer) {
            // Of Kafka's errors the one that clients take for what it is: they try again.
            let refused =
                ProduceResult::failed(ErrorCode::KafkaStorageError, Some(place.space.refusal()));
            return self.refuse(refused, reply);
        }
        let guard = match self.entry.verified {
            Verified::Guarded(guard) | Verified::Added(guard) => Some(guard),
            _ => None,
        };
        let (records, now) = (&self.entry.records, now_ms());
        let appended = match self.entry.leader_epoch {
            Some(_) => log.append_coordinator(records, epoch, now, guard),
            None => log.append_verified(records, epoch, now, guard),
        };
        if appended.as_ref().is_ok_and(|info| !info.duplicate) {
            self.counters.bytes_in.add(self.entry.records.len() as u64);
            self.counters.batches_in.add(1);
        }
        let refused = match (&appended, &self.entry.verified) {
            (Err(AppendError::NotInTransaction(_)), Verified::Added(_)) => Some(
                ProduceResult::failed(ErrorCode::ConcurrentTransactions, None),
            ),
            // It leads since.
            (Err(AppendError::NotInTransaction(_)), Verified::NotLed) => {
                Some(not_leader(self.at.partition.hint()))
            }
            _ => None,
        };
        match refused {
            Some(refused) => self.refuse(refused, reply),
            None => self.at.settle(&log, epoch, appended, reply),
        }
    }

    /// Answers that nothing was appended; one of the refusals that clients repeat is remembered.
    fn refuse(&self, refusal: ProduceResult, reply: oneshot::Sender<ProduceResult>) {
        if matches!(
            refusal.error,
            ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError
        ) && let Ok(batch) = BatchHeader::parse(&self.entry.records)
        {
            let mut refusals = self.at.partition.refusals.lock();
            refusals.refused(&batch, refusal.error, seams::now());
        }
        let _ = reply.send(refusal);
    }

    /// Refuses what follows a batch that was refused: when this broker did not lead yet, or had no room.
    fn in_order(&self, epoch: LeaderEpoch) -> Result<LeaderEpoch, ProduceResult> {
        let mut refusals = self.at.partition.refusals.lock();
        if refusals.is_empty() {
            return Ok(epoch);
        }
        // What cannot be read is the log's to refuse.
        let Ok(batch) = BatchHeader::parse(&self.entry.records) else {
            return Ok(epoch);
        };
        match refusals.must_wait(&batch, seams::now()) {
            None => Ok(epoch),
            Some(ErrorCode::NotLeaderOrFollower) => Err(not_leader(self.at.partition.hint())),
            Some(error) => {
                let message = "a batch that this producer sent before was refused".to_owned();
                Err(ProduceResult::failed(error, Some(message)))
            }
        }
    }
}

impl Leading<'_> {
    /// What follows an append: an error is told, and what was appended is acknowledged when `acks` says so.
    pub fn settle(
        &self,
        log: &PartitionLog,
        epoch: LeaderEpoch,
        appended: Result<AppendInfo, AppendError>,
        reply: oneshot::Sender<ProduceResult>,
    ) {
        let info = match appended {
            Ok(info) => info,
            Err(error) => {
                let _ = reply.send(self.refused(log, error));
                return;
            }
        };
        let done = ProduceResult {
            error: ErrorCode::None,
            message: None,
            base_offset: info.base_offset,
            log_append_time: info.log_append_time,
            log_start_offset: info.log_start_offset,
            current_leader: None,
            record_errors: None,
        };
        let waiter = AckWaiter { reply, done };
        let log_end = log.log_end_offset();
        match self.acks {
            Acks::All => {
                self.partition.change(|state| {
                    state.appended(epoch, log_end, Some((info.last_offset, waiter)))
                });
            }
            Acks::None | Acks::Leader => {
                let mut ours = true;
                self.partition.change(|state| {
                    ours = state.leader().is_some_and(|leader| leader.epoch() == epoch);
                    state.appended(epoch, log_end, None)
                });
                let _ = waiter.reply.send(if ours {
                    waiter.done
                } else {
                    not_leader(self.partition.hint())
                });
            }
        }
        self.partition.grown.wake();
    }

    /// The epoch in which something may be appended; with `wanted`, only that one.
    pub fn admitted(
        &self,
        wanted: Option<LeaderEpoch>,
        proven: impl FnOnce() -> bool,
    ) -> Result<LeaderEpoch, ProduceResult> {
        let epoch = self.partition.look(|state| {
            let Some(leader) = state.leader() else {
                return Err(if is_offline(state) {
                    ProduceResult::failed(ErrorCode::KafkaStorageError, None)
                } else {
                    not_leader(hint(state))
                });
            };
            if wanted.is_some_and(|epoch| epoch != leader.epoch()) {
                return Err(not_leader(hint(state)));
            }
            if self.acks == Acks::All && !leader.has_min_isr() {
                let message = format!(
                    "{} of {} in-sync replicas that partition {}-{} needs for acks=all",
                    leader.view().isr.len(),
                    leader.view().effective_min,
                    self.partition.topic(),
                    self.partition.key().1
                );
                return Err(ProduceResult::failed(
                    ErrorCode::NotEnoughReplicas,
                    Some(message),
                ));
            }
            Ok(leader.epoch())
        })?;
        // acks=all needs no proof: it cannot succeed without the ISR.
        if self.acks != Acks::All && !proven() {
            return Err(not_leader(self.partition.hint()));
        }
        Ok(epoch)
    }

    fn refused(&self, log: &PartitionLog, error: AppendError) -> ProduceResult {
        match &error {
            // That a file handle was wanting for a moment is no failure: the log is in service.
            AppendError::Storage(_) => {
                self.partition.notice_failure();
            }
            AppendError::FencedEpoch { .. }
            | AppendError::EpochNotBegun(_)
            | AppendError::NotConfirmed(_) => {
                tracing::warn!(topic = %self.partition.topic(), partition = self.partition.key().1,
                    %error, "the log refuses this leadership");
                return not_leader(self.partition.hint());
            }
            _ => {}
        }
        let (code, message) = (error.kafka_code(), error.to_string());
        let log_start_offset = match error {
            // As in Kafka, which does not get to look where these are the reason.
            AppendError::Corrupt(_)
            | AppendError::TooLarge { .. }
            | AppendError::LargerThanSegment { .. }
            | AppendError::Storage(_) => Offset(-1),
            // By it a producer tells that its state was deleted with its records.
            _ => log.log_start_offset(),
        };
        let record_errors = match error {
            AppendError::Records(errors) => Some(errors),
            _ => None,
        };
        ProduceResult {
            record_errors,
            log_start_offset,
            ..ProduceResult::failed(ErrorCode::from_code(code), Some(message))
        }
    }
}
