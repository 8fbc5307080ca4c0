//! Calls to the controller over a connection.

use super::{CONTROLLER_KEY, VERSION};
use bytes::Bytes;
use leasehold_metadata::rpc::{Call, Request, Response};
use leasehold_types::ClusterId;
use leasehold_wire::{Client, ClientError, ClientOptions};
use std::time::Duration;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the call or its answer is no JSON of ours: {0}")]
    Json(#[from] serde_json::Error),
}

impl CallError {
    /// Whether the request surely never reached the peer.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Client(error) => error.is_connect(),
            Self::Json(_) => false,
        }
    }
}

/// Connects to another broker's internal listener.
pub async fn connect(
    address: &str,
    cluster_id: &ClusterId,
    limit: Duration,
) -> Result<Client, ClientError> {
    let options = ClientOptions {
        client_id: Some(cluster_id.to_string()),
        connect_timeout: limit,
        ..ClientOptions::default()
    };
    Client::connect(address, options).await
}

/// Asks the broker at the other end for the controller's answer.
pub async fn controller_call(
    client: &Client,
    cluster_id: &ClusterId,
    request: Request,
    limit: Duration,
) -> Result<Response, CallError> {
    let call = Call {
        cluster_id: cluster_id.clone(),
        request,
    };
    let body = Bytes::from(serde_json::to_vec(&call)?);
    let answer = client
        .call_raw(CONTROLLER_KEY, VERSION, body, limit)
        .await?;
    Ok(serde_json::from_slice(&answer)?)
}
