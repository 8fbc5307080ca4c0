//! One request on its way through an API: how it was asked, and how its reply is encoded.

use super::context::Shared;
use super::seen::Seen;
use super::throttle::{Throttle, Throttled};
use crate::server::{ConnectionContext, Refusal, Reply};
use bytes::Bytes;
use leasehold_metadata::Image;
use leasehold_wire::decode::{MAX_FIELDS, decode_limited};
use leasehold_wire::kafka::protocol::{Encodable, HeaderVersion, Request};
use leasehold_wire::{ApiKey, OutFrame, RequestHead, StrBytes, encode_reply};
use std::future::Future;
use std::sync::Arc;

const PRODUCE: i16 = ApiKey::Produce as i16;

/// Who asks, and in which version.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) client_id: Option<StrBytes>,
    pub(super) connection: Arc<ConnectionContext>,
    pub(super) throttle: Arc<Throttle>,
}

impl Call {
    pub(super) fn new(
        head: RequestHead,
        connection: &Arc<ConnectionContext>,
        throttle: Arc<Throttle>,
    ) -> Self {
        Self {
            version: head.version,
            correlation_id: head.correlation_id,
            client_id: head.client_id,
            connection: connection.clone(),
            throttle,
        }
    }

    /// What of `image` this client may be told.
    pub(super) fn sees<'a>(&'a self, image: &'a Image) -> Seen<'a> {
        Seen::new(image, self.connection.entrance.as_ref())
    }

    pub(super) fn decode<R: Request>(&self, body: Bytes) -> Result<R, Refusal> {
        let max_fields = match R::KEY {
            // A partition of a Produce carries a batch, so there are never this many in good faith.
            PRODUCE => MAX_FIELDS / 4,
            _ => MAX_FIELDS,
        };
        decode_limited(body, self.version, max_fields).map_err(|error| {
            Refusal::new(format!(
                "{} version {}: {error}",
                short_name::<R>(),
                self.version
            ))
        })
    }

    /// The reply's frame. A client above its quota is told so, and not read from for as long.
    pub(super) fn encode<R: Request>(&self, reply: &R::Response) -> Result<OutFrame, Refusal>
    where
        R::Response: Throttled,
    {
        let wait = self.throttle.settle();
        if wait.is_zero() {
            return self.write(reply);
        }
        self.connection.mute(wait);
        let mut reply = reply.clone();
        if R::Response::SINCE.is_some_and(|since| self.version >= since) {
            reply.say(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX));
        }
        self.write(&reply)
    }

    fn write<B: Encodable + HeaderVersion>(&self, reply: &B) -> Result<OutFrame, Refusal> {
        encode_reply(self.correlation_id, reply, self.version)
            .map_err(|error| Refusal::new(format!("this is a defect of the broker: {error}")))
    }

    /// Answers at once, out of what is in memory.
    pub(super) fn ready<R: Request>(
        self,
        shared: &Shared,
        body: Bytes,
        answer: impl FnOnce(&Shared, &Self, R) -> R::Response,
    ) -> Result<Reply, Refusal>
    where
        R::Response: Throttled,
    {
        let request = self.decode::<R>(body)?;
        let reply = answer(shared, &self, request);
        Ok(Reply::Ready(self.encode::<R>(&reply)?))
    }

    /// Answers when `answer` is done; the connection's next request waits for that.
    pub(super) fn waiting<R, F>(
        self,
        shared: &Arc<Shared>,
        body: Bytes,
        answer: impl FnOnce(Arc<Shared>, Self, R) -> F,
    ) -> Result<Reply, Refusal>
    where
        R: Request,
        R::Response: Throttled,
        F: Future<Output = R::Response> + Send + 'static,
    {
        let request = self.decode::<R>(body)?;
        let reply = answer(shared.clone(), self.clone(), request);
        Ok(Reply::Exclusive(Box::pin(async move {
            let reply = reply.await;
            self.encode::<R>(&reply).map(Some)
        })))
    }
}

fn short_name<R>() -> &'static str {
    std::any::type_name::<R>()
        .rsplit("::")
        .next()
        .unwrap_or("request")
}
