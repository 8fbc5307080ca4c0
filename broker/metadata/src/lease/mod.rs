//! The controller's Lease: who may try to be controller, and for how long the holder may act.
//!
//! No safety rests on it (the head fences); it keeps candidates from competing and bounds how long a
//! deposed controller goes on answering. Promises: clocks of two machines are never compared; the holder
//! stops acting [`ACT_FOR`] after it *sent* its last successful renewal, which is before anyone may take
//! over by waiting; holding ends when the renewing task ends; a release uses only the version last written.

mod clock;
mod decide;
mod elector;

pub use clock::BootInstant;
pub use decide::{Decision, Observation};
pub use elector::{Elector, Evidence, Tenure, TenureGuard};

use leasehold_types::{BrokerId, Incarnation};
use std::fmt;
use std::time::Duration;

/// A Lease unchanged for this long, by the observer's own clock, may be taken over.
pub const DURATION: Duration = Duration::from_secs(4);
/// How often the holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long the holder acts after it sent its last successful renewal.
pub const ACT_FOR: Duration = Duration::from_secs(3);
/// Test switch: with this variable set to 1 the holder does not stop acting at its deadline, so that a
/// test can show that the head refuses its late write.
pub const IGNORE_DEADLINE_VARIABLE: &str = "LEASEHOLD_TEST_IGNORE_LEASE_DEADLINE";

/// A holder of the Lease: one life of one broker. Written `<broker id>/<incarnation>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
}

impl Holder {
    /// Reads the written form; `None` if someone else wrote it.
    pub fn parse(text: &str) -> Option<Self> {
        let (broker, incarnation) = text.split_once('/')?;
        Some(Self {
            broker: BrokerId(broker.parse().ok()?),
            incarnation: Incarnation(incarnation.parse().ok()?),
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.broker, self.incarnation)
    }
}
