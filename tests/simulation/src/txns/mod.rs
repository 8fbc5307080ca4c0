//! Producers with transactional ids: they begin transactions in several partitions, commit or abort them; they crash and
//! come back, stand still until their transactions have timed out, and go on as if nothing had happened while another has
//! taken their place (zombies).
//!
//! What they may be told, and what becomes of their records, is the checker's to judge (`check/txns.rs`); here it is only
//! said whether each could commit after the faults (X4).
//!
//! Whether a run has any is drawn apart from all else, so that the other runs are what they were.

pub mod mail;
mod producer;
mod transaction;

use crate::core::{Core, STEP};
use producer::{Kind, Producer};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Transactional ids; the last is used by two at a time.
const IDS: [&str; 3] = ["orders", "bills", "shared"];

/// Their connections: nobody else's.
const LINES: u64 = 1 << 50;

/// Whether the wide run of this seed has transactions, and the dice for all else about them.
fn drawn(seed: u64) -> (bool, StdRng) {
    let mut dice = StdRng::seed_from_u64(seed ^ 0x7478_6e73);
    (dice.random_range(0..1_000) < 300, dice)
}

/// Whether the wide run of this seed has transactions.
pub fn are_in(seed: u64) -> bool {
    drawn(seed).0
}

/// All of them.
#[derive(Default)]
pub struct Txns {
    here: bool,
    producers: Vec<Producer>,
    zombies: Vec<Producer>,
    /// Milliseconds between two mishaps of a producer, on average.
    every: u64,
    /// Whether these are transactions of version 2.
    second: bool,
    /// Of a thousand ends, those at which a coordinator is waylaid.
    waylaid: u32,
    /// Of a thousand transactions, those of which a coordinator's word is held up until they have ended.
    held_up: u32,
    /// Of a thousand transactions, those in a topic that their coordinator is the last to hear of.
    unheard_of: u32,
    /// How many ever began.
    count: u32,
    healed: bool,
}

impl Txns {
    /// Those of one run, if there may be `any`.
    pub fn draw(core: &mut Core, any: bool) -> Self {
        let (here, mut dice) = drawn(core.seed);
        let here = any && here;
        let second = dice.random_range(0..1_000) < 600;
        core.check.txns.here = here;
        core.late_markers = second;
        Self {
            here,
            second,
            every: dice.random_range(1_000..8_000),
            waylaid: dice.random_range(0..200_u32).saturating_sub(80),
            // In version 2 each end brings an epoch, and what was said of the one before is void.
            held_up: dice.random_range(150..400) * u32::from(!second),
            unheard_of: dice.random_range(20..120) * u32::from(second),
            ..Self::default()
        }
    }

    fn another(&mut self, id: &'static str, core: &mut Core) -> Producer {
        self.count += 1;
        let kind = Kind {
            id,
            second: self.second,
            waylaid: self.waylaid,
            held_up: self.held_up,
            unheard_of: self.unheard_of,
        };
        Producer::new(kind, LINES + u64::from(self.count), self.count, core)
    }

    /// What they do in one step; mishaps only in bad times.
    pub fn step(&mut self, core: &mut Core, trouble: bool) {
        if !self.here {
            return;
        }
        if self.producers.is_empty() {
            for id in IDS {
                let producer = self.another(id, core);
                self.producers.push(producer);
            }
            let second = self.another(IDS[2], core);
            self.zombies.push(second);
        }
        for (at, id) in IDS.into_iter().enumerate().take(self.producers.len()) {
            if trouble && core.rng.random_range(0..self.every) < STEP {
                self.mishap(at, core);
            }
            self.producers[at].step(core, self.healed);
            if self.producers[at].is_dead() {
                // Whoever runs it starts it again.
                self.producers[at] = self.another(id, core);
            }
        }
        for zombie in &mut self.zombies {
            zombie.step(core, self.healed);
        }
        self.zombies.retain(|zombie| !zombie.is_dead());
    }

    fn mishap(&mut self, at: usize, core: &mut Core) {
        let id = IDS[at];
        match core.rng.random_range(0..3) {
            0 => {
                core.note(format!("txn   {id} crashes"));
                self.producers[at] = self.another(id, core);
            }
            1 => {
                let long = core.rng.random_range(200..5_000);
                core.note(format!("txn   {id} stands still for {long} ms"));
                self.producers[at].stand_still(core.now + long);
            }
            _ => {
                let long = core.rng.random_range(50..3_000);
                core.note(format!("txn   {id} is replaced, and goes on in {long} ms"));
                let another = self.another(id, core);
                let mut zombie = std::mem::replace(&mut self.producers[at], another);
                zombie.stand_still(core.now + long);
                self.zombies.push(zombie);
            }
        }
    }

    /// The faults ended.
    pub fn healed(&mut self, core: &mut Core) {
        self.healed = true;
        self.zombies.clear();
        core.check.txns.stable.clear();
        for producer in &mut self.producers {
            producer.healed(core.now);
        }
    }

    /// A producer that has not committed since the faults ended, or something that is not decided.
    pub fn ill(&self, core: &Core) -> Option<String> {
        let mut waiting = self.producers.iter().filter(|producer| !producer.is_done());
        if let Some(producer) = waiting.next() {
            return Some(format!(
                "X4 {} cannot commit: {}",
                producer.id(),
                producer.says()
            ));
        }
        core.check.undecided()
    }
}
