//! Reads frames off one connection: nothing is held while it is idle, and slow senders are dropped.

use super::limits::Limits;
use super::memory::{Claim, Memory, NoRoom, PRODUCE, Unfinished};
use bytes::{BufMut, Bytes, BytesMut};
use leasehold_wire::{FrameBuffer, FrameError};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadEnd {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer closed the connection inside a frame")]
    Truncated,
    #[error("the listener is shutting down")]
    Shutdown,
    #[error("nothing arrived for {0:?} (connections.max.idle.ms)")]
    Idle(Duration),
    #[error("a frame was not complete after {0:?}: the sender is too slow")]
    Slow(Duration),
    #[error("an unfinished frame was dropped to make room for others")]
    Evicted,
    #[error("a request of API key {key} may have {limit} bytes, not {length}")]
    TooLong {
        key: i16,
        length: usize,
        limit: usize,
    },
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(super) struct FrameReader {
    half: OwnedReadHalf,
    buffer: FrameBuffer,
    claim: Claim,
    memory: Arc<Memory>,
    connection: u64,
    /// The frame that has begun: since when, and its entry among the unfinished ones.
    begun: Option<(Instant, Arc<Unfinished>)>,
    shutdown: CancellationToken,
    /// Requests whose reply has not been sent: such a connection is not idle.
    in_flight: Arc<AtomicUsize>,
}

impl FrameReader {
    pub(super) fn new(
        half: OwnedReadHalf,
        connection: u64,
        limits: &Limits,
        memory: Arc<Memory>,
        shutdown: CancellationToken,
        in_flight: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            half,
            buffer: FrameBuffer::new(limits.max_frame),
            claim: memory.claim(),
            memory,
            connection,
            begun: None,
            shutdown,
            in_flight,
        }
    }

    /// Returns when no more frames are taken.
    pub(super) async fn stopped(&self) {
        self.shutdown.cancelled().await;
    }

    /// The next whole frame and the claim on its memory. Cancelled only together with the connection.
    pub(super) async fn next(&mut self, limits: &Limits) -> Result<(Bytes, Claim), ReadEnd> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                let claim = self.claim.split(4 + frame.len());
                self.claim.shrink_to(self.buffer.len());
                self.note_progress(true);
                return Ok((frame, claim));
            }
            let room = self.buffer.room()?;
            let whole = self.whole(limits)?;
            self.wait_readable(limits).await?;
            self.claim_room(room, whole).await?;
            self.buffer.bytes.reserve(room);
            match self
                .half
                .try_read_buf(&mut (&mut self.buffer.bytes).limit(room))
            {
                Ok(0) if !self.buffer.is_empty() => return Err(ReadEnd::Truncated),
                Ok(0) => return Err(ReadEnd::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.buffer.bytes.is_empty() {
                        self.buffer.bytes = BytesMut::new();
                    }
                }
                Err(error) => return Err(error.into()),
            }
            if self.buffer.is_empty() {
                self.claim.shrink_to(0);
            }
            // What of a frame's room is not filled yet is kept: giving it back at each read would wake
            // all who wait, each time for nothing.
            self.note_progress(false);
        }
    }

    /// The length of the frame that has begun, 0 before it is known; judged as soon as its key is.
    fn whole(&self, limits: &Limits) -> Result<usize, ReadEnd> {
        let (length, key) = self.buffer.announced();
        let length = length.unwrap_or(0);
        match key {
            Some(key) if key != PRODUCE && length > limits.max_plain_frame => {
                let limit = limits.max_plain_frame;
                Err(ReadEnd::TooLong { key, length, limit })
            }
            _ => Ok(length),
        }
    }

    async fn claim_room(&mut self, room: usize, whole: usize) -> Result<(), ReadEnd> {
        let growing = self.claim.grow_to(self.buffer.len() + room, whole);
        let Some((_, entry)) = &self.begun else {
            return Ok(growing.await?);
        };
        entry.waiting.store(true, Ordering::Relaxed);
        let grown = tokio::select! {
            biased;
            grown = growing => Ok(grown?),
            () = entry.evicted.notified() => Err(ReadEnd::Evicted),
        };
        entry.waiting.store(false, Ordering::Relaxed);
        grown
    }

    /// Keeps the entry among the unfinished frames true.
    fn note_progress(&mut self, frame_ended: bool) {
        if frame_ended && self.begun.take().is_some() {
            self.memory.end_unfinished(self.connection);
        }
        if !self.buffer.is_empty() {
            let (_, entry) = self.begun.get_or_insert_with(|| {
                (
                    Instant::now(),
                    self.memory.begin_unfinished(self.connection),
                )
            });
            match self.claim.is_giant() {
                true => self.memory.progress_of_giant(entry, self.buffer.len()),
                false => self.memory.progress(entry, self.buffer.len()),
            }
        }
    }

    async fn wait_readable(&self, limits: &Limits) -> Result<(), ReadEnd> {
        match &self.begun {
            None => self.wait_idle(limits.max_idle).await,
            // Boxed: an idle connection holds no room for it.
            Some((since, entry)) => Box::pin(self.wait_more(*since, entry, limits)).await,
        }
    }

    async fn wait_more(
        &self,
        since: Instant,
        entry: &Unfinished,
        limits: &Limits,
    ) -> Result<(), ReadEnd> {
        let allowed = limits.allowance(limits.frame_grace, self.buffer.len());
        tokio::select! {
            ready = self.half.readable() => Ok(ready?),
            () = entry.evicted.notified() => Err(ReadEnd::Evicted),
            () = tokio::time::sleep_until(since + allowed) => Err(ReadEnd::Slow(allowed)),
            () = self.shutdown.cancelled() => Err(ReadEnd::Shutdown),
        }
    }

    async fn wait_idle(&self, max_idle: Duration) -> Result<(), ReadEnd> {
        loop {
            tokio::select! {
                ready = self.half.readable() => return Ok(ready?),
                () = self.shutdown.cancelled() => return Err(ReadEnd::Shutdown),
                () = tokio::time::sleep(max_idle) => {
                    if self.in_flight.load(Ordering::Relaxed) == 0 {
                        return Err(ReadEnd::Idle(max_idle));
                    }
                }
            }
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        if self.begun.is_some() {
            self.memory.end_unfinished(self.connection);
        }
    }
}
