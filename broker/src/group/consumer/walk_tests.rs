//! A random walk: clients that join, heartbeat, revoke late, lose answers, leave, restart and die, topics
//! that come, grow and go, writes that fail or come late, coordinators that change; after every step no
//! partition has two owners, and after the last one the group settles.

use super::testing::*;
use super::*;
use crate::group::state::Token;
use crate::group::store::consumer::Partitions;
use crate::group::types::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CLIENTS: usize = 5;
const TOPICS: [&str; 3] = ["a", "b", "cc"];

#[derive(Clone, Debug)]
enum Step {
    /// A heartbeat, which tells everything or as little as may be.
    Beat {
        client: usize,
        full: bool,
    },
    /// The answer that came last reaches its client, or is lost.
    Answer {
        client: usize,
        lost: bool,
    },
    /// The client gives up and takes what its last answer said.
    Reconcile {
        client: usize,
    },
    Subscribe {
        client: usize,
        topics: u8,
        regex: bool,
    },
    Leave {
        client: usize,
    },
    /// The process dies without a word; another takes its place.
    Restart {
        client: usize,
    },
    Stored {
        ok: bool,
    },
    Overdue,
    Pass {
        ms: u64,
    },
    Topic {
        topic: usize,
        partitions: usize,
    },
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => (client.clone(), any::<bool>()).prop_map(|(client, full)| Step::Beat { client, full }),
        12 => (client.clone(), prop::bool::weighted(0.15))
            .prop_map(|(client, lost)| Step::Answer { client, lost }),
        8 => client.clone().prop_map(|client| Step::Reconcile { client }),
        2 => (client.clone(), 1..8u8, any::<bool>())
            .prop_map(|(client, topics, regex)| Step::Subscribe { client, topics, regex }),
        1 => client.clone().prop_map(|client| Step::Leave { client }),
        1 => client.prop_map(|client| Step::Restart { client }),
        10 => prop::bool::weighted(0.85).prop_map(|ok| Step::Stored { ok }),
        1 => Just(Step::Overdue),
        3 => prop_oneof![Just(100u64), Just(2_000), Just(11_000)].prop_map(|ms| Step::Pass { ms }),
        2 => (0..TOPICS.len(), 0..5usize)
            .prop_map(|(topic, partitions)| Step::Topic { topic, partitions }),
        1 => Just(Step::Move),
    ]
}

/// What a client remembers. Clients 0 and 1 are static.
#[derive(Clone, Debug, Default)]
struct Client {
    lives: usize,
    epoch: i32,
    /// What it consumes now.
    owned: Partitions,
    /// What its last answer said it has.
    assigned: Partitions,
    /// What it said that it consumes in the request on its way, and in the last one that was answered.
    saying: Partitions,
    said: Partitions,
    topics: BTreeSet<String>,
    regex: Option<String>,
    waiting: Option<Token>,
    /// What it told of itself reached the coordinator.
    told: bool,
}

impl Client {
    fn id(&self, number: usize) -> String {
        format!("m{number}-{}", self.lives)
    }

    fn abandon(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.assigned.clear();
        self.said.clear();
        self.told = false;
    }
}

struct Walk {
    bench: Bench,
    clients: Vec<Client>,
    leaving: BTreeMap<Token, ()>,
}

impl Walk {
    fn new() -> Self {
        let mut bench = Bench::new(&[("a", 4), ("b", 3)]);
        bench.store_at_once = false;
        let client = Client {
            topics: ["a".to_owned()].into(),
            ..Client::default()
        };
        Self {
            bench,
            clients: vec![client; CLIENTS],
            leaving: BTreeMap::new(),
        }
    }

    fn request(&self, number: usize, full: bool) -> ConsumerHeartbeatRequest {
        let client = &self.clients[number];
        let mut request = beating(&client.id(number), client.epoch);
        request.instance_id = (number < 2).then(|| format!("i{number}"));
        if full || client.epoch == 0 || !client.told {
            request.rebalance_timeout_ms = REBALANCE;
            request.topics = Some(client.topics.clone());
            request.regex = Some(client.regex.clone().unwrap_or_default());
        }
        request.owned = Some(client.owned.clone());
        request
    }

    fn beat(&mut self, number: usize, full: bool) {
        // A client has one heartbeat on its way, and none while it is about to give up partitions.
        if self.clients[number].waiting.is_none() {
            let token = self.bench.send(self.request(number, full));
            let client = &mut self.clients[number];
            client.waiting = Some(token);
            client.saying = client.owned.clone();
        }
    }

    fn answer(&mut self, number: usize, lost: bool) {
        let client = &mut self.clients[number];
        let Some(token) = client.waiting else { return };
        let Some(response) = self.bench.answers.remove(&token) else {
            return;
        };
        client.waiting = None;
        client.said = client.saying.clone();
        if lost {
            // It knows that it missed something: its next heartbeat tells, and asks for, everything.
            client.told = false;
            return;
        }
        match response.error {
            ErrorCode::None => {
                client.epoch = response.member_epoch;
                client.told = true;
                if let Some(assigned) = response.assignment {
                    client.assigned = assigned;
                }
            }
            ErrorCode::FencedMemberEpoch
            | ErrorCode::UnknownMemberId
            | ErrorCode::GroupIdNotFound => client.abandon(),
            ErrorCode::FencedInstanceId => {
                client.abandon();
                client.lives += 1;
            }
            ErrorCode::UnreleasedInstanceId
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::GroupMaxSizeReached => client.told = false,
            other => panic!(
                "{other:?} is no answer for this: {:?}",
                response.error_message
            ),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Beat { client, full } => self.beat(client, full),
            Step::Answer { client, lost } => self.answer(client, lost),
            Step::Reconcile { client } => {
                self.reconcile(client);
            }
            Step::Subscribe {
                client,
                topics,
                regex,
            } => {
                let client = &mut self.clients[client];
                let chosen = |(n, _): &(usize, &&str)| topics & (1 << n) != 0;
                let named = TOPICS.iter().enumerate().filter(chosen);
                client.topics = named.map(|(_, name)| (*name).to_owned()).collect();
                client.regex = regex.then(|| "c+|b".to_owned());
                client.told = false;
            }
            Step::Leave { client: number } => {
                let client = &mut self.clients[number];
                if client.epoch <= 0 || client.waiting.is_some() {
                    return;
                }
                let for_a_while = number < 2;
                let epoch = if for_a_while { -2 } else { -1 };
                let mut request = beating(&client.id(number), epoch);
                request.instance_id = for_a_while.then(|| format!("i{number}"));
                client.abandon();
                client.lives += 1;
                let token = self.bench.send(request);
                self.leaving.insert(token, ());
            }
            Step::Restart { client } => {
                let client = &mut self.clients[client];
                client.abandon();
                client.lives += 1;
                client.waiting = None;
            }
            Step::Stored { ok: true } => self.bench.store(Ok(())),
            Step::Stored { ok: false } => self.bench.store(Err(ErrorCode::CoordinatorNotAvailable)),
            Step::Overdue => {
                let told = self.bench.cell.overdue();
                self.bench.answer(told);
            }
            Step::Pass { ms } => self.bench.pass(ms),
            Step::Topic { topic, partitions } => {
                // Partitions are never taken away; a topic goes as a whole.
                let name = TOPICS[topic];
                let has = self
                    .bench
                    .image
                    .topic_by_name(name)
                    .map_or(0, |t| t.partitions.len());
                if partitions == 0 || partitions > has {
                    self.bench.topic(name, partitions);
                }
            }
            Step::Move => {
                self.bench.reload();
                for client in &mut self.clients {
                    // Their connections are gone, and so are answers that did not reach them.
                    client.waiting = None;
                    client.told = false;
                }
            }
        }
        self.check();
    }

    /// A client consumes what it has been given, and nothing else, while no heartbeat of it is on its way.
    fn reconcile(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.waiting.is_none() {
            client.owned = client.assigned.clone();
        }
    }

    /// What a member consumes, and has said so, nobody else does. (What it has been given but has not taken up yet, by
    /// its own word, may be given on, as in Kafka: it hears of that with the answer to that word.)
    fn check(&self) {
        let mut owners = BTreeMap::new();
        for (number, client) in self.clients.iter().enumerate() {
            let id = client.id(number);
            if self.bench.group().member(&id).is_none() {
                continue;
            }
            for (topic, partitions) in &client.owned {
                let said = |partition: &&i32| {
                    client
                        .said
                        .get(topic)
                        .is_some_and(|p| p.contains(partition))
                };
                for partition in partitions.iter().filter(said) {
                    let other = owners.insert((*topic, *partition), id.clone());
                    assert_eq!(other, None, "{id} consumes {topic} {partition} too");
                }
            }
        }
    }

    /// Undisturbed, everyone gets their share.
    fn settle(&mut self) {
        self.bench.store_at_once = true;
        self.bench.store(Ok(()));
        for round in 0..40 {
            for number in 0..CLIENTS {
                self.reconcile(number);
                self.answer(number, false);
                if self.clients[number].waiting.take().is_some() {
                    self.clients[number].told = false;
                }
                self.beat(number, false);
                self.answer(number, false);
                self.check();
            }
            // Only those who heartbeat live on.
            self.bench.pass(if round < 20 { 900 } else { 100 });
        }
        let group = self.bench.group();
        assert_eq!(group.state(), group::State::Stable, "{group:#?}");
        assert_eq!(group.members().len(), CLIENTS);
        for (number, client) in self.clients.iter().enumerate() {
            let id = client.id(number);
            let member = group.member(&id).expect("it is in");
            assert_eq!(client.epoch, group.epoch(), "{id}");
            assert_eq!(client.assigned, *group.target(&id), "{id}");
            assert_eq!(
                client.assigned,
                member::partitions(&member.current.assigned)
            );
        }
        let assigned: usize = self.clients.iter().map(|c| size(&c.assigned)).sum();
        let wanted: BTreeSet<&str> = group.members().flat_map(|m| group.names_of(m)).collect();
        let exists = |name: &&str| {
            self.bench
                .image
                .topic_by_name(name)
                .map(|t| t.partitions.len())
        };
        let all: usize = wanted.iter().filter_map(exists).sum();
        assert_eq!(assigned, all, "everything wanted is consumed");
    }
}

fn size(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_partition_ever_has_two_owners_and_an_undisturbed_group_settles(
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut walk = Walk::new();
        for step in &steps {
            walk.step(step);
        }
        walk.settle();
    }
}
