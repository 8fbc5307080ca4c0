//! Where the replicas meet the rest of the broker: configuration, session, internal listener.

use super::endpoint::TcpEndpoints;
use super::isr::IsrController;
use super::manager::{ReplicaManager, ReplicaParts};
use super::settings::ReplicaSettings;
use super::wire_fetch::FETCH_VERSION;
use crate::config::BrokerConfig;
use crate::internal::FollowerFetch;
use crate::server::Refusal;
use crate::session::{ControllerClient, Membership, ReplicaReports};
use bytes::Bytes;
use leasehold_log::LogDirs;
use leasehold_metadata::rpc::{AlterPartition, IsrProposal, IsrVerdict, LogEnd, Request, Response};
use leasehold_types::{BrokerId, Incarnation, TopicId};
use leasehold_wire::{OutFrame, RequestHead, decode, encode_reply};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long an ISR proposal waits for its answer before it is sent again.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a leader may take to answer a fetch, beyond the wait that the fetch asks for. A leader that
/// hangs is replaced long before.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

impl ReplicaSettings {
    /// The settings that the broker's configuration asks for.
    pub fn from_config(config: &BrokerConfig) -> Self {
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let bytes = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
        Self {
            replica_lag_time_max: ms(config.replica_lag_time_max_ms),
            session_timeout: ms(config.broker_session_timeout_ms),
            fetch_wait_max: ms(config.replica_fetch_wait_max_ms.into()),
            fetch_max_bytes: bytes(config.replica_fetch_max_bytes),
            fetch_response_max_bytes: bytes(config.replica_fetch_response_max_bytes),
            closest_replica: config
                .replica_selector_class
                .ends_with("RackAwareReplicaSelector"),
            checkpoint_interval: ms(config.replica_high_watermark_checkpoint_interval_ms),
            retention_check_interval: ms(config.log_retention_check_interval_ms),
            cleaner_backoff: ms(config.log_cleaner_backoff_ms),
            cleaner_threads: usize::try_from(config.log_cleaner_threads).unwrap_or(1),
            leader_throttled_rate: config.leader_replication_throttled_rate,
            follower_throttled_rate: config.follower_replication_throttled_rate,
            log_dirs_rate: config.replica_alter_log_dirs_io_max_bytes_per_second,
            min_free_bytes: u64::try_from(config.log_dir_min_free_bytes).unwrap_or(0),
            ..Self::default()
        }
    }
}

impl ReplicaManager {
    /// Starts the replicas of the broker that `membership` describes, over `log_dirs`.
    pub fn start_in(
        membership: &Membership,
        log_dirs: Arc<LogDirs>,
        config: &BrokerConfig,
    ) -> std::io::Result<Arc<Self>> {
        let health = membership.health.clone();
        let parts = ReplicaParts {
            broker: membership.broker,
            incarnation: membership.incarnation,
            image: membership.image.clone(),
            log_dirs,
            controller: Arc::new(SessionLine {
                broker: membership.broker,
                incarnation: membership.incarnation,
                controller: membership.controller.clone(),
            }),
            endpoints: Arc::new(TcpEndpoints {
                cluster_id: membership.cluster_id.clone(),
                timeout: FETCH_TIMEOUT,
            }),
            last_confirmed: Arc::new(move || health.last_confirmed()),
        };
        Self::start(parts, ReplicaSettings::from_config(config))
    }
}

struct SessionLine {
    broker: BrokerId,
    incarnation: Incarnation,
    controller: ControllerClient,
}

#[async_trait::async_trait]
impl IsrController for SessionLine {
    async fn alter(&self, proposals: Vec<IsrProposal>) -> Option<Vec<IsrVerdict>> {
        let request = Request::AlterPartition(AlterPartition {
            broker: self.broker,
            incarnation: self.incarnation,
            proposals,
        });
        let deadline = Instant::now() + PROPOSAL_TIMEOUT;
        match self.controller.call(request, deadline).await {
            Response::AlterPartition(verdicts) => Some(verdicts),
            Response::Error(outcome) => {
                tracing::debug!(
                    code = outcome.code,
                    message = outcome.message.as_deref().unwrap_or_default(),
                    "no answer to the ISR proposals; they will be repeated"
                );
                None
            }
            _ => None,
        }
    }
}

impl ReplicaReports for ReplicaManager {
    fn log_ends(&self, wanted: &[(TopicId, i32)]) -> Vec<LogEnd> {
        self.ends_of(wanted)
    }

    fn epochs_ahead(&self) -> Vec<LogEnd> {
        self.ahead_of_metadata()
    }

    fn offline(&self) -> Vec<(TopicId, i32)> {
        self.untold_failures()
    }

    fn failures(&self) -> watch::Receiver<u64> {
        self.watch_failures()
    }
}

#[async_trait::async_trait]
impl FollowerFetch for ReplicaManager {
    async fn fetch(&self, head: RequestHead, body: Bytes) -> Result<OutFrame, Refusal> {
        if head.version != FETCH_VERSION {
            return Err(Refusal::new(format!(
                "followers fetch with version {FETCH_VERSION}, not {}",
                head.version
            )));
        }
        let request = decode(body, FETCH_VERSION)
            .map_err(|error| Refusal::new(format!("a follower's fetch is malformed: {error}")))?;
        let response = self.serve_follower(request).await;
        encode_reply(head.correlation_id, &response, FETCH_VERSION)
            .map_err(|error| Refusal::new(error.to_string()))
    }
}
