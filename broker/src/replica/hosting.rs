//! Which replicas this broker has, and what becomes of each: begun, given a role and settings, deleted.
//!
//! Promises: a role ends before anything of the next one begins; a replica that the image no longer assigns to this broker is
//! deleted, and nothing else ever is.

use super::image_view::{log_config, view_of};
use super::io::blocking;
use super::manager::ReplicaManager;
use super::partition::Partition;
use super::state::Change;
use super::types::PartitionKey;
use super::view::View;
use leasehold_log::{LogConfig, LogError};
use leasehold_metadata::image::{Image, Topic};
use leasehold_types::seams::{self, HashSet};
use leasehold_types::{LeaderEpoch, Offset};
use std::sync::Arc;

impl ReplicaManager {
    pub(super) fn apply_topic(self: &Arc<Self>, image: &Image, topic: &Topic) {
        let mut config = None;
        for (index, partition) in (0..).zip(&topic.partitions) {
            if !partition.replicas.contains(&self.id()) {
                continue;
            }
            let Some(view) = view_of(image, topic, index) else {
                continue;
            };
            let config = config
                .get_or_insert_with(|| log_config(image, self.id(), topic))
                .clone();
            // Known as out of service before this process has it: it may lie where nothing can be read.
            let out_of_reach = partition.is_offline(self.id());
            self.apply_partition((topic.id, index), topic, (config, out_of_reach), view);
        }
    }

    fn apply_partition(
        self: &Arc<Self>,
        key: PartitionKey,
        topic: &Topic,
        (config, out_of_reach): (LogConfig, bool),
        view: View,
    ) {
        let known = self.partitions.read().get(&key).cloned();
        let partition = match known {
            Some(partition) => {
                self.configure(&partition, config);
                partition
            }
            None => self.host(key, topic, (!out_of_reach).then_some(config)),
        };
        let view = Arc::new(view);
        let isr_before = partition.look_leader(|leader| leader.view().clone());
        let prepare = partition.change(|state| state.observe(view.clone(), seams::now()));
        // Who lives may be others.
        partition.starts.wake();
        if let Some(before) = isr_before
            && before.leader_epoch == view.leader_epoch
            && before.isr != view.isr
        {
            self.say_isr_changed(&partition, &before, &view);
        }
        if let Some(epoch) = prepare {
            tracing::info!(topic = %topic.name, partition = key.1, leader_epoch = epoch.0,
                isr = ?view.isr.iter().map(|id| id.0).collect::<Vec<_>>(), "elected leader");
            partition.submit(move |partition| begin(partition, epoch));
        }
        // An image may make a follower eligible (unfenced, registered) that had caught up before.
        if partition.look_leader(|leader| leader.view().isr.len() < leader.view().replicas.len())
            == Some(true)
        {
            self.consider_isr(&partition);
        }
    }

    fn say_isr_changed(&self, partition: &Partition, before: &View, after: &View) {
        if after.isr.iter().any(|id| !before.in_sync(*id)) {
            self.counters().isr_expands.add(1);
        }
        if before.isr.iter().any(|id| !after.in_sync(*id)) {
            self.counters().isr_shrinks.add(1);
        }
        tracing::info!(topic = %partition.topic(), partition = partition.key().1,
            leader_epoch = after.leader_epoch.0, partition_epoch = after.partition_epoch.0,
            isr = ?after.isr.iter().map(|id| id.0).collect::<Vec<_>>(), "the ISR changed");
    }

    fn configure(&self, partition: &Arc<Partition>, config: LogConfig) {
        if partition.log().is_some_and(|log| *log.config() == config) {
            return;
        }
        let cleaner_due = self.cleaner_due.clone();
        // On the lane: a log that is being opened has its settings from before this change.
        partition.submit(move |partition| {
            if let Some(log) = partition.log()
                && *log.config() != config
            {
                log.set_config(config);
                cleaner_due.notify_one();
            }
        });
    }

    /// Begins to host a replica: its log is opened on its lane, before any other job of it. One that is out of
    /// service has no settings: it is not opened, as that might begin it anew beside what it had.
    fn host(
        self: &Arc<Self>,
        key: PartitionKey,
        topic: &Topic,
        config: Option<LogConfig>,
    ) -> Arc<Partition> {
        let partition = Arc::new(Partition::new(
            self.id(),
            key,
            topic.name.as_str().into(),
            self.io.clone(),
            self.leaderships.clone(),
        ));
        self.partitions.write().insert(key, partition.clone());
        let Some(config) = config else {
            partition.fail("its log may lie in a log directory that is offline".to_owned());
            return partition;
        };
        let (manager, disks) = (Arc::downgrade(self), self.disks().clone());
        let mark = self.marks.get(&key).copied().unwrap_or(Offset(0));
        let reassign = self.reassign.clone();
        let cleaner_due = self.cleaner_due.clone();
        partition.submit(move |partition| {
            let opened = disks.dirs().open_partition(key.0, key.1, config);
            match opened.map(|(log, dir)| (log, disks.place(dir))) {
                Ok((log, Some(place))) => partition.opened(log, place, mark),
                Ok((_, None)) => partition.fail("its log directory is not this broker's".into()),
                // Left alone, it would be out of service for want of a file handle a moment ago.
                Err(error) if error.is_passing() => partition.give_up(error.to_string()),
                Err(error) => partition.fail(error.to_string()),
            }
            reassign.notify_one();
            cleaner_due.notify_one();
            if let Some(manager) = manager.upgrade() {
                manager.resume_move(key);
            }
        });
        partition
    }

    /// The image assigns this replica to this broker no longer.
    pub(super) fn drop_replica(&self, partition: &Arc<Partition>) {
        let (topic, index) = partition.key();
        self.partitions.write().remove(&(topic, index));
        self.moves().end((topic, index));
        partition.change(|state| state.resign());
        tracing::info!(topic = %partition.topic(), topic_id = %topic, partition = index,
            "deleting a replica that is no longer assigned to this broker");
        let disks = self.disks().clone();
        partition.submit(move |_| {
            if let Err(error) = disks.dirs().delete_partition(topic, index) {
                tracing::warn!(topic_id = %topic, partition = index, %error, "cannot delete a replica");
            }
        });
    }

    /// Deletes, after a while, folders that were here at the start and belong to no replica.
    pub(super) fn look_for_strays(self: &Arc<Self>, image: &Image) {
        let weak = Arc::downgrade(self);
        let (disks, delay, me) = (self.disks().clone(), self.settings().stray_delay, self.id());
        let assigned: HashSet<PartitionKey> = image
            .topics
            .values()
            .flat_map(|topic| {
                (0..)
                    .zip(&topic.partitions)
                    .map(|(n, p)| ((topic.id, n), p))
            })
            .filter(|(_, partition)| partition.replicas.contains(&me))
            .map(|(key, _)| key)
            .collect();
        self.tasks.lock().spawn(async move {
            let list = blocking(move || disks.dirs().partitions());
            let Ok(Ok(found)) = list.await else { return };
            let strays: Vec<_> = found.into_iter().filter(|key| !assigned.contains(key)).collect();
            for (topic, partition) in &strays {
                tracing::warn!(topic_id = %topic, partition, delay_s = delay.as_secs(),
                    "a log folder belongs to no replica of this broker; it will be deleted");
            }
            if strays.is_empty() {
                return;
            }
            tokio::time::sleep(delay).await;
            let Some(manager) = weak.upgrade() else { return };
            for key in strays {
                let image = manager.last_image();
                let assigned = image
                    .as_ref()
                    .and_then(|image| image.partition(&key.0, key.1))
                    .is_some_and(|partition| partition.replicas.contains(&manager.id()));
                if assigned || manager.partitions.read().contains_key(&key) {
                    continue;
                }
                let disks = manager.disks().clone();
                manager.io.submit(0, move || {
                    if let Err(error) = disks.dirs().delete_partition(key.0, key.1) {
                        tracing::warn!(topic_id = %key.0, partition = key.1, %error, "cannot delete a stray log folder");
                    }
                });
            }
        });
    }
}

/// Writes the new epoch to the log, and leads.
fn begin(partition: &Arc<Partition>, epoch: LeaderEpoch) {
    let Some(log) = partition.log() else {
        return;
    };
    match log.begin_epoch(epoch) {
        Ok(start) => {
            let bounds = (start, log.log_end_offset());
            partition.change(|state| Change {
                role_changed: state.begun(epoch, bounds, seams::now()),
                ..Change::default()
            });
        }
        // The metadata was put back to an older state: wait for an epoch that the log can follow.
        Err(LogError::FencedEpoch { last, .. }) => {
            partition.change(|state| state.heard(last));
        }
        Err(error) if log.offline().is_none() => partition.give_up(error.to_string()),
        Err(error) => partition.fail(error.to_string()),
    }
}
