//! The StatefulSet and its pod template.

use super::super::names::{self, HTTP_PORT, INTERNAL_PORT};
use super::super::overrides;
use super::super::roll::Revision;
use super::super::validate::ValidCluster;
use super::{Inputs, digest, owned};
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use leasehold_crds::{CLUSTER_ID_ANNOTATION, RACK_ANNOTATION, REVISION_ANNOTATION, StorageKind};
use serde_json::{Value, json};

/// Where a broker's first volume is: its copy of the metadata, and a part of its log.
const DATA: &str = "/var/lib/leasehold";
/// The user that the image runs as.
const USER: i64 = 65532;

/// Where one of a broker's volumes is in its pod.
pub(super) fn directory(volume: i32) -> String {
    match volume {
        0 => DATA.to_owned(),
        more => format!("{DATA}-{more}"),
    }
}

/// The pod template and its revision.
pub(super) fn template(
    cluster: &ValidCluster,
    config_text: &str,
) -> Result<(PodTemplateSpec, String), serde_json::Error> {
    let mut template = base(cluster);
    if let Some(over) = &cluster.spec.pod_template {
        overrides::merge(&mut template, over);
    }
    let revision = revision(template.clone(), config_text).to_string();
    template["metadata"]["annotations"][REVISION_ANNOTATION] = revision.clone().into();
    Ok((serde_json::from_value(template)?, revision))
}

fn revision(mut template: Value, config_text: &str) -> Revision {
    let containers = template["spec"]["containers"].as_array_mut();
    let mut broker = containers
        .into_iter()
        .flatten()
        .find(|container| container["name"] == names::CONTAINER);
    let mut take = |field: &str| {
        let broker = broker.as_deref_mut().and_then(Value::as_object_mut);
        broker.and_then(|b| b.remove(field)).unwrap_or_default()
    };
    let (image, resources) = (take("image"), take("resources"));
    Revision {
        image: digest(&image.to_string()),
        resources: digest(&resources.to_string()),
        configuration: digest(config_text),
        template: digest(&template.to_string()),
    }
}

fn base(cluster: &ValidCluster) -> Value {
    let name = &cluster.name;
    let spec = &cluster.spec;
    let mut volumes = vec![
        json!({"name": "config", "configMap": {"name": names::config(name)}}),
        json!({"name": "podinfo", "downwardAPI": {"items": [{
            "path": "rack",
            "fieldRef": {"fieldPath": format!("metadata.annotations['{RACK_ANNOTATION}']")},
        }]}}),
    ];
    if spec.storage.kind == StorageKind::Ephemeral {
        let limit = spec.storage.size.as_ref();
        volumes.push(match limit {
            Some(limit) => json!({"name": "data", "emptyDir": {"sizeLimit": limit}}),
            None => json!({"name": "data", "emptyDir": {}}),
        });
    }
    let mut pod = json!({
        "serviceAccountName": names::service_account(name),
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": names::selector(name)},
            },
        }]}},
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": spec.rack.topology_key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names::selector(name)},
        }],
        "containers": [container(cluster)],
        "volumes": volumes,
    });
    if !spec.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(spec.image_pull_secrets);
    }
    json!({
        "metadata": {"labels": names::labels(name), "annotations": {}},
        "spec": pod,
    })
}

fn container(cluster: &ValidCluster) -> Value {
    let ValidCluster {
        name, namespace, ..
    } = cluster;
    let spec = &cluster.spec;
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let inside = format!(
        "$(POD_NAME).{}.{namespace}.svc.{}",
        names::headless(name),
        cluster.spec.cluster_domain
    );
    let client_port = cluster.listeners.main_port;
    let advertise = format!("{inside}:{client_port}");
    let probe = |path: &str| json!({"path": path, "port": "http"});
    let mut container = json!({
        "name": names::CONTAINER,
        "image": cluster.image,
        "args": [
            "run", "--id-from-hostname",
            "--cluster", name, "--namespace", namespace,
            "--store", "kubernetes",
            "--data", DATA,
            "--config", "/etc/leasehold/broker.yaml",
            "--client-listen", format!("0.0.0.0:{client_port}"),
            "--internal-listen", format!("0.0.0.0:{INTERNAL_PORT}"),
            "--http-listen", format!("0.0.0.0:{HTTP_PORT}"),
            "--advertise", advertise,
            "--internal-advertise", format!("$(POD_IP):{INTERNAL_PORT}"),
            "--rack-file", "/etc/podinfo/rack",
        ],
        "env": [
            field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"), field("POD_IP", "status.podIP"),
        ],
        "ports": [
            {"name": "kafka", "containerPort": client_port},
            {"name": "internal", "containerPort": INTERNAL_PORT},
            {"name": "http", "containerPort": HTTP_PORT},
        ],
        // Recovering a large log takes minutes: the start may last half an hour before it counts as stuck.
        "startupProbe": {"httpGet": probe("/startupz"), "periodSeconds": 1, "failureThreshold": 1800},
        "readinessProbe": {"httpGet": probe("/readyz"), "periodSeconds": 2, "failureThreshold": 2},
        // A stopped or starved process gets a minute before it is killed: a restart costs more than a pause.
        "livenessProbe": {"httpGet": probe("/livez"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        // Why it ended stands in the pod's status, and from there in the Cluster's.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/leasehold", "readOnly": true},
            {"name": "podinfo", "mountPath": "/etc/podinfo", "readOnly": true},
        ],
    });
    let mounts = (0..spec.storage.volumes)
        .map(|volume| json!({"name": names::volume(volume), "mountPath": directory(volume)}));
    if let Some(all) = container["volumeMounts"].as_array_mut() {
        all.splice(0..0, mounts);
    }
    for listener in &cluster.listeners.further {
        let argument = super::listeners::argument(listener, &inside);
        let port = json!({"containerPort": listener.spec.port});
        for (list, more) in [
            ("args", "--listener".into()),
            ("args", argument.into()),
            ("ports", port),
        ] {
            container[list]
                .as_array_mut()
                .into_iter()
                .for_each(|list| list.push(more.clone()));
        }
    }
    if let Some(policy) = &cluster.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    if let Some(resources) = &cluster.spec.resources {
        container["resources"] = resources.clone();
    }
    container
}

pub(super) fn stateful_set(
    cluster: &ValidCluster,
    inputs: &Inputs<'_>,
    template: PodTemplateSpec,
) -> StatefulSet {
    let keep = Some("Retain".to_owned());
    StatefulSet {
        metadata: owned(cluster, names::stateful_set(&cluster.name)),
        spec: Some(StatefulSetSpec {
            replicas: Some(inputs.replicas),
            service_name: Some(names::headless(&cluster.name)),
            // Brokers do not wait for each other, and none is restarted behind the operator's back.
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            selector: LabelSelector {
                match_labels: Some(names::selector(&cluster.name)),
                match_expressions: None,
            },
            // The operator deletes a volume only after its broker was drained and unregistered.
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: keep.clone(),
                    when_scaled: keep,
                },
            ),
            volume_claim_templates: claims(cluster, inputs),
            template,
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn claims(cluster: &ValidCluster, inputs: &Inputs<'_>) -> Option<Vec<PersistentVolumeClaim>> {
    let storage = &cluster.spec.storage;
    if storage.kind == StorageKind::Ephemeral {
        return None;
    }
    let volumes = 0..storage.volumes;
    Some(
        volumes
            .map(|number| claim(cluster, inputs, number))
            .collect(),
    )
}

fn claim(cluster: &ValidCluster, inputs: &Inputs<'_>, volume: i32) -> PersistentVolumeClaim {
    let cluster_id = inputs.cluster_id;
    let storage = &cluster.spec.storage;
    let size = inputs.claim_size.or(storage.size.as_deref());
    let size = Quantity(size.unwrap_or_default().to_owned());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::volume(volume)),
            labels: Some(names::labels(&cluster.name)),
            annotations: Some([(CLUSTER_ID_ANNOTATION.to_owned(), cluster_id.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
