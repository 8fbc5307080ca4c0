//! Brokers that metadata goes on naming for a while after they were fenced.
//!
//! Why: a client that loses its leader asks for metadata, and the answer names the new leader. If
//! that answer also drops the old broker, librdkafka (2.12) forgets the old broker's thread, which
//! takes the partition with it once more, and finds it again only with a timer of one second. Named a
//! little longer, the partition moves first and the broker goes later. That was measured: median gap of
//! a producer after kill -9 of a leader 354 ms before, 9 ms after (docs/measured.md).
//!
//! Promise: such a broker leads nothing, is in no answer to FindCoordinator, and is not named for
//! longer than [`KEPT`]. Clients bear with it: a dead broker in their list is what they start with anyway.

use leasehold_metadata::{Broker, Image};
use leasehold_types::{BrokerId, Incarnation};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Long enough for every client that had a connection to it to ask once (their timers: one second), and
/// not longer: a client that still tries to reach it gives up when it is no longer named.
const KEPT: Duration = Duration::from_secs(5);

/// Since when brokers are known to be fenced.
#[derive(Default)]
pub(super) struct Departed(Mutex<HashMap<(BrokerId, Incarnation), Instant>>);

impl Departed {
    /// The brokers to name: those that serve, and those that did a moment ago.
    pub(super) fn named<'a>(&self, image: &'a Image) -> Vec<&'a Broker> {
        let mut since = self.0.lock();
        since.retain(|(id, incarnation), _| {
            let known = image.brokers.get(id);
            known.is_some_and(|known| known.fenced && known.incarnation == *incarnation)
        });
        let named = |broker: &&Arc<Broker>| {
            !broker.fenced || {
                let process = (broker.id, broker.incarnation);
                since.entry(process).or_insert_with(Instant::now).elapsed() < KEPT
            }
        };
        let brokers = image.brokers.values().filter(named);
        brokers.map(|broker| &**broker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::stage::first_image;
    use super::*;

    fn named(departed: &Departed, image: &Image) -> Vec<i32> {
        let named = departed.named(image);
        named.iter().map(|broker| broker.id.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_broker_is_named_for_some_seconds_and_anew_after_it_served_again() {
        let mut image = first_image(Incarnation(1));
        let fenced: Vec<_> = image
            .brokers
            .values()
            .filter(|b| b.fenced)
            .cloned()
            .collect();
        let [gone] = &fenced[..] else {
            panic!("one is fenced")
        };
        let departed = Departed::default();
        let all: Vec<i32> = image.brokers.keys().map(|id| id.0).collect();
        let serving: Vec<i32> = all.iter().copied().filter(|id| *id != gone.id.0).collect();
        assert_eq!(named(&departed, &image), all);
        tokio::time::advance(KEPT - Duration::from_millis(1)).await;
        assert_eq!(named(&departed, &image), all);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(named(&departed, &image), serving);

        let back = Broker {
            fenced: false,
            ..(**gone).clone()
        };
        image.brokers.insert(gone.id, Arc::new(back));
        assert_eq!(named(&departed, &image), all);
        image.brokers.insert(gone.id, gone.clone());
        assert_eq!(named(&departed, &image), all, "fenced a second time");
    }
}
