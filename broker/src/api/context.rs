//! What the APIs work with: the image, the controller, the replicas, the groups, the transactions.

use super::departed::Departed;
use super::producer_ids::ProducerIds;
use super::verified::Verified;
use crate::config::BrokerConfig;
use crate::fetch_session::FetchSessions;
use crate::fetch_session::cache::Limits as SessionLimits;
use crate::group::GroupCoordinator;
use crate::loggers::Loggers;
use crate::quota::Quotas;
use crate::quota::rate::Window;
use crate::replica::ReplicaManager;
use crate::session::ControllerClient;
use crate::txn::Transactions;
use async_trait::async_trait;
use leasehold_metadata::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Outcome, Request, Response};
use leasehold_types::{BrokerId, Incarnation};
use leasehold_wire::ErrorCode;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The longest that an administrator's request may take, whatever it asks for: clients are to hear
/// within two seconds that metadata cannot be changed now. What is not written by then never will be.
const LONGEST_ADMIN: Duration = Duration::from_millis(1_800);
/// The shortest: below this nothing could ever be committed.
const SHORTEST_ADMIN: Duration = Duration::from_millis(100);
/// How long an admin reply waits for this broker's own image to show what was done.
pub(super) const READ_YOUR_WRITES: Duration = Duration::from_secs(2);

/// Calls to whoever is controller.
#[async_trait]
pub trait ControllerCalls: Send + Sync + 'static {
    /// Finds the controller, follows hints and retries until `deadline`. What could not be done comes
    /// back as [`Response::Error`] or [`Response::NotController`].
    async fn call(&self, request: Request, deadline: Instant) -> Response;
}

#[async_trait]
impl ControllerCalls for ControllerClient {
    async fn call(&self, request: Request, deadline: Instant) -> Response {
        ControllerClient::call(self, request, deadline).await
    }
}

/// Everything that the APIs need of the rest of the broker.
pub struct Context {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub config: Arc<BrokerConfig>,
    pub image: watch::Receiver<Arc<Image>>,
    pub controller: Arc<dyn ControllerCalls>,
    pub replicas: Arc<ReplicaManager>,
    pub groups: Arc<GroupCoordinator>,
    pub transactions: Transactions,
    pub loggers: Arc<Loggers>,
}

/// The context, with what the APIs keep for themselves.
pub(super) struct Shared {
    context: Context,
    pub(super) producer_ids: ProducerIds,
    pub(super) verified: Verified,
    pub(super) departed: Departed,
    pub(super) fetch_sessions: FetchSessions,
    pub(super) quotas: Quotas,
}

impl Deref for Shared {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl Shared {
    pub(super) fn new(context: Context) -> Self {
        let slots = context.config.max_incremental_fetch_session_cache_slots;
        let positive = |number: i32| u32::try_from(number).unwrap_or(1).max(1);
        let window = Window {
            samples: positive(context.config.quota_window_num) as usize,
            sample: Duration::from_secs(positive(context.config.quota_window_size_seconds).into()),
        };
        let limits = SessionLimits::with_slots(usize::try_from(slots).unwrap_or(0));
        Self {
            fetch_sessions: FetchSessions::new(limits),
            quotas: Quotas::new(window),
            context,
            producer_ids: ProducerIds::default(),
            verified: Verified::default(),
            departed: Departed::default(),
        }
    }

    /// The image as of now.
    pub(super) fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Sends `request` to the controller. What failed as a whole comes back as one outcome, to be
    /// repeated for every item.
    pub(super) async fn admin(
        &self,
        request: AdminRequest,
        timeout_ms: i32,
    ) -> Result<AdminResponse, Outcome> {
        let limit = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
            .clamp(SHORTEST_ADMIN, LONGEST_ADMIN);
        let request = Request::Admin {
            request,
            timeout_ms: limit.as_millis() as u64,
        };
        match self.controller.call(request, Instant::now() + limit).await {
            Response::Admin(response) => Ok(response),
            Response::Error(outcome) => Err(outcome),
            Response::NotController { .. } => Err(Outcome::refused(
                ErrorCode::NotController.code(),
                "no controller could be reached; nothing was changed, try again",
            )),
            _ => Err(mismatch()),
        }
    }

    /// Waits, but not for long, until the image is as `wanted`. Says whether it is.
    pub(super) async fn image_shows(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&Image) -> bool,
    ) -> bool {
        let mut image = self.image.clone();
        let shown = image.wait_for(|image| wanted(image));
        matches!(tokio::time::timeout(limit, shown).await, Ok(Ok(_)))
    }
}

/// The controller answered something else than was asked.
pub(super) fn mismatch() -> Outcome {
    Outcome::refused(
        ErrorCode::UnknownServerError.code(),
        "the controller's answer does not fit the question; are the brokers of different versions?",
    )
}
