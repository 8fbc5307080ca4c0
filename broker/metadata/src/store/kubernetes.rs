//! The store in production: ConfigMaps and a Lease, through the Kubernetes API.
//!
//! Objects of cluster `demo`: the head is ConfigMap `demo-metadata`, chunks are immutable ConfigMaps
//! `demo-metadata-<epoch>-<nonce>`, the Lease is `demo-controller`. Promises beyond the trait: kube's
//! retries are off (they would turn an applied write into a conflict), every call is bounded in time,
//! every read is a quorum read (no resourceVersion), and the head is written only by a JSON Patch that
//! tests uid and nonce, the Lease only by PUT with uid and resourceVersion.

use super::{
    CALL_TIMEOUT, Chunk, ChunkBody, ChunkInfo, HeadObject, HeadPatch, LeaseError, LeaseRecord,
    NONCE, PatchError, Store, StoreError,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use jsonptr::PointerBuf;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config, ResourceExt as _, runtime::watcher};
use leasehold_types::{ClusterId, ControllerEpoch};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;

/// Label of every object of a cluster; its value is the cluster's name.
pub const CLUSTER_LABEL: &str = "leasehold.dev/cluster";
/// Label that tells chunks from the head.
pub const COMPONENT_LABEL: &str = "leasehold.dev/component";
/// Value of [`COMPONENT_LABEL`] on the head.
pub const HEAD_COMPONENT: &str = "metadata-head";
/// Value of [`COMPONENT_LABEL`] on chunks.
pub const CHUNK_COMPONENT: &str = "metadata-chunk";
/// Annotation with the cluster id. No label: a label's value may not begin with `-` or `_`.
pub const CLUSTER_ID_ANNOTATION: &str = "leasehold.dev/cluster-id";
/// Label of a chunk with the controller epoch of its writer.
pub const EPOCH_LABEL: &str = "leasehold.dev/controller-epoch";
/// Annotation of the Lease with the holder's internal address.
pub const ADDRESS_ANNOTATION: &str = "leasehold.dev/holder-address";

const LINES_KEY: &str = "lines.jsonl";
const ZSTD_KEY: &str = "lines.jsonl.zst";

/// Name of the head of `cluster`.
pub fn head_name(cluster: &str) -> String {
    format!("{cluster}-metadata")
}

/// Name of the Lease of `cluster`.
pub fn lease_name(cluster: &str) -> String {
    format!("{cluster}-controller")
}

/// The store of one cluster in one namespace.
pub struct KubernetesStore {
    cluster: String,
    namespace: String,
    maps: Api<ConfigMap>,
    leases: Api<Lease>,
    lease_version: watch::Receiver<String>,
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
        let (sender, lease_version) = watch::channel(String::new());
        let watched = Api::namespaced(client(watching)?, namespace);
        Ok(Self {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            maps: Api::namespaced(strict.clone(), namespace),
            leases: Api::namespaced(strict, namespace),
            lease_version,
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

/// Publishes the Lease's resourceVersion. A hint: decisions are taken on reads.
async fn watch_lease(api: Api<Lease>, name: String, sender: watch::Sender<String>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, config));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                sender.send_replace(lease.resource_version().unwrap_or_default());
            }
            Ok(watcher::Event::Delete(_)) => {
                sender.send_replace(String::new());
            }
            Ok(_) => {}
            // Without a pause a refused connection would be tried thousands of times a second.
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Labels of an object of `cluster`.
pub fn labels(cluster: &str, component: &str) -> BTreeMap<String, String> {
    [
        (CLUSTER_LABEL, cluster),
        (COMPONENT_LABEL, component),
        ("app.kubernetes.io/managed-by", "leasehold"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
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
        Err(_) => Err(Failure::Silence(format!("no answer within {CALL_TIMEOUT:?}"))),
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

fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}

fn json_patch(uid: &str, nonce: &str, patch: &HeadPatch) -> json_patch::Patch {
    let mut operations = vec![
        PatchOperation::Test(TestOperation {
            path: pointer(&["metadata", "uid"]),
            value: uid.into(),
        }),
        PatchOperation::Test(TestOperation {
            path: pointer(&["data", NONCE]),
            value: nonce.into(),
        }),
        PatchOperation::Replace(ReplaceOperation {
            path: pointer(&["data", NONCE]),
            value: patch.nonce.as_str().into(),
        }),
    ];
    operations.extend(patch.remove.iter().map(|key| {
        PatchOperation::Remove(RemoveOperation {
            path: pointer(&["data", key]),
        })
    }));
    operations.extend(patch.set.iter().map(|(key, value)| {
        PatchOperation::Add(AddOperation {
            path: pointer(&["data", key]),
            value: value.as_str().into(),
        })
    }));
    json_patch::Patch(operations)
}

fn lease_object(cluster: &str, record: &LeaseRecord, expected: Option<(&str, &str)>) -> Lease {
    let address = record.address.clone().unwrap_or_default();
    let renewed = Timestamp::from_millisecond(record.renewed_at_ms).ok();
    Lease {
        metadata: ObjectMeta {
            name: Some(lease_name(cluster)),
            uid: expected.map(|(uid, _)| uid.to_owned()),
            resource_version: expected.map(|(_, version)| version.to_owned()),
            labels: Some(labels(cluster, "controller-lease")),
            annotations: Some(BTreeMap::from([(ADDRESS_ANNOTATION.to_owned(), address)])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(record.holder.clone().unwrap_or_default()),
            lease_duration_seconds: i32::try_from(record.duration.as_secs().max(1)).ok(),
            lease_transitions: i32::try_from(record.transitions).ok(),
            renew_time: renewed.map(MicroTime),
            ..LeaseSpec::default()
        }),
    }
}

fn lease_record(lease: Lease) -> LeaseRecord {
    let some_text = |text: Option<String>| text.filter(|t| !t.is_empty());
    let address = lease.annotations().get(ADDRESS_ANNOTATION).cloned();
    let spec = lease.spec.unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default().max(0);
    LeaseRecord {
        uid: lease.metadata.uid.unwrap_or_default(),
        version: lease.metadata.resource_version.unwrap_or_default(),
        holder: some_text(spec.holder_identity),
        address: some_text(address),
        duration: Duration::from_secs(u64::from(seconds.unsigned_abs())),
        transitions: spec.lease_transitions.unwrap_or_default().max(0).unsigned_abs(),
        renewed_at_ms: spec.renew_time.map_or(0, |t| t.0.as_millisecond()),
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

    async fn lease_changed(&self, known: Option<&str>) {
        let mut versions = self.lease_version.clone();
        let known = known.unwrap_or_default();
        if versions.wait_for(|version| version != known).await.is_err() {
            // The watch task is gone; callers bound their wait, this keeps them from spinning.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_write_tests_uid_and_nonce_before_it_changes_anything() {
        let patch = HeadPatch {
            nonce: "new".into(),
            set: BTreeMap::from([("a/b".into(), "x".into())]),
            remove: vec!["c~d".into()],
        };
        let json = serde_json::to_value(json_patch("u", "old", &patch)).unwrap();
        assert_eq!(
            json,
            serde_json::json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/data/nonce", "value": "old"},
                {"op": "replace", "path": "/data/nonce", "value": "new"},
                {"op": "remove", "path": "/data/c~0d"},
                {"op": "add", "path": "/data/a~1b", "value": "x"},
            ])
        );
    }

    #[test]
    fn a_lease_survives_the_way_to_the_api_and_back() {
        let record = LeaseRecord {
            uid: "u".into(),
            version: "17".into(),
            holder: Some("0/7".into()),
            address: Some("10.0.0.1:9091".into()),
            duration: Duration::from_secs(4),
            transitions: 3,
            renewed_at_ms: 1_700_000_000_123,
        };
        let object = lease_object("demo", &record, Some(("u", "17")));
        assert_eq!(lease_record(object), record);
    }
}
