//! A small Kafka client: one connection, typed requests, many in flight.
//!
//! For follower fetchers, calls between brokers, the operator and tests. It does not retry, discover
//! or balance: one [`Client`] is one TCP connection, cheap to clone and to throw away.
//!
//! Promises: requests are written in the order of the calls; replies are matched by correlation id;
//! when the connection ends, every waiting call fails with the reason; a call that is dropped does
//! not disturb the others.

use crate::decode::{DecodeError, decode};
use crate::encode::{EncodeError, OutFrame, encode_raw_request, encode_request};
use crate::frame::{FrameBuffer, FrameError};
use crate::kafka::protocol::{HeaderVersion, Request, StrBytes};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// How to connect and how long to wait.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Sent in every request header; the internal listener reads the cluster id from it.
    pub client_id: Option<String>,
    pub connect_timeout: Duration,
    /// How long one call may take. A Fetch adds its own max wait to it by [`Client::call_within`].
    pub request_timeout: Duration,
    /// Largest reply that is accepted.
    pub max_reply_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: Some("leasehold".to_owned()),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_reply_bytes: 256 << 20,
        }
    }
}

/// Why a call did not bring a reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{address} did not accept a connection within {after:?}")]
    ConnectTimeout { address: String, after: Duration },
    #[error("the connection to {peer} is closed: {reason}")]
    Closed { peer: SocketAddr, reason: String },
    #[error("{peer} did not answer within {after:?}")]
    Timeout { peer: SocketAddr, after: Duration },
    #[error("the reply of {peer} is malformed: {source}")]
    Decode {
        peer: SocketAddr,
        source: DecodeError,
    },
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl ClientError {
    /// Whether the request surely never reached the peer.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. })
    }
}

/// One connection to one broker.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: SocketAddr,
    client_id: Option<StrBytes>,
    request_timeout: Duration,
    waiting: Mutex<Waiting>,
    outbox: mpsc::UnboundedSender<Outgoing>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: i32,
    calls: HashMap<i32, oneshot::Sender<Bytes>>,
    /// Set once, when the connection ended.
    closed: Option<String>,
}

struct Outgoing(OutFrame);

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // The map stays consistent whatever panicked, so poisoning carries no news.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, reason: String) {
        let mut waiting = self.waiting();
        waiting.closed.get_or_insert(reason);
        waiting.calls.clear();
    }

    fn closed_error(&self) -> ClientError {
        let reason = self.waiting().closed.clone();
        ClientError::Closed {
            peer: self.peer,
            reason: reason.unwrap_or_else(|| "it ended".to_owned()),
        }
    }
}

impl Client {
    /// Connects to `address` (`host:port`).
    pub async fn connect(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let connecting = TcpStream::connect(address);
        let stream = tokio::time::timeout(options.connect_timeout, connecting)
            .await
            .map_err(|_| ClientError::ConnectTimeout {
                address: address.to_owned(),
                after: options.connect_timeout,
            })?
            .map_err(|source| ClientError::Connect {
                address: address.to_owned(),
                source,
            })?;
        Self::over(stream, options).map_err(|source| ClientError::Connect {
            address: address.to_owned(),
            source,
        })
    }

    /// A client over a stream that is already connected.
    pub fn over(stream: TcpStream, options: ClientOptions) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        let (reader, writer) = stream.into_split();
        let (outbox, frames) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            peer,
            client_id: options.client_id.map(StrBytes::from_string),
            request_timeout: options.request_timeout,
            waiting: Mutex::default(),
            outbox,
        });
        // The tasks hold no strong reference: dropping the last client closes the outbox, then the
        // writer ends and shuts the stream, then the peer closes and the reader ends.
        let weak = Arc::downgrade(&shared);
        let limit = options.max_reply_bytes;
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = write_all(writer, frames) => ended,
                ended = read_all(reader, &weak, limit) => ended,
            };
            if let (Err(reason), Some(shared)) = (ended, weak.upgrade()) {
                shared.close(reason);
            }
        });
        Ok(Self { shared })
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    /// Whether the connection ended. (A connection that just broke may not know it yet.)
    pub fn is_closed(&self) -> bool {
        self.shared.waiting().closed.is_some()
    }

    /// Sends `request` in `version` and waits for its reply.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        self.call_within(request, version, self.shared.request_timeout)
            .await
    }

    /// [`Self::call`] with a time limit of its own.
    pub async fn call_within<R: Request>(
        &self,
        request: &R,
        version: i16,
        limit: Duration,
    ) -> Result<R::Response, ClientError> {
        let mut reply = self
            .exchange(limit, |id, client_id| {
                encode_request(id, client_id, request, version)
            })
            .await?;
        let malformed = |source| ClientError::Decode {
            peer: self.shared.peer,
            source,
        };
        if R::Response::header_version(version) >= 1 {
            // Tagged fields of the reply's header: nobody defines any yet.
            skip_header_tags(&mut reply).map_err(malformed)?;
        }
        decode(reply, version).map_err(malformed)
    }

    /// Sends a request whose body is already bytes, and returns the reply behind its correlation id.
    /// For keys that are no Kafka API (request header 1, reply header 0).
    pub async fn call_raw(
        &self,
        key: i16,
        version: i16,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        self.exchange(limit, |id, client_id| {
            encode_raw_request(key, version, id, client_id, body)
        })
        .await
    }

    /// Sends a request that gets no reply (a Produce with acks=0).
    pub fn send<R: Request>(&self, request: &R, version: i16) -> Result<(), ClientError> {
        let shared = &*self.shared;
        let mut waiting = shared.waiting();
        let id = waiting.next_id;
        waiting.next_id = id.wrapping_add(1);
        let frame = encode_request(id, shared.client_id.clone(), request, version)?;
        let sent = shared.outbox.send(Outgoing(frame));
        drop(waiting);
        sent.map_err(|_| shared.closed_error())
    }

    /// Sends bytes as they are, length prefix included in `frame`. For tests of what a server does with nonsense.
    pub fn send_bytes(&self, bytes: Bytes) -> Result<(), ClientError> {
        let mut frame = OutFrame::new();
        frame.put_slice(&bytes);
        self.shared
            .outbox
            .send(Outgoing(frame))
            .map_err(|_| self.shared.closed_error())
    }

    async fn exchange(
        &self,
        limit: Duration,
        encode: impl FnOnce(i32, Option<StrBytes>) -> Result<OutFrame, EncodeError>,
    ) -> Result<Bytes, ClientError> {
        let shared = &*self.shared;
        let (answer, reply) = oneshot::channel();
        let id = {
            // Numbered and queued under one lock, so that frames leave in the order of the calls.
            let mut waiting = shared.waiting();
            if waiting.closed.is_some() {
                drop(waiting);
                return Err(shared.closed_error());
            }
            let id = waiting.next_id;
            let frame = encode(id, shared.client_id.clone())?;
            waiting.next_id = id.wrapping_add(1);
            waiting.calls.insert(id, answer);
            if shared.outbox.send(Outgoing(frame)).is_err() {
                waiting.calls.remove(&id);
            }
            id
        };
        // On a timeout or a dropped call the entry goes with this guard.
        let _forget = Forget { shared, id };
        match tokio::time::timeout(limit, reply).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => Err(shared.closed_error()),
            Err(_) => Err(ClientError::Timeout {
                peer: shared.peer,
                after: limit,
            }),
        }
    }
}

struct Forget<'a> {
    shared: &'a Shared,
    id: i32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting().calls.remove(&self.id);
    }
}

fn skip_header_tags(reply: &mut Bytes) -> Result<(), DecodeError> {
    use crate::kafka::messages::ResponseHeader;
    use crate::kafka::protocol::Decodable;
    // The common case: no tags, one zero byte.
    if reply.first() == Some(&0) {
        reply.advance(1);
        return Ok(());
    }
    // The decoder wants the correlation id too, which was taken off already.
    let mut padded = BytesMut::zeroed(4);
    padded.extend_from_slice(reply);
    let mut padded = padded.freeze();
    ResponseHeader::decode(&mut padded, 1)?;
    reply.advance(reply.len() - padded.len());
    Ok(())
}

async fn write_all(
    mut writer: OwnedWriteHalf,
    mut frames: mpsc::UnboundedReceiver<Outgoing>,
) -> Result<(), String> {
    while let Some(Outgoing(mut frame)) = frames.recv().await {
        writer
            .write_all_buf(&mut frame)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn read_all(
    mut reader: OwnedReadHalf,
    shared: &std::sync::Weak<Shared>,
    limit: usize,
) -> Result<(), String> {
    let mut buffer = FrameBuffer::new(limit);
    let reason = |error: FrameError| error.to_string();
    loop {
        while let Some(mut frame) = buffer.next_frame().map_err(reason)? {
            let id = frame
                .try_get_i32()
                .map_err(|_| "a reply without a correlation id".to_owned())?;
            let Some(shared) = shared.upgrade() else {
                return Ok(());
            };
            // A call that gave up left no entry; its reply is not wanted any more.
            let call = shared.waiting().calls.remove(&id);
            if let Some(call) = call {
                let _gone = call.send(frame);
            }
        }
        let room = buffer.room().map_err(reason)?;
        buffer.bytes.reserve(room);
        let read = reader.read_buf(&mut (&mut buffer.bytes).limit(room)).await;
        match read {
            Ok(0) => return Err("the peer closed it".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
