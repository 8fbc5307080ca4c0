//! A leader has records that one of its followers holds and the other does not. The holder's next fetch is held back, and
//! the leader hears nothing while its leadership goes to the other and back: for that moment the holder follows
//! the other, and cuts its log off. When the first leads again, with its log as it was, the old fetch arrives, and then the
//! other's fetches; the holder stays silent. The fetch is of an epoch that is over (`fetch-of-an-older-epoch`).

use super::{Prey, Scene, Trap};
use crate::check::{Part, name_of};
use crate::clients::ask_for;
use crate::core::Core;
use leasehold_metadata::rpc::{AdminRequest, ElectionKind, Reassignment};
use leasehold_types::BrokerId;

/// What was asked for and did not happen is asked for again.
const AGAIN: u64 = 60;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Only the holder gets what is produced.
    Parts,
    Holds,
    /// The leadership goes to the other.
    Goes,
    /// The holder follows the other.
    Follows,
    /// The leadership goes back.
    Returns,
    /// The leader must hear of that.
    Hears,
    Arrived(u64),
}

pub(super) struct OldEpoch {
    scene: Scene,
    step: Step,
    ask_at: u64,
}

impl OldEpoch {
    pub fn begin(scene: Scene) -> Self {
        Self {
            scene,
            step: Step::Parts,
            ask_at: 0,
        }
    }

    pub fn is_over(&mut self, core: &mut Core) -> bool {
        let Scene {
            key,
            leader,
            followers: [holder, other],
        } = self.scene;
        let Some(part) = core.part(key).cloned() else {
            return true;
        };
        let leads = |node: usize| part.leader == i64::try_from(node).ok();
        match self.step {
            Step::Parts => {
                core.mute_for_now(&[other]);
                let ends = [holder, other].map(|node| core.end_on(node, key));
                if ends[0] > ends[1] && ends[0] == core.end_on(leader, key) {
                    core.quiet = Some(key);
                    core.trap = Some(Trap::new(holder, Prey::FetchFrom(leader)));
                    self.step = Step::Holds;
                }
            }
            Step::Holds => {
                core.mute_for_now(&[other]);
                if core.has_caught() {
                    core.deafen(leader);
                    self.step = Step::Goes;
                }
            }
            Step::Goes => {
                self.lead(core, &part, other);
                if leads(other) {
                    self.step = Step::Follows;
                }
            }
            Step::Follows => {
                if core.end_on(holder, key) < core.end_on(leader, key) {
                    core.note("ploy  the holder has cut its log off");
                    self.step = Step::Returns;
                }
            }
            Step::Returns => {
                self.lead(core, &part, leader);
                if leads(leader) {
                    core.cuts.clear();
                    self.step = Step::Hears;
                }
            }
            Step::Hears => {
                core.mute_for_now(&[holder, other]);
                if core.is_informed(leader) {
                    core.release_first();
                    self.step = Step::Arrived(core.now + 250);
                }
            }
            Step::Arrived(until) => {
                core.mute_for_now(&[holder]);
                return core.now > until;
            }
        }
        false
    }

    /// Asks that `node` be the preferred leader, and then that it lead.
    fn lead(&mut self, core: &mut Core, part: &Part, node: usize) {
        if core.now < self.ask_at {
            return;
        }
        self.ask_at = core.now + AGAIN;
        let Some(topic) = core.check.topics.get(&name_of(self.scene.key).0) else {
            return;
        };
        let (topic, partition) = (topic.name.clone(), self.scene.key.1);
        let id = i64::try_from(node).unwrap_or(-1);
        let request = match part.replicas.first() == Some(&id) {
            true => AdminRequest::ElectLeaders {
                kind: ElectionKind::Preferred,
                partitions: Some(vec![(topic, partition)]),
            },
            false => {
                let others = part.replicas.iter().filter(|other| **other != id);
                let replicas = std::iter::once(&id).chain(others);
                let replicas = replicas.filter_map(|id| i32::try_from(*id).ok());
                AdminRequest::AlterReassignments {
                    items: vec![Reassignment {
                        topic,
                        partition,
                        replicas: Some(replicas.map(BrokerId).collect()),
                    }],
                    allow_replication_factor_change: false,
                }
            }
        };
        ask_for(core, request);
    }
}
