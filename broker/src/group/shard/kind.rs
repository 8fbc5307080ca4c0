//! Which protocol a group speaks.

use crate::group::consumer::Cell;
use crate::group::offsets::Expiry;
use crate::group::state::{Group, Now, State};
use crate::group::types::CommitRequest;
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// A group of either protocol.
#[derive(Debug)]
pub(super) enum Kind {
    Classic(Box<Group>),
    /// The newer protocol (KIP-848).
    Consumer(Box<Cell>),
}

impl Kind {
    pub(super) fn id(&self) -> &Arc<str> {
        match self {
            Self::Classic(group) => group.id(),
            Self::Consumer(cell) => cell.group().id(),
        }
    }

    pub(super) fn classic(&self) -> Option<&Group> {
        match self {
            Self::Classic(group) => Some(group),
            Self::Consumer(_) => None,
        }
    }

    pub(super) fn classic_mut(&mut self) -> Option<&mut Group> {
        match self {
            Self::Classic(group) => Some(group),
            Self::Consumer(_) => None,
        }
    }

    pub(super) fn consumer(&self) -> Option<&Cell> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(cell) => Some(cell),
        }
    }

    pub(super) fn consumer_mut(&mut self) -> Option<&mut Cell> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(cell) => Some(cell),
        }
    }

    pub(super) fn members(&self) -> usize {
        match self {
            Self::Classic(group) => group.members().len(),
            Self::Consumer(cell) => cell.group().members().len(),
        }
    }

    /// Kafka's name of its state.
    pub(super) fn state_name(&self) -> &'static str {
        match self {
            Self::Classic(group) => group.state().name(),
            Self::Consumer(cell) if cell.is_deleting() => State::Dead.name(),
            Self::Consumer(cell) => cell.group().state().name(),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Classic(_) => "classic",
            Self::Consumer(_) => "consumer",
        }
    }

    pub(super) fn protocol_type(&self) -> &str {
        match self {
            Self::Classic(group) => group.protocol_type().unwrap_or_default(),
            Self::Consumer(_) => "consumer",
        }
    }

    /// Whether nothing would be lost by forgetting it.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_blank(),
            Self::Consumer(cell) => cell.group().is_blank() && cell.is_idle(),
        }
    }

    /// Whether it is empty and nobody is about to join it.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_idle(),
            Self::Consumer(cell) => cell.group().members().len() == 0 && cell.is_idle(),
        }
    }

    pub(super) fn is_deleting(&self) -> bool {
        match self {
            Self::Classic(group) => group.state() == State::Dead,
            Self::Consumer(cell) => cell.is_deleting(),
        }
    }

    pub(super) fn set_deleting(&mut self, deleting: bool, now: Now) {
        match self {
            Self::Classic(group) => group.set_deleting(deleting, now),
            Self::Consumer(cell) => cell.set_deleting(deleting),
        }
    }

    /// Whether an offset may be committed in a transaction.
    pub(super) fn check_transactional_commit(
        &self,
        request: &CommitRequest,
    ) -> Result<(), ErrorCode> {
        match self {
            Self::Classic(group) => group.check_transactional_commit(request),
            Self::Consumer(cell) if cell.is_deleting() => Err(ErrorCode::CoordinatorNotAvailable),
            Self::Consumer(cell) => cell.group().check_transactional_commit(request),
        }
    }

    /// When an offset of `topic` may be dropped.
    pub(super) fn expiry(&self, topic: &str) -> Expiry {
        match self {
            Self::Classic(group) => classic_expiry(group, topic),
            Self::Consumer(cell) if cell.group().is_subscribed_to(topic) => Expiry::Never,
            Self::Consumer(_) => Expiry::AfterCommit,
        }
    }
}

fn classic_expiry(group: &Group, topic: &str) -> Expiry {
    match (group.state(), group.protocol_type()) {
        // Consumers that assign their partitions themselves: the group never has members.
        (State::Empty, None) => Expiry::AfterCommit,
        (State::Empty, Some(_)) => Expiry::AfterEmpty(group.state_since()),
        (State::Stable, Some(_)) if group.knows_its_topics() && !group.is_subscribed_to(topic) => {
            Expiry::AfterCommit
        }
        _ => Expiry::Never,
    }
}
