//! Follows the metadata of every cluster: one watch of all heads, folded into images.
//!
//! Promises: an image is always some committed state of its head, never a mixture; where the watch
//! brings a head that continues the one before (its tail holds the last nonce), only the new entries
//! are applied, else everything is loaded anew; a burst of head writes costs one fold, not many.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Config, ResourceExt as _};
use leasehold_crds::CLUSTER_LABEL;
use leasehold_metadata::head::format::{Head, parse_entries};
use leasehold_metadata::head::load::{LoadError, load};
use leasehold_metadata::image::Image;
use leasehold_metadata::store::kubernetes::{COMPONENT_LABEL, HEAD_COMPONENT, KubernetesStore};
use leasehold_metadata::store::{HeadObject, StoreError};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Namespace and name of a cluster.
pub type ClusterKey = (String, String);

/// The shortest time between two folds of one cluster's metadata.
const PACE: Duration = Duration::from_millis(250);

/// One cluster's metadata at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The head object's uid.
    pub uid: String,
    pub nonce: String,
    pub image: Arc<Image>,
}

/// A new view, or the end of one.
pub struct Update {
    pub cluster: ClusterKey,
    /// `None` when this is the first view of the cluster.
    pub before: Option<Arc<View>>,
    /// `None` when the head is gone.
    pub after: Option<Arc<View>>,
}

/// All views.
pub struct Views {
    config: Config,
    views: RwLock<HashMap<ClusterKey, Arc<View>>>,
    stores: Mutex<HashMap<ClusterKey, Arc<KubernetesStore>>>,
}

impl Views {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            views: RwLock::default(),
            stores: Mutex::default(),
        }
    }

    /// The newest view of a cluster; `None` before it was first read, and when there is no head.
    pub fn get(&self, cluster: &ClusterKey) -> Option<Arc<View>> {
        self.views.read().get(cluster).cloned()
    }

    /// Clusters that are followed.
    pub fn len(&self) -> usize {
        self.views.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.views.read().is_empty()
    }

    /// Reads the metadata by a quorum read, past every cache.
    pub async fn read(&self, cluster: &ClusterKey) -> Result<View, LoadError> {
        let store = self.store(cluster)?;
        let loaded = load(&*store).await?;
        Ok(View {
            uid: loaded.uid,
            nonce: loaded.head.nonce,
            image: loaded.image,
        })
    }

    /// The cluster's store.
    pub fn store(&self, cluster: &ClusterKey) -> Result<Arc<KubernetesStore>, StoreError> {
        let mut stores = self.stores.lock();
        if let Some(store) = stores.get(cluster) {
            return Ok(store.clone());
        }
        let store = Arc::new(KubernetesStore::new(
            self.config.clone(),
            &cluster.0,
            &cluster.1,
        )?);
        stores.insert(cluster.clone(), store.clone());
        Ok(store)
    }

    /// The cluster is gone: close its connections.
    pub fn forget(&self, cluster: &ClusterKey) {
        self.stores.lock().remove(cluster);
    }

    fn replace(
        &self,
        cluster: &ClusterKey,
        view: Option<View>,
    ) -> (Option<Arc<View>>, Option<Arc<View>>) {
        let view = view.map(Arc::new);
        let mut views = self.views.write();
        let before = match &view {
            Some(view) => views.insert(cluster.clone(), view.clone()),
            None => views.remove(cluster),
        };
        (before, view)
    }
}

/// Watches all heads that `api` sees and calls `on_update` for every new view. Does not end.
pub async fn follow(
    api: Api<ConfigMap>,
    views: Arc<Views>,
    on_update: impl Fn(Update) + Clone + Send + Sync + 'static,
) {
    let labels = format!("{COMPONENT_LABEL}={HEAD_COMPONENT}");
    let mut events =
        std::pin::pin!(watcher(api, watcher::Config::default().labels(&labels)).default_backoff());
    let mut feeds: HashMap<ClusterKey, watch::Sender<Option<ConfigMap>>> = HashMap::new();
    let mut listed: HashSet<ClusterKey> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(head)) => {
                listed.extend(key_of(&head));
                feed(&mut feeds, head, &views, &on_update);
            }
            Ok(watcher::Event::Apply(head)) => feed(&mut feeds, head, &views, &on_update),
            Ok(watcher::Event::InitDone) => feeds.retain(|key, feed| {
                let known = listed.contains(key);
                if !known {
                    feed.send_replace(None);
                }
                known
            }),
            Ok(watcher::Event::Delete(head)) => {
                if let Some(feed) = key_of(&head).and_then(|key| feeds.remove(&key)) {
                    feed.send_replace(None);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of the clusters' metadata is interrupted; it resumes")
            }
        }
    }
}

fn key_of(head: &ConfigMap) -> Option<ClusterKey> {
    let cluster = head.labels().get(CLUSTER_LABEL)?;
    // The label alone does not make a ConfigMap the head.
    (head.name_any() == crate::cluster::names::head(cluster))
        .then(|| (head.namespace().unwrap_or_default(), cluster.clone()))
}

fn feed(
    feeds: &mut HashMap<ClusterKey, watch::Sender<Option<ConfigMap>>>,
    head: ConfigMap,
    views: &Arc<Views>,
    on_update: &(impl Fn(Update) + Clone + Send + Sync + 'static),
) {
    let Some(key) = key_of(&head) else { return };
    let feed = feeds.entry(key.clone()).or_insert_with(|| {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(fold(key, receiver, views.clone(), on_update.clone()));
        sender
    });
    feed.send_replace(Some(head));
}

/// One cluster's task: always works on the newest head, whatever came in between.
async fn fold(
    key: ClusterKey,
    mut heads: watch::Receiver<Option<ConfigMap>>,
    views: Arc<Views>,
    on_update: impl Fn(Update),
) {
    loop {
        let head = heads.borrow_and_update().clone();
        if let Some(head) = head {
            match next_view(&key, &head, &views).await {
                Ok(Some(view)) => {
                    let (before, after) = views.replace(&key, Some(view));
                    on_update(Update {
                        cluster: key.clone(),
                        before,
                        after,
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(namespace = %key.0, cluster = %key.1, %error, "cannot read the cluster's metadata; it is tried again");
                    // Again after a second, or as soon as there is a newer head.
                    let _newer_or_not =
                        tokio::time::timeout(Duration::from_secs(1), heads.changed()).await;
                    heads.mark_changed();
                }
            }
        } else if views.get(&key).is_some() {
            let (before, after) = views.replace(&key, None);
            on_update(Update {
                cluster: key.clone(),
                before,
                after,
            });
        }
        tokio::time::sleep(PACE).await;
        if heads.changed().await.is_err() {
            break;
        }
    }
    // The watch dropped this cluster: its last word was that the head is gone.
    if views.get(&key).is_some() && heads.borrow().is_none() {
        let (before, after) = views.replace(&key, None);
        on_update(Update {
            cluster: key,
            before,
            after,
        });
    }
}

/// The view after `map`; `None` if it shows nothing new.
async fn next_view(
    key: &ClusterKey,
    map: &ConfigMap,
    views: &Views,
) -> Result<Option<View>, LoadError> {
    let object = HeadObject {
        uid: map.metadata.uid.clone().unwrap_or_default(),
        data: map.data.clone().unwrap_or_default(),
    };
    let head = Head::parse(&object)?;
    if let Some(view) = views.get(key).filter(|view| view.uid == object.uid) {
        if view.nonce == head.nonce {
            return Ok(None);
        }
        if let Some(image) = continued(&view, &head) {
            return Ok(Some(View {
                uid: object.uid,
                nonce: head.nonce,
                image: Arc::new(image),
            }));
        }
    }
    views.read(key).await.map(Some)
}

/// The image of `view` with the entries that `head` adds; `None` if it does not continue it.
fn continued(view: &View, head: &Head) -> Option<Image> {
    let at = view.image.position.seq;
    // The nonce in the tail proves that this very content came before: after a restore it would not.
    let same_line = head
        .tail
        .get(&at)
        .is_some_and(|entry| entry.header.nonce == view.nonce);
    if !same_line {
        return None;
    }
    let mut image = (*view.image).clone();
    for entry in head.tail.range(at.next()..).map(|(_, entry)| entry) {
        for entry in parse_entries(&entry.text).ok()? {
            image.apply(&entry).ok()?;
        }
    }
    (image.position.seq == head.seq).then_some(image)
}
