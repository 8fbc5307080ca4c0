//! Runs the pure controller of `leasehold-metadata` while this broker holds the Lease.
//!
//! - [`driver`] is the life of a candidate: elect, claim, serve a term, begin again;
//! - [`term`] is one term: batches committed, effects released only after their commit is known; [`asking`]
//!   is how questions become its inputs;
//! - [`polls`] answers the long-polls of brokers; [`peers`] notices that one died; [`events`] are log lines.
//!
//! Promises: a term ends for good at the first failed write (nothing of its state is used again, and
//! nothing is rebased); nothing is told to anyone before it is committed; holding the Lease ends with
//! this task.

mod asking;
mod driver;
mod events;
mod handle;
mod peers;
mod polls;
mod term;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use driver::start_with;
pub use driver::{Driver, DriverConfig, start};
pub use handle::{ControllerHandle, Role};
