//! Answers the frames of the internal listener.

use super::{CONTROLLER_KEY, FETCH_KEY, MARKERS_KEY, PING_KEY, Pong, VERIFY_KEY};
use crate::controller::ControllerHandle;
use crate::server::{ConnectionContext, Handler, Refusal, Reply};
use async_trait::async_trait;
use bytes::Bytes;
use leasehold_metadata::rpc::{Call, Outcome, Response, codes};
use leasehold_types::ClusterId;
use leasehold_types::seams::taken_out;
use leasehold_wire::OutFrame;
use leasehold_wire::encode::encode_raw_reply;
use leasehold_wire::header::RequestHead;
use std::sync::{Arc, OnceLock};

/// Serves the fetches of followers; the replicas provide it once they exist.
#[async_trait]
pub trait FollowerFetch: Send + Sync + 'static {
    /// Answers Fetch `head.version` with `body`, which is what follows the header.
    async fn fetch(&self, head: RequestHead, body: Bytes) -> Result<OutFrame, Refusal>;
}

/// What brokers ask each other about transactions; the APIs provide it once they exist.
#[async_trait]
pub trait BrokerApis: Send + Sync + 'static {
    /// Answers AddPartitionsToTxn `head.version` with `body`, which is what follows the header.
    async fn verify(&self, head: RequestHead, body: Bytes) -> Result<OutFrame, Refusal>;

    /// The same for WriteTxnMarkers.
    async fn write_markers(&self, head: RequestHead, body: Bytes) -> Result<OutFrame, Refusal>;
}

/// The handler of the internal listener.
pub struct InternalHandler {
    me: Pong,
    controller: OnceLock<ControllerHandle>,
    followers: OnceLock<Arc<dyn FollowerFetch>>,
    apis: OnceLock<Arc<dyn BrokerApis>>,
}

impl InternalHandler {
    /// A handler for the broker that `me` describes. It listens before the rest of the broker exists.
    pub fn new(me: Pong) -> Self {
        Self {
            me,
            controller: OnceLock::new(),
            followers: OnceLock::new(),
            apis: OnceLock::new(),
        }
    }

    /// From now on controller calls are answered. Called once.
    pub fn serve_controller(&self, controller: ControllerHandle) {
        let _ = self.controller.set(controller);
    }

    /// From now on followers' fetches are answered. Called once.
    pub fn serve_followers(&self, followers: Arc<dyn FollowerFetch>) {
        let _ = self.followers.set(followers);
    }

    /// From now on questions about transactions are answered. Called once.
    pub fn serve_brokers(&self, apis: Arc<dyn BrokerApis>) {
        let _ = self.apis.set(apis);
    }

    fn check_cluster(&self, claimed: Option<&str>) -> Result<(), Refusal> {
        same_cluster(&self.me.cluster_id, claimed).map_err(Refusal::new)
    }
}

/// Whether a peer that says it is of cluster `claimed` may be answered; why not.
pub fn same_cluster(ours: &ClusterId, claimed: Option<&str>) -> Result<(), String> {
    match claimed {
        Some(id) if id == ours.0 || taken_out("a-foreign-peer-is-refused") => Ok(()),
        other => Err(format!(
            "the peer belongs to cluster {other:?}, this is {ours}"
        )),
    }
}

fn json<T: serde::Serialize>(correlation_id: i32, value: &T) -> Result<OutFrame, Refusal> {
    let refuse = |error: &dyn std::fmt::Display| Refusal::new(error.to_string());
    let body = serde_json::to_vec(value).map_err(|e| refuse(&e))?;
    encode_raw_reply(correlation_id, Bytes::from(body)).map_err(|e| refuse(&e))
}

#[async_trait]
impl Handler for InternalHandler {
    async fn handle(
        &self,
        _connection: &Arc<ConnectionContext>,
        mut frame: Bytes,
    ) -> Result<Reply, Refusal> {
        let head = RequestHead::take(&mut frame).map_err(|e| Refusal::new(e.to_string()))?;
        self.check_cluster(head.client_id.as_deref())?;
        let id = head.correlation_id;
        match head.key {
            PING_KEY => Ok(Reply::Ready(json(id, &self.me)?)),
            CONTROLLER_KEY => {
                let call: Call = serde_json::from_slice(&frame)
                    .map_err(|e| Refusal::new(format!("a controller call is no JSON: {e}")))?;
                drop(frame);
                self.check_cluster(Some(&call.cluster_id.0))?;
                let controller = self.controller.get().cloned();
                Ok(Reply::Pipelined(Box::pin(async move {
                    let response = match controller {
                        Some(controller) => controller.call(call.request).await,
                        None => Response::NotController { hint: None },
                    };
                    Ok(Some(json(id, &response)?))
                })))
            }
            FETCH_KEY => match self.followers.get().cloned() {
                Some(followers) => Ok(Reply::Exclusive(Box::pin(async move {
                    followers.fetch(head, frame).await.map(Some)
                }))),
                None => Err(Refusal::new("this broker has no replicas yet")),
            },
            VERIFY_KEY | MARKERS_KEY => match self.apis.get().cloned() {
                Some(apis) => Ok(Reply::Pipelined(Box::pin(async move {
                    let reply = match head.key {
                        VERIFY_KEY => apis.verify(head, frame).await,
                        _ => apis.write_markers(head, frame).await,
                    };
                    reply.map(Some)
                }))),
                None => Err(Refusal::new("this broker does not serve transactions yet")),
            },
            key => Err(Refusal::new(format!("key {key} is not spoken here"))),
        }
    }
}

/// An error answer, for callers that found no controller.
pub(crate) fn no_controller(why: impl Into<String>) -> Response {
    Response::Error(Outcome::refused(codes::NOT_CONTROLLER, why))
}
