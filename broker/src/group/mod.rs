//! Consumer groups: who is a member, who consumes what, and how far they got.
//!
//! The coordinator of a group is the leader of the `__consumer_offsets` partition that the group's
//! id hashes to ([`hash`]). [`GroupCoordinator`] is the whole interface; [`types`] are its questions
//! and answers. Inwards: a task per led partition owns a [`shard`] of groups, each a [`state`]
//! machine; both are pure. [`store`] is the format of what they keep; [`log`] and [`cluster`] are
//! what they need of the rest of the broker.

pub mod cluster;
mod coordinator;
mod find;
pub mod hash;
pub mod log;
mod offsets;
pub mod shard;
pub mod state;
pub mod store;
mod task;
mod timer;
pub mod types;
mod wiring;

#[cfg(test)]
mod coordinator_tests;

pub use coordinator::{GroupCoordinator, GroupStats};
pub use wiring::start;
