//! The stage: one broker's handler on a loopback port, a log in a temporary directory, and a
//! controller that changes the image at once.

use crate::api::{Context, ControllerCalls, KafkaHandler};
use crate::config::BrokerConfig;
use crate::group::GroupCoordinator;
use crate::group::cluster::{Cluster, Endpoint as GroupEndpoint, OFFSETS_TOPIC};
use crate::group::consumer::ConsumerSettings;
use crate::group::find::Offsets;
use crate::group::log::{Bounds, Leadership, StateLog};
use crate::group::shard::Settings;
use crate::group::state::Limits as GroupLimits;
use crate::replica::{
    IsrController, ReplicaManager, ReplicaParts, ReplicaSettings, TcpEndpoints, Verified,
};
use crate::server::{Limits, Server};
use crate::txn::markers::MarkerWriter;
use crate::txn::peers::{CallFailed, Lines};
use crate::txn::shard::Settings as TxnSettings;
use crate::txn::types::Ending;
use crate::txn::verify::Verifier;
use crate::txn::{Transactions, TxnCoordinator};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_log::LogDirs;
use leasehold_metadata::features::Level;
use leasehold_metadata::image::Endpoint;
use leasehold_metadata::rpc::*;
use leasehold_metadata::{Broker, Image, Partition, Topic};
use leasehold_types::ClusterId;
use leasehold_types::*;
use leasehold_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use leasehold_wire::kafka::protocol::Request as KafkaRequest;
use leasehold_wire::versions::SERVED;
use leasehold_wire::{ApiKey, Client, ClientOptions, ErrorCode};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub const ME: BrokerId = BrokerId(1);
pub const OTHER: BrokerId = BrokerId(2);
pub const GROUPS_TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(99));

pub struct Stage {
    pub client: Client,
    pub address: String,
    pub image: Arc<watch::Sender<Arc<Image>>>,
    pub controller: Arc<HandController>,
    pub handler: Arc<KafkaHandler>,
    replicas: Arc<ReplicaManager>,
    verifier: Arc<Verifier>,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Stage {
    pub async fn up() -> Self {
        Self::with_config(BrokerConfig::default()).await
    }

    pub async fn with_config(config: BrokerConfig) -> Self {
        let incarnation = Incarnation(7);
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("a"), dir.path().join("b")];
        let log_dirs = LogDirs::open(&paths[0], &paths, &ClusterId("c".into()), ME).unwrap();
        log_dirs.begin(incarnation).unwrap();
        log_dirs.confirm(incarnation).unwrap();
        let image = Arc::new(watch::Sender::new(Arc::new(first_image(incarnation))));
        let replicas = ReplicaManager::start(
            ReplicaParts {
                broker: ME,
                incarnation,
                image: image.subscribe(),
                log_dirs,
                controller: Arc::new(NoIsr),
                endpoints: Arc::new(TcpEndpoints {
                    cluster_id: ClusterId("c".into()),
                    timeout: Duration::from_secs(1),
                }),
                last_confirmed: Arc::new(|| Some(Instant::now())),
            },
            ReplicaSettings::default(),
        )
        .unwrap();
        let controller = Arc::new(HandController {
            image: image.clone(),
            down: AtomicBool::new(false),
            next_id: AtomicI64::new(1000),
            calls: Mutex::default(),
        });
        let transactions = transactions();
        let verifier = transactions.verifier.clone();
        let handler = Arc::new(KafkaHandler::new(Context {
            broker: ME,
            incarnation,
            config: Arc::new(config),
            image: image.subscribe(),
            controller: controller.clone(),
            replicas: replicas.clone(),
            groups: groups(),
            transactions,
            loggers: Arc::default(),
        }));
        let server = Server::bind("127.0.0.1:0", handler.clone(), Limits::default())
            .await
            .unwrap();
        let address = server.local_addr().to_string();
        let client = Client::connect(&address, ClientOptions::default())
            .await
            .unwrap();
        Self {
            client,
            address,
            image,
            controller,
            handler,
            replicas,
            verifier,
            server,
            _dir: dir,
        }
    }

    /// A client that came in through a further listener, which is opened for it.
    pub async fn client_through(&self, listener: &ListenerName) -> Client {
        let opened = self.server.open("127.0.0.1:0", listener.clone());
        let address = opened.await.unwrap().to_string();
        Client::connect(&address, ClientOptions::default())
            .await
            .unwrap()
    }

    /// Has the metadata say how clients of a listener reach a broker: `None`: it is not known.
    pub fn tell_endpoint(&self, id: BrokerId, listener: &ListenerName, port: Option<u16>) {
        self.image.send_modify(|image| {
            let mut broker = (**image.broker(id).unwrap()).clone();
            let endpoint = port.map(|port| Endpoint {
                host: format!("{listener}-{id}"),
                port,
            });
            broker.listeners.insert(listener.clone(), endpoint);
            let brokers = &mut Arc::make_mut(image).brokers;
            brokers.insert(id, Arc::new(broker));
        });
    }

    /// From now on leaders ask the coordinator what is in a transaction.
    pub fn verify_transactions(&self) {
        self.replicas.verify_with(self.verifier.clone());
    }

    /// The replicas behind the handler.
    pub fn replicas(&self) -> &Arc<ReplicaManager> {
        &self.replicas
    }

    /// Has a log directory meet an error of the disk.
    pub async fn break_log_dir(&self, path: &str) {
        let dirs = self.replicas.disks().dirs().clone();
        let path = std::path::PathBuf::from(path);
        tokio::task::spawn_blocking(move || {
            let dir = dirs.all().iter().find(|dir| dir.path() == path).unwrap();
            // In the way of what is written next. One that is being written has the name for a moment.
            while let Err(error) = std::fs::create_dir(path.join("high-watermarks.tmp")) {
                assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
                std::thread::yield_now();
            }
            assert!(dir.checkpoint_high_watermarks([]).is_err());
            assert!(dir.failure().is_some());
        })
        .await
        .unwrap();
    }

    pub async fn ask<R: KafkaRequest>(&self, request: &R, version: i16) -> R::Response {
        let name = std::any::type_name::<R>();
        let reply = self
            .client
            .call_within(request, version, Duration::from_secs(10))
            .await;
        reply.unwrap_or_else(|error| panic!("{name} version {version}: {error}"))
    }

    /// Adds a topic, one partition per given leader.
    pub fn add_topic(&self, name: &str, leaders: &[Option<BrokerId>]) -> TopicId {
        let id = TopicId::random();
        let partitions = leaders.iter().map(|leader| {
            Arc::new(Partition {
                replicas: vec![leader.unwrap_or(OTHER)],
                isr: leader.iter().copied().collect(),
                leader: *leader,
                leader_epoch: LeaderEpoch(3),
                partition_epoch: PartitionEpoch(5),
                ..Partition::default()
            })
        });
        let partitions = partitions.collect();
        self.image.send_modify(|image| {
            put_topic(Arc::make_mut(image), id, name, partitions, BTreeMap::new());
        });
        id
    }

    /// Sets a key of a topic's own.
    pub fn configure_topic(&self, id: TopicId, key: &str, value: &str) {
        self.image.send_modify(|image| {
            let mut topic = image.topic(&id).map(|t| (**t).clone());
            let topic = topic.as_mut().unwrap();
            topic.configs.insert(key.into(), value.into());
            let topics = &mut Arc::make_mut(image).topics;
            topics.insert(id, Arc::new(topic.clone()));
        });
    }
}

/// Every version of `key` that is served.
pub fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let served = SERVED.iter().find(|served| served.key == key).unwrap();
    served.min..=served.max
}

fn broker(id: BrokerId, incarnation: Incarnation, fenced: bool) -> Broker {
    Broker {
        id,
        incarnation,
        client: Endpoint {
            host: format!("host-{id}"),
            port: 9092,
        },
        internal: Endpoint {
            host: "127.0.0.1".into(),
            port: 1,
        },
        http: None,
        rack: Some(format!("rack-{id}")),
        version: String::new(),
        fenced,
        shutting_down: false,
        cordoned: false,
        registered_at: Seq(0),
        changed_at: Seq(0),
        directories: Vec::new(),
        listeners: Default::default(),
        features: Default::default(),
    }
}

pub fn first_image(incarnation: Incarnation) -> Image {
    let mut image = Image::genesis(ClusterId("c".into()));
    for b in [
        broker(ME, incarnation, false),
        broker(OTHER, Incarnation(8), false),
        broker(BrokerId(3), Incarnation(9), true),
    ] {
        image.brokers.insert(b.id, Arc::new(b));
    }
    image
}

fn put_topic(
    image: &mut Image,
    id: TopicId,
    name: &str,
    partitions: Vec<Arc<Partition>>,
    configs: BTreeMap<String, String>,
) {
    let topic = Topic {
        id,
        name: name.into(),
        internal: false,
        partitions,
        configs,
    };
    image.names.insert(name.into(), id);
    image.topics.insert(id, Arc::new(topic));
}

/// A controller that does at once what it is asked, by hand.
pub struct HandController {
    image: Arc<watch::Sender<Arc<Image>>>,
    pub down: AtomicBool,
    next_id: AtomicI64,
    pub calls: Mutex<Vec<AdminRequest>>,
}

#[async_trait]
impl ControllerCalls for HandController {
    async fn call(&self, request: Request, _: Instant) -> Response {
        if self.down.load(Ordering::Relaxed) {
            return Response::Error(Outcome::refused(codes::NOT_CONTROLLER, "down"));
        }
        match request {
            Request::AllocateProducerIds { .. } => {
                let first = self.next_id.fetch_add(10, Ordering::Relaxed);
                Response::ProducerIds {
                    first: ProducerId(first),
                    count: 10,
                }
            }
            Request::Admin { request, .. } => {
                self.calls.lock().unwrap().push(request.clone());
                let answered = answer(&self.image.borrow(), &request);
                // The news takes a moment, as it does in life.
                let (image, done) = (self.image.clone(), request.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    image.send_modify(|image| change(Arc::make_mut(image), &done));
                });
                Response::Admin(answered)
            }
            other => panic!("the APIs do not ask for {other:?}"),
        }
    }
}

fn refusal(name: &str) -> Outcome {
    match name {
        "taken" => Outcome::refused(codes::TOPIC_ALREADY_EXISTS, "it is taken"),
        "wide" => Outcome::refused(codes::INVALID_REPLICATION_FACTOR, "too few brokers"),
        _ => Outcome::ok(),
    }
}

fn count(asked: i32) -> i32 {
    if asked < 0 { 2 } else { asked.min(100) }
}

fn new_partition() -> Arc<Partition> {
    Arc::new(Partition {
        replicas: vec![ME],
        isr: vec![ME],
        leader: Some(ME),
        ..Partition::default()
    })
}

fn change(image: &mut Image, request: &AdminRequest) {
    match request {
        AdminRequest::CreateTopics {
            topics,
            validate_only: false,
        } => {
            for topic in topics.iter().filter(|topic| refusal(&topic.name).is_ok()) {
                let partitions = (0..count(topic.partitions))
                    .map(|_| new_partition())
                    .collect();
                let configs = topic
                    .configs
                    .iter()
                    .filter_map(|(k, v)| Some((k.clone(), v.clone()?)));
                put_topic(image, topic.id, &topic.name, partitions, configs.collect());
            }
        }
        AdminRequest::DeleteTopics { topics } => {
            for topic in topics {
                let id = match topic {
                    TopicRef::Id(id) => Some(*id),
                    TopicRef::Name(name) => image.names.get(name).copied(),
                };
                if let Some(topic) = id.and_then(|id| image.topics.remove(&id)) {
                    image.names.remove(&topic.name);
                }
            }
        }
        AdminRequest::CreatePartitions {
            topics,
            validate_only: false,
        } => {
            for more in topics {
                if let Some(id) = image.names.get(&more.name).copied() {
                    let mut topic = (*image.topics[&id]).clone();
                    topic
                        .partitions
                        .resize_with(more.count as usize, new_partition);
                    image.topics.insert(id, Arc::new(topic));
                }
            }
        }
        AdminRequest::AlterConfigs {
            resources,
            validate_only: false,
        } => {
            for resource in resources {
                let values: BTreeMap<String, String> = resource
                    .changes
                    .iter()
                    .filter_map(|change| Some((change.key.clone(), change.value.clone()?)))
                    .collect();
                match &resource.target {
                    ConfigTarget::Cluster => image.cluster_configs = Arc::new(values),
                    ConfigTarget::Broker(id) => {
                        Arc::make_mut(&mut image.broker_configs).insert(*id, values);
                    }
                    ConfigTarget::Group(name) => {
                        Arc::make_mut(&mut image.group_configs).insert(name.clone(), values);
                    }
                    ConfigTarget::ClientMetrics(name) => {
                        Arc::make_mut(&mut image.client_metrics).insert(name.clone(), values);
                    }
                    ConfigTarget::Topic(name) => {
                        if let Some(id) = image.names.get(name).copied() {
                            let mut topic = (*image.topics[&id]).clone();
                            topic.configs = values;
                            image.topics.insert(id, Arc::new(topic));
                        }
                    }
                }
            }
        }
        AdminRequest::AlterClientQuotas { entities, .. } => {
            let quotas = Arc::make_mut(&mut image.client_quotas);
            for wanted in entities {
                let limits = quotas.entry(wanted.entity.clone()).or_default();
                for change in &wanted.changes {
                    match change.limit {
                        Some(limit) => limits.insert(change.key.clone(), limit),
                        None => limits.remove(&change.key),
                    };
                }
            }
            quotas.retain(|_, limits| !limits.is_empty());
        }
        AdminRequest::UpdateFeatures {
            updates,
            validate_only: false,
        } if features_outcome(updates).is_ok() => {
            image.metadata_version = updates.first().map(|update| update.level);
        }
        AdminRequest::UnregisterBroker { broker } => drop(image.brokers.remove(broker)),
        _ => {}
    }
}

fn features_outcome(updates: &[FeatureUpdate]) -> Outcome {
    match updates.iter().any(|update| update.level > Level::NEWEST) {
        true => Outcome::refused(codes::INVALID_UPDATE_VERSION, "too high"),
        false => Outcome::ok(),
    }
}

fn answer(image: &Image, request: &AdminRequest) -> AdminResponse {
    match request {
        AdminRequest::AlterClientQuotas { entities, .. } => {
            AdminResponse::AlterClientQuotas(vec![Outcome::ok(); entities.len()])
        }
        AdminRequest::UpdateFeatures { updates, .. } => {
            AdminResponse::UpdateFeatures(features_outcome(updates))
        }
        AdminRequest::UnregisterBroker { broker } => {
            AdminResponse::UnregisterBroker(match image.broker(*broker) {
                Some(_) => Outcome::ok(),
                None => Outcome::refused(codes::BROKER_ID_NOT_REGISTERED, "unknown"),
            })
        }
        AdminRequest::CreateTopics { topics, .. } => AdminResponse::CreateTopics(
            topics
                .iter()
                .map(|topic| CreatedTopic {
                    name: topic.name.clone(),
                    outcome: refusal(&topic.name),
                    id: topic.id,
                    partitions: count(topic.partitions),
                    replication_factor: 1,
                })
                .collect(),
        ),
        AdminRequest::DeleteTopics { topics } => AdminResponse::DeleteTopics(
            topics
                .iter()
                .map(|topic| match topic {
                    TopicRef::Name(name) => DeletedTopic {
                        name: Some(name.clone()),
                        id: None,
                        outcome: Outcome::ok(),
                    },
                    TopicRef::Id(id) => DeletedTopic {
                        name: None,
                        id: Some(*id),
                        outcome: Outcome::ok(),
                    },
                })
                .collect(),
        ),
        AdminRequest::CreatePartitions { topics, .. } => AdminResponse::CreatePartitions(
            topics
                .iter()
                .map(|topic| (topic.name.clone(), Outcome::ok()))
                .collect(),
        ),
        AdminRequest::AlterConfigs { resources, .. } => AdminResponse::AlterConfigs(
            resources
                .iter()
                .map(|resource| (resource.target.clone(), Outcome::ok()))
                .collect(),
        ),
        AdminRequest::AlterReassignments { items, .. } => AdminResponse::AlterReassignments(
            items
                .iter()
                .map(|item| {
                    let why = Outcome::refused(codes::NO_REASSIGNMENT_IN_PROGRESS, "nothing moves");
                    (item.topic.clone(), item.partition, why)
                })
                .collect(),
        ),
        AdminRequest::ElectLeaders { partitions, .. } => {
            let asked = partitions
                .clone()
                .unwrap_or_else(|| vec![("all".into(), 0)]);
            let why = Outcome::refused(codes::ELECTION_NOT_NEEDED, "it leads already");
            AdminResponse::ElectLeaders(
                asked
                    .into_iter()
                    .map(|(topic, index)| (topic, index, why.clone()))
                    .collect(),
            )
        }
        other => panic!("the APIs do not ask for {other:?}"),
    }
}

struct NoIsr;

#[async_trait]
impl IsrController for NoIsr {
    async fn alter(&self, _: Vec<IsrProposal>) -> Option<Vec<IsrVerdict>> {
        None
    }
}

/// A coordinator that leads every group, with a log in memory.
fn groups() -> Arc<GroupCoordinator> {
    let settings = Settings {
        limits: GroupLimits {
            max_size: 100,
            initial_rebalance_delay_ms: 0,
            new_member_join_timeout_ms: 300_000,
            max_pending: 100,
        },
        consumer: ConsumerSettings::DEFAULT,
        offset_metadata_max: 4096,
        offsets_retention_ms: 3_600_000,
        offsets_check_interval_ms: 600_000,
        write_timeout_ms: 5_000,
    };
    let log = Arc::new(MemoryLog::default());
    let groups = GroupCoordinator::new(settings, 10..=1_800_000, Arc::new(OneBroker), log);
    groups.lead(Leadership {
        topic: GROUPS_TOPIC,
        partition: 0,
        epoch: LeaderEpoch(0),
    });
    groups
}

pub const TRANSACTIONS_TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(98));

/// A coordinator that leads every transactional id, and whose markers are written at once.
fn transactions() -> Transactions {
    let settings = TxnSettings {
        max_timeout_ms: 900_000,
        abort_interval_ms: 20,
        expiration_ms: 3_600_000,
        expiration_interval_ms: 600_000,
        write_timeout_ms: 5_000,
    };
    let log = Arc::new(MemoryLog::default());
    let topic = Arc::new(Offsets(Arc::new(OneBroker)));
    let coordinator = TxnCoordinator::new(settings, topic, log, Arc::new(AtOnce));
    coordinator.lead(Leadership {
        topic: TRANSACTIONS_TOPIC,
        partition: 0,
        epoch: LeaderEpoch(0),
    });
    let verifier = Verifier::new(ME, coordinator.clone(), Arc::new(NoLines));
    Transactions {
        coordinator,
        verifier: Arc::new(verifier),
    }
}

struct AtOnce;

impl MarkerWriter for AtOnce {
    fn write(&self, _: Ending, _: LeaderEpoch) -> BoxFuture<'static, Result<(), ErrorCode>> {
        async { Ok(()) }.boxed()
    }
}

struct NoLines;

#[async_trait]
impl Lines for NoLines {
    async fn write_markers(
        &self,
        to: BrokerId,
        _: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, CallFailed> {
        Err(CallFailed::Gone(to))
    }

    async fn verify(
        &self,
        to: BrokerId,
        _: AddPartitionsToTxnRequest,
    ) -> Result<AddPartitionsToTxnResponse, CallFailed> {
        Err(CallFailed::Gone(to))
    }
}

struct OneBroker;

#[async_trait]
impl Cluster for OneBroker {
    fn offsets_partitions(&self) -> Option<i32> {
        Some(1)
    }

    fn offsets_leader(&self, _: i32) -> Option<GroupEndpoint> {
        Some(GroupEndpoint {
            broker: ME,
            host: "host-1".into(),
            port: 9092,
        })
    }

    fn has_partition(&self, topic: &str, _: i32) -> bool {
        topic != OFFSETS_TOPIC && topic != "nowhere"
    }

    fn image(&self) -> Arc<Image> {
        Arc::new(Image::genesis(ClusterId("c".into())))
    }

    async fn create_offsets_topic(&self) -> Result<(), ErrorCode> {
        Ok(())
    }

    async fn changed(&self, timeout: Duration) {
        tokio::time::sleep(timeout).await;
    }
}

/// Keeps nothing: enough for a coordinator that is never loaded again.
#[derive(Default)]
struct MemoryLog {
    batches: Mutex<BytesMut>,
}

#[async_trait]
impl StateLog for MemoryLog {
    fn append(
        &self,
        _: Leadership,
        batch: Bytes,
        _: Verified,
    ) -> BoxFuture<'static, Result<Offset, ErrorCode>> {
        self.batches.lock().unwrap().extend_from_slice(&batch);
        async { Ok(Offset(0)) }.boxed()
    }

    fn bounds(&self, _: Leadership) -> Option<Bounds> {
        Some(Bounds {
            log_start: Offset(0),
            log_end: Offset(0),
        })
    }

    async fn read(&self, _: Leadership, _: Offset) -> Result<Bytes, ErrorCode> {
        Ok(Bytes::new())
    }
}
