//! A claim on the memory of one lane: it grows with a frame's bytes, waits where there is no room, and gives
//! back what it holds when it is dropped.

use super::{Lane, Memory, SMALL_FRAME, STALLED};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a giant may hold before it has the one place for giants.
const ANTEROOM: usize = 1 << 20;
/// What is left to others in the large lane, however large the giant is.
const BESIDE_GIANT: usize = 2 << 20;
/// How long a connection waits for room before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for the giant's place: each that had it and stalled cost all who wait a second.
const GIANT_PATIENCE: Duration = Duration::from_secs(25);

/// No room, in spite of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for this request within {0:?}: too much is in flight")]
pub struct NoRoom(Duration);

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
    pub(super) fn new(memory: &Arc<Memory>, lane: Lane) -> Self {
        Self {
            memory: memory.clone(),
            lane,
            held: 0,
            giant: false,
        }
    }

    /// Grows to `target` bytes of a frame of `whole`, waiting for room if need be. Moves to the large
    /// lane when it outgrows the small one.
    pub(in crate::server) async fn grow_to(
        &mut self,
        target: usize,
        whole: usize,
    ) -> Result<(), NoRoom> {
        if self.lane == Lane::Small && target > SMALL_FRAME {
            let mut large = Claim::new(&self.memory, Lane::Large);
            large.take(target, whole).await?;
            *self = large;
            return Ok(());
        }
        self.take(target, whole).await
    }

    /// Gives back what is held beyond `target`.
    pub(in crate::server) fn shrink_to(&mut self, target: usize) {
        if self.held > target {
            if self.giant {
                self.memory.giant_held.store(target, Ordering::Release);
            }
            self.memory.lane(self.lane).give_back(self.held - target);
            self.held = target;
        }
    }

    /// Splits off the share of a finished frame. (A giant is alone in its buffer: all of it goes.)
    pub(in crate::server) fn split(&mut self, bytes: usize) -> Claim {
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
    pub(in crate::server) fn is_giant(&self) -> bool {
        self.giant
    }

    /// Whether it weighs enough to be kept while a request waits for something else.
    pub(in crate::server) fn is_large(&self) -> bool {
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

    pub(super) async fn take(&mut self, target: usize, whole: usize) -> Result<(), NoRoom> {
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
pub(in crate::server) fn bound(frame: Bytes, claim: Claim) -> Bytes {
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
