//! What tests of the whole crate look at inside a log.

use super::PartitionLog;
use crate::producers::Producers;
use crate::segment::Segment;
use leasehold_types::{LeaderEpoch, Offset};
use std::sync::Arc;

impl PartitionLog {
    pub(crate) fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.view.read().epochs.entries().to_vec()
    }

    pub(crate) fn producers(&self) -> Producers {
        self.writer.lock().producers.clone()
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.view.read().segments.to_vec()
    }
}
