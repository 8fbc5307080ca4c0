//! All transactional ids of one `__transaction_state` partition in one leader epoch: pure, like the
//! transactions in it.
//!
//! What a call wants stored comes out as [`Write`]s, in the order in which they must be appended; the owner
//! reports each of them as [`Shard::written`]. Answers that depend on a write come out after it, and so do
//! the [`Ending`]s whose markers have to be written; the owner reports those as [`Shard::ended`].
//!
//! Promises:
//! - every request is answered within [`Settings::write_timeout_ms`], stored or not; what is stored later
//!   still counts, and nothing else is begun for that id meanwhile;
//! - a transaction whose end is stored is carried to its markers, by every later shard if need be.

mod queries;
mod upkeep;
mod writes;

#[cfg(test)]
mod tests;

use super::state::{EndVerdict, InitVerdict, Metadata, Transaction, Verdict};
use super::types::*;
use crate::coordinator::timer::TimerQueue;
use crate::coordinator::write::{Producer, Write, WriteId};
use crate::coordinator::{Now, Token};
use leasehold_types::ProducerId;
use leasehold_types::seams::{HashMap, taken_out};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// The broker's settings as far as a shard obeys them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `transaction.max.timeout.ms`.
    pub max_timeout_ms: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub abort_interval_ms: u64,
    /// `transactional.id.expiration.ms`.
    pub expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub expiration_interval_ms: u64,
    /// How long a client waits for a write.
    pub write_timeout_ms: u64,
}

/// An answer to somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Init(InitAnswer),
    /// To AddPartitionsToTxn.
    Changed(ErrorCode),
    Ended(EndAnswer),
}

/// What calls want done.
#[derive(Debug, Default)]
pub struct Output {
    pub replies: Vec<(Token, Reply)>,
    pub writes: Vec<Write>,
    pub endings: Vec<Ending>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Timer {
    /// A write was not stored in time.
    Write(WriteId),
    /// The completion of a transaction was refused by the log.
    Complete(Arc<str>),
    /// Look for transactions that have timed out.
    TimedOut,
    /// Look for ids that nobody has used for long.
    Expired,
}

/// Who waits for a write, and what they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Nobody,
    Init(Token, InitAnswer),
    Change(Token),
    End(Token, Producer),
}

#[derive(Debug)]
struct Pending {
    id: Arc<str>,
    waits: Waits,
}

/// The transactional ids of one partition.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    transactions: HashMap<Arc<str>, Transaction>,
    timers: TimerQueue<Timer>,
    /// When transactions will have run for too long, on the wall clock.
    deadlines: TimerQueue<Arc<str>>,
    writes: HashMap<WriteId, Pending>,
    next_write: u64,
}

impl Shard {
    /// The shard as its log tells.
    pub fn new(
        settings: Settings,
        loaded: HashMap<String, Metadata>,
        now: Now,
        out: &mut Output,
    ) -> Self {
        let mut shard = Self {
            settings,
            transactions: HashMap::default(),
            timers: TimerQueue::default(),
            deadlines: TimerQueue::default(),
            writes: HashMap::default(),
            next_write: 0,
        };
        for (id, metadata) in loaded {
            let id: Arc<str> = id.into();
            let transaction = Transaction::loaded(metadata);
            shard.transactions.insert(id.clone(), transaction);
            if !taken_out("the-next-coordinator-carries-on") {
                shard.changed(&id, out);
            }
        }
        shard.set_check(Timer::TimedOut, now);
        shard.set_check(Timer::Expired, now);
        shard
    }

    /// How many transactional ids there are.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// When [`Shard::tick`] is to be called next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    fn set_check(&mut self, timer: Timer, now: Now) {
        let interval = match timer {
            Timer::Expired => self.settings.expiration_interval_ms,
            _ => self.settings.abort_interval_ms,
        };
        self.timers.set(timer, now.mono + interval.max(1));
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now, out: &mut Output) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Write(id) => self.write_overdue(id, out),
                Timer::Complete(id) => self.complete(&id, now, out),
                Timer::TimedOut => {
                    self.abort_timed_out(now, out);
                    self.set_check(Timer::TimedOut, now);
                }
                Timer::Expired => {
                    self.forget_expired(now, out);
                    self.set_check(Timer::Expired, now);
                }
            }
        }
    }

    /// InitProducerId; the answer comes under `token`. `fresh` is a producer id that nobody has.
    pub fn init(
        &mut self,
        request: &InitRequest,
        fresh: Option<ProducerId>,
        token: Token,
        now: Now,
        out: &mut Output,
    ) {
        let answer = |answer| (token, Reply::Init(answer));
        if request.timeout_ms <= 0 || request.timeout_ms > self.settings.max_timeout_ms {
            let error = ErrorCode::InvalidTransactionTimeout;
            return out.replies.push(answer(InitAnswer::Refused(error)));
        }
        let id = request.transactional_id.as_str();
        if !self.transactions.contains_key(id) {
            let Some(fresh) = fresh else {
                return out.replies.push(answer(InitAnswer::NeedsProducerId));
            };
            let new = Transaction::new(fresh, request.timeout_ms, now.wall);
            self.transactions.insert(id.into(), new);
        }
        let Some((id, transaction)) = self.transactions.get_key_value(id) else {
            return;
        };
        let id = id.clone();
        let verdict = transaction.init(request.timeout_ms, request.expected, fresh, now.wall);
        match verdict {
            InitVerdict::Refused(error) => out.replies.push(answer(InitAnswer::Refused(error))),
            InitVerdict::NeedsProducerId => out.replies.push(answer(InitAnswer::NeedsProducerId)),
            InitVerdict::Store(next) => {
                let done = InitAnswer::Done(Producer {
                    id: next.producer,
                    epoch: next.epoch,
                });
                self.store(&id, next, Waits::Init(token, done), now, out);
            }
            InitVerdict::Fence(next) => {
                let again = InitAnswer::Refused(ErrorCode::ConcurrentTransactions);
                self.store(&id, next, Waits::Init(token, again), now, out);
            }
        }
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn; the answer comes under `token`.
    pub fn add(&mut self, request: &AddRequest, token: Token, now: Now, out: &mut Output) {
        let id = &request.transactional_id;
        self.change(id, token, now, out, |transaction| {
            transaction.add(request.producer, &request.partitions, now.wall)
        });
    }

    /// EndTxn; the answer comes under `token`. `fresh` is a producer id that nobody has.
    pub fn end(
        &mut self,
        request: &EndRequest,
        fresh: Option<ProducerId>,
        token: Token,
        now: Now,
        out: &mut Output,
    ) {
        let mut reply = |answer| out.replies.push((token, Reply::Ended(answer)));
        let id = request.transactional_id.as_str();
        let Some((id, transaction)) = self.transactions.get_key_value(id) else {
            return reply(EndAnswer::Refused(ErrorCode::InvalidProducerIdMapping));
        };
        let id = id.clone();
        let (producer, commit) = (request.producer, request.commit);
        let verdict = match request.bump {
            true => transaction.end_and_bump(producer, commit, fresh, now.wall),
            false => transaction.end(producer, commit, now.wall).into(),
        };
        match verdict {
            EndVerdict::Refused(error) => reply(EndAnswer::Refused(error)),
            EndVerdict::NeedsProducerId => reply(EndAnswer::NeedsProducerId),
            EndVerdict::Already => reply(EndAnswer::Done(transaction.metadata().going_on())),
            EndVerdict::Store(next) => {
                let mut waits = Waits::End(token, next.going_on());
                if taken_out("an-end-is-told-when-stored") {
                    reply(EndAnswer::Done(next.going_on()));
                    waits = Waits::Nobody;
                }
                self.store(&id, next, waits, now, out);
            }
        }
    }

    fn change(
        &mut self,
        id: &str,
        token: Token,
        now: Now,
        out: &mut Output,
        judge: impl FnOnce(&Transaction) -> Verdict,
    ) {
        let mut reply = |error| out.replies.push((token, Reply::Changed(error)));
        let Some((id, transaction)) = self.transactions.get_key_value(id) else {
            return reply(ErrorCode::InvalidProducerIdMapping);
        };
        let id = id.clone();
        match judge(transaction) {
            Verdict::Refused(error) => reply(error),
            Verdict::Already => reply(ErrorCode::None),
            Verdict::Store(next) => self.store(&id, next, Waits::Change(token), now, out),
        }
    }

    /// The markers of an ending are written, in every partition that there still is.
    pub fn ended(&mut self, id: &Arc<str>, producer: Producer, now: Now, out: &mut Output) {
        let current = self.transactions.get(id).map(Transaction::metadata);
        if current.is_some_and(|m| (m.producer, m.epoch) == (producer.id, producer.epoch)) {
            self.complete(id, now, out);
        }
    }

    fn complete(&mut self, id: &Arc<str>, now: Now, out: &mut Output) {
        if let Some(next) = self.transactions.get(id).and_then(|t| t.complete(now.wall)) {
            self.store(id, next, Waits::Nobody, now, out);
        }
    }
}
