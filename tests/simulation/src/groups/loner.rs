//! A consumer that assigns its partitions itself, and only keeps its offsets with the coordinator; among them
//! those of topics that are deleted.

use super::mail::{Answer, Ask};
use super::pending::{Heard, Pending, hear, hear_all};
use super::protocol::{Part, partitions};
use crate::broker::place;
use crate::core::Core;
use leasehold_broker::group::types::{CommitPartition, CommitRequest, CommitTopic, FetchRequest};
use leasehold_wire::ErrorCode;
use rand::Rng as _;

const PATIENCE: u64 = 1_000;
/// Its connection: no member's.
const LINE: u64 = super::LINES * 2;

pub(super) struct Loner {
    group: &'static str,
    coordinator: Option<usize>,
    question: Option<Pending>,
    commits: Vec<Pending>,
    next_at: u64,
    offset: i64,
    sent: u64,
    acked: bool,
}

/// One commit of some partitions, at `offset`; its id goes into the metadata.
pub(super) fn topics(parts: &[(Part, i64)], id: &str) -> Vec<CommitTopic> {
    let one = |((topic, partition), offset): &(Part, i64)| CommitTopic {
        name: topic.clone(),
        partitions: vec![CommitPartition {
            partition: *partition,
            offset: *offset,
            leader_epoch: 0,
            metadata: Some(id.to_owned()),
        }],
    };
    parts.iter().map(one).collect()
}

impl Loner {
    pub fn new(group: &'static str, core: &mut Core) -> Self {
        Self {
            group,
            coordinator: None,
            question: None,
            commits: Vec::new(),
            next_at: core.rng.random_range(500..2_000),
            offset: 0,
            sent: 0,
            acked: false,
        }
    }

    pub fn healed(&mut self) {
        self.acked = false;
    }

    pub fn ill(&self) -> Option<String> {
        (!self.acked).then(|| format!("G4 no offset of {} is committed", self.group))
    }

    pub fn step(&mut self, core: &mut Core, trouble: bool) {
        match hear(&mut self.question, core.now) {
            Heard::Answer(Answer::Find(found)) if found.error.is_ok() => {
                self.coordinator = Some(place(found.broker));
            }
            Heard::Answer(answer) => self.told(answer.error()),
            Heard::Lost => self.coordinator = None,
            Heard::Nothing => {}
        }
        let (answers, lost) = hear_all(&mut self.commits, core.now);
        for answer in answers {
            self.told(answer.error());
            self.acked |= answer.error().is_ok();
        }
        if lost {
            self.coordinator = None;
        }
        if core.now < self.next_at || self.question.is_some() {
            return;
        }
        self.next_at = core.now + core.rng.random_range(30..400);
        let group = self.group.to_owned();
        let Some(to) = self.coordinator else {
            let to = core.rng.random_range(0..core.nodes.len());
            self.question = Some(Pending::ask(core, LINE, to, Ask::Find(group), PATIENCE));
            return;
        };
        if core.chance(300) {
            let ask = Ask::Fetch(FetchRequest {
                group_id: group,
                topics: None,
                require_stable: true,
                member_id: None,
                member_epoch: -1,
            });
            self.question = Some(Pending::ask(core, LINE, to, ask, PATIENCE));
        } else if self.commits.len() < 4 {
            self.commit(core, to, trouble);
        }
    }

    fn commit(&mut self, core: &mut Core, to: usize, trouble: bool) {
        let mut names = vec!["t".to_owned(), "w".to_owned()];
        if trouble {
            // Topics that come and go.
            names.extend(core.check.granted.iter().cloned());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut parts = partitions(core, &names);
        parts.retain(|_| core.chance(600));
        if parts.is_empty() {
            return;
        }
        self.offset += core.rng.random_range(1..5);
        self.sent += 1;
        let id = format!("{}/{}", self.group, self.sent);
        let parts: Vec<(Part, i64)> = parts.into_iter().map(|part| (part, self.offset)).collect();
        let ask = Ask::Commit(CommitRequest {
            api_version: 8,
            group_id: self.group.to_owned(),
            generation: -1,
            retention_ms: -1,
            topics: topics(&parts, &id),
            ..CommitRequest::default()
        });
        self.commits
            .push(Pending::ask(core, LINE, to, ask, PATIENCE));
    }

    fn told(&mut self, error: ErrorCode) {
        let gone = matches!(
            error,
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable
        );
        if gone {
            self.coordinator = None;
        }
    }
}
