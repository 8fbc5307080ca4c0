//! What is asked of a leader about its log, and what its answers must be.

use super::Broker;
use super::mail::Question;
use super::replicas::entry;
use crate::check::name_of;
use crate::core::Core;
use crate::disk::Key;
use bytes::Bytes;
use leasehold_broker::replica::offsets::{EARLIEST, LATEST, MAX_TIMESTAMP};
use leasehold_broker::replica::{Acks, FoundOffset, TransactionClient};
use leasehold_types::{LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// How long who wants records to go lets the broker wait for the replicas.
const DELETE_LIMIT: Duration = Duration::from_millis(900);
/// How long who sends what must be refused waits for that.
const GARBAGE_LIMIT: Duration = Duration::from_millis(900);

impl Broker {
    pub(super) fn asked(self: &Arc<Self>, key: Key, question: Question) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let timestamp = match question {
                Question::Earliest => EARLIEST,
                Question::Latest => LATEST,
                Question::LargestTime => MAX_TIMESTAMP,
                Question::Time(time) => time,
                Question::EndOfEpoch(epoch) => {
                    // None of its answers is wrong by itself: followers act on it, and are judged.
                    let _ = replicas
                        .offset_for_leader_epoch(key, None, LeaderEpoch(epoch))
                        .await;
                    return;
                }
                Question::Status => {
                    let (status, sizes) = (replicas.status(), replicas.log_sizes());
                    let line = format!(
                        "data  broker {} tells of {} replicas and {} logs",
                        this.me,
                        status.partitions.len(),
                        sizes.len()
                    );
                    this.core.lock().note(line);
                    // Nothing is promised of these.
                    let _ = replicas.producers(key).await;
                    return;
                }
            };
            let gone = this.core.lock().check.gone(key, this.me);
            let Ok(found) = replicas.list_offsets(key, None, timestamp, false).await else {
                return;
            };
            let FoundOffset { offset, .. } = found;
            this.show(key);
            let core = &mut *this.core.lock();
            let log = core.nodes[this.me].disk.log(key);
            core.check.found(key, this.me, question, offset.0, log);
            if let (Question::Earliest, Ok(at)) = (question, usize::try_from(offset.0)) {
                core.check.shows(key, this.me, at, gone);
            }
        });
    }

    /// Someone sends a batch that must be refused.
    pub(super) fn garbage(self: &Arc<Self>, key: Key, records: Bytes, what: &'static str) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        let mut entries = vec![entry(key, records)];
        let this = Arc::clone(self);
        tokio::spawn(async move {
            // No coordinator of transactions is there that could say yes.
            replicas
                .verify("nobody", TransactionClient::KnowsAbortable, &mut entries)
                .await;
            let done = replicas.append(Acks::All, GARBAGE_LIMIT, entries).await;
            if done.iter().any(|result| result.error == ErrorCode::None) {
                let line = format!(
                    "C10 broker {} takes a batch with {what} to {key:?}",
                    this.me
                );
                this.core.lock().check.broke(line);
            }
        });
    }

    /// Someone wants the records below `before` to go.
    pub(super) fn delete(self: &Arc<Self>, key: Key, before: i64) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        self.core.lock().check.asked_to_delete(key, before);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let wanted = vec![(key, Offset(before))];
            let Some(done) = replicas.delete_records(wanted, DELETE_LIMIT).await.pop() else {
                return;
            };
            this.show(key);
            let core = &mut *this.core.lock();
            let (topic, number) = key;
            let line = format!("data  {topic}-{number} below {before}: {done:?}");
            core.note(line);
            if done.error == ErrorCode::None {
                let starts = this.starts(core, key);
                let told = (before, done.low_watermark.0);
                core.check.deleted(key, this.me, told, &starts);
            }
        });
    }

    /// Where the logs of those begin that are in the ISR under this leader.
    fn starts(&self, core: &mut Core, key: Key) -> Vec<(usize, usize)> {
        let led = self.replicas.get().and_then(|all| all.leads(key.0, key.1));
        let part = core.check.parts.get(&name_of(key));
        let Some((led, part)) = led.zip(part) else {
            return Vec::new();
        };
        if part.leader_epoch != i64::from(led.epoch.0) {
            return Vec::new();
        }
        let isr = part.isr.iter().filter_map(|id| usize::try_from(*id).ok());
        let isr: Vec<usize> = isr.filter(|node| *node < core.nodes.len()).collect();
        isr.iter().for_each(|node| core.look(*node));
        let here = isr.iter().filter(|node| !core.nodes[**node].disk.damaged);
        here.map(|node| (*node, core.nodes[*node].disk.log(key).start))
            .collect()
    }
}
