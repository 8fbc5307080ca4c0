//! This broker's side of its session with the controller.
//!
//! It finds the controller, registers, polls, keeps a durable copy of the metadata, and publishes the
//! image to the rest of the broker. Promises: nothing is published that was not first made durable, or
//! that is older than this process's own registration; a position never falls; a process whose
//! registration was replaced ends.
//!
//! - [`client`] carries other parts' requests to the controller; [`find`] knows where it is;
//! - [`durable`] is the copy on disk, [`apply`] decides (purely) whether an answer may be taken in;
//! - [`handle`] is what the broker holds of it, [`run`] the loop, [`watch`] notices that the controller died.

pub mod apply;
pub mod client;
pub mod durable;
pub mod find;
mod handle;
mod health;
mod listeners;
mod run;
pub mod watch;

#[cfg(test)]
mod tests;

pub use client::ControllerClient;
pub use durable::path_in as copy_path;
pub use find::address_of;
pub use handle::{Session, SessionConfig, SessionStatus, start};
pub use health::SessionHealth;

use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::LogEnd;
use leasehold_types::{BrokerId, ClusterId, Incarnation, TopicId};
use std::sync::Arc;

/// What every part of the broker may know of the cluster, and whom it may ask. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub cluster_id: ClusterId,
    /// The newest image that this broker may act on. Before registration: the empty image.
    pub image: tokio::sync::watch::Receiver<Arc<Image>>,
    pub controller: ControllerClient,
    pub health: SessionHealth,
}

/// What the replicas report with every poll.
pub trait ReplicaReports: Send + Sync + 'static {
    /// The ends of these logs.
    fn log_ends(&self, wanted: &[(TopicId, i32)]) -> Vec<LogEnd>;
    /// Replicas that refused an epoch of the metadata because their log is ahead of it.
    fn epochs_ahead(&self) -> Vec<LogEnd>;
    /// Replicas whose log failed, of which the metadata does not know yet.
    fn offline(&self) -> Vec<(TopicId, i32)>;
    /// Rises when there may be more of those: they are told at once.
    fn failures(&self) -> tokio::sync::watch::Receiver<u64>;
}
