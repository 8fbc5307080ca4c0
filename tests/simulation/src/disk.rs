//! A broker's disk: what outlives its process, and what a crash of its machine takes away.

use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{ConfirmedRun, LogEnd, RestartReport};
use leasehold_types::{Incarnation, LeaderEpoch, Offset, TopicId};
use std::collections::BTreeMap;

/// A partition.
pub type Key = (TopicId, i32);

/// One replica's log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub entries: Vec<(LeaderEpoch, u64)>,
    /// How many of them survive a power cut.
    pub flushed: usize,
}

impl Log {
    pub fn end(&self) -> Offset {
        Offset(i64::try_from(self.entries.len()).unwrap_or(i64::MAX))
    }

    pub fn last_epoch(&self) -> LeaderEpoch {
        self.entries.last().map_or(LeaderEpoch::NONE, |(e, _)| *e)
    }

    /// The greatest epoch not above `epoch`, and where it ends.
    pub fn end_of(&self, epoch: LeaderEpoch) -> (LeaderEpoch, usize) {
        let last = self.entries.iter().rposition(|(e, _)| *e <= epoch);
        last.map_or((LeaderEpoch::NONE, 0), |n| (self.entries[n].0, n + 1))
    }

    pub fn cut(&mut self, to: usize) {
        self.entries.truncate(to);
        self.flushed = self.flushed.min(to);
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// The broker's own copy of the metadata.
    pub image: Option<Image>,
    confirmed: Option<(Incarnation, u64, u64)>,
    clean: bool,
    attempted: Vec<Incarnation>,
    /// Identify the kernel's run and the pod.
    boot: u64,
    pod: u64,
    pub logs: BTreeMap<Key, Log>,
    /// It lost something since its last registration was committed.
    pub damaged: bool,
}

impl Disk {
    /// What a process finds, and notes, when it begins.
    pub fn begin(&mut self, me: Incarnation) -> RestartReport {
        let report_clean = std::mem::take(&mut self.clean);
        self.attempted.push(me);
        RestartReport {
            confirmed: self.confirmed.map(|(incarnation, boot, pod)| ConfirmedRun {
                incarnation,
                boot_id: format!("boot-{boot}"),
                pod_uid: format!("pod-{pod}"),
                clean: report_clean,
            }),
            attempted: self.attempted.clone(),
            boot_id: format!("boot-{}", self.boot),
            pod_uid: format!("pod-{}", self.pod),
        }
    }

    /// The registration of `me` is committed.
    pub fn confirm(&mut self, me: Incarnation) {
        self.confirmed = Some((me, self.boot, self.pod));
        self.attempted.clear();
        self.damaged = false;
    }

    /// The machine lost its power: what was not flushed is gone.
    pub fn power_cut(&mut self) {
        self.boot += 1;
        for log in self.logs.values_mut() {
            let flushed = log.flushed;
            log.cut(flushed);
        }
        self.damaged = true;
    }

    /// The pod got a new, empty volume.
    pub fn wipe(&mut self) {
        *self = Self {
            boot: self.boot + 1,
            pod: self.pod + 1,
            damaged: true,
            ..Self::default()
        };
    }

    /// Everything is flushed, and the marker says so.
    pub fn close(&mut self) {
        for log in self.logs.values_mut() {
            log.flushed = log.entries.len();
        }
        self.clean = true;
    }

    /// What a poll reports of these logs.
    pub fn log_ends(&self, wanted: &[Key]) -> Vec<LogEnd> {
        let empty = Log::default();
        let end = |&(topic, partition): &Key| {
            let log = self.logs.get(&(topic, partition)).unwrap_or(&empty);
            LogEnd {
                topic,
                partition,
                last_epoch: log.last_epoch(),
                end_offset: log.end(),
            }
        };
        wanted.iter().map(end).collect()
    }
}
