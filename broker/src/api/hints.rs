//! KIP-951: an error that names the new leader, so that clients fail over without asking around.

use super::convert::{node, opt_text};
use super::seen::Seen;
use crate::replica::LeaderHint;
use leasehold_metadata::{Broker, Image};
use leasehold_types::{BrokerId, TopicId};
use leasehold_wire::kafka::messages::{fetch_response, produce_response};
use leasehold_wire::{ErrorCode, StrBytes};
use std::collections::BTreeSet;

/// Whether an error means "someone else leads", or that the client knows an older leader.
pub(super) fn wants_hint(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
    )
}

/// The hint for a partition: what the replicas said, else what the image says.
pub(super) fn hint(
    image: &Image,
    topic: TopicId,
    partition: i32,
    said: Option<LeaderHint>,
) -> Option<LeaderHint> {
    said.or_else(|| {
        let partition = image.partition(&topic, partition)?;
        Some(LeaderHint {
            leader: partition.leader,
            epoch: partition.leader_epoch,
        })
    })
}

/// The leaders that a reply names, each to be listed once with its address.
#[derive(Default)]
pub(super) struct Named(BTreeSet<BrokerId>);

impl Named {
    pub(super) fn add(&mut self, hint: &LeaderHint) {
        self.0.extend(hint.leader);
    }

    /// Without an address the hint remains, and the client asks for metadata as if there were none.
    fn brokers<'a>(
        &'a self,
        seen: Seen<'a>,
    ) -> impl Iterator<Item = (&'a Broker, (StrBytes, i32))> {
        let known = self.0.iter().filter_map(move |id| seen.image().broker(*id));
        known.filter_map(move |broker| Some((&**broker, seen.address(broker)?)))
    }

    pub(super) fn produce_endpoints(&self, seen: Seen<'_>) -> Vec<produce_response::NodeEndpoint> {
        let endpoint = |(broker, (host, port)): (&Broker, _)| {
            produce_response::NodeEndpoint::default()
                .with_node_id(node(broker.id))
                .with_host(host)
                .with_port(port)
                .with_rack(opt_text(broker.rack.as_deref()))
        };
        self.brokers(seen).map(endpoint).collect()
    }

    pub(super) fn fetch_endpoints(&self, seen: Seen<'_>) -> Vec<fetch_response::NodeEndpoint> {
        let endpoint = |(broker, (host, port)): (&Broker, _)| {
            fetch_response::NodeEndpoint::default()
                .with_node_id(node(broker.id))
                .with_host(host)
                .with_port(port)
                .with_rack(opt_text(broker.rack.as_deref()))
        };
        self.brokers(seen).map(endpoint).collect()
    }
}
