//! When a candidate may take the Lease: pure, on what it observed by its own clock.

use super::{BootInstant, Holder};
use crate::store::LeaseRecord;
use leasehold_types::seams::taken_out;
use std::time::Duration;

/// What to do about the Lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try to take it, by a conditional write.
    Take,
    /// Look again at the latest after this time.
    Wait(Duration),
}

/// The Lease as last seen, and the local time at which it was first seen so.
#[derive(Clone, Debug)]
pub struct Observation {
    record: Option<LeaseRecord>,
    since: BootInstant,
}

impl Observation {
    /// Begins with a first look.
    pub fn new(record: Option<LeaseRecord>, now: BootInstant) -> Self {
        Self { record, since: now }
    }

    /// Takes in a later look. Tells whether something changed.
    pub fn see(&mut self, record: Option<LeaseRecord>, now: BootInstant) -> bool {
        let changed = self.record != record;
        if changed {
            *self = Self::new(record, now);
        }
        changed
    }

    /// The Lease as last seen.
    pub fn record(&self) -> Option<&LeaseRecord> {
        self.record.as_ref()
    }

    /// Whether `me` may take it. `dead` is a holder for whose end there is evidence.
    pub fn decide(&self, me: Holder, dead: Option<&str>, now: BootInstant) -> Decision {
        let Some(record) = &self.record else {
            return Decision::Take;
        };
        let Some(holder) = record.holder.as_deref() else {
            return Decision::Take;
        };
        // Ours: a write whose reply was lost, or a former life of this broker, which is over, since a
        // broker's log directory is held by one process at a time.
        let mine = Holder::parse(holder).is_some_and(|h| h.broker == me.broker);
        if mine || dead == Some(holder) || taken_out("lease-is-waited-for") {
            return Decision::Take;
        }
        let duration = record.duration.max(super::ACT_FOR + super::RENEW_EVERY);
        match duration.checked_sub(now.since(self.since)) {
            Some(rest) if !rest.is_zero() => Decision::Wait(rest),
            _ => Decision::Take,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::DURATION;
    use leasehold_types::{BrokerId, Incarnation};

    const ME: Holder = Holder {
        broker: BrokerId(1),
        incarnation: Incarnation(11),
    };

    fn at(millis: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_millis(millis))
    }

    fn held(holder: &str, version: &str) -> Option<LeaseRecord> {
        Some(LeaseRecord {
            uid: "u".into(),
            version: version.into(),
            holder: Some(holder.into()),
            duration: DURATION,
            ..LeaseRecord::default()
        })
    }

    #[test]
    fn a_lease_is_taken_only_after_a_whole_duration_without_a_change() {
        let mut seen = Observation::new(held("0/7", "1"), at(0));
        let wait = |ms| Decision::Wait(Duration::from_millis(ms));
        assert_eq!(seen.decide(ME, None, at(3_999)), wait(1));
        // A renewal is a change, whatever time it carries.
        seen.see(held("0/7", "2"), at(3_999));
        assert_eq!(seen.decide(ME, None, at(4_000)), wait(3_999));
        // Seeing the same again is none.
        seen.see(held("0/7", "2"), at(7_000));
        assert_eq!(seen.decide(ME, None, at(7_999)), Decision::Take);
    }

    #[test]
    fn an_empty_a_missing_and_an_own_lease_are_taken_at_once() {
        let released = Some(LeaseRecord {
            duration: DURATION,
            ..LeaseRecord::default()
        });
        for record in [None, released, held("1/11", "3"), held("1/10", "3")] {
            let seen = Observation::new(record.clone(), at(0));
            assert_eq!(seen.decide(ME, None, at(0)), Decision::Take, "{record:?}");
        }
    }

    #[test]
    fn evidence_counts_only_against_the_holder_it_names() {
        let seen = Observation::new(held("0/7", "1"), at(0));
        assert_eq!(seen.decide(ME, Some("0/7"), at(0)), Decision::Take);
        assert!(matches!(
            seen.decide(ME, Some("0/6"), at(0)),
            Decision::Wait(_)
        ));
    }

    #[test]
    fn a_lease_that_claims_to_be_short_is_still_waited_for_longer_than_its_holder_acts() {
        let mut short = held("0/7", "1");
        if let Some(record) = short.as_mut() {
            record.duration = Duration::ZERO;
        }
        let seen = Observation::new(short, at(0));
        assert!(matches!(
            seen.decide(ME, None, at(3_500)),
            Decision::Wait(_)
        ));
    }
}
