//! Groups of the newer protocol (KIP-848), as a pure state machine: the coordinator assigns, members
//! heartbeat, and each is led to its target step by step.
//!
//! Three things carry an epoch: the group (raised when what it consumes, or who consumes, changes), the
//! target assignment (made for an epoch of the group), and each member (raised when it has given up what
//! the target takes from it). [`group`] is the state, [`heartbeat`] the rules of the API, [`reconcile`]
//! how one member moves on, [`assignor`] who shall have what, [`diff`] what is to be stored of a change,
//! [`cell`] the order of changes and their storing; `classic` and `migrate` let members of the classic
//! protocol stay while a group moves to this one and back.
//!
//! Promises:
//! - no partition is ever assigned to two members, nor to one while another still has to give it up;
//! - epochs never fall; a member that acts on an older epoch is told so;
//! - nobody is answered before what the answer rests on is stored;
//! - with steady members and topics the group becomes Stable after a bounded number of heartbeats.

pub mod assignor;
pub mod cell;
mod classic;
mod describe;
pub mod diff;
pub mod group;
pub mod heartbeat;
mod leave;
pub mod member;
mod migrate;
mod offsets;
mod reconcile;
pub mod settings;
mod subscriptions;

#[cfg(test)]
mod migrate_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod walk_tests;

pub use cell::{Cell, ConsumerTimer};
pub use group::ConsumerGroup;
pub use offsets::Commits;
pub use settings::ConsumerSettings;

use super::state::Now;
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;

/// What a decision may look at besides the group.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The topics, as this broker knows them.
    pub image: &'a Image,
    /// The group's own where it has some.
    pub settings: ConsumerSettings,
    pub now: Now,
}

/// A refusal, with the message that this API can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: ErrorCode,
    pub message: String,
}

impl Refused {
    pub(crate) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }
}
