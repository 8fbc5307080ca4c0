//! The state of all replicas, for `/status`, metrics and the controller.

use super::manager::ReplicaManager;
use super::partition::Partition;
use super::state::Role;
use leasehold_log::PartitionLog;
use leasehold_metadata::rpc::LogEnd;
use leasehold_types::{BrokerId, DirectoryId, LeaderEpoch, Offset, PartitionEpoch, TopicId};
use serde::Serialize;
use std::sync::Arc;

/// One replica.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionStatus {
    pub topic: Arc<str>,
    pub topic_id: TopicId,
    pub partition: i32,
    /// `leader`, `follower`, `starting`, `idle` (no leader, or none that may be believed) or `offline`.
    pub role: &'static str,
    /// Why it is offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    pub replicas: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// Where readers of committed records stop.
    pub last_stable: Offset,
    pub log_end: Offset,
    /// Transactions that are open in the log.
    pub open_transactions: usize,
    pub size_bytes: u64,
}

/// All replicas.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReplicaStatus {
    pub partitions: Vec<PartitionStatus>,
    /// How many this broker leads.
    pub leaders: usize,
    /// Led here, with fewer in sync than assigned.
    pub under_replicated: usize,
    /// Led here, with fewer in sync than acks=all needs.
    pub under_min_isr: usize,
    /// Without a leader, or out of service on this broker.
    pub offline: usize,
}

/// What one replica takes on the disk.
#[derive(Clone, Debug)]
pub struct LogSize {
    /// The log directory that it lies in.
    pub directory: DirectoryId,
    pub topic: Arc<str>,
    pub partition: i32,
    pub bytes: u64,
    /// How far the log's end is behind the high watermark that the replica knows of; of a copy, how far it is behind
    /// the log.
    pub offset_lag: i64,
    /// Whether it is a copy that shall take the log's place.
    pub is_future: bool,
}

impl ReplicaManager {
    /// The sizes of all logs that are open, and of the copies that shall take their place, in no order.
    pub fn log_sizes(&self) -> Vec<LogSize> {
        let mut sizes = Vec::new();
        for partition in self.all() {
            // Asked for first: a copy that took its log's place meanwhile is told once.
            let future = self.moves().of(partition.key());
            let (Some(log), Some(place)) = (partition.log_in_memory(), partition.place()) else {
                continue;
            };
            let directory = place.dir.id();
            let (high_watermark, log_end) =
                partition.look(|state| (state.high_watermark(), state.log_end()));
            let size = |directory, bytes, offset_lag: i64, is_future| LogSize {
                directory,
                topic: partition.topic().clone(),
                partition: partition.key().1,
                bytes,
                offset_lag: offset_lag.max(0),
                is_future,
            };
            sizes.push(size(
                directory,
                log.size(),
                high_watermark.0 - log_end.0,
                false,
            ));
            if let Some(copy) = future.filter(|copy| copy.to != directory) {
                let lag = log_end.0 - copy.log_end.0;
                sizes.push(size(copy.to, copy.bytes, lag, true));
            }
        }
        sizes
    }

    /// The state of all replicas now, ordered by topic and partition.
    pub fn status(&self) -> ReplicaStatus {
        let mut all = ReplicaStatus::default();
        for partition in self.all() {
            let status = status_of(&partition);
            if let Some(enough) = partition.look_leader(|leader| leader.has_min_isr()) {
                all.leaders += 1;
                all.under_min_isr += usize::from(!enough);
                all.under_replicated += usize::from(status.isr.len() < status.replicas.len());
            }
            all.offline += usize::from(status.leader.is_none() || status.reason.is_some());
            all.partitions.push(status);
        }
        let key = |p: &PartitionStatus| (p.topic.clone(), p.partition);
        all.partitions.sort_by_key(key);
        all
    }

    /// Ends of the logs of these partitions, as far as they are open: what the controller asks for
    /// when all who had every record may have lost some.
    pub fn ends_of(&self, wanted: &[(TopicId, i32)]) -> Vec<LogEnd> {
        let end = |key: &(TopicId, i32)| {
            let partition = self.find(*key).ok()?;
            let log = partition.log_in_memory()?;
            Some(log_end(&partition, &log))
        };
        wanted.iter().filter_map(end).collect()
    }

    /// Replicas whose log has seen a newer leader epoch than the image: the metadata was put back to
    /// an older state, and they refuse to follow it.
    pub fn ahead_of_metadata(&self) -> Vec<LogEnd> {
        let ahead = |partition: &Arc<Partition>| {
            let log = partition.log_in_memory()?;
            let view = partition.look(|state| state.view().cloned())?;
            (log.last_epoch()? > view.leader_epoch).then(|| log_end(partition, &log))
        };
        self.all().iter().filter_map(ahead).collect()
    }
}

fn log_end(partition: &Partition, log: &PartitionLog) -> LogEnd {
    let (topic, index) = partition.key();
    let end_offset = log.log_end_offset();
    // The epoch of the last record: an epoch may have been begun without one.
    let last = Offset(end_offset.0 - 1);
    let last_epoch = (last >= log.log_start_offset()).then(|| log.epoch_of(last));
    LogEnd {
        topic,
        partition: index,
        last_epoch: last_epoch.flatten().unwrap_or(LeaderEpoch::NONE),
        end_offset,
    }
}

fn status_of(partition: &Partition) -> PartitionStatus {
    let (topic_id, index) = partition.key();
    let log = partition.log_in_memory();
    let log = log.as_ref();
    partition.look(|state| {
        let view = state.view();
        let (role, reason) = match state.role() {
            Role::Idle => ("idle", None),
            Role::Preparing(_) => ("starting", None),
            Role::Leading { .. } => ("leader", None),
            Role::Following { leader: None, .. } => ("idle", None),
            Role::Following { .. } => ("follower", None),
            Role::Offline(reason) => ("offline", Some(reason.clone())),
        };
        PartitionStatus {
            topic: partition.topic().clone(),
            topic_id,
            partition: index,
            role,
            reason,
            leader: view.and_then(|view| view.leader),
            leader_epoch: view.map_or(LeaderEpoch::NONE, |view| view.leader_epoch),
            partition_epoch: view.map_or(PartitionEpoch(-1), |view| view.partition_epoch),
            replicas: view.map_or_else(Vec::new, |view| view.replicas.clone()),
            isr: view.map_or_else(Vec::new, |view| view.isr.clone()),
            log_start: log.map_or(Offset(0), |log| log.log_start_offset()),
            high_watermark: state.high_watermark(),
            last_stable: log.map_or(Offset(0), |log| {
                log.last_stable_offset(state.high_watermark())
            }),
            log_end: state.log_end(),
            open_transactions: log.map_or(0, |log| log.open_transactions()),
            size_bytes: log.map_or(0, |log| log.size()),
        }
    })
}
