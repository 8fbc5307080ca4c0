//! A member of a group, as consumers are: what it asks next, and what it makes of the answer.
//!
//! It may crash, stand still and go on as if nothing had happened, leave, and join again at will; and now and then
//! it says what no member should, which must come to nothing: a commit for another generation or in another's
//! name, and an assignment though it does not lead.

use super::loner::topics;
use super::mail::{Answer, Ask};
use super::pending::{Heard, Pending, hear, hear_all};
use super::protocol::{Part, RANGE, TURNS, assignment, partitions, protocols, share, share_out};
use super::{REBALANCE, SESSION};
use crate::broker::place;
use crate::core::Core;
use leasehold_broker::group::types::*;
use leasehold_wire::ErrorCode;
use rand::Rng as _;
use std::collections::BTreeMap;

/// After this long without an answer a member looks for its coordinator anew.
const PATIENCE: u64 = 1_000;
/// A join is answered when the rebalance is over.
const JOIN_PATIENCE: u64 = 5_000;
const HEARTBEAT: u64 = 300;

enum Phase {
    Join,
    Sync {
        /// Those to share out among, if it leads.
        members: Vec<JoinMember>,
        protocol: String,
    },
    /// Where was the one before?
    Fetch,
    Consume,
}

pub(super) struct Member {
    pub group: &'static str,
    topics: &'static [&'static str],
    name: String,
    /// Its connection.
    line: u64,
    instance: Option<String>,
    version: i16,
    order: Vec<&'static str>,
    phase: Phase,
    coordinator: Option<usize>,
    id: String,
    former: String,
    pub generation: i32,
    pub share: Vec<Part>,
    positions: BTreeMap<Part, i64>,
    /// The partitions there were when it joined.
    known: Vec<Part>,
    question: Option<Pending>,
    beat: Option<Pending>,
    commits: Vec<Pending>,
    next_at: u64,
    next_beat: u64,
    next_commit: u64,
    commits_sent: u64,
    /// Does nothing until then, and whether it then begins anew.
    away_until: u64,
    anew: bool,
    /// It falls silent for good, once all is well with it; and whether it has.
    goes: bool,
    pub gone: bool,
    /// Its instance came back under another id, and the former one has yet to be told so.
    haunts: bool,
    /// When a heartbeat and a commit of this generation were last granted.
    beaten_at: u64,
    committed_at: u64,
}

impl Member {
    pub fn new(
        group: &'static str,
        topics: &'static [&'static str],
        (n, line): (usize, u64),
        is_static: bool,
        core: &mut Core,
    ) -> Self {
        let name = format!("{group}-{n}");
        let versions: &[i16] = if is_static { &[5, 8, 9] } else { &[2, 4, 7, 9] };
        Self {
            group,
            topics,
            line,
            instance: is_static.then(|| format!("{name}-static")),
            version: versions[core.rng.random_range(0..versions.len())],
            order: order(core),
            phase: Phase::Join,
            coordinator: None,
            id: String::new(),
            former: String::new(),
            generation: -1,
            share: Vec::new(),
            positions: BTreeMap::new(),
            known: Vec::new(),
            question: None,
            beat: None,
            commits: Vec::new(),
            next_at: core.rng.random_range(300..2_500),
            next_beat: 0,
            next_commit: 0,
            commits_sent: 0,
            away_until: 0,
            anew: false,
            goes: false,
            gone: false,
            haunts: false,
            beaten_at: 0,
            committed_at: 0,
            name,
        }
    }

    /// Something happens to it.
    pub fn mishap(&mut self, core: &mut Core) {
        if core.now < self.away_until {
            return;
        }
        let long = core.rng.random_range(100..5_000);
        let what = match core.rng.random_range(0..6) {
            0 => {
                self.away_until = core.now + long / 2;
                self.anew = true;
                "crashes"
            }
            1 => {
                if let Some(to) = self.coordinator {
                    let ask = self.leave();
                    // It does not wait for the answer.
                    drop(Pending::ask(core, self.line, to, ask, 0));
                }
                self.away_until = core.now + long / 2;
                self.anew = true;
                "leaves"
            }
            2 => {
                self.away_until = core.now + long;
                "stands still"
            }
            3 => {
                self.phase = Phase::Join;
                self.question = None;
                "joins again"
            }
            4 => {
                self.order = order(core);
                self.phase = Phase::Join;
                self.question = None;
                "wants another protocol"
            }
            _ => {
                self.coordinator = None;
                "forgets its coordinator"
            }
        };
        core.note(format!("group {} {what}", self.name));
    }

    /// The faults ended.
    pub fn healed(&mut self, now: u64) {
        self.away_until = self.away_until.min(now);
        (self.beaten_at, self.committed_at) = (0, 0);
    }

    /// It falls silent for good, without a word, once all is well with it: whoever is left must get its share.
    pub fn go_for_good(&mut self) {
        self.goes = true;
    }

    pub fn ill(&self, now: u64) -> Option<String> {
        if self.goes && !self.gone {
            return Some(format!("{} has yet to fall silent", self.id));
        }
        self.unwell(now)
    }

    fn unwell(&self, now: u64) -> Option<String> {
        let consumes = matches!(self.phase, Phase::Consume);
        let quiet = now > self.beaten_at + 1_000;
        let behind = !self.share.is_empty() && self.committed_at == 0;
        (!consumes || quiet || behind).then(|| {
            let (id, share) = (&self.id, &self.share);
            format!(
                "{id} has {share:?}, last heartbeat at {}, last commit at {}",
                self.beaten_at, self.committed_at
            )
        })
    }

    fn begin_anew(&mut self, core: &mut Core) {
        core.note(format!("group {} begins anew", self.name));
        self.anew = false;
        self.former = std::mem::take(&mut self.id);
        self.coordinator = None;
        self.question = None;
        self.lose_place();
    }

    /// It is in no generation.
    fn lose_place(&mut self) {
        self.generation = -1;
        self.phase = Phase::Join;
        self.share.clear();
        self.positions.clear();
        self.beat = None;
        // What it sent may still arrive; the answers concern it no more.
        self.commits.clear();
        (self.beaten_at, self.committed_at) = (0, 0);
    }

    pub fn step(&mut self, core: &mut Core, trouble: bool) {
        // A static leader that comes back before version 9 does not know that it leads, and would not learn of topics that
        // come later (as in Kafka): so members come once all topics are there.
        if self.gone || core.now < self.away_until || !topics_exist(core, self.topics) {
            return;
        }
        if self.goes && self.unwell(core.now).is_none() {
            core.note(format!("group {} falls silent for good", self.name));
            self.gone = true;
            return;
        }
        if self.anew {
            self.begin_anew(core);
        }
        self.listen(core);
        if core.now < self.next_at {
            return;
        }
        let Some(to) = self.coordinator else {
            if self.question.is_none() {
                let to = core.rng.random_range(0..core.nodes.len());
                let ask = Ask::Find(self.group.to_owned());
                self.question = Some(Pending::ask(core, self.line, to, ask, PATIENCE));
            }
            return;
        };
        if self.question.is_none()
            && let Some((ask, patience)) = self.next_question(core)
        {
            self.question = Some(Pending::ask(core, self.line, to, ask, patience));
        }
        if matches!(self.phase, Phase::Fetch | Phase::Consume) {
            self.stay(core, to, trouble);
        }
    }

    fn next_question(&self, core: &mut Core) -> Option<(Ask, u64)> {
        match &self.phase {
            Phase::Join => {
                let request = JoinRequest {
                    api_version: self.version,
                    group_id: self.group.to_owned(),
                    session_timeout_ms: SESSION,
                    rebalance_timeout_ms: REBALANCE,
                    member_id: self.id.clone(),
                    instance_id: self.instance.clone(),
                    protocol_type: "consumer".to_owned(),
                    protocols: protocols(&self.order, self.topics),
                    reason: None,
                    client_id: self.name.clone(),
                    client_host: "/10.0.0.1".to_owned(),
                };
                Some((Ask::Join(request), JOIN_PATIENCE))
            }
            Phase::Sync { members, protocol } => {
                let mut assignments = Vec::new();
                if !members.is_empty() {
                    let parts = partitions(core, self.topics);
                    assignments = share_out(protocol, members, &parts);
                } else if core.chance(100) {
                    let all = partitions(core, self.topics);
                    assignments.push((self.id.clone(), assignment(&all)));
                }
                let new = self.version >= 5;
                let request = SyncRequest {
                    api_version: self.version.min(5),
                    group_id: self.group.to_owned(),
                    generation: self.generation,
                    member_id: self.id.clone(),
                    instance_id: self.instance.clone(),
                    protocol_type: new.then(|| "consumer".to_owned()),
                    protocol_name: new.then(|| protocol.clone()),
                    assignments,
                };
                Some((Ask::Sync(request), JOIN_PATIENCE))
            }
            Phase::Fetch => {
                let topics = self
                    .share
                    .iter()
                    .map(|(topic, n)| (topic.clone(), vec![*n]));
                let request = FetchRequest {
                    group_id: self.group.to_owned(),
                    topics: Some(topics.collect()),
                    require_stable: true,
                    member_id: None,
                    member_epoch: -1,
                };
                Some((Ask::Fetch(request), PATIENCE))
            }
            Phase::Consume => None,
        }
    }

    /// Heartbeats and commits.
    fn stay(&mut self, core: &mut Core, to: usize, trouble: bool) {
        if self.beat.is_none() && core.now >= self.next_beat {
            self.next_beat = core.now + HEARTBEAT;
            let request = HeartbeatRequest {
                group_id: self.group.to_owned(),
                generation: self.generation,
                member_id: self.id.clone(),
                instance_id: self.instance.clone(),
            };
            let ask = Ask::Heartbeat(request);
            self.beat = Some(Pending::ask(core, self.line, to, ask, PATIENCE));
        }
        // Its metadata tells of new partitions. Consumers do this only if they know that they lead, which a static one
        // that came back before version 9 does not; from any other it changes nothing.
        if matches!(self.phase, Phase::Consume) && self.known != partitions(core, self.topics) {
            core.note(format!("group {} joins for new partitions", self.name));
            self.phase = Phase::Join;
            return;
        }
        let consumes = matches!(self.phase, Phase::Consume) && !self.share.is_empty();
        if consumes && core.now >= self.next_commit && self.commits.len() < 4 {
            self.next_commit = core.now + core.rng.random_range(20..400);
            if trouble && core.chance(60) {
                let ask = self.lie(core);
                drop(Pending::ask(core, self.line, to, ask, 0));
            }
            for position in self.positions.values_mut() {
                *position += core.rng.random_range(0..3);
            }
            let (id, generation) = (self.id.clone(), self.generation);
            let ask = Ask::Commit(self.commit(core, id, generation));
            self.commits
                .push(Pending::ask(core, self.line, to, ask, PATIENCE));
        }
    }

    /// What ran under its instance id before it has not noticed that it was replaced, and sends one more heartbeat.
    fn haunt(&mut self, core: &mut Core) {
        let Some(to) = self.coordinator else {
            return;
        };
        if !std::mem::take(&mut self.haunts) || self.former == self.id {
            return;
        }
        let request = HeartbeatRequest {
            group_id: self.group.to_owned(),
            generation: self.generation,
            member_id: self.former.clone(),
            instance_id: self.instance.clone(),
        };
        let ask = Ask::Heartbeat(request);
        drop(Pending::ask(core, self.line, to, ask, 0));
    }

    fn commit(&mut self, core: &mut Core, member_id: String, generation: i32) -> CommitRequest {
        self.commits_sent += 1;
        let mut parts: Vec<(Part, i64)> = self.positions.clone().into_iter().collect();
        if core.chance(300) {
            parts.truncate(1);
        }
        CommitRequest {
            api_version: self.version.clamp(2, 9),
            group_id: self.group.to_owned(),
            generation,
            member_id,
            instance_id: self.instance.clone(),
            retention_ms: -1,
            topics: topics(&parts, &format!("{}/{}", self.name, self.commits_sent)),
        }
    }

    /// A commit that must be refused.
    fn lie(&mut self, core: &mut Core) -> Ask {
        let (id, generation) = (self.id.clone(), self.generation);
        let former = self.former.clone();
        let (id, generation) = match core.rng.random_range(0..4) {
            0 => (id, generation - 1),
            1 => (id, generation + 1),
            2 if !former.is_empty() => (former, generation),
            _ => (format!("{}-nobody", self.name), generation),
        };
        Ask::Commit(self.commit(core, id, generation))
    }

    fn leave(&self) -> Ask {
        let leaving = LeavingMember {
            member_id: self.id.clone(),
            instance_id: self.instance.clone(),
            reason: None,
        };
        Ask::Leave(LeaveRequest {
            group_id: self.group.to_owned(),
            members: vec![leaving],
        })
    }

    fn listen(&mut self, core: &mut Core) {
        match hear(&mut self.question, core.now) {
            Heard::Nothing => {}
            Heard::Lost => self.coordinator = None,
            Heard::Answer(answer) => self.answered(answer, core),
        }
        match hear(&mut self.beat, core.now) {
            Heard::Nothing => {}
            Heard::Lost => self.coordinator = None,
            Heard::Answer(answer) if answer.error().is_ok() => {
                self.beaten_at = core.now;
                self.haunt(core);
            }
            Heard::Answer(answer) => self.refused(answer.error(), core),
        }
        let (answers, lost) = hear_all(&mut self.commits, core.now);
        for answer in answers {
            match answer.error() {
                ErrorCode::None => self.committed_at = core.now,
                error => self.refused(error, core),
            }
        }
        if lost {
            self.coordinator = None;
        }
    }

    fn answered(&mut self, answer: Answer, core: &mut Core) {
        let error = answer.error();
        match answer {
            Answer::Find(found) if error.is_ok() => self.coordinator = Some(place(found.broker)),
            Answer::Join(response) if error.is_ok() => {
                self.lose_place();
                self.id = response.member_id;
                self.haunts = self.instance.is_some() && !self.former.is_empty();
                self.generation = response.generation;
                self.known = partitions(core, self.topics);
                self.phase = Phase::Sync {
                    members: match response.skip_assignment {
                        true => Vec::new(),
                        false => response.members,
                    },
                    protocol: response.protocol_name.unwrap_or_default(),
                };
            }
            Answer::Join(response) if error == ErrorCode::MemberIdRequired => {
                self.id = response.member_id;
            }
            Answer::Sync(response) if error.is_ok() => {
                self.share = share(&response.assignment);
                self.phase = match self.share.is_empty() {
                    true => Phase::Consume,
                    false => Phase::Fetch,
                };
            }
            Answer::Fetch(response) if error.is_ok() => {
                for (topic, offsets) in response.topics {
                    for one in offsets {
                        let part = (topic.clone(), one.partition);
                        self.positions.insert(part, one.offset.max(0));
                    }
                }
                self.phase = Phase::Consume;
            }
            _ => self.refused(error, core),
        }
    }

    fn refused(&mut self, error: ErrorCode, core: &mut Core) {
        match error {
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.coordinator = None
            }
            ErrorCode::UnknownMemberId => {
                self.former = std::mem::take(&mut self.id);
                self.question = None;
                self.lose_place();
            }
            ErrorCode::IllegalGeneration => {
                self.question = None;
                self.lose_place();
            }
            ErrorCode::FencedInstanceId => {
                // Fatal to a consumer: whoever runs it starts it again.
                self.away_until = core.now + core.rng.random_range(100..800);
                self.anew = true;
            }
            ErrorCode::RebalanceInProgress if matches!(self.phase, Phase::Join) => {}
            ErrorCode::RebalanceInProgress => {
                self.question = None;
                self.phase = Phase::Join;
            }
            _ => {}
        }
        if self.question.is_none() {
            self.next_at = core.now + core.rng.random_range(5..120);
        }
    }
}

fn topics_exist(core: &Core, names: &[&str]) -> bool {
    let there = |name: &&str| core.check.topics.values().any(|topic| topic.name == **name);
    names.iter().all(there)
}

/// The protocols in the order in which a member wants them. All know both: what a member knows beside the protocol of its
/// generation is not stored, so after a change of the coordinator one that knows the other only is turned away, as in Kafka.
fn order(core: &mut Core) -> Vec<&'static str> {
    match core.chance(500) {
        true => vec![RANGE, TURNS],
        false => vec![TURNS, RANGE],
    }
}
