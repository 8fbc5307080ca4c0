//! A bench: one controller, its committed image, and the invariants after every step.

use super::invariants;
use crate::controller::*;
use crate::features::{Level, METADATA_VERSION};
use crate::image::{Endpoint, Image, Partition};
use crate::records::{Entry, Record};
use crate::rpc::*;
use leasehold_types::*;
use std::collections::{BTreeMap, BTreeSet};

pub struct Bench {
    pub controller: Controller,
    /// What was committed, applied from entries as a broker applies them.
    pub image: Image,
    pub now: Millis,
    pub effects: Vec<Effect>,
    pub records: Vec<Record>,
    pub can_wait: bool,
    /// For each partition, who surely holds every committed record, if all goes as badly as it may.
    holders: BTreeMap<(TopicId, i32), BTreeSet<BrokerId>>,
    token: u64,
    resignation: Option<BTreeSet<BrokerId>>,
}

pub fn b(id: i32) -> BrokerId {
    BrokerId(id)
}

pub fn ids(of: &[i32]) -> Vec<BrokerId> {
    of.iter().copied().map(BrokerId).collect()
}

pub fn genesis() -> Image {
    Image::genesis(ClusterId("test".to_owned()))
}

/// Settings with which time alone changes little.
pub fn settings() -> Settings {
    Settings {
        default_replication_factor: 3,
        leader_spread_ms: 0,
        ..Settings::default()
    }
}

pub fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// A restart on the same log directory, kernel and pod, after the run `before`.
pub fn intact(before: i64, now: i64) -> RestartReport {
    RestartReport {
        confirmed: Some(ConfirmedRun {
            incarnation: Incarnation(before),
            boot_id: "boot".to_owned(),
            pod_uid: "pod".to_owned(),
            clean: false,
        }),
        attempted: vec![Incarnation(now)],
        boot_id: "boot".to_owned(),
        pod_uid: "pod".to_owned(),
    }
}

/// A restart after the kernel's memory was lost.
pub fn lossy(before: i64, now: i64) -> RestartReport {
    RestartReport {
        boot_id: "another boot".to_owned(),
        ..intact(before, now)
    }
}

impl Bench {
    /// `n` brokers, registered as incarnations 100, 101, ... and unfenced.
    pub fn new(n: i32) -> Self {
        Self::with(n, settings())
    }

    pub fn with(n: i32, settings: Settings) -> Self {
        let mut bench = Self::on(genesis(), settings);
        for id in 0..n {
            bench.join(id, 100 + i64::from(id), RestartReport::default());
        }
        bench
    }

    /// Like [`Self::with`], in a cluster of a release before levels were recorded.
    pub fn at_the_first_level(n: i32, settings: Settings) -> Self {
        let mut bench = Self::on(genesis(), settings);
        // Somebody was there before this controller.
        bench.controller.started = true;
        for id in 0..n {
            bench.join(id, 100 + i64::from(id), RestartReport::default());
        }
        assert_eq!(bench.image.metadata_level(), Level::FIRST);
        bench
    }

    pub fn on(image: Image, settings: Settings) -> Self {
        let now = Millis(1_000_000);
        Self {
            controller: Controller::new(image.clone(), settings, now),
            holders: image
                .topics
                .values()
                .flat_map(|t| {
                    (0..)
                        .zip(&t.partitions)
                        .map(|(i, p)| ((t.id, i), p.isr.iter().copied().collect()))
                })
                .collect(),
            image,
            now,
            effects: Vec::new(),
            records: Vec::new(),
            can_wait: false,
            token: 0,
            resignation: None,
        }
    }

    /// A step whose records are committed at once, and checked.
    pub fn step(&mut self, input: Input) {
        let lossy = match &input {
            Input::Register { registration, .. } => Some((**registration).clone()),
            _ => None,
        };
        let proposed = matches!(input, Input::AlterPartition { .. });
        let before = self.image.clone();
        let output = self.controller.step(input, self.now);
        Self::check_levels(&before, &output);
        if !output.records.is_empty() {
            let entry = Entry {
                seq: self.controller.next_seq(),
                epoch: before.position.epoch,
                nonce: String::new(),
                records: output.records.clone(),
            };
            assert_eq!(self.controller.seal(), entry.seq);
            let json = serde_json::to_string(&entry).unwrap();
            let read: Entry = serde_json::from_str(&json).unwrap();
            assert_eq!(read, entry, "an entry survives its JSON: {json}");
            self.image.apply(&read).unwrap();
            self.controller.committed(entry.seq);
        }
        assert_eq!(
            &self.image,
            self.controller.image(),
            "committed and speculative image agree"
        );
        if let Some(r) = lossy {
            self.note_loss(&before, &r);
        }
        invariants::check(&before, &self.image);
        for effect in &output.effects {
            if let Effect::Resign { lost, .. } = effect {
                self.resignation = Some(lost.clone());
            }
        }
        self.check_holders(&before, &output.effects, proposed);
        (self.effects, self.records, self.can_wait) =
            (output.effects, output.records, output.can_wait);
    }

    /// Nothing is written, nor even decided, that the level does not permit.
    fn check_levels(before: &Image, output: &Output) {
        let mut level = before.metadata_level();
        for record in &output.records {
            if let Record::FeatureLevel {
                name,
                level: raised,
            } = record
                && name == METADATA_VERSION
            {
                level = *raised;
            }
            assert!(record.needs() <= level, "at level {level}: {record:?}");
        }
        for effect in &output.effects {
            if let Effect::Event(Event::Warning { message }) = effect {
                assert!(!message.contains("decision was dropped"), "{message}");
            }
        }
    }

    fn note_loss(&mut self, before: &Image, r: &Registration) {
        let was = before.broker(r.broker).map(|b| b.incarnation);
        let registered = was != Some(r.incarnation)
            && self.image.broker(r.broker).map(|b| b.incarnation) == Some(r.incarnation);
        let lost = was.is_some_and(|was| !super::super::restart::is_intact(was, &r.restart));
        let whole = r.directories.is_empty() && lost;
        for (at, holders) in &mut self.holders {
            let failed = before.partition(&at.0, at.1);
            let failed = failed.is_some_and(|p| p.is_offline(r.broker));
            if registered && (whole || failed) {
                holders.remove(&r.broker);
            }
        }
    }

    /// I8, seen from the controller: ISR and ELR hold every committed record, unless an unclean
    /// election said otherwise.
    fn check_holders(&mut self, before: &Image, effects: &[Effect], proposed: bool) {
        let mut unclean: BTreeSet<(TopicId, i32)> = BTreeSet::new();
        for effect in effects {
            if let Effect::Event(Event::Leader {
                partition,
                unclean: true,
                ..
            }) = effect
            {
                unclean.insert((partition.id, partition.partition));
            }
        }
        self.holders
            .retain(|at, _| self.image.partition(&at.0, at.1).is_some());
        for topic in self.image.topics.values() {
            for (number, p) in (0..).zip(&topic.partitions) {
                let at = (topic.id, number);
                let isr: BTreeSet<BrokerId> = p.isr.iter().copied().collect();
                let old = before.partition(&at.0, at.1);
                let holders = self.holders.entry(at).or_insert_with(|| isr.clone());
                if unclean.contains(&at) {
                    *holders = isr.clone();
                }
                // The leader vouches for whom it lets join.
                if let Some(old) = old
                    && proposed
                    && old.leader.is_some()
                {
                    holders.extend(p.isr.iter().filter(|b| !old.isr.contains(b)));
                }
                for member in p.isr.iter().chain(&p.elr) {
                    assert!(
                        holders.contains(member),
                        "{}-{number}: {member} is not known to hold everything: {p:?}, {holders:?}",
                        topic.name
                    );
                }
                if p.leader.is_some() && isr.len() >= self.image.effective_min_isr(topic, p) {
                    // From now on records may be committed that nobody else has.
                    *holders = isr;
                }
            }
        }
    }

    pub fn token(&mut self) -> ReplyTo {
        self.token += 1;
        ReplyTo(self.token)
    }

    /// The only reply of the last step.
    pub fn answer(&self) -> &Response {
        let mut replies = self.effects.iter().filter_map(|effect| match effect {
            Effect::Reply { response, .. } => Some(response),
            _ => None,
        });
        let first = replies.next().expect("a reply");
        assert!(replies.next().is_none(), "one reply");
        first
    }

    pub fn error(&self) -> i16 {
        match self.answer() {
            Response::Error(outcome) => outcome.code,
            other => panic!("not an error: {other:?}"),
        }
    }

    pub fn registration(&self, id: i32, incarnation: i64, restart: RestartReport) -> Registration {
        Registration {
            broker: b(id),
            incarnation: Incarnation(incarnation),
            client: endpoint(9092 + id as u16),
            internal: endpoint(19092 + id as u16),
            http: None,
            rack: None,
            version: String::new(),
            restart,
            directories: Vec::new(),
            unreadable: 0,
            listeners: Default::default(),
            features: crate::features::supported(),
        }
    }

    pub fn register(&mut self, id: i32, incarnation: i64, restart: RestartReport) {
        let registration = self.registration(id, incarnation, restart);
        let to = self.token();
        self.step(Input::Register {
            to,
            registration: Box::new(registration),
        });
    }

    /// Registers and polls until unfenced.
    pub fn join(&mut self, id: i32, incarnation: i64, restart: RestartReport) {
        self.register(id, incarnation, restart);
        assert!(
            matches!(self.answer(), Response::Registered { .. }),
            "{:?}",
            self.effects
        );
        self.poll(id);
        assert!(self.image.is_live(b(id)), "broker {id} is unfenced");
    }

    pub fn incarnation(&self, id: i32) -> Incarnation {
        self.image
            .broker(b(id))
            .map_or(Incarnation(-1), |b| b.incarnation)
    }

    /// A caught-up poll of the registered incarnation.
    pub fn poll(&mut self, id: i32) {
        self.poll_with(id, |_| {});
    }

    pub fn poll_with(&mut self, id: i32, set: impl FnOnce(&mut Poll)) {
        let mut poll = Poll {
            broker: b(id),
            incarnation: self.incarnation(id),
            position: Some(self.image.position),
            state: BrokerState::default(),
        };
        set(&mut poll);
        let to = self.token();
        self.step(Input::Poll { to, poll });
    }

    /// Time passes while `alive` poll.
    pub fn pass(&mut self, ms: u64, alive: &[i32]) {
        let end = self.now.plus(ms);
        while self.now < end {
            self.now = self.now.plus(100).min(end);
            for &id in alive {
                self.poll(id);
            }
            self.step(Input::Tick);
        }
    }

    pub fn evidence(&mut self, id: i32) {
        self.step(Input::SessionEvidence {
            broker: b(id),
            incarnation: self.incarnation(id),
            evidence: "connection refused".to_owned(),
        });
    }

    pub fn goodbye(&mut self, id: i32) {
        let (to, incarnation) = (self.token(), self.incarnation(id));
        self.step(Input::Goodbye {
            to,
            broker: b(id),
            incarnation,
        });
    }

    pub fn shut_down(&mut self, id: i32) {
        self.poll_with(id, |poll| poll.state.wants_shutdown = true);
    }

    pub fn admin(&mut self, request: AdminRequest) -> AdminResponse {
        let to = self.token();
        self.step(Input::Admin {
            to,
            request,
            deadline: self.now.plus(1000),
        });
        match self.answer() {
            Response::Admin(response) => response.clone(),
            other => panic!("not an admin's answer: {other:?}"),
        }
    }

    /// A topic with these replicas by partition and min.insync.replicas.
    pub fn topic(&mut self, name: &str, replicas: &[&[i32]], min: i32) -> TopicId {
        let mut topic = NewTopic::with_defaults(name);
        topic.assignments = (0..).zip(replicas).map(|(i, r)| (i, ids(r))).collect();
        topic
            .configs
            .insert("min.insync.replicas".to_owned(), Some(min.to_string()));
        let id = topic.id;
        let request = AdminRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        match self.admin(request) {
            AdminResponse::CreateTopics(created) => {
                assert!(created[0].outcome.is_ok(), "{created:?}")
            }
            other => panic!("{other:?}"),
        }
        id
    }

    pub fn config(&mut self, topic: &str, key: &str, value: Option<&str>) -> Outcome {
        let request = AdminRequest::AlterConfigs {
            resources: vec![ConfigChanges {
                target: ConfigTarget::Topic(topic.to_owned()),
                replace_all: false,
                changes: vec![ConfigChange {
                    key: key.to_owned(),
                    op: if value.is_some() {
                        ConfigOp::Set
                    } else {
                        ConfigOp::Delete
                    },
                    value: value.map(str::to_owned),
                }],
            }],
            validate_only: false,
        };
        match self.admin(request) {
            AdminResponse::AlterConfigs(outcomes) => outcomes[0].1.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn reassign(&mut self, topic: &str, partition: i32, replicas: Option<&[i32]>) -> Outcome {
        let request = AdminRequest::AlterReassignments {
            items: vec![Reassignment {
                topic: topic.to_owned(),
                partition,
                replicas: replicas.map(ids),
            }],
            allow_replication_factor_change: true,
        };
        match self.admin(request) {
            AdminResponse::AlterReassignments(outcomes) => outcomes[0].2.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What the present leader would send to have `isr`.
    pub fn proposal(&self, topic: TopicId, partition: i32, isr: &[i32]) -> AlterPartition {
        let p = self.p(topic, partition);
        let leader = p.leader.unwrap_or(b(-1));
        AlterPartition {
            broker: leader,
            incarnation: self.incarnation(leader.0),
            proposals: vec![IsrProposal {
                topic,
                partition,
                leader_epoch: p.leader_epoch,
                partition_epoch: p.partition_epoch,
                isr: isr
                    .iter()
                    .map(|&id| (b(id), self.incarnation(id)))
                    .collect(),
            }],
        }
    }

    pub fn alter(&mut self, request: AlterPartition) -> i16 {
        let to = self.token();
        self.step(Input::AlterPartition { to, request });
        match self.answer() {
            Response::AlterPartition(verdicts) => verdicts[0].outcome.code,
            Response::Error(outcome) => outcome.code,
            other => panic!("{other:?}"),
        }
    }

    pub fn propose(&mut self, topic: TopicId, partition: i32, isr: &[i32]) -> i16 {
        let request = self.proposal(topic, partition, isr);
        self.alter(request)
    }

    /// Followers catch up as their leaders see it.
    pub fn catch_up(&mut self) {
        for topic in self.image.topics.values().cloned().collect::<Vec<_>>() {
            for (n, p) in (0..).zip(&topic.partitions) {
                let all: Vec<i32> = p
                    .replicas
                    .iter()
                    .map(|b| b.0)
                    .filter(|id| self.image.is_eligible(b(*id)))
                    .collect();
                if all.len() > p.isr.len() && p.leader.is_some() {
                    assert_eq!(self.propose(topic.id, n, &all), 0);
                }
            }
        }
    }

    pub fn p(&self, topic: TopicId, partition: i32) -> Partition {
        (**self.image.partition(&topic, partition).unwrap()).clone()
    }

    pub fn leader(&self, topic: TopicId, partition: i32) -> Option<i32> {
        self.p(topic, partition).leader.map(|b| b.0)
    }

    /// Whom this controller gave as lost when it resigned.
    pub fn resigned(&self) -> Option<BTreeSet<BrokerId>> {
        self.resignation.clone()
    }
}

impl Bench {
    pub fn controller_is_over(&self) -> bool {
        self.resigned().is_some()
    }

    /// Another controller takes over at what is committed, knowing whom its predecessor lost.
    pub fn take_over(&mut self) {
        let lost = self.resignation.take().unwrap_or_default();
        let settings = self.controller.settings.clone();
        self.controller =
            Controller::new(self.image.clone(), settings, self.now).after_standing_back(lost);
        self.effects.clear();
    }
}
