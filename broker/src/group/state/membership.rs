//! Staying in a group, leaving it, and being allowed to commit offsets; and the group's timers.

use super::effects::{Effects, GroupTimer, Limits, Now, Then};
use super::group::{Group, State};
use crate::group::types::{
    CommitRequest, HeartbeatRequest, LeaveRequest, LeaveResponse, LeavingMember, LeftMember,
};
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;

impl Group {
    /// A member is alive. The answer tells it whether to join again.
    pub fn heartbeat(&self, request: &HeartbeatRequest, now: Now, fx: &mut Effects) -> ErrorCode {
        if self.state == State::Dead {
            return ErrorCode::CoordinatorNotAvailable;
        }
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref()) {
            return error;
        }
        if request.generation != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        match self.state {
            State::Empty | State::Dead => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => {
                self.renew_unless_new(&request.member_id, now, fx);
                ErrorCode::RebalanceInProgress
            }
            State::CompletingRebalance | State::Stable => {
                self.renew_session(&request.member_id, now, fx);
                ErrorCode::None
            }
        }
    }

    /// A member that has not been in a generation keeps its long first deadline.
    fn renew_unless_new(&self, member_id: &str, now: Now, fx: &mut Effects) {
        if !self.members.get(member_id).is_some_and(|m| m.is_new) {
            self.renew_session(member_id, now, fx);
        }
    }

    /// Members leave, or are removed by an administrator.
    pub fn leave(
        &mut self,
        request: &LeaveRequest,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) -> LeaveResponse {
        if self.state == State::Dead {
            return LeaveResponse::refused(ErrorCode::CoordinatorNotAvailable);
        }
        let mut members = Vec::new();
        for leaving in &request.members {
            members.push(LeftMember {
                member_id: leaving.member_id.clone(),
                instance_id: leaving.instance_id.clone(),
                error: self.leave_one(leaving, fx).err().unwrap_or(ErrorCode::None),
            });
        }
        if members.iter().any(|member| member.error.is_ok()) {
            match self.state {
                State::Stable | State::CompletingRebalance => {
                    self.prepare_rebalance(limits, now, fx)
                }
                _ => self.complete_join_if_all_joined(now, fx),
            }
        }
        LeaveResponse {
            error: ErrorCode::None,
            members,
        }
    }

    fn leave_one(&mut self, leaving: &LeavingMember, fx: &mut Effects) -> Result<(), ErrorCode> {
        let instance = leaving.instance_id.as_deref();
        let id = if leaving.member_id.is_empty() {
            // Named by its instance id alone.
            let owner = instance.and_then(|instance| self.statics.get(instance));
            owner.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            if !self.pending_join.contains(leaving.member_id.as_str()) {
                self.check_member(&leaving.member_id, instance)?;
            }
            leaving.member_id.as_str().into()
        };
        tracing::info!(
            group = %self.id,
            member = %id,
            reason = leaving.reason.as_deref().unwrap_or("not provided"),
            "the member leaves"
        );
        self.remove(&id, ErrorCode::UnknownMemberId, fx);
        Ok(())
    }

    /// Whether this commit may be stored. A member that commits is alive.
    pub fn check_commit(
        &self,
        request: &CommitRequest,
        now: Now,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let member_id = request.member_id.as_str();
        let instance = request.instance_id.as_deref();
        if self.state == State::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if request.generation < 0 && self.state == State::Empty {
            // A consumer that assigns its partitions itself.
            return Ok(());
        }
        if request.generation < 0 && member_id.is_empty() && instance.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(member_id, instance)?;
        if request.generation != self.generation && !taken_out("commits-are-of-this-generation") {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            // Its partitions may already be another's.
            State::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => {
                self.renew_unless_new(member_id, now, fx);
                Ok(())
            }
        }
    }

    /// A deadline of this group has come.
    pub fn due(&mut self, timer: GroupTimer, limits: &Limits, now: Now, fx: &mut Effects) {
        if self.state == State::Dead {
            return;
        }
        match timer {
            GroupTimer::Join => self.join_due(limits, now, fx),
            GroupTimer::Sync(generation) => self.sync_due(generation, limits, now, fx),
            GroupTimer::Session(id) => {
                let waits = self.members.get(&id).is_some_and(|m| m.is_waiting());
                if waits || taken_out("a-silent-member-is-put-out") {
                    // We owe it an answer, and with that answer its session starts anew.
                    return;
                }
                let state = self.state;
                tracing::info!(group = %self.id, member = %id, state = state.name(), "removed: its session ended");
                let pending = !self.members.contains_key(&id);
                self.remove(&id, ErrorCode::UnknownMemberId, fx);
                match state {
                    State::Stable | State::CompletingRebalance if !pending => {
                        self.prepare_rebalance(limits, now, fx);
                    }
                    _ => self.complete_join_if_all_joined(now, fx),
                }
            }
        }
    }

    /// A write of this group is stored, or could not be.
    pub fn written(
        &mut self,
        then: Then,
        result: Result<(), ErrorCode>,
        limits: &Limits,
        now: Now,
        fx: &mut Effects,
    ) {
        match then {
            Then::Nothing => {
                if let Err(error) = result {
                    tracing::warn!(group = %self.id, %error, "the empty group could not be stored");
                }
            }
            Then::Assign {
                generation,
                assignments,
            } => {
                self.assigned(generation, assignments, result, limits, now, fx);
            }
            Then::Replace {
                member_id,
                token,
                can_skip,
                former_leader,
            } => {
                let former = former_leader.as_deref();
                self.replaced(&member_id, token, can_skip, former, result, now, fx);
            }
        }
    }
}
