//! The store in production: ConfigMaps and a Lease, through the Kubernetes API.
//!
//! Objects of cluster `demo`: the head is ConfigMap `demo-metadata`, chunks are immutable ConfigMaps
//! `demo-metadata-<epoch>-<nonce>`, the Lease is `demo-controller`. Promises beyond the trait: kube's
//! retries are off (they would turn an applied write into a conflict), every call is bounded in time,
//! every read is a quorum read (no resourceVersion), and the head is written only by a JSON Patch that
//! tests uid and nonce, the Lease only by PUT with uid and resourceVersion.

mod objects;

pub use objects::*;

use super::{
    CALL_TIMEOUT, Chunk, ChunkBody, ChunkInfo, HeadObject, HeadPatch, LeaseError, LeaseRecord,
    PatchError, Store, StoreError,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config, runtime::watcher};
use leasehold_types::{ClusterId, ControllerEpoch};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

const LINES_KEY: &str = "lines.jsonl";
const ZSTD_KEY: &str = "lines.jsonl.zst";

/// The store of one cluster in one namespace.
pub struct KubernetesStore {
    cluster: String,
    namespace: String,
    maps: Api<ConfigMap>,
    leases: Api<Lease>,
    /// Counts what the Lease's watch has told.
    lease_events: watch::Receiver<u64>,
    /// That count, as it was before the last read.
    read_at: AtomicU64,
    watching: tokio::task::JoinHandle<()>,
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl KubernetesStore {
    /// Connects as the environment says (in-cluster, or a kubeconfig).
    pub async fn infer(namespace: &str, cluster: &str) -> Result<Self, StoreError> {
        let config = Config::infer().await.map_err(|error| StoreError::Denied {
            what: "finding the Kubernetes API".to_owned(),
            why: error.to_string(),
        })?;
        Self::new(config, namespace, cluster)
    }

    /// Connects with `config`, whose dangerous defaults are switched off. Must run inside a tokio runtime.
    pub fn new(config: Config, namespace: &str, cluster: &str) -> Result<Self, StoreError> {
        let mut strict = config.clone();
        strict.default_retry = false;
        strict.connect_timeout = Some(Duration::from_secs(1));
        strict.read_timeout = Some(CALL_TIMEOUT);
        strict.write_timeout = Some(CALL_TIMEOUT);
        // The holder renews every second, so a watch that is silent for long is a stalled one.
        let mut watching = config;
        watching.connect_timeout = Some(Duration::from_secs(1));
        watching.read_timeout = Some(Duration::from_secs(15));
        let client = |config: Config| {
            Client::try_from(config).map_err(|error: kube::Error| StoreError::Denied {
                what: "making a client for the Kubernetes API".to_owned(),
                why: error.to_string(),
            })
        };
        let strict = client(strict)?;
        let (sender, lease_events) = watch::channel(0);
        let watched = Api::namespaced(client(watching)?, namespace);
        Ok(Self {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            maps: Api::namespaced(strict.clone(), namespace),
            leases: Api::namespaced(strict, namespace),
            lease_events,
            read_at: AtomicU64::new(0),
            watching: tokio::spawn(watch_lease(watched, lease_name(cluster), sender)),
        })
    }

    fn chunk_name(&self, name: &str) -> String {
        format!("{}-{name}", head_name(&self.cluster))
    }

    fn head_map(&self, data: &BTreeMap<String, String>) -> ConfigMap {
        let id = data.get(crate::head::keys::CLUSTER_ID).cloned();
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(head_name(&self.cluster)),
                labels: Some(labels(&self.cluster, HEAD_COMPONENT)),
                annotations: Some(BTreeMap::from([(
                    CLUSTER_ID_ANNOTATION.to_owned(),
                    id.unwrap_or_default(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(data.clone()),
            ..ConfigMap::default()
        }
    }
}

/// Counts the changes of the Lease. A hint: decisions are taken on reads.
async fn watch_lease(api: Api<Lease>, name: String, events: watch::Sender<u64>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = std::pin::pin!(watcher(api, config));
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Ok(_) => events.send_modify(|count| *count += 1),
            // Without a pause a refused connection would be tried thousands of times a second.
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// How a call ended that did not succeed.
enum Failure {
    /// The API server's own answer, with its HTTP code.
    Answer(u16, String),
    /// The request surely did not reach an API server.
    NotSent(String),
    /// No answer: it may have been done.
    Silence(String),
}

async fn call<T>(future: impl Future<Output = kube::Result<T>> + Send) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Failure::Answer(
            status.code,
            format!("{} {}: {}", status.code, status.reason, status.message),
        )),
        Ok(Err(error)) if never_connected(&error) => Err(Failure::NotSent(describe(&error))),
        Ok(Err(error)) => Err(Failure::Silence(describe(&error))),
        Err(_) => Err(Failure::Silence(format!(
            "no answer within {CALL_TIMEOUT:?}"
        ))),
    }
}

/// Whether a connection was refused or had no route: then no byte of the request was sent.
fn never_connected(error: &kube::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                ConnectionRefused | HostUnreachable | NetworkUnreachable
            )
        {
            return true;
        }
        next = error.source();
    }
    false
}

fn describe(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

fn store_error(what: &str, failure: Failure) -> StoreError {
    let what = what.to_owned();
    match failure {
        Failure::Answer(401 | 403 | 400 | 413 | 422, why) => StoreError::Denied { what, why },
        Failure::Answer(_, why) | Failure::NotSent(why) | Failure::Silence(why) => {
            StoreError::Unreachable { what, why }
        }
    }
}

#[async_trait]
impl Store for KubernetesStore {
    fn describe(&self) -> String {
        format!(
            "Kubernetes namespace {}, ConfigMap {}",
            self.namespace,
            head_name(&self.cluster)
        )
    }

    async fn read_head(&self) -> Result<Option<HeadObject>, StoreError> {
        match call(self.maps.get(&head_name(&self.cluster))).await {
            Ok(map) => Ok(Some(HeadObject {
                uid: map.metadata.uid.unwrap_or_default(),
                data: map.data.unwrap_or_default(),
            })),
            Err(Failure::Answer(404, _)) => Ok(None),
            Err(failure) => Err(store_error("reading the head", failure)),
        }
    }

    async fn create_head(&self, data: &BTreeMap<String, String>) -> Result<HeadObject, StoreError> {
        let what = "creating the head";
        let map = self.head_map(data);
        match call(self.maps.create(&PostParams::default(), &map)).await {
            Ok(map) => Ok(HeadObject {
                uid: map.metadata.uid.unwrap_or_default(),
                data: map.data.unwrap_or_default(),
            }),
            Err(Failure::Answer(409, _)) => Err(StoreError::Exists { what: what.into() }),
            Err(failure) => Err(store_error(what, failure)),
        }
    }

    async fn patch_head(
        &self,
        uid: &str,
        nonce: &str,
        patch: &HeadPatch,
    ) -> Result<(), PatchError> {
        let name = head_name(&self.cluster);
        let body: Patch<()> = Patch::Json(json_patch(uid, nonce, patch));
        match call(self.maps.patch(&name, &PatchParams::default(), &body)).await {
            Ok(_) => Ok(()),
            Err(Failure::Answer(409 | 422, _)) => Err(PatchError::Refused),
            Err(Failure::Answer(404, _)) => Err(PatchError::Gone),
            Err(Failure::NotSent(why)) => Err(PatchError::NotSent(why)),
            Err(Failure::Answer(_, why) | Failure::Silence(why)) => Err(PatchError::InDoubt(why)),
        }
    }

    async fn create_chunk(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let mut all_labels = labels(&self.cluster, CHUNK_COMPONENT);
        all_labels.insert(EPOCH_LABEL.to_owned(), chunk.epoch.to_string());
        let (data, binary_data) = match &chunk.body {
            ChunkBody::Lines(text) => (Some((LINES_KEY.to_owned(), text.clone())), None),
            ChunkBody::Zstd(bytes) => {
                let value = (ZSTD_KEY.to_owned(), ByteString(bytes.clone()));
                (None, Some(value))
            }
        };
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.chunk_name(&chunk.name)),
                labels: Some(all_labels),
                annotations: Some(BTreeMap::from([(
                    CLUSTER_ID_ANNOTATION.to_owned(),
                    chunk.cluster.to_string(),
                )])),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            data: data.map(|pair| BTreeMap::from([pair])),
            binary_data: binary_data.map(|pair| BTreeMap::from([pair])),
        };
        let what = format!("creating chunk {}", chunk.name);
        match call(self.maps.create(&PostParams::default(), &map)).await {
            Ok(_) => Ok(()),
            Err(Failure::Answer(409, _)) => Err(StoreError::Exists { what }),
            Err(failure) => Err(store_error(&what, failure)),
        }
    }

    async fn read_chunk(&self, name: &str) -> Result<Option<ChunkBody>, StoreError> {
        let what = format!("reading chunk {name}");
        let map = match call(self.maps.get(&self.chunk_name(name))).await {
            Ok(map) => map,
            Err(Failure::Answer(404, _)) => return Ok(None),
            Err(failure) => return Err(store_error(&what, failure)),
        };
        let text = map.data.and_then(|mut data| data.remove(LINES_KEY));
        let bytes = map.binary_data.and_then(|mut data| data.remove(ZSTD_KEY));
        match (text, bytes) {
            (Some(text), None) => Ok(Some(ChunkBody::Lines(text))),
            (None, Some(bytes)) => Ok(Some(ChunkBody::Zstd(bytes.0))),
            _ => Err(StoreError::Malformed {
                what,
                why: format!("it has not exactly one of {LINES_KEY} and {ZSTD_KEY}"),
            }),
        }
    }

    async fn list_chunks(&self) -> Result<Vec<ChunkInfo>, StoreError> {
        let selector = format!(
            "{CLUSTER_LABEL}={},{COMPONENT_LABEL}={CHUNK_COMPONENT}",
            self.cluster
        );
        let params = ListParams::default().labels(&selector);
        let list = call(self.maps.list_metadata(&params))
            .await
            .map_err(|failure| store_error("listing the chunks", failure))?;
        let prefix = self.chunk_name("");
        let info = |meta: &ObjectMeta| {
            let labels = meta.labels.as_ref()?;
            let annotations = meta.annotations.as_ref()?;
            Some(ChunkInfo {
                name: meta.name.as_ref()?.strip_prefix(&prefix)?.to_owned(),
                cluster: ClusterId(annotations.get(CLUSTER_ID_ANNOTATION)?.clone()),
                epoch: ControllerEpoch(labels.get(EPOCH_LABEL)?.parse().ok()?),
            })
        };
        Ok(list.iter().filter_map(|o| info(&o.metadata)).collect())
    }

    async fn delete_chunk(&self, name: &str) -> Result<(), StoreError> {
        let name = self.chunk_name(name);
        match call(self.maps.delete(&name, &DeleteParams::default())).await {
            Ok(_) | Err(Failure::Answer(404, _)) => Ok(()),
            Err(failure) => Err(store_error(&format!("deleting chunk {name}"), failure)),
        }
    }

    async fn read_lease(&self) -> Result<Option<LeaseRecord>, StoreError> {
        let events = *self.lease_events.borrow();
        self.read_at.store(events, Ordering::Relaxed);
        match call(self.leases.get(&lease_name(&self.cluster))).await {
            Ok(lease) => Ok(Some(lease_record(lease))),
            Err(Failure::Answer(404, _)) => Ok(None),
            Err(failure) => Err(store_error("reading the Lease", failure)),
        }
    }

    async fn write_lease(
        &self,
        expected: Option<(&str, &str)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        let object = lease_object(&self.cluster, record, expected);
        let params = PostParams::default();
        let result = match expected {
            None => call(self.leases.create(&params, &object)).await,
            Some(_) => {
                let name = lease_name(&self.cluster);
                call(self.leases.replace(&name, &params, &object)).await
            }
        };
        match result {
            Ok(lease) => Ok(lease_record(lease)),
            Err(Failure::Answer(404 | 409, _)) => Err(LeaseError::Conflict),
            Err(Failure::NotSent(why)) => Err(LeaseError::NotSent(why)),
            Err(Failure::Answer(_, why) | Failure::Silence(why)) => Err(LeaseError::InDoubt(why)),
        }
    }

    /// Waits for an event since before the last read: versions cannot be ordered, and a watch that lags
    /// behind that read must not look like a change.
    async fn lease_changed(&self, _known: Option<&str>) {
        let mut events = self.lease_events.clone();
        let read_at = self.read_at.load(Ordering::Relaxed);
        if events.wait_for(|count| *count != read_at).await.is_err() {
            // The watch task is gone; callers bound their wait, this keeps them from spinning.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
