//! The partitions of one broker: the real `ReplicaManager` over the real log, and how the simulated network
//! brings it to its leaders and to the controller. Tells the checker what a leader shows to anyone.

use super::mail::{Consumed, Mail, Produced, Question};
use super::reply::{Reply, reply};
use super::{Broker, place};
use crate::batches::batches;
use crate::check::name_of;
use crate::core::{Core, Shared};
use crate::disk::Key;
use crate::process::MIN_FREE;
use async_trait::async_trait;
use bytes::Bytes;
use leasehold_broker::fetch_session::follower::FollowerSession;
use leasehold_broker::replica::image_view::LeaderAddress;
use leasehold_broker::replica::offsets::EARLIEST;
use leasehold_broker::replica::{
    Acks, EndpointError, FetchEntry, FetchParams, FetchResult, IsrController, LeaderEndpoint,
    LeaderEndpoints, LeadershipChange, PartitionKey, ProduceEntry, ReplicaManager, ReplicaParts,
    ReplicaSettings, Verified,
};
use leasehold_log::LogDirs;
use leasehold_metadata::rpc::{AlterPartition, IsrProposal, IsrVerdict, Request, Response};
use leasehold_types::{LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long a leader may take beyond the wait that a fetch asks for.
const FETCH_LIMIT: Duration = Duration::from_millis(400);
/// How long a producer lets the broker wait for the ISR.
const PRODUCE_LIMIT: Duration = Duration::from_millis(1_200);

fn settings() -> ReplicaSettings {
    ReplicaSettings {
        replica_lag_time_max: Duration::from_millis(400),
        session_timeout: Duration::from_secs(3),
        fetch_wait_max: Duration::from_millis(100),
        // Few batches at a time, so that catching up takes a while.
        fetch_max_bytes: 300,
        fetch_response_max_bytes: 1_000,
        checkpoint_interval: Duration::from_secs(1),
        retention_check_interval: Duration::from_secs(1),
        cleaner_backoff: Duration::from_millis(300),
        stray_delay: Duration::from_secs(5),
        io_threads: 3,
        min_free_bytes: MIN_FREE,
        ..ReplicaSettings::default()
    }
}

impl Broker {
    /// Starts the replicas. Before, `log_dirs` must have this life confirmed.
    pub(super) fn start_replicas(self: &Arc<Self>, log_dirs: &Arc<LogDirs>) -> std::io::Result<()> {
        let confirmed = self.confirmed.clone();
        let parts = ReplicaParts {
            broker: self.id,
            incarnation: self.life,
            image: self.image.subscribe(),
            log_dirs: log_dirs.clone(),
            controller: Arc::new(Line(Arc::downgrade(self))),
            endpoints: Arc::new(Network {
                core: self.core.clone(),
                me: self.me,
            }),
            last_confirmed: Arc::new(move || *confirmed.lock()),
        };
        let replicas = ReplicaManager::start(parts, settings())?;
        tokio::spawn(Arc::clone(self).watch_leaderships(replicas.subscribe()));
        tokio::spawn(Arc::clone(self).watch_storage(replicas.clone()));
        // A process registers once.
        let _ = self.replicas.set(replicas.clone());
        self.start_groups(replicas.clone());
        self.start_transactions(replicas);
        Ok(())
    }

    /// A process ends with its last directory. Where nothing is wrong with the disks no log may go offline.
    async fn watch_storage(self: Arc<Self>, replicas: Arc<ReplicaManager>) {
        let why = replicas.storage_failure().await;
        if self.core.lock().nodes[self.me].disk.is_broken() {
            return super::end(&self.core, self.me, why).await;
        }
        let mut core = self.core.lock();
        let line = format!("S2 broker {} fails on a sound disk: {why}", self.me);
        core.check.broke(line);
    }

    async fn watch_leaderships(
        self: Arc<Self>,
        mut changes: mpsc::UnboundedReceiver<LeadershipChange>,
    ) {
        while let Some(change) = changes.recv().await {
            let key = (change.topic, change.partition);
            let mut core = self.core.lock();
            let core = &mut *core;
            let Some(epoch) = change.leads else {
                core.note(format!(
                    "data  broker {} leads {}-{} no more",
                    self.me, key.0, key.1
                ));
                continue;
            };
            self.begin(core, key, epoch);
        }
    }

    /// Tells the checker that this broker leads `key` in `epoch`: whoever comes first, the manager's own word or what
    /// it does as leader.
    fn begin(&self, core: &mut Core, key: Key, epoch: LeaderEpoch) {
        if self.begun.lock().insert(key, epoch) == Some(epoch) {
            return;
        }
        core.look(self.me);
        let log = core.nodes[self.me].disk.log(key);
        let line = core.check.begun(key, self.me, self.life, epoch, log);
        core.note(line);
    }

    /// Tells the checker how far the leader of `key` shows its log as committed, if it is led here.
    pub(super) fn show(&self, key: Key) {
        let led = self.replicas.get().and_then(|all| all.leads(key.0, key.1));
        let Some(leader) = led else {
            return;
        };
        let heard = self.heard.lock().get(&key).copied();
        let mut core = self.core.lock();
        let core = &mut *core;
        if heard > Some(leader.epoch) {
            core.check.broke(format!(
                "S1 broker {} serves {key:?} in epoch {}, and was told of {heard:?}",
                self.me, leader.epoch
            ));
        }
        self.begin(core, key, leader.epoch);
        core.look(self.me);
        let log = core.nodes[self.me].disk.log(key);
        let shown = place_of(leader.high_watermark);
        match shown <= log.end() {
            true => {
                core.check
                    .high_watermark(key, self.me, leader.epoch, log, shown);
                self.held_by_all(core, key, leader.epoch, shown);
            }
            false => core.check.broke(format!(
                "I9 broker {} shows {key:?} as committed to {shown}, and holds {}",
                self.me,
                log.end()
            )),
        }
    }

    /// I7: whoever is in the ISR that is committed, in the epoch of this leader, holds what it shows as committed.
    fn held_by_all(&self, core: &mut Core, key: Key, epoch: LeaderEpoch, shown: usize) {
        let Some(part) = core.check.parts.get(&name_of(key)) else {
            return;
        };
        if part.leader_epoch != i64::from(epoch.0) {
            return;
        }
        for member in part.isr.clone() {
            let Some(node) = usize::try_from(member)
                .ok()
                .filter(|n| *n < core.nodes.len())
            else {
                continue;
            };
            core.look(node);
            let disk = &core.nodes[node].disk;
            let (end, damaged) = (disk.log(key).end(), disk.damaged);
            if end < shown && !damaged {
                core.check.broke(format!(
                    "I7 broker {} shows {key:?} as committed to {shown}, and broker {node}, in its ISR, has {end}",
                    self.me
                ));
            }
        }
    }

    pub(super) fn serve(
        self: &Arc<Self>,
        from: usize,
        request: FetchRequest,
        reply: Reply<FetchResponse>,
    ) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let asked = epochs(&request);
            let response = replicas.serve_follower(request).await;
            for (key, epoch) in asked {
                let mut heard = this.heard.lock();
                let known = heard.entry(key).or_insert(epoch);
                *known = epoch.max(*known);
                drop(heard);
                this.show(key);
            }
            let mut core = this.core.lock();
            core.answer(this.me, from, move || reply.send(response));
        });
    }

    pub(super) fn produce(
        self: &Arc<Self>,
        key: Key,
        records: Bytes,
        values: Vec<u64>,
        reply: Reply<Produced>,
    ) {
        let Some(replicas) = self.replicas.get() else {
            return;
        };
        let entry = entry(key, records);
        let weaker = {
            let core = &mut self.core.lock();
            core.chance(100).then(|| core.chance(500))
        };
        if let Some(waits) = weaker {
            // The same from a producer that asks for less; what it hears promises nothing.
            let acks = if waits { Acks::Leader } else { Acks::None };
            tokio::spawn(replicas.append(acks, PRODUCE_LIMIT, vec![entry.clone()]));
        }
        // Queued before this returns: what comes over one connection stays in order.
        let pending = replicas.append(Acks::All, PRODUCE_LIMIT, vec![entry]);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let Some(result) = pending.await.pop() else {
                return;
            };
            let done = match result.error {
                ErrorCode::None => Ok(place_of(result.base_offset)),
                error => Err(error),
            };
            this.show(key);
            let core = &mut *this.core.lock();
            if let Ok(base) = done {
                let log = core.nodes[this.me].disk.log(key);
                let line = core.check.acked(key, this.me, (base, &values), log);
                core.note(line);
            }
            core.answer_client(move || reply.send(done));
        });
    }

    pub(super) fn consume(self: &Arc<Self>, key: Key, from: Option<usize>, reply: Reply<Consumed>) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let done = this.read_from(&replicas, key, from).await;
            let core = &mut this.core.lock();
            core.answer_client(move || reply.send(done));
        });
    }

    async fn read_from(
        &self,
        replicas: &ReplicaManager,
        key: Key,
        from: Option<usize>,
    ) -> Consumed {
        let gone = self.core.lock().check.gone(key, self.me);
        let from = match from {
            Some(from) => from,
            None => {
                let earliest = replicas.list_offsets(key, None, EARLIEST, false).await;
                let at = place_of(earliest.map_err(|refused| refused.error)?.offset);
                self.show(key);
                let core = &mut *self.core.lock();
                let log = core.nodes[self.me].disk.log(key);
                let asked = Question::Earliest;
                core.check.found(key, self.me, asked, at as i64, log);
                at
            }
        };
        let read_committed = {
            let core = &mut *self.core.lock();
            // While nothing is transactional the one is as good as the other.
            let drawn = core.chance(300);
            drawn || (core.check.txns.here && core.chance(400))
        };
        let params = FetchParams {
            replica: None,
            max_wait: Duration::from_millis(50),
            min_bytes: 1,
            max_bytes: 1_000,
            read_committed,
        };
        let entry = FetchEntry {
            topic: key.0,
            partition: key.1,
            current_leader_epoch: None,
            fetch_offset: Offset(i64::try_from(from).unwrap_or(i64::MAX)),
            last_fetched_epoch: None,
            log_start_offset: None,
            max_bytes: 1_000,
        };
        let mut results = replicas.fetch(params, vec![entry]).await;
        let result = results.pop().ok_or(ErrorCode::UnknownServerError)?;
        self.show(key);
        let core = &mut *self.core.lock();
        match result.error {
            ErrorCode::None => {
                let read = batches(&result.records);
                core.check.served(key, self.me, &read);
                let shown = (result.last_stable_offset, result.high_watermark);
                let start = core.nodes[self.me].disk.log(key).start;
                if core.check.txns.here {
                    let shown = (place_of(shown.0), place_of(shown.1));
                    core.check.stable_to(key, self.me, start, shown);
                }
                if read_committed {
                    let aborted = result.aborted.iter();
                    let aborted =
                        aborted.map(|txn| (txn.producer_id.0, place_of(txn.first_offset)));
                    let aborted: Vec<(i64, usize)> = aborted.collect();
                    core.check
                        .read_committed(key, self.me, (&read, &aborted), start);
                }
                if !read.is_empty() {
                    core.check.shows(key, self.me, from, gone);
                }
                Ok((from, read))
            }
            error => {
                if error == ErrorCode::OffsetOutOfRange {
                    let log = core.nodes[self.me].disk.log(key);
                    core.check.out_of_range(key, self.me, from, log);
                }
                Err(error)
            }
        }
    }
}

/// The partitions that a fetch asks for, and the leader epochs in which the follower believes.
fn epochs(request: &FetchRequest) -> Vec<(Key, LeaderEpoch)> {
    let topics = request.topics.iter();
    let all = topics.flat_map(|topic| {
        let parts = topic.partitions.iter();
        parts.map(|part| {
            let key = (TopicId(topic.topic_id), part.partition);
            (key, LeaderEpoch(part.current_leader_epoch))
        })
    });
    all.collect()
}

/// The way to the leaders.
struct Network {
    core: Shared,
    me: usize,
}

impl LeaderEndpoints for Network {
    fn to(&self, leader: &LeaderAddress) -> Box<dyn LeaderEndpoint> {
        Box::new(Endpoint {
            core: self.core.clone(),
            me: self.me,
            leader: place(leader.id),
            session: FollowerSession::default(),
        })
    }
}

struct Endpoint {
    core: Shared,
    me: usize,
    leader: usize,
    session: FollowerSession,
}

#[async_trait]
impl LeaderEndpoint for Endpoint {
    async fn fetch(
        &mut self,
        params: FetchParams,
        entries: Vec<FetchEntry>,
    ) -> Result<Vec<FetchResult>, EndpointError> {
        let (me, leader) = (self.me, self.leader);
        let unreachable = |why: &str| EndpointError::Unreachable(format!("broker {leader} {why}"));
        let limit = params.max_wait + FETCH_LIMIT;
        let request = Box::new(self.session.request(&params, &entries));
        let (reply, answer) = reply();
        let sent = {
            let mut core = self.core.lock();
            let there = core.nodes[leader].up.is_some() || !core.linked(me, leader);
            let mail = Mail::Fetch {
                from: me,
                request,
                reply,
            };
            core.post(me, leader, mail);
            there
        };
        if !sent {
            sleep(Duration::from_millis(2)).await;
            return Err(unreachable("refuses connections"));
        }
        match timeout(limit, answer).await {
            Ok(Ok(response)) => self.session.take(response).map_err(EndpointError::Refused),
            // A lost message is noticed as late as on a real network.
            Ok(Err(_)) => {
                sleep(Duration::from_millis(100)).await;
                Err(unreachable("ended the connection"))
            }
            Err(_) => Err(unreachable("does not answer")),
        }
    }

    fn repeat(&mut self, partitions: Vec<PartitionKey>) {
        self.session.repeat(partitions);
    }
}

/// The way to the controller. It must not keep the broker alive, which keeps the replicas.
struct Line(Weak<Broker>);

#[async_trait]
impl IsrController for Line {
    async fn alter(&self, proposals: Vec<IsrProposal>) -> Option<Vec<IsrVerdict>> {
        let broker = self.0.upgrade()?;
        let target = broker.target(None)?;
        let request = Request::AlterPartition(AlterPartition {
            broker: broker.id,
            incarnation: broker.life,
            proposals,
        });
        match broker
            .ask(target, request, Duration::from_millis(900))
            .await
        {
            Some(Response::AlterPartition(verdicts)) => Some(verdicts),
            _ => None,
        }
    }
}

fn place_of(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap_or(0)
}

/// One batch for one partition, of a client that knows no leader epoch.
pub(super) fn entry(key: Key, records: Bytes) -> ProduceEntry {
    ProduceEntry {
        topic: key.0,
        partition: key.1,
        records,
        leader_epoch: None,
        verified: Verified::NotAsked,
    }
}
