//! Random walks through one partition with three replicas: the real `Replica` and `Leader`, in a small
//! world of lagging metadata, late and repeated fetches and ISR requests, false alarms and crashes.
//!
//! Whatever happens, an acknowledged record stays: in the log of whoever leads, and of every member of the
//! committed ISR. A failure prints its seed; `one_walk(seed)` repeats it.

use super::proposal::{IsrHint, IsrRequest};
use super::state::{Replica, Role};
use super::view::{Member, View};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, PartitionEpoch};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LAG: Duration = Duration::from_millis(60);
const BROKERS: [BrokerId; 3] = [BrokerId(0), BrokerId(1), BrokerId(2)];

type Value = u32;

#[derive(Clone)]
struct Fetch {
    to: BrokerId,
    from: BrokerId,
    incarnation: Incarnation,
    epoch: LeaderEpoch,
    offset: usize,
    last: LeaderEpoch,
}

enum Answer {
    Diverges(LeaderEpoch, usize),
    /// Counted; the high watermark and the next record.
    Data(Offset, Option<(LeaderEpoch, Value)>),
}

struct Node {
    log: Vec<(LeaderEpoch, Value)>,
    up: bool,
    incarnation: Incarnation,
    /// Up to which version of the metadata it has seen.
    seen: usize,
    replica: Replica<Value>,
}

struct World {
    rng: StdRng,
    now: Instant,
    history: Vec<View>,
    nodes: Vec<Node>,
    fetches: Vec<Fetch>,
    requests: Vec<(BrokerId, Incarnation, IsrRequest)>,
    next: Value,
    acked: Vec<Value>,
    appenders: HashMap<LeaderEpoch, (BrokerId, Incarnation)>,
    counts: [u32; 4],
}

fn at(id: BrokerId) -> usize {
    usize::try_from(id.0).unwrap()
}

fn end(log: &[(LeaderEpoch, Value)]) -> Offset {
    Offset(i64::try_from(log.len()).unwrap())
}

/// The greatest epoch not above `epoch`, and where it ends.
fn end_of(log: &[(LeaderEpoch, Value)], epoch: LeaderEpoch) -> (LeaderEpoch, usize) {
    let upto = log.iter().rposition(|(e, _)| *e <= epoch);
    upto.map_or((LeaderEpoch::NONE, 0), |n| (log[n].0, n + 1))
}

impl World {
    fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let member = |id| Member {
            id,
            incarnation: Incarnation(1),
            may_join: true,
        };
        let first = View {
            leader: Some(BROKERS[0]),
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            replicas: BROKERS.to_vec(),
            isr: BROKERS.to_vec(),
            effective_min: if seed.is_multiple_of(3) { 1 } else { 2 },
            unclean: false,
            moves: false,
            throttled_leaders: Default::default(),
            throttled_followers: Default::default(),
            members: BROKERS.map(member).to_vec(),
        };
        let node = |id| {
            let mut replica = Replica::new(id, Offset(0), Offset(0));
            replica.observe(Arc::new(first.clone()), now);
            Node {
                log: Vec::new(),
                up: true,
                incarnation: Incarnation(1),
                seen: 0,
                replica,
            }
        };
        Self {
            rng,
            now,
            nodes: BROKERS.map(node).into_iter().collect(),
            history: vec![first],
            fetches: Vec::new(),
            requests: Vec::new(),
            next: 0,
            acked: Vec::new(),
            appenders: HashMap::new(),
            counts: [0; 4],
        }
    }

    fn current(&self) -> &View {
        self.history.last().unwrap()
    }

    fn commit(&mut self, change: impl FnOnce(&mut View)) {
        let mut next = self.current().clone();
        change(&mut next);
        let now = self.current();
        let told = (&now.leader, now.leader_epoch, &now.isr);
        if told != (&next.leader, next.leader_epoch, &next.isr) {
            next.partition_epoch = next.partition_epoch.next();
        }
        self.history.push(next);
    }

    fn settle(&mut self, change: super::state::Change<Value>) {
        self.counts[0] += u32::try_from(change.committed.len()).unwrap();
        self.counts[1] += u32::try_from(change.failed.len()).unwrap();
        for value in &change.committed {
            let held = self
                .nodes
                .iter()
                .filter(|n| n.log.iter().any(|(_, v)| v == value));
            assert!(
                held.count() >= self.history[0].effective_min,
                "{value} was acknowledged on too few replicas"
            );
        }
        self.acked.extend(change.committed);
    }

    fn deliver(&mut self, id: BrokerId) {
        let node = &mut self.nodes[at(id)];
        if !node.up || node.seen + 1 >= self.history.len() {
            return;
        }
        // One version, or all at once as a snapshot brings them.
        node.seen = if self.rng.random_bool(0.2) {
            self.history.len() - 1
        } else {
            node.seen + 1
        };
        let view = self.history[node.seen].clone();
        if view.incarnation(id) != Some(node.incarnation) {
            return;
        }
        let change = node.replica.observe(Arc::new(view), self.now);
        self.settle(change);
    }

    fn begin(&mut self, id: BrokerId) {
        let node = &mut self.nodes[at(id)];
        if let Role::Preparing(epoch) = *node.replica.role()
            && node.up
        {
            let log_end = end(&node.log);
            node.replica.begun(epoch, (log_end, log_end), self.now);
        }
    }

    fn produce(&mut self, id: BrokerId) {
        let node = &mut self.nodes[at(id)];
        let Some(leader) = node.replica.leader().filter(|_| node.up) else {
            return;
        };
        let (epoch, waits) = (leader.epoch(), leader.has_min_isr());
        let appender = (id, node.incarnation);
        let first = *self.appenders.entry(epoch).or_insert(appender);
        assert_eq!(first, appender, "two appenders in leader epoch {epoch}");
        node.log.push((epoch, self.next));
        let log_end = end(&node.log);
        let waiter = waits.then_some((Offset(log_end.0 - 1), self.next));
        self.next += 1;
        let change = node.replica.appended(epoch, log_end, waiter);
        self.settle(change);
    }

    fn ask(&self, id: BrokerId) -> Option<Fetch> {
        let node = &self.nodes[at(id)];
        match node.replica.role() {
            Role::Following {
                leader: Some(leader),
                epoch,
            } if node.up => Some(Fetch {
                to: *leader,
                from: id,
                incarnation: node.incarnation,
                epoch: *epoch,
                offset: node.log.len(),
                last: node
                    .log
                    .last()
                    .map_or(LeaderEpoch::NONE, |(epoch, _)| *epoch),
            }),
            _ => None,
        }
    }

    fn serve(&mut self, fetch: &Fetch) -> Option<Answer> {
        let now = self.now;
        let node = &mut self.nodes[at(fetch.to)];
        let leader = node.replica.leader().filter(|_| node.up)?;
        if leader
            .admit(fetch.from, fetch.incarnation, fetch.epoch)
            .is_err()
        {
            let newer = node
                .replica
                .view()
                .is_some_and(|view| fetch.epoch > view.leader_epoch);
            if newer {
                let change = node.replica.heard(fetch.epoch);
                self.settle(change);
            }
            return None;
        }
        if fetch.offset > 0 {
            let (epoch, end) = end_of(&node.log, fetch.last);
            if epoch < fetch.last || end < fetch.offset {
                return Some(Answer::Diverges(epoch, end));
            }
        }
        let offset = Offset(i64::try_from(fetch.offset).unwrap());
        let change = node.replica.with_leader(fetch.epoch, |leader| {
            leader.fetched(fetch.from, fetch.incarnation, offset, now)
        });
        let data = (
            node.replica.high_watermark(),
            node.log.get(fetch.offset).copied(),
        );
        self.settle(change);
        Some(Answer::Data(data.0, data.1))
    }

    fn fetch(&mut self, id: BrokerId) {
        let Some(fetch) = self.ask(id) else { return };
        if self.rng.random_bool(0.2) {
            self.fetches.push(fetch.clone());
        }
        let answer = self.serve(&fetch);
        let node = &mut self.nodes[at(id)];
        match answer {
            Some(Answer::Diverges(epoch, leader_end)) => {
                let (_, own_end) = end_of(&node.log, epoch);
                node.log.truncate(own_end.min(leader_end));
                node.replica.truncated(end(&node.log));
                self.counts[2] += 1;
            }
            Some(Answer::Data(high_watermark, record)) => {
                node.log.extend(record);
                node.replica.followed(end(&node.log), high_watermark);
            }
            None => {}
        }
    }

    fn propose(&mut self, id: BrokerId) {
        let now = self.now;
        let node = &mut self.nodes[at(id)];
        if !node.up {
            return;
        }
        if let Some(leader) = node.replica.leader_mut()
            && let Some(request) = leader.next_request(LAG, now)
        {
            self.requests.push((id, node.incarnation, request));
        }
    }

    /// The controller takes a request, as kafka.md orders its checks; any answer may get lost.
    fn alter(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let n = self.rng.random_range(0..self.requests.len());
        let (from, incarnation, request) = if self.rng.random_bool(0.8) {
            self.requests.swap_remove(n)
        } else {
            self.requests[n].clone()
        };
        let hint = self.judge(from, incarnation, &request);
        let heard = match self.rng.random_range(0..3) {
            0 => IsrHint::Unknown,
            _ => hint,
        };
        let now = self.now;
        if let Some(leader) = self.nodes[at(from)].replica.leader_mut() {
            leader.answered(&request, heard, now);
        }
    }

    fn judge(&mut self, from: BrokerId, sender: Incarnation, request: &IsrRequest) -> IsrHint {
        let now = self.current().clone();
        let isr: Vec<_> = request.isr.iter().map(|(id, _)| *id).collect();
        if now.incarnation(from) != Some(sender)
            || request.leader_epoch != now.leader_epoch
            || now.leader != Some(from)
        {
            return IsrHint::Unknown;
        }
        if request.partition_epoch < now.partition_epoch && isr == now.isr {
            return IsrHint::Accepted;
        }
        if request.partition_epoch != now.partition_epoch {
            return IsrHint::Unknown;
        }
        let fits = |(id, incarnation): &(BrokerId, Incarnation)| {
            now.member(*id)
                .is_some_and(|m| m.may_join && m.incarnation == *incarnation)
        };
        if !request.isr.iter().all(fits) || !isr.contains(&from) {
            return IsrHint::Ineligible;
        }
        self.counts[3] += 1;
        let same = isr == now.isr;
        self.commit(|view| {
            view.isr = isr;
            if same {
                view.partition_epoch = view.partition_epoch.next();
            }
        });
        IsrHint::Accepted
    }

    fn elect(view: &mut View, not: Option<BrokerId>) {
        let live = |id: &&BrokerId| view.member(**id).is_some_and(|m| m.may_join);
        let next = view
            .isr
            .iter()
            .find(|id| live(id) && Some(**id) != not)
            .copied();
        if next.is_some() || view.leader.is_some() {
            view.leader = next;
            view.leader_epoch = view.leader_epoch.next();
        }
    }

    fn fence(&mut self, id: BrokerId) {
        self.commit(|view| {
            view.members[at(id)].may_join = false;
            let stays = view
                .isr
                .iter()
                .any(|m| *m != id && view.members[at(*m)].may_join);
            if stays {
                view.isr.retain(|member| *member != id);
            }
            if view.leader == Some(id) {
                Self::elect(view, Some(id));
            }
        });
    }

    fn unfence(&mut self, id: BrokerId) {
        if !self.nodes[at(id)].up
            || self.current().incarnation(id) != Some(self.nodes[at(id)].incarnation)
        {
            return;
        }
        self.commit(|view| {
            view.members[at(id)].may_join = true;
            if view.leader.is_none() {
                Self::elect(view, None);
            }
        });
    }

    fn crash(&mut self, id: BrokerId) {
        self.nodes[at(id)].up = false;
    }

    fn come_back(&mut self, id: BrokerId) {
        let node = &mut self.nodes[at(id)];
        if node.up {
            return;
        }
        // Nothing was lost: the machine kept running. Its registration is one commit.
        node.up = true;
        node.incarnation.0 += 1;
        node.replica = Replica::new(id, Offset(0), end(&node.log));
        let incarnation = node.incarnation;
        self.commit(|view| {
            view.members[at(id)] = Member {
                id,
                incarnation,
                may_join: true,
            };
            if view.leader == Some(id) {
                view.leader_epoch = view.leader_epoch.next();
            } else if view.leader.is_none() {
                Self::elect(view, None);
            }
        });
        self.nodes[at(id)].seen = self.history.len() - 2;
        self.deliver(id);
    }

    fn move_leader(&mut self, id: BrokerId) {
        let view = self.current();
        if view.leader.is_some() && view.in_sync(id) && view.members[at(id)].may_join {
            self.commit(|view| {
                view.leader = Some(id);
                view.leader_epoch = view.leader_epoch.next();
            });
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(0..4));
        let id = *BROKERS.choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..100) {
            0..40 => self.fetch(id),
            40..55 => self.deliver(id),
            55..62 => self.produce(id),
            62..70 => self.begin(id),
            70..79 => self.propose(id),
            79..85 => self.alter(),
            85..86 => self.fence(id),
            86..93 => self.unfence(id),
            93..94 => self.move_leader(id),
            94..95 if self.nodes[at(id)].up => self.crash(id),
            94..98 => self.come_back(id),
            _ => {
                if let Some(late) = self.fetches.pop() {
                    self.serve(&late);
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let view = self.current();
        for value in &self.acked {
            for id in &view.isr {
                let node = &self.nodes[at(*id)];
                assert!(
                    node.log.iter().any(|(_, v)| v == value),
                    "acknowledged record {value} is not on the ISR member {id}"
                );
            }
        }
        for (n, one) in self.nodes.iter().enumerate() {
            for other in &self.nodes[..n] {
                let shared = one
                    .log
                    .iter()
                    .zip(&other.log)
                    .rposition(|(a, b)| a.0 == b.0);
                if let Some(last) = shared {
                    assert_eq!(one.log[..=last], other.log[..=last], "logs are spliced");
                }
            }
        }
    }
}

fn one_walk(seed: u64) -> [u32; 4] {
    let mut world = World::new(seed);
    for _ in 0..1500 {
        world.step();
    }
    world.counts
}

#[test]
fn an_acknowledged_record_survives_every_walk() {
    let mut sums = [0; 4];
    for seed in 0..300 {
        let walk = std::panic::catch_unwind(|| one_walk(seed));
        let counts = walk.unwrap_or_else(|_| panic!("seed {seed}"));
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    // Acknowledged, failed, truncated, ISR changes: the walks must get somewhere to prove anything.
    assert!(sums.iter().all(|sum| *sum > 300), "{sums:?}");
}
