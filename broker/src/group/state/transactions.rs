//! Whether a group takes offsets that are part of a transaction.

use super::group::{Group, State};
use crate::group::types::CommitRequest;
use leasehold_wire::ErrorCode;

impl Group {
    /// As Kafka's: a producer that tells no member (before KIP-447) may commit whatever the group does, and
    /// one that does may while the group waits for its assignment.
    pub fn check_transactional_commit(&self, request: &CommitRequest) -> Result<(), ErrorCode> {
        let member_id = request.member_id.as_str();
        let instance = request.instance_id.as_deref();
        if self.state() == State::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if request.generation < 0
            && (self.state() == State::Empty || member_id.is_empty() && instance.is_none())
        {
            return Ok(());
        }
        self.check_member(member_id, instance)?;
        if request.generation != self.generation() {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(())
    }
}
