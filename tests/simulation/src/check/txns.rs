//! Transactions: what their producers were told, and what the logs say of them (X1 to X7).
//!
//! What is committed is read off the committed part of each log, by Kafka's rules for markers written down here a second
//! time: a marker ends all that its producer id has open in that log. Nothing that a coordinator, or a leader's own list of
//! transactions, believes is asked.

mod offsets;
pub use offsets::OffsetAsked;

use super::Checker;
use crate::batches::{Batch, marker_of};
use crate::disk::{Entry, Key};
use std::collections::{BTreeMap, BTreeSet};

/// Where a transaction is in [`Txns::all`].
pub type TxnId = usize;

/// A producer id, and its epoch.
pub type Who = (i64, i16);

/// A transaction that somebody began.
#[derive(Debug)]
struct Txn {
    id: &'static str,
    who: Who,
    /// Its producer asked for a commit.
    asked: bool,
    /// What its producer was told.
    told: Option<bool>,
    /// What the first marker in a log said.
    ended: Option<bool>,
    /// What was acknowledged, and where.
    acked: Vec<(Key, u64)>,
    /// An offset of a group was acknowledged as part of it.
    has_offset: bool,
}

/// The transactions of one log, as far as it is committed.
#[derive(Debug, Default)]
struct Fold {
    /// What is open, by producer id: where, and the values.
    open: BTreeMap<i64, Vec<(usize, u64)>>,
    /// How each record of a transaction ended, by offset.
    ended: BTreeMap<usize, bool>,
    /// The same, by value.
    values: BTreeMap<u64, bool>,
    /// Something was gone when a leader showed it: it may have been a marker.
    blind: bool,
}

impl Fold {
    /// Where what is undecided begins, in a log that begins at `start`: deleted records need no decision.
    fn first_open(&self, start: usize) -> Option<usize> {
        let all = self.open.values().flatten();
        all.map(|(at, _)| *at).filter(|at| *at >= start).min()
    }
}

/// All that was observed of them.
#[derive(Debug, Default)]
pub struct Txns {
    /// Whether there are any in this run.
    pub here: bool,
    all: Vec<Txn>,
    /// Of which transaction a value is.
    of: BTreeMap<u64, TxnId>,
    /// The newest producer of each transactional id that anybody was told of.
    given: BTreeMap<&'static str, Who>,
    /// Values that reached a log first when a newer epoch of their producer had been given out.
    zombies: BTreeSet<u64>,
    folds: BTreeMap<Key, Fold>,
    /// Where a leader showed, since the faults ended, that nothing is undecided.
    pub stable: BTreeSet<Key>,
    /// The newest transaction of each transactional id whose offset was read.
    offsets_read: BTreeMap<&'static str, TxnId>,
    /// Transactions told as committed, as aborted; records of transactions that were read as committed; their offsets that
    /// were read.
    pub counts: [u64; 4],
}

impl Txns {
    /// Somebody begins a transaction.
    pub fn begin(&mut self, id: &'static str, who: Who) -> TxnId {
        let (told, ended, acked) = (None, None, Vec::new());
        self.all.push(Txn {
            id,
            who,
            asked: false,
            told,
            ended,
            acked,
            has_offset: false,
        });
        self.all.len() - 1
    }

    /// Its producer asks for the end of a transaction.
    pub fn asked(&mut self, txn: TxnId, commit: bool) {
        if let Some(known) = self.all.get_mut(txn) {
            known.asked |= commit;
        }
    }

    /// Somebody makes a record of that transaction.
    pub fn made(&mut self, txn: TxnId, value: u64) {
        self.of.insert(value, txn);
    }

    /// A value reached a log for the first time.
    pub(super) fn appended(&mut self, value: u64) {
        let txn = self.of.get(&value).and_then(|txn| self.all.get(*txn));
        if let Some(txn) = txn
            && self
                .given
                .get(txn.id)
                .is_some_and(|newest| *newest > txn.who)
        {
            self.zombies.insert(value);
        }
    }

    /// How a transaction ended, by one of the logs.
    fn close(&mut self, txn: TxnId, value: u64, commit: bool) -> Option<String> {
        let known = self.all.get_mut(txn)?;
        let before = known.ended.replace(commit);
        let (id, who) = (known.id, known.who);
        if commit && !known.asked {
            return Some(format!(
                "X6 transaction {txn} of {id} {who:?} is committed with {value:x}, and nobody asked for that"
            ));
        }
        if before.is_some_and(|before| before != commit) {
            return Some(format!(
                "X5 transaction {txn} of {id} {who:?} is committed ({commit}) with {value:x}, and was not so elsewhere"
            ));
        }
        if known.told.is_some_and(|told| told != commit) {
            return Some(format!(
                "X1 transaction {txn} of {id} {who:?} is committed ({commit}) with {value:x}, and {:?} was told",
                known.told
            ));
        }
        (commit && self.zombies.contains(&value)).then(|| {
            format!("X3 {value:x}, written by {id} {who:?} after a newer epoch was given out, is committed")
        })
    }

    /// More of a log is committed, from `from` on.
    pub(super) fn committed(
        &mut self,
        key: Key,
        from: usize,
        new: &[Option<Entry>],
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, entry) in (from..).zip(new) {
            let Some((_, value)) = *entry else {
                self.folds.entry(key).or_default().blind = true;
                continue;
            };
            if let Some(marker) = marker_of(value) {
                let fold = self.folds.entry(key).or_default();
                let blind = fold.blind;
                for (at, value) in fold.open.remove(&marker.producer).unwrap_or_default() {
                    let fold = self.folds.entry(key).or_default();
                    fold.ended.insert(at, marker.commit);
                    fold.values.insert(value, marker.commit);
                    if let Some(txn) = self.of.get(&value).copied().filter(|_| !blind) {
                        lines.extend(self.close(txn, value, marker.commit));
                    }
                }
            } else if let Some(txn) = self.of.get(&value).and_then(|txn| self.all.get(*txn)) {
                let fold = self.folds.entry(key).or_default();
                fold.open.entry(txn.who.0).or_default().push((at, value));
                self.stable.remove(&key);
            }
        }
        lines
    }
}

impl Checker {
    /// Whether the partition, or one of the transactions topic, lost records: nothing can be said of it then.
    fn is_lossy(&self, key: Key) -> bool {
        let here = self.data.get(&key).is_some_and(super::Data::is_lossy);
        here || self.is_transactions_topic_lossy()
    }

    /// Whether a coordinator may have forgotten an id, and begin it anew.
    fn is_transactions_topic_lossy(&self) -> bool {
        let lost = |(at, data): (&Key, &super::Data)| self.is_internal(*at) && data.is_lossy();
        self.data.iter().any(lost)
    }

    /// A producer is told that it goes on as this one. To be called with all logs looked at: what they hold by now was
    /// written before.
    pub fn producer_given(&mut self, id: &'static str, who: Who) {
        let forgotten = self.is_transactions_topic_lossy();
        let newest = self.txns.given.entry(id).or_insert(who);
        if newest.0 != who.0 && forgotten {
            *newest = who;
        } else if newest.0 != who.0 {
            let line = format!("X3 {id} is given producer {who:?}, and was {newest:?}");
            self.broke(line);
        } else {
            *newest = who.max(*newest);
        }
    }

    /// A producer is told that its transaction is committed, or aborted.
    pub fn txn_told(&mut self, txn: TxnId, commit: bool) {
        let Some(known) = self.txns.all.get_mut(txn) else {
            return;
        };
        let before = known.told.replace(commit);
        if before.is_none() {
            self.txns.counts[usize::from(!commit)] += 1;
        }
        let says = format!(
            "transaction {txn} of {} {:?} is told as committed ({commit})",
            known.id, known.who
        );
        if before.is_some_and(|before| before != commit) {
            self.broke(format!("X5 {says}, and was told as the other"));
        } else if known.ended.is_some_and(|ended| ended != commit) {
            self.broke(format!("X1 {says}, and a marker says the other"));
        }
    }

    /// A record of a transaction was acknowledged.
    pub fn txn_acked(&mut self, key: Key, values: &[u64]) {
        for value in values {
            let txn = self.txns.of.get(value);
            if let Some(txn) = txn.and_then(|txn| self.txns.all.get_mut(*txn)) {
                txn.acked.push((key, *value));
            }
        }
    }

    /// A leader shows where its last stable offset is.
    pub fn stable_to(
        &mut self,
        key: Key,
        node: usize,
        start: usize,
        (stable, high): (usize, usize),
    ) {
        if self.is_lossy(key) {
            return;
        }
        let fold = self.txns.folds.get(&key);
        let open = fold
            .filter(|fold| !fold.blind)
            .and_then(|fold| fold.first_open(start));
        if open.is_some_and(|open| stable > open) || stable > high {
            self.broke(format!(
                "X2 broker {node} shows {key:?} as stable to {stable}, committed to {high}, and {open:?} is open"
            ));
        }
        if open.is_none() && stable == high {
            self.txns.stable.insert(key);
        }
    }

    /// Who reads committed records was given these batches, and these transactions as aborted: a producer id, and where
    /// its first record is. What it makes of that is what it should be.
    pub fn read_committed(
        &mut self,
        key: Key,
        node: usize,
        (read, aborted): (&[Batch], &[(i64, usize)]),
        start: usize,
    ) {
        if self.is_lossy(key) || !self.txns.here {
            return;
        }
        let Some(fold) = self.txns.folds.get(&key).filter(|fold| !fold.blind) else {
            return;
        };
        let known = self.data.get(&key).map_or(0, |data| data.committed.len());
        let mut left: BTreeSet<(usize, i64)> =
            aborted.iter().map(|(who, at)| (*at, *who)).collect();
        let mut skipped = BTreeSet::new();
        let (mut lines, mut count) = (Vec::new(), 0);
        let first_open = fold.first_open(start);
        for batch in read {
            while left.first().is_some_and(|(at, _)| *at < batch.end) {
                skipped.extend(left.pop_first().map(|(_, who)| who));
            }
            if batch.control {
                let aborts = |(_, value): &(usize, u64)| {
                    marker_of(*value).is_some_and(|marker| !marker.commit)
                };
                if batch.records.iter().any(aborts) {
                    skipped.remove(&batch.producer);
                }
                continue;
            }
            let skip = batch.transactional && skipped.contains(&batch.producer);
            for (at, value) in batch.records.iter().filter(|(at, _)| *at < known) {
                let ended = fold.ended.get(at).copied();
                let open = first_open.is_some_and(|open| *at >= open);
                let line = match (batch.transactional, skip, ended) {
                    _ if open => "X2 not decided, or beyond what is not",
                    (true, false, Some(true)) => {
                        count += 1;
                        continue;
                    }
                    (true, true, Some(true)) => "X1 committed, and left out",
                    (true, false, _) => "X2 not committed, and read",
                    _ => continue,
                };
                lines.push(format!(
                    "{line}: {value:x} at {at} of {key:?}, by broker {node}"
                ));
            }
        }
        self.txns.counts[2] += count;
        lines.into_iter().for_each(|line| self.broke(line));
    }

    /// A transaction in which something is undecided, or that nobody showed to be otherwise.
    pub fn undecided(&self) -> Option<String> {
        if !self.txns.here {
            return None;
        }
        let there = |key: &&Key| self.parts.contains_key(&super::name_of(**key));
        let folds = self.txns.folds.keys().filter(there);
        let mut folds = folds.filter(|key| !self.is_lossy(**key));
        let open = folds.find(|key| !self.txns.stable.contains(key))?;
        let first = self
            .txns
            .folds
            .get(open)
            .and_then(|fold| fold.first_open(0));
        Some(format!(
            "X4 {open:?} is not stable to its high watermark; open is {first:?}"
        ))
    }

    /// At the end: all that was acknowledged in what was told as committed is so.
    pub fn all_committed(&mut self) {
        let mut lines = Vec::new();
        for (txn, known) in self.txns.all.iter().enumerate() {
            if known.told != Some(true) {
                continue;
            }
            for (key, value) in &known.acked {
                let fold = self.txns.folds.get(key);
                let is_known =
                    self.parts.contains_key(&super::name_of(*key)) && !self.is_lossy(*key);
                let ended = fold.and_then(|fold| fold.values.get(value));
                if is_known && fold.is_some_and(|fold| !fold.blind) && ended != Some(&true) {
                    lines.push(format!(
                        "X1 {value:x} of {key:?}, of transaction {txn} of {}, told as committed, ended as {ended:?}", known.id
                    ));
                }
            }
        }
        lines.into_iter().for_each(|line| self.broke(line));
    }
}
