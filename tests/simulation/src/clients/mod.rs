//! Those who use the cluster: administrators who create topics; idempotent producers, one per partition, who
//! want every member of the ISR to hold their records; and consumers, one per partition.

mod admin;
mod consumer;
mod garbage;
mod packing;
mod producer;
mod rare;
mod trimming;

use crate::broker::mail::{Mail, Question};
use crate::broker::reply::reply;
use crate::check::{Checker, key_of, name_of};
use crate::core::Core;
use crate::disk::Key;
use crate::groups::Groups;
use crate::process::CALENDAR;
use crate::txns::Txns;
use consumer::Consumer;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::{AdminRequest, NewTopic, Request, Response, TopicRef};
use leasehold_types::TopicId;
use packing::Packing;
use producer::Producer;
use rand::Rng as _;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use trimming::Trimming;

/// Topics that every run has: name, partitions, replicas, `min.insync.replicas`.
const TOPICS: [(&str, i32, i16, &str); 4] = [
    ("t", 2, 3, "2"),
    ("u", 1, 2, "1"),
    ("v", 1, 3, "1"),
    (UNCLEAN, 1, 3, "1"),
];

/// The topic that would rather lose records than wait.
const UNCLEAN: &str = "w";

/// What every topic has: segments that are rolled often, so that they are flushed, and indexes with entries.
const CONFIGS: [(&str, &str); 3] = [
    ("segment.ms", "700"),
    ("index.interval.bytes", "150"),
    ("file.delete.delay.ms", "1000"),
];

/// All clients of a run.
#[derive(Default)]
pub struct Clients {
    wishes: u64,
    waiting: Vec<(String, oneshot::Receiver<Response>)>,
    next_wish: u64,
    next_produce: u64,
    next_consume: u64,
    producers: BTreeMap<(Key, bool), Producer>,
    consumers: BTreeMap<Key, Consumer>,
    trimming: Trimming,
    packing: Packing,
    groups: Groups,
    txns: Txns,
    wide: bool,
    /// How many records were acknowledged per partition when the faults ended.
    acked: BTreeMap<Key, usize>,
}

/// The first of [`TOPICS`] that does not exist.
fn missing(core: &Core) -> Option<&'static (&'static str, i32, i16, &'static str)> {
    let exists = |name: &str| core.check.topics.values().any(|topic| topic.name == name);
    TOPICS.iter().find(|(name, ..)| !exists(name))
}

/// Sends a request to the controller, or to anyone.
fn send(core: &mut Core, request: AdminRequest) -> oneshot::Receiver<Response> {
    let lease = core.api.lease.as_ref();
    let holder = lease.and_then(|lease| Holder::parse(lease.holder.as_deref()?));
    let count = core.nodes.len();
    let to = match holder {
        Some(holder) if !core.chance(100) => crate::broker::place(holder.broker),
        _ => core.rng.random_range(0..count),
    };
    let request = Box::new(Request::Admin {
        request,
        timeout_ms: 3_000,
    });
    let (reply, answer) = reply();
    let from = to;
    core.post(
        from,
        to,
        Mail::Call {
            from,
            request,
            reply,
        },
    );
    answer
}

/// Asks for a topic with one partition, and does not wait for the answer.
pub(crate) fn wish_for(core: &mut Core, name: &str) {
    let id = TopicId(uuid::Uuid::from_u128(core.rng.random()));
    let mut topic = NewTopic {
        name: name.to_owned(),
        id,
        ..NewTopic::with_defaults("")
    };
    (topic.partitions, topic.replication_factor) = (1, 2);
    for (key, value) in CONFIGS.into_iter().chain([("min.insync.replicas", "1")]) {
        topic.configs.insert(key.to_owned(), Some(value.to_owned()));
    }
    let request = AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    drop(send(core, request));
}

/// Asks the controller for something, and does not wait for the answer.
pub(crate) fn ask_for(core: &mut Core, request: AdminRequest) {
    drop(send(core, request));
}

fn any_partition(core: &mut Core) -> Option<Key> {
    let count = core.check.parts.len();
    let nth = core.rng.random_range(0..count.max(1));
    core.check.parts.keys().nth(nth).and_then(key_of)
}

/// Someone asks where something is.
fn ask(core: &mut Core) {
    let Some(key) = any_partition(core) else {
        return;
    };
    let now = i64::try_from(core.now).unwrap_or(0);
    let question = match core.rng.random_range(0..6) {
        0 => Question::Earliest,
        1 => Question::Latest,
        2 => Question::LargestTime,
        3 => Question::EndOfEpoch(core.rng.random_range(0..8)),
        4 => Question::Status,
        _ => Question::Time(CALENDAR + core.rng.random_range(0..now + 1)),
    };
    let to = leader(core, key);
    core.post_from(u64::MAX - 1, to, Mail::Ask { key, question });
}

/// The leader of `key` as the records have it, or anyone.
pub(crate) fn leader(core: &mut Core, key: Key) -> usize {
    let part = core.check.parts.get(&name_of(key));
    let leader = part.and_then(|part| usize::try_from(part.leader?).ok());
    let count = core.nodes.len();
    match leader {
        Some(leader) if !core.chance(150) => leader,
        _ => core.rng.random_range(0..count),
    }
}

fn acked(check: &Checker) -> BTreeMap<Key, usize> {
    check
        .data
        .iter()
        .map(|(key, data)| (*key, data.acked.len()))
        .collect()
}

impl Clients {
    /// Those of one run; if it is `wide`, records may be deleted and compacted, and there may be groups.
    pub fn draw(core: &mut Core, wide: bool) -> Self {
        Self {
            trimming: Trimming::draw(core, wide),
            packing: Packing::draw(core, wide),
            groups: Groups::draw(core, wide),
            txns: Txns::draw(core, wide),
            wide,
            ..Self::default()
        }
    }

    /// What clients do in one step.
    pub fn step(&mut self, core: &mut Core, wishful: bool) {
        self.hear(core);
        if core.now >= self.next_wish && (wishful || missing(core).is_some()) {
            self.next_wish = core.now + core.rng.random_range(100..700);
            self.wish(core);
        }
        if core.now >= self.next_produce {
            self.next_produce = core.now + core.rng.random_range(5..60);
            self.produce(core);
            if core.chance(200) {
                ask(core);
            }
            self.trimming.delete(core);
            if self.wide && core.chance(100) {
                garbage::send(core);
            }
        }
        if core.now >= self.next_consume {
            self.next_consume = core.now + core.rng.random_range(10..60);
            if let Some(key) = any_partition(core) {
                self.consumers
                    .entry(key)
                    .or_insert_with(|| Consumer::new(key))
                    .fetch(core);
            }
        }
        for producer in self.producers.values_mut() {
            producer.step(core);
        }
        for consumer in self.consumers.values_mut() {
            consumer.hear(core);
        }
        if core.check.is_unnoticed() && core.chance(300) {
            admin::settle_something(core);
        }
        self.groups.step(core, wishful);
        self.txns.step(core, wishful);
    }

    fn hear(&mut self, core: &mut Core) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain_mut(|(name, answer)| match answer.try_recv() {
            Ok(response) => {
                let told = core.check.answered(name, &response);
                core.note(format!("wish  topic {name}: {told}"));
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        self.waiting = waiting;
    }

    fn wish(&mut self, core: &mut Core) {
        if missing(core).is_none() {
            match core.rng.random_range(0..15) {
                0..2 => {
                    if let Some(request) = admin::reassign(core) {
                        send(core, request);
                    }
                    return;
                }
                10.. => {
                    if let Some(request) = admin::anything(core) {
                        send(core, request);
                    }
                    return;
                }
                2 => {
                    if let Some(request) = self.delete(core) {
                        send(core, request);
                    }
                    return;
                }
                _ => {}
            }
        }
        let missing = missing(core);
        let (name, partitions, factor, min) = match missing {
            Some((name, partitions, factor, min)) => {
                ((*name).to_owned(), *partitions, *factor, *min)
            }
            None => {
                self.wishes += 1;
                (format!("wish-{}", self.wishes), 1, 2, "1")
            }
        };
        let id = TopicId(uuid::Uuid::from_u128(core.rng.random()));
        let mut topic = NewTopic {
            name: name.clone(),
            id,
            ..NewTopic::with_defaults("")
        };
        (topic.partitions, topic.replication_factor) = (partitions, factor);
        for (key, value) in CONFIGS.into_iter().chain([("min.insync.replicas", min)]) {
            topic.configs.insert(key.to_owned(), Some(value.to_owned()));
        }
        let special = self.trimming.configs(&name).into_iter();
        for (key, value) in special.chain(self.packing.configs(&name)) {
            topic.configs.insert(key.to_owned(), Some(value));
        }
        if name == UNCLEAN {
            let key = "unclean.leader.election.enable".to_owned();
            topic.configs.insert(key, Some("true".to_owned()));
        }
        let request = AdminRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        let answer = send(core, request);
        // The first topics may be asked for again, so nothing can be said of one attempt.
        if missing.is_none() {
            if core.chance(40) {
                let lease = core.api.lease.as_ref();
                let holder = lease.and_then(|lease| Holder::parse(lease.holder.as_deref()?));
                core.unanswered = holder.map(|holder| crate::broker::place(holder.broker));
            }
            self.waiting.push((name, answer));
        }
    }

    /// A topic that was asked for goes again.
    fn delete(&mut self, core: &mut Core) -> Option<AdminRequest> {
        let name = core.check.granted.pop_first()?;
        Some(AdminRequest::DeleteTopics {
            topics: vec![TopicRef::Name(name)],
        })
    }

    /// Every partition's producer has something to send.
    pub fn produce_everywhere(&mut self, core: &mut Core) {
        let mut keys: Vec<Key> = core.check.parts.keys().filter_map(key_of).collect();
        keys.retain(|key| !core.check.is_internal(*key));
        for key in keys {
            self.produce_to(core, key);
        }
    }

    fn produce(&mut self, core: &mut Core) {
        let key = any_partition(core).filter(|key| !core.check.is_internal(*key));
        if let Some(key) = key {
            self.produce_to(core, key);
        }
    }

    fn produce_to(&mut self, core: &mut Core, key: Key) {
        if core.quiet == Some(key) {
            return;
        }
        let count = u32::try_from(self.producers.len()).unwrap_or(0);
        // Where records go for another reason than their age, one producer says more than another.
        let rare = core.check.is_compacted(key) && core.chance(150);
        let producer = self.producers.entry((key, rare));
        producer
            .or_insert_with(|| Producer::new(key, count + 1, self.packing.codec(count)))
            .produce(core);
    }

    /// The faults ended.
    pub fn healed(&mut self, core: &mut Core) {
        self.groups.healed(core);
        self.txns.healed(core);
        // Only now: with so many faults, little is compacted.
        let rare = self.producers.keys().filter(|(_, rare)| *rare);
        let keys: Vec<Key> = rare.map(|(key, _)| *key).collect();
        for key in keys {
            let mut all = [false, true].map(|rare| self.producers.remove(&(key, rare)));
            let careful = all.iter().flatten().all(|one| one.on_their_way() < 2);
            if let [Some(usual), Some(rare)] = &mut all
                && careful
                && core.chance(700)
            {
                usual.take_care();
                rare.take_care();
                rare.tire();
            }
            for (rare, one) in all.into_iter().enumerate() {
                self.producers
                    .extend(one.map(|one| ((key, rare == 1), one)));
            }
        }
        self.acked = acked(&core.check);
    }

    /// A topic that cannot be created, or a partition in which nothing was acknowledged since the faults ended.
    pub fn ill(&self, core: &Core) -> Option<String> {
        if let Some((name, ..)) = missing(core) {
            return Some(format!("topic {name} cannot be created"));
        }
        let now = acked(&core.check);
        let parts = core.check.parts.keys().filter_map(key_of);
        let mut parts = parts.filter(|key| !core.check.is_internal(*key));
        let stuck =
            parts.find(|key| now.get(key).unwrap_or(&0) <= self.acked.get(key).unwrap_or(&0));
        let asleep = self
            .producers
            .iter()
            .find(|(_, producer)| producer.is_asleep(core.now));
        let asleep = asleep.map(|((key, _), _)| format!("a producer of {key:?} stands still"));
        stuck
            .map(|key| format!("nothing is acknowledged in {key:?}"))
            .or(asleep)
            .or_else(|| self.groups.ill(core))
            .or_else(|| self.txns.ill(core))
    }
}
