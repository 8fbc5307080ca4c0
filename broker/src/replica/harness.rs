//! A small cluster for tests: real replica managers over real logs, a scripted controller, and a
//! network of direct calls that can be cut.

use super::*;
use crate::fetch_session::follower::FollowerSession;
use crate::replica::image_view::LeaderAddress;
use bytes::Bytes;
use leasehold_log::LogDirs;
use leasehold_log::batch::{RecordBatchBuilder, batches};
use leasehold_metadata::image::{Broker, Endpoint, Image, Partition, Topic};
use leasehold_metadata::rpc::{IsrProposal, IsrVerdict, Outcome, codes};
use leasehold_types::{
    BrokerId, ClusterId, Incarnation, LeaderEpoch, Offset, PartitionEpoch, Seq, TopicId,
};
use leasehold_wire::ErrorCode;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(0xbeef));
pub const KEY: PartitionKey = (TOPIC, 0);

/// Long enough for a slow machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Net {
    managers: Mutex<HashMap<BrokerId, Arc<ReplicaManager>>>,
    /// Brokers whose packets get lost, both ways.
    cut: Mutex<HashSet<BrokerId>>,
}

impl Net {
    fn reach(&self, from: BrokerId, to: BrokerId) -> Option<Arc<ReplicaManager>> {
        let cut = self.cut.lock();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        self.managers.lock().get(&to).cloned()
    }
}

struct Direct {
    net: Arc<Net>,
    me: BrokerId,
    leader: BrokerId,
    session: FollowerSession,
}

impl LeaderEndpoints for Direct {
    fn to(&self, leader: &LeaderAddress) -> Box<dyn LeaderEndpoint> {
        Box::new(Direct {
            net: self.net.clone(),
            me: self.me,
            leader: leader.id,
            session: FollowerSession::default(),
        })
    }
}

#[async_trait::async_trait]
impl LeaderEndpoint for Direct {
    async fn fetch(
        &mut self,
        params: FetchParams,
        entries: Vec<FetchEntry>,
    ) -> Result<Vec<FetchResult>, EndpointError> {
        let unreachable = || EndpointError::Unreachable(format!("{} is cut off", self.leader));
        let leader = self
            .net
            .reach(self.me, self.leader)
            .ok_or_else(unreachable)?;
        let request = self.session.request(&params, &entries);
        let response = leader.serve_follower(request).await;
        // An answer does not get through a cut either.
        self.net
            .reach(self.me, self.leader)
            .ok_or_else(unreachable)?;
        self.session.take(response).map_err(EndpointError::Refused)
    }

    fn repeat(&mut self, partitions: Vec<PartitionKey>) {
        self.session.repeat(partitions);
    }
}

/// The scripted controller: the committed image, told to every broker that is not cut off.
pub struct Controller {
    committed: Mutex<Image>,
    watchers: Mutex<HashMap<BrokerId, watch::Sender<Arc<Image>>>>,
    net: Arc<Net>,
    /// Whether it answers proposals at all.
    pub answers: AtomicBool,
}

impl Controller {
    pub fn commit<R>(&self, change: impl FnOnce(&mut Image) -> R) -> R {
        let mut image = self.committed.lock();
        image.position.seq = Seq(image.position.seq.0 + 1);
        let result = change(&mut image);
        let told = Arc::new(image.clone());
        let cut = self.net.cut.lock();
        for (id, watcher) in &*self.watchers.lock() {
            if !cut.contains(id) {
                watcher.send_replace(told.clone());
            }
        }
        result
    }

    /// Tells every broker, even one that is cut off.
    fn tell(&self) {
        self.commit(|_| {});
        let told = Arc::new(self.committed.lock().clone());
        for watcher in self.watchers.lock().values() {
            watcher.send_replace(told.clone());
        }
    }

    /// Changes one partition; its partition epoch rises by one.
    pub fn change(&self, key: PartitionKey, change: impl FnOnce(&mut Partition)) {
        self.commit(|image| {
            let mut topic = (**image.topic(&key.0).unwrap()).clone();
            let slot = &mut topic.partitions[usize::try_from(key.1).unwrap()];
            let mut partition = (**slot).clone();
            change(&mut partition);
            partition.partition_epoch = partition.partition_epoch.next();
            *slot = Arc::new(partition);
            image.topics.insert(key.0, Arc::new(topic));
        });
    }

    pub fn elect(&self, leader: BrokerId) {
        self.change(KEY, |partition| {
            partition.leader = Some(leader);
            partition.leader_epoch = partition.leader_epoch.next();
        });
    }

    /// Takes `broker` out, as fencing does, and elects `leader`.
    pub fn fail_over(&self, broker: BrokerId, leader: BrokerId) {
        self.change(KEY, |partition| {
            partition.isr.retain(|id| *id != broker);
            partition.leader = Some(leader);
            partition.leader_epoch = partition.leader_epoch.next();
        });
    }

    /// Fences everyone but `broker` and leaves it alone in the ISR.
    pub fn isolate(&self, broker: BrokerId) {
        self.commit(|image| {
            for (id, known) in image.brokers.clone() {
                let mut known = (*known).clone();
                known.fenced = id != broker;
                image.brokers.insert(id, Arc::new(known));
            }
        });
        self.change(KEY, |partition| partition.isr = vec![broker]);
    }

    pub fn partition(&self) -> Partition {
        (**self.committed.lock().partition(&KEY.0, KEY.1).unwrap()).clone()
    }

    fn register(&self, id: BrokerId, incarnation: Incarnation) {
        self.commit(|image| {
            let endpoint = Endpoint {
                host: "127.0.0.1".into(),
                port: 1,
            };
            let seq = image.position.seq;
            let broker = Broker {
                id,
                incarnation,
                client: endpoint.clone(),
                internal: endpoint,
                http: None,
                rack: None,
                version: String::new(),
                fenced: false,
                shutting_down: false,
                cordoned: false,
                registered_at: seq,
                changed_at: seq,
                directories: Vec::new(),
                listeners: Default::default(),
                features: Default::default(),
            };
            image.brokers.insert(id, Arc::new(broker));
            // A new incarnation of a leader means a new leader epoch.
            let topics: Vec<_> = image.topics.values().cloned().collect();
            for topic in topics {
                let mut topic = (*topic).clone();
                for slot in &mut topic.partitions {
                    if slot.leader == Some(id) {
                        let mut partition = (**slot).clone();
                        partition.leader_epoch = partition.leader_epoch.next();
                        partition.partition_epoch = partition.partition_epoch.next();
                        *slot = Arc::new(partition);
                    }
                }
                image.topics.insert(topic.id, Arc::new(topic));
            }
        });
    }

    fn judge(&self, proposal: &IsrProposal) -> i16 {
        let present = self.committed.lock().clone();
        let Some(partition) = present.partition(&proposal.topic, proposal.partition) else {
            return codes::UNKNOWN_TOPIC_ID;
        };
        if proposal.leader_epoch != partition.leader_epoch {
            return codes::FENCED_LEADER_EPOCH;
        }
        if proposal.partition_epoch != partition.partition_epoch {
            return codes::INVALID_UPDATE_VERSION;
        }
        let fits = |(id, incarnation): &(BrokerId, Incarnation)| {
            present.may_lead(partition, *id)
                && present
                    .broker(*id)
                    .is_some_and(|b| b.incarnation == *incarnation)
        };
        if !proposal.isr.iter().all(fits) {
            return codes::INELIGIBLE_REPLICA;
        }
        let isr = proposal.isr.iter().map(|(id, _)| *id).collect();
        self.change((proposal.topic, proposal.partition), |partition| {
            partition.isr = isr;
        });
        codes::NONE
    }
}

struct Line {
    controller: Arc<Controller>,
    me: BrokerId,
}

#[async_trait::async_trait]
impl IsrController for Line {
    async fn alter(&self, proposals: Vec<IsrProposal>) -> Option<Vec<IsrVerdict>> {
        let controller = &self.controller;
        let cut = controller.net.cut.lock().contains(&self.me);
        if cut || !controller.answers.load(Ordering::SeqCst) {
            return None;
        }
        let verdict = |proposal: &IsrProposal| IsrVerdict {
            topic: proposal.topic,
            partition: proposal.partition,
            outcome: Outcome {
                code: controller.judge(proposal),
                message: None,
            },
        };
        Some(proposals.iter().map(verdict).collect())
    }
}

/// One broker's life.
struct Life {
    manager: Arc<ReplicaManager>,
    /// Whether the controller's last answer is taken to be fresh.
    confirmed: Arc<AtomicBool>,
}

pub struct Cluster {
    pub controller: Arc<Controller>,
    net: Arc<Net>,
    folder: tempfile::TempDir,
    lives: Mutex<HashMap<BrokerId, Life>>,
    cluster_id: ClusterId,
    pub settings: ReplicaSettings,
    /// Names of each broker's log directories; the first is its own, too.
    directories: &'static [&'static str],
}

impl Cluster {
    /// Brokers 0 to `brokers`−1 with one topic of one partition, led by broker 0, on all of them.
    pub async fn start(brokers: i32, min_isr: usize) -> Self {
        Self::start_with(brokers, min_isr, |_| {}).await
    }

    pub async fn start_with(
        brokers: i32,
        min_isr: usize,
        tune: impl FnOnce(&mut ReplicaSettings),
    ) -> Self {
        Self::start_on(&[""], brokers, min_isr, tune).await
    }

    /// [`Self::start_with`], with several log directories.
    pub async fn start_on(
        directories: &'static [&'static str],
        brokers: i32,
        min_isr: usize,
        tune: impl FnOnce(&mut ReplicaSettings),
    ) -> Self {
        let net = Arc::new(Net::default());
        let cluster_id = ClusterId("test".into());
        let mut settings = ReplicaSettings {
            io_threads: 2,
            ..ReplicaSettings::default()
        };
        tune(&mut settings);
        let cluster = Self {
            controller: Arc::new(Controller {
                committed: Mutex::new(Image::genesis(cluster_id.clone())),
                watchers: Mutex::default(),
                net: net.clone(),
                answers: AtomicBool::new(true),
            }),
            net,
            folder: tempfile::tempdir().unwrap(),
            lives: Mutex::default(),
            cluster_id,
            settings,
            directories,
        };
        for id in 0..brokers {
            cluster.boot(BrokerId(id), Incarnation(1)).await;
        }
        let replicas: Vec<_> = (0..brokers).map(BrokerId).collect();
        let partition = Partition {
            isr: replicas.clone(),
            leader: Some(BrokerId(0)),
            replicas,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            ..Partition::default()
        };
        let configs = BTreeMap::from([
            ("min.insync.replicas".to_owned(), min_isr.to_string()),
            (
                "unclean.leader.election.enable".to_owned(),
                "false".to_owned(),
            ),
        ]);
        let topic = Topic {
            id: TOPIC,
            name: "t".into(),
            internal: false,
            partitions: vec![Arc::new(partition)],
            configs,
        };
        cluster.controller.commit(|image| {
            image.names.insert("t".into(), TOPIC);
            image.topics.insert(TOPIC, Arc::new(topic));
        });
        cluster
    }

    /// Starts a broker on its folder, registered as `incarnation`.
    pub async fn boot(&self, id: BrokerId, incarnation: Incarnation) {
        self.boot_with(id, incarnation, |_| {}).await;
    }

    /// [`Self::boot`], with something done to its folder first.
    pub async fn boot_with(
        &self,
        id: BrokerId,
        incarnation: Incarnation,
        prepare: impl FnOnce(&LogDirs) + Send + 'static,
    ) {
        let paths = self.paths(id.0);
        let cluster_id = self.cluster_id.clone();
        let log_dirs = tokio::task::spawn_blocking(move || {
            let dirs = LogDirs::open(&paths[0], &paths, &cluster_id, id).unwrap();
            dirs.begin(incarnation).unwrap();
            dirs.confirm(incarnation).unwrap();
            prepare(&dirs);
            dirs
        });
        let (sender, image) = watch::channel(Arc::new(Image::genesis(self.cluster_id.clone())));
        let confirmed = Arc::new(AtomicBool::new(true));
        let fresh = confirmed.clone();
        let parts = ReplicaParts {
            broker: id,
            incarnation,
            image,
            log_dirs: log_dirs.await.unwrap(),
            controller: Arc::new(Line {
                controller: self.controller.clone(),
                me: id,
            }),
            endpoints: Arc::new(Direct {
                net: self.net.clone(),
                me: id,
                leader: id,
                session: FollowerSession::default(),
            }),
            last_confirmed: Arc::new(move || fresh.load(Ordering::SeqCst).then(Instant::now)),
        };
        let manager = ReplicaManager::start(parts, self.settings.clone()).unwrap();
        self.net.managers.lock().insert(id, manager.clone());
        self.lives.lock().insert(id, Life { manager, confirmed });
        self.controller.watchers.lock().insert(id, sender);
        self.controller.register(id, incarnation);
    }

    /// The log directories of a broker.
    pub fn paths(&self, id: i32) -> Vec<std::path::PathBuf> {
        let folder = self.folder.path().join(id.to_string());
        self.directories
            .iter()
            .map(|name| folder.join(name))
            .collect()
    }

    /// Ends a broker without any goodbye. What its last writes returned for is still there.
    pub async fn kill(&self, id: BrokerId) {
        self.controller.watchers.lock().remove(&id);
        self.net.managers.lock().remove(&id);
        let life = self.lives.lock().remove(&id).unwrap();
        let manager = life.manager;
        manager.abandon();
        let weak = Arc::downgrade(&manager);
        drop(manager);
        eventually("the killed broker lets go of its folder", || {
            (weak.strong_count() == 0).then_some(())
        })
        .await;
    }

    pub fn broker(&self, id: i32) -> Arc<ReplicaManager> {
        self.lives.lock()[&BrokerId(id)].manager.clone()
    }

    /// Loses every packet of this broker, and all news for it, until [`Self::mend`].
    pub fn cut(&self, id: i32) {
        self.net.cut.lock().insert(BrokerId(id));
    }

    pub fn mend(&self, id: i32) {
        self.net.cut.lock().remove(&BrokerId(id));
        self.controller.commit(|_| {});
    }

    /// Returns once every broker, even one that is cut off, has taken in all that was committed before.
    pub async fn tell(&self) {
        // A broker takes in one image after another: it has the first when it begins with the second.
        for _ in 0..2 {
            self.controller.tell();
            let told = self.controller.committed.lock().position.seq;
            let managers: Vec<_> = self
                .lives
                .lock()
                .values()
                .map(|life| life.manager.clone())
                .collect();
            eventually("every broker has the news", || {
                let has = |manager: &Arc<ReplicaManager>| {
                    manager
                        .last_image()
                        .is_some_and(|image| image.position.seq >= told)
                };
                managers.iter().all(has).then_some(())
            })
            .await;
        }
    }

    /// Whether the broker's session with the controller counts as fresh.
    pub fn confirm(&self, id: i32, fresh: bool) {
        self.lives.lock()[&BrokerId(id)]
            .confirmed
            .store(fresh, Ordering::SeqCst);
    }

    pub async fn leader(&self, id: i32) -> LeaderState {
        eventually("the broker leads", || self.broker(id).leads(KEY.0, KEY.1)).await
    }

    pub fn log_end(&self, id: i32) -> i64 {
        let status = self.broker(id).status();
        status.partitions.first().map_or(-1, |p| p.log_end.0)
    }

    pub fn high_watermark(&self, id: i32) -> i64 {
        let status = self.broker(id).status();
        status.partitions.first().map_or(-1, |p| p.high_watermark.0)
    }

    /// All values in a broker's log, committed or not, with their epochs; read from the disk.
    pub fn values(&self, id: i32) -> Vec<(i32, String)> {
        let manager = self.broker(id);
        let partition = manager.find(KEY).ok();
        let Some(log) = partition.as_ref().and_then(|partition| partition.log()) else {
            return Vec::new();
        };
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        if start == end {
            return Vec::new();
        }
        let bytes = log.read(start, usize::MAX, end, true).unwrap();
        values(bytes)
    }

    /// Waits until the logs of these brokers are equal to the last byte's record.
    pub async fn same_logs(&self, ids: &[i32]) -> Vec<(i32, String)> {
        eventually("the logs are equal", || {
            let first = self.values(ids[0]);
            ids.iter()
                .all(|id| self.values(*id) == first)
                .then_some(first)
        })
        .await
    }
}

pub fn values(bytes: Bytes) -> Vec<(i32, String)> {
    let mut values = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.push((batch.header.leader_epoch.0, value));
        }
    }
    values
}

pub fn batch(value: &str) -> Bytes {
    let mut builder = RecordBatchBuilder::new();
    builder.push(produce::now_ms(), None, Some(value.as_bytes()));
    builder.build()
}

pub fn entry(value: &str) -> ProduceEntry {
    ProduceEntry {
        topic: KEY.0,
        partition: KEY.1,
        records: batch(value),
        leader_epoch: None,
        verified: Verified::NotAsked,
    }
}

pub fn append(manager: &ReplicaManager, acks: Acks, value: &str) -> PendingProduce {
    manager.append(acks, PATIENCE, vec![entry(value)])
}

pub async fn produce(manager: &ReplicaManager, acks: Acks, value: &str) -> ProduceResult {
    append(manager, acks, value).await.remove(0)
}

/// Produces until it is acknowledged, as a client that has found the leader does.
pub async fn produce_ok(manager: &ReplicaManager, acks: Acks, value: &str) -> i64 {
    let result = produce(manager, acks, value).await;
    assert_eq!(result.error, ErrorCode::None, "{result:?}");
    result.base_offset.0
}

pub fn fetch_params(max_wait: Duration) -> FetchParams {
    FetchParams {
        replica: None,
        max_wait,
        min_bytes: 1,
        max_bytes: 1 << 20,
        read_committed: false,
    }
}

pub fn fetch_entry(offset: i64) -> FetchEntry {
    FetchEntry {
        topic: KEY.0,
        partition: KEY.1,
        current_leader_epoch: None,
        fetch_offset: Offset(offset),
        last_fetched_epoch: None,
        log_start_offset: None,
        max_bytes: 1 << 20,
    }
}

pub async fn fetch(manager: &ReplicaManager, offset: i64, max_wait: Duration) -> FetchResult {
    let entries = vec![fetch_entry(offset)];
    manager
        .fetch(fetch_params(max_wait), entries)
        .await
        .remove(0)
}

/// Waits for a condition that no event tells of.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
