//! Consumers in groups: they find their coordinator, join, sync, heartbeat, fetch and commit offsets, leave, crash,
//! stand still and come back; and one that commits without being in a group.
//!
//! They read no records: where a consumer is, is a number that grows. What they may be told is the checker's to
//! judge (`check/groups.rs`); here it is only said whether a group is well (G4).

mod loner;
pub mod mail;
mod member;
mod pending;
pub mod protocol;

use crate::core::{Core, STEP};
use loner::Loner;
use member::Member;
use rand::Rng as _;
use std::collections::BTreeMap;

/// A member who is silent for so long is out, in milliseconds.
pub const SESSION: i32 = 2_000;
/// So long a rebalance waits.
pub const REBALANCE: i32 = 2_500;
/// The broker's limit for a write of a coordinator, and the wait of a first rebalance.
pub const COMMIT_TIMEOUT: i32 = 1_500;
pub const FIRST_DELAY: i32 = 300;

/// The connections of members are no producer's; the last is the loner's.
const LINES: u64 = 1 << 40;

/// A group: its id, the topics that all its members want, and how many are static and dynamic.
struct Plan {
    id: &'static str,
    topics: &'static [&'static str],
    statics: usize,
    dynamic: usize,
}

const PLANS: [Plan; 3] = [
    Plan {
        id: "readers",
        topics: &["t", "u"],
        statics: 0,
        dynamic: 3,
    },
    Plan {
        id: "tills",
        topics: &["t", "v", "w"],
        statics: 2,
        dynamic: 1,
    },
    Plan {
        id: "spare",
        topics: &["u"],
        statics: 0,
        dynamic: 2,
    },
];

/// All of them.
#[derive(Default)]
pub struct Groups {
    /// Whether there are any in this run.
    here: bool,
    members: Vec<Member>,
    loner: Option<Loner>,
    /// Milliseconds between two mishaps of a member, on average.
    every: u64,
}

impl Groups {
    /// Those of one run, if there may be `any`: most have none, and are the faster for it.
    pub fn draw(core: &mut Core, any: bool) -> Self {
        Self {
            here: core.chance(300) && any,
            ..Self::default()
        }
    }

    fn begin(&mut self, core: &mut Core) {
        self.every = core.rng.random_range(1_500..9_000);
        for plan in &PLANS {
            for n in 0..plan.statics + plan.dynamic {
                let line = LINES + self.members.len() as u64;
                let is_static = n < plan.statics;
                let member = Member::new(plan.id, plan.topics, (n, line), is_static, core);
                self.members.push(member);
            }
        }
        self.loner = Some(Loner::new("alone", core));
    }

    /// What they do in one step; mishaps only in bad times.
    pub fn step(&mut self, core: &mut Core, trouble: bool) {
        if !self.here {
            return;
        }
        if self.members.is_empty() {
            self.begin(core);
        }
        for member in &mut self.members {
            if trouble && core.rng.random_range(0..self.every) < STEP {
                member.mishap(core);
            }
            member.step(core, trouble);
        }
        if let Some(loner) = &mut self.loner {
            loner.step(core, trouble);
        }
    }

    /// The faults ended.
    pub fn healed(&mut self, core: &mut Core) {
        for member in &mut self.members {
            member.healed(core.now);
        }
        // Only now: while there is trouble, some rebalance of another cause would put it out.
        if self.here
            && core.chance(500)
            && let Some(last) = self.members.last_mut()
        {
            last.go_for_good();
        }
        if let Some(loner) = &mut self.loner {
            loner.healed();
        }
    }

    /// A group that is not well: not everyone in one generation, or not every partition with one of them, or its
    /// offsets not committed.
    pub fn ill(&self, core: &Core) -> Option<String> {
        for plan in PLANS.iter().filter(|_| self.here) {
            let members = self.members.iter();
            let members: Vec<&Member> = members.filter(|m| m.group == plan.id && !m.gone).collect();
            if let Some(why) = members.iter().find_map(|member| member.ill(core.now)) {
                return Some(format!("G4 group {}: {why}", plan.id));
            }
            let generations: Vec<i32> = members.iter().map(|member| member.generation).collect();
            if generations.windows(2).any(|two| two[0] != two[1]) {
                return Some(format!("G4 group {} is in {generations:?}", plan.id));
            }
            let mut owners: BTreeMap<(String, i32), usize> = BTreeMap::new();
            for share in members.iter().flat_map(|member| &member.share) {
                *owners.entry(share.clone()).or_default() += 1;
            }
            let wanted = protocol::partitions(core, plan.topics);
            if owners.len() != wanted.len() || owners.values().any(|count| *count != 1) {
                let id = plan.id;
                return Some(format!("G4 group {id} shares {owners:?} of {wanted:?}"));
            }
        }
        self.loner.as_ref().and_then(Loner::ill)
    }
}
