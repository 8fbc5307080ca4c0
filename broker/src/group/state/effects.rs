//! What a group is told, and what it wants done.

pub use crate::coordinator::{Now, Token};
use crate::group::store::records::GroupValue;
use crate::group::types::{JoinResponse, SyncResponse};
use bytes::Bytes;
use leasehold_wire::ErrorCode;
use std::collections::HashMap;
use std::sync::Arc;

/// The broker's settings as far as a group obeys them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `group.max.size`.
    pub max_size: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// How long a new member may wait for its first rebalance before it is given up (Kafka's constant).
    pub new_member_join_timeout_ms: u64,
    /// Ids handed out with MEMBER_ID_REQUIRED and not yet used; without a bound, anyone could fill the memory.
    pub max_pending: usize,
}

/// A deadline of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GroupTimer {
    /// A member's session, or that of an id that was handed out.
    Session(Arc<str>),
    /// The end of the join phase.
    Join,
    /// The end of the sync phase of a generation.
    Sync(i32),
}

/// A change of a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerOp {
    Set(GroupTimer, u64),
    Cancel(GroupTimer),
}

/// An answer to a caller who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Join(JoinResponse),
    Sync(SyncResponse),
}

/// What happens once a write is stored, or is known to have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// The group became empty; nobody waits.
    Nothing,
    /// The leader's assignment: the generation becomes Stable.
    Assign {
        generation: i32,
        assignments: HashMap<String, Bytes>,
    },
    /// A static member came back under a new id, in a stable group; `token` is its join.
    Replace {
        member_id: Arc<str>,
        token: Token,
        /// Whether the request knows `skip_assignment` (v9+).
        can_skip: bool,
        /// The leader to name to older clients, so that they do not assign anew.
        former_leader: Option<Arc<str>>,
    },
}

/// All that one call wants done, in order within each kind.
#[derive(Debug, Default)]
pub struct Effects {
    pub answers: Vec<(Token, Answer)>,
    pub timers: Vec<TimerOp>,
    /// The group's new metadata, to be stored before its `Then`.
    pub writes: Vec<(GroupValue, Then)>,
}

impl Effects {
    pub(super) fn join(&mut self, token: Token, response: JoinResponse) {
        self.answers.push((token, Answer::Join(response)));
    }

    pub(super) fn refuse_join(&mut self, token: Token, member_id: &str, error: ErrorCode) {
        self.join(token, JoinResponse::refused(member_id, error));
    }

    pub(super) fn sync(&mut self, token: Token, response: SyncResponse) {
        self.answers.push((token, Answer::Sync(response)));
    }

    pub(super) fn refuse_sync(&mut self, token: Token, error: ErrorCode) {
        self.sync(token, SyncResponse::refused(error));
    }

    pub(super) fn set(&mut self, timer: GroupTimer, at: u64) {
        self.timers.push(TimerOp::Set(timer, at));
    }

    pub(super) fn cancel(&mut self, timer: GroupTimer) {
        self.timers.push(TimerOp::Cancel(timer));
    }
}
