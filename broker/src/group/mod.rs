//! Consumer groups: who is a member, who consumes what, and how far they got.
//!
//! The coordinator of a group is the leader of the `__consumer_offsets` partition that the group's
//! id hashes to ([`hash`]). [`GroupCoordinator`] is the whole interface; [`types`] are its questions
//! and answers. Inwards: a task per led partition owns a [`shard`] of groups, each a [`state`]
//! machine or, of the newer protocol, a [`consumer`] one; all are pure. [`store`] is the format of what they keep; [`log`] and [`cluster`] are
//! what they need of the rest of the broker.

pub mod cluster;
pub mod consumer;
mod coordinator;
pub mod find;
mod offsets;
mod open;
pub mod shard;
pub mod state;
pub mod store;
mod task;
mod transactions;
pub mod types;
mod wiring;

#[cfg(test)]
mod coordinator_tests;

pub use crate::coordinator::{hash, log, timer};
pub use coordinator::{GroupCoordinator, GroupStats};
pub use wiring::{ImageCluster, start, start_in};
