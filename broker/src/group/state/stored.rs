//! A group to and from its stored form.

use super::effects::{Effects, Limits, Now};
use super::group::{Group, State};
use super::member::Member;
use crate::group::store::records::{GroupValue, MemberValue};
use crate::group::types::Protocol;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

impl Group {
    /// The group as it is to be stored, with `assignments` where they are not the members' own yet.
    pub(super) fn to_value(&self, assignments: Option<&HashMap<String, Bytes>>) -> GroupValue {
        let assignment = |member: &Member| match assignments {
            Some(all) => all.get(&*member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        };
        let member = |member: &Member| MemberValue {
            member_id: member.id.to_string(),
            instance_id: member.instance.as_deref().map(str::to_owned),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol()),
            assignment: assignment(member),
        };
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            state_timestamp: self.state_since,
            members: self.members.values().map(member).collect(),
        }
    }

    /// The group as it was stored: Stable with its members, or Empty.
    pub fn from_value(id: Arc<str>, value: GroupValue, now: Now) -> Self {
        let mut group = Self::new(id, now);
        let empty = value.members.is_empty();
        for member in value.members {
            group.add_stored(member, value.protocol.as_deref().unwrap_or_default());
        }
        group.state = if empty { State::Empty } else { State::Stable };
        group.state_since = value.state_timestamp;
        group.generation = value.generation;
        group.protocol_type = (!value.protocol_type.is_empty()).then_some(value.protocol_type);
        group.protocol = value.protocol;
        // A leader that is no member would never assign; `add` chose one that is.
        if let Some(leader) = value.leader
            && let Some(member) = group.members.get(leader.as_str())
        {
            group.leader = Some(member.id.clone());
        }
        group.subscribed = group.compute_subscribed();
        group
    }

    fn add_stored(&mut self, member: MemberValue, protocol: &str) {
        let rebalance_timeout_ms = match member.rebalance_timeout_ms {
            timeout @ 0.. => timeout,
            _ => member.session_timeout_ms,
        };
        let member = Member {
            id: member.member_id.into(),
            instance: member.instance_id.map(Arc::from),
            client_id: member.client_id,
            client_host: member.client_host,
            rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            protocols: vec![Protocol {
                name: protocol.to_owned(),
                metadata: member.subscription,
            }],
            assignment: member.assignment,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        };
        let taken = |instance: &Arc<str>| self.statics.contains_key(instance);
        if self.members.contains_key(&member.id) || member.instance.as_ref().is_some_and(taken) {
            return;
        }
        // The type is set by the caller, for all.
        self.add(member, "");
    }

    /// The group was loaded by a new coordinator: every session starts anew, and a group that is over
    /// its limit by now rebalances, so that its consumers can commit before some are turned away.
    pub fn resume(&mut self, limits: &Limits, now: Now, fx: &mut Effects) {
        for id in self.ids(|_| true) {
            self.renew_session(&id, now, fx);
        }
        if self.members.len() > limits.max_size {
            self.prepare_rebalance(limits, now, fx);
        }
    }
}
