//! The data: who appended what, what was shown as committed, what was acknowledged (I4, I7, I8, I9, I10).

use super::Checker;
use super::records::name_of;
use crate::disk::Key;
use leasehold_types::{Incarnation, LeaderEpoch};

impl Checker {
    fn effective_min(&self, key: Key) -> usize {
        let at = name_of(key);
        let factor = self.parts.get(&at).map_or(1, |p| p.replicas.len().max(1));
        let min = self
            .topics
            .get(&at.0)
            .and_then(|t| t.configs.get("min.insync.replicas"));
        min.and_then(|min| min.parse::<usize>().ok())
            .unwrap_or(1)
            .min(factor)
    }

    /// A record was appended at `at`, by its leader or by a follower.
    pub fn appended(
        &mut self,
        key: Key,
        node: usize,
        life: Incarnation,
        leads: bool,
        at: usize,
        entry: (LeaderEpoch, u64),
    ) {
        let data = self.data.entry(key).or_default();
        let (epoch, value) = entry;
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

    /// A leader shows `log` as committed.
    pub fn high_watermark(
        &mut self,
        key: Key,
        node: usize,
        epoch: LeaderEpoch,
        log: &[(LeaderEpoch, u64)],
    ) {
        let data = self.data.entry(key).or_default();
        if data.lossy_since.is_some_and(|since| epoch < since) || data.loss_pending {
            return;
        }
        let shared = log.len().min(data.committed.len());
        let parting = (0..shared).find(|&n| log[n] != data.committed[n]);
        if let Some(n) = parting {
            let (was, is) = (data.committed[n], log[n]);
            self.broke(format!("I8 broker {node}, leader of {key:?} in epoch {epoch}, shows {is:?} at {n}, where {was:?} was committed"));
        } else if log.len() > shared {
            let from = data.committed.len();
            data.committed.extend_from_slice(&log[from..]);
            data.committed_in.resize(data.committed.len(), epoch);
        }
    }

    /// A leader begins: everything that was ever shown as committed is in its log.
    pub fn begun(
        &mut self,
        key: Key,
        node: usize,
        life: Incarnation,
        epoch: LeaderEpoch,
        log: &[(LeaderEpoch, u64)],
    ) -> String {
        let data = self.data.entry(key).or_default();
        let held = log
            .iter()
            .zip(&data.committed)
            .take_while(|(a, b)| a == b)
            .count();
        let told = format!(
            "data  broker {node}/{life} leads {}-{} in epoch {epoch}, {} records",
            key.0,
            key.1,
            log.len()
        );
        if data.lossy_since.is_some_and(|since| epoch < since) {
            return told;
        }
        if data.loss_pending {
            // Permitted and reported: what is in this log is what there is.
            data.loss_pending = false;
            data.committed.truncate(held);
            data.committed_in.truncate(held);
            data.acked
                .retain(|(_, at, value)| log.get(*at).is_some_and(|(_, v)| v == value));
            return told + ", after a loss";
        }
        // A leader of an old epoch may begin late, where it can commit nothing any more.
        let earlier = data.committed_in.iter().rposition(|&e| e < epoch);
        if held < earlier.map_or(0, |n| n + 1) {
            let (missing, has) = (data.committed[held], log.get(held).copied());
            self.broke(format!("I8 broker {node} leads {key:?} in epoch {epoch} with {has:?} at {held}, where {missing:?} was committed"));
        }
        self.check_acked(key, node, epoch, log);
        told
    }

    /// A record was acknowledged with acks=all.
    pub fn acked(
        &mut self,
        key: Key,
        node: usize,
        epoch: LeaderEpoch,
        at: usize,
        value: u64,
    ) -> String {
        self.acknowledged += 1;
        let min = self.effective_min(key);
        let data = self.data.entry(key).or_default();
        data.acked.push((epoch, at, value));
        let holders = data.held.get(&(at, epoch)).map_or(0, |held| held.1.len());
        if holders < min {
            self.broke(format!("I10 {value} at {at} of {key:?} was acknowledged by broker {node} on {holders} replicas of {min}"));
        }
        format!(
            "data  {value} at {at} of {}-{} is acknowledged",
            key.0, key.1
        )
    }

    /// Every record that was acknowledged before `epoch` is in this log, in its place.
    pub fn check_acked(
        &mut self,
        key: Key,
        node: usize,
        epoch: LeaderEpoch,
        log: &[(LeaderEpoch, u64)],
    ) {
        let data = self.data.entry(key).or_default();
        let there = |at: usize, value: u64| log.get(at).is_some_and(|(_, v)| *v == value);
        let mut lost = data.acked.iter();
        let lost = lost.find(|(e, at, value)| *e < epoch && !there(*at, *value));
        if let Some((_, at, value)) = lost.copied() {
            self.broke(format!(
                "C3 {value}, acknowledged at {at} of {key:?}, is not in the log of broker {node}"
            ));
        }
    }

    /// A broker joined an ISR: everything that was shown as committed is in its log.
    pub fn joined(&mut self, key: Key, node: usize, log: &[(LeaderEpoch, u64)]) {
        let data = self.data.entry(key).or_default();
        let held = log
            .iter()
            .zip(&data.committed)
            .take_while(|(a, b)| a == b)
            .count();
        if held < data.committed.len() && !data.loss_pending {
            let missing = data.committed[held];
            self.broke(format!("I7 broker {node} joins the ISR of {key:?} without {missing:?} at {held}, which was committed"));
        }
    }
}
