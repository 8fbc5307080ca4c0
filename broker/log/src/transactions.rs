//! Which transactions are open in a partition, and where the last stable offset lies (KIP-98).
//!
//! The last stable offset is the first offset of a transaction whose end is not known to be committed: it
//! is open, or its marker lies at or above the high watermark, from where another leader may yet lose it.
//! Below it nothing changes any more for whoever reads committed records.
//!
//! And who may open one (KIP-890): a batch that would begin a transaction must bring a guard, which is given
//! before the transaction coordinator is asked and is void as soon as a marker or a first batch of that
//! producer is appended. So an answer that is older than a marker begins nothing.

use crate::aborted::AbortedTxn;
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, ProducerId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

/// Stands for one question to the transaction coordinator; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// Begins nothing: for an epoch that is older than another's.
const VOID: VerificationGuard = VerificationGuard(0);

/// A producer of whom the coordinator is being asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    guard: VerificationGuard,
    epoch: i16,
    /// What was sent first must be appended first.
    lowest_sequence: i32,
    since_ms: i64,
}

/// What an appended batch means for the transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Nothing.
    Nothing,
    /// A producer's first batch of a transaction.
    Began {
        producer: ProducerId,
        epoch: i16,
        first: Offset,
    },
    /// A marker; `first` if there was something to end.
    Ended {
        producer: ProducerId,
        first: Option<Offset>,
        marker: Offset,
        committed: bool,
    },
}

/// The transactions of one partition: pure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transactions {
    /// By first offset.
    open: BTreeMap<Offset, ProducerId>,
    epochs: HashMap<ProducerId, i16>,
    /// Those that have ended, by the marker's offset, with the first: as long as that may be lost.
    ended: BTreeMap<Offset, Offset>,
    asked: HashMap<ProducerId, Asked>,
    guards: u64,
}

impl Transactions {
    /// Takes note of what was appended; a transaction that was aborted is returned.
    pub fn note(&mut self, noted: Noted) -> Option<AbortedTxn> {
        match noted {
            Noted::Nothing => None,
            Noted::Began {
                producer,
                epoch,
                first,
            } => {
                self.asked.remove(&producer);
                self.open.insert(first, producer);
                self.epochs.insert(producer, epoch);
                None
            }
            Noted::Ended {
                producer,
                first,
                marker,
                committed,
            } => {
                self.asked.remove(&producer);
                self.epochs.remove(&producer);
                let first = first?;
                self.open.remove(&first);
                self.ended.insert(marker, first);
                (!committed).then(|| AbortedTxn {
                    producer_id: producer,
                    first_offset: first,
                    last_offset: marker,
                    last_stable_offset: self.first_open().unwrap_or(Offset(marker.0 + 1)),
                })
            }
        }
    }

    /// What was read from the log anew takes the place of what was known. Guards are void.
    pub fn replace(&mut self, known: Self) {
        *self = Self {
            guards: self.guards,
            ..known
        };
    }

    /// What is open, and has ended, as a snapshot had it.
    pub fn restored(
        open: impl Iterator<Item = (ProducerId, i16, Offset)>,
        ended: BTreeMap<Offset, Offset>,
    ) -> Self {
        let mut transactions = Self {
            ended,
            ..Self::default()
        };
        for (producer, epoch, first) in open {
            transactions.note(Noted::Began {
                producer,
                epoch,
                first,
            });
        }
        transactions
    }

    /// The first offset that an open transaction holds.
    pub fn first_open(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// Those that have ended, by the marker's offset, as far as it is not known to be committed.
    pub fn ended(&self) -> &BTreeMap<Offset, Offset> {
        &self.ended
    }

    /// The last stable offset; forgets what has ended below the high watermark.
    pub fn last_stable(&mut self, high_watermark: Offset) -> Offset {
        let settled = |(marker, _): (&Offset, &Offset)| *marker < high_watermark;
        if self.ended.first_key_value().is_some_and(settled) {
            self.ended = self.ended.split_off(&high_watermark);
        }
        let unsure = self.ended.values().min().copied();
        let open = self.first_open();
        let first = open.into_iter().chain(unsure).min();
        first.map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// The first offset that is not decided, whatever the high watermark.
    fn first_unstable(&self) -> i64 {
        let first = self
            .first_open()
            .into_iter()
            .chain(self.ended.values().min().copied());
        first.min().map_or(i64::MAX, |first| first.0)
    }

    /// A guard for a batch of `producer`; `None` if its transaction is open: then none is needed.
    pub fn ask(
        &mut self,
        producer: ProducerId,
        epoch: i16,
        sequence: i32,
        now_ms: i64,
    ) -> Option<VerificationGuard> {
        if self.is_open(producer, epoch) {
            return None;
        }
        let guards = &mut self.guards;
        let mut fresh = || {
            *guards += 1;
            Asked {
                guard: VerificationGuard(*guards),
                epoch,
                lowest_sequence: sequence,
                since_ms: now_ms,
            }
        };
        let asked = self.asked.entry(producer).or_insert_with(&mut fresh);
        if asked.epoch < epoch {
            *asked = fresh();
        } else if asked.epoch > epoch {
            return Some(VOID);
        }
        asked.lowest_sequence = asked.lowest_sequence.min(sequence);
        Some(asked.guard)
    }

    /// Whether the producer has an open transaction in this epoch.
    fn is_open(&self, producer: ProducerId, epoch: i16) -> bool {
        self.epochs.get(&producer) == Some(&epoch)
    }

    /// The lowest sequence for which the producer's guard was given; `None` if the guard is void.
    pub fn guarded(
        &self,
        producer: ProducerId,
        epoch: i16,
        guard: Option<VerificationGuard>,
    ) -> Option<i32> {
        let asked = self.asked.get(&producer)?;
        let holds = Some(asked.guard) == guard && asked.epoch == epoch;
        holds.then_some(asked.lowest_sequence)
    }

    /// The coordinator said no: nobody comes back with this guard.
    pub fn refused(&mut self, producer: ProducerId, guard: VerificationGuard) {
        if self
            .asked
            .get(&producer)
            .is_some_and(|asked| asked.guard == guard)
        {
            self.asked.remove(&producer);
        }
    }

    /// This log takes the place of another with the same records: whoever was given a guard there comes back with it here, and
    /// no guard is given twice.
    pub fn take_over_guards(&mut self, former: &Self) {
        self.asked = former.asked.clone();
        self.guards = self.guards.max(former.guards);
    }

    /// Forgets the guards that nobody came back with.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let oldest = now_ms.saturating_sub(expiration_ms);
        self.asked.retain(|_, asked| asked.since_ms >= oldest);
    }
}

/// [`Transactions`] where readers look at them: without a lock as long as there are none.
#[derive(Default)]
pub(crate) struct Stability {
    first: FirstUnstable,
    transactions: Mutex<Transactions>,
}

/// The first offset that is not decided.
struct FirstUnstable(AtomicI64);

impl Default for FirstUnstable {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl Stability {
    /// Of a log that was just opened.
    pub fn new(transactions: Transactions) -> Self {
        let stability = Self::default();
        stability.change(|t| *t = transactions);
        stability
    }

    /// Changes the transactions. To be called before readers see the log end that goes with it.
    pub fn change<R>(&self, change: impl FnOnce(&mut Transactions) -> R) -> R {
        let mut transactions = self.transactions.lock();
        let result = change(&mut transactions);
        self.first
            .0
            .store(transactions.first_unstable(), Ordering::Release);
        result
    }

    /// Looks at the transactions.
    pub fn look<R>(&self, look: impl FnOnce(&Transactions) -> R) -> R {
        look(&self.transactions.lock())
    }

    /// How many transactions are open.
    pub fn open_count(&self) -> usize {
        match self.nothing_undecided() {
            true => 0,
            false => self.look(|transactions| transactions.open.len()),
        }
    }

    fn nothing_undecided(&self) -> bool {
        self.first.0.load(Ordering::Acquire) == i64::MAX
    }

    /// The last stable offset below this high watermark.
    pub fn last_stable(&self, high_watermark: Offset) -> Offset {
        if self.nothing_undecided() {
            return high_watermark;
        }
        self.change(|transactions| transactions.last_stable(high_watermark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ProducerId = ProducerId(1);
    const TWO: ProducerId = ProducerId(2);

    fn began(producer: ProducerId, first: i64) -> Noted {
        Noted::Began {
            producer,
            epoch: 0,
            first: Offset(first),
        }
    }

    fn ended(producer: ProducerId, first: Option<i64>, marker: i64) -> Noted {
        Noted::Ended {
            producer,
            first: first.map(Offset),
            marker: Offset(marker),
            committed: true,
        }
    }

    #[test]
    fn guards_hold_in_the_log_that_takes_the_place_of_the_one_that_gave_them_and_are_given_once() {
        let (mut former, mut log) = (Transactions::default(), Transactions::default());
        former.ask(TWO, 0, 0, 0);
        let guard = former.ask(ONE, 0, 3, 0);
        log.take_over_guards(&former);
        assert_eq!(log.guarded(ONE, 0, guard), Some(3));
        log.note(ended(ONE, None, 9));
        assert_eq!(log.guarded(ONE, 0, guard), None);
        let next = log.ask(ONE, 0, 0, 0);
        assert!(next.is_some() && next != guard);
        assert_eq!(log.guarded(ONE, 0, guard), None);
    }

    #[test]
    fn the_last_stable_offset_is_where_the_first_undecided_transaction_begins() {
        let stability = Stability::default();
        let lso = |hw| stability.last_stable(Offset(hw)).0;
        let note = |noted| stability.change(|t| t.note(noted));
        assert_eq!(lso(5), 5);
        note(began(ONE, 3));
        note(began(TWO, 6));
        assert_eq!((lso(2), lso(3), lso(9)), (2, 3, 3));
        note(ended(ONE, Some(3), 9));
        assert_eq!(lso(9), 3, "its marker is not committed");
        assert_eq!(lso(10), 6);
        note(ended(TWO, Some(6), 10));
        assert_eq!((lso(10), lso(11), lso(20)), (6, 11, 20));
        note(ended(TWO, None, 20));
        assert_eq!(lso(20), 20, "there was nothing to end");
    }

    #[test]
    fn a_guard_is_void_once_a_marker_or_a_first_batch_was_appended() {
        let mut t = Transactions::default();
        let first = t.ask(ONE, 0, 4, 0).unwrap();
        assert_eq!(
            t.ask(ONE, 0, 2, 0),
            Some(first),
            "one question, many batches"
        );
        assert_eq!(t.guarded(ONE, 0, Some(first)), Some(2));
        assert_eq!(t.guarded(TWO, 0, Some(first)), None);
        assert_eq!(t.guarded(ONE, 0, None), None);
        t.note(ended(ONE, None, 7));
        assert_eq!(t.guarded(ONE, 0, Some(first)), None);
        let second = t.ask(ONE, 0, 2, 0).unwrap();
        assert_ne!(second, first);
        t.note(began(ONE, 8));
        assert_eq!(t.guarded(ONE, 0, Some(second)), None);
        assert_eq!(t.ask(ONE, 0, 3, 0), None, "it is open");
        let newer = t.ask(ONE, 1, 0, 0).unwrap();
        assert_eq!(t.ask(ONE, 0, 3, 0), None);
        t.note(ended(ONE, Some(8), 9));
        assert_eq!(t.guarded(ONE, 1, Some(newer)), None);
    }

    #[test]
    fn a_newer_epoch_asks_anew_and_silence_is_forgotten() {
        let mut t = Transactions::default();
        let old = t.ask(ONE, 0, 4, 100).unwrap();
        let new = t.ask(ONE, 1, 0, 100).unwrap();
        assert_ne!(old, new);
        let late = t.ask(ONE, 0, 4, 100);
        assert_eq!(t.guarded(ONE, 0, late), None);
        assert_eq!(t.guarded(ONE, 0, Some(old)), None);
        t.refused(ONE, old);
        t.expire(200, 100);
        assert_eq!(t.guarded(ONE, 1, Some(new)), Some(0));
        t.expire(201, 100);
        assert_eq!(t.guarded(ONE, 1, Some(new)), None);
        let new = t.ask(ONE, 1, 0, 300).unwrap();
        t.refused(ONE, new);
        assert_eq!(t.guarded(ONE, 1, Some(new)), None);
    }
}
