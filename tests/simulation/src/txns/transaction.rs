//! One transaction of a producer: its batches, one on its way per partition, each sent again as it is.

use crate::broker::mail::{Mail, Produced};
use crate::broker::reply::reply;
use crate::check::{TRANSACTIONAL, TxnId};
use crate::core::Core;
use crate::disk::Key;
use crate::process::CALENDAR;
use bytes::Bytes;
use leasehold_broker::coordinator::write::Producer;
use leasehold_broker::replica::TransactionClient;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_wire::ErrorCode;
use rand::Rng as _;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// After this long without an answer a batch is sent again.
const PATIENCE: u64 = 1_600;
/// After so long a producer gives up what it could not send, and aborts.
const LIMIT: u64 = 3_500;
/// In the attributes of a batch.
const ATTRIBUTE: i16 = 0x10;

struct Batch {
    key: Key,
    records: Bytes,
    /// Empty once they are acknowledged.
    values: Vec<u64>,
    answer: Option<oneshot::Receiver<Produced>>,
    sent_at: u64,
    send_at: u64,
}

/// How it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Not all is acknowledged.
    Waits,
    All,
    /// It must be aborted.
    Failed,
    /// Its producer is none any more.
    Fenced,
}

/// Who sends.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub id: &'static str,
    pub line: u64,
    pub number: u32,
    pub producer: Producer,
    pub second: bool,
}

/// A transaction.
pub(super) struct Transaction {
    pub txn: TxnId,
    pub keys: Vec<Key>,
    /// What its producer wants.
    pub commits: bool,
    /// Some batch of it may or may not be in its log.
    pub torn: bool,
    /// It commits an offset, too.
    pub has_offset: bool,
    batches: Vec<Batch>,
    until: u64,
}

impl Transaction {
    /// One in some of `keys`; `sequences` are those of the next records, `next` is the number of the next one.
    pub fn begin(
        core: &mut Core,
        sender: &Sender,
        keys: Vec<Key>,
        sequences: &mut BTreeMap<Key, i32>,
        next: &mut u32,
    ) -> Self {
        let who = (sender.producer.id.0, sender.producer.epoch);
        let txn = core.check.txns.begin(sender.id, who);
        let mut batches = Vec::new();
        for key in &keys {
            for _ in 0..core.rng.random_range(1..3) {
                batches.push(batch(core, sender, (*key, txn), sequences, next));
            }
        }
        Self {
            txn,
            keys,
            commits: core.chance(750),
            torn: false,
            has_offset: core.chance(500),
            batches,
            until: core.now + LIMIT,
        }
    }

    /// What the coordinator says of it to a leader is held up, and its producer, who sends from `begins` on, soon gives up:
    /// its batch is to be appended when all has ended, on the word of a coordinator that was right when it gave it.
    pub fn hold_up(&mut self, core: &mut Core, id: &'static str, begins: u64) {
        core.note(format!(
            "fault what is said of a transaction of {id} is held up"
        ));
        core.held_up.insert(id);
        self.until = begins + core.rng.random_range(15..60);
    }

    /// Whether its producer gives up what is not done.
    pub fn is_late(&self, now: u64) -> bool {
        now > self.until
    }

    /// Hears answers, and sends what is due.
    pub fn send(
        &mut self,
        core: &mut Core,
        sender: &Sender,
        to: impl Fn(&mut Core, Key) -> usize,
    ) -> Sent {
        for batch in &mut self.batches {
            match hear(batch, core) {
                Sent::Failed => self.torn = true,
                Sent::Fenced => return Sent::Fenced,
                _ => {}
            }
        }
        self.batches.retain(|batch| !batch.values.is_empty());
        if self.batches.is_empty() {
            return Sent::All;
        }
        if self.torn || core.now > self.until {
            self.torn = true;
            return Sent::Failed;
        }
        let mut busy: Vec<Key> = Vec::new();
        for batch in &mut self.batches {
            if busy.contains(&batch.key) {
                continue;
            }
            busy.push(batch.key);
            if batch.answer.is_some() || core.now < batch.send_at {
                continue;
            }
            let to = to(core, batch.key);
            let (reply, answer) = reply();
            batch.answer = Some(answer);
            batch.sent_at = core.now;
            let client = match sender.second {
                true => TransactionClient::LetsAdd,
                false => TransactionClient::KnowsAbortable,
            };
            let mail = Mail::ProduceIn {
                id: sender.id,
                client,
                key: batch.key,
                records: batch.records.clone(),
                values: batch.values.clone(),
                reply,
            };
            core.post_from(sender.line, to, mail);
        }
        Sent::Waits
    }
}

fn batch(
    core: &mut Core,
    sender: &Sender,
    (key, txn): (Key, TxnId),
    sequences: &mut BTreeMap<Key, i32>,
    next: &mut u32,
) -> Batch {
    let count = core.rng.random_range(1..3);
    let sequence = sequences.entry(key).or_default();
    let mut builder = RecordBatchBuilder::new()
        .producer(sender.producer.id, sender.producer.epoch, *sequence)
        .attributes(ATTRIBUTE);
    *sequence += count;
    let time = CALENDAR + i64::try_from(core.now).unwrap_or(0);
    let mut values = Vec::new();
    for _ in 0..count {
        let value = u64::from(TRANSACTIONAL + sender.number) << 32 | u64::from(*next);
        *next += 1;
        builder.push(time, None, Some(&value.to_be_bytes()));
        core.check.txns.made(txn, value);
        let data = core.check.data.entry(key).or_default();
        data.made.insert(value, (time, 0));
        values.push(value);
    }
    Batch {
        key,
        records: builder.build(),
        values,
        answer: None,
        sent_at: 0,
        send_at: core.now,
    }
}

/// What became of a batch; an acknowledged one is left without values.
fn hear(batch: &mut Batch, core: &mut Core) -> Sent {
    use ErrorCode as E;
    let Some(answer) = &mut batch.answer else {
        return Sent::Waits;
    };
    match answer.try_recv() {
        Ok(Ok(_)) => batch.values.clear(),
        Ok(Err(E::ProducerFenced | E::InvalidProducerEpoch | E::InvalidProducerIdMapping)) => {
            return Sent::Fenced;
        }
        Ok(Err(
            E::TransactionAbortable
            | E::InvalidTxnState
            | E::OutOfOrderSequenceNumber
            | E::UnknownProducerId
            | E::UnknownTopicOrPartition,
        )) => return Sent::Failed,
        Ok(Err(_)) => batch.send_at = core.now + core.rng.random_range(20..150),
        Err(TryRecvError::Closed) => batch.send_at = core.now + 100,
        Err(TryRecvError::Empty) if core.now < batch.sent_at + PATIENCE => return Sent::Waits,
        Err(TryRecvError::Empty) => batch.send_at = core.now,
    }
    batch.answer = None;
    Sent::Waits
}
