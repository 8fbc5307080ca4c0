//! Keeping brokers even: the plan of [`crate::balance`] carried out, a bounded number of moves at a time.
//!
//! It is due when a broker came that was not known, when one was forgotten, when a cordon was lifted, and when
//! somebody asks; that is part of the metadata, so a later controller goes on. Nothing begins while a broker has
//! just come (others may follow, and its rack may not be known yet) or has just gone (it may be back at once), nor
//! while a broker is being drained.

use super::{At, Controller, Event};
use crate::balance::{self, Balancing, Mode, Move, PLAN_AT_MOST};
use crate::features::Level;
use crate::records::Record;
use crate::rpc::{Outcome, codes};
use leasehold_types::BrokerId;
use std::collections::{BTreeMap, VecDeque};

/// Partitions that get another order in one step at most.
const ORDERS_AT_A_TIME: usize = 500;

/// What of it is not in the metadata.
#[derive(Default)]
pub(super) struct Balance {
    /// What has not begun yet; `None`: a plan is to be made.
    queue: Option<VecDeque<Move>>,
    /// The brokers that it was made for, with their racks.
    made_for: Vec<(BrokerId, Option<String>)>,
    /// Since when brokers are away (run clock).
    away_since: BTreeMap<BrokerId, u64>,
    /// With nothing to do but to wait for those who are away, no plan is made before this (run clock).
    rests_until: u64,
    /// A move ended: there may be room for another.
    pub wanted: bool,
}

/// What became of a move that was to begin.
enum Begun {
    Yes,
    /// Some replica is not there, or others move this partition.
    NotYet,
    /// The partition is not what the plan was made for.
    Moot,
}

impl Controller {
    /// Brokers may not be even any more.
    pub(super) fn balance_is_due(&mut self, why: &str) {
        (self.balance.queue, self.balance.rests_until) = (None, 0);
        let known = self.image.metadata_level() >= Level::ADMINISTERED;
        if self.image.topics.is_empty() || self.image.balancing.due || !known {
            return;
        }
        let due = Balancing {
            due: true,
            ..self.image.balancing
        };
        self.emit(Record::Balancing(due));
        self.event(Event::Balance {
            what: format!("due: {why}"),
        });
    }

    /// Other limits, and with `due` a look at all brokers anew.
    pub(super) fn set_balancing(&mut self, wanted: Balancing) -> Outcome {
        if let Err(refused) = self.permits(Level::ADMINISTERED, "keeping brokers even") {
            return refused;
        }
        if wanted.max_moves == 0 || wanted.bytes_per_second == Some(0) {
            let message = "the limits of balancing must be at least 1";
            return Outcome::refused(codes::INVALID_REQUEST, message);
        }
        let due = self.image.balancing.due;
        let limits = Balancing { due, ..wanted };
        if limits != self.image.balancing {
            self.emit(Record::Balancing(limits));
        }
        if wanted.due {
            self.balance_is_due("somebody asked for it");
        }
        self.balance.wanted = true;
        Outcome::ok()
    }

    /// Moves on, as far as the limits allow.
    pub(super) fn balance(&mut self) {
        self.balance.wanted = false;
        let permitted = self.image.metadata_level() >= Level::ADMINISTERED;
        if !self.image.balancing.due || !permitted {
            return;
        }
        let settled = self.look_around();
        self.call_off_vain_moves();
        if self.image.balancing.mode != Mode::Auto || !settled || self.is_draining() {
            return;
        }
        let open = self.open_brokers();
        if self.balance.made_for != open {
            (self.balance.made_for, self.balance.queue) = (open, None);
        } else if self.balance.rests_until > self.clock.run() {
            return;
        }
        if self.balance.queue.is_none() {
            self.plan_balance();
        }
        self.begin_moves();
        let queue_is_empty = self.balance.queue.as_ref().is_some_and(VecDeque::is_empty);
        if !queue_is_empty || !self.index.balancing.is_empty() {
            return;
        }
        // Carried out, as far as it went: whether that was all, the next plan says.
        self.plan_balance();
        let done = self.balance.queue.as_ref().is_some_and(VecDeque::is_empty);
        self.balance.wanted = !done;
        if done && !self.balance.away_since.is_empty() {
            self.balance.rests_until = self.clock.run() + self.settings.balance_patience_ms;
        } else if done {
            let done = Balancing {
                due: false,
                ..self.image.balancing
            };
            self.emit(Record::Balancing(done));
            self.event(Event::Balance {
                what: "done".to_owned(),
            });
        }
    }

    /// Notes who is away. Whether all others have been there for a while, and nobody has just gone.
    fn look_around(&mut self) -> bool {
        let run = self.clock.run();
        let mut settled = true;
        let mut away = BTreeMap::new();
        for broker in self.image.brokers.values().filter(|b| !b.cordoned) {
            if broker.is_eligible() {
                let since = self.sessions.get(&broker.id).map_or(run, |s| s.unfenced_at);
                settled &= run >= since + self.settings.balance_settle_ms;
            } else {
                let since = self.balance.away_since.get(&broker.id);
                let since = *away.entry(broker.id).or_insert(*since.unwrap_or(&run));
                settled &= run >= since + self.settings.balance_patience_ms;
            }
        }
        self.balance.away_since = away;
        settled
    }

    /// A newcomer that stays away frees its place.
    fn call_off_vain_moves(&mut self) {
        let (run, patience) = (self.clock.run(), self.settings.balance_patience_ms);
        let since = self.balance.away_since.clone();
        let stays_away = |b: &BrokerId| since.get(b).is_some_and(|since| run >= since + patience);
        let moving: Vec<At> = self.index.balancing.iter().copied().collect();
        for at in moving {
            let vain = self.image.partition(&at.0, at.1).is_some_and(|p| {
                let failed = |b: &BrokerId| p.is_offline(*b) || stays_away(b);
                p.adding.iter().any(|b| !p.isr.contains(b) && failed(b))
            });
            if vain {
                self.change(at, "its new replica stays away", |edit| {
                    edit.cancel_reassignment()
                });
                self.balance.queue = None;
            }
        }
    }

    fn is_draining(&self) -> bool {
        let drained = |b: &crate::image::Broker| b.cordoned && self.index.replicas(b.id) > 0;
        !self.index.draining.is_empty() || self.image.brokers.values().any(|b| drained(b))
    }

    fn open_brokers(&self) -> Vec<(BrokerId, Option<String>)> {
        let brokers = self.image.brokers.values();
        let open = brokers.filter(|b| balance::is_open(b));
        open.map(|b| (b.id, b.rack.clone())).collect()
    }

    fn plan_balance(&mut self) {
        self.balance.rests_until = 0;
        let plan = balance::of_image(&self.image, PLAN_AT_MOST);
        self.balance.queue = Some(plan.moves.into());
    }

    fn begin_moves(&mut self) {
        let at_most = usize::try_from(self.image.balancing.max_moves).unwrap_or(usize::MAX);
        let mut orders = 0;
        let mut later = VecDeque::new();
        while let Some(next) = self.balance.queue.as_mut().and_then(VecDeque::pop_front) {
            // Who leads is settled once it is settled who holds.
            let waits = if next.copies() {
                self.index.balancing.len() >= at_most
            } else {
                !self.index.balancing.is_empty() || !later.is_empty() || orders == ORDERS_AT_A_TIME
            };
            if waits {
                later.push_back(next);
                break;
            }
            match self.begin_move(&next) {
                Begun::Yes => orders += usize::from(!next.copies()),
                Begun::NotYet => later.push_back(next),
                Begun::Moot => {}
            }
        }
        if let Some(queue) = &mut self.balance.queue {
            later.append(queue);
            *queue = later;
        }
    }

    fn begin_move(&mut self, next: &Move) -> Begun {
        let at: At = (next.topic, next.partition);
        let Some(p) = self.image.partition(&at.0, at.1) else {
            return Begun::Moot;
        };
        if balance::target(p) != next.from {
            return Begun::Moot;
        }
        let there = |b: &BrokerId| p.isr.contains(b) && self.image.may_lead(p, *b);
        if p.is_reassigning() || !p.replicas.iter().all(there) {
            return Begun::NotYet;
        }
        let why = format!(
            "keeping brokers even, to {}",
            super::reassign::list(&next.to)
        );
        self.change(at, &why, |edit| {
            edit.set_target(&next.to, false);
            edit.new.balancing = edit.new.is_reassigning();
        });
        Begun::Yes
    }
}
