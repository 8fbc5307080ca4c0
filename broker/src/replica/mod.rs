//! Leading and following partitions.
//!
//! Promises (docs, "Replication"): a record is acknowledged with acks=all only once every member of
//! the maximal ISR holds it; a log is appended to by one (broker, incarnation) per leader epoch;
//! consumers read to the high watermark only.
//!
//! From the outside in: [`manager`] follows the metadata image, by which [`hosting`] gives each partition its role ([`settings`] are for all);
//! [`produce`], [`fetch`] (with [`nearest`] and [`throttle`]) and [`offsets`] serve requests; [`fetcher`] and [`follow`] copy from other
//! leaders; [`isr`] carries ISR changes to the controller; [`upkeep`] does what time asks for;
//! [`transactions`] writes markers and asks coordinators; [`cleaner`] compacts; [`delete_records`] does what its name says; [`disks`] are the log directories,
//! [`moves`] and [`mover`] take replicas from one to another,
//! [`failures`] what follows when one goes; [`status`] reports. The decisions are pure: [`state`], [`leader`], [`proposal`] and [`acks`], over a
//! [`view`] of the image.

pub mod acks;
pub mod cleaner;
pub mod counters;
pub mod delete_records;
pub mod disks;
pub mod endpoint;
pub mod failures;
pub mod fetch;
pub mod fetcher;
pub mod follow;
mod hosting;
pub mod image_view;
pub mod io;
pub mod isr;
pub mod leader;
pub mod manager;
mod mover;
mod moves;
pub mod nearest;
pub mod offsets;
pub mod partition;
pub mod produce;
pub mod proof;
pub mod proposal;
mod refusals;
mod seams;
pub mod settings;
pub mod space;
pub mod state;
pub mod status;
pub mod suspects;
pub mod throttle;
mod transactions;
pub mod types;
pub mod upkeep;
pub mod view;
pub mod wait;
pub mod wire_fetch;

#[cfg(test)]
mod cleaner_tests;
#[cfg(test)]
mod delete_records_tests;
#[cfg(test)]
mod disks_tests;
#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod moves_tests;
#[cfg(test)]
mod nearest_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod replication_tests;
#[cfg(test)]
mod space_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod transaction_tests;
#[cfg(test)]
mod walk_tests;

pub use counters::Counters;
pub use disks::DiskStatus;
pub use endpoint::{EndpointError, LeaderEndpoint, LeaderEndpoints, TcpEndpoints};
pub use isr::IsrController;
pub use manager::{ReplicaManager, ReplicaParts};
pub use nearest::Reader;
pub use produce::PendingProduce;
pub use settings::ReplicaSettings;
pub use status::{LogSize, PartitionStatus, ReplicaStatus};
pub use transactions::{
    AppendedMarker, MarkerEntry, MarkerListener, TransactionClient, TransactionQuestion,
    VerifyTransaction, is_transactional,
};
pub use types::*;
