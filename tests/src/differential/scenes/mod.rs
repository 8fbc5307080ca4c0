//! What is asked. A small world, anew in each episode: topics `a` (two partitions, records), `b` (one), `c`
//! (compacted) and `missing`; groups `g`, `h` (classic) and `k` (the newer protocol); transactional ids `t`, `u`.
//!
//! Promise: one seed gives one sequence of requests, whatever the peers answer. Each request is a good one in its
//! scene; some are then made odd in one field (`mutate.rs`).

mod admin;
mod data;
mod groups;
mod transactions;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

/// What an answer teaches for later requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Bind {
    Producer(String),
    Member { group: String, slot: u32 },
    Session,
}

/// One request, before a version is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub api: &'static str,
    pub body: Value,
    pub bind: Option<Bind>,
    /// Whether a field of it may be made odd.
    pub odd: bool,
    /// Lowest version, where an older one means something else.
    pub at_least: i16,
}

impl Ask {
    pub fn new(api: &'static str, body: Value) -> Self {
        Self {
            api,
            body,
            bind: None,
            odd: true,
            at_least: 0,
        }
    }

    pub fn binds(mut self, bind: Bind) -> Self {
        self.bind = Some(bind);
        self
    }

    /// As it is: what the rest of the episode stands on.
    pub fn plain(mut self) -> Self {
        self.odd = false;
        self
    }

    pub fn from(mut self, version: i16) -> Self {
        self.at_least = version;
        self
    }
}

/// The requests of one episode.
pub struct Episode {
    pub rng: StdRng,
    number: u32,
}

impl Episode {
    pub fn new(seed: u64, number: u32) -> Self {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(number);
        Self {
            rng: StdRng::seed_from_u64(mixed),
            number,
        }
    }

    /// What the names of this episode begin with.
    pub fn era(&self) -> String {
        format!("e{}-", self.number)
    }

    /// The world that the scenes play in.
    pub fn prologue(&mut self) -> Vec<Ask> {
        let topic = |name: String, partitions: i32, configs: Value| json!({"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": configs});
        let topics = json!([
            topic(self.name("a"), 2, json!([])),
            topic(self.name("b"), 1, json!([])),
            topic(
                self.name("c"),
                1,
                json!([{"Name": "cleanup.policy", "Value": "compact"}])
            ),
        ]);
        let create = json!({"Topics": topics, "timeoutMs": 10_000, "validateOnly": false});
        let mut all = vec![
            Ask::new("CreateTopics", create).plain(),
            // By them both peers create their internal topics before anything rests on those.
            Ask::new(
                "FindCoordinator",
                json!({"Key": self.name("g"), "KeyType": 0, "CoordinatorKeys": [self.name("g")]}),
            )
            .plain()
            .from(1),
            Ask::new(
                "FindCoordinator",
                json!({"Key": self.name("t"), "KeyType": 1, "CoordinatorKeys": [self.name("t")]}),
            )
            .plain()
            .from(1),
            Ask::new(
                "Metadata",
                json!({"Topics": null, "AllowAutoTopicCreation": false}),
            )
            .plain()
            .from(10),
        ];
        for (topic, partition, count) in [("a", 0, 3), ("a", 0, 1), ("a", 1, 2), ("b", 0, 4)] {
            all.push(
                self.good_produce(
                    topic,
                    partition,
                    json!({"count": count, "timestampStep": 10}),
                )
                .plain(),
            );
        }
        all
    }

    /// The next scene.
    pub fn scene(&mut self) -> Vec<Ask> {
        match self.rng.random_range(0..100) {
            0..14 => self.produce(),
            14..26 => self.fetch(),
            26..36 => self.offsets(),
            36..43 => self.metadata(),
            43..58 => self.admin(),
            58..74 => self.classic_group(),
            74..82 => self.consumer_group(),
            82..96 => self.transaction(),
            _ => self.idempotent(),
        }
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("e{}-{name}", self.number)
    }

    pub(super) fn topic(&mut self) -> String {
        let name = self.one(&["a", "a", "a", "b", "b", "c", "missing"]);
        self.name(name)
    }

    /// A topic's id as each peer has it.
    pub(super) fn topic_id(name: &str) -> String {
        format!("$topic:{name}")
    }

    pub(super) fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all.choose(&mut self.rng)
            .expect("something to choose from")
            .clone()
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seed: u64) -> Vec<Ask> {
        let mut episode = Episode::new(seed, 3);
        let mut asks = episode.prologue();
        (0..1500).for_each(|_| asks.extend(episode.scene()));
        asks
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_another() {
        assert!(all(1) == all(1));
        assert!(all(1) != all(2));
    }

    #[test]
    fn every_api_that_is_served_is_asked() {
        let asks = all(1);
        for served in leasehold_wire::versions::SERVED {
            let name = format!("{:?}", served.key);
            assert!(
                asks.iter().any(|ask| ask.api == name),
                "{name} is never asked"
            );
        }
    }
}
