//! Members that still use the classic protocol in a group of the newer one: JoinGroup is their way to
//! the next epoch, SyncGroup brings what they have in it, Heartbeat tells them to join again.

use super::World;
use super::cell::ConsumerTimer;
use super::group::ConsumerGroup;
use super::heartbeat::{check_instance, unknown_instance, unknown_member};
use super::member::{Member, partitions};
use crate::group::store::consumer::{ClassicMetadata, MemberState, Partitions};
use crate::group::store::protocol::{NamedPartitions, Subscription, encode_assignment};
use crate::group::types::*;
use bytes::Bytes;
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// The protocol type of Kafka's consumers.
pub(super) const CONSUMER: &str = "consumer";
/// From this version on, a member must come back with the id that it was given.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// From this version on, protocol type and name must be said.
const PROTOCOL_REQUIRED_FROM: i16 = 5;

/// A change of a deadline; see [`super::cell::TimerChange`].
type Timers = Vec<(ConsumerTimer, Option<u64>)>;

impl ConsumerGroup {
    /// JoinGroup. With `Err` the group may be half changed: the caller works on a copy.
    pub(super) fn classic_join(
        &mut self,
        request: &JoinRequest,
        fresh_id: &Arc<str>,
        world: &World<'_>,
    ) -> Result<JoinResponse, Box<JoinResponse>> {
        let refusal = |id: &str, error| Err(Box::new(JoinResponse::refused(id, error)));
        let refuse = |error| refusal(&request.member_id, error);
        let known = self.members.contains_key(request.member_id.as_str());
        if !known && self.members.len() >= world.settings.max_size {
            return refusal("", ErrorCode::GroupMaxSizeReached);
        }
        if !self.supports(request) {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        }
        let unnamed = request.member_id.is_empty();
        let needs_id = request.api_version >= MEMBER_ID_REQUIRED_FROM;
        if unnamed && request.instance_id.is_none() && needs_id {
            return refusal(fresh_id, ErrorCode::MemberIdRequired);
        }
        let metadata = &request.protocols[0].metadata;
        let Ok(subscription) = Subscription::decode(metadata) else {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        };
        let id: Arc<str> = match unnamed {
            true => fresh_id.clone(),
            false => request.member_id.as_str().into(),
        };
        let before = match self.classic_member(request, &id) {
            Ok(member) => member,
            Err(error) => return refuse(error),
        };
        let mut member = before.clone();
        member.metadata = Arc::new(metadata_of(&before, request, &subscription));
        let changed = before.metadata.topics != member.metadata.topics
            || before.metadata.regex != member.metadata.regex;
        self.put(member.clone());
        if changed {
            self.resolve_regexes(false, world);
        }
        self.raise_if(changed, world);
        if self.epoch.epoch > self.target_epoch.epoch {
            self.assign(world);
        }
        let owned = by_id(&subscription.owned, world.image);
        let Ok(current) = self.advance(&member, Some(&owned), changed, world) else {
            return refuse(ErrorCode::UnknownMemberId);
        };
        Ok(JoinResponse {
            error: ErrorCode::None,
            generation: current.epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: Some(request.protocols[0].name.clone()),
            // Nobody among them assigns.
            leader: String::new(),
            skip_assignment: false,
            member_id: id.to_string(),
            members: Vec::new(),
        })
    }

    /// Whether somebody with these protocols can be in a group with the other classic members.
    fn supports(&self, request: &JoinRequest) -> bool {
        let everyone = |name: &str| {
            let mut classics = self.members.values().filter_map(|member| member.classic());
            classics.all(|other| other.protocols.iter().any(|(theirs, _)| theirs == name))
        };
        request.protocol_type == CONSUMER && request.protocols.iter().any(|p| everyone(&p.name))
    }

    fn classic_member(
        &mut self,
        request: &JoinRequest,
        id: &Arc<str>,
    ) -> Result<Member, ErrorCode> {
        let Some(instance) = request.instance_id.as_deref() else {
            let known = self.members.get(id);
            return Ok(known.map_or_else(|| Member::new(id.clone()), |known| (**known).clone()));
        };
        match self.static_member(instance).cloned() {
            Some(existing) if request.member_id.is_empty() => Ok(self.succeed(&existing, id)),
            None if request.member_id.is_empty() => Ok(Member::new(id.clone())),
            Some(existing) if existing.id == *id => Ok((*existing).clone()),
            Some(_) => Err(ErrorCode::FencedInstanceId),
            None => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// The deadlines that a join sets.
    pub(super) fn join_timers(request: &JoinRequest, response: &JoinResponse) -> Timers {
        let id: Arc<str> = response.member_id.as_str().into();
        let timeout = match request.rebalance_timeout_ms {
            timeout @ 0.. => timeout,
            _ => request.session_timeout_ms,
        };
        vec![
            (ConsumerTimer::Join(id.clone()), None),
            (
                ConsumerTimer::Session(id.clone()),
                Some(millis(request.session_timeout_ms)),
            ),
            (ConsumerTimer::Sync(id), Some(millis(timeout))),
        ]
    }

    /// SyncGroup: what the member has in its epoch.
    pub fn classic_sync(&self, request: &SyncRequest, image: &Image) -> (SyncResponse, Timers) {
        match self.check_sync(request) {
            Err((error, timers)) => (SyncResponse::refused(error), timers),
            Ok((member, classic)) => {
                let names = named(&partitions(&member.current.assigned), image);
                let version = classic
                    .protocols
                    .first()
                    .map_or(0, |(_, metadata)| version(metadata));
                let Ok(assignment) = encode_assignment(&names, version) else {
                    return (
                        SyncResponse::refused(ErrorCode::UnknownServerError),
                        Vec::new(),
                    );
                };
                let response = SyncResponse {
                    error: ErrorCode::None,
                    protocol_type: Some(CONSUMER.to_owned()),
                    protocol_name: request.protocol_name.clone(),
                    assignment: assignment.into(),
                };
                let timers = vec![
                    (ConsumerTimer::Sync(member.id.clone()), None),
                    session(member, classic),
                ];
                (response, timers)
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn check_sync(
        &self,
        request: &SyncRequest,
    ) -> Result<(&Member, &ClassicMetadata), (ErrorCode, Timers)> {
        let refused = |error| (error, Vec::new());
        let (member, classic) = self
            .named_member(&request.member_id, request.instance_id.as_deref())
            .map_err(refused)?;
        if request.generation != member.epoch() {
            return Err(refused(ErrorCode::IllegalGeneration));
        }
        let (kind, name) = (
            request.protocol_type.as_deref(),
            request.protocol_name.as_deref(),
        );
        let said = kind.is_some() && name.is_some();
        let chosen = classic.protocols.first().map(|(name, _)| name.as_str());
        if (request.api_version >= PROTOCOL_REQUIRED_FROM && !said)
            || kind.is_some_and(|kind| kind != CONSUMER)
            || name.is_some_and(|name| Some(name) != chosen)
        {
            return Err(refused(ErrorCode::InconsistentGroupProtocol));
        }
        // Who still has to give up partitions has joined this rebalance already: it hears of them now.
        let behind = self.epoch() > member.epoch();
        if behind && member.current.state != MemberState::Unrevoked {
            return Err((ErrorCode::RebalanceInProgress, vec![rejoin(member)]));
        }
        Ok((member, classic))
    }

    /// Heartbeat. The answer tells the member whether to join again.
    pub fn classic_heartbeat(&self, request: &HeartbeatRequest) -> (ErrorCode, Timers) {
        let instance = request.instance_id.as_deref();
        let (member, classic) = match self.named_member(&request.member_id, instance) {
            Ok(found) => found,
            Err(error) => return (error, Vec::new()),
        };
        if request.generation != member.epoch() {
            return (ErrorCode::IllegalGeneration, Vec::new());
        }
        let state = member.current.state;
        let waits = state == MemberState::Unreleased && self.waits_for_others(member);
        let joins = self.epoch() > member.epoch()
            || state == MemberState::Unrevoked
            || (state == MemberState::Unreleased && !waits);
        let mut timers = vec![session(member, classic)];
        if joins {
            timers.push(rejoin(member));
            return (ErrorCode::RebalanceInProgress, timers);
        }
        (ErrorCode::None, timers)
    }

    /// Whether everything that the member's target still lacks is another's.
    fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.target(&member.id);
        let mut missing = target.iter().flat_map(|(topic, all)| {
            let has = member.current.assigned.get(topic);
            let lacks = move |p: &&i32| !has.is_some_and(|has| has.contains_key(p));
            all.iter().filter(lacks).map(|p| (*topic, *p))
        });
        missing.all(|(topic, partition)| self.held_by_other(&member.id, topic, partition))
    }

    fn named_member(
        &self,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(&Member, &ClassicMetadata), ErrorCode> {
        let member = match instance {
            None => self.members.get(id).ok_or(ErrorCode::UnknownMemberId)?,
            Some(instance) => {
                let member = self.static_member(instance);
                let member = member.ok_or_else(|| unknown_instance(instance).error)?;
                check_instance(member, id, instance).map_err(|refused| refused.error)?;
                member
            }
        };
        let classic = member
            .classic()
            .ok_or_else(|| unknown_member(id, &self.id).error)?;
        Ok((member, classic))
    }

    /// LeaveGroup: who of those named leaves; the caller sees to it that they do.
    pub fn classic_leave(&self, request: &LeaveRequest) -> (LeaveResponse, Vec<Arc<str>>) {
        let mut gone = Vec::new();
        let mut members = Vec::new();
        for leaving in &request.members {
            let found = self.leaver(leaving);
            members.push(LeftMember {
                member_id: leaving.member_id.clone(),
                instance_id: leaving.instance_id.clone(),
                error: found.as_ref().err().copied().unwrap_or(ErrorCode::None),
            });
            gone.extend(found.ok());
        }
        let response = LeaveResponse {
            error: ErrorCode::None,
            members,
        };
        (response, gone)
    }

    fn leaver(&self, leaving: &LeavingMember) -> Result<Arc<str>, ErrorCode> {
        let instance = leaving.instance_id.as_deref();
        let id = match (leaving.member_id.as_str(), instance) {
            // Named by its instance id alone.
            ("", Some(instance)) => {
                let member = self
                    .static_member(instance)
                    .ok_or(ErrorCode::UnknownMemberId)?;
                &*member.id
            }
            (id, _) => id,
        };
        let (member, _) = self.named_member(id, instance)?;
        Ok(member.id.clone())
    }
}

/// What a member of the classic protocol tells of itself.
fn metadata_of(
    before: &Member,
    request: &JoinRequest,
    subscription: &Subscription,
) -> crate::group::store::consumer::MemberMetadata {
    let mut metadata = (*before.metadata).clone();
    if request.instance_id.is_some() {
        metadata.instance_id.clone_from(&request.instance_id);
    }
    if subscription.rack.is_some() {
        metadata.rack_id.clone_from(&subscription.rack);
    }
    metadata.rebalance_timeout_ms = match request.rebalance_timeout_ms {
        timeout @ 0.. => timeout,
        _ => request.session_timeout_ms,
    };
    metadata.topics.clone_from(&subscription.topics);
    metadata.regex = None;
    metadata.assignor = None;
    metadata.client_id.clone_from(&request.client_id);
    metadata.client_host.clone_from(&request.client_host);
    let kept = |p: &Protocol| (p.name.clone(), Bytes::copy_from_slice(&p.metadata));
    metadata.classic = Some(ClassicMetadata {
        session_timeout_ms: request.session_timeout_ms,
        protocols: request.protocols.iter().map(kept).collect(),
    });
    metadata
}

fn session(member: &Member, classic: &ClassicMetadata) -> (ConsumerTimer, Option<u64>) {
    let after = millis(classic.session_timeout_ms);
    (ConsumerTimer::Session(member.id.clone()), Some(after))
}

/// How long a member may take to join again that was told to.
fn rejoin(member: &Member) -> (ConsumerTimer, Option<u64>) {
    let after = millis(member.metadata.rebalance_timeout_ms);
    (ConsumerTimer::Join(member.id.clone()), Some(after))
}

/// The version of a subscription.
pub(super) fn version(metadata: &[u8]) -> i16 {
    metadata
        .first_chunk()
        .map_or(0, |bytes| i16::from_be_bytes(*bytes))
}

/// Of named topics, those that exist.
pub(super) fn by_id(named: &NamedPartitions, image: &Image) -> Partitions {
    let with_id = named
        .iter()
        .filter_map(|(name, partitions)| Some((image.topic_by_name(name)?.id, partitions.clone())));
    with_id.collect()
}

/// By name; topics that are no more are left out.
pub(super) fn named(partitions: &Partitions, image: &Image) -> NamedPartitions {
    let with_name = partitions
        .iter()
        .filter_map(|(id, partitions)| Some((image.topic(id)?.name.clone(), partitions.clone())));
    with_name.collect()
}

fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}
