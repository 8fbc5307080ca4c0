//! Writes statuses: the newest of each object only, and no faster than Kubernetes should bear.
//!
//! A failover can touch thousands of Topics at once. Reconciles never wait for the API server here:
//! they leave the wanted status in a map (bounded by the number of objects, an older wish is
//! replaced), and one task writes them within two budgets: [`WRITES_PER_SECOND`], and
//! [`BYTES_PER_SECOND`], because etcd keeps every revision for five minutes: 128 KiB/s are at most
//! 38 MiB of history.

use crate::leader::Leadership;
use crate::metrics::Metrics;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Sustained writes; the first [`BURST`] go at once.
const WRITES_PER_SECOND: f64 = 25.0;
/// Writes that may follow a quiet time without a pause.
const BURST: f64 = 50.0;
/// Sustained bytes.
const BYTES_PER_SECOND: f64 = 128.0 * 1024.0;
/// Bytes that may follow a quiet time.
const BURST_BYTES: f64 = 1024.0 * 1024.0;

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

#[derive(Default)]
struct State {
    order: VecDeque<Key>,
    wanted: HashMap<Key, Value>,
    /// What was written last, so that an unchanged status costs nothing.
    written: HashMap<Key, (Value, Instant)>,
    /// When to look for entries of `written` that serve no purpose any more.
    prune_at: usize,
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
        let superfluous = match (state.wanted.get(&key), state.written.get(&key)) {
            (Some(wanted), _) => *wanted == status,
            // What the object shows may lag behind what was written; after a while it was edited.
            (None, Some((written, at))) => {
                *written == status && (*current == status || at.elapsed() < LAG)
            }
            (None, None) => *current == status,
        };
        if superfluous {
            return;
        }
        if state.wanted.insert(key.clone(), status).is_none() {
            state.order.push_back(key);
        }
        self.metrics.status_waiting(state.order.len());
        drop(state);
        self.work.notify_one();
    }

    /// Writes until the process ends.
    pub async fn run(self, client: kube::Client, leadership: Leadership) {
        let mut writes = Budget::new(WRITES_PER_SECOND, BURST);
        let mut bytes = Budget::new(BYTES_PER_SECOND, BURST_BYTES);
        loop {
            let next = {
                let mut state = self.state.lock();
                let key = state.order.pop_front();
                self.metrics.status_waiting(state.order.len());
                key.and_then(|key| state.wanted.remove(&key).map(|status| (key, status)))
            };
            let Some((key, status)) = next else {
                self.work.notified().await;
                continue;
            };
            if !leadership.is_held() {
                continue;
            }
            let size = status.to_string().len();
            writes.spend(1.0).await;
            bytes.spend(size as f64).await;
            self.write(&client, key, status).await;
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
                    if let std::collections::hash_map::Entry::Vacant(slot) =
                        state.wanted.entry(key.clone())
                    {
                        slot.insert(status);
                        state.order.push_back(key);
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

    #[test]
    fn only_the_newest_status_of_an_object_waits() {
        let queue = StatusQueue::new(Metrics::default());
        let empty = Value::Null;
        queue.put(key("a"), json!({"n": 1}), &empty);
        queue.put(key("b"), json!({"n": 1}), &empty);
        queue.put(key("a"), json!({"n": 2}), &empty);
        let state = queue.state.lock();
        assert_eq!(state.order.len(), 2);
        assert_eq!(state.wanted[&key("a")], json!({"n": 2}));
    }

    #[test]
    fn an_unchanged_status_is_not_written() {
        let queue = StatusQueue::new(Metrics::default());
        queue.put(key("a"), json!({"n": 1}), &json!({"n": 1}));
        assert!(queue.state.lock().order.is_empty());
        queue
            .state
            .lock()
            .written
            .insert(key("a"), (json!({"n": 2}), Instant::now()));
        queue.put(key("a"), json!({"n": 2}), &json!({"n": 1}));
        assert!(
            queue.state.lock().order.is_empty(),
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
