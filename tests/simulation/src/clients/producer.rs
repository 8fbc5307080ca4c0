//! An idempotent producer of one partition: batches with sequences, a few on their way at a time, each sent
//! again, as it is, until it is acknowledged.
//!
//! Promise: a number is produced in one batch only, and given up only where the checker agrees that a log need not
//! know the ones before. So whatever else is committed must hold the producer's numbers from 0 on, each once, in order.

use crate::batches::packed;
use crate::broker::mail::{Mail, Produced};
use crate::broker::reply::reply;
use crate::check::TOMBSTONE;
use crate::core::Core;
use crate::disk::Key;
use bytes::Bytes;
use leasehold_log::ProducerId;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_wire::ErrorCode;
use rand::Rng as _;
use std::collections::VecDeque;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Batches on their way; the log remembers five.
const MOST: usize = 4;
/// After this long without an answer a batch is sent again.
const PATIENCE: u64 = 1_600;
/// After so many refusals as out of order of its first batch a producer begins anew: no answer to that got lost.
const REFUSALS: u32 = 6;

/// So long a machine stands still.
const SLEEP: u64 = 4_500;

/// No transactional producer has an id from here on.
const OTHERS: i64 = 1 << 20;

/// How many keys there are.
const KEYS: u8 = 6;

struct Batch {
    records: Bytes,
    /// That of its first record.
    number: u32,
    values: Vec<u64>,
    answer: Option<oneshot::Receiver<Produced>>,
    sent_at: u64,
    send_at: u64,
    refused: u32,
}

/// The producer.
pub(super) struct Producer {
    key: Key,
    id: u32,
    /// What it packs its records in.
    codec: i16,
    epoch: i16,
    /// The number of the next record, and that of the first of this epoch.
    next: u32,
    first: u32,
    /// Something of this epoch was acknowledged. Until then one batch at a time, as a log takes the first
    /// batch of a producer whatever its sequence, as in Kafka.
    known: bool,
    window: VecDeque<Batch>,
    /// It has one batch on its way at a time.
    careful: bool,
    /// Its machine is to stand still once it sends something; until then it does, and it then sends that again.
    tired: bool,
    asleep_until: u64,
}

impl Producer {
    pub fn new(key: Key, id: u32, codec: i16) -> Self {
        Self {
            key,
            id,
            codec,
            epoch: 0,
            next: 0,
            first: 0,
            known: false,
            window: VecDeque::new(),
            careful: false,
            tired: false,
            asleep_until: 0,
        }
    }

    /// Begins one more batch, unless enough are on their way.
    pub fn produce(&mut self, core: &mut Core) {
        if self.window.len() >= if self.known && !self.careful { MOST } else { 1 } {
            return;
        }
        let count = core.rng.random_range(1..4);
        let sequence = i32::try_from(self.next - self.first).unwrap_or(i32::MAX);
        // Where ids are given out, these were given out long ago.
        let others = if core.check.txns.here { OTHERS } else { 0 };
        let id = ProducerId(i64::from(self.id) + others);
        let mut builder = RecordBatchBuilder::new().producer(id, self.epoch, sequence);
        let mut values = Vec::new();
        let keyed = core.check.is_compacted(self.key);
        for number in self.next..self.next + count {
            let mut value = u64::from(self.id) << 32 | u64::from(number);
            let time = crate::process::CALENDAR + i64::try_from(core.now).unwrap_or(0);
            if keyed {
                let slot = core.rng.random_range(1..=KEYS);
                value |= u64::from(slot) << 48;
                if core.chance(200) {
                    value |= TOMBSTONE;
                }
                push_keyed(&mut builder, time, slot, value);
            } else {
                builder.push(time, None, Some(&value.to_be_bytes()));
            }
            values.push(value);
            let data = core.check.data.entry(self.key).or_default();
            data.made.insert(value, (time, self.codec));
        }
        self.next += count;
        self.window.push_back(Batch {
            records: packed(&builder.build(), self.codec).into(),
            number: self.next - count,
            values,
            answer: None,
            sent_at: 0,
            send_at: core.now,
            refused: 0,
        });
    }

    /// Hears answers, and sends what is due, in order.
    pub fn step(&mut self, core: &mut Core) {
        if core.now < self.asleep_until {
            return;
        }
        if self.tired && self.window.is_empty() {
            self.produce(core);
        }
        for batch in &mut self.window {
            hear(batch, core);
        }
        while self.window.front().is_some_and(|b| b.values.is_empty()) {
            self.window.pop_front();
            self.known = true;
            // What was said of the next one while it was not the first says nothing.
            if let Some(first) = self.window.front_mut() {
                first.refused = 0;
            }
        }
        // The others may only wait for the first.
        let first = self.window.front();
        let first = first.filter(|batch| batch.refused >= REFUSALS);
        if let Some(number) = first.map(|batch| batch.number) {
            core.check.gives_up(self.key, self.id, (number, self.next));
            core.note(format!("data  producer {} begins anew", self.id));
            self.window.clear();
            self.epoch += 1;
            self.first = self.next;
            self.known = false;
        }
        let mut to = None;
        for batch in &mut self.window {
            let waits = batch.answer.is_some() || batch.values.is_empty();
            if waits || core.now < batch.send_at {
                continue;
            }
            let to = *to.get_or_insert_with(|| super::leader(core, self.key));
            let (reply, answer) = reply();
            batch.answer = Some(answer);
            batch.sent_at = core.now;
            let mail = Mail::Produce {
                key: self.key,
                records: batch.records.clone(),
                values: batch.values.clone(),
                reply,
            };
            core.post_from(self.id.into(), to, mail);
        }
        if to.is_some() && self.tired {
            self.fall_asleep(core);
        }
    }

    /// How many batches are on their way.
    pub fn on_their_way(&self) -> usize {
        self.window.len()
    }

    /// From now on it is one: where several are, only the last is known to a log from which they were compacted away, and
    /// the others are refused, as in Kafka.
    pub fn take_care(&mut self) {
        self.careful = true;
    }

    /// Its machine is to stand still once it has sent one more batch.
    pub fn tire(&mut self) {
        self.tired = true;
    }

    pub fn is_asleep(&self, now: u64) -> bool {
        self.tired || now < self.asleep_until
    }

    /// Its machine stands still for so long that what it sent last may be compacted away, and the leader be one who
    /// never had it.
    fn fall_asleep(&mut self, core: &mut Core) {
        core.note(format!(
            "fault producer {} of {:?} stands still",
            self.id, self.key
        ));
        self.tired = false;
        self.asleep_until = core.now + SLEEP;
        for batch in &mut self.window {
            batch.answer = None;
            batch.send_at = self.asleep_until;
        }
        let key = self.key;
        core.later(SLEEP / 2, move |core| super::admin::move_away(core, key));
    }
}

/// A record with a key; a tombstone has its number in a header.
fn push_keyed(builder: &mut RecordBatchBuilder, time: i64, slot: u8, value: u64) {
    let (key, number) = ([slot], value.to_be_bytes());
    match value & TOMBSTONE {
        0 => builder.push(time, Some(&key), Some(&number)),
        _ => builder.push_with_headers(time, Some(&key), None, &[(b"n", Some(&number))]),
    };
}

/// What became of a batch; an acknowledged one is left without values.
fn hear(batch: &mut Batch, core: &mut Core) {
    let Some(answer) = &mut batch.answer else {
        return;
    };
    match answer.try_recv() {
        Ok(Ok(_)) => batch.values.clear(),
        Ok(Err(error)) => {
            if error == ErrorCode::OutOfOrderSequenceNumber {
                batch.refused += 1;
            }
            batch.send_at = core.now + core.rng.random_range(20..150);
        }
        Err(TryRecvError::Closed) => batch.send_at = core.now + 100,
        Err(TryRecvError::Empty) if core.now < batch.sent_at + PATIENCE => return,
        Err(TryRecvError::Empty) => batch.send_at = core.now,
    }
    batch.answer = None;
}
