//! The manager of this broker's replicas: follows the image and gives each partition its role.
//!
//! Promises: acts on no image that does not show this very process as registered; a role ends when
//! the image says so and before anything of the next one begins; a replica that the image no longer
//! assigns to this broker is deleted, and nothing else ever is.

use super::cleaner;
use super::counters::Counters;
use super::disks::Disks;
use super::endpoint::LeaderEndpoints;
use super::failures;
use super::fetcher::Fetchers;
use super::image_view::{addresses, hint_of, is_registered, log_config, view_of};
use super::io::{IoPool, blocking};
use super::isr::{self, IsrController};
use super::moves::Moves;
use super::partition::{Leaderships, Partition};
use super::proof::{LastConfirmed, Proof};
use super::state::{Change, Role};
use super::throttle::Throttles;
use super::transactions::TransactionSeams;
use super::types::*;
use super::upkeep;
use super::view::View;
use crate::fetch_session::FetchSessions;
use crate::fetch_session::cache::Limits as SessionLimits;
use leasehold_log::{LogConfig, LogDirs, LogError};
use leasehold_metadata::dynamic::{
    ALTER_LOG_DIRS_RATE, FOLLOWER_THROTTLED_RATE, LEADER_THROTTLED_RATE, LOG_CLEANER_BACKOFF_MS,
    LOG_CLEANER_THREADS,
};
use leasehold_metadata::image::{Image, Topic};
use leasehold_types::seams::{self, HashMap, HashSet};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::time::Duration;
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
    /// `replica.selector.class`: whether consumers are sent to followers in their rack.
    pub closest_replica: bool,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub checkpoint_interval: Duration,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// How soon the cleaner looks again at a log that waits for time to pass or to be committed; as
    /// Kafka's `log.cleaner.backoff.ms`.
    pub cleaner_backoff: Duration,
    /// How many logs the cleaner compacts at a time: Kafka's `log.cleaner.threads`.
    pub cleaner_threads: usize,
    /// How many different keys the cleaner keeps in memory at a time, in about 30 bytes each.
    pub cleaner_keys: usize,
    /// `leader.replication.throttled.rate`, in bytes per second, where it is not set while the broker runs.
    pub leader_throttled_rate: i64,
    /// `follower.replication.throttled.rate`, likewise.
    pub follower_throttled_rate: i64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`, likewise.
    pub log_dirs_rate: i64,
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
            closest_replica: false,
            checkpoint_interval: Duration::from_secs(5),
            retention_check_interval: Duration::from_secs(300),
            cleaner_backoff: Duration::from_secs(15),
            cleaner_threads: 1,
            // A hash table doubles: this is what one of 2^21 places takes before it does.
            cleaner_keys: (1 << 21) / 8 * 7,
            leader_throttled_rate: i64::MAX,
            follower_throttled_rate: i64::MAX,
            log_dirs_rate: i64::MAX,
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
    pub log_dirs: Arc<LogDirs>,
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
    disks: Arc<Disks>,
    partitions: RwLock<HashMap<PartitionKey, Arc<Partition>>>,
    /// The last image acted on.
    image: Mutex<Option<Arc<Image>>>,
    /// The newest there is, which shows what is not yet acted on.
    newest: watch::Receiver<Arc<Image>>,
    /// The high watermarks as they were on the disk at the start.
    marks: HashMap<PartitionKey, Offset>,
    leaderships: Arc<Leaderships>,
    counters: Arc<Counters>,
    pub(super) throttles: Arc<Throttles>,
    moves: Moves,
    transactions: Arc<TransactionSeams>,
    proof: Proof,
    isr_due: mpsc::UnboundedSender<Arc<Partition>>,
    fetchers: Fetchers,
    /// Those of followers.
    sessions: FetchSessions,
    /// A log was opened: who to fetch from may have changed.
    reassign: Arc<Notify>,
    /// A log may have something to compact.
    cleaner_due: Arc<Notify>,
    tasks: Mutex<JoinSet<()>>,
}

impl ReplicaManager {
    /// Starts; acts as soon as the image shows this process as registered. The log directories must
    /// have this incarnation confirmed by then. Reads checkpoints: call off the async workers.
    pub fn start(parts: ReplicaParts, settings: ReplicaSettings) -> std::io::Result<Arc<Self>> {
        let (isr_due, due) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let proof = Proof {
            last_confirmed: parts.last_confirmed,
            session_timeout: settings.session_timeout,
        };
        let disks = Arc::new(Disks::new(parts.log_dirs, settings.min_free_bytes));
        let directories = disks.dirs().all().len();
        let throttles = Arc::new(Throttles::default());
        let fetchers = Fetchers::new(
            (parts.broker, parts.incarnation),
            parts.endpoints,
            counters.clone(),
            throttles.clone(),
            &settings,
        );
        let manager = Arc::new(Self {
            me: parts.broker,
            incarnation: parts.incarnation,
            io: Arc::new(IoPool::start(settings.io_threads)?),
            marks: disks.dirs().high_watermark_checkpoints(),
            disks,
            partitions: RwLock::default(),
            image: Mutex::default(),
            newest: parts.image.clone(),
            leaderships: Arc::default(),
            counters,
            throttles,
            moves: Moves::new(directories),
            transactions: Arc::default(),
            proof,
            isr_due,
            fetchers,
            sessions: FetchSessions::new(SessionLimits::of_followers()),
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
        let failed = Arc::new(Notify::new());
        for dir in manager.disks.dirs().all() {
            let due = manager.cleaner_due.clone();
            dir.on_roll(move || due.notify_one());
            let failed = failed.clone();
            dir.on_failure(move || failed.notify_one());
        }
        tasks.spawn(failures::run(weak.clone(), failed));
        tasks.spawn(cleaner::run(weak.clone(), manager.cleaner_due.clone()));
        drop(tasks);
        Ok(manager)
    }

    /// Ends all serving and copying, writes what is in memory, and leaves the clean marker.
    pub async fn close(self: &Arc<Self>) -> Result<(), LogError> {
        self.tasks.lock().abort_all();
        self.moves.leave_all();
        self.fetchers.stop();
        for partition in self.all() {
            partition.change(|state| state.resign());
        }
        self.io.drain().await;
        let this = self.clone();
        let closed = blocking(move || {
            let written = this.checkpoint();
            written.and(this.disks.dirs().close_clean())
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
        self.moves.leave_all();
        self.fetchers.stop();
        for partition in self.all() {
            partition.change(|state| state.resign());
        }
    }

    pub(super) fn sessions(&self) -> &FetchSessions {
        &self.sessions
    }

    pub(super) fn settings(&self) -> &ReplicaSettings {
        &self.settings
    }

    /// How soon the cleaner looks again at a log that waits for time to pass.
    pub(super) fn cleaner_backoff(&self) -> Duration {
        let image = self.last_image();
        let set = image.as_ref().and_then(|image| {
            image
                .dynamic_config(self.me, LOG_CLEANER_BACKOFF_MS)?
                .parse()
                .ok()
        });
        set.map_or(self.settings.cleaner_backoff, Duration::from_millis)
    }

    /// How many logs the cleaner compacts at a time.
    pub(super) fn cleaner_threads(&self) -> usize {
        let image = self.last_image();
        let set = image.as_ref().and_then(|image| {
            image
                .dynamic_config(self.me, LOG_CLEANER_THREADS)?
                .parse()
                .ok()
        });
        set.unwrap_or(self.settings.cleaner_threads)
    }

    /// Takes in the limits: of Kafka's what is set for this broker, else for all, else in its file.
    fn limit(&self, image: &Image) {
        let (throttles, settings) = (&self.throttles, &self.settings);
        for (key, throttle, file) in [
            (
                LEADER_THROTTLED_RATE,
                &throttles.leader,
                settings.leader_throttled_rate,
            ),
            (
                FOLLOWER_THROTTLED_RATE,
                &throttles.follower,
                settings.follower_throttled_rate,
            ),
            (
                ALTER_LOG_DIRS_RATE,
                &throttles.log_dirs,
                settings.log_dirs_rate,
            ),
        ] {
            let set = image.dynamic_config(self.me, key);
            throttle.set(set.and_then(|value| value.parse().ok()).unwrap_or(file));
        }
        let moves = image.balancing.bytes_per_second;
        let moves = moves.and_then(|limit| i64::try_from(limit).ok());
        throttles.moves.set(moves.unwrap_or(i64::MAX));
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Where the coordinators are wired.
    pub(super) fn transactions(&self) -> &Arc<TransactionSeams> {
        &self.transactions
    }

    /// Replicas on their way from one log directory to another.
    pub(super) fn moves(&self) -> &Moves {
        &self.moves
    }

    /// A log can be used that could not before.
    pub(super) fn look_again(&self) {
        self.reassign.notify_one();
        self.cleaner_due.notify_one();
    }

    /// The log directories, and the room on their disks.
    pub fn disks(&self) -> &Arc<Disks> {
        &self.disks
    }

    pub(super) fn id(&self) -> BrokerId {
        self.me
    }

    pub(super) fn proof(&self) -> Proof {
        self.proof.clone()
    }

    pub(super) fn ended(&self) -> Option<&String> {
        self.leaderships.ended.get()
    }

    /// Counts what went out of service.
    pub(super) fn failures(&self) -> &watch::Sender<u64> {
        &self.leaderships.failures
    }

    pub(super) fn last_image(&self) -> Option<Arc<Image>> {
        self.image.lock().clone()
    }

    pub(super) fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// Writes the high watermarks to the disks if they changed. Blocks.
    pub(super) fn checkpoint(&self) -> Result<(), LogError> {
        self.disks.checkpoint(&self.all())
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
        // Not the last image that was acted on: a client asks by what it was told of the newest one, and takes
        // "unknown" as final.
        let hint = hint_of(&self.newest.borrow(), key);
        match hint {
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
                self.fetchers.assign(HashMap::default());
            }
            return;
        }
        let before = self.image.lock().replace(image.clone());
        let configs_changed = before.as_ref().is_none_or(|before| {
            before.broker_configs.get(&self.me) != image.broker_configs.get(&self.me)
                || before.cluster_configs != image.cluster_configs
                || before.static_configs != image.static_configs
        });
        let brokers_changed = configs_changed
            || before
                .as_ref()
                .is_none_or(|before| !before.brokers.ptr_eq(&image.brokers));
        if configs_changed {
            // Its pause and its threads may be others now.
            self.cleaner_due.notify_one();
        }
        self.limit(image);
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
                .get_or_insert_with(|| log_config(image, self.me, topic))
                .clone();
            // Known as out of service before this process has it: it may lie where nothing can be read.
            let out_of_reach = partition.is_offline(self.me);
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

    /// Begins to host a replica: its log is opened on its lane, before any other job of it. One that is out of
    /// service has no settings: it is not opened, as that might begin it anew beside what it had.
    fn host(
        self: &Arc<Self>,
        key: PartitionKey,
        topic: &Topic,
        config: Option<LogConfig>,
    ) -> Arc<Partition> {
        let partition = Arc::new(Partition::new(
            self.me,
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
        let (manager, disks) = (Arc::downgrade(self), self.disks.clone());
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
    fn drop_replica(&self, partition: &Arc<Partition>) {
        let (topic, index) = partition.key();
        self.partitions.write().remove(&(topic, index));
        self.moves.end((topic, index));
        partition.change(|state| state.resign());
        tracing::info!(topic = %partition.topic(), topic_id = %topic, partition = index,
            "deleting a replica that is no longer assigned to this broker");
        let disks = self.disks.clone();
        partition.submit(move |_| {
            if let Err(error) = disks.dirs().delete_partition(topic, index) {
                tracing::warn!(topic_id = %topic, partition = index, %error, "cannot delete a replica");
            }
        });
    }

    /// Deletes, after a while, folders that were here at the start and belong to no replica.
    fn look_for_strays(self: &Arc<Self>, image: &Image) {
        let weak = Arc::downgrade(self);
        let (disks, delay, me) = (self.disks.clone(), self.settings.stray_delay, self.me);
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
                    .is_some_and(|partition| partition.replicas.contains(&manager.me));
                if assigned || manager.partitions.read().contains_key(&key) {
                    continue;
                }
                let disks = manager.disks.clone();
                manager.io.submit(0, move || {
                    if let Err(error) = disks.dirs().delete_partition(key.0, key.1) {
                        tracing::warn!(topic_id = %key.0, partition = key.1, %error, "cannot delete a stray log folder");
                    }
                });
            }
        });
    }

    fn assign_fetchers(&self, image: &Image) {
        let mut by_leader: HashMap<BrokerId, Vec<(Arc<Partition>, LeaderEpoch)>> =
            HashMap::default();
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
            biased;
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
