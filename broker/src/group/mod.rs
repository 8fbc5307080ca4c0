//! Consumer groups: who is a member, who consumes what, and how far they got.
//!
//! The coordinator of a group is the leader of the `__consumer_offsets` partition that the group's
//! id hashes to. [`GroupCoordinator`] is the whole interface; [`types`] are its questions and answers.

mod coordinator;
pub mod types;

pub use coordinator::GroupCoordinator;
