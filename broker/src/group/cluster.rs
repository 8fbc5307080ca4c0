//! What the coordinator needs to know of the cluster. The metadata image provides it; tests make it up.

use async_trait::async_trait;
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// Kafka's name of the topic that groups and offsets are kept in.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

pub use crate::coordinator::find::Endpoint;

/// The cluster as this broker knows it now.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// How many partitions the offsets topic has; `None` while it does not exist.
    fn offsets_partitions(&self) -> Option<i32>;

    /// The leader of a partition of the offsets topic, if there is one that serves.
    fn offsets_leader(&self, partition: i32) -> Option<Endpoint>;

    /// Whether a client may commit an offset for this partition.
    fn has_partition(&self, topic: &str, partition: i32) -> bool;

    /// All that this broker knows now.
    fn image(&self) -> Arc<Image>;

    /// Creates the offsets topic. Succeeds if it exists already.
    async fn create_offsets_topic(&self) -> Result<(), ErrorCode>;

    /// Resolves when the metadata changes after the first poll, at the latest after `timeout`.
    async fn changed(&self, timeout: Duration);
}
