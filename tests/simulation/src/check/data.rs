//! The data: who appended what, what was shown as committed, what was acknowledged (I4, I7, I8, I9, I10), and
//! what producers and consumers rely on (C3, C5 to C8).

use super::logs::{lacks, last_of, may_lack, slot_of};
use super::records::name_of;
use super::{Checker, Data, Part};
use crate::batches::{Batch, marker_of};
use crate::broker::mail::Question;
use crate::disk::{Key, Log};
use leasehold_types::{Incarnation, LeaderEpoch};

/// Producers from this number on write in transactions, and leave out what they give up.
pub const TRANSACTIONAL: u32 = 0x8000;

/// Whose a value is, and which of its values.
pub fn parts_of(value: u64) -> (u32, u32) {
    (u32::from((value >> 32) as u16), value as u32)
}

impl Checker {
    pub(super) fn effective_min(&self, key: Key) -> usize {
        let at = name_of(key);
        let factor = |part: &Part| part.replicas.len() - part.adding.len();
        let factor = self.parts.get(&at).map_or(1, |part| factor(part).max(1));
        let min = self
            .topics
            .get(&at.0)
            .and_then(|t| t.configs.get("min.insync.replicas"));
        min.and_then(|min| min.parse::<usize>().ok())
            .unwrap_or(self.default_min)
            .min(factor)
    }

    /// A record reached a log at `at`. Nobody but its leader can have been the first to hold it.
    pub fn appended(
        &mut self,
        key: Key,
        by: (usize, Option<Incarnation>),
        at: usize,
        entry: (LeaderEpoch, u64),
    ) {
        let data = self.data.entry(key).or_default();
        let ((epoch, value), (node, Some(life))) = (entry, by) else {
            self.broke(format!(
                "I4 broker {by:?} appends to {key:?} while it is down"
            ));
            return;
        };
        let leads = !data.held.contains_key(&(at, epoch));
        let held = data
            .held
            .entry((at, epoch))
            .or_insert_with(|| (value, Default::default()));
        held.1.insert(node);
        let known = held.0;
        let mut lines = Vec::new();
        if known != value {
            lines.push(format!(
                "I9 {key:?} offset {at} epoch {epoch} holds {known} and, on broker {node}, {value}"
            ));
        }
        if leads {
            self.txns.appended(value);
            let appender = *data.appenders.entry(epoch).or_insert((node, life));
            if appender != (node, life) {
                lines.push(format!(
                    "I4 {appender:?} and {:?} append to {key:?} in epoch {epoch}",
                    (node, life)
                ));
            }
        }
        lines.into_iter().for_each(|line| self.broke(line));
    }

    /// A leader shows `log` as committed to `shown`.
    pub fn high_watermark(
        &mut self,
        key: Key,
        node: usize,
        epoch: LeaderEpoch,
        log: &Log,
        shown: usize,
    ) {
        let policy = self.policy(key);
        let is_internal = self.is_internal(key);
        let data = self.data.entry(key).or_default();
        if data.lossy_since.is_some_and(|since| epoch < since) || data.loss_pending {
            return;
        }
        if let Some(lack) = lacks(data, policy, log, shown) {
            let what = lack.says("I8", data, log);
            self.broke(format!(
                "{what}, that of broker {node}, leader of {key:?} in epoch {epoch}"
            ));
        } else if shown > data.committed.len() {
            let from = data.committed.len();
            let new = (from..shown).map(|at| log.get(at));
            data.committed.extend(new);
            data.committed_in.resize(data.committed.len(), epoch);
            let mut lines = match is_internal {
                true if data.lossy_since.is_some() => Vec::new(),
                true => self.groups.committed(&data.committed[from..]),
                false => in_order(data, from),
            };
            if self.txns.here && !is_internal && data.lossy_since.is_none() {
                lines.extend(self.txns.committed(key, from, &data.committed[from..]));
            }
            lines
                .into_iter()
                .for_each(|line| self.broke(format!("{line} of {key:?}")));
        }
        self.check_start(key, node, log, shown);
    }

    /// A consumer was given records: each is committed, and stays.
    pub fn served(&mut self, key: Key, node: usize, read: &[Batch]) {
        let data = self.data.entry(key).or_default();
        let epoch = data.leads.get(&node).copied();
        if data.loss_pending || data.lossy_since.is_some_and(|since| epoch < Some(since)) {
            return;
        }
        for batch in read {
            for (at, value) in batch.records.iter().copied() {
                let entry = (batch.epoch, value);
                let known = data.committed.get(at).copied();
                // What nobody saw in time may be anything.
                if !matches!(known, Some(None)) && known != Some(Some(entry)) {
                    self.broke(format!("C8 broker {node} gives a consumer {entry:?} at {at} of {key:?}, committed is {known:?}"));
                    return;
                }
                self.consumed += 1;
            }
        }
    }

    /// A leader said that this is where the first record of a time is, or where its log begins, which is now `log`.
    pub fn found(&mut self, key: Key, node: usize, question: Question, offset: i64, log: &Log) {
        let is_internal = self.is_internal(key);
        let Some(data) = self.data.get(&key) else {
            return;
        };
        if data.lossy_since.is_some() || data.loss_pending {
            return;
        }
        let at = usize::try_from(offset).ok();
        let right = match (question, at) {
            // It may have risen since.
            (Question::Earliest, at) => at.is_some_and(|at| at <= log.start),
            // What is beyond was not shown as committed by then, and what is below, or not there, went since. Nobody
            // knows the times of what coordinators write.
            (Question::Time(time), Some(at))
                if !is_internal && at < data.committed.len() && log.get(at).is_some() =>
            {
                let late = |at: &usize| {
                    let epoch = log.get(*at).map(|(epoch, _)| epoch);
                    epoch.is_some_and(|epoch| data.stamps.get(&(*at, epoch)) >= Some(&time))
                };
                (log.start..log.end()).find(late) == Some(at)
            }
            _ => true,
        };
        if !right {
            self.broke(format!(
                "C9 broker {node} answers {question:?} of {key:?} with {offset}"
            ));
        }
    }

    /// A leader begins: everything that was ever shown as committed is in its log.
    pub fn begun(
        &mut self,
        key: Key,
        node: usize,
        life: Incarnation,
        epoch: LeaderEpoch,
        log: &Log,
    ) -> String {
        let policy = self.policy(key);
        let data = self.data.entry(key).or_default();
        data.leads.insert(node, epoch);
        let told = format!(
            "data  broker {node}/{life} leads {}-{} in epoch {epoch}, {}..{}",
            key.0,
            key.1,
            log.start,
            log.end()
        );
        if data.lossy_since.is_some_and(|since| epoch < since) {
            return told;
        }
        if data.loss_pending {
            // Permitted and reported: what is in this log is what there is.
            data.loss_pending = false;
            let held = lacks(data, policy, log, usize::MAX).map(|lack| lack.at);
            let held = held.unwrap_or(data.committed.len());
            data.committed.truncate(held);
            data.committed_in.truncate(held);
            // What was left out for the sake of a record that is lost now is lost as well.
            for (at, was) in data.committed.iter_mut().enumerate() {
                if at >= log.start && log.get(at).is_none() {
                    *was = None;
                    data.unseen = data.unseen.max(Some(at));
                }
            }
            data.last.clear();
            note_last(data, 0);
            for (slot, at) in std::mem::replace(&mut data.last_of, last_of(&data.committed)) {
                let last = data.was_last_of.entry(slot).or_default();
                *last = at.max(*last);
            }
            data.acked
                .retain(|(_, at, value)| log.get(*at).is_some_and(|(_, v)| v == *value));
            return told + ", after a loss";
        }
        // A leader of an old epoch may begin late, where it can commit nothing any more.
        let earlier = data.committed_in.iter().rposition(|&e| e < epoch);
        if let Some(lack) = lacks(data, policy, log, earlier.map_or(0, |n| n + 1)) {
            let what = lack.says("I8", data, log);
            self.broke(format!(
                "{what}, that of broker {node}, which leads {key:?} in epoch {epoch}"
            ));
        }
        self.check_acked(key, node, epoch, log);
        told
    }

    /// Records were acknowledged with acks=all, as lying at `base` and after.
    /// A repeat may be acknowledged by a leader that has not all of it any more: `log` is what it has.
    pub fn acked(
        &mut self,
        key: Key,
        node: usize,
        (base, values): (usize, &[u64]),
        log: &Log,
    ) -> String {
        let min = self.effective_min(key);
        let policy = self.policy(key);
        let data = self.data.entry(key).or_default();
        let epoch = data.leads.get(&node).copied().unwrap_or(LeaderEpoch::NONE);
        let mut lines = Vec::new();
        for (at, &value) in (base..).zip(values) {
            if data.lossy_since.is_none_or(|since| epoch >= since) {
                data.acked.push((epoch, at, value));
            }
            self.acknowledged += 1;
            if may_lack(data, policy, log, at, value) {
                continue;
            }
            // The same batch may have been appended in two epochs; the one that this leader holds is meant.
            let held = data.held.range((at, LeaderEpoch::NONE)..=(at, epoch));
            let meant = held.filter(|(_, (v, nodes))| *v == value && nodes.contains(&node));
            let holders = meant.map(|(_, (_, nodes))| nodes.len()).max().unwrap_or(0);
            if holders < min {
                lines.push(format!("I10 {value:x} at {at} of {key:?} was acknowledged by broker {node} on {holders} replicas of {min}"));
            }
        }
        lines.into_iter().for_each(|line| self.broke(line));
        format!(
            "data  {values:x?} at {base} of {}-{} acknowledged by broker {node}",
            key.0, key.1
        )
    }

    /// A producer whose batch, from `number` on, is refused again and again as out of order wants to begin anew, and
    /// give up `up_to` that. It may where records were lost, or where the last of its records that was acknowledged
    /// before was deleted, so that a log may have taken a later batch of its for its first. Otherwise the refusal is
    /// wrong.
    pub fn gives_up(&mut self, key: Key, producer: u32, (number, up_to): (u32, u32)) {
        let restored = self.restored;
        let data = self.data.entry(key).or_default();
        let acked = data
            .acked
            .iter()
            .map(|(_, at, value)| (parts_of(*value), *at));
        let before = acked.filter(|((id, n), _)| *id == producer && *n < number);
        let last = before.max().map(|(_, at)| at);
        let forgotten = last.is_some_and(|at| data.deletions.may_be(at));
        if forgotten || restored || data.lossy_since.is_some() {
            let all = (number..up_to).map(|n| (producer, n));
            data.given_up.extend(all);
        } else {
            self.broke(format!(
                "C6 number {number} of producer {producer} of {key:?} is refused as out of order, though its last is at {last:?}"
            ));
        }
    }

    /// Every record that was acknowledged before `epoch` is in this log, in its place, unless it may be gone.
    pub fn check_acked(&mut self, key: Key, node: usize, epoch: LeaderEpoch, log: &Log) {
        let policy = self.policy(key);
        let data = self.data.entry(key).or_default();
        let there = |at: usize, value: u64| {
            log.get(at).is_some_and(|(_, v)| v == value) || may_lack(data, policy, log, at, value)
        };
        let mut lost = data.acked.iter();
        let lost = lost.find(|(e, at, value)| *e < epoch && !there(*at, *value));
        if let Some((_, at, value)) = lost.copied() {
            self.broke(format!(
                "C3 {value:x}, acknowledged at {at} of {key:?}, is not in the log of broker {node}"
            ));
        }
    }

    /// A broker is in an ISR: everything that was shown as committed is in its log.
    pub fn joined(&mut self, key: Key, node: usize, log: &Log) {
        let policy = self.policy(key);
        let data = self.data.entry(key).or_default();
        let lack = lacks(data, policy, log, usize::MAX);
        if let Some(lack) = lack.filter(|_| !data.loss_pending) {
            let what = lack.says("I7", data, log);
            self.broke(format!(
                "{what}, that of broker {node}, which is in the ISR of {key:?}"
            ));
        }
    }
}

/// Whether each producer's numbers go up by one in what was committed from `from` on. Where records were lost
/// a producer may have given some up; where its last one is gone, no log need know of it.
fn in_order(data: &mut Data, from: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for at in from..data.committed.len() {
        let Some((_, value)) = data.committed[at] else {
            data.unseen = Some(at);
            continue;
        };
        if marker_of(value).is_some() {
            continue;
        }
        let (producer, number) = parts_of(value);
        let last = data.last.insert(producer, (at, number));
        let before = data.highest.get(&producer).copied();
        data.highest
            .insert(producer, before.max(Some(number)).unwrap_or(number));
        data.last_of.insert(slot_of(value), at);
        let last_at = last.map(|(at, _)| at);
        if data.unseen > last_at || last_at.is_some_and(|at| data.deletions.may_be(at)) {
            // Nobody need have known what came before.
            continue;
        }
        let next = last.map_or(0, |(_, last)| last + 1);
        if number < next {
            lines.push(format!(
                "C5 number {number} of producer {producer} is committed again at {at}"
            ));
        } else if data.lossy_since.is_none()
            && producer < TRANSACTIONAL
            && (next..number).any(|lacks| !may_be_left_out(data, producer, lacks, before, number))
        {
            lines.push(format!(
                "C6 number {number} of producer {producer} is committed at {at}, {next} is not"
            ));
        }
    }
    lines
}

/// Whether the number `lacks` of a producer may be missing before `number`, where the log's last is an earlier one: it
/// was given up, or it was committed once, as `highest` says, when a log that had forgotten the producer took an earlier
/// one again. Then the log refuses what follows, so before `number` its producer must have begun anew.
fn may_be_left_out(
    data: &Data,
    producer: u32,
    lacks: u32,
    highest: Option<u32>,
    number: u32,
) -> bool {
    let given_up = |number| data.given_up.contains(&(producer, number));
    let anew = number.checked_sub(1).is_some_and(given_up);
    given_up(lacks) || (anew && Some(lacks) <= highest)
}

/// Which number of each producer is the last among what is committed from `from` on.
fn note_last(data: &mut Data, from: usize) {
    for (at, entry) in data.committed.iter().enumerate().skip(from) {
        if let Some((_, value)) = entry
            && marker_of(*value).is_none()
        {
            let (producer, number) = parts_of(*value);
            data.last.insert(producer, (at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of one producer, of which all below `floor` was deleted.
    fn log(floor: usize, numbers: &[u32]) -> Data {
        let mut data = Data::default();
        data.deletions.allow(floor);
        let entry = |number: &u32| Some((LeaderEpoch(0), 1 << 32 | u64::from(*number)));
        data.committed = numbers.iter().map(entry).collect();
        data
    }

    #[test]
    fn what_was_committed_before_an_earlier_number_came_again_is_missed_only_without_a_beginning_anew()
     {
        // 2 came again, to a log that had forgotten its producer; 4 is refused then, and given up.
        let numbers = [0, 1, 2, 3, 2, 5];
        let mut anew = log(4, &numbers);
        anew.given_up.insert((1, 4));
        assert_eq!(in_order(&mut anew, 0), [""; 0]);
        assert_eq!(in_order(&mut log(4, &numbers), 0).len(), 1);
        // 4 follows 3, but not in a log whose last is 2.
        assert_eq!(in_order(&mut log(4, &[0, 1, 2, 3, 2, 4]), 0).len(), 1);
        // Never committed, and not given up.
        let mut never = log(3, &[0, 1, 3, 1, 5]);
        never.given_up.extend([(1, 2), (1, 3)]);
        assert_eq!(in_order(&mut never, 0).len(), 1);
    }
}
