//! FindCoordinator: who leads the partition of a group, and the creation of the offsets topic by the
//! first who asks.

use super::coordinator::GroupCoordinator;
use super::hash::partition_of;
use super::types::FoundCoordinator;
use futures::poll;
use leasehold_types::BrokerId;
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const GROUP: i8 = 0;

/// How long the first to ask may wait for the topic to be there. Clients ask again after a refusal,
/// but some only after a while.
const CREATION_WAIT: Duration = Duration::from_secs(1);

impl GroupCoordinator {
    /// FindCoordinator for one key; `key_type` 0 is a group.
    pub async fn find_coordinator(self: &Arc<Self>, key_type: i8, key: &str) -> FoundCoordinator {
        if key_type != GROUP {
            let message = format!("key type {key_type} is not supported; 0 (group) is");
            return FoundCoordinator::refused(key, ErrorCode::InvalidRequest, message);
        }
        if let Some(found) = self.known(key) {
            return found;
        }
        // Only a missing topic is waited for; a partition without a leader may stay so for long.
        if self.cluster.offsets_partitions().is_none() {
            self.create_in_background();
            let until = Instant::now() + CREATION_WAIT;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                let mut changed = self.cluster.changed(left);
                // It listens from its first poll on; looking after that misses no change.
                let already = poll!(&mut changed).is_ready();
                if let Some(found) = self.known(key) {
                    return found;
                }
                if !already {
                    changed.await;
                }
            }
        }
        let message = "the offsets topic has no leader for this group yet; ask again".to_owned();
        FoundCoordinator::refused(key, ErrorCode::CoordinatorNotAvailable, message)
    }

    fn known(&self, key: &str) -> Option<FoundCoordinator> {
        let partitions = self.cluster.offsets_partitions()?;
        let leader = self.cluster.offsets_leader(partition_of(key, partitions))?;
        Some(FoundCoordinator {
            key: key.to_owned(),
            error: ErrorCode::None,
            error_message: None,
            broker: leader.broker,
            host: leader.host,
            port: leader.port,
        })
    }

    /// One creation at a time, however many ask; it goes on if those who asked hang up.
    fn create_in_background(self: &Arc<Self>) {
        if std::mem::replace(&mut *self.creating.lock(), true) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.cluster.create_offsets_topic().await {
                tracing::warn!(
                    %error,
                    "cannot create the offsets topic; the next FindCoordinator tries again"
                );
            }
            *this.creating.lock() = false;
        });
    }
}

impl FoundCoordinator {
    fn refused(key: &str, error: ErrorCode, message: String) -> Self {
        Self {
            key: key.to_owned(),
            error,
            error_message: Some(message),
            broker: BrokerId(-1),
            host: String::new(),
            port: -1,
        }
    }
}
