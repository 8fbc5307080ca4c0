//! Copying from leaders: one task per leader that this broker follows.
//!
//! Promises: a follower appends only what continues its log, under the leader and epoch of its role;
//! it cuts its log where the leader's parts from it, once per epoch that it missed; its high
//! watermark is min(leader's, own log end). A changed assignment interrupts the fetch in flight, so
//! that a new leader's followers come at once.

use super::counters::Counters;
use super::endpoint::{LeaderEndpoint, LeaderEndpoints};
use super::follow::{Followed, follow};
use super::image_view::LeaderAddress;
use super::partition::Partition;
use super::settings::ReplicaSettings;
use super::space::Writer;
use super::suspects::Suspects;
use super::throttle::Throttles;
use super::types::*;
use leasehold_types::seams::{self, HashMap};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const FIRST_RETRY: Duration = Duration::from_millis(2);
const LAST_RETRY: Duration = Duration::from_millis(100);

/// What to copy from one leader.
type Assignment = (LeaderAddress, Vec<(Arc<Partition>, LeaderEpoch)>);

/// All fetchers.
pub struct Fetchers {
    me: (BrokerId, Incarnation),
    endpoints: Arc<dyn LeaderEndpoints>,
    counters: Arc<Counters>,
    throttles: Arc<Throttles>,
    params: FetchParams,
    partition_max_bytes: usize,
    running: Mutex<HashMap<BrokerId, Running>>,
    /// Leaders that cannot be fetched from now.
    pub suspects: Arc<Suspects>,
}

struct Running {
    assignment: watch::Sender<Arc<Assignment>>,
    task: JoinHandle<()>,
}

fn same(one: &Assignment, other: &Assignment) -> bool {
    one.0 == other.0
        && one.1.len() == other.1.len()
        && one
            .1
            .iter()
            .zip(&other.1)
            .all(|(one, other)| Arc::ptr_eq(&one.0, &other.0) && one.1 == other.1)
}

impl Fetchers {
    /// No fetcher runs before the first assignment.
    pub fn new(
        me: (BrokerId, Incarnation),
        endpoints: Arc<dyn LeaderEndpoints>,
        counters: Arc<Counters>,
        throttles: Arc<Throttles>,
        settings: &ReplicaSettings,
    ) -> Self {
        Self {
            me,
            endpoints,
            counters,
            throttles,
            params: FetchParams {
                replica: Some(me),
                max_wait: settings.fetch_wait_max,
                min_bytes: 1,
                max_bytes: settings.fetch_response_max_bytes,
                read_committed: false,
            },
            partition_max_bytes: settings.fetch_max_bytes,
            running: Mutex::default(),
            suspects: Arc::default(),
        }
    }

    /// Copies exactly this from now on. Leaders whose part did not change are not disturbed.
    pub fn assign(&self, mut assignments: HashMap<BrokerId, Assignment>) {
        let mut running = self.running.lock();
        running.retain(|leader, fetcher| match assignments.remove(leader) {
            Some(next) => {
                fetcher.assignment.send_if_modified(|present| {
                    let differs = !same(present, &next);
                    if differs {
                        *present = Arc::new(next);
                    }
                    differs
                });
                true
            }
            None => {
                fetcher.task.abort();
                false
            }
        });
        for (leader, assignment) in assignments {
            let (sender, receiver) = watch::channel(Arc::new(assignment));
            let fetcher = Fetcher {
                me: self.me,
                endpoints: self.endpoints.clone(),
                counters: self.counters.clone(),
                throttles: self.throttles.clone(),
                held_until: None,
                params: self.params.clone(),
                partition_max_bytes: self.partition_max_bytes,
                resting: HashMap::default(),
                turn: 0,
                suspects: self.suspects.clone(),
            };
            let task = tokio::spawn(fetcher.run(receiver));
            let assignment = sender;
            running.insert(leader, Running { assignment, task });
        }
    }

    /// Ends all fetchers.
    pub fn stop(&self) {
        for (_, fetcher) in self.running.lock().drain() {
            fetcher.task.abort();
        }
    }
}

/// Growing pauses after errors.
#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    next: Duration,
}

impl Rest {
    fn after(previous: Option<Self>) -> Self {
        let pause = previous.map_or(FIRST_RETRY, |rest| rest.next);
        Self {
            until: Instant::now() + pause,
            next: (pause * 2).min(LAST_RETRY),
        }
    }
}

struct Fetcher {
    me: (BrokerId, Incarnation),
    endpoints: Arc<dyn LeaderEndpoints>,
    counters: Arc<Counters>,
    throttles: Arc<Throttles>,
    /// Until when what a topic wants held back here waits, if it does.
    held_until: Option<Instant>,
    params: FetchParams,
    partition_max_bytes: usize,
    /// Partitions that the leader refused, or that could not be appended to.
    resting: HashMap<PartitionKey, Rest>,
    /// Rotates the partitions, so that none starves behind the answer's size.
    turn: usize,
    suspects: Arc<Suspects>,
}

impl Fetcher {
    async fn run(mut self, mut assignments: watch::Receiver<Arc<Assignment>>) {
        loop {
            let assignment = assignments.borrow_and_update().clone();
            self.resting.clear();
            let mut endpoint = self.endpoints.to(&assignment.0);
            tokio::select! {
                biased;
                changed = assignments.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.copy(&assignment, &mut *endpoint) => {}
            }
        }
    }

    /// Copies until it is dropped.
    async fn copy(&mut self, assignment: &Assignment, endpoint: &mut dyn LeaderEndpoint) {
        let leader = assignment.0.id;
        let mut connection_rest = None;
        loop {
            let now = Instant::now();
            let due = self.due(&assignment.1, now);
            let wakes = next_wake(self.resting.values(), now).into_iter();
            let wake = wakes.chain(self.held_until).min();
            if due.is_empty() {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    // Nothing to copy, until the assignment changes.
                    None => std::future::pending().await,
                }
                continue;
            }
            let mut params = self.params.clone();
            if let Some(wake) = wake {
                // Do not keep those who rest waiting behind a fetch of the others.
                let pause = wake.saturating_duration_since(now);
                params.max_wait = params.max_wait.min(pause.max(FIRST_RETRY));
            }
            let entries = due.iter().map(|(_, entry)| entry.clone()).collect();
            match endpoint.fetch(params, entries).await {
                Ok(results) => {
                    // Always: the failure may have been met under an assignment before this one.
                    self.suspects.found(leader, assignment.0.incarnation);
                    if connection_rest.take().is_some() {
                        tracing::info!(broker = self.me.0.0, leader = leader.0, "fetching again");
                    }
                    let badly = self.take(leader, due, results).await;
                    if !badly.is_empty() {
                        endpoint.repeat(badly);
                    }
                }
                Err(error) => {
                    self.counters.fetch_errors.add(1);
                    self.suspects.lost(leader, assignment.0.incarnation);
                    if connection_rest.is_none() {
                        tracing::warn!(broker = self.me.0.0, leader = leader.0, %error, "cannot fetch; trying again");
                    }
                    let rest = Rest::after(connection_rest);
                    connection_rest = Some(rest);
                    tokio::time::sleep_until(rest.until).await;
                }
            }
        }
    }

    /// What to ask for now, beginning with another partition each time.
    fn due(
        &mut self,
        partitions: &[(Arc<Partition>, LeaderEpoch)],
        now: Instant,
    ) -> Vec<(Arc<Partition>, FetchEntry)> {
        let allowed = self.throttles.follower.wait(seams::now());
        let mut held_until = None;
        let count = partitions.len().max(1);
        self.turn = (self.turn + 1) % count;
        let (last, first) = partitions.split_at(self.turn.min(partitions.len()));
        let due = first
            .iter()
            .chain(last)
            .filter(|(partition, _)| {
                self.resting
                    .get(&partition.key())
                    .is_none_or(|rest| rest.until <= now)
            })
            .filter_map(|(partition, epoch)| {
                let mut entry = position(partition, *epoch, self.partition_max_bytes)?;
                if let Some((wait, most)) = allowed
                    && self.is_throttled(partition)
                {
                    if !wait.is_zero() {
                        held_until = Some(now + wait);
                        return None;
                    }
                    entry.max_bytes = entry.max_bytes.min(most);
                }
                Some((partition.clone(), entry))
            })
            .collect();
        self.held_until = held_until;
        due
    }

    /// Brings the answers to the logs, and waits for all of them. Gives those that did no good.
    async fn take(
        &mut self,
        leader: BrokerId,
        due: Vec<(Arc<Partition>, FetchEntry)>,
        results: Vec<FetchResult>,
    ) -> Vec<PartitionKey> {
        let mut results: HashMap<PartitionKey, FetchResult> = results
            .into_iter()
            .map(|result| ((result.topic, result.partition), result))
            .collect();
        let mut outcomes = Vec::new();
        for (partition, entry) in due {
            let key = partition.key();
            let Some(result) = results.remove(&key) else {
                // Nothing new there, so nothing is wrong there.
                self.resting.remove(&key);
                continue;
            };
            if self.is_throttled(&partition) {
                self.throttles.follower.sent(result.records.len());
            }
            let (done, outcome) = oneshot::channel();
            let counters = self.counters.clone();
            partition.submit(move |partition| {
                // Without room the records stay where they are: this replica falls behind, and leaves
                // the ISR, until there is room.
                let bytes = result.records.len();
                let room = partition
                    .place()
                    .is_none_or(|place| place.space.take(bytes, Writer::Records));
                let followed = match room {
                    true => follow(partition, leader, &entry, result, &counters),
                    false => Followed::Badly,
                };
                let _ = done.send(followed);
            });
            outcomes.push((key, outcome));
        }
        let mut badly = Vec::new();
        for (key, outcome) in outcomes {
            match outcome.await {
                Ok(Followed::Well) => {
                    self.resting.remove(&key);
                }
                Ok(Followed::Badly) | Err(_) => {
                    self.rest(key);
                    badly.push(key);
                }
            }
        }
        badly
    }

    /// Whether the topic wants this follower held back now.
    fn is_throttled(&self, partition: &Partition) -> bool {
        let me = self.me.0;
        partition.look(|state| {
            state
                .view()
                .is_some_and(|view| view.throttled_followers.has(me) && !view.in_sync(me))
        })
    }

    fn rest(&mut self, key: PartitionKey) {
        let rest = Rest::after(self.resting.get(&key).copied());
        self.resting.insert(key, rest);
    }
}

/// When the next rest is over. One that was over `now` wakes nobody: its partition was fetched, or has gone out of
/// service, and must not be looked at again and again.
fn next_wake<'a>(rests: impl Iterator<Item = &'a Rest>, now: Instant) -> Option<Instant> {
    rests
        .map(|rest| rest.until)
        .filter(|until| *until > now)
        .min()
}

/// Where this replica's log ends, for its leader to compare; `None` if it is out of service.
fn position(partition: &Partition, epoch: LeaderEpoch, max_bytes: usize) -> Option<FetchEntry> {
    let log = partition.log()?;
    if partition.look(super::partition::is_offline) {
        return None;
    }
    // A job of the former leader's fetcher may still be appending: take end and epoch together.
    let mut end = log.log_end_offset();
    let last = loop {
        let last = log.last_epoch();
        let again = log.log_end_offset();
        if again == end {
            break last;
        }
        end = again;
    };
    let (topic, index) = partition.key();
    Some(FetchEntry {
        topic,
        partition: index,
        current_leader_epoch: Some(epoch),
        fetch_offset: end,
        last_fetched_epoch: last,
        log_start_offset: Some(log.log_start_offset()),
        max_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_is_over_wakes_nobody() {
        let rest = Rest::after(None);
        let over = Rest::after(Some(rest));
        let (first, second) = (rest.until, over.until);
        let rests = [over, rest];
        assert!(first < second);
        let before = first - Duration::from_millis(1);
        assert_eq!(next_wake(rests.iter(), before), Some(first));
        assert_eq!(next_wake(rests.iter(), first), Some(second));
        assert_eq!(next_wake(rests.iter(), second), None);
    }
}
