//! A leader's wish to take a follower into the ISR is held back, and that follower falls silent; so does another, whom the
//! leader would now put out. It must not do so with a second wish and forget the first, which may still be granted: the
//! high watermark would pass a follower that is about to become a member (`one-proposal-at-a-time`).

use super::{Prey, Scene, Trap};
use crate::core::Core;

/// Longer than a follower may lag.
const LAG: u64 = 550;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The joiner is put out.
    PutOut,
    /// It is to come back.
    Wishes,
    /// Both are silent.
    Silent(u64),
    /// The other is back, and the joiner is not.
    Goes(u64),
    Arrived(u64),
}

pub(super) struct TwoWishes {
    scene: Scene,
    step: Step,
}

impl TwoWishes {
    pub fn begin(scene: Scene) -> Self {
        Self {
            scene,
            step: Step::PutOut,
        }
    }

    pub fn is_over(&mut self, core: &mut Core) -> bool {
        let Scene {
            key,
            leader,
            followers: [joiner, other],
        } = self.scene;
        match self.step {
            Step::PutOut => {
                core.mute_for_now(&[joiner]);
                let id = i64::try_from(joiner).unwrap_or(-1);
                let part = core.part(key);
                if part.is_some_and(|part| !part.isr.contains(&id)) && core.is_informed(leader) {
                    core.trap = Some(Trap::new(leader, Prey::Wish(key)));
                    self.step = Step::Wishes;
                }
            }
            Step::Wishes => {
                if core.has_caught() {
                    core.note("ploy  a wish is held back");
                    self.step = Step::Silent(core.now + LAG);
                }
            }
            Step::Silent(until) => {
                core.mute_for_now(&[joiner, other]);
                if core.now > until {
                    self.step = Step::Goes(core.now + 200);
                }
            }
            Step::Goes(until) => {
                core.mute_for_now(&[joiner]);
                if core.now > until {
                    core.release_first();
                    self.step = Step::Arrived(core.now + 150);
                }
            }
            Step::Arrived(until) => {
                core.mute_for_now(&[joiner]);
                return core.now > until;
            }
        }
        false
    }
}
