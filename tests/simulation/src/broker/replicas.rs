//! The partitions of one broker: the real `Replica` and `Leader`, over logs on the simulated disk.

use super::mail::{Fetch, FetchAnswer, Fetched, Mail};
use super::{Broker, place};
use crate::disk::{Key, Log};
use leasehold_broker::replica::image_view::view_of;
use leasehold_broker::replica::leader::Refusal;
use leasehold_broker::replica::proposal::{IsrHint, IsrRequest};
use leasehold_broker::replica::state::{Change, Replica, Role};
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{AlterPartition, IsrProposal, Request, Response, codes};
use leasehold_types::{LeaderEpoch, Offset};
use rand::Rng as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// `replica.lag.time.max.ms` here.
const LAG: Duration = Duration::from_millis(400);
/// Few, so that catching up takes a while.
const ENTRIES_PER_FETCH: usize = 3;

/// A record that waits to be acknowledged: its value, offset and epoch.
type Waiter = (u64, usize, LeaderEpoch);

/// One partition here.
pub(crate) struct Replicated {
    replica: Replica<Waiter>,
    /// A fetch is under way; it is given up then.
    fetching_until: Option<Instant>,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn offset(n: usize) -> Offset {
    Offset(i64::try_from(n).unwrap_or(i64::MAX))
}

impl Broker {
    /// Takes a newer image.
    pub(super) fn observe(self: &Arc<Self>, image: &Image) {
        let mut hosted = Vec::new();
        for topic in image.topics.values() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let key = (topic.id, number);
                if !partition.replicas.contains(&self.id) {
                    continue;
                }
                hosted.push(key);
                let Some(view) = view_of(image, topic, number) else {
                    continue;
                };
                let mut replicas = self.replicas.lock();
                let one = replicas.entry(key).or_insert_with(|| self.open(key));
                let change = one.replica.observe(Arc::new(view), now());
                self.settle(key, one, change);
            }
        }
        let mut core = self.core.lock();
        self.replicas.lock().retain(|key, _| {
            let stays = hosted.contains(key);
            if !stays {
                core.nodes[self.me].disk.logs.remove(key);
            }
            stays
        });
    }

    fn open(&self, key: Key) -> Replicated {
        let mut core = self.core.lock();
        let log = core.nodes[self.me].disk.logs.entry(key).or_default();
        let mut replica = Replica::new(self.id, Offset(0), log.end());
        replica.opened(Offset(0), log.end(), log.last_epoch());
        Replicated {
            replica,
            fetching_until: None,
        }
    }

    /// What a transition asks for; tells the checker what it may see.
    fn settle(self: &Arc<Self>, key: Key, one: &mut Replicated, change: Change<Waiter>) {
        if change.role_changed {
            one.fetching_until = None;
        }
        if let Some(epoch) = change.prepare {
            let delay = self.core.lock().rng.random_range(1..15);
            let this = Arc::clone(self);
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                this.begin(key, epoch);
            });
        }
        let mut core = self.core.lock();
        let core = &mut *core;
        for (value, at, epoch) in change.committed {
            let line = core.check.acked(key, self.me, epoch, at, value);
            core.note(line);
        }
        if let Some(leader) = one.replica.leader() {
            let (epoch, to) = (leader.epoch(), place_of(leader.high_watermark()));
            let log = core.nodes[self.me].disk.logs.entry(key).or_default();
            core.check.high_watermark(
                key,
                self.me,
                epoch,
                &log.entries[..to.min(log.entries.len())],
            );
        }
    }

    fn begin(self: &Arc<Self>, key: Key, epoch: LeaderEpoch) {
        let mut replicas = self.replicas.lock();
        let Some(one) = replicas.get_mut(&key) else {
            return;
        };
        let end = self.with_log(key, |log| log.end());
        if one.replica.begun(epoch, (end, end), now()) {
            let mut core = self.core.lock();
            let core = &mut *core;
            let log = core.nodes[self.me].disk.logs.entry(key).or_default();
            let line = core
                .check
                .begun(key, self.me, self.life, epoch, &log.entries);
            core.note(line);
        }
    }

    fn with_log<T>(&self, key: Key, with: impl FnOnce(&mut Log) -> T) -> T {
        with(
            self.core.lock().nodes[self.me]
                .disk
                .logs
                .entry(key)
                .or_default(),
        )
    }

    pub(super) fn produce(self: &Arc<Self>, key: Key, value: u64) {
        let mut replicas = self.replicas.lock();
        let Some(one) = replicas.get_mut(&key) else {
            return;
        };
        let Some(leader) = one.replica.leader().filter(|leader| leader.has_min_isr()) else {
            return;
        };
        let epoch = leader.epoch();
        let at = {
            let mut core = self.core.lock();
            let core = &mut *core;
            let log = core.nodes[self.me].disk.logs.entry(key).or_default();
            log.entries.push((epoch, value));
            let at = log.entries.len() - 1;
            core.check
                .appended(key, self.me, self.life, true, at, (epoch, value));
            at
        };
        let waiter = Some((offset(at), (value, at, epoch)));
        let change = one.replica.appended(epoch, offset(at + 1), waiter);
        self.settle(key, one, change);
    }

    pub(super) fn serve(self: &Arc<Self>, fetch: Fetch) {
        let answer = self.look_up(&fetch).unwrap_or(FetchAnswer::Refused);
        let to = fetch.from;
        self.core
            .lock()
            .post(self.me, to, Mail::Fetched(Fetched { fetch, answer }));
    }

    fn look_up(self: &Arc<Self>, fetch: &Fetch) -> Option<FetchAnswer> {
        let mut replicas = self.replicas.lock();
        let one = replicas.get_mut(&fetch.key)?;
        let leader = one.replica.leader()?;
        let from = leasehold_types::BrokerId(i32::try_from(fetch.from).ok()?);
        if let Err(refusal) = leader.admit(from, fetch.incarnation, fetch.epoch) {
            if refusal == Refusal::Deposed {
                let change = one.replica.heard(fetch.epoch);
                self.settle(fetch.key, one, change);
            }
            return None;
        }
        let (parting, entries) = self.with_log(fetch.key, |log| {
            let parting = log.end_of(fetch.last);
            let from = log.entries.iter().skip(fetch.offset);
            (parting, from.take(ENTRIES_PER_FETCH).copied().collect())
        });
        if fetch.offset > 0 && (parting.0 < fetch.last || parting.1 < fetch.offset) {
            return Some(FetchAnswer::Diverges(parting.0, parting.1));
        }
        let change = one.replica.with_leader(fetch.epoch, |leader| {
            leader.fetched(from, fetch.incarnation, offset(fetch.offset), now())
        });
        self.settle(fetch.key, one, change);
        let high_watermark = one.replica.high_watermark();
        Some(FetchAnswer::Data {
            high_watermark,
            entries,
        })
    }

    pub(super) fn fetched(self: &Arc<Self>, fetched: Fetched) {
        let Fetched { fetch, answer } = fetched;
        let mut replicas = self.replicas.lock();
        let Some(one) = replicas.get_mut(&fetch.key) else {
            return;
        };
        let follows = matches!(one.replica.role(), Role::Following { epoch, leader: Some(_) } if *epoch == fetch.epoch);
        let end = place_of(one.replica.log_end());
        if !follows || end != fetch.offset || fetch.incarnation != self.life {
            return;
        }
        one.fetching_until = None;
        match answer {
            FetchAnswer::Refused => {}
            FetchAnswer::Diverges(epoch, their_end) => {
                let end = self.with_log(fetch.key, |log| {
                    let (_, own_end) = log.end_of(epoch);
                    log.cut(own_end.min(their_end));
                    log.end()
                });
                one.replica.truncated(end);
            }
            FetchAnswer::Data {
                high_watermark,
                entries,
            } => {
                let mut core = self.core.lock();
                let core = &mut *core;
                let log = core.nodes[self.me].disk.logs.entry(fetch.key).or_default();
                for entry in entries {
                    log.entries.push(entry);
                    let at = log.entries.len() - 1;
                    core.check
                        .appended(fetch.key, self.me, self.life, false, at, entry);
                }
                one.replica.followed(log.end(), high_watermark);
            }
        }
    }

    /// Fetches, proposes ISRs, and flushes now and then.
    pub(super) async fn upkeep(self: Arc<Self>) {
        loop {
            let pause = self.core.lock().rng.random_range(8..25);
            sleep(Duration::from_millis(pause)).await;
            let mut replicas = self.replicas.lock();
            for (key, one) in &mut *replicas {
                self.fetch(*key, one);
                self.propose(*key, one);
            }
            drop(replicas);
            let mut core = self.core.lock();
            if core.chance(4) {
                for log in core.nodes[self.me].disk.logs.values_mut() {
                    log.flushed = log.entries.len();
                }
            }
        }
    }

    fn fetch(&self, key: Key, one: &mut Replicated) {
        let Role::Following {
            leader: Some(leader),
            epoch,
        } = one.replica.role()
        else {
            return;
        };
        if one.fetching_until.is_some_and(|until| now() < until) {
            return;
        }
        let (leader, epoch) = (place(*leader), *epoch);
        one.fetching_until = Some(now() + Duration::from_millis(300));
        let fetch = self.with_log(key, |log| Fetch {
            key,
            from: self.me,
            incarnation: self.life,
            epoch,
            offset: log.entries.len(),
            last: log.last_epoch(),
        });
        self.core.lock().post(self.me, leader, Mail::Fetch(fetch));
    }

    fn propose(self: &Arc<Self>, key: Key, one: &mut Replicated) {
        let request = one
            .replica
            .leader_mut()
            .and_then(|l| l.next_request(LAG, now()));
        let Some(request) = request else {
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let hint = this.alter(key, &request).await;
            let mut replicas = this.replicas.lock();
            if let Some(leader) = replicas
                .get_mut(&key)
                .and_then(|one| one.replica.leader_mut())
            {
                leader.answered(&request, hint, now());
            }
        });
    }

    async fn alter(&self, key: Key, request: &IsrRequest) -> IsrHint {
        let Some(target) = self.target(None) else {
            return IsrHint::Unknown;
        };
        let proposal = IsrProposal {
            topic: key.0,
            partition: key.1,
            leader_epoch: request.leader_epoch,
            partition_epoch: request.partition_epoch,
            isr: request.isr.clone(),
        };
        let request = Request::AlterPartition(AlterPartition {
            broker: self.id,
            incarnation: self.life,
            proposals: vec![proposal],
        });
        match self.ask(target, request, Duration::from_millis(900)).await {
            Some(Response::AlterPartition(verdicts)) => match verdicts.first() {
                Some(verdict) if verdict.outcome.is_ok() => IsrHint::Accepted,
                Some(verdict)
                    if matches!(
                        verdict.outcome.code,
                        codes::INELIGIBLE_REPLICA | codes::INVALID_REQUEST
                    ) =>
                {
                    IsrHint::Ineligible
                }
                _ => IsrHint::Unknown,
            },
            _ => IsrHint::Unknown,
        }
    }
}

fn place_of(offset: Offset) -> usize {
    usize::try_from(offset.0).unwrap_or(0)
}
