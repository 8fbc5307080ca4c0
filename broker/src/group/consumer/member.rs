//! A member of a group of the newer protocol.

use crate::group::store::consumer::{
    ClassicMetadata, CurrentValue, MemberMetadata, MemberState, Owned, Partitions,
};
use leasehold_types::TopicId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The epoch of a member that joins.
pub const JOINING: i32 = 0;
/// The epoch of a member that leaves for good.
pub const LEAVING: i32 = -1;
/// The epoch of a static member that leaves and may come back.
pub const STATIC_LEAVING: i32 = -2;

/// A member: what it told of itself, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: Arc<str>,
    pub metadata: Arc<MemberMetadata>,
    pub current: Arc<CurrentValue>,
}

impl Member {
    /// Somebody who has just come.
    pub fn new(id: Arc<str>) -> Self {
        Self {
            id,
            metadata: Arc::default(),
            current: Arc::default(),
        }
    }

    pub fn epoch(&self) -> i32 {
        self.current.epoch
    }

    pub fn instance(&self) -> Option<&str> {
        self.metadata.instance_id.as_deref()
    }

    /// What it joined with, if it uses the classic protocol.
    pub fn classic(&self) -> Option<&ClassicMetadata> {
        self.metadata.classic.as_ref()
    }

    /// Whether it has all that the target of this epoch gives it.
    pub fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == target_epoch
    }

    /// Every partition that nobody else may have because of this member.
    pub fn holds(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let both = self.current.assigned.iter().chain(&self.current.revoking);
        both.flat_map(|(topic, partitions)| partitions.keys().map(|p| (*topic, *p)))
    }

    /// Whether `owned` is no more than what was assigned.
    pub fn was_assigned(&self, owned: &Partitions) -> bool {
        owned.iter().all(|(topic, partitions)| {
            let assigned = self.current.assigned.get(topic);
            partitions
                .iter()
                .all(|p| assigned.is_some_and(|all| all.contains_key(p)))
        })
    }
}

/// The partitions without their epochs.
pub fn partitions(owned: &Owned) -> Partitions {
    let numbers = |topic: &TopicId| owned[topic].keys().copied().collect::<BTreeSet<i32>>();
    owned.keys().map(|topic| (*topic, numbers(topic))).collect()
}
