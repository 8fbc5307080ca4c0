//! The cluster as clients of one listener see it: each broker at the endpoint that they can reach.
//!
//! Promise, as Kafka's: an answer names only endpoints of the listener through which its client came. A broker
//! that does not listen there, or does not know yet how it is reached there, is in no such answer; what it
//! leads is told to have a leader whose listener was not found, which clients ask about again.

use super::convert::{nodes, text};
use leasehold_metadata::{Broker, Image, Partition};
use leasehold_types::{BrokerId, ListenerName};
use leasehold_wire::kafka::messages::BrokerId as WireBroker;
use leasehold_wire::{ErrorCode, StrBytes};
use std::ops::Deref;

/// An image, and through which listener it is looked at.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    image: &'a Image,
    /// `None`: the main one, which every broker has.
    listener: Option<&'a ListenerName>,
}

impl Deref for Seen<'_> {
    type Target = Image;

    fn deref(&self) -> &Image {
        self.image
    }
}

impl<'a> Seen<'a> {
    pub(super) fn new(image: &'a Image, listener: Option<&'a ListenerName>) -> Self {
        Self { image, listener }
    }

    /// The image behind it, for as long as that lives.
    pub(super) fn image(self) -> &'a Image {
        self.image
    }

    /// Host and port of a broker, as the wire has them.
    pub(super) fn address(self, broker: &Broker) -> Option<(StrBytes, i32)> {
        let endpoint = broker.endpoint(self.listener)?;
        Some((text(&endpoint.host), i32::from(endpoint.port)))
    }

    /// Whether this broker can be named.
    pub(super) fn has(self, broker: BrokerId) -> bool {
        let broker = self.image.broker(broker);
        broker.is_some_and(|broker| broker.endpoint(self.listener).is_some())
    }

    /// Whether every broker that serves can be named.
    pub(super) fn has_all(self) -> bool {
        let mut serving = self.image.brokers.values().filter(|b| !b.fenced);
        self.listener.is_none() || serving.all(|broker| broker.endpoint(self.listener).is_some())
    }

    /// The leader to name, or why there is none. `knows_listeners`: the client knows the error of that name.
    pub(super) fn leader(
        self,
        partition: &Partition,
        knows_listeners: bool,
    ) -> Result<BrokerId, ErrorCode> {
        match partition.leader {
            Some(leader) if self.has(leader) => Ok(leader),
            Some(_) if knows_listeners => Err(ErrorCode::ListenerNotFound),
            _ => Err(ErrorCode::LeaderNotAvailable),
        }
    }

    /// The replicas that are not there.
    pub(super) fn offline(self, partition: &Partition) -> Vec<WireBroker> {
        let there = |broker: &BrokerId| self.image.serves(partition, *broker) && self.has(*broker);
        nodes(partition.replicas.iter().filter(|broker| !there(broker)))
    }
}
