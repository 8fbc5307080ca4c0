//! Writes statuses: the newest of each object only, what changes `Ready` first, and no faster than
//! Kubernetes should bear.
//!
//! A failover can touch thousands of Topics at once. Reconciles never wait for the API server here:
//! they leave the wanted status in a map (bounded by the number of objects, an older wish is
//! replaced), and one task writes them within two budgets: [`WRITES_PER_SECOND`], and
//! [`BYTES_PER_SECOND`], because etcd keeps every revision for five minutes: 0.4 MB/s are at most
//! 120 MB of history. Of one object never two writes are under way, so the newest one wins.

use crate::leader::Leadership;
use crate::metrics::Metrics;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// Sustained writes; the first [`BURST`] go at once.
const WRITES_PER_SECOND: f64 = 200.0;
/// Writes that may follow a quiet time without a pause.
const BURST: f64 = 50.0;
/// Sustained bytes.
const BYTES_PER_SECOND: f64 = 400_000.0;
/// Bytes that may follow a quiet time.
const BURST_BYTES: f64 = 1024.0 * 1024.0;
/// Writes under way at once: the API server's latency alone must not set the pace.
const AT_ONCE: usize = 4;

/// How long a watch may lag before a status that differs from what was written counts as edited.
const LAG: Duration = Duration::from_secs(10);
/// How long what was written is remembered at least.
const KEPT: Duration = Duration::from_secs(300);

/// Whose status it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// The very object: a re-created one gets no status of its predecessor.
    pub uid: String,
}

struct Wanted {
    status: Value,
    urgent: bool,
}

#[derive(Default)]
struct State {
    /// Whose `Ready` would change; these go first.
    urgent: VecDeque<Key>,
    others: VecDeque<Key>,
    /// What is to be written. A key in a queue without an entry here has been served already.
    wanted: HashMap<Key, Wanted>,
    /// Whose status is being written at this moment.
    under_way: HashSet<Key>,
    /// What was written last, so that an unchanged status costs nothing.
    written: HashMap<Key, (Value, Instant)>,
    /// When to look for entries of `written` that serve no purpose any more.
    prune_at: usize,
}

impl State {
    fn want(&mut self, key: Key, wanted: Wanted) {
        let urgent = wanted.urgent;
        let before = self.wanted.insert(key.clone(), wanted);
        if before.is_none_or(|before| urgent && !before.urgent) {
            self.queue(key, urgent);
        }
    }

    fn queue(&mut self, key: Key, urgent: bool) {
        if urgent {
            self.urgent.push_back(key);
        } else {
            self.others.push_back(key);
        }
    }

    /// The next one, which counts as under way until [`State::done`].
    fn next(&mut self) -> Option<(Key, Value)> {
        while let Some(key) = self.urgent.pop_front().or_else(|| self.others.pop_front()) {
            // One that is under way is queued again when that has ended.
            if self.under_way.contains(&key) {
                continue;
            }
            if let Some(wanted) = self.wanted.remove(&key) {
                self.under_way.insert(key.clone());
                return Some((key, wanted.status));
            }
        }
        None
    }

    fn done(&mut self, key: Key) {
        self.under_way.remove(&key);
        if let Some(urgent) = self.wanted.get(&key).map(|wanted| wanted.urgent) {
            self.queue(key, urgent);
        }
    }

    fn is_idle(&self) -> bool {
        self.urgent.is_empty() && self.others.is_empty()
    }
}

/// Whether the status says that the object is ready; none at all does not.
fn is_ready(status: &Value) -> bool {
    status["conditions"].as_array().is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

/// The queue; clones share it.
#[derive(Clone)]
pub struct StatusQueue {
    state: Arc<Mutex<State>>,
    work: Arc<Notify>,
    metrics: Metrics,
}

impl StatusQueue {
    pub fn new(metrics: Metrics) -> Self {
        Self {
            state: Arc::default(),
            work: Arc::default(),
            metrics,
        }
    }

    /// Wants `status` on the object; `current` is what it carries now.
    pub fn put(&self, key: Key, status: Value, current: &Value) {
        let mut state = self.state.lock();
        let written = state.written.get(&key);
        let superfluous = match (state.wanted.get(&key), written) {
            (Some(wanted), _) => wanted.status == status,
            // What the object shows may lag behind what was written; after a while it was edited.
            (None, Some((written, at))) => {
                *written == status && (*current == status || at.elapsed() < LAG)
            }
            (None, None) => *current == status,
        };
        if superfluous {
            return;
        }
        let shown = written.map_or(current, |(written, _)| written);
        let urgent = is_ready(&status) != is_ready(shown);
        state.want(key, Wanted { status, urgent });
        self.metrics.status_waiting(state.wanted.len());
        drop(state);
        self.work.notify_one();
    }

    /// Writes until the process ends.
    pub async fn run(self, client: kube::Client, leadership: Leadership) {
        let mut writes = Budget::new(WRITES_PER_SECOND, BURST);
        let mut bytes = Budget::new(BYTES_PER_SECOND, BURST_BYTES);
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let slot = slots.clone().acquire_owned().await;
            if self.state.lock().is_idle() {
                drop(slot);
                self.work.notified().await;
                continue;
            }
            // The budget first: what is taken then is the newest there is.
            writes.spend(1.0).await;
            let next = {
                let mut state = self.state.lock();
                let next = state.next();
                self.metrics.status_waiting(state.wanted.len());
                next
            };
            let Some((key, status)) = next else {
                continue;
            };
            if !leadership.is_held() {
                self.state.lock().done(key);
                continue;
            }
            bytes.spend(status.to_string().len() as f64).await;
            let (queue, client) = (self.clone(), client.clone());
            tokio::spawn(async move {
                queue.write(&client, key.clone(), status).await;
                queue.state.lock().done(key);
                queue.work.notify_one();
                drop(slot);
            });
        }
    }

    async fn write(&self, client: &kube::Client, key: Key, status: Value) {
        let resource = ApiResource {
            group: leasehold_crds::GROUP.to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: format!("{}/v1alpha1", leasehold_crds::GROUP),
            kind: key.kind.to_owned(),
            plural: format!("{}s", key.kind.to_lowercase()),
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &key.namespace, &resource);
        let body = json!({
            "apiVersion": resource.api_version, "kind": key.kind,
            "metadata": {"name": key.name, "uid": key.uid},
            "status": status,
        });
        let params = PatchParams::apply("leasehold-operator-status").force();
        match api
            .patch_status(&key.name, &params, &Patch::Apply(&body))
            .await
        {
            Ok(_) => {
                self.metrics.status_written(true);
                let mut state = self.state.lock();
                state.written.insert(key, (status, Instant::now()));
                // What was written long ago is shown by the watch; objects that are gone go with it.
                if state.written.len() >= state.prune_at {
                    state.written.retain(|_, (_, at)| at.elapsed() < KEPT);
                    state.prune_at = (2 * state.written.len()).max(1024);
                }
            }
            // Gone, or another object of the name by now.
            Err(kube::Error::Api(answer)) if [404, 409].contains(&answer.code) => {
                self.state.lock().written.remove(&key);
            }
            Err(error) => {
                self.metrics.status_written(false);
                tracing::warn!(kind = key.kind, namespace = %key.namespace, name = %key.name, %error, "cannot write the status; it is tried again");
                let queue = self.clone();
                // Not in this task: others' statuses go on meanwhile.
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    let mut state = queue.state.lock();
                    state.written.remove(&key);
                    if !state.wanted.contains_key(&key) {
                        let urgent = true;
                        state.want(key, Wanted { status, urgent });
                    }
                    drop(state);
                    queue.work.notify_one();
                });
            }
        }
    }
}

/// A token bucket that is waited for.
struct Budget {
    rate: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(rate: f64, burst: f64) -> Self {
        Self {
            rate,
            burst,
            left: burst,
            at: Instant::now(),
        }
    }

    async fn spend(&mut self, amount: f64) {
        let now = Instant::now();
        self.left =
            (self.left + now.duration_since(self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = now;
        self.left -= amount;
        if self.left < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.left / self.rate)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            kind: "Topic",
            namespace: "shop".into(),
            name: name.into(),
            uid: "u".into(),
        }
    }

    fn ready(ready: bool, n: u32) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({"n": n, "conditions": [{"type": "Ready", "status": status}]})
    }

    #[test]
    fn only_the_newest_status_of_an_object_waits() {
        let queue = StatusQueue::new(Metrics::default());
        let empty = Value::Null;
        queue.put(key("a"), json!({"n": 1}), &empty);
        queue.put(key("b"), json!({"n": 1}), &empty);
        queue.put(key("a"), json!({"n": 2}), &empty);
        let mut state = queue.state.lock();
        assert_eq!(state.next(), Some((key("a"), json!({"n": 2}))));
        assert_eq!(state.next(), Some((key("b"), json!({"n": 1}))));
        assert_eq!(state.next(), None);
    }

    #[test]
    fn what_changes_ready_goes_first_and_once() {
        let queue = StatusQueue::new(Metrics::default());
        queue.put(key("a"), ready(true, 2), &ready(true, 1));
        queue.put(key("b"), ready(false, 1), &Value::Null);
        queue.put(key("c"), ready(false, 1), &ready(true, 1));
        queue.put(key("b"), ready(true, 2), &Value::Null);
        let mut state = queue.state.lock();
        let order: Vec<_> = std::iter::from_fn(|| state.next()).collect();
        let expected = [
            (key("c"), ready(false, 1)),
            (key("b"), ready(true, 2)),
            (key("a"), ready(true, 2)),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn of_one_object_never_two_writes_are_under_way() {
        let queue = StatusQueue::new(Metrics::default());
        queue.put(key("a"), json!({"n": 1}), &Value::Null);
        assert!(queue.state.lock().next().is_some());
        queue.put(key("a"), json!({"n": 2}), &Value::Null);
        let mut state = queue.state.lock();
        assert_eq!(state.next(), None, "the first one has not ended");
        state.done(key("a"));
        assert_eq!(state.next(), Some((key("a"), json!({"n": 2}))));
    }

    #[test]
    fn an_unchanged_status_is_not_written() {
        let queue = StatusQueue::new(Metrics::default());
        queue.put(key("a"), json!({"n": 1}), &json!({"n": 1}));
        assert!(queue.state.lock().is_idle());
        queue
            .state
            .lock()
            .written
            .insert(key("a"), (json!({"n": 2}), Instant::now()));
        queue.put(key("a"), json!({"n": 2}), &json!({"n": 1}));
        assert!(
            queue.state.lock().is_idle(),
            "the watch lags behind what was written"
        );
    }

    #[tokio::test]
    async fn a_spent_budget_makes_the_next_write_wait() {
        let mut budget = Budget::new(100.0, 2.0);
        let start = Instant::now();
        for _ in 0..12 {
            budget.spend(1.0).await;
        }
        assert!(
            start.elapsed() >= Duration::from_millis(95),
            "{:?}",
            start.elapsed()
        );
    }
}
