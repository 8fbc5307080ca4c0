//! One group as a pure state machine: no clock, no randomness, no I/O.
//!
//! Time, fresh member ids and reply tokens come in as arguments; what is to be done about a call
//! (answers, timers, writes) goes out in [`Effects`]. The rules are those of Apache Kafka's classic
//! groups, as its clients see them.
//!
//! Promises:
//! - the generation never falls, and a leader is always a member;
//! - every parked join and sync is answered: by the rebalance, by a refusal, or by a timer;
//! - a member is removed only by its own leaving, an expired session, a missed rebalance or sync, or
//!   a group that is over its limit;
//! - a generation becomes Stable only after its assignment was stored.

mod effects;
mod group;
mod join;
mod member;
mod membership;
mod migrate;
mod rebalance;
mod stored;
mod subscription;
mod sync;
mod transactions;

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod static_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod walk_tests;

pub use effects::{Answer, Effects, GroupTimer, Limits, Now, Then, TimerOp, Token};
pub use group::{Group, State};
pub use member::Member;
