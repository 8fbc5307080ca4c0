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
/// What a giant may hold before it has the one place for giants.
const ANTEROOM: usize = 1 << 20;
/// What is left to others in the large lane, however large the giant is.
const BESIDE_GIANT: usize = 2 << 20;
/// Bytes per millisecond that a giant must bring while another waits for its place.
const GIANT_RATE: u64 = 1 << 10;
/// Silence after which an unfinished frame may be dropped to make room.
const STALLED: Duration = Duration::from_secs(1);
/// How long a connection waits for room before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for the giant's place: each that had it and stalled cost all who wait a second.
const GIANT_PATIENCE: Duration = Duration::from_secs(25);
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

/// A frame that has begun and not ended, as seen by those who look for room.
#[derive(Debug)]
pub(super) struct Unfinished {
    held: AtomicUsize,
    /// Milliseconds since the memory's start at which bytes last arrived.
    progress: AtomicU64,
    /// Since when it has the giant's place, in the same milliseconds, plus one; 0 if it has not.
    giant_since: AtomicU64,
    /// Whether it waits for room, rather than for its sender.
    pub(super) waiting: AtomicBool,
    /// Told to its connection when it must go.
    pub(super) evicted: Notify,
}

/// No room, in spite of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for this request within {0:?}: too much is in flight")]
pub struct NoRoom(Duration);

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

    /// Notes that connection `id` has begun a frame.
    pub(super) fn begin_unfinished(&self, id: u64) -> Arc<Unfinished> {
        let entry = Arc::new(Unfinished {
            held: AtomicUsize::new(0),
            progress: AtomicU64::new(self.now()),
            giant_since: AtomicU64::new(0),
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

    /// As [`Self::progress`], of the one that has the giant's place.
    pub(super) fn progress_of_giant(&self, entry: &Unfinished, held: usize) {
        let since = self.now() + 1;
        let first = entry.giant_since.load(Ordering::Relaxed) == 0;
        if first {
            entry.giant_since.store(since, Ordering::Relaxed);
        }
        self.progress(entry, held);
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

    /// Tells the giant to go if it is silent, or slower than one that others wait for may be.
    fn evict_slow_giant(&self) {
        let now = self.now();
        for entry in self.table().values() {
            let since = entry.giant_since.load(Ordering::Relaxed);
            // Its sender is not to blame while it waits for room itself.
            if since == 0 || entry.waiting.load(Ordering::Relaxed) {
                continue;
            }
            let due = now.saturating_sub(since - 1 + STALLED.as_millis() as u64) * GIANT_RATE;
            let silent = now.saturating_sub(entry.progress.load(Ordering::Relaxed));
            let slow = (entry.held.load(Ordering::Relaxed) as u64) < due;
            if slow || u128::from(silent) >= STALLED.as_millis() {
                entry.evicted.notify_one();
            }
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
    /// It holds the one place for giants.
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

    /// Grows to `target` bytes of a frame of `whole`, waiting for room if need be. Moves to the large
    /// lane when it outgrows the small one.
    pub(super) async fn grow_to(&mut self, target: usize, whole: usize) -> Result<(), NoRoom> {
        if self.lane == Lane::Small && target > SMALL_FRAME {
            let mut large = Claim::new(&self.memory, Lane::Large);
            large.take(target, whole).await?;
            *self = large;
            return Ok(());
        }
        self.take(target, whole).await
    }

    /// Gives back what is held beyond `target`.
    pub(super) fn shrink_to(&mut self, target: usize) {
        if self.held > target {
            if self.giant {
                self.memory.giant_held.store(target, Ordering::Release);
            }
            self.memory.lane(self.lane).give_back(self.held - target);
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

    /// Whether it has the one place for giants.
    pub(super) fn is_giant(&self) -> bool {
        self.giant
    }

    /// Whether it weighs enough to be kept while a request waits for something else.
    pub(super) fn is_large(&self) -> bool {
        self.lane == Lane::Large
    }

    fn try_take(&mut self, target: usize, whole: usize) -> bool {
        if target <= self.held {
            return true;
        }
        let memory = &self.memory;
        let lane = memory.lane(self.lane);
        let becomes_giant = self.needs_place(target, whole);
        if becomes_giant && memory.giant.swap(true, Ordering::AcqRel) {
            return false;
        }
        let giant = self.giant || becomes_giant;
        // The giant itself never needs more of the lane than leaves the others their part.
        let giant_held = match (self.lane, giant) {
            (Lane::Large, true) => target,
            (Lane::Large, false) => memory.giant_held.load(Ordering::Acquire),
            (Lane::Small | Lane::Decoded, _) => 0,
        };
        let limit = match giant_held {
            0 => lane.size,
            held => lane.size.max(held + BESIDE_GIANT.min(lane.size / 4)),
        };
        if lane.try_take(target - self.held, limit) {
            self.held = target;
            self.giant = giant;
            if giant {
                memory.giant_held.store(target, Ordering::Release);
            }
            return true;
        }
        if becomes_giant {
            // Nobody is told: two who wait would wake each other for ever. They look again by themselves.
            memory.giant.store(false, Ordering::Release);
        }
        false
    }

    fn needs_place(&self, target: usize, whole: usize) -> bool {
        let anteroom = ANTEROOM.min(self.memory.ordinary);
        self.lane == Lane::Large && !self.giant && whole > self.memory.ordinary && target > anteroom
    }

    async fn take(&mut self, target: usize, whole: usize) -> Result<(), NoRoom> {
        if self.try_take(target, whole) {
            return Ok(());
        }
        // Boxed: every idle connection would hold the room for this wait.
        Box::pin(self.wait_and_take(target, whole)).await
    }

    async fn wait_and_take(&mut self, target: usize, whole: usize) -> Result<(), NoRoom> {
        let memory = self.memory.clone();
        let lane = memory.lane(self.lane);
        let patience = match self.needs_place(target, whole) {
            true => GIANT_PATIENCE,
            false => PATIENCE,
        };
        let mut next_look = tokio::time::Instant::now();
        let deadline = next_look + patience;
        loop {
            let freed = lane.freed.notified();
            tokio::pin!(freed);
            // Registered before the check, so that room freed in between is not missed.
            freed.as_mut().enable();
            if self.try_take(target, whole) {
                return Ok(());
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                return Err(NoRoom(patience));
            }
            // Not at each wake-up: many may wait, and room is given back often.
            if now >= next_look {
                next_look = now + STALLED / 4;
                if self.lane == Lane::Large {
                    memory.evict_slow_giant();
                }
                // For the giant's place it makes no difference who else goes.
                if !self.needs_place(target, whole) || !memory.giant.load(Ordering::Acquire) {
                    memory.evict_for(self.lane);
                }
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
            self.memory.giant_held.store(0, Ordering::Release);
            self.memory.giant.store(false, Ordering::Release);
        }
        self.memory.lane(self.lane).give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_lane_makes_wait_until_room_is_given_back() {
        let memory = Memory::new(100_000);
        let (mut first, mut other) = (memory.claim(), memory.claim());
        first.grow_to(50_000, 0).await.unwrap();
        other.grow_to(40_000, 0).await.unwrap();
        let mut second = memory.claim();
        {
            let waiting = second.grow_to(30_000, 0);
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
        large.grow_to(20_000, 0).await.unwrap();
        let mut small = memory.claim();
        small.grow_to(4_096, 4_096).await.unwrap();
        let mut refused = memory.claim();
        let waits =
            tokio::time::timeout(Duration::from_millis(50), refused.grow_to(17_000, 0)).await;
        assert!(waits.is_err(), "{waits:?}");
    }

    #[tokio::test]
    async fn a_bound_frame_counts_until_its_last_slice_is_gone() {
        let memory = Memory::new(100_000);
        let mut claim = memory.claim();
        claim.grow_to(50_000, 0).await.unwrap();
        let mut frame = bound(Bytes::from(vec![7; 50_000]), claim);
        let slice = frame.split_to(10);
        drop(frame);
        assert_eq!(memory.used(), 50_000);
        drop(slice);
        assert_eq!(memory.used(), 0);
    }

    async fn must_wait(growing: impl Future<Output = Result<(), NoRoom>>) {
        let waits = tokio::time::timeout(Duration::from_millis(50), growing).await;
        assert!(waits.is_err(), "{waits:?}");
    }

    #[tokio::test]
    async fn one_giant_at_a_time_fits_beside_the_others() {
        let memory = Memory::new(100_000);
        let (mut first, mut second) = (memory.claim(), memory.claim());
        first.grow_to(5_000_000, 5_000_000).await.unwrap();
        second.grow_to(20_000, 20_000).await.unwrap();
        assert_eq!(memory.used(), 5_020_000);
        // A part of the lane is left beside the giant, and no more.
        let mut third = memory.claim();
        must_wait(third.grow_to(20_000, 20_000)).await;
        drop(second);
        let mut second = memory.claim();
        second.grow_to(20_000, 60_000).await.unwrap();
        must_wait(second.grow_to(30_000, 60_000)).await;
        let whole = first.split(5_000_000);
        drop(first);
        drop(whole);
        second.grow_to(60_000, 60_000).await.unwrap();
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn a_giant_waits_for_others_to_leave_it_room() {
        let memory = Memory::new(100_000);
        let (mut other, mut giant) = (memory.claim(), memory.claim());
        other.grow_to(50_000, 20_000).await.unwrap();
        giant.grow_to(40_000, 5_000_000).await.unwrap();
        must_wait(giant.grow_to(90_000, 5_000_000)).await;
        other.shrink_to(25_000);
        giant.grow_to(90_000, 5_000_000).await.unwrap();
        giant.grow_to(5_000_000, 5_000_000).await.unwrap();
    }

    #[tokio::test]
    async fn a_giant_that_others_wait_for_must_keep_up_its_pace() {
        let memory = Memory::new(8 << 20);
        let (mut slow, mut next) = (memory.claim(), memory.claim());
        slow.grow_to(2 << 20, 90 << 20).await.unwrap();
        let entry = memory.begin_unfinished(1);
        memory.progress_of_giant(&entry, 2 << 20);
        let start = Instant::now();
        let evicted = async {
            let mut steps = tokio::time::interval(Duration::from_millis(20));
            loop {
                tokio::select! {
                    () = entry.evicted.notified() => return,
                    // It drips, so that it is never silent.
                    _ = steps.tick() => memory.progress_of_giant(&entry, 2 << 20),
                }
            }
        };
        tokio::select! {
            grown = next.grow_to(2 << 20, 90 << 20) => panic!("the place is taken: {grown:?}"),
            () = evicted => {}
        }
        // Two megabytes arrived: they count for two seconds, after the first one.
        let took = start.elapsed();
        assert!(took > Duration::from_millis(2_500), "{took:?}");
        drop(slow);
        next.grow_to(2 << 20, 90 << 20).await.unwrap();
    }

    #[tokio::test]
    async fn the_largest_stalled_sender_is_told_to_go() {
        let memory = Memory::new(60_000);
        let (mut a, mut b) = (memory.claim(), memory.claim());
        a.grow_to(20_000, 0).await.unwrap();
        b.grow_to(40_000, 0).await.unwrap();
        let (small, big) = (memory.begin_unfinished(1), memory.begin_unfinished(2));
        memory.progress(&small, 20_000);
        memory.progress(&big, 40_000);
        tokio::time::sleep(STALLED + Duration::from_millis(50)).await;
        let mut c = memory.claim();
        tokio::select! {
            grown = c.grow_to(30_000, 0) => panic!("there is no room yet: {grown:?}"),
            () = small.evicted.notified() => panic!("the smaller one was chosen"),
            () = big.evicted.notified() => {}
        }
        drop(b);
        c.grow_to(30_000, 0).await.unwrap();
    }
}
