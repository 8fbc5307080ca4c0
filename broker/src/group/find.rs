//! FindCoordinator for groups.

use super::cluster::{Cluster, Endpoint};
use super::coordinator::GroupCoordinator;
use super::types::FoundCoordinator;
use crate::coordinator::find::StateTopic;
use async_trait::async_trait;
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

const GROUP: i8 = 0;

impl GroupCoordinator {
    /// FindCoordinator for one key; `key_type` 0 is a group.
    pub async fn find_coordinator(self: &Arc<Self>, key_type: i8, key: &str) -> FoundCoordinator {
        if key_type != GROUP {
            let message = format!("key type {key_type} is not supported; 0 and 1 are");
            return FoundCoordinator::refused(key, ErrorCode::InvalidRequest, message);
        }
        self.finder.find(key).await
    }
}

/// The offsets topic of a cluster.
pub struct Offsets(pub Arc<dyn Cluster>);

#[async_trait]
impl StateTopic for Offsets {
    fn partitions(&self) -> Option<i32> {
        self.0.offsets_partitions()
    }

    fn leader(&self, partition: i32) -> Option<Endpoint> {
        self.0.offsets_leader(partition)
    }

    async fn create(&self) -> Result<(), ErrorCode> {
        self.0.create_offsets_topic().await
    }

    async fn changed(&self, timeout: Duration) {
        self.0.changed(timeout).await;
    }
}
