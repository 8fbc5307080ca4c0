//! Questions about offsets, and reads of the broker's own coordinators.

use super::io::blocking;
use super::manager::ReplicaManager;
use super::partition::{Partition, hint, is_offline};
use super::types::*;
use bytes::Bytes;
use leasehold_log::{PartitionLog, ReadError, TimestampedOffset};
use leasehold_types::{LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// ListOffsets' special timestamps.
pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;
pub const MAX_TIMESTAMP: i64 = -3;
pub const EARLIEST_LOCAL: i64 = -4;
pub const LATEST_TIERED: i64 = -5;

impl ReadRefused {
    /// A refusal that names no leader.
    pub fn new(error: ErrorCode) -> Self {
        Self {
            error,
            current_leader: None,
        }
    }
}

/// The leadership that answers a question: asked of at the beginning, and again after the disk.
pub(super) struct Asked {
    partition: Arc<Partition>,
    log: Arc<PartitionLog>,
    state: LeaderState,
}

impl Asked {
    /// Whether what was read under this leadership may still be said.
    fn still_holds(&self) -> Result<(), ReadRefused> {
        let epoch = self.partition.look_leader(|leader| leader.epoch());
        if epoch == Some(self.state.epoch) {
            return Ok(());
        }
        Err(ReadRefused {
            error: ErrorCode::NotLeaderOrFollower,
            current_leader: self.partition.hint(),
        })
    }

    pub(super) async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&PartitionLog) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadRefused> {
        let log = self.log.clone();
        let read = blocking(move || read(&log)).await;
        let found = read
            .map_err(|_| ReadRefused::new(ErrorCode::UnknownServerError))?
            .map_err(|error| ReadRefused::new(ErrorCode::from_code(error.kafka_code())))?;
        self.still_holds()?;
        Ok(found)
    }
}

impl ReplicaManager {
    /// The leadership over `key`, if this broker may answer for it to someone who believes in `epoch`.
    pub(super) fn ask(
        &self,
        key: PartitionKey,
        epoch: Option<LeaderEpoch>,
    ) -> Result<Asked, ReadRefused> {
        let partition = self.find(key)?;
        let refuse = |error| {
            Err(ReadRefused {
                error,
                current_leader: partition.hint(),
            })
        };
        let (Some(state), Some(log)) = (partition.leader_state(), partition.log()) else {
            return partition.look(|state| {
                Err(if is_offline(state) {
                    ReadRefused::new(ErrorCode::KafkaStorageError)
                } else {
                    ReadRefused {
                        error: ErrorCode::NotLeaderOrFollower,
                        current_leader: hint(state),
                    }
                })
            });
        };
        match epoch {
            Some(epoch) if epoch < state.epoch => return refuse(ErrorCode::FencedLeaderEpoch),
            Some(epoch) if epoch > state.epoch => return refuse(ErrorCode::UnknownLeaderEpoch),
            _ => {}
        }
        if !self.proof().holds(&partition) {
            return refuse(ErrorCode::NotLeaderOrFollower);
        }
        Ok(Asked {
            partition,
            log,
            state,
        })
    }

    /// ListOffsets: −1 latest, −2 earliest, −3 largest timestamp, −4 earliest local, −5 latest
    /// tiered, else the first record at or after `timestamp`. Who reads committed records only is told of
    /// nothing above the last stable offset.
    pub async fn list_offsets(
        &self,
        key: PartitionKey,
        current_leader_epoch: Option<LeaderEpoch>,
        timestamp: i64,
        read_committed: bool,
    ) -> Result<FoundOffset, ReadRefused> {
        let asked = self.ask(key, current_leader_epoch)?;
        let state = asked.state;
        let at = |offset, leader_epoch| FoundOffset {
            timestamp: -1,
            offset,
            leader_epoch,
        };
        // Until the high watermark reaches the epoch's start it may be behind what the last leader
        // had already shown.
        let behind = state.high_watermark < state.epoch_start;
        let limit = match read_committed {
            true => asked.log.last_stable_offset(state.high_watermark),
            false => state.high_watermark,
        };
        match timestamp {
            LATEST if behind => Err(ReadRefused::new(ErrorCode::OffsetNotAvailable)),
            LATEST => Ok(at(limit, Some(state.epoch))),
            EARLIEST | EARLIEST_LOCAL => {
                Ok(at(state.log_start, asked.log.epoch_of(state.log_start)))
            }
            // No tiered storage.
            LATEST_TIERED => Ok(at(Offset(-1), None)),
            MAX_TIMESTAMP => {
                let found = asked.read(move |log| log.max_timestamp(limit)).await?;
                answer(found, behind)
            }
            timestamp if timestamp >= 0 => {
                let search = move |log: &PartitionLog| log.offset_for_timestamp(timestamp, limit);
                answer(asked.read(search).await?, behind)
            }
            _ => Err(ReadRefused::new(ErrorCode::UnsupportedVersion)),
        }
    }

    /// OffsetForLeaderEpoch: the largest epoch not above `epoch` and its end; (NONE, −1) if unknown.
    pub async fn offset_for_leader_epoch(
        &self,
        key: PartitionKey,
        current_leader_epoch: Option<LeaderEpoch>,
        epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), ReadRefused> {
        let asked = self.ask(key, current_leader_epoch)?;
        let end = end_of_epoch(&asked.log, epoch);
        asked.still_holds()?;
        Ok(end.unwrap_or((LeaderEpoch::NONE, Offset(-1))))
    }

    /// The leadership of this broker over a partition, if it has it now.
    pub fn leads(&self, topic: leasehold_types::TopicId, partition: i32) -> Option<LeaderState> {
        self.find((topic, partition)).ok()?.leader_state()
    }

    /// Whole batches of a partition that this broker leads, from `from` on, about `max_bytes` (at
    /// least one batch); empty at the end. The first batch may begin before `from`.
    pub async fn read_local(
        &self,
        key: PartitionKey,
        from: Offset,
        up_to: ReadUpTo,
        max_bytes: usize,
    ) -> Result<Bytes, ReadRefused> {
        let asked = self.ask(key, None)?;
        let limit = match up_to {
            ReadUpTo::HighWatermark => asked.state.high_watermark,
            ReadUpTo::LogEnd => asked.state.log_end,
        };
        asked
            .read(move |log| log.read(from, max_bytes, limit, true))
            .await
    }
}

fn answer(found: Option<TimestampedOffset>, behind: bool) -> Result<FoundOffset, ReadRefused> {
    match found {
        Some(found) => Ok(FoundOffset {
            timestamp: found.timestamp,
            offset: found.offset,
            leader_epoch: Some(found.leader_epoch),
        }),
        None if behind => Err(ReadRefused::new(ErrorCode::OffsetNotAvailable)),
        None => Ok(FoundOffset {
            timestamp: -1,
            offset: Offset(-1),
            leader_epoch: None,
        }),
    }
}

/// The greatest epoch in `log` not above `epoch`, and where it ends. For an epoch older than all in
/// the log: that epoch, ending where the log begins, as in Kafka (its records were deleted).
pub fn end_of_epoch(log: &PartitionLog, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
    log.end_offset_for_epoch(epoch).or_else(|| {
        let older = epoch >= LeaderEpoch(0) && log.last_epoch().is_some_and(|last| epoch < last);
        older.then(|| (epoch, log.log_start_offset()))
    })
}
