//! What goes wrong, and when: drawn from the seed. Each seed has its own climate, so that some runs see few
//! kinds of faults, and those often.
//!
//! Promise: faults leave each partition one member of ISR or ELR whose disk is intact.

use crate::ambush::Aim;
use crate::broker::mail::Mail;
use crate::broker::reply::nobody;
use crate::broker::{FOREIGNERS, place, registration};
use crate::check::Checker;
use crate::core::{Core, Weather};
use leasehold_log::faults::Crash;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::Request;
use leasehold_types::Incarnation;
use rand::Rng as _;
use rustix::io::Errno;
use std::time::Duration;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends; the kernel keeps what it wrote.
    Crash(usize),
    /// The machine ends; of what was not flushed, some is lost.
    PowerCut(usize, Crash),
    /// The process ends, and its volume is empty when it comes back.
    Wipe(usize),
    /// A copy of the volume is made; or, if one was made before, the process ends and comes back on that.
    Copy(usize),
    Pause(usize, u64),
    /// SIGTERM.
    Leave(usize),
    /// CLOCK_BOOTTIME jumps ahead of the other clocks.
    Suspend(usize, Duration),
    /// The calendar jumps, by so many milliseconds.
    Calendar(usize, i64),
    /// Every change in a log directory fails for a while, until someone mends that and starts the process again.
    BreakFolder(usize, usize, Errno, u64),
    /// There is little room on the disk for a while.
    Fill(usize, u64),
    /// The process ends, and the next one finds the volume of another cluster's broker in its place.
    Swap(usize),
}

/// How many kinds there are.
const KINDS: usize = 23;
/// The first of those that only wide runs have.
const WIDE: usize = 21;

/// How often each kind happens; the sum is what they are weighed against.
pub struct Climate {
    weights: [u32; KINDS],
    /// Milliseconds between two faults, on average.
    every: u64,
    /// In some runs one broker is hit more than all others, and its fetches come through only at times.
    victim: Option<Victim>,
}

struct Victim {
    node: usize,
    /// For so long its fetches get lost, then for so long they come through, and so on.
    phase: u64,
}

/// Whether a partition would be left without an intact member of ISR or ELR.
pub(crate) fn damages_too_much(check: &Checker, core: &Core, node: usize) -> bool {
    let id = i64::try_from(node).unwrap_or(-1);
    let intact = |other: &i64| {
        let other = usize::try_from(*other).unwrap_or(usize::MAX);
        let disk = core.nodes.get(other).map(|node| &node.disk);
        other != node && disk.is_some_and(|disk| !disk.damaged && !disk.failing)
    };
    check.parts.values().any(|part| {
        let needed = part.isr.contains(&id) || part.elr.contains(&id);
        needed && !part.isr.iter().chain(&part.elr).any(intact)
    })
}

impl Climate {
    pub fn draw(core: &mut Core, wide: bool) -> Self {
        let mut weights = [0; KINDS];
        for weight in &mut weights {
            *weight = if core.chance(600) {
                core.rng.random_range(1..10)
            } else {
                0
            };
        }
        if !wide {
            weights[WIDE..].fill(0);
        }
        let every = core.rng.random_range(60..900);
        core.weather = weather(core);
        let victim = core.chance(350).then(|| {
            let node = core.rng.random_range(0..core.nodes.len());
            let phase = core.rng.random_range(300..1_800);
            Victim { node, phase }
        });
        let mut climate = Self {
            weights,
            every,
            victim,
        };
        if climate.victim.is_some() {
            climate.weights[0] += 8;
            climate.weights[1] += 8;
            climate.every = core.rng.random_range(150..600);
        }
        climate
    }

    /// Who is hit next.
    fn hit(&self, core: &mut Core) -> usize {
        match &self.victim {
            Some(victim) if core.chance(600) => victim.node,
            _ => core.rng.random_range(0..core.nodes.len()),
        }
    }

    /// What happens in this step, if anything. Cuts and the like are done at once; what concerns a
    /// process is for the caller to do.
    pub fn strike(&self, core: &mut Core) -> Option<Fault> {
        if let Some(victim) = &self.victim
            && (core.now / victim.phase).is_multiple_of(2)
        {
            let until = core.mute.entry(victim.node).or_default();
            *until = (*until).max(core.now + 2 * crate::core::STEP);
        }
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
        let node = self.hit(core);
        let long = core.rng.random_range(200..7_000);
        let until = core.now + long;
        let crash = [Crash::Lost, Crash::InOrder, Crash::OutOfOrder][core.rng.random_range(0..3)];
        let fault = match kind {
            0 => Fault::Crash(node),
            1 if !damages_too_much(&core.check, core, node) => Fault::PowerCut(node, crash),
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
            12 if !core.nodes[node].disk.has_copy()
                || !damages_too_much(&core.check, core, node) =>
            {
                Fault::Copy(node)
            }
            13 | 14 => {
                let (chunks, long) = (core.chance(500), core.rng.random_range(50..4_000));
                core.lose_head(chunks, kind == 14, long);
                return None;
            }
            15 => Fault::Swap(node),
            16 => {
                let called = lease_holder(core).unwrap_or(node);
                let life = Incarnation(FOREIGNERS + i64::try_from(core.now).unwrap_or(0));
                let request = Box::new(Request::Register(Box::new(registration(node, life, &[]))));
                let reply = nobody();
                let from = called;
                let call = Mail::Call {
                    from,
                    request,
                    reply,
                };
                core.call_of_foreigner(called, call);
                return None;
            }
            17 => {
                let jump = core.rng.random_range(-120_000..120_000);
                Fault::Calendar(node, jump)
            }
            18 => {
                core.note(format!("fault the API server answers 429 for {long} ms"));
                core.throttled_until = until;
                return None;
            }
            19 => {
                core.leave_foreign_chunks();
                return None;
            }
            20 => {
                let aims = [Aim::Fetch, Aim::Proposal];
                core.aim = Some(aims[core.rng.random_range(0..aims.len())]);
                return None;
            }
            21 if !damages_too_much(&core.check, core, node) => {
                let errno = [Errno::IO, Errno::NOSPC, Errno::ROFS][core.rng.random_range(0..3)];
                Fault::BreakFolder(node, core.rng.random_range(0..2), errno, until)
            }
            22 => Fault::Fill(node, until),
            _ => return None,
        };
        core.note(format!("fault {fault:?}"));
        Some(fault)
    }
}

/// Who holds the Lease.
fn lease_holder(core: &Core) -> Option<usize> {
    let holder = core.api.lease.as_ref()?.holder.as_deref()?;
    Holder::parse(holder).map(|holder| place(holder.broker))
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
        api_throttled: rate(100),
        api_stale: rate(400),
        net_lost: rate(60),
        net_slow: rate(60),
        net_twice: rate(250),
        alter_lost: rate(600),
        alter_slow: rate(600),
        api_usurped: rate(60),
    }
}
