//! ConsumerGroupHeartbeat: joining, staying, moving to the target. The rules are Apache Kafka 4.3's.

use super::assignor::{Question, Subscriber};
use super::group::ConsumerGroup;
use super::member::{JOINING, LEAVING, Member, STATIC_LEAVING, partitions};
use super::reconcile::{Goal, reconcile};
use super::settings::ConsumerSettings;
use super::subscriptions::compile;
use super::{Refused, World};
use crate::group::store::consumer::{CurrentValue, MemberMetadata, Partitions, TargetEpochValue};
use crate::group::types::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// From this version on, members choose their ids themselves.
const OWN_ID_FROM: i16 = 1;

/// Whether a request can be understood at all, whatever the group.
pub fn validate(
    request: &ConsumerHeartbeatRequest,
    settings: &ConsumerSettings,
) -> Result<(), Refused> {
    let invalid = |message: &str| Err(Refused::new(ErrorCode::InvalidRequest, message));
    let needs_id = request.api_version >= OWN_ID_FROM || request.member_epoch != JOINING;
    if needs_id && request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    let empty = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    if empty(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if empty(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    match request.member_epoch {
        JOINING if request.rebalance_timeout_ms == -1 => {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        JOINING if !request.owned.as_ref().is_some_and(Partitions::is_empty) => {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        JOINING if request.topics.is_none() && request.regex.is_none() => {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
        STATIC_LEAVING if request.instance_id.is_none() => {
            return invalid("InstanceId can't be null.");
        }
        i32::MIN..STATIC_LEAVING => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    if let Some(regex) = request.regex.as_deref().filter(|regex| !regex.is_empty()) {
        compile(regex)?;
    }
    if let Some(name) = &request.assignor
        && settings.assignor(name).is_none()
    {
        let supported: Vec<&str> = settings.assignors().map(|a| a.name()).collect();
        let message = format!(
            "ServerAssignor {name} is not supported. Supported assignors: {}.",
            supported.join(", ")
        );
        return Err(Refused::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}

impl ConsumerGroup {
    /// A heartbeat. `fresh_id` is the id for a member of version 0 that joins without one. With `Err`
    /// the group may be half changed: the caller works on a copy and drops it then.
    pub fn heartbeat(
        &mut self,
        request: &ConsumerHeartbeatRequest,
        fresh_id: &Arc<str>,
        world: &World<'_>,
    ) -> Result<ConsumerHeartbeatResponse, Refused> {
        if matches!(request.member_epoch, LEAVING | STATIC_LEAVING) {
            return self.leave(request, world);
        }
        let member_id: Arc<str> = match request.member_id.as_str() {
            "" => fresh_id.clone(),
            id => id.into(),
        };
        let before = self.admit(request, &member_id, &world.settings)?;
        let mut member = before.clone();
        member.metadata = updated(&before.metadata, request);
        let resubscribed = before.metadata.topics != member.metadata.topics
            || before.metadata.regex != member.metadata.regex;
        self.put(member.clone());
        if resubscribed {
            self.resolve_regexes(false, world);
        }
        self.raise_if(resubscribed, world);
        if self.epoch.epoch > self.target_epoch.epoch {
            self.assign(world);
        }
        let current = self.advance(&member, request.owned.as_ref(), resubscribed, world)?;
        let full = request.member_epoch == JOINING
            || (request.rebalance_timeout_ms != -1
                && (request.topics.is_some() || request.regex.is_some())
                && request.owned.is_some());
        let changed = partitions(&current.assigned) != partitions(&before.current.assigned);
        Ok(ConsumerHeartbeatResponse {
            error: ErrorCode::None,
            error_message: None,
            member_id: Some(member_id.to_string()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: world.settings.heartbeat_interval_ms,
            assignment: (full || changed).then(|| partitions(&current.assigned)),
        })
    }

    /// The member that a heartbeat speaks for: known, new, or the successor of a static one.
    fn admit(
        &mut self,
        request: &ConsumerHeartbeatRequest,
        member_id: &Arc<str>,
        settings: &ConsumerSettings,
    ) -> Result<Member, Refused> {
        if !self.members.contains_key(member_id) && self.members.len() >= settings.max_size {
            let message = format!(
                "The consumer group has reached its maximum capacity of {} members.",
                settings.max_size
            );
            return Err(Refused::new(ErrorCode::GroupMaxSizeReached, message));
        }
        let joins = request.member_epoch == JOINING;
        let Some(instance) = request.instance_id.as_deref() else {
            let member = match self.members.get(member_id) {
                Some(member) => (**member).clone(),
                None if joins => Member::new(member_id.clone()),
                None => return Err(unknown_member(member_id, &self.id)),
            };
            check_epoch(&member, request)?;
            return Ok(member);
        };
        let existing = self.static_member(instance).cloned();
        if !joins {
            let member = existing.ok_or_else(|| unknown_instance(instance))?;
            check_instance(&member, member_id, instance)?;
            check_epoch(&member, request)?;
            return Ok((*member).clone());
        }
        let Some(existing) = existing else {
            let known = self.members.get(member_id);
            return Ok(known.map_or_else(|| Member::new(member_id.clone()), |m| (**m).clone()));
        };
        if existing.classic().is_none() && existing.epoch() != STATIC_LEAVING {
            let message = format!(
                "Static member {member_id} with instance id {instance} cannot join the group because the \
                 instance id is owned by {} member.",
                existing.id
            );
            return Err(Refused::new(ErrorCode::UnreleasedInstanceId, message));
        }
        Ok(self.succeed(&existing, member_id))
    }

    /// A static member came back under a new id: it takes the place, the target and the partitions of
    /// its predecessor.
    pub(super) fn succeed(&mut self, before: &Member, member_id: &Arc<str>) -> Member {
        let target = self.targets.get(&before.id).cloned();
        self.take(&before.id);
        if let Some(target) = target {
            self.targets.insert(member_id.clone(), target);
        }
        let successor = Member {
            id: member_id.clone(),
            metadata: before.metadata.clone(),
            current: Arc::new(CurrentValue {
                epoch: JOINING,
                previous_epoch: JOINING,
                ..(*before.current).clone()
            }),
        };
        tracing::info!(group = %self.id, member = %member_id, former = %before.id, "the static member is back");
        self.put(successor.clone());
        successor
    }

    /// Makes a target assignment for the group's epoch.
    pub(super) fn assign(&mut self, world: &World<'_>) {
        let mut question = Question::default();
        for (id, member) in &self.members {
            let topics = self.topics_of(member, world.image);
            for topic in &topics {
                let partitions = world.image.topic(topic).map_or(0, |t| t.partitions.len());
                let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
                question.topics.insert(*topic, partitions);
            }
            let subscriber = Subscriber {
                instance: member.instance().map(Arc::from),
                topics,
                before: (*self.target(id)).clone(),
            };
            question.members.insert(id.clone(), subscriber);
        }
        let assignor = self.assignor(&world.settings);
        let shares = assignor.assign(&question);
        let stale = self.targets.keys().filter(|id| !shares.contains_key(*id));
        for id in stale.cloned().collect::<Vec<_>>() {
            self.targets.remove(&id);
        }
        for (id, share) in shares {
            if self.targets.get(&id).is_none_or(|target| **target != share) {
                self.targets.insert(id, Arc::new(share));
            }
        }
        self.target_epoch = TargetEpochValue {
            epoch: self.epoch.epoch,
            timestamp: world.now.wall,
        };
        tracing::info!(
            group = %self.id,
            epoch = self.epoch.epoch,
            members = self.members.len(),
            assignor = assignor.name(),
            "a target is assigned"
        );
    }

    /// The assignor that most members choose; the first of the configured among equals.
    pub(super) fn assignor(&self, settings: &ConsumerSettings) -> super::assignor::Assignor {
        let votes = |assignor: &super::assignor::Assignor| {
            let chosen = |m: &&Arc<Member>| m.metadata.assignor.as_deref() == Some(assignor.name());
            self.members.values().filter(chosen).count()
        };
        let mut best = None;
        for assignor in settings.assignors() {
            let count = votes(&assignor);
            if best.is_none_or(|(most, _)| count > most) {
                best = Some((count, assignor));
            }
        }
        best.map_or(super::assignor::Assignor::Uniform, |(_, assignor)| assignor)
    }

    /// Leads one member on towards its target.
    pub(super) fn advance(
        &mut self,
        member: &Member,
        owned: Option<&Partitions>,
        resubscribed: bool,
        world: &World<'_>,
    ) -> Result<Arc<CurrentValue>, Refused> {
        let target = self.target(&member.id);
        let goal = Goal {
            epoch: self.target_epoch.epoch,
            target: &target,
            subscribed: &self.topics_of(member, world.image),
            changed: resubscribed,
            owned,
        };
        let held = |topic, partition| self.held_by_other(&member.id, topic, partition);
        let current = reconcile(member, &goal, held).map_err(|()| {
            let message = "The consumer group member is in a unknown state. The member must abandon all its \
                           partitions and rejoin.";
            Refused::new(ErrorCode::FencedMemberEpoch, message)
        })?;
        if current != member.current {
            let current = current.clone();
            self.put(Member {
                current,
                ..member.clone()
            });
        }
        Ok(current)
    }
}

/// What the member tells of itself now; what it leaves out stays.
fn updated(
    before: &Arc<MemberMetadata>,
    request: &ConsumerHeartbeatRequest,
) -> Arc<MemberMetadata> {
    let mut metadata = (**before).clone();
    let replace = |slot: &mut Option<String>, newer: &Option<String>| {
        if newer.is_some() {
            slot.clone_from(newer);
        }
    };
    replace(&mut metadata.instance_id, &request.instance_id);
    replace(&mut metadata.rack_id, &request.rack_id);
    replace(&mut metadata.assignor, &request.assignor);
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topics) = &request.topics {
        metadata.topics.clone_from(topics);
    }
    if let Some(regex) = &request.regex {
        // An empty one takes the subscription back.
        metadata.regex = (!regex.is_empty()).then(|| regex.clone());
    }
    metadata.client_id.clone_from(&request.client_id);
    metadata.client_host.clone_from(&request.client_host);
    metadata.classic = None;
    match metadata == **before {
        true => before.clone(),
        false => Arc::new(metadata),
    }
}

/// A member may be one epoch behind, if its answer got lost; but then it must not have more than it was given.
fn check_epoch(member: &Member, request: &ConsumerHeartbeatRequest) -> Result<(), Refused> {
    let (received, known) = (request.member_epoch, member.epoch());
    let fenced = |word: &str| {
        let message = format!(
            "The consumer group member has a {word} member epoch ({received}) than the one known by the group \
             coordinator ({known}). The member must abandon all its partitions and rejoin."
        );
        Err(Refused::new(ErrorCode::FencedMemberEpoch, message))
    };
    let owned = request.owned.as_ref();
    match received {
        JOINING => Ok(()),
        _ if received > known => fenced("greater"),
        _ if received == known => Ok(()),
        _ if received == member.current.previous_epoch
            && owned.is_some_and(|owned| member.was_assigned(owned)) =>
        {
            Ok(())
        }
        _ => fenced("smaller"),
    }
}

pub(super) fn check_instance(member: &Member, id: &str, instance: &str) -> Result<(), Refused> {
    if &*member.id == id {
        return Ok(());
    }
    let message = format!(
        "Static member {id} with instance id {instance} was fenced by member {}.",
        member.id
    );
    Err(Refused::new(ErrorCode::FencedInstanceId, message))
}

pub(super) fn unknown_member(id: &str, group: &str) -> Refused {
    let message = format!("Member {id} is not a member of group {group}.");
    Refused::new(ErrorCode::UnknownMemberId, message)
}

pub(super) fn unknown_instance(instance: &str) -> Refused {
    let message = format!("Instance id {instance} is unknown.");
    Refused::new(ErrorCode::UnknownMemberId, message)
}
