//! One transactional id: pure, without clock or I/O.
//!
//! A [`Transaction`] says what a request means for it: a refusal, nothing to do, or the [`Metadata`] that it
//! would have next. The owner stores that, and then tells by [`Transaction::stored`] or
//! [`Transaction::refused`]; until then every other change is refused with CONCURRENT_TRANSACTIONS.
//!
//! Promises (KIP-98, KIP-360, KIP-588, KIP-890):
//! - a producer of an older epoch changes nothing;
//! - in version 2 each end of a transaction brings the next epoch, so that nothing that comes late, neither records nor
//!   a repeated end, can touch the transaction after it; a repeated end gets the same answer;
//! - a transaction is either committed or aborted, and once that is stored it is what happens;
//! - the epoch that a timeout or a new producer fences with is given to nobody.

use super::types::Partitions;
use crate::coordinator::write::Producer;
use leasehold_types::ProducerId;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;

/// "No epoch", as Kafka writes it.
pub const NO_EPOCH: i16 = -1;
/// "No producer", as Kafka writes it.
pub const NO_PRODUCER: ProducerId = ProducerId(-1);

/// Where a transaction stands; the numbers are those of Kafka's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
    Dead = 6,
    /// Never stored, nor shown: here a producer is fenced and its transaction aborted in one step.
    PrepareEpochFence = 7,
}

impl State {
    const ALL: [Self; 8] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
        Self::Dead,
        Self::PrepareEpochFence,
    ];

    /// The state of that number.
    pub fn from_id(id: i8) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// As DescribeTransactions shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
            Self::Dead => "Dead",
            Self::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// How a transaction that is being ended ends.
    pub fn ending(self) -> Option<bool> {
        match self {
            Self::PrepareCommit => Some(true),
            Self::PrepareAbort => Some(false),
            _ => None,
        }
    }
}

/// What is kept of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub producer: ProducerId,
    /// The producer id before its epochs were used up; stored in version 2 only.
    pub last_producer: ProducerId,
    /// The producer id from the completion on, if the epochs are used up; already told to the producer.
    pub next_producer: ProducerId,
    pub epoch: i16,
    /// The epoch that the producer itself had before the last bump; in memory only.
    pub last_epoch: i16,
    pub timeout_ms: i32,
    pub state: State,
    pub partitions: Partitions,
    /// When the transaction got its first partition; -1 if there was none since the last InitProducerId.
    pub started: i64,
    pub updated: i64,
    /// The last transaction was ended in version 2, by its producer: the epoch is the one after that transaction's.
    pub bumped: bool,
}

impl Metadata {
    /// What the producer is to go on with.
    pub fn going_on(&self) -> Producer {
        match self.next_producer {
            NO_PRODUCER => Producer {
                id: self.producer,
                epoch: self.epoch,
            },
            id => Producer { id, epoch: 0 },
        }
    }

    /// The producer as it was before its last transaction ended, where that brought the next epoch.
    fn before(&self) -> Producer {
        let rotated = self.next_producer == NO_PRODUCER && self.epoch == 0;
        match rotated {
            true => Producer {
                id: self.last_producer,
                epoch: i16::MAX - 1,
            },
            false => Producer {
                id: self.producer,
                epoch: self.epoch.saturating_sub(1),
            },
        }
    }
}

/// What a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Refused(ErrorCode),
    /// It is so already.
    Already,
    /// To be stored, then to be answered.
    Store(Metadata),
}

/// What an EndTxn of version 2 means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndVerdict {
    Refused(ErrorCode),
    /// It is so already: a repeat, of which the first answer may have been lost.
    Already,
    /// The epochs of the producer id are used up: ask again with a fresh one.
    NeedsProducerId,
    Store(Metadata),
}

impl From<Verdict> for EndVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Refused(error) => Self::Refused(error),
            Verdict::Already => Self::Already,
            Verdict::Store(next) => Self::Store(next),
        }
    }
}

/// What an InitProducerId means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitVerdict {
    Refused(ErrorCode),
    /// The epochs of the producer id are used up: ask again with a fresh one.
    NeedsProducerId,
    Store(Metadata),
    /// To be stored: it fences the producer and aborts its transaction. The client is to ask again.
    Fence(Metadata),
}

/// A transactional id.
#[derive(Clone, Debug)]
pub struct Transaction {
    now: Metadata,
    /// On its way to the log.
    next: Option<Metadata>,
}

fn exhausted(epoch: i16) -> bool {
    // The last one is kept for fencing.
    epoch >= i16::MAX - 1
}

impl Transaction {
    /// An id that was never used.
    pub fn new(producer: ProducerId, timeout_ms: i32, now: i64) -> Self {
        Self::loaded(Metadata {
            producer,
            last_producer: NO_PRODUCER,
            next_producer: NO_PRODUCER,
            epoch: NO_EPOCH,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: State::Empty,
            partitions: Partitions::new(),
            started: -1,
            updated: now,
            bumped: false,
        })
    }

    /// An id as it was stored.
    pub fn loaded(metadata: Metadata) -> Self {
        Self {
            now: metadata,
            next: None,
        }
    }

    /// As it is stored.
    pub fn metadata(&self) -> &Metadata {
        &self.now
    }

    /// Whether something is on its way to the log.
    pub fn is_changing(&self) -> bool {
        self.next.is_some()
    }

    /// `next` is being stored.
    pub fn storing(&mut self, next: Metadata) {
        self.next = Some(next);
    }

    /// It is stored.
    pub fn stored(&mut self) {
        if let Some(next) = self.next.take() {
            self.now = next;
        }
    }

    /// It is known not to be stored.
    pub fn refused(&mut self) {
        self.next = None;
    }

    fn next(&self, state: State, now: i64) -> Metadata {
        Metadata {
            state,
            updated: now,
            ..self.now.clone()
        }
    }

    /// InitProducerId. `fresh` is a producer id that nobody has.
    pub fn init(
        &self,
        timeout_ms: i32,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
        now: i64,
    ) -> InitVerdict {
        let was = &self.now;
        if self.is_changing() {
            return InitVerdict::Refused(ErrorCode::ConcurrentTransactions);
        }
        // It may be a repeat of the request that rotated the producer id, whose answer was lost.
        let known = |e: &Producer| {
            was.epoch == NO_EPOCH
                || e.id == was.producer
                || *e == was.going_on()
                || (e.id == was.last_producer && exhausted(e.epoch))
        };
        if expected.as_ref().is_some_and(|e| !known(e)) {
            return InitVerdict::Refused(ErrorCode::ProducerFenced);
        }
        match was.state {
            State::PrepareCommit | State::PrepareAbort => {
                InitVerdict::Refused(ErrorCode::ConcurrentTransactions)
            }
            State::Ongoing if !taken_out("a-new-producer-ends-what-is-open") => {
                InitVerdict::Fence(self.fence(now))
            }
            State::Ongoing | State::Empty | State::CompleteCommit | State::CompleteAbort => {
                self.new_epoch(timeout_ms, expected, fresh, now)
            }
            State::Dead | State::PrepareEpochFence => {
                InitVerdict::Refused(ErrorCode::UnknownServerError)
            }
        }
    }

    fn new_epoch(
        &self,
        timeout_ms: i32,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
        now: i64,
    ) -> InitVerdict {
        let was = &self.now;
        let mut next = Metadata {
            timeout_ms,
            partitions: Partitions::new(),
            started: -1,
            bumped: false,
            ..self.next(State::Empty, now)
        };
        if exhausted(was.epoch) && expected.is_none_or(|e| e.epoch == was.epoch) {
            let Some(fresh) = fresh else {
                return InitVerdict::NeedsProducerId;
            };
            next.producer = fresh;
            next.last_producer = was.producer;
            next.epoch = 0;
            next.last_epoch = expected.map_or(NO_EPOCH, |_| was.epoch);
            return InitVerdict::Store(next);
        }
        match expected {
            None => {
                next.epoch = was.epoch.saturating_add(1);
                next.last_epoch = NO_EPOCH;
            }
            Some(e) if was.epoch == NO_EPOCH || e.epoch == was.epoch => {
                next.epoch = was.epoch.saturating_add(1);
                next.last_epoch = was.epoch;
            }
            // A repeat: a new producer would have set this to none.
            Some(e) if e.epoch == was.last_epoch => {}
            Some(_) => return InitVerdict::Refused(ErrorCode::ProducerFenced),
        }
        InitVerdict::Store(next)
    }

    fn fence(&self, now: i64) -> Metadata {
        Metadata {
            epoch: self.now.epoch.saturating_add(1),
            last_epoch: NO_EPOCH,
            // Not by its producer, whose own end is refused from now on.
            bumped: false,
            ..self.next(State::PrepareAbort, now)
        }
    }

    fn check(&self, producer: Producer) -> Result<(), ErrorCode> {
        // It was told of its next id already, and has only to wait for the markers of its last transaction.
        if self.now.next_producer != NO_PRODUCER && producer == self.now.going_on() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        if producer.id != self.now.producer {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if producer.epoch != self.now.epoch && !taken_out("an-older-epoch-changes-nothing") {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(())
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn.
    pub fn add(&self, producer: Producer, partitions: &Partitions, now: i64) -> Verdict {
        if let Err(error) = self.check(producer) {
            return Verdict::Refused(error);
        }
        if self.is_changing() || self.now.state.ending().is_some() {
            return Verdict::Refused(ErrorCode::ConcurrentTransactions);
        }
        let ongoing = self.now.state == State::Ongoing;
        if ongoing && self.holds_all(partitions) {
            return Verdict::Already;
        }
        let mut next = Metadata {
            bumped: false,
            ..self.next(State::Ongoing, now)
        };
        if !ongoing {
            next.started = now;
            next.partitions = Partitions::new();
        }
        for (topic, more) in partitions {
            next.partitions
                .entry(topic.clone())
                .or_default()
                .extend(more);
        }
        Verdict::Store(next)
    }

    /// EndTxn.
    pub fn end(&self, producer: Producer, commit: bool, now: i64) -> Verdict {
        if let Err(error) = self.check(producer) {
            return Verdict::Refused(error);
        }
        if self.is_changing() {
            return Verdict::Refused(ErrorCode::ConcurrentTransactions);
        }
        match (self.now.state, commit) {
            (State::Ongoing, true) => Verdict::Store(self.next(State::PrepareCommit, now)),
            (State::Ongoing, false) => Verdict::Store(self.next(State::PrepareAbort, now)),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => Verdict::Already,
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => {
                Verdict::Refused(ErrorCode::ConcurrentTransactions)
            }
            _ => Verdict::Refused(ErrorCode::InvalidTxnState),
        }
    }

    /// EndTxn of version 2. `fresh` is a producer id that nobody has.
    pub fn end_and_bump(
        &self,
        producer: Producer,
        commit: bool,
        fresh: Option<ProducerId>,
        now: i64,
    ) -> EndVerdict {
        let was = &self.now;
        if self.is_changing() {
            return EndVerdict::Refused(ErrorCode::ConcurrentTransactions);
        }
        let same = producer.id == was.producer && producer.epoch == was.epoch;
        let repeat = was.bumped && producer == was.before();
        let known = match was.state {
            State::PrepareCommit | State::PrepareAbort => repeat,
            State::CompleteCommit | State::CompleteAbort => repeat || same,
            _ => same,
        };
        if !known {
            return EndVerdict::Refused(match self.check(producer) {
                Err(error) => error,
                // What it ended before is ending still.
                Ok(()) => ErrorCode::ConcurrentTransactions,
            });
        }
        let end = |state| self.bump(state, fresh, now);
        match (was.state, commit) {
            (State::Ongoing, true) => end(State::PrepareCommit),
            (State::Ongoing, false) => end(State::PrepareAbort),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) if repeat => {
                EndVerdict::Already
            }
            // Of nothing: the client cannot know whether what it sent before an error got here.
            (State::Empty, false) => end(State::PrepareAbort),
            (State::CompleteCommit | State::CompleteAbort, false) if !repeat => {
                end(State::PrepareAbort)
            }
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => {
                EndVerdict::Refused(ErrorCode::ConcurrentTransactions)
            }
            _ => EndVerdict::Refused(ErrorCode::InvalidTxnState),
        }
    }

    fn bump(&self, state: State, fresh: Option<ProducerId>, now: i64) -> EndVerdict {
        let was = &self.now;
        let mut next = self.next(state, now);
        if exhausted(was.epoch) {
            match fresh {
                Some(fresh) => next.next_producer = fresh,
                None => return EndVerdict::NeedsProducerId,
            }
        }
        next.epoch = was.epoch.saturating_add(1);
        next.last_epoch = was.epoch;
        next.bumped = true;
        if was.state != State::Ongoing {
            next.started = now;
            next.partitions = Partitions::new();
        }
        EndVerdict::Store(next)
    }

    /// The transaction has run for too long: fences its producer and aborts it.
    pub fn time_out(&self, now: i64) -> Option<Metadata> {
        (self.now.state == State::Ongoing && !self.is_changing()).then(|| self.fence(now))
    }

    /// When the transaction will have run for too long.
    pub fn deadline(&self) -> Option<i64> {
        let running = self.now.state == State::Ongoing;
        running.then(|| self.now.started.saturating_add(self.now.timeout_ms.into()))
    }

    /// Every partition has its marker.
    pub fn complete(&self, now: i64) -> Option<Metadata> {
        let state = match self.now.state {
            State::PrepareCommit => State::CompleteCommit,
            State::PrepareAbort => State::CompleteAbort,
            _ => return None,
        };
        let was = &self.now;
        let going_on = was.going_on();
        (!self.is_changing()).then(|| Metadata {
            partitions: Partitions::new(),
            producer: going_on.id,
            epoch: going_on.epoch,
            last_producer: match was.next_producer {
                NO_PRODUCER => was.last_producer,
                _ => was.producer,
            },
            next_producer: NO_PRODUCER,
            ..self.next(state, now)
        })
    }

    /// Whether nobody has used the id for so long that it is forgotten.
    pub fn is_expired(&self, expiration_ms: i64, now: i64) -> bool {
        let idle = matches!(
            self.now.state,
            State::Empty | State::CompleteCommit | State::CompleteAbort
        );
        idle && !self.is_changing() && self.now.updated <= now.saturating_sub(expiration_ms)
    }

    /// What is to be stored of an expired id: nothing; it is dead once that is so.
    pub fn expire(&mut self) {
        self.next = Some(self.next(State::Dead, self.now.updated));
    }

    /// Whether the producer may write to the partitions within its transaction (KIP-890). A change on its
    /// way does not matter: the log looks once more when it appends.
    pub fn verify(&self, producer: Producer) -> Result<(), ErrorCode> {
        self.check(producer)?;
        match self.now.state.ending() {
            Some(_) => Err(ErrorCode::ConcurrentTransactions),
            None => Ok(()),
        }
    }

    /// Whether the partition is in the transaction.
    pub fn holds(&self, topic: &str, partition: i32) -> bool {
        let of_topic = self.now.partitions.get(topic);
        of_topic.is_some_and(|partitions| partitions.contains(&partition))
    }

    fn holds_all(&self, partitions: &Partitions) -> bool {
        partitions
            .iter()
            .all(|(topic, wanted)| wanted.iter().all(|p| self.holds(topic, *p)))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
