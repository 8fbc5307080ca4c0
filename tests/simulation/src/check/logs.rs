//! What a log must hold of what was committed, now that records may go: below a start that someone asked for or
//! that the topic's retention allows (D1 to D4), and what compaction leaves out (K1).

use super::records::name_of;
use super::{Checker, Data};
use crate::disk::{Dropped, Entry, Key, Log};
use leasehold_types::LeaderEpoch;
use std::collections::BTreeMap;

/// In a value: it is a tombstone's.
pub const TOMBSTONE: u64 = 1 << 63;

/// A value's key, in topics whose records have keys; 0 is none.
pub fn slot_of(value: u64) -> u8 {
    (value >> 48) as u8 & 0x7f
}

/// What a partition's topic does with old records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    compacts: bool,
    /// Tombstones may go within a run.
    forgets: bool,
    /// The least that retention by size leaves.
    keeps: Option<usize>,
    /// How old records are, in milliseconds, that retention by time takes.
    ages: Option<i64>,
}

/// Tombstones that are kept for less than this may go within a run, whatever the calendars do.
const LONG: u64 = 3_600_000;

/// What is known of the deletions of a partition.
#[derive(Clone, Debug, Default)]
pub struct Deletions {
    /// No log may begin above this: so far someone asked for it, or the retention allowed it.
    floor: usize,
    /// Someone asked for all that is committed to go.
    all: bool,
    /// Someone was told that all below this is gone, by the leader of that epoch.
    gone: (LeaderEpoch, usize),
}

/// Nobody can have committed so many more than are known of.
const FAR: usize = 500;

impl Deletions {
    /// Whether what was committed at `at` may be gone.
    pub fn may_be(&self, at: usize) -> bool {
        self.all || at < self.floor
    }

    /// What is below `next` may go.
    pub fn allow(&mut self, next: usize) {
        self.floor = self.floor.max(next);
    }
}

/// What is wrong with a log: where, and the number of the promise that its content breaks, unless that is up to
/// whoever looked.
pub struct Lack {
    pub at: usize,
    pub number: Option<&'static str>,
}

impl Lack {
    /// What to say of it, where `otherwise` is the promise that a record is there at all.
    pub fn says(&self, otherwise: &str, data: &Data, log: &Log) -> String {
        let number = self.number.unwrap_or(otherwise);
        let (was, is) = (
            data.committed.get(self.at).copied().flatten(),
            log.get(self.at),
        );
        let (at, start, end) = (self.at, log.start, log.end());
        format!("{number} {was:?} was committed at {at}, and a log of {start}..{end} has {is:?}")
    }
}

/// The first of what was committed below `to` that `log` lacks and must not lack.
pub fn lacks(data: &Data, policy: Policy, log: &Log, to: usize) -> Option<Lack> {
    let lack = |at, number| Some(Lack { at, number });
    for (at, was) in data.committed.iter().take(to).enumerate() {
        let is = log.get(at);
        // What nobody saw cannot be missed.
        let Some(was) = was.filter(|was| is != Some(*was)) else {
            continue;
        };
        if at < log.start {
            if !data.deletions.may_be(at) {
                return lack(at, Some("D1"));
            }
        } else if is.is_some() || at >= log.end() || !policy.compacts {
            return lack(at, None);
        } else if !is_superseded(data, policy, log, at, was) {
            return lack(at, Some("K1"));
        }
    }
    None
}

/// Whether `log` may lack `value`, which was at `at`.
pub fn may_lack(data: &Data, policy: Policy, log: &Log, at: usize, value: u64) -> bool {
    let gone = at < log.start && data.deletions.may_be(at);
    let gap = policy.compacts && (log.start..log.end()).contains(&at) && log.get(at).is_none();
    gone || (gap && is_superseded(data, policy, log, at, (LeaderEpoch::NONE, value)))
}

/// Whether a compaction may leave this out: there is another of its key, or it was the key's end, long ago.
fn is_superseded(data: &Data, policy: Policy, log: &Log, at: usize, (_, value): Entry) -> bool {
    let slot = slot_of(value);
    let last = data.last_of.get(&slot).max(data.was_last_of.get(&slot));
    if last > Some(&at) || (value & TOMBSTONE != 0 && policy.forgets) {
        return true;
    }
    let same = |entry: &Option<Entry>| entry.is_some_and(|(_, value)| slot_of(value) == slot);
    log.records.iter().skip(at + 1).any(same)
}

/// Where each key is last among what is committed.
pub fn last_of(committed: &[Option<Entry>]) -> BTreeMap<u8, usize> {
    let all = committed.iter().enumerate();
    all.filter_map(|(at, entry)| Some((slot_of(entry.as_ref()?.1), at)))
        .collect()
}

impl Checker {
    pub(super) fn policy(&self, key: Key) -> Policy {
        // The coordinators' own logs are never long enough to be compacted.
        let topic = self.topics.get(&name_of(key).0);
        let Some(topic) = topic.filter(|_| !self.is_internal(key)) else {
            return Policy::default();
        };
        let number = |key: &str| {
            topic
                .configs
                .get(key)
                .and_then(|value| value.parse::<u64>().ok())
        };
        let policy = topic.configs.get("cleanup.policy");
        Policy {
            compacts: policy.is_some_and(|policy| policy.contains("compact")),
            forgets: number("delete.retention.ms").is_some_and(|ms| ms < LONG),
            keeps: number("retention.bytes").and_then(|bytes| usize::try_from(bytes).ok()),
            ages: number("retention.ms").and_then(|ms| i64::try_from(ms).ok()),
        }
    }

    /// Whether the records of a partition have keys, of which the last is kept.
    pub fn is_compacted(&self, key: Key) -> bool {
        self.policy(key).compacts
    }

    /// The first file of a log went, where the calendar says `wall`. Retention by size leaves so many bytes at
    /// least, retention by time all files with a record that is young.
    pub fn dropped(&mut self, went: &Dropped, wall: i64) {
        let policy = self.policy(went.key);
        let data = self.data.entry(went.key).or_default();
        let small = policy.keeps.is_some_and(|least| went.left >= least);
        let old = policy.ages.is_some_and(|age| {
            let young = |(at, (epoch, _)): &(usize, Entry)| {
                let time = data.stamps.get(&(*at, *epoch));
                time.is_some_and(|time| *time > wall - age)
            };
            !went.held.iter().any(young)
        });
        if small || old {
            data.deletions.allow(went.next);
        }
    }

    /// Someone asks for the records below `before` to go; -1 stands for all that is committed.
    pub fn asked_to_delete(&mut self, key: Key, before: i64) {
        let data = self.data.entry(key).or_default();
        let (deletions, most) = (&mut data.deletions, data.committed.len() + FAR);
        match usize::try_from(before) {
            Ok(before) if before > most => {}
            Ok(before) => deletions.allow(before),
            Err(_) => deletions.all |= before == -1,
        }
    }

    /// Someone is told that no replica has records below `low` any more. Of those in the ISR, in the epoch of the
    /// leader that says so, that is known.
    pub fn deleted(
        &mut self,
        key: Key,
        node: usize,
        (before, low): (i64, i64),
        starts: &[(usize, usize)],
    ) {
        let data = self.data.entry(key).or_default();
        let epoch = data.leads.get(&node).copied().unwrap_or(LeaderEpoch::NONE);
        if data.loss_pending || data.lossy_since.is_some() {
            return;
        }
        let gone = usize::try_from(low).unwrap_or(0);
        // Who is in the ELR without living is not waited for, as in Kafka, and may lead again with all that it has.
        let part = self.parts.get(&name_of(key));
        let all_were_asked = part.is_some_and(|part| part.elr.is_empty());
        // That more is gone than was asked for is retention's doing, on those who live now: no promise that lasts.
        let asked = usize::try_from(before).map_or(gone, |before| gone.min(before));
        if all_were_asked {
            data.deletions.gone = data.deletions.gone.max((epoch, asked));
        }
        if low < before || before < -1 || gone > data.committed.len() {
            let committed = data.committed.len();
            self.broke(format!("D3 broker {node} says of {key:?} that it is deleted to {low}, asked for is {before}, committed {committed}"));
        }
        for (other, start) in starts {
            if *start < gone {
                self.broke(format!(
                    "D3 broker {node} says that {key:?} is deleted to {low}, and the log of broker {other} begins at {start}"
                ));
            }
        }
    }

    /// Below this no leader may show anything, from `node` on, if that is one now.
    pub fn gone(&self, key: Key, node: usize) -> usize {
        let Some(data) = self.data.get(&key) else {
            return 0;
        };
        let (epoch, gone) = data.deletions.gone;
        let lossy = data.lossy_since.is_some() || data.loss_pending;
        match data.leads.get(&node) {
            Some(leads) if *leads >= epoch && !lossy => gone,
            _ => 0,
        }
    }

    /// A leader gave records from `from` on, or said that they are there.
    pub fn shows(&mut self, key: Key, node: usize, from: usize, gone: usize) {
        if from < gone {
            self.broke(format!(
                "D3 broker {node} has {from} of {key:?}, which someone was told is deleted to {gone}"
            ));
        }
    }

    /// A leader shows `log` as committed to `shown`: it begins no later than that.
    pub(super) fn check_start(&mut self, key: Key, node: usize, log: &Log, shown: usize) {
        if log.start > shown {
            let start = log.start;
            self.broke(format!(
                "D2 the log of {key:?} on broker {node} begins at {start}, committed is {shown}"
            ));
        }
    }

    /// A consumer is told that what it asks for is out of range.
    pub fn out_of_range(&mut self, key: Key, node: usize, from: usize, log: &Log) {
        let data = self.data.entry(key).or_default();
        let here = (log.start..log.end()).contains(&from) && from < data.committed.len();
        if here && data.lossy_since.is_none() {
            let (start, end) = (log.start, log.end());
            self.broke(format!("D4 broker {node} says that {from} of {key:?} is out of range, and its log is {start}..{end}"));
        }
    }

    /// Whether a consumer may be given nothing of `from..to`: all of it was compacted away, or nobody saw it.
    pub fn may_skip(&self, key: Key, from: usize, to: usize) -> bool {
        let policy = self.policy(key);
        let Some(data) = self.data.get(&key) else {
            return false;
        };
        let none = Log::default();
        (from..to).all(|at| match data.committed.get(at) {
            Some(Some(entry)) => policy.compacts && is_superseded(data, policy, &none, at, *entry),
            Some(None) => true,
            None => false,
        })
    }
}
