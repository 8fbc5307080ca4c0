//! Emptying cordoned brokers: replicas, a bounded number at a time, each with its leadership; and at the same time
//! the leaderships of those that wait for their turn, or find no other broker. Both at the [pace](super::pace) of what is planned.
//!
//! Progress is what [`crate::image::Image::hosted`] counts. Lifting the cordon calls the moves off.

use super::edit::without;
use super::pace::in_turn;
use super::{At, Controller, Event};
use crate::assign;
use crate::image::Partition;
use crate::rpc::{Outcome, codes};
use leasehold_types::BrokerId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Leaderships moved off cordoned brokers in one step at most.
const LEADERS_AT_A_TIME: usize = 500;

impl Controller {
    /// Cordons exactly `wanted`.
    pub(super) fn cordon(&mut self, wanted: &[BrokerId]) -> Vec<(BrokerId, Outcome)> {
        let set: BTreeSet<BrokerId> = wanted.iter().copied().collect();
        let known: Vec<_> = self.image.brokers.values().cloned().collect();
        for broker in known {
            let cordoned = set.contains(&broker.id);
            if broker.cordoned != cordoned {
                self.change_broker(broker.id, broker.incarnation, |c| {
                    c.cordoned = Some(cordoned)
                });
                self.event(Event::Cordoned {
                    broker: broker.id,
                    cordoned,
                });
                if !cordoned {
                    self.balance_is_due(&format!("broker {} is not drained any more", broker.id));
                }
            }
        }
        let moving: Vec<At> = self.index.draining.iter().copied().collect();
        for at in moving {
            let Some(p) = self.image.partition(&at.0, at.1) else {
                continue;
            };
            if !p.removing.iter().any(|b| self.is_cordoned(*b)) {
                self.change(at, "the drain was called off", |edit| {
                    edit.cancel_reassignment()
                });
            }
        }
        self.drain_wanted = true;
        let outcome = |id: BrokerId| match self.image.broker(id) {
            Some(_) => Outcome::ok(),
            None => Outcome::refused(
                codes::BROKER_ID_NOT_REGISTERED,
                format!("broker {id} is not registered"),
            ),
        };
        set.into_iter().map(|id| (id, outcome(id))).collect()
    }

    fn is_cordoned(&self, id: BrokerId) -> bool {
        self.image.broker(id).is_some_and(|b| b.cordoned)
    }

    /// Moves on with emptying cordoned brokers, as far as the bounds allow.
    pub(super) fn drain(&mut self) {
        self.drain_wanted = false;
        let cordoned: Vec<BrokerId> = self
            .image
            .brokers
            .values()
            .filter(|b| b.cordoned)
            .map(|b| b.id)
            .collect();
        if cordoned.is_empty() {
            return;
        }
        self.replan_moves();
        self.begin_moves_off(&cordoned);
        self.drain_leaders(&cordoned);
    }

    fn begin_moves_off(&mut self, cordoned: &[BrokerId]) {
        for &broker in cordoned {
            let hosted: Vec<At> = self.index.hosted(broker).collect();
            for at in hosted {
                if self.index.draining.len() >= self.settings.max_draining {
                    return;
                }
                self.move_off(at);
            }
        }
    }

    fn drain_leaders(&mut self, cordoned: &[BrokerId]) {
        let mut moved = 0;
        for &broker in cordoned {
            if self.index.leaders(broker) == 0 {
                continue;
            }
            for at in in_turn(self.index.hosted(broker)) {
                // Of those whose replica moves the leadership goes with it: one change instead of two.
                let leads = |p: &Arc<Partition>| p.leader == Some(broker) && !p.draining;
                if !self.image.partition(&at.0, at.1).is_some_and(leads) {
                    continue;
                }
                if moved == LEADERS_AT_A_TIME {
                    self.drain_wanted = true;
                    return;
                }
                if !self.may_change_leader() {
                    return;
                }
                let why = format!("broker {broker} is being drained");
                if self.change(at, &why, |edit| {
                    edit.move_leader_off(|b| cordoned.contains(&b));
                }) {
                    self.count_change();
                    moved += 1;
                }
            }
        }
    }

    /// A move whose newcomer died or is to be drained itself gets another.
    fn replan_moves(&mut self) {
        let moving: Vec<At> = self.index.draining.iter().copied().collect();
        for at in moving {
            let Some(p) = self.image.partition(&at.0, at.1) else {
                continue;
            };
            let awaited = without(&p.adding, &p.removing);
            let stuck = |b: &BrokerId| {
                !p.isr.contains(b) && (!self.image.may_lead(p, *b) || self.is_cordoned(*b))
            };
            if awaited.iter().any(stuck) {
                self.move_off(at);
            }
        }
    }

    /// Begins to replace the cordoned replicas of one partition.
    fn move_off(&mut self, at: At) {
        let Some(p) = self.image.partition(&at.0, at.1) else {
            return;
        };
        if p.is_reassigning() && !p.draining && !p.balancing {
            return;
        }
        let original = without(&p.replicas, &p.adding);
        let mut target = original.clone();
        let seed = assign::seed_of(&at.0) ^ at.1 as u64;
        for place in 0..target.len() {
            let id = target[place];
            if !self.is_cordoned(id) {
                continue;
            }
            let mut candidates = self.candidates(0);
            candidates.retain(|c| c.can_lead && !original.contains(&c.id) && !p.is_offline(c.id));
            // Keep a newcomer that is on its way.
            let on_its_way =
                |b: &&BrokerId| candidates.iter().any(|c| c.id == **b) && !target.contains(b);
            let next = p.adding.iter().find(on_its_way).copied();
            let holders: Vec<BrokerId> = without(&target, &[id]);
            match next.or_else(|| self.pick(candidates, seed, &holders)) {
                Some(next) => target[place] = next,
                // No one is left to take it; the count of replicas tells.
                None => return,
            }
        }
        // Whoever leads already, and stays, does so in the first place: nothing is to be given back afterwards.
        let leader = p.leader.filter(|b| !self.is_cordoned(*b));
        if original.first().is_some_and(|b| self.is_cordoned(*b))
            && let Some(place) = leader.and_then(|l| target.iter().position(|b| *b == l))
        {
            target.swap(0, place);
        }
        if target == without(&p.replicas, &p.removing) {
            return;
        }
        let why = format!(
            "moving off what is being drained, to {}",
            super::reassign::list(&target)
        );
        self.change(at, &why, |edit| edit.set_target(&target, true));
    }
}
