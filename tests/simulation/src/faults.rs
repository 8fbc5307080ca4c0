//! What goes wrong, and when: drawn from the seed. Each seed has its own climate, so that some runs see few
//! kinds of faults, and those often.
//!
//! Promise: faults leave each partition one member of the ISR whose disk is intact.

use crate::check::Checker;
use crate::core::{Core, Weather};
use rand::Rng as _;
use std::time::Duration;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends; the kernel keeps what it wrote.
    Crash(usize),
    /// The machine ends; what was not flushed is lost.
    PowerCut(usize),
    /// The process ends, and its volume is empty when it comes back.
    Wipe(usize),
    Pause(usize, u64),
    /// SIGTERM.
    Leave(usize),
    /// CLOCK_BOOTTIME jumps ahead of the other clocks.
    Suspend(usize, Duration),
}

/// How often each kind happens; the sum is what they are weighed against.
pub struct Climate {
    weights: [u32; 12],
    /// Milliseconds between two faults, on average.
    every: u64,
}

fn damages_too_much(check: &Checker, core: &Core, node: usize) -> bool {
    let id = i64::try_from(node).unwrap_or(-1);
    let intact = |other: &i64| {
        let other = usize::try_from(*other).unwrap_or(usize::MAX);
        other != node && core.nodes.get(other).is_some_and(|n| !n.disk.damaged)
    };
    check.parts.values().any(|part| {
        let needed = part.isr.contains(&id) || part.elr.contains(&id);
        needed && !part.isr.iter().any(intact)
    })
}

impl Climate {
    pub fn draw(core: &mut Core) -> Self {
        let mut weights = [0; 12];
        for weight in &mut weights {
            *weight = if core.chance(600) {
                core.rng.random_range(1..10)
            } else {
                0
            };
        }
        let every = core.rng.random_range(60..900);
        core.weather = weather(core);
        Self { weights, every }
    }

    /// What happens in this step, if anything. Cuts and the like are done at once; what concerns a
    /// process is for the caller to do.
    pub fn strike(&self, core: &mut Core) -> Option<Fault> {
        let sum: u32 = self.weights.iter().sum();
        let due = core.rng.random_range(0..self.every) < crate::core::STEP;
        if !due || sum == 0 {
            return None;
        }
        let mut drawn = core.rng.random_range(0..sum);
        let kind = self.weights.iter().position(|&weight| {
            let hit = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            hit
        })?;
        let count = core.nodes.len();
        let node = core.rng.random_range(0..count);
        let long = core.rng.random_range(200..7_000);
        let until = core.now + long;
        let fault = match kind {
            0 => Fault::Crash(node),
            1 if !damages_too_much(&core.check, core, node) => Fault::PowerCut(node),
            2 if !damages_too_much(&core.check, core, node) => Fault::Wipe(node),
            3 => Fault::Pause(node, until),
            4 => Fault::Leave(node),
            5 => Fault::Suspend(node, Duration::from_millis(long)),
            6 => {
                core.note(format!(
                    "fault the API cannot be reached from {node} for {long} ms"
                ));
                core.nodes[node].api_cut_until = until;
                return None;
            }
            7 => {
                core.note(format!("fault the API server is away for {long} ms"));
                core.api_down_until = until;
                return None;
            }
            8 => {
                core.note("fault the Lease is deleted");
                if core.chance(500) {
                    core.deaf_until = core.now + 400;
                }
                core.api.lease = None;
                return None;
            }
            9 => {
                let to = core.rng.random_range(0..count);
                core.note(format!(
                    "fault nothing gets from {node} to {to} for {long} ms"
                ));
                core.cuts.insert((node, to), until);
                return None;
            }
            10 => {
                core.note(format!("fault broker {node} is cut off for {long} ms"));
                for other in 0..count {
                    core.cuts.insert((node, other), until);
                    core.cuts.insert((other, node), until);
                }
                return None;
            }
            11 => {
                core.weather = weather(core);
                let line = format!("fault the weather changes: {:?}", core.weather);
                core.note(line);
                return None;
            }
            _ => return None,
        };
        core.note(format!("fault {fault:?}"));
        Some(fault)
    }
}

fn weather(core: &mut Core) -> Weather {
    let mut rate = |most: u32| match core.chance(500) {
        true => core.rng.random_range(0..most),
        false => 0,
    };
    Weather {
        api_lost_request: rate(60),
        api_lost_reply: rate(120),
        api_late: rate(120),
        api_duplicate: rate(200),
        api_error: rate(60),
        api_refused: rate(60),
        net_lost: rate(60),
        net_slow: rate(60),
        net_twice: rate(250),
    }
}
