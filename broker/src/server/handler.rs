//! The seam between connections and those who answer.

use super::ConnectionContext;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_wire::OutFrame;
use std::sync::Arc;

/// Answers the frames of a listener.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Takes one request, header included. Requests of one connection arrive one at a time, in order;
    /// the next one comes when this returns (and, after [`Reply::Exclusive`], when that is done).
    ///
    /// What must happen in request order (an append) happens before this returns; waiting belongs
    /// into the reply's future. After it returns, only an `Exclusive` future may still hold the frame,
    /// and the records of a Produce until they are appended: nothing else of a frame is accounted for.
    async fn handle(
        &self,
        connection: &Arc<ConnectionContext>,
        frame: Bytes,
    ) -> Result<Reply, Refusal>;
}

/// A reply on its way. `None` means that this request gets none.
pub type ReplyFuture = BoxFuture<'static, Result<Option<OutFrame>, Refusal>>;

/// How a request is answered.
pub enum Reply {
    /// At once.
    Ready(OutFrame),
    /// When the future is done; the connection's next request waits for it, as in Kafka.
    Exclusive(ReplyFuture),
    /// When the future is done; following requests are taken meanwhile.
    Pipelined(ReplyFuture),
    /// Not at all (a Produce with acks=0).
    Nothing,
}

/// Why a connection has to be closed instead of answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Refusal {
    /// A refusal with its reason, which goes into the log.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
