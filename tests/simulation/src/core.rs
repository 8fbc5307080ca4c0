//! What all simulated processes share: the time, the dice, the queue of what is under way, and the objects.
//!
//! Promise: everything that happens between processes goes through the queue here, whose order depends
//! on the seed alone. Time passes in steps of [`STEP`]; a process runs through one step at a time.

use crate::api::Objects;
use crate::broker::mail::Mail;
use crate::check::Checker;
use crate::disk::Disk;
use leasehold_types::Incarnation;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// How far a process runs at a time, in milliseconds.
pub const STEP: u64 = 5;

/// The shared part, as processes hold it. One thread runs everything, so it is never contended.
pub type Shared = Arc<Mutex<Core>>;

type Action = Box<dyn FnOnce(&mut Core) + Send>;

/// How likely each mishap is, in thousandths, for one message or one call.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub api_lost_request: u32,
    pub api_lost_reply: u32,
    pub api_late: u32,
    pub api_duplicate: u32,
    pub api_error: u32,
    pub api_refused: u32,
    pub net_lost: u32,
    pub net_slow: u32,
    pub net_twice: u32,
}

/// One broker's machine, seen from outside.
#[derive(Default)]
pub struct Node {
    /// The process that runs there.
    pub up: Option<Incarnation>,
    pub inbox: Option<UnboundedSender<Mail>>,
    /// The process asked to end, and why.
    pub exit: Option<String>,
    /// Until when the API server cannot be reached from here.
    pub api_cut_until: u64,
    /// When it last went on after a pause: what it finds to say first may be older than that.
    pub resumed_at: u64,
    pub disk: Disk,
}

/// Everything that is shared.
pub struct Core {
    pub now: u64,
    pub rng: StdRng,
    pub weather: Weather,
    pub api: Objects,
    /// What a backup of the API server holds.
    pub backup: Option<Objects>,
    pub api_down_until: u64,
    /// Until when the answers to head writes get lost, after a while in which much may happen.
    pub deaf_until: u64,
    pub nodes: Vec<Node>,
    /// Links that lose everything, one way, and until when.
    pub cuts: BTreeMap<(usize, usize), u64>,
    pub check: Checker,
    pub trace: Vec<String>,
    queue: BTreeMap<(u64, u32, u64), Action>,
    counter: u64,
}

impl Core {
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            api: Objects::default(),
            backup: None,
            api_down_until: 0,
            deaf_until: 0,
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            cuts: BTreeMap::new(),
            check: Checker::new(nodes),
            trace: Vec::new(),
            queue: BTreeMap::new(),
            counter: 0,
        }
    }

    /// A line of the trace.
    pub fn note(&mut self, line: impl AsRef<str>) {
        let (seconds, millis) = (self.now / 1000, self.now % 1000);
        self.trace
            .push(format!("{seconds:>3}.{millis:03} {}", line.as_ref()));
    }

    /// True `thousandths` times in a thousand.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.random_range(0..1000) < thousandths
    }

    /// Lets `action` happen `delay` milliseconds from now; what happens at one time is in random order.
    pub fn later(&mut self, delay: u64, action: impl FnOnce(&mut Core) + Send + 'static) {
        self.counter += 1;
        let key = (self.now + delay, self.rng.random(), self.counter);
        self.queue.insert(key, Box::new(action));
    }

    /// Lets happen what is due.
    pub fn deliver(&mut self) {
        while let Some(first) = self.queue.first_entry() {
            if first.key().0 > self.now {
                return;
            }
            let action = first.remove();
            action(self);
        }
    }

    /// Whether messages get from `from` to `to` at all.
    pub fn linked(&self, from: usize, to: usize) -> bool {
        from == to
            || self
                .cuts
                .get(&(from, to))
                .is_none_or(|&until| until <= self.now)
    }

    fn delay(&mut self) -> u64 {
        match self.chance(self.weather.net_slow) {
            true => self.rng.random_range(50..2_500),
            false => self.rng.random_range(1..8),
        }
    }

    /// Sends `mail` from one process to another; it may get lost, late, or there twice.
    pub fn post(&mut self, from: usize, to: usize, mail: Mail) {
        let Some(life) = self.nodes[to].up else {
            return;
        };
        // Rare requests would hardly ever come twice at the rate of frequent ones.
        let call = matches!(mail, Mail::Call { .. });
        let twice = self.weather.net_twice * if call { 10 } else { 1 };
        if self.chance(twice)
            && let Some(copy) = mail.copy()
        {
            // The copy of a request that was thought lost: it may come when all has changed.
            let late = self.rng.random_range(0..if call { 9_000 } else { 3_000 });
            self.post_once(from, to, life, late, copy);
        }
        self.post_once(from, to, life, 0, mail);
    }

    fn post_once(&mut self, from: usize, to: usize, life: Incarnation, late: u64, mail: Mail) {
        let lost = self.weather.net_lost;
        if !self.linked(from, to) || (from != to && self.chance(lost)) {
            return;
        }
        let delay = late + if from == to { 0 } else { self.delay() };
        self.later(delay, move |core| {
            // It was sent to that very process, over a connection that ends with it.
            let node = &core.nodes[to];
            if node.up == Some(life)
                && let Some(inbox) = &node.inbox
            {
                let _ = inbox.send(mail);
            }
        });
    }

    /// Sends an answer back; as [`Self::post`].
    pub fn answer(&mut self, from: usize, to: usize, send: impl FnOnce() + Send + 'static) {
        let lost = self.weather.net_lost;
        if !self.linked(from, to) || (from != to && self.chance(lost)) {
            return;
        }
        let delay = if from == to { 0 } else { self.delay() };
        self.later(delay, move |_| send());
    }
}
