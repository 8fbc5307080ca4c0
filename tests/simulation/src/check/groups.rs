//! Groups: what members were told by which coordinator, and whether that goes together (G1 to G3, G5).
//!
//! Questions are noted when they reach a broker, answers before anyone can hear them. What is stored is judged by
//! the log of `__consumer_offsets` as the checker has it, and by nothing that a coordinator believes.
//!
//! A generation that nobody was given a share of is not stored: a new coordinator may count it again, as in Kafka. So
//! what was told in one is held against the same coordinator only (the same process in the same leader epoch), and what
//! rests on a stored generation against all.

mod generations;

use super::offsets::{Meaning, Records, Slot};
use super::{Checker, name_of};
use crate::disk::{Entry, Key};
use crate::groups::mail::{Answer, Ask};
use crate::groups::protocol::{Part, share};
use crate::groups::{REBALANCE, SESSION};
use leasehold_broker::group::types::*;
use leasehold_types::{Incarnation, LeaderEpoch};
use leasehold_wire::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

const OFFSETS: &str = "__consumer_offsets";
const TRANSACTIONS: &str = "__transaction_state";

/// A coordinator: a process, leading the group's partition in an epoch.
type Coordinator = (usize, Incarnation, LeaderEpoch);

/// What a coordinator told of a group.
#[derive(Debug, Default)]
struct Told {
    /// The newest generation.
    newest: i32,
    /// The leader and the protocol of each.
    generations: BTreeMap<i32, (String, String)>,
    /// Members who were told that they are none, or who left.
    out: BTreeSet<String>,
    /// The members under each instance id, in the order in which they were let in.
    instances: BTreeMap<String, Vec<String>>,
    /// Members whose wish to leave has come.
    leaving: BTreeSet<String>,
    /// When a member asked that was told that all is well.
    well: BTreeMap<String, u64>,
}

/// What was shared out in a generation.
#[derive(Debug, Default)]
struct Generation {
    protocol: Option<String>,
    leaders: BTreeSet<String>,
    /// What leaders, or who took themselves for such, wanted: by whom, for whom, what.
    wanted: Vec<(String, String, Vec<Part>)>,
    /// What members were given.
    shares: BTreeMap<String, Vec<Part>>,
}

/// All that was observed of groups.
#[derive(Debug, Default)]
pub struct Groups {
    pub records: Records,
    /// Names of topics that were deleted.
    pub deleted: BTreeSet<String>,
    /// Offset commits acknowledged, offsets fetched, generations in which all was shared out.
    pub counts: [u64; 3],
    /// Member ids that were given out, and the instance of each.
    known: BTreeMap<String, Option<String>>,
    told: BTreeMap<(String, Coordinator), Told>,
    generations: BTreeMap<(String, i32), Generation>,
    /// The newest generation that anyone was given a share of.
    shared: BTreeMap<String, i32>,
    /// The newest stored generation, in the order of the log.
    stored: BTreeMap<String, i32>,
    /// How often a commit reached a broker, and how often it was refused for certain.
    arrived: BTreeMap<String, (usize, usize)>,
}

/// A question that reached a broker, and what was known then.
pub struct Ticket {
    at: u64,
    by: (usize, Incarnation, Option<LeaderEpoch>),
    /// How much of its coordinator's log was committed.
    committed: usize,
    shared: Option<i32>,
    told: i32,
    /// Why a commit of this member may not be granted any more.
    out: Option<&'static str>,
    /// Who has replaced this member under its instance id, and was well.
    heir: Option<String>,
}

/// Kafka's choice of a partition.
fn partition_of(group: &str, count: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    (hash & i32::MAX) % count.max(1)
}

fn id_of(topics: &[CommitTopic]) -> &str {
    let mut all = topics.iter().flat_map(|topic| &topic.partitions);
    all.next()
        .and_then(|one| one.metadata.as_deref())
        .unwrap_or_default()
}

/// Refusals after which nothing is ever stored.
fn is_final(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::IllegalGeneration
            | ErrorCode::UnknownMemberId
            | ErrorCode::FencedInstanceId
            | ErrorCode::RebalanceInProgress
            | ErrorCode::GroupIdNotFound
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::CoordinatorLoadInProgress
    )
}

impl Groups {
    /// Records became committed, in this order.
    pub fn committed(&mut self, log: &[Option<Entry>]) -> Vec<String> {
        let mut lines = Vec::new();
        for (_, number) in log.iter().flatten() {
            match self.records.get(*number).cloned() {
                Some(Meaning::Removed((group, topic, part))) if !self.deleted.contains(&topic) => {
                    lines.push(format!(
                        "G1 the offset of group {group} in {topic}-{part} is removed, in the log"
                    ));
                }
                Some(Meaning::Group(group, generation)) => {
                    let last = self.stored.insert(group.clone(), generation);
                    if last > Some(generation) {
                        lines.push(format!("G3 generation {generation} of group {group} is stored after {last:?}, in the log"));
                    }
                }
                _ => {}
            }
        }
        lines
    }

    /// Who a member is: its instance, if it has one. An id whose answer got lost is known by how it begins.
    fn person(&self, member: &str) -> String {
        let instance = match self.known.get(member) {
            Some(instance) => instance.clone(),
            None => {
                let begins = |instance: &&String| {
                    let rest = member.strip_prefix(instance.as_str());
                    rest.is_some_and(|rest| rest.starts_with('-') && rest.len() == 37)
                };
                self.known.values().flatten().find(begins).cloned()
            }
        };
        instance.unwrap_or_else(|| member.to_owned())
    }

    /// Why this member may not commit with this coordinator.
    fn out(&self, told: Option<&Told>, request: &CommitRequest) -> Option<&'static str> {
        let member = &request.member_id;
        if request.generation < 0 {
            return None;
        }
        let Some(instance) = self.known.get(member) else {
            return Some("which nobody ever was");
        };
        let told = told?;
        if told.out.contains(member) {
            return Some("which is no member any more");
        }
        let ids = told.instances.get(instance.as_deref()?)?;
        let replaced = ids.contains(member) && ids.last() != Some(member);
        replaced.then_some("which another has replaced")
    }

    /// Who has taken the place of the static member that asks this, if all was well with it.
    fn heir(&self, told: Option<&Told>, ask: &Ask) -> Option<String> {
        let (member, instance) = match ask {
            Ask::Heartbeat(request) => (&request.member_id, &request.instance_id),
            Ask::Commit(request) => (&request.member_id, &request.instance_id),
            _ => return None,
        };
        let told = told?;
        let ids = told.instances.get(instance.as_deref()?)?;
        let heir = ids.last().filter(|heir| *heir != member)?;
        (ids.contains(member) && told.well.contains_key(heir)).then(|| heir.clone())
    }
}

impl Checker {
    /// Whether this is a partition of a coordinator's topic.
    pub fn is_internal(&self, key: Key) -> bool {
        let topic = self.topics.get(&name_of(key).0);
        topic.is_some_and(|topic| [OFFSETS, TRANSACTIONS].contains(&topic.name.as_str()))
    }

    /// The partition of the offsets topic that a group belongs to.
    pub fn home(&self, group: &str) -> Option<Key> {
        let mut topics = self.topics.iter();
        let (id, _) = topics.find(|(_, topic)| topic.name == OFFSETS)?;
        let count = self.parts.keys().filter(|(topic, _)| topic == id).count();
        let partition = partition_of(group, i32::try_from(count).ok()?);
        super::key_of(&(id.clone(), partition.into()))
    }

    /// A question reached a broker that leads the group's partition in an epoch, or not at all.
    pub fn group_asked(
        &mut self,
        now: u64,
        by: (usize, Incarnation, Option<LeaderEpoch>),
        ask: &Ask,
    ) -> Ticket {
        let group = ask.group();
        let mut ticket = Ticket {
            at: now,
            by,
            committed: 0,
            shared: self.groups.shared.get(group).copied(),
            told: -1,
            out: None,
            heir: None,
        };
        if let (Some(home), Some(epoch)) = (self.home(group), by.2)
            && let Some(data) = self.data.get(&home)
        {
            let before = data.committed_in.iter().rposition(|&one| one <= epoch);
            ticket.committed = before.map_or(0, |at| at + 1);
        }
        let told = by.2.and_then(|epoch| {
            let key = (group.to_owned(), (by.0, by.1, epoch));
            self.groups.told.get(&key)
        });
        ticket.told = told.map_or(-1, |told| told.newest);
        ticket.heir = self.groups.heir(told, ask);
        match ask {
            Ask::Commit(request) => {
                ticket.out = self.groups.out(told, request);
                let id = id_of(&request.topics).to_owned();
                self.groups.arrived.entry(id).or_default().0 += 1;
            }
            Ask::Sync(request) => {
                let key = (group.to_owned(), request.generation);
                let generation = self.groups.generations.entry(key).or_default();
                for (member, assigned) in &request.assignments {
                    let from = request.member_id.clone();
                    let wanted = (from, member.clone(), share(assigned));
                    generation.wanted.push(wanted);
                }
            }
            Ask::Leave(request) => {
                if let Some(epoch) = by.2 {
                    let key = (group.to_owned(), (by.0, by.1, epoch));
                    // A static member leaves under all the ids that it ever had, also if it does not know them.
                    let who = |one: &LeavingMember| match &one.instance_id {
                        Some(instance) => instance.clone(),
                        None => self.groups.person(&one.member_id),
                    };
                    let leaving = request.members.iter().map(who);
                    let leaving: BTreeSet<String> = leaving.collect();
                    let mut told = self.groups.told.remove(&key).unwrap_or_default();
                    told.well
                        .retain(|one, _| !leaving.contains(&self.groups.person(one)));
                    let told = self.groups.told.entry(key).or_insert(told);
                    for member in &request.members {
                        told.leaving.insert(member.member_id.clone());
                    }
                }
            }
            _ => {}
        }
        ticket
    }

    /// The answer, at a time when the broker leads the partition in epoch `leads`. A few words for the trace.
    pub fn group_answered(
        &mut self,
        now: u64,
        leads: Option<LeaderEpoch>,
        ticket: &Ticket,
        ask: &Ask,
        answer: &Answer,
    ) -> Option<String> {
        let group = ask.group().to_owned();
        let error = answer.error();
        let (node, life, led) = ticket.by;
        let home = self.home(&group)?;
        let lossy = self
            .data
            .get(&home)
            .is_some_and(|data| data.loss_pending || data.lossy_since.is_some());
        if lossy {
            // What was lost there may have been told.
            return Some(format!("{}: {error} after a loss", brief(ask)));
        }
        if led.is_none() && leads.is_none() && error.is_ok() && !matches!(ask, Ask::Find(_)) {
            self.broke(format!(
                "G5 broker {node} answers {} of group {group}, whose partition it does not lead",
                brief(ask)
            ));
        }
        // Only if it was one and the same coordinator all the time is it known whose answer this is.
        let coordinator = led
            .filter(|_| led == leads)
            .map(|epoch| (node, life, epoch));
        let mut lines = match (ask, answer) {
            (Ask::Commit(request), Answer::Commit(response)) => {
                self.commit_answered(home, ticket, coordinator, request, response)
            }
            (Ask::Fetch(request), Answer::Fetch(response)) if error.is_ok() => {
                self.fetch_answered(home, ticket, coordinator, request, response)
            }
            (Ask::Join(request), Answer::Join(response)) => {
                self.join_answered(now, coordinator, request, response)
            }
            (Ask::Sync(request), Answer::Sync(response)) if error.is_ok() => {
                self.sync_answered(request, response)
            }
            _ => Vec::new(),
        };
        lines.extend(coordinator.and_then(|by| self.not_fenced(now, (&group, by), ticket, error)));
        if let Some(coordinator) = coordinator {
            self.standing(ticket.at, (group, coordinator), ask, error);
        }
        lines.into_iter().for_each(|line| self.broke(line));
        let quiet = matches!(ask, Ask::Find(_) | Ask::Heartbeat(_)) && error.is_ok();
        (!quiet).then(|| format!("{}: {}", brief(ask), said(answer)))
    }

    /// Who was replaced under its instance id is told that, and not that it is no member: it would join again, and
    /// put out who replaced it.
    fn not_fenced(
        &self,
        now: u64,
        (group, by): (&str, Coordinator),
        ticket: &Ticket,
        error: ErrorCode,
    ) -> Option<String> {
        let heir = ticket.heir.as_ref()?;
        let told = self.groups.told.get(&(group.to_owned(), by))?;
        let patience = u64::from(SESSION.min(REBALANCE).unsigned_abs());
        let lives = told.well.get(heir).is_some_and(|at| now < at + patience);
        let stays = !told.leaving.contains(heir) && !told.out.contains(heir);
        let other = error.is_ok() || error == ErrorCode::UnknownMemberId;
        (lives && stays && other).then(|| {
            format!("G2 a member of {group} whom {heir} replaced is told {error}, and not that it was replaced")
        })
    }

    /// Who is a member, and who is none, by what it was told.
    fn standing(&mut self, at: u64, key: (String, Coordinator), ask: &Ask, error: ErrorCode) {
        let told = self.groups.told.entry(key).or_default();
        let member = match ask {
            Ask::Heartbeat(request) => &request.member_id,
            Ask::Sync(request) => &request.member_id,
            Ask::Commit(request) if request.generation >= 0 => &request.member_id,
            Ask::Join(request) => &request.member_id,
            Ask::Leave(request) => {
                for member in request.members.iter().filter(|_| error.is_ok()) {
                    told.out.insert(member.member_id.clone());
                }
                return;
            }
            _ => return,
        };
        if error == ErrorCode::UnknownMemberId && !member.is_empty() {
            told.out.insert(member.clone());
            told.well.remove(member);
        } else if error.is_ok()
            && matches!(ask, Ask::Heartbeat(_))
            && !told.leaving.contains(member)
        {
            let well = told.well.entry(member.clone()).or_default();
            *well = at.max(*well);
        }
    }

    fn commit_answered(
        &mut self,
        home: Key,
        ticket: &Ticket,
        coordinator: Option<Coordinator>,
        request: &CommitRequest,
        response: &CommitResponse,
    ) -> Vec<String> {
        let (group, member) = (&request.group_id, &request.member_id);
        let id = id_of(&request.topics).to_owned();
        let mut lines = Vec::new();
        let min = self.effective_min(home);
        // A partition that does not exist is refused by itself, all else for all of them.
        let all = response.topics.iter().flat_map(|(_, all)| all);
        let refused = all.clone().all(|(_, error)| is_final(*error));
        let known = self.groups.arrived.entry(id.clone()).or_default();
        known.1 += usize::from(refused);
        let may = known.0.saturating_sub(known.1);
        for (topic, partitions) in &response.topics {
            for (partition, error) in partitions {
                let slot = (group.clone(), topic.clone(), *partition);
                if refused {
                    let numbers = self.groups.records.of_commit(&slot, &id);
                    let held = self.data.get(&home).map(|data| data.held.values());
                    let stored = held.into_iter().flatten();
                    let stored = stored
                        .filter(|(number, _)| numbers.contains(number))
                        .count();
                    if stored > may {
                        lines.push(format!(
                            "G2 commit {id} of {group} is refused ({error}), and is in the log"
                        ));
                    }
                }
                if !error.is_ok() {
                    continue;
                }
                lines.extend(self.commit_acked(
                    home,
                    ticket,
                    coordinator.is_some(),
                    &slot,
                    &id,
                    min,
                ));
            }
        }
        if !all.clone().any(|(_, error)| error.is_ok()) {
            return lines;
        }
        self.groups.counts[0] += 1;
        let generation = request.generation;
        if generation >= 0 && Some(generation) < ticket.shared {
            let newer = ticket.shared;
            lines.push(format!("G2 {member} of {group} commits {id} in generation {generation}, when shares of {newer:?} had been given"));
        }
        if coordinator.is_some() && (0..ticket.told).contains(&generation) {
            let newer = ticket.told;
            lines.push(format!("G2 {member} of {group} commits {id} in generation {generation}, when the same coordinator had told of {newer}"));
        }
        if let Some(why) = ticket.out.filter(|_| coordinator.is_some()) {
            lines.push(format!("G2 {group} takes commit {id} of {member}, {why}"));
        }
        lines
    }

    /// The record of an offset that was acknowledged is committed, and stays.
    fn commit_acked(
        &mut self,
        home: Key,
        ticket: &Ticket,
        still_leads: bool,
        slot: &Slot,
        id: &str,
        min: usize,
    ) -> Option<String> {
        let numbers = self.groups.records.of_commit(slot, id);
        let epoch = ticket.by.2?;
        let data = self.data.get_mut(&home)?;
        let line = data.committed.iter().enumerate();
        let mut line = line.filter_map(|(at, entry)| Some((at, entry.as_ref()?.1)));
        let (at, number) = match line.find(|(_, number)| numbers.contains(number)) {
            Some(stored) => stored,
            None => {
                let held = data.held.iter().filter(|((_, one), _)| *one <= epoch);
                let mut held =
                    held.filter(|(_, (number, on))| numbers.contains(number) && on.len() >= min);
                match held.next() {
                    Some(((at, _), (number, _))) if !still_leads => (*at, *number),
                    _ => {
                        return Some(format!(
                            "G1 commit {id} of {slot:?} is acknowledged by broker {}, and is not committed",
                            ticket.by.0
                        ));
                    }
                }
            }
        };
        data.acked.push((epoch, at, number));
        None
    }

    /// A coordinator that leads gives what the log says, as it was at some time since the question came.
    fn fetch_answered(
        &mut self,
        home: Key,
        ticket: &Ticket,
        coordinator: Option<Coordinator>,
        request: &FetchRequest,
        response: &FetchResponse,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(data) = self.data.get(&home).filter(|_| coordinator.is_some()) else {
            return lines;
        };
        for (topic, offsets) in &response.topics {
            for one in offsets.iter().filter(|one| one.error.is_ok()) {
                let slot = (request.group_id.clone(), topic.clone(), one.partition);
                let line = data
                    .committed
                    .iter()
                    .map(|entry| self.groups.records.get(entry.as_ref()?.1));
                let about = line
                    .enumerate()
                    .filter_map(|(at, meaning)| Some((at, meaning?)));
                let history: Vec<(usize, &Meaning)> = about
                    .filter(|(_, meaning)| meaning.slot() == Some(&slot))
                    .collect();
                let first = history.iter().rposition(|(at, _)| *at < ticket.committed);
                let mut may: Vec<(i64, &str)> = history[first.unwrap_or(0)..]
                    .iter()
                    .map(|(_, meaning)| match meaning {
                        Meaning::Offset(_, offset, id) => (*offset, id.as_str()),
                        _ => (-1, ""),
                    })
                    .collect();
                if first.is_none() {
                    may.push((-1, ""));
                }
                self.groups.counts[1] += 1;
                let is = (one.offset, one.metadata.as_str());
                if !may.contains(&is) {
                    lines.push(format!("G1 broker {} gives {is:?} as the offset of {slot:?}; by its log it may be {may:?}", ticket.by.0));
                }
            }
        }
        lines
    }
}

/// A question in a few words.
fn brief(ask: &Ask) -> String {
    let of = |kind: &str, group: &str, member: &str, generation: i32| {
        format!("{group}: {kind} of {member} in {generation}")
    };
    match ask {
        Ask::Find(group) => format!("{group}: find"),
        Ask::Join(r) if r.member_id.is_empty() => {
            format!("{}: join of {}", r.group_id, r.client_id)
        }
        Ask::Join(r) => format!("{}: join of {}", r.group_id, r.member_id),
        Ask::Sync(r) => of("sync", &r.group_id, &r.member_id, r.generation),
        Ask::Heartbeat(r) => of("heartbeat", &r.group_id, &r.member_id, r.generation),
        Ask::Leave(r) => format!("{}: leave of {:?}", r.group_id, r.members),
        Ask::Commit(r) => of(id_of(&r.topics), &r.group_id, &r.member_id, r.generation),
        Ask::Fetch(r) => format!("{}: fetch", r.group_id),
    }
}

/// An answer in a few words.
fn said(answer: &Answer) -> String {
    match answer {
        Answer::Join(r) if r.error.is_ok() => {
            let members = r.members.len();
            format!(
                "{} in {}, {} leads {members}",
                r.member_id, r.generation, r.leader
            )
        }
        Answer::Sync(r) if r.error.is_ok() => format!("{:?}", share(&r.assignment)),
        Answer::Fetch(r) if r.error.is_ok() => {
            let all = r
                .topics
                .iter()
                .flat_map(|(topic, all)| all.iter().map(move |one| (topic, one)));
            let all: Vec<String> = all
                .map(|(t, one)| {
                    format!("{t}-{} at {} ({})", one.partition, one.offset, one.metadata)
                })
                .collect();
            all.join(", ")
        }
        other => other.error().to_string(),
    }
}
