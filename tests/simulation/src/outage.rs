//! An outage of the API at the end of a run, in good health: without any change of an ISR, acks=all goes on (I14).
//!
//! By [`LATE`] into it no Lease, no term and no broker's word of a controller holds any more; what is
//! acknowledged after that is acknowledged without them.

use crate::check::{Part, key_of};
use crate::core::Core;
use crate::disk::Key;
use rand::Rng as _;
use std::collections::BTreeMap;

/// The Lease is good for 4 s, the last answer of a controller for another 3.
const LATE: u64 = 7_500;
/// How much longer it lasts: time for each producer to have its turn.
const REST: u64 = 3_000;

/// An outage under way.
pub struct Outage {
    began: u64,
    parts: BTreeMap<(String, i64), Part>,
    /// How many records were acknowledged per partition when it had lasted for [`LATE`].
    acked: BTreeMap<Key, usize>,
}

impl Outage {
    /// The API server goes away; or the head, with all chunks.
    pub fn begin(core: &mut Core) -> Self {
        let lasts = LATE + REST + 1_000;
        match core.rng.random() {
            true => {
                core.note("outage: the API server is away");
                core.api_down_until = core.now + lasts;
            }
            false => core.lose_head(true, false, lasts),
        }
        Self {
            began: core.now,
            parts: core.check.parts.clone(),
            acked: BTreeMap::new(),
        }
    }

    /// Whether every producer is to send something now, so that what is not acknowledged was not for want of
    /// being sent.
    pub fn wants_records(&self, now: u64) -> bool {
        let since = now.saturating_sub(self.began + LATE);
        since > 0 && since.is_multiple_of(500)
    }

    /// Whether it is over; then what did not go on is a broken promise.
    pub fn is_over(&mut self, core: &mut Core) -> bool {
        if core.now == self.began + LATE {
            self.acked = acked(core);
        }
        if core.now < self.began + LATE + REST {
            return false;
        }
        let now = acked(core);
        for (at, part) in &self.parts {
            let Some(key) = key_of(at).filter(|_| core.check.parts.get(at) == Some(part)) else {
                continue;
            };
            if core.check.is_internal(key) {
                // That of the coordinators gets what their groups say.
                continue;
            }
            if now.get(&key) <= self.acked.get(&key) {
                core.check.broke(format!(
                    "I14 nothing is acknowledged in {at:?} while the API is away: {part:?}"
                ));
            }
        }
        true
    }
}

fn acked(core: &Core) -> BTreeMap<Key, usize> {
    let all = core.check.data.iter();
    all.map(|(key, data)| (*key, data.acked.len())).collect()
}
