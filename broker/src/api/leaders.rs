//! Before a client is told who leads: make sure that it is not sent back to a leader that just died.
//!
//! Why: a client that lost its leader asks any broker for metadata within a millisecond, before an
//! election can have been committed, often before this broker itself was told of the death. Named the
//! dead leader once more, librdkafka comes back only with a timer of one second. So each leader that an
//! answer would name is asked whether it is there; while one is not, the answer waits for the metadata
//! to change, a quarter of a second at most. Nothing but that delay depends on it.

use super::context::Shared;
use super::convert::wire_topic_id;
use super::metadata::asks_for_all;
use crate::internal::peer::{self, Peer};
use crate::session::find::address_of;
use futures::future::join_all;
use leasehold_metadata::{Image, Topic};
use leasehold_types::{BrokerId, Incarnation};
use leasehold_wire::kafka::messages::MetadataRequest;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer waits for the election, counted from when the leader was missed.
const ELECTION_PATIENCE: Duration = Duration::from_millis(250);
/// A leader that is alive answers within this, unless the machine is very busy.
const ANSWER: Duration = Duration::from_millis(25);
/// More leaders than this are not asked one by one: such a client refreshes everything it knows.
const MOST_LEADERS: usize = 8;

/// Waits until these leaders, which the answer names, are there, or the metadata changed, or too long.
pub(super) async fn settle(shared: &Shared, leaders: &BTreeSet<BrokerId>) {
    let image = shared.image();
    join_all(leaders.iter().map(|leader| ask(shared, &image, *leader))).await;
    let now = Instant::now();
    let missed: Vec<_> = shared
        .replicas
        .suspects()
        .into_iter()
        .filter(|(broker, _, since)| leaders.contains(broker) && *since + ELECTION_PATIENCE > now)
        .collect();
    let Some(first) = missed.iter().map(|(_, _, since)| *since).min() else {
        return;
    };
    let settled = |image: &Image| missed.iter().all(|(id, of, _)| !serves(image, *id, *of));
    let limit = (first + ELECTION_PATIENCE).saturating_duration_since(now);
    shared.image_shows(limit, settled).await;
}

fn serves(image: &Image, broker: BrokerId, incarnation: Incarnation) -> bool {
    let known = image.brokers.get(&broker);
    known.is_some_and(|known| known.incarnation == incarnation && !known.fenced)
}

/// Other brokers that lead what is asked for; none if they are too many to ask.
pub(super) fn named(
    shared: &Shared,
    image: &Image,
    version: i16,
    request: &MetadataRequest,
) -> BTreeSet<BrokerId> {
    let mut leaders = BTreeSet::new();
    for topic in asked(image, version, request) {
        leaders.extend(
            topic
                .partitions
                .iter()
                .filter_map(|partition| partition.leader),
        );
        leaders.remove(&shared.broker);
        if leaders.len() > MOST_LEADERS {
            return BTreeSet::new();
        }
    }
    leaders
}

fn asked<'a>(
    image: &'a Image,
    version: i16,
    request: &'a MetadataRequest,
) -> Box<dyn Iterator<Item = &'a Arc<Topic>> + 'a> {
    if asks_for_all(version, request) {
        return Box::new(image.topics.values());
    }
    let asked = request.topics.iter().flatten();
    Box::new(asked.filter_map(|topic| {
        let name = topic.name.as_ref();
        match wire_topic_id(topic.topic_id) {
            Some(id) => image.topic(&id),
            None => name.and_then(|name| image.topic_by_name(name)),
        }
    }))
}

/// Asks one leader whether it is there, and notes what was found.
async fn ask(shared: &Shared, image: &Image, leader: BrokerId) {
    let Some(broker) = image.brokers.get(&leader).filter(|broker| !broker.fenced) else {
        return;
    };
    let peer = Peer {
        cluster_id: image.cluster_id.clone(),
        broker: leader,
        incarnation: broker.incarnation,
        address: address_of(&broker.internal),
    };
    let question = async {
        if peer::answers(&peer, ANSWER).await {
            shared.replicas.trust(leader, peer.incarnation);
        } else {
            shared.replicas.suspect(leader, peer.incarnation);
        }
    };
    shared
        .verified
        .ask(leader, peer.incarnation, question)
        .await;
}
