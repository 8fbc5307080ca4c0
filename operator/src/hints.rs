//! Which rounds follow a change of a cluster's metadata, of a Cluster, or the going of a Topic.
//!
//! Promises: a Topic's round follows every change that concerns its topic, and none that does not; a Cluster's follows
//! whatever happens to its metadata and its status; people hear of elections, fencings and offline partitions by Events on the Cluster.

use crate::context::Context;
use crate::events::{self, Events};
use crate::news;
use crate::view::{ClusterKey, Update};
use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use leasehold_crds::{Cluster, Topic};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type Clusters = DeserializeGuard<Cluster>;
type Topics = DeserializeGuard<Topic>;

/// Keeps the store of Clusters that topics look at, and tells the topics of a cluster when it appears,
/// changes its spec or goes. Its status does not concern them.
pub async fn follow_clusters(
    api: kube::Api<Clusters>,
    writer: reflector::store::Writer<Clusters>,
    hints: Hints,
) {
    let context = &hints.context;
    let watched = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(super::run::without_history)
        .reflect(writer);
    let mut events = std::pin::pin!(watched);
    let mut seen: HashMap<ClusterKey, String> = HashMap::new();
    let mut listed: HashSet<ClusterKey> = HashSet::new();
    let key_of = |cluster: &Clusters| (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let tell = |key: &ClusterKey| {
        for topic in of_cluster(&context.topics, &key.0, &key.1) {
            let _ended = hints.topics.unbounded_send(topic);
        }
        let _ended = hints.finder.unbounded_send(key.clone());
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            // The store shows a new list only when it is complete.
            Ok(watcher::Event::InitApply(cluster)) => {
                listed.insert(key_of(&cluster));
                seen.insert(key_of(&cluster), String::new());
            }
            Ok(watcher::Event::InitDone) => {
                context.clusters_known.open();
                seen.keys().for_each(tell);
                seen.retain(|key, _| listed.contains(key));
            }
            Ok(watcher::Event::Apply(cluster)) => {
                let meta = cluster.meta();
                let standing = format!(
                    "{:?} {:?} {}",
                    meta.uid,
                    meta.generation,
                    meta.deletion_timestamp.is_some()
                );
                let _ended = hints.clusters.unbounded_send(ObjectRef::from_obj(&cluster));
                let key = key_of(&cluster);
                if seen.insert(key.clone(), standing.clone()) != Some(standing) {
                    tell(&key);
                }
            }
            Ok(watcher::Event::Delete(cluster)) => {
                let key = key_of(&cluster);
                seen.remove(&key);
                context.applied.forget(&key.0, &key.1);
                context
                    .told
                    .forget(cluster.meta().uid.as_deref().unwrap_or_default());
                context.views.forget(&key);
                tell(&key);
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of Clusters is interrupted; it resumes")
            }
        }
    }
}

fn of_cluster(topics: &Store<Topics>, namespace: &str, cluster: &str) -> Vec<ObjectRef<Topics>> {
    topics
        .state()
        .iter()
        .filter(|topic| topic.namespace().as_deref() == Some(namespace))
        .filter(|topic| {
            topic
                .0
                .as_ref()
                .is_ok_and(|topic| topic.spec.cluster == cluster)
        })
        .map(|topic| ObjectRef::from_obj(&**topic))
        .collect()
}

/// Tells rounds and people what a new view means for them.
#[derive(Clone)]
pub struct Hints {
    pub context: Arc<Context>,
    /// Clusters to be looked at before long.
    pub clusters: UnboundedSender<ObjectRef<Clusters>>,
    pub topics: UnboundedSender<ObjectRef<Topics>>,
    /// Clusters whose topics may lack an object.
    pub finder: UnboundedSender<ClusterKey>,
}

impl Hints {
    /// A cluster has another view.
    pub fn give(&self, update: &Update) {
        let (namespace, name) = &update.cluster;
        let cluster = ObjectRef::<Clusters>::new(name).within(namespace);
        self.context.metrics.clusters(self.context.views.len());
        // The rounds end before the watches do; nobody misses a hint then.
        let _ended = self.clusters.unbounded_send(cluster);
        let all = of_cluster(&self.context.topics, namespace, name);
        let concerned = match (&update.before, &update.after) {
            (Some(before), Some(after)) => {
                let changes = news::changes(name, &before.image, &after.image);
                self.tell(namespace, name, &self.context.events, changes.news);
                if !changes.topics.is_empty() {
                    let _ended = self.finder.unbounded_send(update.cluster.clone());
                }
                if changes.brokers {
                    all
                } else {
                    self.named(all, &changes.topics)
                }
            }
            _ => {
                let _ended = self.finder.unbounded_send(update.cluster.clone());
                all
            }
        };
        for topic in concerned {
            let _ended = self.topics.unbounded_send(topic);
        }
    }

    fn named(
        &self,
        all: Vec<ObjectRef<Topics>>,
        names: &std::collections::BTreeSet<String>,
    ) -> Vec<ObjectRef<Topics>> {
        let concerned = |reference: &ObjectRef<Topics>| {
            let topic = self.context.topics.get(reference)?;
            let topic = topic.0.as_ref().ok()?;
            names.contains(topic.topic_name()?).then_some(())
        };
        all.into_iter()
            .filter(|reference| concerned(reference).is_some())
            .collect()
    }

    fn tell(&self, namespace: &str, name: &str, events: &Events, news: Vec<events::News>) {
        let Some(cluster) = self.context.cluster(namespace, name) else {
            return;
        };
        for news in news {
            tracing::info!(%namespace, cluster = name, reason = news.reason, "{}", news.note);
            events.tell(cluster.object_ref(&()), news);
        }
    }
}
