//! JoinGroup.

use super::effects::{Effects, GroupTimer, Limits, Now, Then, Token};
use super::group::{Group, State};
use super::member::{Member, millis};
use crate::group::types::{JoinRequest, JoinResponse};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// From this version on, a member must come back with the id that it was given.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// From this version on, a leader can be told that nothing needs to be assigned.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

impl Group {
    /// Somebody joins. `fresh_id` is the id for a member that has none. The answer comes under
    /// `token`, now or when the rebalance is over.
    pub fn join(
        &mut self,
        request: &JoinRequest,
        fresh_id: Arc<str>,
        token: Token,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        let member_id = request.member_id.as_str();
        if self.state == State::Dead {
            fx.refuse_join(token, member_id, ErrorCode::CoordinatorNotAvailable);
        } else if !self.has_room_for(member_id, limits) {
            fx.refuse_join(token, "", ErrorCode::GroupMaxSizeReached);
            if !member_id.is_empty() {
                self.remove(member_id, ErrorCode::GroupMaxSizeReached, fx);
                self.complete_join_if_all_joined(now, fx);
            }
        } else if !self.supports(&request.protocol_type, &request.protocols) {
            fx.refuse_join(token, member_id, ErrorCode::InconsistentGroupProtocol);
        } else if !member_id.is_empty() {
            self.join_known(request, token, limits, now, fx);
        } else if let Some(instance) = request.instance_id.as_deref() {
            if self.statics.contains_key(instance) {
                self.join_replacing(request, instance, fresh_id, token, limits, now, fx);
            } else {
                self.add_joining(fresh_id, request, token, limits, now, fx);
            }
        } else if request.api_version >= MEMBER_ID_REQUIRED_FROM {
            self.hand_out(request, fresh_id, token, limits, now, fx);
        } else {
            self.add_joining(fresh_id, request, token, limits, now, fx);
        }
    }

    /// During a rebalance the places go to those who joined it, whoever was a member before.
    fn has_room_for(&self, member_id: &str, limits: &Limits) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                member.is_some_and(|m| m.awaiting_join.is_some())
                    || self.awaiting_join < limits.max_size
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < limits.max_size
            }
        }
    }

    /// A new dynamic member gets an id and must come back with it: a client that gives up before it
    /// hears of its id would otherwise leave a member behind that never answers.
    fn hand_out(
        &mut self,
        request: &JoinRequest,
        fresh_id: Arc<str>,
        token: Token,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        if self.pending_join.len() >= limits.max_pending {
            return fx.refuse_join(token, "", ErrorCode::GroupMaxSizeReached);
        }
        fx.refuse_join(token, &fresh_id, ErrorCode::MemberIdRequired);
        let at = now.mono + millis(request.session_timeout_ms);
        fx.set(GroupTimer::Session(fresh_id.clone()), at);
        self.pending_join.insert(fresh_id);
    }

    fn join_known(
        &mut self,
        request: &JoinRequest,
        token: Token,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        let member_id = request.member_id.as_str();
        if let Some(id) = self.pending_join.get(member_id).cloned()
            && request.instance_id.is_none()
        {
            return self.add_joining(id, request, token, limits, now, fx);
        }
        if let Err(error) = self.check_member(member_id, request.instance_id.as_deref()) {
            return fx.refuse_join(token, member_id, error);
        }
        let same = self
            .members
            .get(member_id)
            .is_some_and(|member| member.matches(&request.protocols));
        let leads = self.is_leader(member_id);
        match self.state {
            // Its answer was lost, or it asks again: the generation is still good.
            State::CompletingRebalance if same => {
                fx.join(token, self.joined(member_id, leads));
                self.renew_session(member_id, now, fx);
            }
            // A leader joins again to assign again; a follower only if it wants something else.
            State::Stable if same && !leads => {
                fx.join(token, self.joined(member_id, false));
                self.renew_session(member_id, now, fx);
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update(member_id, request, token, fx);
                self.rebalance_or_complete(limits, now, fx);
            }
            State::Empty | State::Dead => {
                fx.refuse_join(token, member_id, ErrorCode::UnknownMemberId);
            }
        }
    }

    fn add_joining(
        &mut self,
        id: Arc<str>,
        request: &JoinRequest,
        token: Token,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        if let Some(initial) = &mut self.initial {
            initial.member_added = true;
        }
        let at = now.mono + limits.new_member_join_timeout_ms;
        fx.set(GroupTimer::Session(id.clone()), at);
        self.add(Member::joining(id, request, token), &request.protocol_type);
        self.rebalance_or_complete(limits, now, fx);
    }

    /// A static member came back without its id, as it does after a restart: it takes its old place.
    #[allow(clippy::too_many_arguments)]
    fn join_replacing(
        &mut self,
        request: &JoinRequest,
        instance: &str,
        fresh_id: Arc<str>,
        token: Token,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        let former_leader = self.leader.clone();
        self.replace_static(instance, fresh_id.clone(), fx);
        self.update(&fresh_id, request, token, fx);
        self.renew_session(&fresh_id, now, fx);
        match self.state {
            // Nobody else's share changes: store the new id, then answer without a rebalance.
            State::Stable if self.select_protocol() == self.protocol => {
                let then = Then::Replace {
                    member_id: fresh_id,
                    token,
                    can_skip: request.api_version >= SKIP_ASSIGNMENT_FROM,
                    former_leader,
                };
                fx.writes.push((self.to_value(None), then));
            }
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(limits, now, fx),
            State::PreparingRebalance | State::Empty | State::Dead => {
                self.complete_join_if_all_joined(now, fx);
            }
        }
    }

    /// The new id of a static member is stored (or could not be).
    #[allow(clippy::too_many_arguments)]
    pub(super) fn replaced(
        &mut self,
        member_id: &str,
        token: Token,
        can_skip: bool,
        former_leader: Option<&str>,
        result: Result<(), ErrorCode>,
        now: Now,
        fx: &mut Effects,
    ) {
        // A rebalance may have answered this join meanwhile.
        let waits = |member: &Member| member.awaiting_join == Some(token);
        if self.state != State::Stable || !self.members.get(member_id).is_some_and(waits) {
            return;
        }
        let response = match result {
            Err(error) => JoinResponse::refused("", error),
            Ok(()) if can_skip => {
                let leads = self.is_leader(member_id);
                let mut response = self.joined(member_id, leads);
                response.skip_assignment = leads;
                response
            }
            Ok(()) => {
                let mut response = self.joined(member_id, false);
                response.leader = former_leader.unwrap_or_default().to_owned();
                response
            }
        };
        self.answer_join(member_id, response, fx);
        self.renew_session(member_id, now, fx);
    }
}
