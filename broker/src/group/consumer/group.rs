//! The state of a group of the newer protocol. A clone costs next to nothing, so that a change can be
//! worked out on a copy and only takes effect once it is stored.

use super::member::Member;
use crate::group::store::consumer::{EpochValue, Partitions, RegexValue, TargetEpochValue};
use crate::group::store::loaded::LoadedConsumer;
use imbl::OrdMap;
use leasehold_types::TopicId;
use std::sync::Arc;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No members; perhaps committed offsets.
    Empty,
    /// The target is older than the group.
    Assigning,
    /// Members are on their way to their targets.
    Reconciling,
    /// Everyone has what the target gives them.
    Stable,
}

impl State {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A group of the newer protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerGroup {
    pub(super) id: Arc<str>,
    pub(super) epoch: EpochValue,
    pub(super) target_epoch: TargetEpochValue,
    pub(super) members: OrdMap<Arc<str>, Arc<Member>>,
    pub(super) targets: OrdMap<Arc<str>, Arc<Partitions>>,
    /// The topics of every regular expression that a member subscribes to.
    pub(super) regexes: OrdMap<Arc<str>, Arc<RegexValue>>,
    /// Instance id to member id.
    pub(super) statics: OrdMap<Arc<str>, Arc<str>>,
    /// Who has a partition, or still has to give it up.
    pub(super) holders: OrdMap<(TopicId, i32), Arc<str>>,
}

impl ConsumerGroup {
    /// A group without members.
    pub fn new(id: Arc<str>) -> Self {
        Self {
            id,
            epoch: EpochValue::default(),
            target_epoch: TargetEpochValue::default(),
            members: OrdMap::new(),
            targets: OrdMap::new(),
            regexes: OrdMap::new(),
            statics: OrdMap::new(),
            holders: OrdMap::new(),
        }
    }

    /// The group as its records tell.
    pub fn loaded(id: Arc<str>, loaded: LoadedConsumer) -> Self {
        let mut group = Self::new(id);
        group.epoch = loaded.epoch.unwrap_or_default();
        group.target_epoch = loaded.target_epoch.unwrap_or_default();
        for (member_id, found) in loaded.members {
            let id: Arc<str> = member_id.into();
            if let Some(target) = found.target {
                group.targets.insert(id.clone(), Arc::new(target));
            }
            // Without what it told of itself there is no member, only the rest of one.
            if let Some(metadata) = found.metadata {
                group.put(Member {
                    id,
                    metadata: Arc::new(metadata),
                    current: Arc::new(found.current.unwrap_or_default()),
                });
            }
        }
        for (regex, value) in loaded.regexes {
            group.regexes.insert(regex.into(), Arc::new(value));
        }
        group
    }

    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        let target = self.target_epoch.epoch;
        if self.members.is_empty() {
            State::Empty
        } else if self.epoch.epoch > target {
            State::Assigning
        } else if self.members.values().all(|m| m.is_reconciled_to(target)) {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    /// The group's epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch.epoch
    }

    /// The epoch of the target assignment.
    pub fn target_epoch(&self) -> i32 {
        self.target_epoch.epoch
    }

    /// The members, by their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Arc<Member>> {
        self.members.values()
    }

    pub fn member(&self, id: &str) -> Option<&Arc<Member>> {
        self.members.get(id)
    }

    /// The member that holds an instance id.
    pub fn static_member(&self, instance: &str) -> Option<&Arc<Member>> {
        self.members.get(self.statics.get(instance)?)
    }

    /// What a member is to have.
    pub fn target(&self, member_id: &str) -> Arc<Partitions> {
        self.targets.get(member_id).cloned().unwrap_or_default()
    }

    /// Whether nothing would be lost by forgetting this group.
    pub fn is_blank(&self) -> bool {
        self.members.is_empty() && self.epoch == EpochValue::default()
    }

    /// Whether another than `member` has a partition, or still has to give it up.
    pub(super) fn held_by_other(&self, member: &str, topic: TopicId, partition: i32) -> bool {
        let holder = self.holders.get(&(topic, partition));
        holder.is_some_and(|holder| &**holder != member)
    }

    /// Adds a member, or replaces it by its newer state.
    pub(super) fn put(&mut self, member: Member) {
        if let Some(older) = self.members.get(&member.id).cloned() {
            self.release(&older);
        }
        for held in member.holds() {
            // The first holder stays, whatever a log says: two are never let loose on one partition.
            if !self.holders.contains_key(&held) {
                self.holders.insert(held, member.id.clone());
            }
        }
        if let Some(instance) = member.instance() {
            self.statics.insert(instance.into(), member.id.clone());
        }
        self.members.insert(member.id.clone(), Arc::new(member));
    }

    /// Takes a member out, and its target with it.
    pub(super) fn take(&mut self, member_id: &str) -> Option<Arc<Member>> {
        let member = self.members.remove(member_id)?;
        self.release(&member);
        self.targets.remove(member_id);
        Some(member)
    }

    fn release(&mut self, member: &Member) {
        for held in member.holds() {
            if self.holders.get(&held) == Some(&member.id) {
                self.holders.remove(&held);
            }
        }
        if let Some(instance) = member.instance()
            && self.statics.get(instance) == Some(&member.id)
        {
            self.statics.remove(instance);
        }
    }

    /// Panics if a promise of the module does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        use std::collections::BTreeMap;
        let mut holders = BTreeMap::new();
        for member in self.members.values() {
            for held in member.holds() {
                let other = holders.insert(held, member.id.clone());
                assert_eq!(other, None, "two hold {held:?}: {self:#?}");
            }
        }
        assert_eq!(
            holders,
            self.holders.iter().map(|(k, v)| (*k, v.clone())).collect()
        );
        assert!(self.target_epoch.epoch <= self.epoch.epoch);
        for member in self.members.values() {
            assert!(member.epoch() <= self.target_epoch.epoch, "{self:#?}");
        }
    }
}
