//! One bound on the memory that requests take, for all connections of a listener together.
//!
//! Three lanes, so that one kind of load cannot starve another:
//! - *small*: frames of up to 16 KiB, so that ordinary requests go on while large ones wait;
//! - *large*: longer frames, charged step by step as their bytes arrive. Of *giants*, longer than a
//!   quarter of the lane, one at a time is let in beyond its first megabyte. It may take more than the
//!   lane has; the others then share what is left of the lane, but always a little;
//! - *decoded*: what a frame's fields take once decoded, charged while a request is being decoded.
//!
//! When a lane is full, the connection that asks waits; whoever holds the most bytes of an unfinished
//! frame without having sent anything for a second is disconnected to make room. A giant that others
//! wait for must bring a megabyte per second. So a crowd of slow senders cannot hold the memory,
//! and waiting connections cannot hold each other up for ever.

mod claim;
mod unfinished;

#[cfg(test)]
mod tests;

pub(super) use claim::bound;
pub use claim::{Claim, NoRoom};
pub(super) use unfinished::Unfinished;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Frames up to this size travel in the small lane.
pub const SMALL_FRAME: usize = 16 * 1024;
/// Kafka's key of the one request that is mostly payload, and whose payload outlives its handling.
pub(super) const PRODUCE: i16 = 0;
const SMALL_LANE: usize = 8 << 20;
const DECODED_LANE: usize = 32 << 20;
/// Silence after which an unfinished frame may be dropped to make room.
const STALLED: Duration = Duration::from_secs(1);
/// Memory for replies that are read but not sent, beyond which fetches are cut small.
const REPLY_MEMORY: usize = 48 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Small,
    Large,
    Decoded,
}

/// The listener's memory for requests.
#[derive(Debug)]
pub struct Memory {
    small: LaneState,
    large: LaneState,
    decoded: LaneState,
    /// Bytes of replies between their handler and the socket.
    replies: AtomicUsize,
    replies_sent: Notify,
    /// A longer frame is a giant: one at a time is let in.
    ordinary: usize,
    giant: AtomicBool,
    /// What the giant holds.
    giant_held: AtomicUsize,
    /// Held while a request with many items is handled, apart from the workers.
    pub(super) heavy: tokio::sync::Mutex<()>,
    unfinished: Mutex<HashMap<u64, Arc<Unfinished>>>,
    start: Instant,
}

#[derive(Debug)]
struct LaneState {
    size: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl LaneState {
    fn new(size: usize) -> Self {
        Self {
            size,
            used: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// Takes `bytes` more if all that is taken stays within `limit`.
    fn try_take(&self, bytes: usize, limit: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.used.fetch_sub(bytes, Ordering::AcqRel);
            self.freed.notify_waiters();
        }
    }
}

impl Memory {
    /// Memory of which `large` bytes are for long frames.
    pub fn new(large: usize) -> Arc<Self> {
        Arc::new(Self {
            small: LaneState::new(SMALL_LANE),
            large: LaneState::new(large),
            decoded: LaneState::new(DECODED_LANE),
            replies: AtomicUsize::new(0),
            replies_sent: Notify::new(),
            ordinary: large / 4,
            giant: AtomicBool::new(false),
            giant_held: AtomicUsize::new(0),
            heavy: tokio::sync::Mutex::new(()),
            unfinished: Mutex::default(),
            start: Instant::now(),
        })
    }

    /// Bytes now taken by requests.
    pub fn used(&self) -> usize {
        [&self.small, &self.large, &self.decoded]
            .iter()
            .map(|lane| lane.used.load(Ordering::Relaxed))
            .sum()
    }

    /// How many bytes one more reply may reasonably hold.
    pub fn reply_room(&self) -> usize {
        REPLY_MEMORY.saturating_sub(self.replies.load(Ordering::Relaxed))
    }

    pub(super) fn reply_queued(&self, bytes: usize) {
        self.replies.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn reply_sent(&self, bytes: usize) {
        self.replies.fetch_sub(bytes, Ordering::Relaxed);
        self.replies_sent.notify_waiters();
    }

    /// Waits, at most for `limit`, until there is room for another reply.
    pub(super) async fn await_reply_room(&self, limit: Duration) {
        let room = async {
            loop {
                let sent = self.replies_sent.notified();
                tokio::pin!(sent);
                sent.as_mut().enable();
                if self.reply_room() > 0 {
                    return;
                }
                sent.await;
            }
        };
        if self.reply_room() == 0 {
            let _late = tokio::time::timeout(limit, room).await;
        }
    }

    /// An empty claim, to grow with a frame's bytes.
    pub(super) fn claim(self: &Arc<Self>) -> Claim {
        Claim::new(self, Lane::Small)
    }

    /// Room for decoding a frame of `frame` bytes of API `key`; none is needed for a small one.
    pub(super) async fn claim_decoding(
        self: &Arc<Self>,
        key: i16,
        frame: usize,
    ) -> Result<Claim, NoRoom> {
        let mut claim = Claim::new(self, Lane::Decoded);
        claim.take(decoded_estimate(key, frame), frame).await?;
        Ok(claim)
    }

    fn lane(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Small => &self.small,
            Lane::Large => &self.large,
            Lane::Decoded => &self.decoded,
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Unfinished>>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// What the fields of a frame may take in memory, by experience with the worst of them.
fn decoded_estimate(key: i16, frame: usize) -> usize {
    match frame {
        0..=4096 => 0,
        // Nearly all of a Produce is records, which stay where they are.
        _ if key == PRODUCE => frame.saturating_mul(16).min(2 << 20),
        _ => frame.saturating_mul(16).min(DECODED_LANE),
    }
}
