//! Which broker may be restarted now, and why none otherwise; pure.
//!
//! Promises: a broker that serves is taken away only while every other is there (its pod ready for a
//! while, its broker unfenced and in every ISR it belongs to), and only if every partition keeps as many
//! replicas in sync as acks=all needs; the controller goes last; a pod that cannot start stops the roll,
//! and is itself replaced at once when it was made from something that is no longer wanted. It waits
//! without limit, and says what for. Where racks go as one, those of its own rack may be away, too: every
//! partition keeps as many replicas in sync without all of them.
//!
//! A stop moves leaders away by itself (SIGTERM, see broker/src/run), so nothing here does.

mod gates;
mod revision;
#[cfg(test)]
mod tests;
mod trouble;
#[cfg(test)]
mod walk;

pub use gates::{Survives, survives};
pub use revision::Revision;
pub use trouble::{ready_since, trouble};

use gates::Gates;
use leasehold_crds::RollingUnit;
use leasehold_metadata::image::Image;
use std::time::Duration;

/// A broker's pod, as far as a restart is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    pub name: String,
    pub uid: String,
    pub ordinal: i32,
    /// What the pod was made from; `None` if it was made before pods were marked.
    pub revision: Option<String>,
    /// Whether somebody asked for a restart of this very pod.
    pub asked: bool,
    pub terminating: bool,
    /// How long it has been ready; `None` if it is not.
    pub ready_for: Option<Duration>,
    /// Why it does not start and will not by itself: nothing of it runs.
    pub trouble: Option<String>,
}

/// What the user allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a pod must have been ready before the next goes.
    pub settle: Duration,
    /// Whether partitions that need every one of their replicas may be unavailable meanwhile.
    pub may_interrupt: bool,
    /// What may be away at the same time.
    pub unit: RollingUnit,
}

/// All that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub pods: &'a [PodFacts],
    /// What a pod of today is made from.
    pub wanted: &'a str,
    /// Whether a pod that is deleted now would come back as that.
    pub template_is_current: bool,
    /// Brokers there should be, numbered from 0. Those beyond are leaving.
    pub brokers: i32,
    /// The metadata; `None` while it could not be read.
    pub image: Option<&'a Image>,
    /// Whether a roll was under way when this was last looked at: it ends when all are back.
    pub under_way: bool,
    pub policy: Policy,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roll {
    /// Every pod runs what is wanted.
    Done,
    /// This pod now.
    Restart(Restart),
    /// What a roll that goes on by itself waits for.
    Waiting(String),
    /// What no waiting mends: a partition has too few replicas, or a failed one.
    Blocked(String),
    /// A pod of today cannot start.
    Stuck(String),
}

/// One restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    pub pod: String,
    /// That very pod, not the one that came after it.
    pub uid: String,
    /// What is different about it.
    pub cause: String,
    /// Pods that follow.
    pub left: usize,
    /// Whether others of its rack are away already.
    pub joins: bool,
}

impl Facts<'_> {
    /// Pods to be restarted: those that stand and are not what is wanted, in the order of their ordinals.
    pub fn behind(&self) -> Vec<&PodFacts> {
        let mut found: Vec<_> = self
            .pods
            .iter()
            .filter(|pod| self.stays(pod) && !pod.terminating)
            .filter(|pod| pod.asked || pod.revision.as_deref() != Some(self.wanted))
            .collect();
        found.sort_by_key(|pod| pod.ordinal);
        found
    }

    fn stays(&self, pod: &PodFacts) -> bool {
        (0..self.brokers).contains(&pod.ordinal)
    }

    fn restart(&self, pod: &PodFacts, behind: usize) -> Roll {
        let cause = match Revision::difference(pod.revision.as_deref(), self.wanted) {
            Some(what) => format!("its {what} changed"),
            None => "it was asked for".to_owned(),
        };
        Roll::Restart(Restart {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            cause,
            left: behind.saturating_sub(1),
            joins: false,
        })
    }
}

/// Decides.
pub fn decide(facts: &Facts<'_>) -> Roll {
    let behind = facts.behind();
    if behind.is_empty() {
        return end(facts);
    }
    if !facts.template_is_current {
        return Roll::Waiting("the StatefulSet to take the change in".to_owned());
    }
    // Nothing of it runs, so nothing is taken away.
    if let Some(pod) = behind.iter().find(|pod| pod.trouble.is_some()) {
        return facts.restart(pod, behind.len());
    }
    let Some(image) = facts.image else {
        return Roll::Waiting("the cluster's metadata, which could not be read".to_owned());
    };
    let gates = Gates::new(facts, image);
    // A pod that is not ready is away already, if no partition counts on it.
    let unready = behind.iter().filter(|pod| pod.ready_for.is_none());
    for pod in unready {
        if gates.serves_nothing(pod.ordinal) && gates.shortage(pod.ordinal).is_none() {
            return facts.restart(pod, behind.len());
        }
    }
    let controller = crate::admin::controller(image).map(|broker| broker.0);
    let (mut ready, last): (Vec<&PodFacts>, Vec<&PodFacts>) = behind
        .iter()
        .filter(|pod| pod.ready_for.is_some())
        .partition(|pod| Some(pod.ordinal) != controller);
    ready.reverse();
    if facts.policy.unit == RollingUnit::Rack {
        // Stable: of a rack still the highest first. The one that has begun, and the controller's last.
        ready.sort_by_cached_key(|pod| gates.turn(pod.ordinal, controller));
    }
    // Not while another that is to be restarted only starts.
    if behind.len() == last.len() {
        ready = last;
    }
    let mut first = None;
    for pod in ready {
        let hindrance = gates.hindrance(pod.ordinal);
        let Some(hindrance) = hindrance else {
            let mut roll = facts.restart(pod, behind.len());
            if let Roll::Restart(restart) = &mut roll {
                restart.joins = gates.rack_has_begun(pod.ordinal);
            }
            return roll;
        };
        // What only this pod's restart would suffer from may not concern the next.
        if !matches!(hindrance, Roll::Blocked(_)) {
            return hindrance;
        }
        first.get_or_insert(hindrance);
    }
    first.unwrap_or_else(|| gates.not_back())
}

/// When nothing is left to restart.
fn end(facts: &Facts<'_>) -> Roll {
    let mut stuck = facts.pods.iter().filter(|pod| facts.stays(pod));
    if let Some((pod, trouble)) = stuck.find_map(|pod| Some((pod, pod.trouble.as_ref()?))) {
        return Roll::Stuck(format!("{} does not start: {trouble}", pod.name));
    }
    let left = match facts.image {
        Some(image) if facts.under_way => Gates::new(facts, image).unfinished(),
        _ => None,
    };
    left.unwrap_or(Roll::Done)
}
