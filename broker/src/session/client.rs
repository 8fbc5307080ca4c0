//! Carries requests of this broker's parts to the controller, wherever it is.
//!
//! Promises: a call ends by its deadline; while no controller can be found it ends after
//! [`SEARCH`] with a retriable error, so that clients hear of an outage soon; a request that may have
//! reached a controller is sent again only if that is harmless (an administrator's wish is not).

use super::find::Target;
use crate::controller::ControllerHandle;
use crate::internal::{self, CallError, controller_call};
use leasehold_metadata::rpc::{ControllerHint, Outcome, Request, Response, codes};
use leasehold_types::ClusterId;
use leasehold_wire::Client;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a controller is looked for before the caller hears that there is none.
pub const SEARCH: Duration = Duration::from_millis(1_500);

const CONNECT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks the controller. Cheap to clone.
#[derive(Clone)]
pub struct ControllerClient {
    cluster_id: ClusterId,
    local: ControllerHandle,
    connection: Arc<Mutex<Option<(Target, Client)>>>,
}

impl ControllerClient {
    /// A client that asks `local` while this process is the controller, and else whom its Lease names.
    pub fn new(cluster_id: ClusterId, local: ControllerHandle) -> Self {
        Self {
            cluster_id,
            local,
            connection: Arc::default(),
        }
    }

    /// Who is controller, as far as this broker knows.
    pub fn hint(&self) -> Option<ControllerHint> {
        self.local.hint()
    }

    /// Asks `request` and gives the controller's answer, or a retriable error by `deadline`.
    pub async fn call(&self, request: Request, deadline: std::time::Instant) -> Response {
        let deadline = Instant::from_std(deadline);
        let search_until = (Instant::now() + SEARCH).min(deadline);
        let may_repeat = !matches!(request, Request::Admin { .. });
        let mut redirect: Option<Target> = None;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return unreachable("the controller did not answer in time");
            }
            let request = with_rest(request.clone(), rest);
            let outcome = self.ask_once(request, redirect.take(), rest).await;
            match outcome {
                Ok(Response::NotController { hint }) => redirect = hint.map(Target::from),
                Ok(response) => return response,
                Err(Missed::NotSent) => {}
                Err(Missed::NoAnswer) if may_repeat => {}
                Err(Missed::NoAnswer) => {
                    let why = "the controller was asked, but did not answer";
                    return Response::Error(Outcome::refused(codes::REQUEST_TIMED_OUT, why));
                }
            }
            if Instant::now() >= search_until {
                return unreachable("no controller could be reached");
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_once(
        &self,
        request: Request,
        redirect: Option<Target>,
        rest: Duration,
    ) -> Result<Response, Missed> {
        let here = *self.local.role().borrow();
        if redirect.is_none() && here != crate::controller::Role::Standby {
            let answer = timeout(rest, self.local.call(request)).await;
            return answer.map_err(|_| Missed::NoAnswer);
        }
        let Some(target) = redirect.or_else(|| self.hint().map(Target::from)) else {
            return Err(Missed::NotSent);
        };
        let client = self.connect(&target).await.ok_or(Missed::NotSent)?;
        match controller_call(&client, &self.cluster_id, request, rest).await {
            Ok(response) => Ok(response),
            Err(error) => {
                self.connection.lock().take();
                tracing::debug!(%error, "a call to the controller failed");
                Err(missed(&error))
            }
        }
    }

    async fn connect(&self, target: &Target) -> Option<Client> {
        let known = self.connection.lock().clone();
        if let Some((at, client)) = known
            && at == *target
            && !client.is_closed()
        {
            return Some(client);
        }
        let client = internal::connect(&target.address(), &self.cluster_id, CONNECT)
            .await
            .ok()?;
        *self.connection.lock() = Some((target.clone(), client.clone()));
        Some(client)
    }
}

enum Missed {
    /// It surely reached no controller.
    NotSent,
    /// It may have.
    NoAnswer,
}

fn missed(error: &CallError) -> Missed {
    match error.never_sent() {
        true => Missed::NotSent,
        false => Missed::NoAnswer,
    }
}

/// An administrator's wish carries how long it may still be applied.
fn with_rest(request: Request, rest: Duration) -> Request {
    match request {
        Request::Admin {
            request,
            timeout_ms,
        } => Request::Admin {
            request,
            timeout_ms: timeout_ms.min(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)),
        },
        other => other,
    }
}

fn unreachable(why: &str) -> Response {
    internal::no_controller(why)
}
