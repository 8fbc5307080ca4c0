//! A group of the newer protocol with a clock, a log and topics that a test holds in its hands.

use super::cell::{Ask, Op, Outcome, Ready, TimerChange};
use super::*;
use crate::group::state::Token;
use crate::group::store::loaded::{Loaded, LoadedConsumer};
use crate::group::timer::TimerQueue;
use crate::group::types::*;
use leasehold_metadata::image::{Partition, Topic};
use leasehold_types::{ClusterId, TopicId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub const SETTINGS: ConsumerSettings = ConsumerSettings {
    max_size: 6,
    session_timeout_ms: 10_000,
    heartbeat_interval_ms: 1_000,
    ..ConsumerSettings::DEFAULT
};
pub const REBALANCE: i32 = 3_000;

type Records = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// See the module.
pub struct Bench {
    pub cell: Cell,
    pub image: Image,
    pub settings: ConsumerSettings,
    pub now: Now,
    pub timers: TimerQueue<ConsumerTimer>,
    pub answers: BTreeMap<Token, ConsumerHeartbeatResponse>,
    pub joined: BTreeMap<Token, JoinResponse>,
    /// What is to be stored, at most one thing at a time.
    pub storing: VecDeque<Records>,
    pub store_at_once: bool,
    log: Loaded,
    next: u64,
}

pub fn topic_id(name: &str) -> TopicId {
    let mut bytes = [0; 16];
    for (slot, byte) in bytes.iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    TopicId(uuid::Uuid::from_bytes(bytes))
}

pub fn share(of: &[(&str, &[i32])]) -> crate::group::store::consumer::Partitions {
    let topics = of.iter();
    topics
        .map(|(name, partitions)| (topic_id(name), partitions.iter().copied().collect()))
        .collect()
}

/// A heartbeat of a member that joins, subscribed to `topics`.
pub fn joining(member: &str, topics: &[&str]) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        api_version: 1,
        group_id: "g".to_owned(),
        member_id: member.to_owned(),
        member_epoch: 0,
        rebalance_timeout_ms: REBALANCE,
        topics: Some(topics.iter().map(|name| (*name).to_owned()).collect()),
        owned: Some(Default::default()),
        client_id: "client".to_owned(),
        client_host: "/h".to_owned(),
        ..ConsumerHeartbeatRequest::default()
    }
}

/// A heartbeat that changes nothing.
pub fn beating(member: &str, epoch: i32) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        api_version: 1,
        group_id: "g".to_owned(),
        member_id: member.to_owned(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        client_id: "client".to_owned(),
        client_host: "/h".to_owned(),
        ..ConsumerHeartbeatRequest::default()
    }
}

impl Bench {
    pub fn new(topics: &[(&str, usize)]) -> Self {
        let mut image = Image::genesis(ClusterId("c".into()));
        for (name, partitions) in topics {
            set_topic(&mut image, name, *partitions);
        }
        Self {
            cell: Cell::new(ConsumerGroup::new("g".into())),
            image,
            settings: SETTINGS,
            now: Now {
                mono: 1_000,
                wall: 1_700_000_000_000,
            },
            timers: TimerQueue::default(),
            answers: BTreeMap::new(),
            joined: BTreeMap::new(),
            storing: VecDeque::new(),
            store_at_once: true,
            log: Loaded::default(),
            next: 0,
        }
    }

    pub fn group(&self) -> &ConsumerGroup {
        self.cell.group()
    }

    /// Sends a heartbeat; its answer may have to wait.
    pub fn send(&mut self, request: ConsumerHeartbeatRequest) -> Token {
        self.next += 1;
        let token = Token(self.next);
        let fresh_id: Arc<str> = format!("fresh-{}", self.next).into();
        if let Err(refused) = heartbeat::validate(&request, &self.settings) {
            let response = ConsumerHeartbeatResponse::refused(refused);
            self.answer(vec![Ready::Heartbeat(token, response)]);
            return token;
        }
        self.op(Op::Ask(Ask::Heartbeat {
            request: Box::new(request),
            fresh_id,
            token,
        }));
        token
    }

    /// A heartbeat that is answered at once.
    pub fn beat(&mut self, request: ConsumerHeartbeatRequest) -> ConsumerHeartbeatResponse {
        let token = self.send(request);
        self.answers.remove(&token).expect("an answer")
    }

    pub fn op(&mut self, op: Op) {
        if let Some(answer) = self.cell.push(op) {
            self.answer(vec![answer]);
        }
        self.work();
    }

    fn work(&mut self) {
        loop {
            let world = World {
                image: &self.image,
                settings: self.settings,
                now: self.now,
            };
            let timers = &self.timers;
            let Outcome {
                answers,
                timers,
                records,
            } = self.cell.work(&world, |timer| timers.contains(timer));
            self.answer(answers);
            self.set(timers);
            self.group().check();
            if !records.is_empty() {
                self.storing.push_back(records);
                assert_eq!(self.storing.len(), 1, "one write at a time");
                if self.store_at_once {
                    self.store(Ok(()));
                }
                return;
            }
            if !self.cell.has_work() {
                return;
            }
        }
    }

    /// What is on its way is stored, or is not.
    pub fn store(&mut self, result: Result<(), ErrorCode>) {
        let Some(records) = self.storing.pop_front() else {
            return;
        };
        if result.is_ok() {
            for (key, value) in records {
                self.log.apply(Some(&key), value.as_deref());
            }
        }
        let stored = self.cell.stored(result);
        self.answer(stored.answers);
        self.set(stored.timers);
        self.group().check();
        assert_eq!(self.log.counts().1, 0, "every record can be read");
        assert_eq!(
            &self.reloaded(),
            self.group(),
            "the log tells of the same group"
        );
        self.work();
    }

    fn reloaded(&self) -> ConsumerGroup {
        let groups = self.log.groups();
        let found = groups.get("g").map(|loaded| loaded.consumer.clone());
        let loaded: LoadedConsumer = found.unwrap_or_default();
        ConsumerGroup::loaded("g".into(), loaded)
    }

    /// The group moves to another coordinator: what waits is dropped, sessions begin anew.
    pub fn reload(&mut self) {
        self.storing.clear();
        self.timers = TimerQueue::default();
        self.cell = Cell::new(self.reloaded());
        let timers = self.cell.resume(self.settings.session_timeout_ms);
        self.set(timers);
        self.op(Op::Due(ConsumerTimer::Topics));
    }

    pub fn answer(&mut self, answers: Vec<Ready>) {
        for answer in answers {
            let (token, response) = match answer {
                Ready::Heartbeat(token, response) => (token, response),
                Ready::Join(token, response) => {
                    let twice = self.joined.insert(token, response);
                    assert!(twice.is_none(), "{token:?} was answered twice");
                    continue;
                }
            };
            let twice = self.answers.insert(token, response);
            assert!(twice.is_none(), "{token:?} was answered twice");
        }
    }

    fn set(&mut self, changes: Vec<TimerChange>) {
        for (timer, after) in changes {
            match after {
                Some(ms) => self.timers.set(timer, self.now.mono + ms),
                None => self.timers.cancel(&timer),
            }
        }
    }

    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono + ms;
        while let Some(at) = self.timers.next_deadline().filter(|at| *at <= end) {
            let step = at.max(self.now.mono) - self.now.mono;
            self.now.mono += step;
            self.now.wall += step as i64;
            let timer = self.timers.pop_due(self.now.mono).expect("it is due");
            self.op(Op::Due(timer));
        }
        self.now.wall += (end - self.now.mono) as i64;
        self.now.mono = end;
    }

    /// Creates a topic, gives it another number of partitions, or (with 0) deletes it.
    pub fn topic(&mut self, name: &str, partitions: usize) {
        set_topic(&mut self.image, name, partitions);
        self.op(Op::Due(ConsumerTimer::Topics));
    }

    /// A member that is in the group with all that its target gives it.
    pub fn settled(&mut self, member: &str, topics: &[&str]) -> i32 {
        self.beat(joining(member, topics)).member_epoch
    }

    pub fn members(&self) -> BTreeSet<String> {
        self.group().members().map(|m| m.id.to_string()).collect()
    }
}

fn set_topic(image: &mut Image, name: &str, partitions: usize) {
    let id = topic_id(name);
    if partitions == 0 {
        image.topics.remove(&id);
        image.names.remove(name);
        return;
    }
    let topic = Topic {
        id,
        name: name.to_owned(),
        internal: false,
        partitions: (0..partitions)
            .map(|_| Arc::new(Partition::default()))
            .collect(),
        configs: BTreeMap::new(),
    };
    image.topics.insert(id, Arc::new(topic));
    image.names.insert(name.to_owned(), id);
}
