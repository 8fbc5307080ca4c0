//! A producer with a transactional id: it finds its coordinator, gets its epoch, and then has one transaction after the
//! other, as Kafka's clients do. In version 1 it adds partitions itself, and gets a new epoch where it cannot know what
//! of its records is in a log; in version 2 the leaders add them, and each end brings the next epoch.

use super::mail::{Answer, Ask, Offset};
use super::transaction::{Sender, Sent, Transaction};
use crate::broker::mail::Mail;
use crate::broker::place;
use crate::broker::reply::reply;
use crate::check::key_of;
use crate::core::Core;
use crate::disk::Key;
use leasehold_broker::coordinator::write::Producer as Who;
use leasehold_broker::txn::types::{AddRequest, EndRequest, InitRequest, Partitions};
use leasehold_wire::ErrorCode;
use rand::Rng as _;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// After this long without an answer it asks another.
const PATIENCE: u64 = 1_500;
/// Topics that it writes to, unless their records have keys; one would rather lose records.
const TOPICS: [&str; 3] = ["t", "u", "v"];

/// What it is.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub id: &'static str,
    /// Of version 2.
    pub second: bool,
    /// Of a thousand ends that it asks for, those at which its coordinator is waylaid.
    pub waylaid: u32,
    /// Of a thousand transactions, those of which a coordinator's word is held up until they have ended.
    pub held_up: u32,
    /// Of a thousand transactions, those in a topic that their coordinator is the last to hear of.
    pub unheard_of: u32,
}

/// What it is about.
enum Step {
    /// It wants an epoch; the one that it had, if it goes on.
    Begins(Option<Who>),
    Rests,
    Adds,
    Sends,
    AddsOffsets,
    CommitsOffsets,
    Ends,
    /// It looks for what is committed of its group: at its beginning, and when all is done.
    Reads,
    Dead,
}

/// The producer.
pub(super) struct Producer {
    kind: Kind,
    line: u64,
    number: u32,
    timeout_ms: i32,
    who: Option<Who>,
    step: Step,
    coordinator: Option<usize>,
    /// Its group's.
    group_coordinator: Option<usize>,
    question: Option<(oneshot::Receiver<Answer>, u64)>,
    wait_until: u64,
    transaction: Option<Transaction>,
    sequences: BTreeMap<Key, i32>,
    next: u32,
    /// A topic that it waits for, and until when.
    awaited: Option<(String, u64)>,
    /// It began after the faults.
    fresh: bool,
    /// One of those that began after the faults is committed.
    committed: bool,
    /// And what it says of its group was read.
    done: bool,
}

impl Producer {
    pub fn new(kind: Kind, line: u64, number: u32, core: &mut Core) -> Self {
        Self {
            kind,
            line,
            number,
            timeout_ms: core.rng.random_range(700..4_000),
            who: None,
            step: Step::Begins(None),
            coordinator: None,
            group_coordinator: None,
            question: None,
            wait_until: core.now + core.rng.random_range(10..600),
            transaction: None,
            sequences: BTreeMap::new(),
            next: 0,
            awaited: None,
            fresh: false,
            committed: false,
            done: false,
        }
    }

    pub fn id(&self) -> &'static str {
        self.kind.id
    }

    pub fn is_dead(&self) -> bool {
        matches!(self.step, Step::Dead)
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// In a few words.
    pub fn says(&self) -> String {
        let step = match self.step {
            Step::Begins(_) => "wants an epoch",
            Step::Rests => "rests",
            Step::Adds => "adds partitions",
            Step::Sends => "sends",
            Step::AddsOffsets => "adds its group",
            Step::CommitsOffsets => "commits an offset",
            Step::Reads => "reads its offset",
            Step::Ends => "ends",
            Step::Dead => "is dead",
        };
        format!("{:?} {step}, coordinator {:?}", self.who, self.coordinator)
    }

    pub fn stand_still(&mut self, until: u64) {
        self.wait_until = until;
    }

    /// The faults ended.
    pub fn healed(&mut self, now: u64) {
        self.wait_until = self.wait_until.min(now + 500);
    }

    /// What it does in one step; once all is `well` it only commits one more transaction.
    pub fn step(&mut self, core: &mut Core, well: bool) {
        if core.now < self.wait_until || self.done {
            return;
        }
        if let Some((answer, until)) = &mut self.question {
            let answer = match answer.try_recv() {
                Ok(answer) => Some(answer),
                Err(TryRecvError::Empty) if core.now < *until => return,
                Err(_) => None,
            };
            self.question = None;
            match answer {
                Some(answer) => self.hear(core, answer),
                None => self.lost(),
            }
            return;
        }
        if let (Step::AddsOffsets | Step::CommitsOffsets, Some(transaction)) =
            (&self.step, &mut self.transaction)
            && transaction.is_late(core.now)
            && !well
        {
            transaction.commits = false;
            transaction.torn = true;
            self.step = Step::Ends;
        }
        if matches!(self.step, Step::CommitsOffsets | Step::Reads)
            && self.group_coordinator.is_none()
        {
            let to = core.rng.random_range(0..core.nodes.len());
            return self.ask(core, to, Ask::FindGroup(group_of(self.kind.id)));
        }
        if !matches!(self.step, Step::Rests | Step::Sends | Step::Dead)
            && self.coordinator.is_none()
        {
            let to = core.rng.random_range(0..core.nodes.len());
            return self.ask(core, to, Ask::Find);
        }
        let to = self.coordinator.unwrap_or_default();
        let id = self.kind.id.to_owned();
        let sender = self.who.map(|producer| Sender {
            id: self.kind.id,
            line: self.line,
            number: self.number,
            producer,
            second: self.kind.second,
        });
        match (&self.step, sender, &mut self.transaction) {
            (Step::Begins(expected), ..) => {
                let request = InitRequest {
                    transactional_id: id,
                    timeout_ms: self.timeout_ms,
                    expected: *expected,
                };
                self.ask(core, to, Ask::Init(request));
            }
            (Step::Rests, Some(sender), _) => self.begin(core, &sender, well),
            (Step::Adds, Some(sender), Some(transaction)) => {
                let partitions = names(core, &transaction.keys);
                let request = AddRequest {
                    transactional_id: id,
                    producer: sender.producer,
                    partitions,
                };
                self.ask(core, to, Ask::Add(request));
            }
            (Step::Sends, Some(sender), Some(transaction)) => {
                match transaction.send(core, &sender, crate::clients::leader) {
                    Sent::Waits => {}
                    Sent::Fenced => self.step = Step::Dead,
                    Sent::All if !transaction.has_offset => self.step = Step::Ends,
                    Sent::All if self.kind.second => self.step = Step::CommitsOffsets,
                    Sent::All => self.step = Step::AddsOffsets,
                    Sent::Failed => {
                        transaction.commits = false;
                        self.step = Step::Ends;
                    }
                }
            }
            (Step::AddsOffsets | Step::CommitsOffsets, Some(sender), Some(transaction)) => {
                let offset = Offset {
                    group: group_of(self.kind.id),
                    producer: sender.producer,
                    txn: transaction.txn,
                    second: self.kind.second,
                };
                match self.step {
                    Step::AddsOffsets => self.ask(core, to, Ask::AddOffsets(offset)),
                    _ => {
                        let to = self.group_coordinator.unwrap_or_default();
                        self.ask(core, to, Ask::Commit(offset));
                    }
                }
            }
            (Step::Reads, ..) => {
                let to = self.group_coordinator.unwrap_or_default();
                self.ask(core, to, Ask::Read(group_of(self.kind.id)));
            }
            (Step::Ends, Some(sender), Some(transaction)) => {
                let request = EndRequest {
                    transactional_id: id,
                    producer: sender.producer,
                    commit: transaction.commits,
                    bump: self.kind.second,
                };
                core.check.txns.asked(transaction.txn, request.commit);
                let ask = Ask::End(request, transaction.txn);
                if !well && core.chance(self.kind.waylaid) {
                    core.waylay(to);
                }
                self.ask(core, to, ask);
            }
            _ => self.step = Step::Dead,
        }
    }

    fn begin(&mut self, core: &mut Core, sender: &Sender, well: bool) {
        let names = TOPICS.map(str::to_owned);
        let mut keys: Vec<Key> = core.check.parts.keys().filter_map(key_of).collect();
        keys.retain(|key| {
            let topic = core.check.topics.get(&crate::check::name_of(*key).0);
            topic.is_some_and(|topic| names.contains(&topic.name)) && !core.check.is_compacted(*key)
        });
        keys.retain(|_| core.chance(600));
        if keys.is_empty() {
            self.wait_until = core.now + core.rng.random_range(50..300);
            return;
        }
        if !well && self.awaited.is_none() && core.chance(self.kind.unheard_of) {
            self.wish_for_a_topic(core);
        }
        if self.awaited.is_some() {
            match self.awaited_key(core) {
                Some(key) => keys = vec![key],
                None => return,
            }
        }
        let (sequences, next) = (&mut self.sequences, &mut self.next);
        let mut transaction = Transaction::begin(core, sender, keys, sequences, next);
        transaction.commits |= well;
        self.fresh = well;
        self.transaction = Some(transaction);
        self.step = match self.kind.second {
            true => Step::Sends,
            false => Step::Adds,
        };
    }

    /// A topic is asked for, which its coordinator is the last to hear of.
    fn wish_for_a_topic(&mut self, core: &mut Core) {
        let name = format!("new-{}-{}", self.number, self.next);
        core.note(format!("fault {} is the first to use {name}", self.kind.id));
        crate::clients::wish_for(core, &name);
        self.awaited = Some((name, core.now + 500));
    }

    /// Its one partition, once there is one; its leader needs a moment to hear of it.
    fn awaited_key(&mut self, core: &mut Core) -> Option<Key> {
        let (name, until) = self.awaited.clone()?;
        let mut keys = core.check.parts.keys().filter_map(key_of);
        let found = keys.find(|key| {
            let topic = core.check.topics.get(&crate::check::name_of(*key).0);
            topic.is_some_and(|topic| topic.name == name)
        });
        if let Some(node) = self.coordinator {
            core.behind.insert(node, core.now + 900);
        }
        match found {
            // It was behind all the while.
            Some(key) if core.now > until => {
                self.awaited = None;
                Some(key)
            }
            Some(_) => {
                let (name, soon) = (name, core.now + core.rng.random_range(10..60));
                self.awaited = Some((name, soon.min(until)));
                self.wait_until = soon + 1;
                None
            }
            None => {
                if core.now > until {
                    self.awaited = None;
                }
                None
            }
        }
    }

    fn ask(&mut self, core: &mut Core, to: usize, ask: Ask) {
        let (reply, answer) = reply();
        let id = self.kind.id;
        core.post_from(self.line, to, Mail::Txn { id, ask, reply });
        self.question = Some((answer, core.now + PATIENCE));
    }

    fn hear(&mut self, core: &mut Core, answer: Answer) {
        use ErrorCode as E;
        self.wait_until = core.now + core.rng.random_range(5..60);
        match (answer, &self.step) {
            (Answer::Find(found), _) => {
                let there = found.error.is_ok();
                self.coordinator = there.then(|| place(found.broker));
            }
            (Answer::FindGroup(found), _) => {
                let there = found.error.is_ok();
                self.group_coordinator = there.then(|| place(found.broker));
            }
            (Answer::Goes(Ok(who)), Step::Begins(_)) => {
                self.goes_on(who);
                self.step = match core.chance(500) {
                    true => Step::Reads,
                    false => Step::Rests,
                };
            }
            (Answer::Read(Ok(_)), Step::Reads) => {
                self.done = self.committed;
                self.step = Step::Rests;
            }
            (Answer::Added(E::None), Step::AddsOffsets) => self.step = Step::CommitsOffsets,
            (Answer::Committed(E::None), Step::CommitsOffsets) => self.step = Step::Ends,
            (
                Answer::Committed(
                    E::TransactionAbortable | E::InvalidTxnState | E::UnknownTopicOrPartition,
                ),
                Step::CommitsOffsets,
            ) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.commits = false;
                }
                self.step = Step::Ends;
            }
            (Answer::Committed(E::NotCoordinator | E::CoordinatorNotAvailable), _)
            | (Answer::Read(Err(E::NotCoordinator | E::CoordinatorNotAvailable)), _) => {
                self.group_coordinator = None;
            }
            (Answer::Goes(Ok(who)), Step::Ends) => self.ended(core, who),
            (Answer::Added(E::None), Step::Adds) => {
                self.step = Step::Sends;
                if let Some(transaction) = &mut self.transaction
                    && !self.fresh
                    && core.chance(self.kind.held_up)
                {
                    transaction.hold_up(core, self.kind.id, self.wait_until);
                }
            }
            (answer, _) => match answer.error() {
                E::ConcurrentTransactions => {}
                E::NotCoordinator | E::CoordinatorNotAvailable => self.coordinator = None,
                E::ProducerFenced
                | E::InvalidProducerEpoch
                | E::InvalidProducerIdMapping
                | E::InvalidTxnState
                | E::TransactionalIdNotFound => self.step = Step::Dead,
                _ => {}
            },
        }
    }

    /// Nobody answered.
    fn lost(&mut self) {
        match self.step {
            Step::CommitsOffsets | Step::Reads => self.group_coordinator = None,
            _ => self.coordinator = None,
        }
        // It may yet arrive.
        if let (Step::CommitsOffsets, Some(transaction)) = (&self.step, &mut self.transaction) {
            transaction.torn = true;
        }
    }

    fn goes_on(&mut self, who: Who) {
        if self.who.replace(who) != Some(who) {
            self.sequences.clear();
        }
    }

    /// Its transaction has ended, as it wished.
    fn ended(&mut self, core: &mut Core, who: Who) {
        self.wait_until = core.now + core.rng.random_range(5..400);
        self.step = Step::Rests;
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        if self.fresh && transaction.commits {
            self.committed = true;
            self.step = Step::Reads;
        }
        match self.kind.second {
            true => self.goes_on(who),
            // What it sent may yet arrive: not in its next epoch.
            false if transaction.torn && !self.committed => self.step = Step::Begins(self.who),
            false => {}
        }
    }
}

/// The group whose offsets a producer commits: nobody else's.
fn group_of(id: &str) -> String {
    format!("of-{id}")
}

/// Partitions as requests have them.
fn names(core: &Core, keys: &[Key]) -> Partitions {
    let mut partitions = Partitions::new();
    for key in keys {
        let topic = core.check.topics.get(&crate::check::name_of(*key).0);
        if let Some(topic) = topic {
            let of_topic = partitions.entry(topic.name.clone()).or_default();
            of_topic.insert(key.1);
        }
    }
    partitions
}
