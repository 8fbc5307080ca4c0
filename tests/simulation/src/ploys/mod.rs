//! Orders of events that chance would hardly ever bring about, played step by step once the faults have ended and all is
//! well: each is a way in which a message that comes late, or a second wish, could make a leader count a follower for
//! what it does not hold. None of them may do any harm; afterwards all must be well again.
//!
//! Messages are held back by a [`Trap`]; a ploy that does not get on gives up, and lets go of all that it held.

mod late_fetch;
mod old_epoch;
mod two_wishes;

use crate::broker::mail::Mail;
use crate::broker::place;
use crate::check::{Part, key_of, name_of};
use crate::core::{Core, STEP};
use crate::disk::Key;
use leasehold_metadata::lease::Holder;
use leasehold_types::Incarnation;
use rand::Rng as _;

/// So long after the faults a ploy looks for its moment, in milliseconds.
const LOOKS_FOR: u64 = 6_000;
/// So long it may take; where a broker loses its power, that must have time to come back.
const LASTS: u64 = 2_500;
const LASTS_WITH_A_RESTART: u64 = 6_000;

/// What a trap holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prey {
    /// A follower's fetches from this broker.
    FetchFrom(usize),
    /// A leader's wishes about this partition's ISR.
    Wish(Key),
}

/// A message on its way, and to which life of which broker.
pub struct Caught {
    to: usize,
    life: Incarnation,
    mail: Mail,
}

/// Holds what one broker sends.
pub struct Trap {
    of: usize,
    prey: Prey,
    caught: Vec<Caught>,
}

impl Trap {
    pub fn new(of: usize, prey: Prey) -> Self {
        Self {
            of,
            prey,
            caught: Vec::new(),
        }
    }

    fn wants(&self, from: usize, to: usize, mail: &Mail) -> bool {
        from == self.of
            && match self.prey {
                Prey::FetchFrom(leader) => to == leader && matches!(mail, Mail::Fetch { .. }),
                Prey::Wish(key) => mail.wishes_for(key),
            }
    }
}

impl Core {
    /// Gives the mail back that no trap is set for.
    pub(crate) fn past_the_trap(
        &mut self,
        (from, to): (usize, usize),
        life: Incarnation,
        mail: Mail,
    ) -> Option<Mail> {
        match &mut self.trap {
            Some(trap) if trap.wants(from, to, &mail) => {
                trap.caught.push(Caught { to, life, mail });
                None
            }
            _ => Some(mail),
        }
    }

    /// Whether the trap holds something.
    fn has_caught(&self) -> bool {
        self.trap
            .as_ref()
            .is_some_and(|trap| !trap.caught.is_empty())
    }

    /// Lets the first message that was caught arrive; the others never do.
    fn release_first(&mut self) {
        let first = self
            .trap
            .take()
            .and_then(|trap| trap.caught.into_iter().next());
        if let Some(Caught { to, life, mail }) = first {
            self.note("ploy  what was held back arrives");
            self.deliver_late(to, life, mail);
        }
    }

    /// Nothing reaches this broker from others, though all hear it.
    fn deafen(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cuts.insert((other, node), u64::MAX);
        }
    }

    /// These brokers' fetches get lost for the next steps.
    fn mute_for_now(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.mute.insert(*node, self.now + 3 * STEP);
        }
    }

    /// The offset behind the last record on this broker's disk.
    fn end_on(&self, node: usize, key: Key) -> usize {
        self.nodes[node].disk.log(key).records.len()
    }

    /// Whether this broker has applied all there is.
    fn is_informed(&self, node: usize) -> bool {
        let position = self.check.positions.get(node).copied().flatten();
        position.is_some_and(|(_, at)| at >= self.check.last_seq())
    }

    fn part(&self, key: Key) -> Option<&Part> {
        self.check.parts.get(&name_of(key))
    }
}

/// Where it is played: a partition that is well, its leader, and two of its followers (or one twice).
#[derive(Clone, Copy, Debug)]
struct Scene {
    key: Key,
    leader: usize,
    followers: [usize; 2],
}

impl Scene {
    /// A partition with this many replicas at least, the leader of which is not the controller.
    fn find(core: &mut Core, replicas: usize) -> Option<Self> {
        let lease = core.api.lease.as_ref()?;
        let controller = place(Holder::parse(lease.holder.as_deref()?)?.broker);
        let up = core.nodes.iter().all(|node| node.up.is_some());
        let unfenced = core.check.brokers.values().all(|broker| !broker.fenced);
        if !up || !unfenced {
            return None;
        }
        let well = |part: &Part| {
            part.replicas.len() >= replicas
                && part.isr.len() == part.replicas.len()
                && part.adding.is_empty()
        };
        let scenes = core.check.parts.iter().filter_map(|(name, part)| {
            let key = key_of(name).filter(|key| well(part) && !core.check.is_internal(*key))?;
            let leader = usize::try_from(part.leader?).ok()?;
            let others = part.replicas.iter().filter(|id| Some(**id) != part.leader);
            let others: Vec<usize> = others.filter_map(|id| usize::try_from(*id).ok()).collect();
            let followers = [*others.first()?, *others.last()?];
            (leader != controller && core.is_informed(leader)).then_some(Self {
                key,
                leader,
                followers,
            })
        });
        let scenes: Vec<Self> = scenes.collect();
        let nth = core.rng.random_range(0..scenes.len().max(1));
        scenes.get(nth).copied()
    }
}

/// One of them, and how far it has come.
enum Play {
    LateFetch(late_fetch::LateFetch),
    OldEpoch(old_epoch::OldEpoch),
    TwoWishes(two_wishes::TwoWishes),
}

/// What a run has after its faults.
pub struct Ploy {
    kind: u8,
    began: u64,
    play: Option<Play>,
}

impl Ploy {
    /// That of one run, if it has one.
    pub fn draw(core: &mut Core, wide: bool) -> Option<Self> {
        (wide && core.chance(500)).then(|| Self {
            kind: core.rng.random_range(0..3),
            began: core.now,
            play: None,
        })
    }

    /// Does what is next; true once it is over.
    pub fn is_over(&mut self, core: &mut Core) -> bool {
        let over = match &mut self.play {
            None => {
                self.begin(core);
                core.now > self.began + LOOKS_FOR
            }
            Some(play) => {
                let over = match play {
                    Play::LateFetch(play) => play.is_over(core),
                    Play::OldEpoch(play) => play.is_over(core),
                    Play::TwoWishes(play) => play.is_over(core),
                };
                let lasts = match play {
                    Play::LateFetch(_) => LASTS_WITH_A_RESTART,
                    Play::OldEpoch(_) | Play::TwoWishes(_) => LASTS,
                };
                over || core.now > self.began + lasts
            }
        };
        if over {
            core.note("ploy  is over");
            core.trap = None;
            core.quiet = None;
            core.cuts.clear();
            core.mute.clear();
        }
        over
    }

    fn begin(&mut self, core: &mut Core) {
        let replicas = if self.kind == 0 { 2 } else { 3 };
        let Some(scene) = Scene::find(core, replicas) else {
            return;
        };
        self.began = core.now;
        let (name, play) = match self.kind {
            0 => (
                "late fetch",
                Play::LateFetch(late_fetch::LateFetch::begin(scene, core)),
            ),
            1 => (
                "old epoch",
                Play::OldEpoch(old_epoch::OldEpoch::begin(scene)),
            ),
            _ => (
                "two wishes",
                Play::TwoWishes(two_wishes::TwoWishes::begin(scene)),
            ),
        };
        core.note(format!("ploy  {name} on {scene:?}"));
        self.play = Some(play);
    }
}
