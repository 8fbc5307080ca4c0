//! The head: the single commit point of a cluster's metadata, and everything that is written through it.
//!
//! - [`format`] is the head as a value, [`keys`] its keys, [`chunks`] the immutable objects that it names;
//! - [`load`] reads head, chunks and image; [`genesis`] makes the first head;
//! - [`plan`] decides what a write looks like, [`doubt`] what became of one without an answer, [`collect`]
//!   which chunks may go: all pure;
//! - [`writer`] claims the head and commits through it;
//! - [`copy`] is a broker's own copy of the metadata, [`recover`] a head made from such copies.
//!
//! Promises: every change is exactly one conditional write of the head; success or failure is reported
//! only once it is known; after any failure the term is over.

pub mod chunks;
pub mod collect;
pub mod copy;
pub mod doubt;
pub mod format;
pub mod genesis;
pub mod keys;
pub mod load;
pub mod plan;
pub mod recover;
pub mod writer;

#[cfg(test)]
mod tests;

pub use format::{ControllerRef, Head, check_level};
pub use genesis::{Genesis, GenesisError, genesis};
pub use load::{LoadError, Loaded, load};
pub use plan::Limits;
pub use writer::{Committed, Failed, HeadWriter};
