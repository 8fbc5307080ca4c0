//! How one member moves towards its target: it gives up first, then it is raised to the target's epoch,
//! then it gets what is free of its target, and the rest as others give it up.

use super::member::Member;
use crate::group::store::consumer::{CurrentValue, MemberState, Owned, Partitions};
use leasehold_types::TopicId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a member is to be led.
pub(super) struct Goal<'a> {
    pub epoch: i32,
    pub target: &'a Partitions,
    /// Topics that the member subscribes to by now; of others it gets nothing, whatever the target says.
    pub subscribed: &'a BTreeSet<TopicId>,
    /// Whether its subscription has just changed: what it lost goes at once.
    pub changed: bool,
    /// What the member says it has, if it says so.
    pub owned: Option<&'a Partitions>,
}

/// The member's next state; the same as before if it has to wait. `held_by_other`: whether another
/// member has a partition, or still has to give it up. `Err`: the member must rejoin with nothing.
pub(super) fn reconcile(
    member: &Member,
    goal: &Goal<'_>,
    held_by_other: impl Fn(TopicId, i32) -> bool,
) -> Result<Arc<CurrentValue>, ()> {
    let current = &member.current;
    let next = |epoch: i32| step(current, epoch, goal, &held_by_other);
    match current.state {
        MemberState::Stable if current.epoch != goal.epoch => Ok(next(current.epoch)),
        MemberState::Unrevoked if !owns(goal.owned, &current.revoking) => Ok(next(current.epoch)),
        MemberState::Unreleased => Ok(next(current.epoch)),
        MemberState::Stable | MemberState::Unrevoked if goal.changed => {
            Ok(unsubscribe(current, goal))
        }
        MemberState::Stable | MemberState::Unrevoked => Ok(current.clone()),
        MemberState::Unknown if goal.owned.is_some_and(Partitions::is_empty) => {
            Ok(next(goal.epoch))
        }
        MemberState::Unknown => Err(()),
    }
}

/// Whether the member may still have any of `partitions`: it says so, or says nothing.
fn owns(owned: Option<&Partitions>, partitions: &Owned) -> bool {
    let Some(owned) = owned else { return true };
    partitions.iter().any(|(topic, lost)| {
        let has = owned.get(topic);
        has.is_some_and(|has| has.iter().any(|p| lost.contains_key(p)))
    })
}

fn step(
    current: &CurrentValue,
    epoch: i32,
    goal: &Goal<'_>,
    held_by_other: impl Fn(TopicId, i32) -> bool,
) -> Arc<CurrentValue> {
    let mut kept = Owned::new();
    let mut lost = Owned::new();
    let targets = |topic: &TopicId, partition: &i32| {
        let target = goal
            .target
            .get(topic)
            .filter(|_| goal.subscribed.contains(topic));
        target.is_some_and(|target| target.contains(partition))
    };
    for (topic, partitions) in &current.assigned {
        for (partition, since) in partitions {
            let to = if targets(topic, partition) {
                &mut kept
            } else {
                &mut lost
            };
            to.entry(*topic).or_default().insert(*partition, *since);
        }
    }
    if !lost.is_empty() && owns(goal.owned, &lost) {
        return Arc::new(CurrentValue {
            epoch,
            previous_epoch: previous(current, epoch),
            state: MemberState::Unrevoked,
            assigned: kept,
            revoking: lost,
        });
    }
    let mut unreleased = false;
    for (topic, target) in goal.target {
        if !goal.subscribed.contains(topic) {
            continue;
        }
        for partition in target {
            let has = kept
                .get(topic)
                .is_some_and(|kept| kept.contains_key(partition));
            if has {
                continue;
            }
            if held_by_other(*topic, *partition) {
                unreleased = true;
            } else {
                let topic = kept.entry(*topic).or_default();
                topic.insert(*partition, goal.epoch);
            }
        }
    }
    Arc::new(CurrentValue {
        epoch: goal.epoch,
        previous_epoch: previous(current, goal.epoch),
        state: match unreleased {
            true => MemberState::Unreleased,
            false => MemberState::Stable,
        },
        assigned: kept,
        revoking: Owned::new(),
    })
}

/// The member changed its subscription, but there is no newer target yet: it gives up what it does not
/// subscribe to any more.
fn unsubscribe(current: &CurrentValue, goal: &Goal<'_>) -> Arc<CurrentValue> {
    let mut next = current.clone();
    let gone = next
        .assigned
        .keys()
        .filter(|topic| !goal.subscribed.contains(*topic));
    for topic in gone.copied().collect::<Vec<_>>() {
        let lost = next.assigned.remove(&topic).unwrap_or_default();
        next.revoking.entry(topic).or_default().extend(lost);
    }
    if !next.revoking.is_empty() && owns(goal.owned, &next.revoking) {
        next.state = MemberState::Unrevoked;
    } else {
        next.revoking = Owned::new();
    }
    Arc::new(next)
}

/// The epoch that a member may still use whose answer got lost.
fn previous(current: &CurrentValue, epoch: i32) -> i32 {
    match epoch == current.epoch {
        true => current.previous_epoch,
        false => current.epoch,
    }
}
