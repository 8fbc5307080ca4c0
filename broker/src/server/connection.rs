//! One connection: a loop that takes requests in order and one that sends replies in the same order.
//!
//! Both run in one task, joined by a channel of replies-to-be. What is still unfinished in it is
//! polled together, so that acks that arrive out of order cost nothing, and sent in order.

use super::handler::{Handler, Refusal, Reply, ReplyFuture};
use super::limits::Limits;
use super::memory::{Claim, Memory, PRODUCE, bound};
use super::outbox::{Outbox, Owed, PRESSED};
use super::reader::{FrameReader, ReadEnd};
use bytes::{Buf, Bytes};
use futures::channel::mpsc;
use futures::stream::{FuturesOrdered, StreamExt};
use futures::{FutureExt, future};
use leasehold_types::ListenerName;
use leasehold_wire::OutFrame;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio_util::sync::CancellationToken;

/// Replies up to this size may wait in numbers for a peer to read them.
const PILED_REPLY: usize = 64 * 1024;
/// Requests from this size on may hold so many items that handling them takes long.
const HEAVY_FRAME: usize = 32 * 1024;
/// How long replies that are already owed may still take when the connection ends for a fault.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// What a handler may know of a connection.
#[derive(Debug)]
pub struct ConnectionContext {
    /// Number of the connection within its process.
    pub id: u64,
    pub peer: SocketAddr,
    /// The address that the peer connected to.
    pub local: SocketAddr,
    /// Name of the listener, for log lines.
    pub listener: &'static str,
    /// Through which further listener of its server the peer came; `None`: the main one.
    pub entrance: Option<ListenerName>,
    /// Name and version of the client's software, if it said so.
    pub software: OnceLock<(String, String)>,
    /// Until when nothing is read from the peer: it is above a quota.
    pub(super) muted_until: parking_lot::Mutex<Option<Instant>>,
    pub(super) memory: Arc<Memory>,
}

impl ConnectionContext {
    /// Reads nothing from the peer for `wait`, once the request at hand has its reply.
    pub fn mute(&self, wait: Duration) {
        let until = Instant::now().checked_add(wait);
        let mut muted = self.muted_until.lock();
        *muted = (*muted).max(until);
    }

    /// Waits until the peer may be read from, or no more is read anyway.
    async fn unmuted(&self, stopped: impl Future<Output = ()>) {
        tokio::pin!(stopped);
        loop {
            let until = *self.muted_until.lock();
            let Some(until) = until.filter(|until| *until > Instant::now()) else {
                *self.muted_until.lock() = None;
                return;
            };
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// How many bytes of reply are wise to build now, given what all connections have not yet read.
    pub fn reply_room(&self) -> usize {
        self.memory.reply_room()
    }

    /// Waits a moment for such room, if there is none now.
    pub async fn await_reply_room(&self) {
        self.memory.await_reply_room(2 * PRESSED).await;
    }

    /// A context without a connection, to call a handler without a server.
    pub fn for_tests() -> Arc<Self> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Arc::new(Self {
            id: 0,
            peer: nowhere,
            local: nowhere,
            listener: "test",
            entrance: None,
            software: OnceLock::new(),
            muted_until: parking_lot::Mutex::default(),
            memory: Memory::new(1 << 20),
        })
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Read(#[from] ReadEnd),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the peer did not take its replies for {0:?}")]
    ReplyStalled(Duration),
    #[error("cannot send replies: {0}")]
    Write(io::Error),
}

impl End {
    /// Whether it is worth a line in the log: not for what every client does.
    pub(super) fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Read(ReadEnd::Closed | ReadEnd::Shutdown | ReadEnd::Idle(_) | ReadEnd::Io(_))
                | Self::Write(_)
        )
    }
}

/// Serves `stream` to its end.
pub(super) async fn serve(
    stream: TcpStream,
    context: Arc<ConnectionContext>,
    handler: Arc<dyn Handler>,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
) -> End {
    let (read_half, write_half) = stream.into_split();
    let in_flight = Arc::new(AtomicUsize::new(0));
    let mut reader = FrameReader::new(
        read_half,
        context.id,
        &limits,
        context.memory.clone(),
        shutdown,
        in_flight.clone(),
    );
    // One place (the one that each sender has): what is in flight is bounded by the sender of replies.
    // Not tokio's channel, which takes room for 32 as soon as it is made: idle connections are many.
    let (queue, replies) = mpsc::channel(0);
    // Boxed: a future that is moved into its place is kept twice in the task's memory.
    let mut taking = Box::pin(take_requests(
        &mut reader,
        &context,
        &handler,
        &limits,
        &in_flight,
        queue,
    ));
    let mut sending = Box::pin(send_replies(
        write_half,
        &context.memory,
        &limits,
        &in_flight,
        replies,
    ));
    tokio::select! {
        // Taking ends first: send what is owed, then close.
        end = &mut taking => {
            let patience = if end.is_fault() { LAST_REPLIES } else { limits.reply_grace };
            match tokio::time::timeout(patience, sending).await {
                Ok(Err(failed)) if !end.is_fault() => failed,
                _ => end,
            }
        }
        // Sending ends first only by failing; the requests in progress have no one to answer.
        sent = &mut sending => match sent {
            Err(end) => end,
            Ok(()) => taking.await,
        },
    }
}

type Queued = (ReplyFuture, Owed);

async fn take_requests(
    reader: &mut FrameReader,
    context: &Arc<ConnectionContext>,
    handler: &Arc<dyn Handler>,
    limits: &Limits,
    in_flight: &Arc<AtomicUsize>,
    mut queue: mpsc::Sender<Queued>,
) -> End {
    loop {
        if context.muted_until.lock().is_some() {
            // Boxed: few connections are ever muted.
            Box::pin(context.unmuted(reader.stopped())).await;
        }
        let next = match reader.next(limits).await {
            Ok(next) => next,
            Err(end) => return end.into(),
        };
        // Boxed: idle connections are many, and hold only what waiting for a frame takes.
        let taken = Box::pin(take_one(next, context, handler, in_flight, &mut queue));
        if let Err(end) = taken.await {
            return end;
        }
    }
}

async fn take_one(
    (frame, claim): (Bytes, Claim),
    context: &Arc<ConnectionContext>,
    handler: &Arc<dyn Handler>,
    in_flight: &Arc<AtomicUsize>,
    queue: &mut mpsc::Sender<Queued>,
) -> Result<(), End> {
    // A place in the queue first: no request is begun whose reply could not be kept.
    let place = future::poll_fn(|cx| queue.poll_ready(cx)).await;
    place.map_err(|_| broken())?;
    let mut owed = Owed::new(in_flight, &context.memory);
    let key = frame
        .first_chunk::<2>()
        .map_or(-1, |bytes| i16::from_be_bytes(*bytes));
    let decoding = context.memory.claim_decoding(key, frame.len()).await;
    let decoding = decoding.map_err(ReadEnd::from)?;
    // Records wait for the disk after their request is handled; others are done with their frame.
    let (frame, claim) = match key {
        PRODUCE => (bound(frame, claim), None),
        _ => (frame, Some(claim)),
    };
    let heavy = key != PRODUCE && frame.len() > HEAVY_FRAME;
    let handled = match heavy {
        true => handle_apart(handler, context, frame).await,
        false => handle_here(&**handler, context, frame).await,
    };
    drop(decoding);
    let mut send = |reply, owed| queue.start_send((reply, owed)).map_err(|_| broken());
    match handled? {
        Reply::Nothing => Ok(()),
        Reply::Ready(frame) => {
            owed.weigh(&frame);
            // A large reply leaves before the next request is taken, or a peer that does not
            // read could pile them up.
            let sent = (frame.remaining() > PILED_REPLY).then(|| owed.told_when_sent());
            send(future::ready(Ok(Some(frame))).boxed(), owed)?;
            if let Some(sent) = sent {
                let _dropped = sent.await;
            }
            Ok(())
        }
        Reply::Pipelined(reply) => send(guarded(reply), owed),
        Reply::Exclusive(reply) => {
            let claim = claim.filter(Claim::is_large);
            let reply = guarded(reply);
            let sent = owed.told_when_sent();
            let answering = async move {
                let answer = reply.await;
                drop(claim);
                answer
            };
            send(answering.boxed(), owed)?;
            let _dropped = sent.await;
            Ok(())
        }
    }
}

/// The one who sends replies is gone, and says why.
fn broken() -> End {
    End::Write(io::ErrorKind::BrokenPipe.into())
}

async fn handle_here(
    handler: &dyn Handler,
    context: &Arc<ConnectionContext>,
    frame: Bytes,
) -> Result<Reply, Refusal> {
    let handled = AssertUnwindSafe(handler.handle(context, frame)).catch_unwind();
    handled.await.unwrap_or_else(|_| Err(panicked()))
}

/// Handles a request that may take many milliseconds of computing on a thread of its own, one such
/// request at a time, so that the workers stay free for everyone else.
async fn handle_apart(
    handler: &Arc<dyn Handler>,
    context: &Arc<ConnectionContext>,
    frame: Bytes,
) -> Result<Reply, Refusal> {
    let _alone = context.memory.heavy.lock().await;
    let (handler, context) = (handler.clone(), context.clone());
    let runtime = tokio::runtime::Handle::current();
    let apart = move || runtime.block_on(handle_here(&*handler, &context, frame));
    tokio::task::spawn_blocking(apart)
        .await
        .unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Refusal {
    Refusal::new("a request made its handler panic; this is a defect of the broker")
}

fn guarded(reply: ReplyFuture) -> ReplyFuture {
    AssertUnwindSafe(reply)
        .catch_unwind()
        .map(|caught| caught.unwrap_or_else(|_| Err(panicked())))
        .boxed()
}

async fn answered(reply: ReplyFuture, mut owed: Owed) -> (Result<Option<OutFrame>, Refusal>, Owed) {
    let answer = reply.await;
    if let Ok(Some(frame)) = &answer {
        owed.weigh(frame);
    }
    (answer, owed)
}

async fn send_replies(
    mut half: OwnedWriteHalf,
    memory: &Memory,
    limits: &Limits,
    in_flight: &AtomicUsize,
    mut replies: mpsc::Receiver<Queued>,
) -> Result<(), End> {
    let mut pending = FuturesOrdered::new();
    let mut outbox = Outbox::new(memory);
    let mut open = true;
    while open || !pending.is_empty() {
        let room = in_flight.load(Ordering::Relaxed) <= limits.max_in_flight;
        let first = tokio::select! {
            queued = replies.next(), if open && room => {
                match queued {
                    Some((reply, owed)) => pending.push_back(answered(reply, owed)),
                    None => open = false,
                }
                continue;
            }
            Some(answer) = pending.next(), if !pending.is_empty() => answer,
        };
        let mut next = Some(first);
        let mut refused = None;
        while let Some((answer, owed)) = next {
            match answer {
                Ok(Some(frame)) => outbox.push(frame, owed),
                Ok(None) => {}
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
            if outbox.is_full() {
                break;
            }
            // What is queued and done by now goes into the same write.
            while open && let Some(Some((reply, owed))) = replies.next().now_or_never() {
                pending.push_back(answered(reply, owed));
            }
            next = pending.next().now_or_never().flatten();
        }
        // Boxed, as a request is: an idle connection sends nothing.
        Box::pin(outbox.send(&mut half, limits)).await?;
        if let Some(refusal) = refused {
            return Err(refusal.into());
        }
    }
    // Say goodbye properly, so that the last replies are not lost to a reset.
    let _closed = half.shutdown().await;
    Ok(())
}
