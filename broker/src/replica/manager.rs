//! The manager of this broker's replicas: what they share, its start and its end, and the image that it follows.
//!
//! Promises: acts on no image that does not show this very process as registered; a role ends when
//! the image says so.

use super::cleaner;
use super::counters::Counters;
use super::disks::Disks;
use super::endpoint::LeaderEndpoints;
use super::failures;
use super::fetcher::Fetchers;
use super::image_view::{addresses, hint_of, is_registered};
use super::io::{IoPool, blocking};
use super::isr::{self, IsrController};
use super::moves::Moves;
use super::partition::{Leaderships, Partition};
use super::proof::{LastConfirmed, Proof};
use super::settings::ReplicaSettings;
use super::state::Role;
use super::throttle::Throttles;
use super::transactions::TransactionSeams;
use super::types::*;
use super::upkeep;
use crate::fetch_session::FetchSessions;
use crate::fetch_session::cache::Limits as SessionLimits;
use leasehold_log::{LogDirs, LogError};
use leasehold_metadata::image::Image;
use leasehold_types::seams::HashMap;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

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
    pub(super) io: Arc<IoPool>,
    disks: Arc<Disks>,
    pub(super) partitions: RwLock<HashMap<PartitionKey, Arc<Partition>>>,
    /// The last image acted on.
    image: Mutex<Option<Arc<Image>>>,
    /// The newest there is, which shows what is not yet acted on.
    newest: watch::Receiver<Arc<Image>>,
    /// The high watermarks as they were on the disk at the start.
    pub(super) marks: HashMap<PartitionKey, Offset>,
    pub(super) leaderships: Arc<Leaderships>,
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
    pub(super) reassign: Arc<Notify>,
    /// A log may have something to compact.
    pub(super) cleaner_due: Arc<Notify>,
    pub(super) tasks: Mutex<JoinSet<()>>,
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
