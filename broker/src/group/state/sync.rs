//! SyncGroup: the leader's assignment is stored, then everyone gets their share.

use super::effects::{Effects, GroupTimer, Limits, Now, Then, Token};
use super::group::{Group, State};
use crate::group::types::{SyncRequest, SyncResponse};
use bytes::Bytes;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::collections::HashMap;

/// From this version on, protocol type and name must be said.
const PROTOCOL_REQUIRED_FROM: i16 = 5;

impl Group {
    /// A member asks for its share; the leader brings everyone's.
    pub fn sync(&mut self, request: &SyncRequest, token: Token, now: Now, fx: &mut Effects) {
        if let Err(error) = self.check_sync(request) {
            return fx.refuse_sync(token, error);
        }
        let member_id = request.member_id.as_str();
        match self.state {
            State::Empty | State::Dead => fx.refuse_sync(token, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => fx.refuse_sync(token, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.synced(member_id, fx);
                if let Some(member) = self.members.get_mut(member_id)
                    && let Some(older) = member.awaiting_sync.replace(token)
                {
                    fx.refuse_sync(older, ErrorCode::RebalanceInProgress);
                }
                if self.is_leader(member_id) || taken_out("the-leader-assigns") {
                    self.store_assignment(request, fx);
                }
            }
            State::Stable => {
                self.synced(member_id, fx);
                self.renew_session(member_id, now, fx);
                fx.sync(token, self.share_of(member_id));
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), ErrorCode> {
        if self.state == State::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation && !taken_out("syncs-are-of-this-generation") {
            return Err(ErrorCode::IllegalGeneration);
        }
        let said = request.protocol_type.is_some() && request.protocol_name.is_some();
        let differs = |said: &Option<String>, ours: &Option<String>| matches!((said, ours), (Some(said), Some(ours)) if said != ours);
        if (request.api_version >= PROTOCOL_REQUIRED_FROM && !said)
            || differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn synced(&mut self, member_id: &str, fx: &mut Effects) {
        self.pending_sync.shift_remove(member_id);
        if self.pending_sync.is_empty() {
            fx.cancel(GroupTimer::Sync(self.generation));
        }
    }

    fn store_assignment(&mut self, request: &SyncRequest, fx: &mut Effects) {
        let mut assignments = HashMap::new();
        for (member_id, assignment) in &request.assignments {
            // What is kept must not keep the request's frame in memory.
            assignments.insert(member_id.clone(), Bytes::copy_from_slice(assignment));
        }
        let value = self.to_value(Some(&assignments));
        let then = Then::Assign {
            generation: self.generation,
            assignments,
        };
        fx.writes.push((value, then));
    }

    /// The assignment of `generation` is stored, or could not be.
    pub(super) fn assigned(
        &mut self,
        generation: i32,
        mut assignments: HashMap<String, Bytes>,
        result: Result<(), ErrorCode>,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        // Another rebalance may have begun meanwhile; its generation is stored by its own leader.
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(error) = result {
            tracing::warn!(group = %self.id, generation, %error, "the assignment could not be stored; rebalancing");
            self.drop_assignment(error, now, fx);
            return self.prepare_rebalance(limits, now, fx);
        }
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&*member.id).unwrap_or_default();
        }
        self.enter(State::Stable, now);
        tracing::info!(group = %self.id, generation, members = self.members.len(), "the group is stable");
        for id in self.ids(|member| member.awaiting_sync.is_some()) {
            let response = self.share_of(&id);
            self.answer_sync(&id, response, fx);
            self.renew_session(&id, now, fx);
        }
    }

    /// Takes back what was assigned and tells those who wait for it why.
    pub(super) fn drop_assignment(&mut self, error: ErrorCode, now: Now, fx: &mut Effects) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        for id in self.ids(|member| member.awaiting_sync.is_some()) {
            self.answer_sync(&id, SyncResponse::refused(error), fx);
            self.renew_session(&id, now, fx);
        }
    }

    fn answer_sync(&mut self, member_id: &str, response: SyncResponse, fx: &mut Effects) {
        let member = self.members.get_mut(member_id);
        if let Some(token) = member.and_then(|member| member.awaiting_sync.take()) {
            fx.sync(token, response);
        }
    }

    fn share_of(&self, member_id: &str) -> SyncResponse {
        let member = self.members.get(member_id);
        SyncResponse {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: member.map(|m| m.assignment.clone()).unwrap_or_default(),
        }
    }

    /// The sync timer of `generation` is due: those who did not sync are out.
    pub(super) fn sync_due(
        &mut self,
        generation: i32,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        let syncing = matches!(self.state, State::CompletingRebalance | State::Stable);
        if !syncing || generation != self.generation || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            tracing::info!(group = %self.id, member = %id, generation, "removed: it did not sync in time");
            self.remove(&id, ErrorCode::UnknownMemberId, fx);
        }
        self.prepare_rebalance(limits, now, fx);
    }
}
