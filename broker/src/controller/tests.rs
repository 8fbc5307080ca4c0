//! What a candidate and its term promise, on a store in memory and a clock that stands still.

use super::{Driver, DriverConfig, Role, start};
use crate::internal::peer::simulated::WATCH;
use leasehold_metadata::controller::Settings;
use leasehold_metadata::head::{Limits, genesis, load};
use leasehold_metadata::image::{ClaimId, Endpoint, Image, Position};
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::{
    AdminRequest, AlterPartition, BrokerState, IsrProposal, NewTopic, Poll, Registration, Request,
    Response, codes,
};
use leasehold_metadata::store::Store as _;
use leasehold_metadata::store::simulated::SimulatedStore;
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

fn ours() -> ClusterId {
    ClusterId("ours".to_owned())
}

fn life(broker: i32) -> Incarnation {
    Incarnation(i64::from(broker) + 10)
}

fn candidate(store: &SimulatedStore) -> Driver {
    let config = DriverConfig {
        cluster_id: ours(),
        me: Holder {
            broker: BrokerId(0),
            incarnation: life(0),
        },
        address: "127.0.0.1:1".to_owned(),
        settings: Settings::default(),
        limits: Limits::default(),
    };
    start(config, Arc::new(store.clone()))
}

#[tokio::test(start_paused = true)]
async fn the_head_of_another_cluster_is_not_claimed_and_the_lease_is_left_to_its_own() {
    let store = SimulatedStore::new();
    genesis(&store, &ClusterId("theirs".to_owned()))
        .await
        .unwrap();
    let driver = candidate(&store);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(store.head_writes(), 0);
    assert_eq!(store.read_lease().await.unwrap().unwrap().holder, None);
    assert!(!driver.handle().role().borrow().is_controller());
}

/// A cluster of two brokers, who are heard of by nothing but what a test says in their name: nobody looks
/// whether there is a process at their addresses.
struct Pair {
    store: SimulatedStore,
    driver: Driver,
}

impl Pair {
    async fn new() -> Self {
        WATCH.set(Some(|_| Box::pin(std::future::pending())));
        let store = SimulatedStore::new();
        genesis(&store, &ours()).await.unwrap();
        let driver = candidate(&store);
        let mut role = driver.handle().role();
        role.wait_for(|role| role.is_controller()).await.unwrap();
        let pair = Self { store, driver };
        for broker in 0..2 {
            let endpoint = Endpoint {
                host: "127.0.0.1".to_owned(),
                port: 1,
            };
            let registration = Registration {
                broker: BrokerId(broker),
                incarnation: life(broker),
                client: endpoint.clone(),
                internal: endpoint,
                http: None,
                rack: None,
                version: String::new(),
                restart: Default::default(),
                directories: Vec::new(),
                unreadable: 0,
                listeners: Default::default(),
                features: leasehold_metadata::features::supported(),
            };
            let answer = pair.ask(Request::Register(Box::new(registration))).await;
            assert!(matches!(answer, Response::Registered { .. }), "{answer:?}");
            let position = pair.image().await.position;
            pair.poll(broker, position).await;
        }
        // A broker serves once it has told that it knows of itself; that is a write of its own.
        while pair.image().await.brokers.values().any(|b| b.fenced) {
            sleep(Duration::from_millis(1)).await;
        }
        pair
    }

    async fn ask(&self, request: Request) -> Response {
        self.driver.handle().call(request).await
    }

    async fn image(&self) -> Arc<Image> {
        load(&self.store).await.unwrap().image
    }

    async fn poll(&self, broker: i32, position: Position) -> Response {
        let poll = Poll {
            broker: BrokerId(broker),
            incarnation: life(broker),
            position: Some(position),
            state: BrokerState::default(),
        };
        self.ask(Request::Poll(poll)).await
    }

    /// Proposes an ISR of the one partition that there is, as its leader. Its answer comes when it is written.
    async fn propose(&self, isr: &[i32]) -> impl Future<Output = Response> + use<> {
        let image = self.image().await;
        let topic = image.topic_by_name("t").unwrap();
        let partition = &topic.partitions[0];
        let leader = partition.leader.unwrap();
        let proposal = IsrProposal {
            topic: topic.id,
            partition: 0,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|id| (BrokerId(*id), life(*id))).collect(),
        };
        let request = Request::AlterPartition(AlterPartition {
            broker: leader,
            incarnation: life(leader.0),
            proposals: vec![proposal],
        });
        let handle = self.driver.handle();
        async move { handle.call(request).await }
    }
}

/// Waits until the controller says that it is frozen.
async fn frozen(pair: &Pair) {
    let mut role = pair.driver.handle().role();
    let frozen = |role: &Role| matches!(role, Role::Controller { frozen: true, .. });
    role.wait_for(frozen).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_and_not_yet_written_at_a_freeze_is_refused_and_never_written() {
    let pair = Pair::new().await;
    let mut topic = NewTopic::with_defaults("t");
    (topic.partitions, topic.replication_factor) = (1, 2);
    // So that the second member is no matter of haste.
    let min = ("min.insync.replicas".to_owned(), Some("1".to_owned()));
    topic.configs.extend([min]);
    let create = AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    let answer = pair
        .ask(Request::Admin {
            request: create,
            timeout_ms: 1_000,
        })
        .await;
    assert!(matches!(answer, Response::Admin(_)), "{answer:?}");
    let leader = pair.image().await.topic_by_name("t").unwrap().partitions[0]
        .leader
        .unwrap();
    pair.propose(&[leader.0]).await.await;
    let written = pair.store.head_writes();
    // An expansion waits for company before it is written: it is decided, and on its way nowhere.
    let expansion = tokio::spawn(pair.propose(&[0, 1]).await);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(pair.store.head_writes(), written);
    let elsewhere = Position {
        claim_id: ClaimId(7),
        ..pair.image().await.position
    };
    let answer = pair.poll(1, elsewhere).await;
    assert!(matches!(answer, Response::Error(_)), "{answer:?}");
    frozen(&pair).await;
    // Longer than it would have waited.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(pair.store.head_writes(), written);
    match expansion.await.unwrap() {
        Response::Error(outcome) => assert_eq!(outcome.code, codes::POLICY_VIOLATION),
        other => panic!("{other:?}"),
    }
}
