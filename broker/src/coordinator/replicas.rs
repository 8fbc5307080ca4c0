//! The logs of internal topics, kept by the replicas of this broker.

use super::log::{Bounds, Leadership, StateLog};
use crate::replica::{Acks, FetchEntry, FetchParams, ProduceEntry, ReplicaManager, Verified};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_types::Offset;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// An append waits as long as its leadership lasts; its client is answered long before.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
const READ_BYTES: usize = 1024 * 1024;
const READ_WAIT: Duration = Duration::from_millis(500);

/// See [`StateLog`].
pub struct ReplicaLog(pub Arc<ReplicaManager>);

#[async_trait]
impl StateLog for ReplicaLog {
    fn append(
        &self,
        at: Leadership,
        batch: Bytes,
        verified: Verified,
    ) -> BoxFuture<'static, Result<Offset, ErrorCode>> {
        let entry = ProduceEntry {
            topic: at.topic,
            partition: at.partition,
            records: batch,
            leader_epoch: (!taken_out("a-write-is-of-its-epoch")).then_some(at.epoch),
            verified,
        };
        let acks = match taken_out("a-commit-waits-for-the-isr") {
            true => Acks::Leader,
            false => Acks::All,
        };
        let pending = self.0.append(acks, FOR_EVER, vec![entry]);
        Box::pin(async move {
            match pending.await.pop() {
                Some(result) if result.error.is_ok() => Ok(result.base_offset),
                Some(result) => {
                    let Leadership {
                        topic,
                        partition,
                        epoch,
                    } = at;
                    let message = result.message.unwrap_or_default();
                    tracing::warn!(%topic, partition, %epoch, error = %result.error, message, "a coordinator's state could not be stored");
                    Err(result.error)
                }
                None => Err(ErrorCode::UnknownServerError),
            }
        })
    }

    fn bounds(&self, at: Leadership) -> Option<Bounds> {
        let state = self.0.leads(at.topic, at.partition)?;
        (state.epoch == at.epoch).then_some(Bounds {
            log_start: state.log_start,
            log_end: state.log_end,
        })
    }

    async fn read(&self, at: Leadership, from: Offset) -> Result<Bytes, ErrorCode> {
        let params = FetchParams {
            replica: None,
            max_wait: READ_WAIT,
            min_bytes: 1,
            max_bytes: READ_BYTES,
            read_committed: false,
        };
        let entry = FetchEntry {
            topic: at.topic,
            partition: at.partition,
            current_leader_epoch: Some(at.epoch),
            fetch_offset: from,
            last_fetched_epoch: None,
            log_start_offset: None,
            max_bytes: READ_BYTES,
        };
        match self.0.fetch(params, vec![entry]).await.pop() {
            Some(result) if result.error.is_ok() => Ok(result.records),
            Some(result) => Err(result.error),
            None => Err(ErrorCode::UnknownServerError),
        }
    }
}
