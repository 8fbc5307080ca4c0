//! Leaders whose connection just broke, and of which it is not known yet whether they are gone.
//!
//! Why: a client that lost its leader asks for metadata within a millisecond, before any controller
//! can have elected another. Told of the dead leader once more, it comes back only with its next
//! timer (librdkafka: a second). So who answers metadata asks here whether to wait a moment. Only a
//! hint: nothing but an answer's delay, which is bounded, depends on it.

use leasehold_types::seams::HashMap;
use leasehold_types::{BrokerId, Incarnation};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Since when which process is not reached.
#[derive(Debug, Default)]
pub struct Suspects(Mutex<HashMap<(BrokerId, Incarnation), Instant>>);

impl Suspects {
    /// A connection to this process failed. The first time counts.
    pub fn lost(&self, broker: BrokerId, incarnation: Incarnation) {
        let mut all = self.0.lock();
        all.retain(|(id, known), _| *id != broker || *known == incarnation);
        all.entry((broker, incarnation))
            .or_insert_with(Instant::now);
    }

    /// It answers.
    pub fn found(&self, broker: BrokerId, incarnation: Incarnation) {
        self.0.lock().remove(&(broker, incarnation));
    }

    /// All, with the time when each was lost.
    pub fn all(&self) -> Vec<(BrokerId, Incarnation, Instant)> {
        self.0
            .lock()
            .iter()
            .map(|((id, incarnation), since)| (*id, *incarnation, *since))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_suspected_since_its_first_failure_until_it_answers_or_is_replaced() {
        let suspects = Suspects::default();
        suspects.lost(BrokerId(1), Incarnation(7));
        let first = suspects.all()[0].2;
        suspects.lost(BrokerId(1), Incarnation(7));
        assert_eq!(suspects.all(), [(BrokerId(1), Incarnation(7), first)]);
        suspects.lost(BrokerId(1), Incarnation(8));
        assert_eq!(
            suspects.all().len(),
            1,
            "its predecessor does not matter any more"
        );
        suspects.found(BrokerId(1), Incarnation(8));
        assert!(suspects.all().is_empty());
    }
}
