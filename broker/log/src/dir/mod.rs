//! One log directory of one broker.

use crate::{LogConfig, LogError, PartitionLog};
use leasehold_types::{BrokerId, ClusterId, Incarnation, Offset, TopicId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A confirmed life of a broker process on this directory: registered, and free to append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The kernel's boot id then.
    pub boot_id: String,
    /// The pod's UID then; empty outside of Kubernetes.
    pub pod_uid: String,
    /// Whether it closed everything in order and left its clean marker.
    pub clean: bool,
}

/// What the controller needs to judge what a restart may have lost. It decides; this only reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartReport {
    /// The last confirmed life; `None` if there was none, or the `run` file could not be read.
    pub confirmed: Option<Confirmed>,
    /// The incarnations that tried to register since, this one (the last) included.
    pub attempted: Vec<Incarnation>,
    /// The kernel's boot id now.
    pub boot_id: String,
    /// The pod's UID now; empty outside of Kubernetes.
    pub pod_uid: String,
}

/// An open log directory, locked against other processes until dropped.
pub struct LogDir {
    path: PathBuf,
}

#[allow(unused_variables)]
impl LogDir {
    /// Opens (or creates) the directory. Blocks while another process holds it, and says so in a
    /// log line. A directory of another cluster or broker is refused.
    pub fn open(
        path: impl Into<PathBuf>,
        cluster: &ClusterId,
        broker: BrokerId,
    ) -> Result<Arc<Self>, LogError> {
        todo!()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the last process closed it in order; then its logs open without recovery.
    pub fn was_clean(&self) -> bool {
        todo!()
    }

    /// Before registering: adds `incarnation` to the attempted ones and removes the clean marker,
    /// durably. Repeats give the same report.
    pub fn begin(&self, incarnation: Incarnation) -> Result<RestartReport, LogError> {
        todo!()
    }

    /// Once the registration is committed: makes `incarnation` the confirmed one, durably. Only
    /// from now on do this directory's logs take writes.
    pub fn confirm(&self, incarnation: Incarnation) -> Result<(), LogError> {
        todo!()
    }

    /// Opens a partition's log, recovering it if need be; the same log again if it is open. A
    /// partition without a folder opens empty, and has none until its first append.
    pub fn open_partition(
        &self,
        topic: TopicId,
        partition: i32,
        config: LogConfig,
    ) -> Result<Arc<PartitionLog>, LogError> {
        todo!()
    }

    /// The partitions that have a folder here, open or not.
    pub fn partitions(&self) -> Result<Vec<(TopicId, i32)>, LogError> {
        todo!()
    }

    /// Deletes a partition's log, open or not; reads that are under way still end well.
    pub fn delete_partition(&self, topic: TopicId, partition: i32) -> Result<(), LogError> {
        todo!()
    }

    /// Writes the high watermarks of all partitions, durably, in place of those before.
    pub fn checkpoint_high_watermarks(
        &self,
        marks: impl IntoIterator<Item = ((TopicId, i32), Offset)>,
    ) -> Result<(), LogError> {
        todo!()
    }

    /// The high watermarks as last written; empty if there are none or they cannot be read.
    pub fn high_watermark_checkpoints(&self) -> HashMap<(TopicId, i32), Offset> {
        todo!()
    }

    /// Closes every log in order and leaves the clean marker. If a log is offline, or cannot be
    /// closed, no marker is left and the error says why.
    pub fn close_clean(&self) -> Result<(), LogError> {
        todo!()
    }
}
