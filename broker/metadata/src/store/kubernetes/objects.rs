//! Names, labels and shapes of a cluster's objects in Kubernetes.

use crate::store::{HeadPatch, LeaseRecord, NONCE};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use jsonptr::PointerBuf;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use std::collections::BTreeMap;
use std::time::Duration;

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

/// Name of the head of `cluster`.
pub fn head_name(cluster: &str) -> String {
    format!("{cluster}-metadata")
}

/// Name of the Lease of `cluster`.
pub fn lease_name(cluster: &str) -> String {
    format!("{cluster}-controller")
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

fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}

/// The one patch that writes a head.
pub(super) fn json_patch(uid: &str, nonce: &str, patch: &HeadPatch) -> json_patch::Patch {
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

/// The Lease to PUT (or POST, where none is expected).
pub(super) fn lease_object(
    cluster: &str,
    record: &LeaseRecord,
    expected: Option<(&str, &str)>,
) -> Lease {
    let address = record.address.clone().unwrap_or_default();
    let time = |ms| Timestamp::from_millisecond(ms).ok().map(MicroTime);
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
            acquire_time: time(record.taken_at_ms),
            renew_time: time(record.renewed_at_ms),
            ..LeaseSpec::default()
        }),
    }
}

/// What a Lease says.
pub(super) fn lease_record(lease: Lease) -> LeaseRecord {
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
        transitions: spec
            .lease_transitions
            .unwrap_or_default()
            .max(0)
            .unsigned_abs(),
        taken_at_ms: spec.acquire_time.map_or(0, |t| t.0.as_millisecond()),
        renewed_at_ms: spec.renew_time.map_or(0, |t| t.0.as_millisecond()),
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
            taken_at_ms: 1_700_000_000_001,
            renewed_at_ms: 1_700_000_000_123,
        };
        let object = lease_object("demo", &record, Some(("u", "17")));
        assert_eq!(lease_record(object), record);
    }
}
