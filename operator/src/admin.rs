//! Calls to a cluster's controller: topics, cordons, unregistrations.
//!
//! The operator speaks the brokers' internal protocol: each call carries the cluster id, so that
//! another cluster that took over an address refuses it; a topic is created under an id and deleted
//! by its id, so that a repeated call does nothing twice and a late one hits no namesake; and each
//! call has a deadline after which the controller never applies it.

use bytes::Bytes;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{
    AdminRequest, AdminResponse, Call, ControllerHint, Request, Response, codes,
};
use leasehold_types::BrokerId;
use leasehold_wire::{Client, ClientError, ClientOptions};
use std::time::Duration;

/// The key of controller calls on the internal listener.
const CONTROLLER_CALL: i16 = 20_000;
/// How long the controller has to apply one request.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How many brokers are asked, hints included, before a call gives up until the next reconcile.
const ATTEMPTS: usize = 6;

/// Why a call brought no answer of its kind.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("no broker is registered yet")]
    NoBroker,
    #[error("no broker could be asked for the controller; the last one: {0}")]
    Unreachable(String),
    #[error("the controller refused ({code}): {message}")]
    Refused { code: i16, message: String },
    #[error("the controller gave an answer to another question: {0}")]
    Confused(String),
    #[error("this operator no longer holds its Lease")]
    NotLeader,
}

/// Asks the controller of the cluster that `image` describes.
pub async fn ask(image: &Image, request: AdminRequest) -> Result<AdminResponse, AdminError> {
    let timeout_ms = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let call = Call {
        cluster_id: image.cluster_id.clone(),
        request: Request::Admin {
            request,
            timeout_ms,
        },
    };
    let body =
        serde_json::to_vec(&call).map_err(|error| AdminError::Confused(error.to_string()))?;
    let body = Bytes::from(body);
    let mut candidates = candidates(image);
    candidates.reverse();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let Some(address) = candidates.pop() else {
            break;
        };
        match exchange(&address, &call.cluster_id.0, body.clone()).await {
            Ok(Response::Admin(answer)) => return Ok(answer),
            Ok(Response::NotController { hint }) => {
                last = Some(format!("{address} is not the controller"));
                if let Some(hint) = hint
                    .map(|hint| address_of(&hint))
                    .filter(|hint| *hint != address)
                {
                    candidates.retain(|candidate| *candidate != hint);
                    candidates.push(hint);
                }
            }
            Ok(Response::Error(outcome)) => {
                return Err(AdminError::Refused {
                    code: outcome.code,
                    message: outcome.message.unwrap_or_default(),
                });
            }
            Ok(other) => {
                return Err(AdminError::Confused(
                    format!("{other:?}").chars().take(200).collect(),
                ));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or(AdminError::NoBroker, AdminError::Unreachable))
}

/// Why the controller of the cluster that `image` describes decides nothing; `None` in good times, and
/// when it cannot be asked.
pub async fn frozen(image: &Image) -> Option<String> {
    let broker = image.broker(controller(image)?)?;
    let address = broker.internal.to_string();
    let call = Call {
        cluster_id: image.cluster_id.clone(),
        request: Request::WhoIsController,
    };
    let body = Bytes::from(serde_json::to_vec(&call).ok()?);
    let asked = exchange(&address, &call.cluster_id.0, body);
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(Ok(Response::Error(outcome))) if outcome.code == codes::POLICY_VIOLATION => {
            let why = outcome.message.unwrap_or_default();
            Some(why.trim_start_matches("frozen: ").to_owned())
        }
        _ => None,
    }
}

fn address_of(hint: &ControllerHint) -> String {
    hint.internal.to_string()
}

/// Internal addresses to ask: the controller first, then who serves, then the rest.
fn candidates(image: &Image) -> Vec<String> {
    let controller = controller(image);
    let mut brokers: Vec<_> = image.brokers.values().collect();
    brokers.sort_by_key(|broker| (Some(broker.id) != controller, broker.fenced, broker.id));
    brokers
        .into_iter()
        .map(|broker| broker.internal.to_string())
        .collect()
}

/// Who claimed control last.
pub fn controller(image: &Image) -> Option<BrokerId> {
    // The claim of genesis is nobody's.
    image
        .claims
        .last()
        .map(|claim| claim.broker)
        .filter(|broker| broker.0 >= 0)
}

async fn exchange(address: &str, cluster_id: &str, body: Bytes) -> Result<Response, String> {
    let options = ClientOptions {
        client_id: Some(cluster_id.to_owned()),
        connect_timeout: Duration::from_secs(1),
        request_timeout: TIMEOUT,
        max_reply_bytes: 64 << 20,
    };
    let text = |error: ClientError| error.to_string();
    let client = Client::connect(address, options).await.map_err(text)?;
    let limit = TIMEOUT + Duration::from_secs(2);
    let reply = client
        .call_raw(CONTROLLER_CALL, 0, body, limit)
        .await
        .map_err(text)?;
    serde_json::from_slice(&reply)
        .map_err(|error| format!("{address} answered what is no answer: {error}"))
}
