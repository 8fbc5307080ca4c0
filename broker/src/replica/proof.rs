//! Proof of leadership: bounds how stale a read or an acks=1 can be.
//!
//! A leader serves while one of these holds: the controller confirmed this broker's image within the
//! session timeout; every other member of the maximal ISR fetched at its epoch within that time; or
//! it is alone in the maximal ISR and no unclean election can replace it. So an outage of the
//! control plane stops neither produce nor fetch, and a leader that is cut off from everyone soon
//! stops answering. (acks=all needs no proof; a paused virtual machine voids the bound.)

use super::partition::Partition;
use leasehold_types::seams;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When the poll was sent whose answer brought this broker to the controller's committed metadata.
pub type LastConfirmed = Arc<dyn Fn() -> Option<Instant> + Send + Sync>;

/// Judges whether a leadership is proven.
#[derive(Clone)]
pub struct Proof {
    pub last_confirmed: LastConfirmed,
    pub session_timeout: Duration,
}

impl Proof {
    /// Whether this broker surely led `partition` within the last session timeout.
    pub fn holds(&self, partition: &Partition) -> bool {
        let Some(since) = seams::now().checked_sub(self.session_timeout) else {
            // The machine booted less than a session timeout ago.
            return true;
        };
        if (self.last_confirmed)().is_some_and(|confirmed| confirmed >= since) {
            return true;
        }
        partition
            .look_leader(|leader| leader.confirmed_by_followers(since) || leader.alone())
            .unwrap_or(false)
    }
}
