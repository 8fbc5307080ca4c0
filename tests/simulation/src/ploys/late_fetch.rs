//! A follower's fetch is held back; the follower loses its power, and with it what it had fetched, and is back, out of the
//! ISR and silent, in its next life. Then the fetch arrives. Nothing was produced meanwhile, so that what it says
//! would make its follower as good as a member (`fetch-incarnation`).

use super::{Prey, Scene, Trap};
use crate::core::Core;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// What was just produced reaches the follower, which has not flushed it.
    Settles(u64),
    Holds,
    ComesBack,
    Arrived(u64),
}

pub(super) struct LateFetch {
    scene: Scene,
    life: i64,
    step: Step,
}

impl LateFetch {
    pub fn begin(scene: Scene, core: &mut Core) -> Self {
        core.quiet = Some(scene.key);
        let follower = i64::try_from(scene.followers[0]).unwrap_or(-1);
        let life = core.check.brokers.get(&follower);
        Self {
            scene,
            life: life.map_or(0, |broker| broker.incarnation),
            step: Step::Settles(core.now + 150),
        }
    }

    pub fn is_over(&mut self, core: &mut Core) -> bool {
        let Scene {
            leader, followers, ..
        } = self.scene;
        let follower = followers[0];
        match self.step {
            Step::Settles(until) => {
                if core.now >= until {
                    core.trap = Some(Trap::new(follower, Prey::FetchFrom(leader)));
                    self.step = Step::Holds;
                }
            }
            Step::Holds => {
                if core.has_caught() {
                    core.struck.push(follower);
                    self.step = Step::ComesBack;
                }
            }
            Step::ComesBack => {
                core.mute_for_now(&[follower]);
                if self.is_back(core) && core.is_informed(leader) {
                    core.release_first();
                    self.step = Step::Arrived(core.now + 400);
                }
            }
            Step::Arrived(until) => {
                core.mute_for_now(&[follower]);
                return core.now > until;
            }
        }
        false
    }

    /// The follower is registered anew, unfenced, and not yet a member.
    fn is_back(&self, core: &Core) -> bool {
        let id = i64::try_from(self.scene.followers[0]).unwrap_or(-1);
        let broker = core.check.brokers.get(&id);
        let anew = broker.is_some_and(|broker| broker.incarnation != self.life && !broker.fenced);
        let part = core.part(self.scene.key);
        anew && part.is_some_and(|part| !part.isr.contains(&id))
    }
}
