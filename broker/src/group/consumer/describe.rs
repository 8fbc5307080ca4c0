//! ConsumerGroupDescribe.

use super::World;
use super::group::ConsumerGroup;
use super::member::{Member, partitions};
use crate::group::store::consumer::Partitions;
use crate::group::types::{ConsumerDescribedGroup, ConsumerDescribedMember, DescribedPartitions};
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;

/// How members of each protocol are marked (v1).
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

impl ConsumerGroup {
    /// The group in detail.
    pub fn describe(&self, world: &World<'_>) -> ConsumerDescribedGroup {
        let members = self.members.values();
        ConsumerDescribedGroup {
            error: ErrorCode::None,
            error_message: None,
            group_id: self.id.to_string(),
            state: self.state().name(),
            epoch: self.epoch(),
            assignment_epoch: self.target_epoch(),
            assignor: self.assignor(&world.settings).name(),
            members: members
                .map(|member| self.describe_member(member, world.image))
                .collect(),
        }
    }

    fn describe_member(&self, member: &Member, image: &Image) -> ConsumerDescribedMember {
        let metadata = &member.metadata;
        ConsumerDescribedMember {
            member_id: member.id.to_string(),
            instance_id: metadata.instance_id.clone(),
            rack_id: metadata.rack_id.clone(),
            epoch: member.epoch(),
            client_id: metadata.client_id.clone(),
            client_host: metadata.client_host.clone(),
            topics: metadata.topics.iter().cloned().collect(),
            regex: metadata.regex.clone(),
            assignment: named(&partitions(&member.current.assigned), image),
            target: named(&self.target(&member.id), image),
            member_type: match member.classic() {
                Some(_) => CLASSIC,
                None => CONSUMER,
            },
        }
    }
}

/// With their names; topics that are no more are left out.
fn named(partitions: &Partitions, image: &Image) -> Vec<DescribedPartitions> {
    let named = partitions.iter().filter_map(|(id, partitions)| {
        Some(DescribedPartitions {
            topic_id: *id,
            topic: image.topic(id)?.name.clone(),
            partitions: partitions.iter().copied().collect(),
        })
    });
    named.collect()
}
