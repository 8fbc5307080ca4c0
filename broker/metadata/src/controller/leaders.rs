//! Leaders outside the ordinary: preferred ones, the longest log after a loss, and on request.

use super::pace::in_turn;
use super::{At, Controller};
use crate::image::Partition;
use crate::rpc::{ElectionKind, Outcome, codes};
use leasehold_types::BrokerId;
use std::collections::BTreeMap;

impl Controller {
    /// Gives leadership back to the first of the assignment where that broker has been back long enough.
    pub(super) fn restore_preferred_leaders(&mut self) {
        let run = self.clock.run();
        self.preferred_due = run + self.settings.preferred_leader_check_ms.max(1);
        if !self.settings.auto_leader_rebalance {
            return;
        }
        let settled = |id: BrokerId| {
            let delay = self.settings.preferred_leader_delay_ms;
            let known = self
                .image
                .broker(id)
                .is_some_and(|b| b.is_eligible() && !b.cordoned);
            known
                && self
                    .sessions
                    .get(&id)
                    .is_some_and(|s| run >= s.unfenced_at + delay)
        };
        let mut wanted: Vec<(At, BrokerId)> = Vec::new();
        'all: for topic in self.image.topics.values() {
            for (number, p) in (0..).zip(&topic.partitions) {
                if wanted.len() == self.settings.max_restored_per_check {
                    self.preferred_due = run + 100;
                    break 'all;
                }
                // Where replicas move, who leads is settled with the end of that.
                if !(p.draining || p.balancing)
                    && let Some(preferred) = preferred(p)
                    && p.leader.is_some_and(|leader| leader != preferred)
                    && settled(preferred)
                {
                    wanted.push(((topic.id, number), preferred));
                }
            }
        }
        let turns = in_turn(wanted.iter().map(|(at, _)| *at));
        let wanted: BTreeMap<At, BrokerId> = wanted.into_iter().collect();
        for at in turns {
            if !self.may_change_leader() {
                let again = self.pace.waits_until().unwrap_or(run);
                self.preferred_due = self.preferred_due.min(again);
                return;
            }
            let Some(&leader) = wanted.get(&at) else {
                continue;
            };
            let why = format!("broker {leader} is preferred and has been back long enough");
            if self.change(at, &why, |edit| edit.new.leader = Some(leader)) {
                self.count_change();
            }
        }
    }

    /// Where all who had every record may have lost some: once all of them are back and every live
    /// replica has told how far its log goes (or after the timeout), the longest leads.
    pub(super) fn find_longest_logs(&mut self) {
        let run = self.clock.run();
        let unsure: Vec<At> = self.index.unsure.iter().copied().collect();
        self.unsure_since
            .retain(|at, _| self.index.unsure.contains(at));
        for at in unsure {
            let since = *self.unsure_since.entry(at).or_insert(run);
            let overdue = run - since >= self.settings.unclean_recovery_timeout_ms;
            if let Some(leader) = self.longest_log(at, overdue) {
                let why = format!(
                    "all in-sync replicas may have lost data; broker {leader} has the longest log"
                );
                self.change(at, &why, |edit| edit.elect_unclean(leader));
            }
        }
    }

    fn longest_log(&self, at: At, overdue: bool) -> Option<BrokerId> {
        let p = self.image.partition(&at.0, at.1)?;
        let end = |b: BrokerId| {
            self.sessions
                .get(&b)
                .and_then(|s| s.log_ends.get(&at).copied())
        };
        let live: Vec<BrokerId> = p
            .replicas
            .iter()
            .copied()
            .filter(|&b| self.image.may_lead(p, b))
            .collect();
        let alone = p.replicas.len() == 1;
        let complete =
            p.lossy.iter().all(|b| live.contains(b)) && live.iter().all(|&b| end(b).is_some());
        if !(alone || complete || overdue) {
            return None;
        }
        // The greatest; of equals the first in assignment order.
        live.into_iter().rev().max_by_key(|&b| end(b))
    }

    /// ElectLeaders, for one partition.
    pub(super) fn elect_on_request(&mut self, at: At, kind: ElectionKind) -> Outcome {
        let Some(p) = self.image.partition(&at.0, at.1).cloned() else {
            return Outcome::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, "no such partition");
        };
        match kind {
            ElectionKind::Preferred => {
                let first = p.replicas.first().copied();
                if p.leader.is_some() && p.leader == first {
                    return Outcome::refused(
                        codes::ELECTION_NOT_NEEDED,
                        "the preferred replica leads",
                    );
                }
                match preferred(&p).filter(|&b| self.image.may_lead(&p, b)) {
                    Some(leader) => {
                        let why = "an administrator asked for the preferred leader";
                        self.change(at, why, |edit| {
                            edit.new.leader = Some(leader);
                            edit.drop_fenced();
                        });
                        Outcome::ok()
                    }
                    None => Outcome::refused(
                        codes::PREFERRED_LEADER_NOT_AVAILABLE,
                        "the preferred replica is not in the ISR, fenced, or shutting down",
                    ),
                }
            }
            ElectionKind::Unclean => {
                if p.leader.is_some() {
                    return Outcome::refused(
                        codes::ELECTION_NOT_NEEDED,
                        "the partition has a leader",
                    );
                }
                let best = self.longest_log(at, true);
                let why = "an administrator asked for an unclean election";
                self.change(at, why, |edit| {
                    edit.elect();
                    if edit.new.leader.is_none()
                        && let Some(leader) = best
                    {
                        edit.elect_unclean(leader);
                    }
                });
                let led = self
                    .image
                    .partition(&at.0, at.1)
                    .is_some_and(|p| p.leader.is_some());
                if led {
                    return Outcome::ok();
                }
                let message = "no replica is alive";
                Outcome::refused(codes::ELIGIBLE_LEADERS_NOT_AVAILABLE, message)
            }
        }
    }
}

/// The preferred leader, if it may lead as far as the ISR goes. While replicas move, the one that goes is not.
fn preferred(p: &Partition) -> Option<BrokerId> {
    let first = *p.replicas.iter().find(|b| !p.removing.contains(b))?;
    p.isr.contains(&first).then_some(first)
}
