//! Planned changes of leadership, spread over time.
//!
//! A partition that gets another leader, or another leader epoch, costs each producer that has a batch on its way there
//! the time after which a client sends a refused batch again: 100 ms by default, whatever the answer says of the new
//! leader. So what could as well happen a moment later is spread: if each partition changed once, that would take
//! `leader_spread_ms`. Then fewer than one record in a hundred meets a change, however many partitions there are, and
//! a broker is emptied within seconds all the same.
//!
//! Promise: only drains, balancing and the return of preferred leaders wait here. What follows from a broker that ends,
//! fails or comes back, and what somebody asked for by name, happens at once.

use super::{At, Controller};
use crate::assign;

/// How far apart steps are in which many change, where one after the other would be too many steps.
const STEP_US: u64 = 100_000;

/// When the next planned change may happen, by the run clock.
#[derive(Default)]
pub(super) struct Pace {
    /// When all that happened is paid for, in microseconds.
    paid_us: u64,
    /// Until when somebody waits, in milliseconds.
    waits_until: Option<u64>,
}

impl Pace {
    /// From when on a change is allowed of which each costs `each_us`.
    fn open_us(&self, each_us: u64) -> u64 {
        self.paid_us.saturating_sub(STEP_US.saturating_sub(each_us))
    }

    fn allows(&self, run_ms: u64, each_us: u64) -> bool {
        each_us == 0 || self.open_us(each_us) <= run_ms * 1_000
    }

    fn spend(&mut self, run_ms: u64, each_us: u64) {
        self.paid_us = self.paid_us.max(run_ms * 1_000) + each_us;
    }

    fn wait(&mut self, run_ms: u64, each_us: u64) {
        let step_ms = STEP_US.saturating_sub(each_us) / 2_000;
        let next = self.open_us(each_us).div_ceil(1_000).max(run_ms + step_ms);
        self.waits_until = Some(next.max(run_ms + 1));
    }

    /// Until when somebody waits.
    pub fn waits_until(&self) -> Option<u64> {
        self.waits_until
    }

    /// Whether those who wait are to ask again: they do, after this.
    pub fn is_over(&mut self, run_ms: u64) -> bool {
        self.waits_until.take_if(|at| *at <= run_ms).is_some()
    }
}

impl Controller {
    /// What one planned change costs, in microseconds.
    fn cost_of_a_change(&self) -> u64 {
        let partitions = self.index.led().max(1) as u64;
        self.settings.leader_spread_ms * 1_000 / partitions
    }

    /// Whether a planned change of leadership may happen now.
    pub(super) fn is_paced(&self) -> bool {
        self.pace.allows(self.clock.run(), self.cost_of_a_change())
    }

    /// As [`Self::is_paced`]; if not, there will be a step when it is.
    pub(super) fn may_change_leader(&mut self) -> bool {
        let allowed = self.is_paced();
        if !allowed {
            self.wait_for_the_pace();
        }
        allowed
    }

    pub(super) fn wait_for_the_pace(&mut self) {
        let each = self.cost_of_a_change();
        self.pace.wait(self.clock.run(), each);
    }

    /// A planned change happened.
    pub(super) fn count_change(&mut self) {
        let each = self.cost_of_a_change();
        self.pace.spend(self.clock.run(), each);
    }

    /// Ends the controller's own moves whose newcomers are in sync, each in its turn.
    pub(super) fn complete_moves(&mut self) {
        let moving = self.index.draining.iter().chain(&self.index.balancing);
        for at in in_turn(moving.copied()) {
            let in_sync = |p: &std::sync::Arc<_>| super::edit::has_all_newcomers(p);
            if !self.image.partition(&at.0, at.1).is_some_and(in_sync) {
                continue;
            }
            if !self.may_change_leader() {
                return;
            }
            if self.change(at, "its new replicas are in sync", |_| {}) {
                // There may be room for another.
                (self.drain_wanted, self.balance.wanted) = (true, true);
            }
        }
    }
}

/// Neighbours apart, so that no topic is changed all at once while others wait.
pub(super) fn in_turn(all: impl Iterator<Item = At>) -> Vec<At> {
    let mut all: Vec<At> = all.collect();
    all.sort_by_cached_key(|at| assign::hash(assign::seed_of(&at.0), at.1 as u64));
    all
}
