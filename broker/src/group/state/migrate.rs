//! A classic group that becomes one of the newer protocol, and one that is classic again.

use super::effects::{Effects, Limits, Now};
use super::group::{Group, State};
use leasehold_wire::ErrorCode;

impl Group {
    /// Tells everyone who waits for a join or a sync to try again: somebody else will answer then.
    pub fn interrupt(&mut self, fx: &mut Effects) {
        let error = ErrorCode::RebalanceInProgress;
        for member in self.members.values_mut() {
            if let Some(token) = member.awaiting_join.take() {
                self.awaiting_join -= 1;
                fx.refuse_join(token, &member.id, error);
            }
            if let Some(token) = member.awaiting_sync.take() {
                fx.refuse_sync(token, error);
            }
        }
    }

    /// The group goes on after it was, or was about to be, one of the newer protocol: sessions begin
    /// anew, and everyone is asked to join.
    pub fn reopen(&mut self, limits: &Limits, now: Now, fx: &mut Effects) {
        self.resume(limits, now, fx);
        if self.members.is_empty() {
            return;
        }
        for member in self.members.values_mut() {
            member.is_new = false;
        }
        self.initial = None;
        // As if from a stable generation, whatever was interrupted.
        self.enter(State::Stable, now);
        self.prepare_rebalance(limits, now, fx);
    }
}
