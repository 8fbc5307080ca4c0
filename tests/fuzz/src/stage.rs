//! A broker's handlers over what they need, without a network: replicas in a temporary directory, groups with
//! a log in memory, an image with a few topics, and a controller that refuses all but producer ids.
//!
//! Its clock stands still unless everything waits, so that a request that waits costs no time.

use async_trait::async_trait;
use leasehold_broker::api::{Context, ControllerCalls, KafkaHandler};
use leasehold_broker::config::BrokerConfig;
use leasehold_broker::group::cluster::OFFSETS_TOPIC;
use leasehold_broker::internal::{InternalHandler, Pong};
use leasehold_broker::replica::{
    IsrController, ReplicaManager, ReplicaParts, ReplicaSettings, TcpEndpoints,
};
use leasehold_broker::server::ConnectionContext;
use leasehold_log::LogDirs;
use leasehold_metadata::image::Endpoint;
use leasehold_metadata::rpc::{IsrProposal, IsrVerdict, Outcome, Request, Response, codes};
use leasehold_metadata::{Broker, Image, Partition, Topic};
use leasehold_types::{
    BrokerId, ClusterId, Incarnation, LeaderEpoch, PartitionEpoch, ProducerId, Seq, TopicId,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use uuid::Uuid;

mod coordinators;

const ME: BrokerId = BrokerId(1);
const OTHER: BrokerId = BrokerId(2);
const LIFE: Incarnation = Incarnation(7);

/// The topics, by name and id; of each, partition 0 is led here, 1 elsewhere, 2 by nobody.
const TOPICS: [(&str, u128); 2] = [("a", 1), (OFFSETS_TOPIC, 2)];

/// See above. What comes first is dropped first.
pub(crate) struct Stage {
    pub handler: Arc<KafkaHandler>,
    pub internal: Arc<InternalHandler>,
    pub connection: Arc<ConnectionContext>,
    pub runtime: Runtime,
    _image: watch::Sender<Arc<Image>>,
    _dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn up() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let entered = runtime.enter();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cluster = ClusterId("c".into());
        let paths = [dir.path().to_owned()];
        let log_dirs = LogDirs::open(&paths[0], &paths, &cluster, ME).expect("a new directory");
        log_dirs.begin(LIFE).expect("run");
        log_dirs.confirm(LIFE).expect("run");
        let image = watch::Sender::new(Arc::new(image(&cluster)));
        let parts = ReplicaParts {
            broker: ME,
            incarnation: LIFE,
            image: image.subscribe(),
            log_dirs,
            controller: Arc::new(Refuses),
            endpoints: Arc::new(TcpEndpoints {
                cluster_id: cluster.clone(),
                timeout: Duration::from_secs(1),
            }),
            last_confirmed: Arc::new(|| Some(Instant::now())),
        };
        let replicas =
            ReplicaManager::start(parts, ReplicaSettings::default()).expect("the replicas");
        let handler = KafkaHandler::new(Context {
            broker: ME,
            incarnation: LIFE,
            config: Arc::new(BrokerConfig::default()),
            image: image.subscribe(),
            controller: Arc::new(Refuses),
            replicas: replicas.clone(),
            groups: coordinators::groups(),
            transactions: coordinators::transactions(),
            loggers: Arc::default(),
        });
        let internal = InternalHandler::new(Pong {
            cluster_id: cluster,
            broker: ME,
            incarnation: LIFE,
        });
        internal.serve_followers(replicas);
        drop(entered);
        Self {
            handler: Arc::new(handler),
            internal: Arc::new(internal),
            connection: ConnectionContext::for_tests(),
            runtime,
            _image: image,
            _dir: dir,
        }
    }
}

/// What the cluster of this broker looks like.
pub fn image(cluster: &ClusterId) -> Image {
    let mut image = Image::genesis(cluster.clone());
    for (id, incarnation) in [(ME, LIFE), (OTHER, Incarnation(8))] {
        let endpoint = |port| Endpoint {
            host: "127.0.0.1".into(),
            port,
        };
        let broker = Broker {
            id,
            incarnation,
            client: endpoint(9092),
            internal: endpoint(1),
            http: None,
            rack: Some(format!("rack-{id}")),
            directories: Vec::new(),
            listeners: Default::default(),
            features: Default::default(),
            version: String::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
            registered_at: Seq(0),
            changed_at: Seq(0),
        };
        image.brokers.insert(id, Arc::new(broker));
    }
    for (name, id) in TOPICS {
        let partition = |leader: Option<BrokerId>| {
            Arc::new(Partition {
                replicas: vec![leader.unwrap_or(OTHER)],
                isr: leader.into_iter().collect(),
                leader,
                leader_epoch: LeaderEpoch(3),
                partition_epoch: PartitionEpoch(5),
                ..Partition::default()
            })
        };
        let topic = Topic {
            id: TopicId(Uuid::from_u128(id)),
            name: name.into(),
            internal: name == OFFSETS_TOPIC,
            partitions: [Some(ME), Some(OTHER), None]
                .map(partition)
                .into_iter()
                .collect(),
            configs: BTreeMap::new(),
        };
        image.names.insert(name.into(), topic.id);
        image.topics.insert(topic.id, Arc::new(topic));
    }
    image
}

struct Refuses;

#[async_trait]
impl ControllerCalls for Refuses {
    async fn call(&self, request: Request, _: Instant) -> Response {
        match request {
            Request::AllocateProducerIds { .. } => Response::ProducerIds {
                first: ProducerId(1000),
                count: 10,
            },
            _ => Response::Error(Outcome::refused(codes::NOT_CONTROLLER, "there is none")),
        }
    }
}

#[async_trait]
impl IsrController for Refuses {
    async fn alter(&self, _: Vec<IsrProposal>) -> Option<Vec<IsrVerdict>> {
        None
    }
}
