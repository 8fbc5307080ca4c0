//! Logs that failed: who goes out of service with them, what the controller is told, and when the broker ends.
//!
//! Promises: with a directory all its replicas go out of service, at once and for as long as this process
//! lives. The controller is told of every replica that is, until the metadata says so too: others lead then,
//! and this broker goes on with the rest. It ends when no directory is left.

use super::manager::ReplicaManager;
use super::partition::is_offline;
use super::types::PartitionKey;
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, watch};

/// Takes replicas out of service as soon as a directory, told by `failed`, has gone. Ends with the manager.
pub async fn run(manager: Weak<ReplicaManager>, failed: Arc<Notify>) {
    loop {
        failed.notified().await;
        let Some(manager) = manager.upgrade() else {
            return;
        };
        for partition in manager.all() {
            partition.notice_failure();
        }
        // Also where nobody lay in it.
        manager.failures().send_modify(|count| *count += 1);
    }
}

impl ReplicaManager {
    /// Rises whenever a replica or a directory went out of service.
    pub fn watch_failures(&self) -> watch::Receiver<u64> {
        self.failures().subscribe()
    }

    /// Replicas that are out of service, as long as the metadata does not say so.
    pub fn untold_failures(&self) -> Vec<PartitionKey> {
        let Some(image) = self.last_image() else {
            return Vec::new();
        };
        let mut all = self.all();
        all.retain(|partition| {
            let (topic, index) = partition.key();
            let known = image
                .partition(&topic, index)
                .is_none_or(|p| p.is_offline(self.id()) || !p.replicas.contains(&self.id()));
            !known && partition.look(is_offline)
        });
        all.iter().map(|partition| partition.key()).collect()
    }

    /// Resolves once no log directory is left, with why, or once a log could not be served for a reason that
    /// another start may mend. This broker must end, and whoever runs it start it again.
    pub async fn storage_failure(&self) -> String {
        let mut failures = self.watch_failures();
        loop {
            let none_left = || self.disks().dirs().none_left();
            if let Some(failure) = self.ended().cloned().or_else(none_left) {
                return failure;
            }
            // The sender lives as long as this manager.
            let _ = failures.changed().await;
        }
    }
}
