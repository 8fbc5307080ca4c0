//! Several brokers' sessions and controllers in one process, over real sockets and a real directory.

use super::*;
use crate::controller::{Driver, DriverConfig, Role, start_with as start_driver};
use crate::internal::{InternalHandler, Pong};
use crate::server::{Limits as ListenerLimits, Server};
use find::address_of;
use leasehold_log::LogDirs;
use leasehold_metadata::broker_config::BrokerConfig;
use leasehold_metadata::controller::Settings;
use leasehold_metadata::head::{Limits, genesis, load};
use leasehold_metadata::image::{Endpoint, Position};
use leasehold_metadata::lease::{Elector, Holder};
use leasehold_metadata::rpc::{AdminRequest, LogEnd, NewTopic, Request, Response};
use leasehold_metadata::store::Store;
use leasehold_metadata::store::directory::DirectoryStore;
use leasehold_metadata::store::simulated::SimulatedStore;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Node {
    session: Session,
    driver: Driver,
    _listener: Server,
    _log_dirs: Arc<LogDirs>,
}

impl Node {
    async fn start(id: i32, store: Arc<dyn Store>, dir: &Path, cluster_id: &ClusterId) -> Self {
        Self::start_with(id, store, dir, cluster_id, |elector| elector).await
    }

    async fn start_with(
        id: i32,
        store: Arc<dyn Store>,
        dir: &Path,
        cluster_id: &ClusterId,
        change: impl FnOnce(Elector) -> Elector,
    ) -> Self {
        let (broker, incarnation) = (BrokerId(id), Incarnation::random());
        let log_dirs = {
            let (dir, cluster_id) = (dir.join(format!("broker-{id}")), cluster_id.clone());
            let all = directories_of(&dir);
            let open = move || LogDirs::open(&dir, &all, &cluster_id, broker);
            tokio::task::spawn_blocking(open).await.unwrap().unwrap()
        };
        let handler = Arc::new(InternalHandler::new(Pong {
            cluster_id: cluster_id.clone(),
            broker,
            incarnation,
        }));
        let listener = Server::bind("127.0.0.1:0", handler.clone(), ListenerLimits::default())
            .await
            .unwrap();
        let internal = Endpoint {
            host: "127.0.0.1".into(),
            port: listener.local_addr().port(),
        };
        let config = DriverConfig {
            cluster_id: cluster_id.clone(),
            me: Holder {
                broker,
                incarnation,
            },
            address: address_of(&internal),
            settings: Settings::from_config(&BrokerConfig::default()),
            limits: Limits::default(),
        };
        let elector = Elector::new(Arc::clone(&store), config.me, config.address.clone());
        let driver = start_driver(config, store, change(elector));
        handler.serve_controller(driver.handle());
        let (_, rack) = tokio::sync::watch::channel(None);
        let config = SessionConfig {
            cluster_id: cluster_id.clone(),
            broker,
            incarnation,
            client: internal.clone(),
            internal,
            listeners: Default::default(),
            http: None,
            rack,
            version: "test".into(),
            home: dir.join(format!("broker-{id}")),
            log_dirs: Arc::clone(&log_dirs),
        };
        let session = start(config, driver.handle(), driver.evidence())
            .await
            .unwrap();
        Self {
            session,
            driver,
            _listener: listener,
            _log_dirs: log_dirs,
        }
    }

    fn image(&self) -> Arc<Image> {
        self.session.membership().image.borrow().clone()
    }

    fn is_controller(&self) -> bool {
        self.driver.handle().role().borrow().is_controller()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Image) -> bool) -> Arc<Image> {
        let mut image = self.session.membership().image.clone();
        let waited = image.wait_for(|image| holds(image));
        match tokio::time::timeout(Duration::from_secs(20), waited).await {
            Ok(image) => image.unwrap().clone(),
            Err(_) => panic!(
                "broker {} never saw {what}; its status is {:?}, its image {:?}",
                self.session.membership().broker,
                self.session.status().borrow(),
                self.image(),
            ),
        }
    }
}

/// A broker's log directories: its own, and two more.
fn directories_of(home: &Path) -> [PathBuf; 3] {
    let beside = |end| home.with_extension(end);
    [home.to_owned(), beside("b"), beside("c")]
}

async fn controller_of(nodes: &[Node]) -> usize {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let who: Vec<usize> = (0..nodes.len())
            .filter(|i| nodes[*i].is_controller())
            .collect();
        // Two: a deposed one has not noticed yet; the head lets only one of them write.
        if let [one] = who[..] {
            return one;
        }
        assert!(Instant::now() < deadline, "nobody became controller");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn live(image: &Image) -> usize {
    image.brokers.values().filter(|b| !b.fenced).count()
}

async fn three(store: Arc<dyn Store>, dir: &Path, cluster_id: &ClusterId) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 0..3 {
        nodes.push(Node::start(id, Arc::clone(&store), dir, cluster_id).await);
    }
    for node in &nodes {
        node.until("three live brokers", |image| live(image) == 3)
            .await;
    }
    nodes
}

async fn create_topic(node: &Node, name: &str) -> Response {
    create(node, name, 3).await
}

/// Creates a topic of three partitions.
async fn create(node: &Node, name: &str, replication_factor: i16) -> Response {
    let mut topic = NewTopic::with_defaults(name);
    (topic.partitions, topic.replication_factor) = (3, replication_factor);
    let request = Request::Admin {
        request: AdminRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        },
        timeout_ms: 10_000,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    node.session
        .membership()
        .controller
        .call(request, deadline)
        .await
}

fn logs() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_controller_is_replaced_at_once_and_no_position_falls() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(DirectoryStore::open(dir.path().join("store")).unwrap());
    genesis(&*store, &cluster_id).await.unwrap();
    let begun = Instant::now();
    let mut nodes = three(store.clone(), dir.path(), &cluster_id).await;
    println!("three brokers ready after {:?}", begun.elapsed());
    let mut positions: Vec<Position> = Vec::new();
    for round in 0..3 {
        // Nobody replicates here, so an ISR never grows again: each round has a topic of its own.
        let name = format!("t{round}");
        let answer = create_topic(&nodes[1], &name).await;
        assert!(matches!(answer, Response::Admin(_)), "{answer:?}");
        for node in &nodes {
            node.until("the topic", |image| image.topic_by_name(&name).is_some())
                .await;
        }
        let dead = nodes.remove(controller_of(&nodes).await);
        let (gone, epoch) = (
            dead.session.membership().broker,
            dead.image().position.epoch,
        );
        positions.retain(|p| p.epoch <= epoch);
        positions.extend(nodes.iter().map(|n| n.image().position));
        let killed = Instant::now();
        drop(dead);
        let next = controller_of(&nodes).await;
        let claimed = killed.elapsed();
        for node in &nodes {
            let image = node
                .until("leaders without the dead broker", |image| {
                    let topic = image.topic_by_name(&name).unwrap();
                    image.position.epoch > epoch
                        && topic
                            .partitions
                            .iter()
                            .all(|p| p.leader.is_some_and(|leader| leader != gone))
                })
                .await;
            let published = killed.elapsed();
            println!(
                "round {round}: killed {gone}, claimed by node {next} after {claimed:?}, leaders known to {} after {published:?}",
                node.session.membership().broker
            );
            // Every position that any broker ever had lies on the line of every later image.
            for position in &positions {
                let standing = image.locate(position);
                assert_eq!(standing, leasehold_metadata::image::Standing::OnTable);
            }
        }
        let back = Node::start(gone.0, store.clone(), dir.path(), &cluster_id).await;
        // It begins with its own copy, so what it publishes never falls behind what it had.
        back.until("itself again", |image| {
            image.broker(gone).is_some_and(|b| !b.fenced)
        })
        .await;
        nodes.push(back);
    }
    let loaded = load(&*store).await.unwrap();
    assert!(loaded.head.epoch.0 >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_hands_the_role_over_and_says_goodbye() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &cluster_id).await.unwrap();
    let mut nodes = three(store.clone(), dir.path(), &cluster_id).await;
    create_topic(&nodes[0], "t").await;
    let leaving = nodes.remove(controller_of(&nodes).await);
    let gone = leaving.session.membership().broker;
    let begun = Instant::now();
    leaving.session.leave(Duration::from_secs(5)).await;
    println!("left after {:?}", begun.elapsed());
    let image = leaving.image();
    assert!(
        image
            .topic_by_name("t")
            .is_none_or(|t| { t.partitions.iter().all(|p| p.leader != Some(gone)) })
    );
    leaving.driver.stop().await;
    let lease = store.read_lease().await.unwrap().unwrap();
    assert_ne!(
        lease.holder,
        Some(format!(
            "{gone}/{}",
            leaving.session.membership().incarnation
        ))
    );
    controller_of(&nodes).await;
    println!("another controller after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_late_write_of_a_controller_without_a_deadline_is_refused_by_the_head() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &cluster_id).await.unwrap();
    let (shared, place) = (store.clone() as Arc<dyn Store>, dir.path());
    let stubborn = Elector::ignoring_its_deadline;
    let old = Node::start_with(0, shared.clone(), place, &cluster_id, stubborn).await;
    old.until("its own registration", |image| live(image) == 1)
        .await;
    // Another takes the Lease and claims, which the old one ignores.
    store.delete_lease();
    let new = Node::start(1, shared, place, &cluster_id).await;
    new.until("its own registration", |image| live(image) >= 1)
        .await;
    assert!(old.is_controller() && new.is_controller());
    let (refused, epoch) = (store.refused_writes(), new.image().position.epoch);
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut topic = NewTopic::with_defaults("late");
    (topic.partitions, topic.replication_factor) = (1, 1);
    let late = Request::Admin {
        request: AdminRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        },
        timeout_ms: 2_000,
    };
    let answer = old.driver.handle().call(late).await;
    assert!(
        matches!(answer, Response::NotController { .. }),
        "{answer:?}"
    );
    assert_eq!(store.refused_writes(), refused + 1);
    while old.is_controller() {
        assert!(Instant::now() < deadline, "it did not resign");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let loaded = load(&*store).await.unwrap();
    assert_eq!(loaded.head.epoch, epoch);
    assert!(loaded.image.topic_by_name("late").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_drivers_on_one_store_never_both_commit_and_losers_resign() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &cluster_id).await.unwrap();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    let mut epochs = vec![nodes[0].image().position.epoch];
    for _ in 0..5 {
        // Someone deletes the Lease by hand: everyone may take it.
        store.delete_lease();
        let epoch = *epochs.last().unwrap();
        let image = nodes[0]
            .until("a next claim", |image| image.position.epoch > epoch)
            .await;
        epochs.push(image.position.epoch);
        controller_of(&nodes).await;
    }
    let loaded = load(&*store).await.unwrap();
    let claims: Vec<_> = loaded.image.claims.iter().map(|c| c.epoch).collect();
    let mut distinct = claims.clone();
    distinct.dedup();
    assert_eq!(claims, distinct, "an epoch was claimed twice");
    assert_eq!(loaded.head.seq.0, store.head_writes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_an_admin_call_ends_within_two_seconds_and_is_not_applied_later() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &cluster_id).await.unwrap();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    store.set_down(true);
    for name in ["early", "late"] {
        let asked = Instant::now();
        let answer = create_topic(&nodes[2], name).await;
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        assert!(matches!(answer, Response::Error(_)), "{answer:?}");
    }
    store.set_down(false);
    controller_of(&nodes).await;
    let answer = create_topic(&nodes[2], "after").await;
    assert!(matches!(answer, Response::Admin(_)), "{answer:?}");
    let image = nodes[0]
        .until("the topic", |image| image.topic_by_name("after").is_some())
        .await;
    assert!(image.topic_by_name("early").is_none() && image.topic_by_name("late").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_killed_as_a_whole_is_back_soon() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(DirectoryStore::open(dir.path().join("store")).unwrap());
    genesis(&*store, &cluster_id).await.unwrap();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    create_topic(&nodes[0], "t").await;
    drop(nodes);
    let begun = Instant::now();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    for node in &nodes {
        node.until("leaders everywhere", |image| {
            image
                .topic_by_name("t")
                .is_some_and(|t| t.partitions.iter().all(|p| p.leader.is_some()))
        })
        .await;
    }
    println!("back after {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_before_its_commit_is_known() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &cluster_id).await.unwrap();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    // Applied, but its reply is lost, and nobody can read whether it is.
    store.set_reads_down(true);
    store.inject(leasehold_metadata::store::simulated::WriteFault::LostReply);
    let created = create_topic(&nodes[0], "t");
    let mut created = std::pin::pin!(created);
    let early = tokio::time::timeout(Duration::from_millis(600), &mut created).await;
    assert!(early.is_err(), "answered before it was known: {early:?}");
    assert!(nodes.iter().all(|n| n.image().topic_by_name("t").is_none()));
    store.set_reads_down(false);
    let answer = created.await;
    assert!(matches!(answer, Response::Admin(_)), "{answer:?}");
    for node in &nodes {
        node.until("the topic", |image| image.topic_by_name("t").is_some())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_restored_to_an_older_copy_freezes_the_controller() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &cluster_id).await.unwrap();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    create_topic(&nodes[0], "t").await;
    for node in &nodes {
        node.until("the topic", |image| image.topic_by_name("t").is_some())
            .await;
    }
    store.restore(3);
    // The controller's next write finds the head rewound, and another claim meets brokers from beyond it.
    create_topic(&nodes[0], "u").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let frozen = |node: &Node| {
        let role = *node.driver.handle().role().borrow();
        matches!(role, Role::Controller { frozen: true, .. })
    };
    while !nodes.iter().any(frozen) {
        assert!(Instant::now() < deadline, "nobody froze");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for node in &nodes {
        assert!(node.image().topic_by_name("t").is_some(), "a position fell");
    }
}

/// Replicas of which some fail.
#[derive(Default)]
struct Failing {
    offline: parking_lot::Mutex<Vec<(TopicId, i32)>>,
    failures: tokio::sync::watch::Sender<u64>,
}

impl ReplicaReports for Failing {
    fn log_ends(&self, _: &[(TopicId, i32)]) -> Vec<LogEnd> {
        Vec::new()
    }

    fn epochs_ahead(&self) -> Vec<LogEnd> {
        Vec::new()
    }

    fn offline(&self) -> Vec<(TopicId, i32)> {
        self.offline.lock().clone()
    }

    fn failures(&self) -> tokio::sync::watch::Receiver<u64> {
        self.failures.subscribe()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_failed_is_told_and_another_broker_leads_while_this_one_keeps_the_rest() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(DirectoryStore::open(dir.path().join("store")).unwrap());
    genesis(&*store, &cluster_id).await.unwrap();
    let nodes = three(store.clone(), dir.path(), &cluster_id).await;
    create_topic(&nodes[0], "t").await;
    for node in &nodes {
        let image = node
            .until("the topic", |image| image.topic_by_name("t").is_some())
            .await;
        let topic = image.topic_by_name("t").unwrap();
        let me = node.session.membership().broker;
        let mut partitions = topic.partitions.iter();
        let failed = partitions.position(|p| p.replicas[0] == me);
        let failed = failed.expect("three partitions on three brokers");
        let replicas = Arc::new(Failing::default());
        node.session.set_reports(replicas.clone());
        replicas
            .offline
            .lock()
            .push((topic.id, failed.try_into().unwrap()));
        replicas.failures.send_modify(|count| *count += 1);
        node.until("another leader", |image| {
            let p = &image.topic_by_name("t").unwrap().partitions[failed];
            p.is_offline(me) && p.leader.is_some_and(|leader| leader != me) && image.is_live(me)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_what_was_in_a_directory_is_a_loss_and_one_in_other_places_is_none() {
    logs();
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = ClusterId::random();
    let store = Arc::new(DirectoryStore::open(dir.path().join("store")).unwrap());
    genesis(&*store, &cluster_id).await.unwrap();
    let [home, b, c] = directories_of(&dir.path().join("broker-0"));
    let swap = || {
        std::fs::rename(&b, home.with_extension("x")).unwrap();
        std::fs::rename(&c, &b).unwrap();
        std::fs::rename(home.with_extension("x"), &c).unwrap();
    };
    let empty = || {
        std::fs::remove_dir_all(&c).unwrap();
        std::fs::create_dir(&c).unwrap();
    };
    let missing = || std::fs::remove_dir_all(&b).unwrap();
    let mut node = Node::start(0, store.clone(), dir.path(), &cluster_id).await;
    node.until("itself", |image| live(image) == 1).await;
    let cases: [(&str, &dyn Fn(), bool); 4] = [
        ("as it was", &|| {}, false),
        ("swapped", &swap, false),
        ("empty", &empty, true),
        ("missing", &missing, true),
    ];
    for (name, change, lossy) in cases {
        let name = name.replace(' ', "-");
        create(&node, &name, 1).await;
        node.until("the topic", |image| image.topic_by_name(&name).is_some())
            .await;
        let before = node.session.membership().incarnation;
        drop(node);
        change();
        node = Node::start(0, store.clone(), dir.path(), &cluster_id).await;
        let image = node
            .until("leaders", |image| {
                let Some(topic) = image.topic_by_name(&name) else {
                    return false;
                };
                let new = image.broker(BrokerId(0)).map(|b| b.incarnation) != Some(before);
                new && topic.partitions.iter().all(|p| p.leader.is_some())
            })
            .await;
        let topic = image.topic_by_name(&name).unwrap();
        assert!(
            topic.partitions.iter().all(|p| p.recovering == lossy),
            "{name}"
        );
    }
}
