//! From the classic protocol to the newer one and back, while members go on (KIP-848, online migration).

use super::classic::{CONSUMER, by_id, named, version};
use super::group::ConsumerGroup;
use super::member::Member;
use super::{Refused, World};
use crate::group::state::Group;
use crate::group::store::consumer::{
    ClassicMetadata, CurrentValue, EpochValue, MemberMetadata, MemberState, Owned, TargetEpochValue,
};
use crate::group::store::protocol::{Subscription, decode_assignment, encode_assignment};
use crate::group::store::records::{GroupValue, MemberValue};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

impl ConsumerGroup {
    /// A classic group with its members, as one of the newer protocol: everyone keeps what they have.
    pub fn upgraded(classic: &Group, world: &World<'_>) -> Result<Self, Refused> {
        let id = classic.id();
        let refused = |why: String| Err(Refused::new(ErrorCode::GroupIdNotFound, why));
        if !world.settings.migration.upgrades() || classic.protocol_type() != Some(CONSUMER) {
            return refused(format!("Group {id} is not a consumer group."));
        }
        if classic.members().len() > world.settings.max_size {
            return refused(format!(
                "Cannot upgrade the classic group {id}: it has too many members."
            ));
        }
        let mut group = Self::new(id.clone());
        group.epoch = EpochValue {
            epoch: classic.generation(),
            // Not that of any topics: whoever comes first raises the epoch.
            metadata_hash: 0,
        };
        group.target_epoch = TargetEpochValue {
            epoch: classic.generation(),
            timestamp: world.now.wall,
        };
        for member in classic.members() {
            let first = member.protocols.first().map(|p| p.name.as_str());
            let metadata = member.metadata(classic.protocol().or(first));
            let subscription = Subscription::decode(&metadata);
            let assigned = decode_assignment(&member.assignment);
            let (Ok(subscription), Ok(assigned)) = (subscription, assigned) else {
                return refused(format!(
                    "Cannot upgrade the classic group {id} to consumer group because the embedded consumer \
                     protocol is malformed."
                ));
            };
            let mut owned = Owned::new();
            for (topic, partitions) in by_id(&assigned, world.image) {
                // An assignor of a client's own may have given one partition to two.
                let free = |p: &i32| !group.held_by_other(&member.id, topic, *p);
                let with_epochs = partitions.into_iter().filter(free);
                let with_epochs = with_epochs.map(|p| (p, classic.generation()));
                owned.insert(topic, with_epochs.collect());
            }
            let target = super::member::partitions(&owned);
            group.targets.insert(member.id.clone(), Arc::new(target));
            let protocols = member.protocols.iter();
            group.put(Member {
                id: member.id.clone(),
                metadata: Arc::new(MemberMetadata {
                    instance_id: member.instance.as_deref().map(str::to_owned),
                    rack_id: subscription.rack,
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    topics: subscription.topics,
                    regex: None,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    assignor: None,
                    classic: Some(ClassicMetadata {
                        session_timeout_ms: member.session_timeout_ms,
                        protocols: protocols
                            .map(|p| (p.name.clone(), p.metadata.clone()))
                            .collect(),
                    }),
                }),
                current: Arc::new(CurrentValue {
                    epoch: classic.generation(),
                    previous_epoch: classic.generation(),
                    state: MemberState::Stable,
                    assigned: owned,
                    revoking: Owned::new(),
                }),
            });
        }
        Ok(group)
    }

    /// The group as a classic one, if nobody in it uses the newer protocol any more and it may be one.
    pub fn downgraded(&self, world: &World<'_>) -> Option<GroupValue> {
        let classics: Option<Vec<(&Member, &ClassicMetadata)>> = self
            .members
            .values()
            .map(|member| Some((&**member, member.classic()?)))
            .collect();
        let classics = classics
            .filter(|all| !all.is_empty() && all.len() <= world.settings.classic_max_size)?;
        if !world.settings.migration.downgrades() {
            return None;
        }
        // Everyone knows it, or they would not have been let in.
        let offered = &classics.first()?.1.protocols;
        let common = offered.iter().map(|(name, _)| name).find(|name| {
            let knows = |c: &ClassicMetadata| c.protocols.iter().any(|(theirs, _)| theirs == *name);
            classics.iter().all(|(_, classic)| knows(classic))
        })?;
        let value = |(member, classic): &(&Member, &ClassicMetadata)| {
            let protocol = classic.protocols.iter().find(|(name, _)| name == common)?;
            let names = named(&self.target(&member.id), world.image);
            Some(MemberValue {
                member_id: member.id.to_string(),
                instance_id: member.metadata.instance_id.clone(),
                client_id: member.metadata.client_id.clone(),
                client_host: member.metadata.client_host.clone(),
                rebalance_timeout_ms: member.metadata.rebalance_timeout_ms,
                session_timeout_ms: classic.session_timeout_ms,
                subscription: protocol.1.clone(),
                assignment: encode_assignment(&names, version(&protocol.1)).ok()?.into(),
            })
        };
        Some(GroupValue {
            protocol_type: CONSUMER.to_owned(),
            generation: self.epoch(),
            protocol: Some(common.clone()),
            leader: classics.first().map(|(member, _)| member.id.to_string()),
            state_timestamp: world.now.wall,
            members: classics.iter().map(value).collect::<Option<_>>()?,
        })
    }
}
