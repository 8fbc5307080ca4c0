//! Replies on their way into the socket, and what they weigh until they are there.

use super::connection::End;
use super::limits::Limits;
use super::memory::Memory;
use bytes::Buf;
use leasehold_wire::OutFrame;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;

/// How much is gathered into one writev.
const COALESCE_BYTES: usize = 1 << 20;
const COALESCE_REPLIES: usize = 64;
/// While replies take all the memory they may, a peer that takes none of its own for this long goes.
pub(super) const PRESSED: Duration = Duration::from_secs(1);

/// A request that is owed a reply, from its frame to its reply's last byte.
pub(super) struct Owed {
    counter: Arc<AtomicUsize>,
    memory: Arc<Memory>,
    /// What its reply takes, once there is one.
    bytes: usize,
    sent: Option<oneshot::Sender<()>>,
}

impl Owed {
    pub(super) fn new(counter: &Arc<AtomicUsize>, memory: &Arc<Memory>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self {
            counter: counter.clone(),
            memory: memory.clone(),
            bytes: 0,
            sent: None,
        }
    }

    /// From now on the reply counts as memory. A repeat changes nothing.
    pub(super) fn weigh(&mut self, reply: &OutFrame) {
        if self.bytes == 0 {
            self.bytes = reply.remaining();
            self.memory.reply_queued(self.bytes);
        }
    }

    /// Resolves (with an error, as nothing is ever sent over it) when the debt is gone.
    pub(super) fn told_when_sent(&mut self) -> oneshot::Receiver<()> {
        let (sent, told) = oneshot::channel();
        self.sent = Some(sent);
        told
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
        if self.bytes > 0 {
            self.memory.reply_sent(self.bytes);
        }
    }
}

/// Replies that are written together, with as few calls as possible.
pub(super) struct Outbox<'a> {
    frames: VecDeque<OutFrame>,
    owed: Vec<Owed>,
    bytes: usize,
    memory: &'a Memory,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self {
            frames: VecDeque::new(),
            owed: Vec::new(),
            bytes: 0,
            memory,
        }
    }

    pub(super) fn push(&mut self, frame: OutFrame, owed: Owed) {
        self.bytes += frame.remaining();
        self.frames.push_back(frame);
        self.owed.push(owed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= COALESCE_BYTES || self.frames.len() >= COALESCE_REPLIES
    }

    /// Writes all of it, as long as the peer reads.
    pub(super) async fn send(
        &mut self,
        half: &mut OwnedWriteHalf,
        limits: &Limits,
    ) -> Result<(), End> {
        let allowed = limits.allowance(limits.reply_grace, self.bytes);
        let deadline = Instant::now() + allowed;
        while self.has_remaining() {
            match tokio::time::timeout(PRESSED.min(allowed), half.write_buf(self)).await {
                Ok(written) => {
                    written.map_err(End::Write)?;
                }
                Err(_) if Instant::now() >= deadline => return Err(End::ReplyStalled(allowed)),
                // Others wait for the memory that this peer's replies take.
                Err(_) if self.memory.reply_room() == 0 => return Err(End::ReplyStalled(PRESSED)),
                Err(_) => {}
            }
        }
        self.owed.clear();
        Ok(())
    }
}

impl Buf for Outbox<'_> {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], Buf::chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for frame in &self.frames {
            filled += frame.chunks_vectored(&mut slices[filled..]);
            if filled == slices.len() {
                break;
            }
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(front) = self.frames.front_mut() {
            let here = front.remaining().min(count);
            front.advance(here);
            count -= here;
            if front.has_remaining() {
                break;
            }
            self.frames.pop_front();
        }
    }
}
