//! The session as the rest of the broker holds it: starting it, its status, leaving the cluster.

use super::durable::{Durable, DurableError};
use super::run::Runner;
use super::{ControllerClient, Membership, ReplicaReports, SessionHealth, watch as holder_watch};
use crate::controller::ControllerHandle;
use leasehold_log::LogDirs;
use leasehold_metadata::image::{Endpoint, Image, Listeners};
use leasehold_metadata::lease::{Evidence, Holder};
use leasehold_metadata::rpc::Request;
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Who this broker is, and where it keeps its files.
pub struct SessionConfig {
    pub cluster_id: ClusterId,
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    /// Where clients connect.
    pub client: Endpoint,
    /// Where other brokers connect.
    pub internal: Endpoint,
    /// The further listeners for clients that will be open, with what this process itself knows of them.
    pub listeners: Listeners,
    pub http: Option<Endpoint>,
    /// `None`: not known (yet); the last known one stays. A change is registered.
    pub rack: watch::Receiver<Option<String>>,
    pub version: String,
    /// Where the copy of the metadata is kept.
    pub home: PathBuf,
    pub log_dirs: Arc<LogDirs>,
}

/// How the session stands, for probes and status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// Registered, and the registration is confirmed in the `run` file.
    pub registered: bool,
    /// What is wrong, in words; `None` in good times.
    pub trouble: Option<String>,
    /// Why the controller decides nothing; `None` in good times.
    pub frozen: Option<String>,
    /// The controller says that this broker leads nothing that another could lead.
    pub may_stop: bool,
}

/// The running session. Dropping it ends it.
pub struct Session {
    membership: Membership,
    reports: Arc<OnceLock<Arc<dyn ReplicaReports>>>,
    leaving: Arc<watch::Sender<bool>>,
    status: watch::Receiver<SessionStatus>,
    ended: watch::Receiver<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Opens the durable copy and begins to look for the controller.
pub async fn start(
    config: SessionConfig,
    controller: ControllerHandle,
    evidence: Evidence,
) -> Result<Session, DurableError> {
    let (dir, cluster_id) = (config.home.clone(), config.cluster_id.clone());
    let opened = tokio::task::spawn_blocking(move || Durable::open(&dir, &cluster_id)).await;
    let (durable, known) =
        opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let empty = Image::genesis(config.cluster_id.clone());
    let (published, image) = watch::channel(Arc::new(empty.clone()));
    let (status_sender, status) = watch::channel(SessionStatus::default());
    let (ended_sender, ended) = watch::channel(None);
    let leaving = Arc::new(watch::Sender::new(false));
    let reports = Arc::new(OnceLock::new());
    let health = SessionHealth::default();
    let membership = Membership {
        broker: config.broker,
        incarnation: config.incarnation,
        cluster_id: config.cluster_id.clone(),
        image,
        controller: ControllerClient::new(config.cluster_id.clone(), controller.clone()),
        health: health.clone(),
    };
    let me = Holder {
        broker: config.broker,
        incarnation: config.incarnation,
    };
    let watching =
        holder_watch::holder(config.cluster_id.clone(), me, controller.lease(), evidence);
    let runner = Runner {
        image: known.unwrap_or(empty),
        config,
        controller,
        durable: Some(durable),
        published,
        health,
        status: status_sender,
        ended: ended_sender,
        leaving: leaving.subscribe(),
        reports: Arc::clone(&reports),
        registered_at: None,
        wanted_ends: Vec::new(),
        disowned_since: None,
    };
    Ok(Session {
        membership,
        reports,
        leaving,
        status,
        ended,
        tasks: vec![tokio::spawn(watching), tokio::spawn(runner.run())],
    })
}

impl Session {
    /// What the rest of the broker works with.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// From now on polls carry what the replicas report. Called once.
    pub fn set_reports(&self, reports: Arc<dyn ReplicaReports>) {
        let _ = self.reports.set(reports);
    }

    /// How the session stands.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.status.clone()
    }

    /// Returns, with the reason, once this process must end: it was replaced, or its files failed it.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.map(|r| r.clone());
        let stopped = || "the session's task ended".to_owned();
        reason.ok().flatten().unwrap_or_else(stopped)
    }

    /// For a clean stop: lets leaders move away, then says goodbye. At most `limit`, whatever happens.
    pub async fn leave(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.leaving.send_replace(true);
        let mut status = self.status.clone();
        // Only whether it came: the value that `wait_for` lends is a lock, which must not be held
        // while the goodbye waits for an answer.
        let moved = timeout(limit, async {
            status.wait_for(|status| status.may_stop).await.is_ok()
        });
        if moved.await.is_err() {
            tracing::warn!(
                ?limit,
                "this broker still leads partitions; it ends nevertheless"
            );
        }
        let (broker, incarnation) = (self.membership.broker, self.membership.incarnation);
        let goodbye = Request::Goodbye {
            broker,
            incarnation,
        };
        let soon = Instant::now() + Duration::from_millis(500);
        let client = &self.membership.controller;
        let answer = client.call(goodbye, deadline.max(soon)).await;
        tracing::info!(%broker, %incarnation, ?answer, "said goodbye to the controller");
    }
}
