//! Those who use the cluster: administrators who create topics, and producers who want every member of the
//! ISR to hold their records.

use crate::broker::mail::Mail;
use crate::check::{Checker, key_of};
use crate::core::Core;
use crate::disk::Key;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::{AdminRequest, NewTopic, Request, Response};
use leasehold_types::TopicId;
use rand::Rng as _;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Topics that every run has: name, partitions, replicas, `min.insync.replicas`.
const TOPICS: [(&str, i32, i16, &str); 3] = [("t", 2, 3, "2"), ("u", 1, 2, "1"), ("v", 1, 3, "1")];

/// All clients of a run.
#[derive(Default)]
pub struct Clients {
    wishes: u64,
    waiting: Vec<(String, oneshot::Receiver<Response>)>,
    next_value: u64,
    next_wish: u64,
    next_produce: u64,
    /// How many records were acknowledged per partition when the faults ended.
    acked: BTreeMap<Key, usize>,
}

/// The first of [`TOPICS`] that does not exist.
fn missing(core: &Core) -> Option<&'static (&'static str, i32, i16, &'static str)> {
    let exists = |name: &str| core.check.topics.values().any(|topic| topic.name == name);
    TOPICS.iter().find(|(name, ..)| !exists(name))
}

fn acked(check: &Checker) -> BTreeMap<Key, usize> {
    check
        .data
        .iter()
        .map(|(key, data)| (*key, data.acked.len()))
        .collect()
}

impl Clients {
    /// What clients do in one step.
    pub fn step(&mut self, core: &mut Core, wishful: bool) {
        self.hear(core);
        if core.now >= self.next_wish && (wishful || missing(core).is_some()) {
            self.next_wish = core.now + core.rng.random_range(200..900);
            self.wish(core);
        }
        if core.now >= self.next_produce {
            self.next_produce = core.now + core.rng.random_range(5..60);
            self.produce(core);
        }
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
        let holder = core
            .api
            .lease
            .as_ref()
            .and_then(|lease| lease.holder.clone());
        let holder = holder.as_deref().and_then(Holder::parse);
        let count = core.nodes.len();
        let to = match holder {
            Some(holder) if !core.chance(100) => crate::broker::place(holder.broker),
            _ => core.rng.random_range(0..count),
        };
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
        topic
            .configs
            .insert("min.insync.replicas".to_owned(), Some(min.to_owned()));
        let request = Box::new(Request::Admin {
            request: AdminRequest::CreateTopics {
                topics: vec![topic],
                validate_only: false,
            },
            timeout_ms: 3_000,
        });
        let (reply, answer) = oneshot::channel();
        core.post(
            to,
            to,
            Mail::Call {
                from: to,
                request,
                reply,
            },
        );
        // The first topics may be asked for again, so nothing can be said of one attempt.
        if missing.is_none() {
            self.waiting.push((name, answer));
        }
    }

    fn produce(&mut self, core: &mut Core) {
        let parts: Vec<_> = core.check.parts.iter().collect();
        if parts.is_empty() {
            return;
        }
        let (at, part) = parts[core.rng.random_range(0..parts.len())];
        let Some(key) = key_of(at) else {
            return;
        };
        let leader = part.leader.and_then(|id| usize::try_from(id).ok());
        let count = core.nodes.len();
        let to = match leader {
            Some(leader) if !core.chance(150) => leader,
            _ => core.rng.random_range(0..count),
        };
        self.next_value += 1;
        core.post(
            to,
            to,
            Mail::Produce {
                key,
                value: self.next_value,
            },
        );
    }

    /// The faults ended.
    pub fn healed(&mut self, core: &Core) {
        self.acked = acked(&core.check);
    }

    /// A topic that cannot be created, or a partition in which nothing was acknowledged since the faults ended.
    pub fn ill(&self, core: &Core) -> Option<String> {
        if let Some((name, ..)) = missing(core) {
            return Some(format!("topic {name} cannot be created"));
        }
        let now = acked(&core.check);
        let mut parts = core.check.parts.keys().filter_map(key_of);
        let stuck =
            parts.find(|key| now.get(key).unwrap_or(&0) <= self.acked.get(key).unwrap_or(&0));
        stuck.map(|key| format!("nothing is acknowledged in {key:?}"))
    }
}
