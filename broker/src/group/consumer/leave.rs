//! Leaving: for good, for a while (a static member), or because others say so.

use super::group::ConsumerGroup;
use super::heartbeat::{check_instance, unknown_instance, unknown_member};
use super::member::{Member, STATIC_LEAVING};
use super::{Refused, World};
use crate::group::store::consumer::{CurrentValue, MemberState, Owned};
use crate::group::types::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

impl ConsumerGroup {
    /// A heartbeat with the epoch of one who leaves.
    pub(super) fn leave(
        &mut self,
        request: &ConsumerHeartbeatRequest,
        world: &World<'_>,
    ) -> Result<ConsumerHeartbeatResponse, Refused> {
        let id = request.member_id.as_str();
        let member = match request.instance_id.as_deref() {
            None => {
                let member = self.members.get(id).cloned();
                member.ok_or_else(|| unknown_member(id, &self.id))?
            }
            Some(instance) => {
                let member = self.static_member(instance).cloned();
                let member = member.ok_or_else(|| unknown_instance(instance))?;
                check_instance(&member, id, instance)?;
                member
            }
        };
        if request.member_epoch == STATIC_LEAVING {
            self.leave_for_a_while(&member);
        } else {
            tracing::info!(group = %self.id, member = %id, "the member leaves");
            self.remove(&member.id, world);
        }
        Ok(ConsumerHeartbeatResponse {
            member_id: Some(id.to_owned()),
            member_epoch: request.member_epoch,
            ..ConsumerHeartbeatResponse::failed(ErrorCode::None)
        })
    }

    /// It keeps its place and its partitions until its session ends; what it was to give up it has given up.
    fn leave_for_a_while(&mut self, member: &Member) {
        tracing::info!(group = %self.id, member = %member.id, "the static member leaves for a while");
        let current = CurrentValue {
            epoch: STATIC_LEAVING,
            previous_epoch: member.epoch(),
            // Whoever comes back is reconciled anew.
            state: MemberState::Stable,
            assigned: member.current.assigned.clone(),
            revoking: Owned::new(),
        };
        self.put(Member {
            current: Arc::new(current),
            ..member.clone()
        });
    }

    /// Takes a member out; the others share what it had once one of them asks.
    pub fn remove(&mut self, member_id: &str, world: &World<'_>) {
        if self.take(member_id).is_some() {
            self.resolve_regexes(false, world);
            self.raise_if(true, world);
        }
    }
}
