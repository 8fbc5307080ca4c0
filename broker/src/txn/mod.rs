//! Transactions: who produces under a transactional id, and what their transactions hold (KIP-98, with
//! KIP-360, KIP-447, KIP-588, KIP-664 and KIP-890).
//!
//! The coordinator of a transactional id is the leader of the `__transaction_state` partition that the id
//! hashes to. [`TxnCoordinator`] is the whole interface; [`types`] are its questions and answers. Inwards:
//! a task per led partition owns a [`shard`] of transactional ids, each a [`state`] machine; both are
//! pure. [`store`] is the format of what they keep. [`markers`] carries the end of a transaction to the
//! leaders of its partitions; [`verify`] lets a leader ask whether its partition is in a transaction;
//! [`peers`] are the connections that both use.
//!
//! Promises: a transaction ends in the one way that was stored first, whoever coordinates it by then; its
//! producer hears of the end once it is stored, and can begin another once every partition has it.

mod coordinator;
pub mod markers;
pub mod peers;
pub mod shard;
pub mod state;
pub mod store;
mod task;
pub mod types;
pub mod verify;
pub mod wire;
mod wiring;

#[cfg(test)]
mod coordinator_tests;

pub use coordinator::{FreshProducerIds, TxnCoordinator, TxnStats};
pub use wiring::{Transactions, Ways, start, start_in};
