//! Wires one broker together and keeps it until it is told to stop.
//!
//! Order matters, and this file is where it stands. Start: lock the log directories, listen for other
//! brokers, stand for election, register, follow partitions, and only then listen for clients. Stop:
//! leaders move away, the Lease is released, clients are let go, logs are closed, and last of all the
//! clean markers are written. A second signal ends the process at once, and so does the loss of the last log
//! directory.

mod dynamic;
mod groups;
mod identity;
mod listeners;
mod metrics;
mod rack;
mod status;

pub use listeners::FurtherListener;

use crate::api::{Context, KafkaHandler};
use crate::cli::{RunArgs, StoreKind};
use crate::config::{self, BrokerConfig};
use crate::controller::{self, Driver, DriverConfig};
use crate::group;
use crate::http;
use crate::internal::{InternalHandler, Pong};
use crate::loggers::Loggers;
use crate::replica::ReplicaManager;
use crate::server::{Limits, Server};
use crate::session::{self, Session, SessionConfig};
use crate::txn;
use anyhow::{Context as _, bail};
use leasehold_log::LogDirs;
use leasehold_metadata::controller::Settings;
use leasehold_metadata::head;
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::store::directory::DirectoryStore;
use leasehold_metadata::store::kubernetes::KubernetesStore;
use leasehold_metadata::store::{CALL_TIMEOUT, Store};
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long requests in flight may take to finish once everything has been handed over.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a broker that leads nothing any more still tells clients where to go. Cut off in the middle
/// of such a question, librdkafka puts it to the same broker again, and may then hang for 30 s on the
/// address of a pod that is gone. Covers its first retry, 100 ms after it was refused.
const DIRECTIONS: Duration = Duration::from_millis(250);
/// How long another broker may be silent on a connection of the internal listener.
const INTERNAL_IDLE: Duration = Duration::from_secs(60);
/// Between looks for a head that is not there yet.
const HEAD_PAUSE: Duration = Duration::from_millis(200);

/// Runs a broker until SIGTERM or SIGINT, or until it must end.
pub async fn run(args: RunArgs, loggers: Arc<Loggers>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    identity::end_with_parent(args.end_with_parent)?;
    identity::raise_open_files();
    let config = Arc::new(config::load(args.config.as_deref())?);
    let broker = identity::broker_id(&args)?;
    tokio::select! {
        started = Broker::start(&args, broker, config.clone(), loggers) => {
            let running = started?;
            let reason = tokio::select! {
                name = signals.next() => Ok(name),
                reason = running.session.ended() => Err(reason),
                // With one of several gone it goes on; with the last it has nothing left to do.
                failure = running.replicas.storage_failure() => Err(failure),
            };
            match reason {
                Ok(name) => {
                    tracing::info!(%broker, signal = name, "stopping");
                    tokio::select! {
                        () = running.stop(&config) => Ok(()),
                        name = signals.next() => bail!("a second signal ({name}): ending at once"),
                    }
                }
                Err(reason) => bail!("broker {broker} must end: {reason}"),
            }
        }
        name = signals.next() => {
            tracing::info!(%broker, signal = name, "stopped before it was ready");
            Ok(())
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A broker at work.
struct Broker {
    session: Session,
    driver: Driver,
    replicas: Arc<ReplicaManager>,
    log_dirs: Arc<LogDirs>,
    clients: Arc<Server>,
    internal: Server,
    http: tokio::task::JoinHandle<()>,
}

impl Broker {
    async fn start(
        args: &RunArgs,
        broker: BrokerId,
        config: Arc<BrokerConfig>,
        loggers: Arc<Loggers>,
    ) -> anyhow::Result<Self> {
        let (http_listener, http_address) = http::bind(&args.http_listen).await?;
        let status = Arc::new(status::Status::new(
            broker,
            config.clone(),
            args.data.clone(),
        ));
        let registry = Arc::new(metrics::registry(status.clone()));
        let http = tokio::spawn(http::serve(http_listener, status.clone(), registry));

        let store = open_store(args).await?;
        let cluster_id = await_head(&*store, &status).await?;
        let log_dirs = open_log_dirs(args, &config, &cluster_id, broker, &status).await?;

        let incarnation = Incarnation::random();
        tracing::info!(%broker, %incarnation, %cluster_id, store = store.describe(), "starting");
        let handler = Arc::new(InternalHandler::new(Pong {
            cluster_id: cluster_id.clone(),
            broker,
            incarnation,
        }));
        let limits = internal_limits(&config);
        let internal = Server::bind(&args.internal_listen, handler.clone(), limits).await?;
        let internal_address =
            identity::internal_endpoint(args.internal_advertise.as_deref(), internal.local_addr())?;

        let driver = controller::start(
            DriverConfig {
                cluster_id: cluster_id.clone(),
                me: Holder {
                    broker,
                    incarnation,
                },
                address: session::find::address_of(&internal_address),
                settings: Settings {
                    defaults_are_told: args.store == StoreKind::Kubernetes,
                    ..Settings::from_config(&config)
                },
                limits: head::Limits::default(),
            },
            store,
        );
        handler.serve_controller(driver.handle());
        let further = listeners::offered(&args.listeners)?;
        let session = session::start(
            SessionConfig {
                cluster_id: cluster_id.clone(),
                broker,
                incarnation,
                client: identity::endpoint("--advertise", &args.advertise)?,
                internal: internal_address,
                listeners: further,
                http: Some(identity::socket_endpoint(http_address)),
                rack: rack::watch(args.rack_file.clone()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                home: args.data.clone(),
                log_dirs: log_dirs.clone(),
            },
            driver.handle(),
            driver.evidence(),
        )
        .await?;

        let replicas = start_replicas(&session, &config, log_dirs.clone()).await?;
        session.set_reports(replicas.clone());
        handler.serve_followers(replicas.clone());
        let member = session.membership().clone();
        let coordinator = group::start(&member, replicas.clone(), &config);
        let transactions = txn::start(&member, replicas.clone(), &config);
        replicas.verify_with(transactions.verifier.clone());
        let kafka = Arc::new(KafkaHandler::new(Context {
            broker,
            incarnation,
            config: config.clone(),
            image: member.image.clone(),
            controller: Arc::new(member.controller.clone()),
            replicas: replicas.clone(),
            groups: coordinator.clone(),
            transactions: transactions.clone(),
            loggers,
        }));
        handler.serve_brokers(kafka.clone());
        // A client that comes before this broker knows the cluster would be told that there is none.
        let mut registered = session.status();
        tokio::select! {
            known = registered.wait_for(|session| session.registered) => { known.context("the session ended")?; }
            reason = session.ended() => bail!("broker {broker} must end: {reason}"),
        }
        let clients = Server::bind(&args.client_listen, kafka, client_limits(&config)).await?;
        let opened = listeners::open(&clients, &args.listeners).await?;
        let clients = Arc::new(clients);
        listeners::follow(member.image.clone(), broker, incarnation);
        dynamic::follow(member.image.clone(), broker, config.clone(), &clients);
        tracing::info!(%broker, %incarnation, clients = %clients.local_addr(), internal = %internal.local_addr(), http = %http_address, "ready");
        status.running(status::Parts {
            member,
            session: session.status(),
            role: driver.handle().role(),
            lease: driver.handle().lease(),
            replicas: replicas.clone(),
            groups: coordinator,
            transactions: transactions.coordinator,
            clients: clients.clone(),
            listeners: opened,
        });
        Ok(Self {
            session,
            driver,
            replicas,
            log_dirs,
            clients,
            internal,
            http,
        })
    }

    async fn stop(self, config: &BrokerConfig) {
        self.session
            .leave(milliseconds(config.controlled_shutdown_timeout_ms))
            .await;
        self.driver.stop().await;
        tokio::time::sleep(DIRECTIONS).await;
        self.clients.shutdown(DRAIN).await;
        if let Err(error) = self.replicas.close().await {
            tracing::error!(%error, "the logs could not be closed in order; the next start will recover them");
            return;
        }
        self.internal.shutdown(DRAIN).await;
        // Its poll must not write into a directory that is said to be closed.
        drop(self.session);
        let log_dirs = self.log_dirs;
        match tokio::task::spawn_blocking(move || log_dirs.close_clean()).await {
            Ok(Ok(())) => tracing::info!("stopped cleanly"),
            Ok(Err(error)) => tracing::error!(%error, "the clean marker could not be written"),
            Err(error) => tracing::error!(%error, "the clean marker could not be written"),
        }
        self.http.abort();
    }
}

async fn open_store(args: &RunArgs) -> anyhow::Result<Arc<dyn Store>> {
    match args.store {
        StoreKind::Kubernetes => Ok(Arc::new(
            KubernetesStore::infer(&args.namespace, &args.cluster).await?,
        )),
        StoreKind::Directory => {
            let dir = args
                .store_dir
                .as_ref()
                .context("--store directory needs --store-dir")?;
            let store = DirectoryStore::open(dir)
                .with_context(|| format!("cannot open the store {}", dir.display()))?;
            Ok(Arc::new(store))
        }
    }
}

/// Waits for the head, which is not this process's to create, and gives its cluster id. An API
/// server that is away or slow is no reason to end: that would only add restarts to an outage. Metadata of a level
/// that this release does not know is one: it must not stand for controller, nor serve what it would misread.
async fn await_head(store: &dyn Store, status: &status::Status) -> anyhow::Result<ClusterId> {
    let mut said = String::new();
    loop {
        let why = match store.read_head().await {
            Ok(Some(head)) => match head.data.get(CLUSTER_ID) {
                Some(id) => {
                    head::check_level(&head.data)
                        .with_context(|| format!("cannot start on {}", store.describe()))?;
                    return Ok(ClusterId(id.clone()));
                }
                None => format!("the head in {} has no {CLUSTER_ID}", store.describe()),
            },
            Ok(None) => format!(
                "waiting for the head in {}: the operator (or `leasehold-broker dev`) creates it",
                store.describe()
            ),
            Err(error) => format!("waiting for the store: {error}"),
        };
        if said != why {
            tracing::warn!("{why}");
            status.waiting(&why);
            said = why;
        }
        tokio::time::sleep(HEAD_PAUSE.min(CALL_TIMEOUT)).await;
    }
}

async fn open_log_dirs(
    args: &RunArgs,
    config: &BrokerConfig,
    cluster_id: &ClusterId,
    broker: BrokerId,
    status: &status::Status,
) -> anyhow::Result<Arc<LogDirs>> {
    let (home, id) = (args.data.clone(), cluster_id.clone());
    let paths = config.log_directories(&home);
    let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let shown = shown.join(", ");
    status.waiting(&format!("opening (or waiting for the lock of) {shown}"));
    let open = move || LogDirs::open(&home, &paths, &id, broker);
    let opened = tokio::task::spawn_blocking(open).await?;
    opened.with_context(|| format!("cannot open the log directories ({shown})"))
}

async fn start_replicas(
    session: &Session,
    config: &BrokerConfig,
    log_dirs: Arc<LogDirs>,
) -> anyhow::Result<Arc<ReplicaManager>> {
    let (member, config) = (session.membership().clone(), config.clone());
    let runtime = tokio::runtime::Handle::current();
    let started = tokio::task::spawn_blocking(move || {
        let _entered = runtime.enter();
        ReplicaManager::start_in(&member, log_dirs, &config)
    });
    Ok(started.await??)
}

fn client_limits(config: &BrokerConfig) -> Limits {
    Limits {
        name: "client",
        max_connections: bytes(config.max_connections),
        max_idle: milliseconds(config.connections_max_idle_ms),
        max_frame: bytes(config.socket_request_max_bytes),
        ..Limits::default()
    }
}

fn internal_limits(config: &BrokerConfig) -> Limits {
    Limits {
        name: "internal",
        max_idle: INTERNAL_IDLE,
        max_frame: bytes(config.socket_request_max_bytes),
        // What brokers tell the controller grows with their partitions.
        max_plain_frame: bytes(config.socket_request_max_bytes),
        ..Limits::default()
    }
}

fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

fn bytes(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}
