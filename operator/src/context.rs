//! What every reconcile needs: the API, the settings, who may act, what is known.

use crate::cluster::apply::Applied;
use crate::cluster::listeners::look::Nodes;
use crate::cluster::validate::Defaults;
use crate::events::Events;
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::status_queue::StatusQueue;
use crate::view::Views;
use k8s_openapi::NamespaceResourceScope;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource};
use leasehold_crds::{Cluster, Topic};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Shared by all reconciles.
pub struct Context {
    pub client: Client,
    /// The only namespace that is looked at; `None`: all.
    pub namespace: Option<String>,
    pub defaults: Defaults,
    pub leadership: Leadership,
    pub views: Arc<Views>,
    pub applied: Arc<Applied>,
    pub statuses: StatusQueue,
    pub events: Events,
    pub metrics: Metrics,
    pub clusters: Store<DeserializeGuard<Cluster>>,
    pub topics: Store<DeserializeGuard<Topic>>,
    /// Open once `clusters` holds all of them.
    pub clusters_known: Gate,
    /// Open once `topics` holds all of them.
    pub topics_known: Gate,
    pub backoff: Backoff,
    pub told: Told,
    /// Addresses of nodes that were read a moment ago.
    pub nodes: Nodes,
}

impl Context {
    /// The API of a namespaced kind, in the operator's scope.
    pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    /// The API of a namespaced kind in one namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A Cluster as the watch has it; `None` if there is none, or it cannot be read.
    pub fn cluster(&self, namespace: &str, name: &str) -> Option<Arc<DeserializeGuard<Cluster>>> {
        self.clusters.get(&ObjectRef::new(name).within(namespace))
    }
}

/// Opens once; all who wait go on then. (Of those who wait for a store of kube's, which is built on a channel for one,
/// only the last goes on.)
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns once it is open.
    pub async fn opened(&self) {
        // Its sender is held here: the channel cannot end.
        let mut gate = self.0.subscribe();
        drop(gate.wait_for(|open| *open).await);
    }
}

/// How long to wait after failures, per object: twice as long each time, from half a second to a minute.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<(&'static str, String, String), u32>>,
}

impl Backoff {
    /// One more failure: how long to wait now.
    pub fn failed(&self, kind: &'static str, namespace: &str, name: &str) -> Duration {
        let mut failures = self.failures.lock();
        let count = failures
            .entry((kind, namespace.to_owned(), name.to_owned()))
            .or_insert(0);
        *count = count.saturating_add(1);
        Duration::from_millis(500 << (*count - 1).min(7)).min(Duration::from_secs(60))
    }

    /// It went well: the next failure is the first.
    pub fn succeeded(&self, kind: &'static str, namespace: &str, name: &str) {
        self.failures
            .lock()
            .remove(&(kind, namespace.to_owned(), name.to_owned()));
    }
}

/// What was told last of each object, so that nothing is told twice in a row.
#[derive(Default)]
pub struct Told {
    last: Mutex<HashMap<String, String>>,
}

impl Told {
    /// Whether this is something else than what was told of the object before.
    pub fn is_news(&self, uid: &str, reason: &str, note: &str) -> bool {
        let text = format!("{reason}: {note}");
        let mut last = self.last.lock();
        last.insert(uid.to_owned(), text.clone()) != Some(text)
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.last.lock().retain(|about, _| !about.starts_with(uid));
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn all_who_wait_at_a_gate_go_on_and_who_comes_later_does_not_wait() {
        let gate = super::Gate::default();
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.opened().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        gate.open();
        for waiting in waiting {
            waiting.await.unwrap();
        }
        gate.opened().await;
    }

    #[test]
    fn the_same_news_is_told_once_in_a_row() {
        let told = super::Told::default();
        assert!(told.is_news("u", "Stuck", "a"));
        assert!(!told.is_news("u", "Stuck", "a"));
        assert!(told.is_news("v", "Stuck", "a"));
        assert!(told.is_news("u", "Rolled", "b"));
        assert!(told.is_news("u", "Stuck", "a"));
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_success() {
        let backoff = super::Backoff::default();
        let waits: Vec<u128> = (0..9)
            .map(|_| backoff.failed("Topic", "a", "b").as_millis())
            .collect();
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
        backoff.succeeded("Topic", "a", "b");
        assert_eq!(backoff.failed("Topic", "a", "b").as_millis(), 500);
    }
}
