//! One bound on the memory that requests take, for all connections of a listener together.
//!
//! Three lanes, so that one kind of load cannot starve another:
//! - *small*: frames of up to 16 KiB, so that ordinary requests go on while large ones wait;
//! - *large*: longer frames, charged step by step as their bytes arrive; of those longer than half the
//!   lane one at a time;
//! - *decoded*: what a frame's fields take once decoded, charged while a request is being decoded.
//!
//! When a lane is full, the connection that asks waits; whoever holds the most bytes of an unfinished
//! frame without having sent anything for a second is disconnected to make room. So a crowd of slow
//! senders cannot hold the memory, and waiting connections cannot hold each other up for ever.

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
/// How long a connection waits for room before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// Longest frame that is charged in full. One longer frame at a time is let in beside them.
    ordinary: usize,
    giant: AtomicBool,
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

    fn try_take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.size)
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

/// A frame that has begun and not ended, as seen by those who look for room.
#[derive(Debug)]
pub(super) struct Unfinished {
    held: AtomicUsize,
    /// Milliseconds since the memory's start at which bytes last arrived.
    progress: AtomicU64,
    /// Whether it waits for room, rather than for its sender.
    pub(super) waiting: AtomicBool,
    /// Told to its connection when it must go.
    pub(super) evicted: Notify,
}

/// No room, in spite of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for this request within {PATIENCE:?}: too much is in flight")]
pub struct NoRoom;

impl Memory {
    /// Memory of which `large` bytes are for long frames.
    pub fn new(large: usize) -> Arc<Self> {
        Arc::new(Self {
            small: LaneState::new(SMALL_LANE),
            large: LaneState::new(large),
            decoded: LaneState::new(DECODED_LANE),
            replies: AtomicUsize::new(0),
            replies_sent: Notify::new(),
            ordinary: large / 2,
            giant: AtomicBool::new(false),
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
        claim.take(decoded_estimate(key, frame)).await?;
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

    /// Notes that connection `id` has begun a frame.
    pub(super) fn begin_unfinished(&self, id: u64) -> Arc<Unfinished> {
        let entry = Arc::new(Unfinished {
            held: AtomicUsize::new(0),
            progress: AtomicU64::new(self.now()),
            waiting: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        self.table().insert(id, entry.clone());
        entry
    }

    pub(super) fn progress(&self, entry: &Unfinished, held: usize) {
        entry.held.store(held, Ordering::Relaxed);
        entry.progress.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn end_unfinished(&self, id: u64) {
        self.table().remove(&id);
    }

    /// Tells one unfinished frame of `lane` to go: the largest whose sender is silent; if all that are
    /// stalled wait for room themselves, the smallest, so that the one furthest along gets done.
    fn evict_for(&self, lane: Lane) {
        let now = self.now();
        let table = self.table();
        let held = |entry: &Arc<Unfinished>| entry.held.load(Ordering::Relaxed);
        let stalled = || {
            table.values().filter(|entry| {
                let since = now.saturating_sub(entry.progress.load(Ordering::Relaxed));
                (held(entry) > SMALL_FRAME) == (lane == Lane::Large)
                    && u128::from(since) >= STALLED.as_millis()
            })
        };
        let waits = |entry: &Arc<Unfinished>| entry.waiting.load(Ordering::Relaxed);
        let silent = stalled()
            .filter(|entry| !waits(entry))
            .max_by_key(|entry| held(entry));
        if let Some(victim) = silent.or_else(|| stalled().min_by_key(|entry| held(entry))) {
            victim.evicted.notify_one();
        }
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

/// Bytes of one lane, given back when dropped.
#[derive(Debug)]
pub struct Claim {
    memory: Arc<Memory>,
    lane: Lane,
    held: usize,
    /// It holds the one place for a frame beyond [`Memory::ordinary`].
    giant: bool,
}

impl Claim {
    fn new(memory: &Arc<Memory>, lane: Lane) -> Self {
        Self {
            memory: memory.clone(),
            lane,
            held: 0,
            giant: false,
        }
    }

    /// What `held` bytes are charged: of a giant, the lane sees the ordinary part only.
    fn charge(&self, held: usize) -> usize {
        match self.lane {
            Lane::Large => held.min(self.memory.ordinary),
            Lane::Small | Lane::Decoded => held,
        }
    }

    /// Grows to `target` bytes, waiting for room if need be. Moves to the large lane when it outgrows the small one.
    pub(super) async fn grow_to(&mut self, target: usize) -> Result<(), NoRoom> {
        if self.lane == Lane::Small && target > SMALL_FRAME {
            let mut large = Claim::new(&self.memory, Lane::Large);
            large.take(target).await?;
            *self = large;
            return Ok(());
        }
        self.take(target).await
    }

    /// Gives back what is held beyond `target`.
    pub(super) fn shrink_to(&mut self, target: usize) {
        if self.held > target {
            let freed = self.charge(self.held) - self.charge(target);
            self.memory.lane(self.lane).give_back(freed);
            self.held = target;
        }
    }

    /// Splits off the share of a finished frame. (A giant is alone in its buffer: all of it goes.)
    pub(super) fn split(&mut self, bytes: usize) -> Claim {
        let mut share = Claim::new(&self.memory, self.lane);
        if self.giant || bytes >= self.held {
            std::mem::swap(self, &mut share);
            return share;
        }
        // No giant: both parts are charged as they are.
        self.held -= bytes;
        share.held = bytes;
        share
    }

    /// Whether it weighs enough to be kept while a request waits for something else.
    pub(super) fn is_large(&self) -> bool {
        self.lane == Lane::Large
    }

    fn try_take(&mut self, target: usize) -> bool {
        if target <= self.held {
            return true;
        }
        let place = &self.memory.giant;
        let becomes_giant =
            self.lane == Lane::Large && !self.giant && target > self.memory.ordinary;
        if becomes_giant && place.swap(true, Ordering::AcqRel) {
            return false;
        }
        let more = self.charge(target) - self.charge(self.held);
        if self.memory.lane(self.lane).try_take(more) {
            self.held = target;
            self.giant |= becomes_giant;
            return true;
        }
        if becomes_giant {
            place.store(false, Ordering::Release);
        }
        false
    }

    async fn take(&mut self, target: usize) -> Result<(), NoRoom> {
        if self.try_take(target) {
            return Ok(());
        }
        let memory = self.memory.clone();
        let lane = memory.lane(self.lane);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let freed = lane.freed.notified();
            tokio::pin!(freed);
            // Registered before the check, so that room freed in between is not missed.
            freed.as_mut().enable();
            if self.try_take(target) {
                return Ok(());
            }
            memory.evict_for(self.lane);
            let next_look = tokio::time::Instant::now() + STALLED / 4;
            if tokio::time::Instant::now() >= deadline {
                return Err(NoRoom);
            }
            // A sender may become stalled without any event, hence the second look.
            let _either = tokio::time::timeout_at(next_look.min(deadline), freed).await;
        }
    }
}

/// A frame together with its claim: the memory counts as taken until the last slice of it is gone.
pub(super) fn bound(frame: Bytes, claim: Claim) -> Bytes {
    struct Bound {
        frame: Bytes,
        _claim: Claim,
    }
    impl AsRef<[u8]> for Bound {
        fn as_ref(&self) -> &[u8] {
            &self.frame
        }
    }
    Bytes::from_owner(Bound {
        frame,
        _claim: claim,
    })
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.giant {
            self.memory.giant.store(false, Ordering::Release);
        }
        let charged = self.charge(self.held);
        self.memory.lane(self.lane).give_back(charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_lane_makes_wait_until_room_is_given_back() {
        let memory = Memory::new(100_000);
        let (mut first, mut other) = (memory.claim(), memory.claim());
        first.grow_to(50_000).await.unwrap();
        other.grow_to(40_000).await.unwrap();
        let mut second = memory.claim();
        {
            let waiting = second.grow_to(30_000);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(first);
            waiting.await.unwrap();
        }
        assert_eq!(memory.used(), 70_000);
        drop((second, other));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn small_frames_go_on_while_the_large_lane_is_full() {
        let memory = Memory::new(20_000);
        let mut large = memory.claim();
        large.grow_to(20_000).await.unwrap();
        let mut small = memory.claim();
        small.grow_to(4_096).await.unwrap();
        let mut refused = memory.claim();
        let waits = tokio::time::timeout(Duration::from_millis(50), refused.grow_to(17_000)).await;
        assert!(waits.is_err(), "{waits:?}");
    }

    #[tokio::test]
    async fn a_bound_frame_counts_until_its_last_slice_is_gone() {
        let memory = Memory::new(100_000);
        let mut claim = memory.claim();
        claim.grow_to(50_000).await.unwrap();
        let mut frame = bound(Bytes::from(vec![7; 50_000]), claim);
        let slice = frame.split_to(10);
        drop(frame);
        assert_eq!(memory.used(), 50_000);
        drop(slice);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn one_giant_at_a_time_fits_beside_the_others() {
        let memory = Memory::new(100_000);
        let (mut first, mut second) = (memory.claim(), memory.claim());
        first.grow_to(5_000_000).await.unwrap();
        assert_eq!(memory.used(), 50_000);
        second.grow_to(40_000).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(50), second.grow_to(60_000)).await;
        assert!(waits.is_err(), "{waits:?}");
        let whole = first.split(5_000_000);
        drop(first);
        drop(whole);
        second.grow_to(60_000).await.unwrap();
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn the_largest_stalled_sender_is_told_to_go() {
        let memory = Memory::new(60_000);
        let (mut a, mut b) = (memory.claim(), memory.claim());
        a.grow_to(20_000).await.unwrap();
        b.grow_to(40_000).await.unwrap();
        let (small, big) = (memory.begin_unfinished(1), memory.begin_unfinished(2));
        memory.progress(&small, 20_000);
        memory.progress(&big, 40_000);
        tokio::time::sleep(STALLED + Duration::from_millis(50)).await;
        let mut c = memory.claim();
        tokio::select! {
            grown = c.grow_to(30_000) => panic!("there is no room yet: {grown:?}"),
            () = small.evicted.notified() => panic!("the smaller one was chosen"),
            () = big.evicted.notified() => {}
        }
        drop(b);
        c.grow_to(30_000).await.unwrap();
    }
}
