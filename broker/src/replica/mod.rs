//! Leading and following partitions.
//!
//! Promises (architecture, "Replication"): a record is acknowledged with acks=all only once every
//! member of the maximal ISR holds it; a log is appended to by one (broker, incarnation) per leader
//! epoch; consumers read to the high watermark only.
//!
//! Inwards from the rest of the broker: [`manager`] follows the metadata image and gives each
//! partition its role; [`produce`], [`fetch`] and [`offsets`] serve requests; [`fetcher`] copies
//! from other leaders; [`isr`] carries ISR changes to the controller; [`upkeep`] does what time asks
//! for. The decisions are pure: [`state`], [`leader`], [`proposal`], [`acks`] over a [`view`].

pub mod acks;
pub mod leader;
pub mod manager;
pub mod proposal;
pub mod state;
pub mod types;
pub mod view;

pub use manager::{PendingProduce, ReplicaManager};
pub use types::*;
