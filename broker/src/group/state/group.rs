//! A group's data, and the small questions and changes that the rules in the neighbouring files use.

use super::effects::{Effects, GroupTimer, Now, Token};
use super::member::{Member, millis};
use super::subscription;
use crate::group::types::{JoinMember, JoinRequest, JoinResponse, Protocol};
use indexmap::{IndexMap, IndexSet};
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No members; perhaps committed offsets.
    Empty,
    /// Members are asked to join; those who did are parked.
    PreparingRebalance,
    /// The leader works out the assignment; the others are parked.
    CompletingRebalance,
    /// Everyone knows their share.
    Stable,
    /// Being deleted.
    Dead,
}

impl State {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// The first rebalance of an empty group waits a while for more members than the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialDelay {
    pub delay_ms: u64,
    pub remaining_ms: u64,
    /// Somebody joined since the timer was set: wait once more.
    pub member_added: bool,
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    pub(super) state_since: i64,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: IndexMap<Arc<str>, Member>,
    /// Instance id to member id.
    pub(super) statics: HashMap<Arc<str>, Arc<str>>,
    /// Ids handed out with MEMBER_ID_REQUIRED.
    pub(super) pending_join: IndexSet<Arc<str>>,
    /// Members of this generation that did not sync yet.
    pub(super) pending_sync: IndexSet<Arc<str>>,
    /// How many members support each protocol.
    pub(super) supported: HashMap<String, usize>,
    pub(super) awaiting_join: usize,
    /// Set during the first rebalance after Empty; only the join timer ends that one.
    pub(super) initial: Option<InitialDelay>,
    /// Topics that the members consume, where the protocol tells.
    pub(super) subscribed: Option<HashSet<String>>,
}

impl Group {
    /// A group without members, created now.
    pub fn new(id: Arc<str>, now: Now) -> Self {
        Self {
            id,
            state: State::Empty,
            state_since: now.wall,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: IndexMap::new(),
            statics: HashMap::new(),
            pending_join: IndexSet::new(),
            pending_sync: IndexSet::new(),
            supported: HashMap::new(),
            awaiting_join: 0,
            initial: None,
            subscribed: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When it got there, in milliseconds since 1970; -1 if a loaded record did not say.
    pub fn state_since(&self) -> i64 {
        self.state_since
    }

    /// The current generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// "consumer" for consumers; `None` until somebody joined.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The protocol of the current generation.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The member who assigns.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// The members, in the order in which they came.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// Whether nothing would be lost by forgetting this group: nobody is, was or is about to be in it.
    pub fn is_blank(&self) -> bool {
        self.state == State::Empty
            && self.generation == 0
            && self.protocol_type.is_none()
            && self.pending_join.is_empty()
    }

    /// Whether the group is empty and nobody is about to join it.
    pub fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending_join.is_empty()
    }

    /// Whether a member consumes `topic`; `true` where that cannot be told of consumers.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type() == Some(subscription::CONSUMER),
        }
    }

    /// Whether the members' topics are known.
    pub fn knows_its_topics(&self) -> bool {
        self.subscribed.is_some()
    }

    /// The group's deletion begins or is taken back. Only an empty group is ever deleted.
    pub fn set_deleting(&mut self, deleting: bool, now: Now) {
        let since = self.state_since;
        self.enter(if deleting { State::Dead } else { State::Empty }, now);
        self.state_since = since;
    }

    /// Everyone whom the group owes an answer.
    #[cfg(test)]
    pub(super) fn parked(&self) -> HashSet<Token> {
        let members = self.members.values();
        members
            .flat_map(|m| [m.awaiting_join, m.awaiting_sync])
            .flatten()
            .collect()
    }

    pub(super) fn enter(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since = now.wall;
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Whether a call may act for this member.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if &**owner != member_id && !taken_out("instances-are-fenced") => {
                    return Err(ErrorCode::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        match self.members.contains_key(member_id) || taken_out("member-ids-are-checked") {
            true => Ok(()),
            false => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// Whether a member with these protocols could take part.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        self.protocol_type() == Some(protocol_type)
            && protocols
                .iter()
                .any(|p| self.supported.get(&p.name).copied().unwrap_or(0) == all)
    }

    fn count_protocols(&mut self, member: &Member, added: bool) {
        for protocol in &member.protocols {
            let count = self.supported.entry(protocol.name.clone()).or_default();
            *count = if added {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 {
                self.supported.remove(&protocol.name);
            }
        }
    }

    /// Adds a member; the caller checked that its protocols are supported and its ids are free.
    pub(super) fn add(&mut self, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.pending_join.shift_remove(&member.id);
        self.count_protocols(&member, true);
        self.members.insert(member.id.clone(), member);
    }

    /// Removes a member, or an id that was only handed out, and answers what it waits for.
    pub(super) fn remove(&mut self, member_id: &str, error: ErrorCode, fx: &mut Effects) {
        self.pending_join.shift_remove(member_id);
        self.pending_sync.shift_remove(member_id);
        let Some((id, mut member)) = self.members.shift_remove_entry(member_id) else {
            fx.cancel(GroupTimer::Session(Arc::from(member_id)));
            return;
        };
        self.count_protocols(&member, false);
        if let Some(token) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            fx.refuse_join(token, "", error);
        }
        if let Some(token) = member.awaiting_sync.take() {
            fx.refuse_sync(token, error);
        }
        if let Some(instance) = &member.instance
            && self.statics.get(instance) == Some(&id)
        {
            self.statics.remove(instance);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        fx.cancel(GroupTimer::Session(id));
    }

    /// Takes a newer join of a member and parks it. A join that was parked before is told to try
    /// again: it may come from the same connection, where nothing behind it would be answered.
    pub(super) fn update(
        &mut self,
        member_id: &str,
        request: &JoinRequest,
        token: Token,
        fx: &mut Effects,
    ) {
        let Some(mut member) = self.members.get(member_id).cloned() else {
            return;
        };
        self.count_protocols(&member, false);
        member.take(request);
        self.count_protocols(&member, true);
        match member.awaiting_join.replace(token) {
            Some(older) => fx.refuse_join(older, member_id, ErrorCode::RebalanceInProgress),
            None => self.awaiting_join += 1,
        }
        self.members.insert(member.id.clone(), member);
    }

    /// The same static member under a new id. Whoever waits under the old id is fenced.
    pub(super) fn replace_static(&mut self, instance: &str, new_id: Arc<str>, fx: &mut Effects) {
        let Some(old_id) = self.statics.get(instance).cloned() else {
            return;
        };
        let Some(index) = self.members.get_index_of(&old_id) else {
            return;
        };
        let Some(mut member) = self.members.shift_remove(&old_id) else {
            return;
        };
        if let Some(token) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            fx.refuse_join(token, &old_id, ErrorCode::FencedInstanceId);
        }
        if let Some(token) = member.awaiting_sync.take() {
            fx.refuse_sync(token, ErrorCode::FencedInstanceId);
        }
        fx.cancel(GroupTimer::Session(old_id.clone()));
        member.id = new_id.clone();
        if self.is_leader(&old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_sync.shift_remove(&old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        self.statics.insert(Arc::from(instance), new_id.clone());
        self.members.shift_insert(index, new_id, member);
    }

    /// Answers a parked join, if there is one.
    pub(super) fn answer_join(
        &mut self,
        member_id: &str,
        response: JoinResponse,
        fx: &mut Effects,
    ) {
        if let Some(token) = self
            .members
            .get_mut(member_id)
            .and_then(|member| member.awaiting_join.take())
        {
            self.awaiting_join -= 1;
            fx.join(token, response);
        }
    }

    /// The member's session starts anew.
    pub(super) fn renew_session(&self, member_id: &str, now: Now, fx: &mut Effects) {
        if let Some(member) = self.members.get(member_id) {
            let at = now.mono + member.session_ms();
            fx.set(GroupTimer::Session(member.id.clone()), at);
        }
    }

    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self
            .members
            .values()
            .map(|m| millis(m.rebalance_timeout_ms));
        timeouts.max().unwrap_or(0)
    }

    pub(super) fn all_joined(&self) -> bool {
        let all = self.members.len() == self.awaiting_join && self.pending_join.is_empty();
        all || taken_out("a-rebalance-waits-for-all")
    }

    /// The protocol with the most votes among those that all members support; each votes for the
    /// first of its own. Among equals the one that the longest-standing member prefers.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let mut votes: IndexMap<&str, usize> = IndexMap::new();
        for member in self.members.values() {
            let candidate = |p: &&Protocol| self.supported.get(&p.name).copied() == Some(all);
            let vote = member.protocols.iter().find(candidate)?;
            *votes.entry(&vote.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        let chosen = votes.into_iter().find(|(_, count)| *count == most)?;
        Some(chosen.0.to_owned())
    }

    pub(super) fn compute_subscribed(&self) -> Option<HashSet<String>> {
        if self.protocol_type() != Some(subscription::CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(HashSet::new());
        }
        let protocol = Some(self.protocol.as_deref()?);
        let mut topics = HashSet::new();
        for member in self.members.values() {
            topics.extend(subscription::topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// The members as their leader is told of them.
    pub(super) fn member_list(&self) -> Vec<JoinMember> {
        let list = |member: &Member| JoinMember {
            member_id: member.id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            metadata: member.metadata(self.protocol()),
        };
        self.members.values().map(list).collect()
    }

    /// The current generation, as a member is told of it; the list of members only if `with_members`.
    pub(super) fn joined(&self, member_id: &str, with_members: bool) -> JoinResponse {
        JoinResponse {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if with_members {
                self.member_list()
            } else {
                Vec::new()
            },
        }
    }
}
