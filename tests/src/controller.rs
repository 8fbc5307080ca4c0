//! What the operator asks of a cluster's controller, asked of a laptop cluster's.

use crate::dev::Dev;
use anyhow::Context as _;
use bytes::Bytes;
use leasehold_metadata::head::load::load;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Call, Request, Response};
use leasehold_metadata::store::directory::DirectoryStore;
use leasehold_types::BrokerId;
use leasehold_wire::{Client, ClientOptions};
use std::sync::Arc;
use std::time::Duration;

/// The key of controller calls on the internal listener.
const CONTROLLER_CALL: i16 = 20_000;
const TIMEOUT: Duration = Duration::from_secs(10);

/// The metadata as it is in the store.
pub async fn image(dev: &Dev) -> anyhow::Result<Arc<Image>> {
    let store = DirectoryStore::open(dev.data().join("metadata"))?;
    Ok(load(&store).await?.image)
}

/// Drains exactly these brokers.
pub async fn cordon(dev: &Dev, brokers: &[i32]) -> anyhow::Result<()> {
    let brokers = brokers.iter().copied().map(BrokerId).collect();
    match ask(dev, AdminRequest::Cordon { brokers }).await? {
        AdminResponse::Cordon(outcomes) if outcomes.iter().all(|(_, o)| o.is_ok()) => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Asks the controller.
pub async fn ask(dev: &Dev, request: AdminRequest) -> anyhow::Result<AdminResponse> {
    let image = image(dev).await?;
    let controller = image.claims.last().context("no controller yet")?.broker;
    let controller = image.broker(controller).context("it is not registered")?;
    let call = Call {
        cluster_id: image.cluster_id.clone(),
        request: Request::Admin {
            request,
            timeout_ms: TIMEOUT.as_millis() as u64,
        },
    };
    let options = ClientOptions {
        client_id: Some(image.cluster_id.0.clone()),
        connect_timeout: TIMEOUT,
        request_timeout: TIMEOUT,
        max_reply_bytes: 64 << 20,
    };
    let client = Client::connect(&controller.internal.to_string(), options).await?;
    let body = Bytes::from(serde_json::to_vec(&call)?);
    let reply = client.call_raw(CONTROLLER_CALL, 0, body, TIMEOUT).await?;
    match serde_json::from_slice(&reply)? {
        Response::Admin(answer) => Ok(answer),
        other => anyhow::bail!("{other:?}"),
    }
}
