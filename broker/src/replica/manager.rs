//! The manager of this broker's replicas: follows the image and gives each partition its role.
//!
//! Promises: acts on no image that does not show this very process as registered; a role ends when
//! the image says so and before anything of the next one begins; a replica that the image no longer
//! assigns to this broker is deleted, and nothing else ever is.

use super::cleaner;
use super::counters::Counters;
use super::endpoint::LeaderEndpoints;
use super::fetcher::Fetchers;
use super::image_view::{addresses, hint_of, is_registered, log_config, view_of};
use super::io::IoPool;
use super::isr::{self, IsrController};
use super::partition::{Leaderships, Partition};
use super::proof::{LastConfirmed, Proof};
use super::space::Space;
use super::state::{Change, Role};
use super::types::*;
use super::upkeep;
use super::view::View;
use leasehold_log::{LogConfig, LogDir, LogError};
use leasehold_metadata::image::{Image, Topic};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

/// How replicas behave; the broker's configuration in the types of this module.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max: Duration,
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `replica.fetch.wait.max.ms`.
    pub fetch_wait_max: Duration,
    /// `replica.fetch.max.bytes`.
    pub fetch_max_bytes: usize,
    /// `replica.fetch.response.max.bytes`.
    pub fetch_response_max_bytes: usize,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub checkpoint_interval: Duration,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// How soon the cleaner looks again at a log that waits for time to pass or to be committed; as
    /// Kafka's `log.cleaner.backoff.ms`.
    pub cleaner_backoff: Duration,
    /// How many different keys the cleaner keeps in memory at a time, in about 30 bytes each.
    pub cleaner_keys: usize,
    /// `log.dir.min.free.bytes`; 0 watches nothing.
    pub min_free_bytes: u64,
    /// How long a log folder that was found at the start and belongs to no replica is kept.
    pub stray_delay: Duration,
    /// Threads that write to logs. More than processors: after an election they mostly wait for fsync.
    pub io_threads: usize,
}

impl Default for ReplicaSettings {
    fn default() -> Self {
        Self {
            replica_lag_time_max: Duration::from_secs(30),
            session_timeout: Duration::from_secs(3),
            fetch_wait_max: Duration::from_millis(500),
            fetch_max_bytes: 1 << 20,
            fetch_response_max_bytes: 10 << 20,
            checkpoint_interval: Duration::from_secs(5),
            retention_check_interval: Duration::from_secs(300),
            cleaner_backoff: Duration::from_secs(15),
            // A hash table doubles: this is what one of 2^21 places takes before it does.
            cleaner_keys: (1 << 21) / 8 * 7,
            min_free_bytes: 0,
            stray_delay: Duration::from_secs(60),
            io_threads: 8,
        }
    }
}

/// What the manager needs of the rest of the broker.
pub struct ReplicaParts {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub image: watch::Receiver<Arc<Image>>,
    pub log_dir: Arc<LogDir>,
    pub controller: Arc<dyn IsrController>,
    pub endpoints: Arc<dyn LeaderEndpoints>,
    pub last_confirmed: LastConfirmed,
}

/// All replicas of this broker; shared as `Arc<ReplicaManager>`.
pub struct ReplicaManager {
    me: BrokerId,
    incarnation: Incarnation,
    settings: ReplicaSettings,
    io: Arc<IoPool>,
    log_dir: Arc<LogDir>,
    partitions: RwLock<HashMap<PartitionKey, Arc<Partition>>>,
    /// The last image acted on.
    image: Mutex<Option<Arc<Image>>>,
    /// The high watermarks as they were on the disk at the start.
    marks: HashMap<PartitionKey, Offset>,
    /// As they are on the disk now; one writer at a time.
    written: Mutex<Vec<(PartitionKey, Offset)>>,
    leaderships: Arc<Leaderships>,
    counters: Arc<Counters>,
    space: Arc<Space>,
    proof: Proof,
    isr_due: mpsc::UnboundedSender<Arc<Partition>>,
    fetchers: Fetchers,
    /// A log was opened: who to fetch from may have changed.
    reassign: Arc<Notify>,
    /// A log may have something to compact.
    cleaner_due: Arc<Notify>,
    tasks: Mutex<JoinSet<()>>,
}

impl ReplicaManager {
    /// Starts; acts as soon as the image shows this process as registered. The log directory must
    /// have this incarnation confirmed by then. Reads checkpoints: call off the async workers.
    pub fn start(parts: ReplicaParts, settings: ReplicaSettings) -> std::io::Result<Arc<Self>> {
        let (isr_due, due) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let proof = Proof {
            last_confirmed: parts.last_confirmed,
            session_timeout: settings.session_timeout,
        };
        let space = Arc::new(Space::of(parts.log_dir.path(), settings.min_free_bytes));
        let fetchers = Fetchers::new(
            (parts.broker, parts.incarnation),
            parts.endpoints,
            counters.clone(),
            space.clone(),
            &settings,
        );
        let manager = Arc::new(Self {
            me: parts.broker,
            incarnation: parts.incarnation,
            io: Arc::new(IoPool::start(settings.io_threads)?),
            marks: parts.log_dir.high_watermark_checkpoints(),
            written: Mutex::default(),
            log_dir: parts.log_dir,
            partitions: RwLock::default(),
            image: Mutex::default(),
            leaderships: Arc::default(),
            counters,
            space,
            proof,
            isr_due,
            fetchers,
            reassign: Arc::default(),
            cleaner_due: Arc::default(),
            tasks: Mutex::default(),
            settings,
        });
        let weak = Arc::downgrade(&manager);
        let mut tasks = manager.tasks.lock();
        tasks.spawn(isr::run(weak.clone(), parts.controller, due));
        tasks.spawn(follow_image(weak.clone(), parts.image));
        upkeep::spawn(&mut tasks, &manager);
        let due = manager.cleaner_due.clone();
        manager.log_dir.on_roll(move || due.notify_one());
        tasks.spawn(cleaner::run(weak.clone(), manager.cleaner_due.clone()));
        drop(tasks);
        Ok(manager)
    }

    /// Ends all serving and copying, writes what is in memory, and leaves the clean marker.
    pub async fn close(self: &Arc<Self>) -> Result<(), LogError> {
        self.tasks.lock().abort_all();
        self.fetchers.stop();
        for partition in self.all() {
            partition.change(|state| state.resign());
        }
        self.io.drain().await;
        let this = self.clone();
        let closed = tokio::task::spawn_blocking(move || {
            this.checkpoint()?;
            this.log_dir.close_clean()
        });
        match closed.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Ends all serving and copying at once, without a last write: what a crash leaves behind.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        self.tasks.lock().abort_all();
        self.fetchers.stop();
        for partition in self.all() {
            partition.change(|state| state.resign());
        }
    }

    pub(super) fn settings(&self) -> &ReplicaSettings {
        &self.settings
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The room on the disk.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    pub(super) fn proof(&self) -> Proof {
        self.proof.clone()
    }

    /// Told after a partition went out of service.
    pub(super) fn failed(&self) -> &Notify {
        &self.leaderships.failed
    }

    /// Where the logs are.
    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.log_dir
    }

    pub(super) fn last_image(&self) -> Option<Arc<Image>> {
        self.image.lock().clone()
    }

    pub(super) fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// Writes the high watermarks to the disk if they changed. Blocks.
    pub(super) fn checkpoint(&self) -> Result<(), LogError> {
        let mut written = self.written.lock();
        let mut marks = self.high_watermarks();
        marks.sort_unstable();
        if marks != *written {
            self.log_dir
                .checkpoint_high_watermarks(marks.iter().copied())?;
            *written = marks;
        }
        Ok(())
    }

    fn high_watermarks(&self) -> Vec<(PartitionKey, Offset)> {
        let opened = |partition: &Arc<Partition>| {
            partition.log()?;
            Some((
                partition.key(),
                partition.look(|state| state.high_watermark()),
            ))
        };
        self.partitions.read().values().filter_map(opened).collect()
    }

    /// A leader answered.
    pub fn trust(&self, broker: BrokerId, incarnation: Incarnation) {
        self.fetchers.suspects.found(broker, incarnation);
    }

    /// A leader did not answer. Forgotten when it answers or is fetched from again.
    pub fn suspect(&self, broker: BrokerId, incarnation: Incarnation) {
        self.fetchers.suspects.lost(broker, incarnation);
    }

    /// Leaders that cannot be reached at present, each since when.
    pub fn suspects(&self) -> Vec<(BrokerId, Incarnation, tokio::time::Instant)> {
        self.fetchers.suspects.all()
    }

    /// The partition, or Kafka's word for why it is not here.
    pub(super) fn find(&self, key: PartitionKey) -> Result<Arc<Partition>, ReadRefused> {
        if let Some(partition) = self.partitions.read().get(&key) {
            return Ok(partition.clone());
        }
        let image = self.last_image();
        match image.and_then(|image| hint_of(&image, key)) {
            Some(hint) => Err(ReadRefused {
                error: ErrorCode::NotLeaderOrFollower,
                current_leader: Some(hint),
            }),
            None => Err(ReadRefused::new(ErrorCode::UnknownTopicOrPartition)),
        }
    }

    /// Asks the leader of `partition`, soon, whether its ISR should change.
    pub(super) fn consider_isr(&self, partition: &Arc<Partition>) {
        // The receiver goes only when the manager closes.
        let _ = self.isr_due.send(partition.clone());
    }

    /// Every partition that is led now, then every change, in order and without loss. A partition
    /// that becomes led during the call may be told twice, with the same epoch.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<LeadershipChange> {
        let (sender, receiver) = self.leaderships.subscribe();
        for partition in self.all() {
            partition.tell_present(&sender);
        }
        receiver
    }

    /// Takes a newer image. Called by one task only.
    fn apply(self: &Arc<Self>, image: &Arc<Image>) {
        if !is_registered(image, self.me, self.incarnation) {
            if self.last_image().is_some() {
                // Replaced: another process has this id now. Nothing that we do counts any more.
                for partition in self.all() {
                    partition.change(|state| state.resign());
                }
                self.fetchers.assign(HashMap::new());
            }
            return;
        }
        let before = self.image.lock().replace(image.clone());
        let brokers_changed = before.as_ref().is_none_or(|before| {
            !before.brokers.ptr_eq(&image.brokers)
                || before.cluster_configs != image.cluster_configs
                || before.static_configs != image.static_configs
        });
        for topic in image.topics.values() {
            let known = before.as_ref().and_then(|before| before.topic(&topic.id));
            let same = known.is_some_and(|known| Arc::ptr_eq(known, topic));
            if brokers_changed || !same {
                self.apply_topic(image, topic);
            }
        }
        let gone = |partition: &Arc<Partition>| {
            let (topic, index) = partition.key();
            !image
                .partition(&topic, index)
                .is_some_and(|p| p.replicas.contains(&self.me))
        };
        for partition in self.all().into_iter().filter(gone) {
            self.drop_replica(&partition);
        }
        if before.is_none() {
            self.look_for_strays(image);
        }
        self.assign_fetchers(image);
    }

    fn apply_topic(self: &Arc<Self>, image: &Image, topic: &Topic) {
        let mut config = None;
        for (index, partition) in (0..).zip(&topic.partitions) {
            if !partition.replicas.contains(&self.me) {
                continue;
            }
            let Some(view) = view_of(image, topic, index) else {
                continue;
            };
            let config = config
                .get_or_insert_with(|| log_config(image, topic))
                .clone();
            self.apply_partition((topic.id, index), topic, config, view);
        }
    }

    fn apply_partition(
        self: &Arc<Self>,
        key: PartitionKey,
        topic: &Topic,
        config: LogConfig,
        view: View,
    ) {
        let known = self.partitions.read().get(&key).cloned();
        let partition = match known {
            Some(partition) => {
                self.configure(&partition, config);
                partition
            }
            None => self.host(key, topic, config),
        };
        let view = Arc::new(view);
        let isr_before = partition.look_leader(|leader| leader.view().clone());
        let prepare = partition.change(|state| state.observe(view.clone(), Instant::now()));
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
            self.counters.isr_expands.add(1);
        }
        if before.isr.iter().any(|id| !after.in_sync(*id)) {
            self.counters.isr_shrinks.add(1);
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

    /// Begins to host a replica: its log is opened on its lane, before any other job of it.
    fn host(&self, key: PartitionKey, topic: &Topic, config: LogConfig) -> Arc<Partition> {
        let partition = Arc::new(Partition::new(
            self.me,
            key,
            topic.name.as_str().into(),
            self.io.clone(),
            self.leaderships.clone(),
        ));
        self.partitions.write().insert(key, partition.clone());
        let log_dir = self.log_dir.clone();
        let mark = self.marks.get(&key).copied().unwrap_or(Offset(0));
        let reassign = self.reassign.clone();
        let cleaner_due = self.cleaner_due.clone();
        partition.submit(move |partition| {
            match log_dir.open_partition(key.0, key.1, config) {
                Ok(log) => partition.opened(log, mark),
                Err(error) => partition.fail(error.to_string()),
            }
            reassign.notify_one();
            cleaner_due.notify_one();
        });
        partition
    }

    /// The image assigns this replica to this broker no longer.
    fn drop_replica(&self, partition: &Arc<Partition>) {
        let (topic, index) = partition.key();
        self.partitions.write().remove(&(topic, index));
        partition.change(|state| state.resign());
        tracing::info!(topic = %partition.topic(), topic_id = %topic, partition = index,
            "deleting a replica that is no longer assigned to this broker");
        let log_dir = self.log_dir.clone();
        partition.submit(move |_| {
            if let Err(error) = log_dir.delete_partition(topic, index) {
                tracing::warn!(topic_id = %topic, partition = index, %error, "cannot delete a replica");
            }
        });
    }

    /// Deletes, after a while, folders that were here at the start and belong to no replica.
    fn look_for_strays(self: &Arc<Self>, image: &Image) {
        let weak = Arc::downgrade(self);
        let (log_dir, delay, me) = (self.log_dir.clone(), self.settings.stray_delay, self.me);
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
            let list = tokio::task::spawn_blocking(move || log_dir.partitions());
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
                    .is_some_and(|partition| partition.replicas.contains(&manager.me));
                if assigned || manager.partitions.read().contains_key(&key) {
                    continue;
                }
                let log_dir = manager.log_dir.clone();
                manager.io.submit(0, move || {
                    if let Err(error) = log_dir.delete_partition(key.0, key.1) {
                        tracing::warn!(topic_id = %key.0, partition = key.1, %error, "cannot delete a stray log folder");
                    }
                });
            }
        });
    }

    fn assign_fetchers(&self, image: &Image) {
        let mut by_leader: HashMap<BrokerId, Vec<(Arc<Partition>, LeaderEpoch)>> = HashMap::new();
        for partition in self.partitions.read().values() {
            if partition.log().is_none() {
                continue;
            }
            let followed = partition.look(|state| match state.role() {
                Role::Following {
                    leader: Some(leader),
                    epoch,
                } => Some((*leader, *epoch)),
                _ => None,
            });
            if let Some((leader, epoch)) = followed {
                let list = by_leader.entry(leader).or_default();
                list.push((partition.clone(), epoch));
            }
        }
        let mut addresses = addresses(image, self.me);
        let assignments = by_leader
            .into_iter()
            .filter_map(|(leader, mut partitions)| {
                partitions.sort_by_key(|(partition, _)| partition.key());
                Some((leader, (addresses.remove(&leader)?, partitions)))
            })
            .collect();
        self.fetchers.assign(assignments);
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
                role_changed: state.begun(epoch, bounds, Instant::now()),
                ..Change::default()
            });
        }
        // The metadata was put back to an older state: wait for an epoch that the log can follow.
        Err(LogError::FencedEpoch { last, .. }) => {
            partition.change(|state| state.heard(last));
        }
        Err(error) => partition.fail(error.to_string()),
    }
}

async fn follow_image(
    manager: std::sync::Weak<ReplicaManager>,
    mut image: watch::Receiver<Arc<Image>>,
) {
    let Some(reassign) = manager.upgrade().map(|manager| manager.reassign.clone()) else {
        return;
    };
    image.mark_changed();
    loop {
        tokio::select! {
            changed = image.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = image.borrow_and_update().clone();
                let Some(manager) = manager.upgrade() else { return };
                manager.apply(&next);
            }
            () = reassign.notified() => {
                let Some(manager) = manager.upgrade() else { return };
                if let Some(image) = manager.last_image() {
                    manager.assign_fetchers(&image);
                }
            }
        }
    }
}
