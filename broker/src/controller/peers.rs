//! The controller's watch over the processes of unfenced brokers: one held connection each.

use crate::internal::peer::{Peer, death_of};
use crate::session::find::address_of;
use leasehold_metadata::image::Image;
use leasehold_types::{BrokerId, Incarnation};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A broker's process is dead, and how that was seen.
#[derive(Debug)]
pub(super) struct Death {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    pub evidence: String,
}

/// The watches of one term. Dropping it ends them.
pub(super) struct Watches {
    me: BrokerId,
    deaths: mpsc::UnboundedSender<Death>,
    watched: BTreeMap<(BrokerId, Incarnation), JoinHandle<()>>,
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.watched.values().for_each(JoinHandle::abort);
    }
}

impl Watches {
    pub(super) fn new(me: BrokerId) -> (Self, mpsc::UnboundedReceiver<Death>) {
        let (deaths, heard) = mpsc::unbounded_channel();
        let watches = Self {
            me,
            deaths,
            watched: BTreeMap::new(),
        };
        (watches, heard)
    }

    /// Watches exactly the unfenced brokers of `image`.
    pub(super) fn follow(&mut self, image: &Image) {
        let wanted = |key: &(BrokerId, Incarnation)| {
            let broker = image.broker(key.0);
            broker.is_some_and(|b| !b.fenced && b.incarnation == key.1)
        };
        self.watched.retain(|key, task| {
            let keep = wanted(key) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for broker in image.brokers.values() {
            let key = (broker.id, broker.incarnation);
            if broker.fenced || broker.id == self.me || self.watched.contains_key(&key) {
                continue;
            }
            let peer = Peer {
                cluster_id: image.cluster_id.clone(),
                broker: broker.id,
                incarnation: broker.incarnation,
                address: address_of(&broker.internal),
            };
            let deaths = self.deaths.clone();
            let task = tokio::spawn(async move {
                let evidence = death_of(&peer).await;
                let _ = deaths.send(Death {
                    broker: peer.broker,
                    incarnation: peer.incarnation,
                    evidence,
                });
            });
            self.watched.insert(key, task);
        }
    }
}
