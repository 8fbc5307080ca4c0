//! Produce: appends on the leader, and acknowledgements.
//!
//! Promises: entries for one partition are appended in the order of the calls; with acks=all an
//! entry succeeds only once its records are below the high watermark of the leader epoch in which
//! they were appended; an error after the append never means "surely not written".

use super::counters::Counters;
use super::manager::ReplicaManager;
use super::partition::{AckWaiter, Partition, hint, is_offline, not_leader};
use super::space::{Space, Writer};
use super::types::*;
use leasehold_log::AppendError;
use leasehold_log::batch::BatchHeader;
use leasehold_types::LeaderEpoch;
use leasehold_wire::ErrorCode;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use tokio::time::Sleep;

enum Slot {
    Waiting(oneshot::Receiver<ProduceResult>, Arc<Partition>),
    Done(ProduceResult),
    Taken,
}

/// Resolves when every entry of one produce is answered, in the order of the entries.
pub struct PendingProduce {
    slots: Vec<Slot>,
    deadline: Option<Pin<Box<Sleep>>>,
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
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis().try_into().unwrap_or(i64::MAX))
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
        let slots = entries
            .into_iter()
            .map(|entry| match self.find((entry.topic, entry.partition)) {
                Ok(partition) => {
                    let (reply, answer) = oneshot::channel();
                    let proof = self.proof();
                    let counters = self.counters().clone();
                    let space = self.space().clone();
                    partition.submit(move |partition| {
                        let append = Append {
                            partition,
                            entry: &entry,
                            acks,
                            counters: &counters,
                            space: &space,
                        };
                        append.run(|| proof.holds(partition), reply);
                    });
                    Slot::Waiting(answer, partition)
                }
                Err(refused) => Slot::Done(ProduceResult {
                    current_leader: refused.current_leader,
                    ..ProduceResult::failed(refused.error, None)
                }),
            })
            .collect();
        let deadline = (acks == Acks::All).then(|| Box::pin(tokio::time::sleep(timeout)));
        PendingProduce { slots, deadline }
    }
}

struct Append<'a> {
    partition: &'a Partition,
    entry: &'a ProduceEntry,
    acks: Acks,
    counters: &'a Counters,
    space: &'a Space,
}

impl Append<'_> {
    fn run(&self, proven: impl FnOnce() -> bool, reply: oneshot::Sender<ProduceResult>) {
        let epoch = match self.admitted(proven).and_then(|epoch| self.in_order(epoch)) {
            Ok(epoch) => epoch,
            Err(refusal) => {
                if refusal.error == ErrorCode::NotLeaderOrFollower {
                    self.remember_refusal();
                }
                let _ = reply.send(refusal);
                return;
            }
        };
        let Some(log) = self.partition.log() else {
            let _ = reply.send(not_leader(self.partition.hint()));
            return;
        };
        let writer = match self.entry.leader_epoch {
            Some(_) => Writer::Coordinator,
            None => Writer::Records,
        };
        if !self.space.take(self.entry.records.len(), writer) {
            // Of Kafka's errors the one that clients take for what it is: they try again.
            let refused =
                ProduceResult::failed(ErrorCode::KafkaStorageError, Some(self.space.refusal()));
            let _ = reply.send(refused);
            return;
        }
        let info = match log.append_leader(&self.entry.records, epoch, now_ms()) {
            Ok(info) => info,
            Err(error) => {
                let _ = reply.send(self.refused(error));
                return;
            }
        };
        if !info.duplicate {
            self.counters.bytes_in.add(self.entry.records.len() as u64);
            self.counters.batches_in.add(1);
        }
        let done = ProduceResult {
            error: ErrorCode::None,
            message: None,
            base_offset: info.base_offset,
            log_append_time: info.log_append_time,
            log_start_offset: info.log_start_offset,
            current_leader: None,
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

    /// The epoch in which this entry may be appended.
    fn admitted(&self, proven: impl FnOnce() -> bool) -> Result<LeaderEpoch, ProduceResult> {
        let epoch = self.partition.look(|state| {
            let Some(leader) = state.leader() else {
                return Err(if is_offline(state) {
                    ProduceResult::failed(ErrorCode::KafkaStorageError, None)
                } else {
                    not_leader(hint(state))
                });
            };
            if self
                .entry
                .leader_epoch
                .is_some_and(|epoch| epoch != leader.epoch())
            {
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

    /// Refuses what follows a batch that was refused when this broker did not lead yet.
    fn in_order(&self, epoch: LeaderEpoch) -> Result<LeaderEpoch, ProduceResult> {
        let mut refusals = self.partition.refusals.lock();
        if refusals.is_empty() {
            return Ok(epoch);
        }
        match BatchHeader::parse(&self.entry.records) {
            Ok(batch) if refusals.must_wait(&batch, Instant::now()) => {
                Err(not_leader(self.partition.hint()))
            }
            // What cannot be read is the log's to refuse.
            _ => Ok(epoch),
        }
    }

    fn remember_refusal(&self) {
        if let Ok(batch) = BatchHeader::parse(&self.entry.records) {
            let mut refusals = self.partition.refusals.lock();
            refusals.refused(&batch, Instant::now());
        }
    }

    fn refused(&self, error: AppendError) -> ProduceResult {
        match &error {
            AppendError::Storage(storage) => self.partition.fail(storage.to_string()),
            AppendError::FencedEpoch { .. }
            | AppendError::EpochNotBegun(_)
            | AppendError::NotConfirmed(_) => {
                tracing::warn!(topic = %self.partition.topic(), partition = self.partition.key().1,
                    %error, "the log refuses this leadership");
                return not_leader(self.partition.hint());
            }
            _ => {}
        }
        ProduceResult::failed(
            ErrorCode::from_code(error.kafka_code()),
            Some(error.to_string()),
        )
    }
}
