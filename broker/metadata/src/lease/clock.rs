//! A clock that goes on while the machine sleeps: CLOCK_BOOTTIME.

use rustix::time::{ClockId, clock_gettime};
use std::ops::Add;
use std::time::Duration;

/// A point on this machine's CLOCK_BOOTTIME. Means nothing on another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now.
    pub fn now() -> Self {
        #[cfg(feature = "simulation")]
        if let Some(now) = leasehold_types::seams::simulated::since_boot() {
            return Self(now);
        }
        let now = clock_gettime(ClockId::Boottime);
        // Seconds and nanoseconds since boot are never negative.
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanos))
    }

    /// A point this long after boot; for tests of pure decisions.
    pub const fn after_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, rest: Duration) -> Self {
        Self(self.0.saturating_add(rest))
    }
}
