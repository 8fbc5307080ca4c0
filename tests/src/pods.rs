//! What became of a cluster's pods, from the API server's own events and not from what the operator says.

use crate::cluster::{Kube, PATIENCE};
use crate::wait;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// One look at a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its broker.
    pub broker: i32,
    /// The very pod.
    pub uid: String,
    /// Ready, and not asked to stop.
    pub serves: bool,
}

/// What became of the pods, in the order in which the API server told it.
#[derive(Clone, Default)]
pub struct Witness(Arc<Mutex<Vec<Seen>>>);

impl Witness {
    /// Watches the pods of a cluster of so many brokers, from when all of them serve.
    pub fn start(kube: &Kube, brokers: i32) -> Self {
        let witness = Self::default();
        let (api, log) = (kube.api::<Pod>(), witness.0.clone());
        let labels = format!("leasehold.dev/cluster={}", kube.name);
        let config = watcher::Config::default().labels(&labels);
        kube.block_on(async {
            tokio::spawn(async move {
                let events = watcher(api, config).default_backoff();
                let mut events = std::pin::pin!(events);
                while let Ok(Some(event)) = events.try_next().await {
                    let (pod, gone) = match event {
                        watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => (pod, false),
                        watcher::Event::Delete(pod) => (pod, true),
                        watcher::Event::Init | watcher::Event::InitDone => continue,
                    };
                    let mut log = log.lock().expect("the log of pods");
                    log.extend(seen(&pod, gone));
                }
            });
        });
        wait::until("every pod to be seen", PATIENCE, || {
            let serving = witness.serving();
            anyhow::ensure!(serving.len() == brokers as usize, "{serving:?}");
            anyhow::Ok(())
        });
        witness
    }

    /// All of it.
    pub fn log(&self) -> Vec<Seen> {
        self.0.lock().expect("the log of pods").clone()
    }

    /// Where the log stands.
    pub fn mark(&self) -> usize {
        self.0.lock().expect("the log of pods").len()
    }

    /// Pods that serve now.
    pub fn serving(&self) -> BTreeMap<i32, String> {
        let mut now = BTreeMap::new();
        for seen in self.log() {
            if seen.serves {
                now.insert(seen.broker, seen.uid);
            } else if now.get(&seen.broker) == Some(&seen.uid) {
                now.remove(&seen.broker);
            }
        }
        now
    }

    /// The brokers that went away since `mark`, in order, each with all that were away then.
    pub fn restarted(&self, mark: usize) -> Vec<(i32, Vec<i32>)> {
        let mut there: BTreeMap<i32, String> = BTreeMap::new();
        let mut away: BTreeSet<i32> = BTreeSet::new();
        let mut went = Vec::new();
        for (index, seen) in self.log().into_iter().enumerate() {
            let was = there.get(&seen.broker) == Some(&seen.uid);
            if seen.serves {
                away.remove(&seen.broker);
                there.insert(seen.broker, seen.uid);
            } else if was {
                there.remove(&seen.broker);
                away.insert(seen.broker);
                if index >= mark {
                    went.push((seen.broker, away.iter().copied().collect()));
                }
            }
        }
        went
    }
}

fn seen(pod: &Pod, gone: bool) -> Option<Seen> {
    let broker = pod.metadata.name.as_ref()?.rsplit('-').next()?;
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    Some(Seen {
        broker: broker.parse().ok()?,
        uid: pod.metadata.uid.clone()?,
        serves: ready && !gone && pod.metadata.deletion_timestamp.is_none(),
    })
}
