//! From a valid Cluster to the objects it consists of; pure.
//!
//! Promises: the same input gives the same objects; everything but the volumes and the metadata is
//! owned by the Cluster and goes with it; the StatefulSet's selector and claims
//! never change: to grow, it is made anew.

mod access;
mod listeners;
mod network;
mod pods;
mod policy;

use super::topic_defaults;
use super::validate::ValidCluster;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest as _, Sha256};

/// Everything that the operator keeps in place for a cluster, in no order.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Objects {
    pub service_account: ServiceAccount,
    pub role: Role,
    pub role_binding: RoleBinding,
    pub config: ConfigMap,
    pub headless: Service,
    pub bootstrap: Service,
    /// The Services of further listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Service>,
    pub disruption_budget: PodDisruptionBudget,
    /// Who may reach the brokers; `None`: there is to be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
    pub stateful_set: StatefulSet,
    /// What a pod of today's specification is made from; pods of another need a restart.
    #[serde(skip)]
    pub revision: String,
}

/// What a build needs to know beyond the Cluster.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    pub cluster_id: &'a str,
    /// Pods of the StatefulSet: decided by scaling, not by the spec alone.
    pub replicas: i32,
    /// Whether a voluntary disruption may take a broker now.
    pub may_disrupt: bool,
    /// The size in the claim template of the StatefulSet that exists: it cannot be changed there.
    pub claim_size: Option<&'a str>,
}

/// Why a Cluster that was validated could not be built after all.
#[derive(Debug, thiserror::Error)]
#[error("the brokers' pod template cannot be built: {0}")]
pub struct BuildError(#[from] serde_json::Error);

/// Builds everything.
pub fn build(cluster: &ValidCluster, inputs: &Inputs<'_>) -> Result<Objects, BuildError> {
    let whole = config_text(cluster, |_| true);
    // What is told to running brokers starts nobody anew.
    let restarts = config_text(cluster, |key| !topic_defaults::is_one(key));
    let (template, revision) = pods::template(cluster, &restarts)?;
    Ok(Objects {
        service_account: access::service_account(cluster),
        role: access::role(cluster),
        role_binding: access::role_binding(cluster),
        config: config_map(cluster, whole),
        headless: network::headless(cluster),
        bootstrap: network::bootstrap(cluster),
        listeners: listeners::services(cluster, inputs.replicas),
        disruption_budget: network::disruption_budget(cluster, inputs.may_disrupt),
        network_policy: policy::network_policy(cluster),
        stateful_set: pods::stateful_set(cluster, inputs, template),
        revision,
    })
}

/// The metadata of an object that belongs to `cluster` and goes with it.
fn owned(cluster: &ValidCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(super::names::labels(&cluster.name)),
        owner_references: Some(vec![cluster.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn config_text(cluster: &ValidCluster, wanted: impl Fn(&str) -> bool) -> String {
    // JSON strings are YAML strings: no value can be read as another type, or break out of its line.
    let storage = &cluster.spec.storage;
    let directories = (0..storage.volumes).map(pods::directory);
    // One volume is where logs are anyway.
    let several = (storage.volumes > 1).then(|| {
        let all = directories.collect::<Vec<_>>().join(",");
        ("log.dirs", all)
    });
    let several = several.iter().map(|(key, value)| (*key, value.as_str()));
    let config = cluster.config.iter();
    config
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .chain(several)
        .filter(|(key, _)| wanted(key))
        .map(|(key, value)| format!("{key}: {}\n", serde_json::Value::from(value)))
        .collect()
}

fn config_map(cluster: &ValidCluster, text: String) -> ConfigMap {
    ConfigMap {
        metadata: owned(cluster, super::names::config(&cluster.name)),
        data: Some([("broker.yaml".to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}

/// A short digest, for annotations.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::validate::tests::{cluster, defaults};
    use super::super::validate::validate;
    use super::*;

    fn built(spec: &str, replicas: i32) -> Objects {
        let valid = validate(&cluster(spec), &defaults()).unwrap();
        let inputs = Inputs {
            claim_size: None,
            cluster_id: "abc",
            replicas,
            may_disrupt: true,
        };
        build(&valid, &inputs).unwrap()
    }

    #[test]
    fn the_objects_of_a_small_cluster() {
        let objects = built("{config: {min.insync.replicas: 2}}", 3);
        insta::assert_yaml_snapshot!(objects);
    }

    #[test]
    fn an_ephemeral_cluster_claims_no_volumes() {
        let objects = built("{storage: {type: Ephemeral}}", 3);
        let spec = objects.stateful_set.spec.unwrap();
        assert_eq!(spec.volume_claim_templates, None);
        let volumes = spec.template.spec.unwrap().volumes.unwrap();
        assert!(
            volumes
                .iter()
                .any(|v| v.name == "data" && v.empty_dir.is_some())
        );
    }

    #[test]
    fn each_of_several_volumes_has_a_claim_a_mount_and_a_log_directory() {
        let objects = built("{storage: {volumes: 3}, config: {num.partitions: 2}}", 2);
        let spec = objects.stateful_set.spec.unwrap();
        let claims = spec.volume_claim_templates.unwrap();
        let names: Vec<_> = claims
            .iter()
            .map(|c| c.metadata.name.clone().unwrap())
            .collect();
        assert_eq!(names, ["data", "data-1", "data-2"]);
        for claim in &claims {
            assert_eq!(claim.spec, claims[0].spec);
            assert_eq!(claim.metadata.annotations, claims[0].metadata.annotations);
        }
        let mounts = spec
            .template
            .spec
            .unwrap()
            .containers
            .remove(0)
            .volume_mounts;
        let mounts: Vec<_> = mounts
            .iter()
            .flatten()
            .map(|m| (m.name.as_str(), m.mount_path.as_str()))
            .collect();
        assert_eq!(
            mounts[..3],
            [
                ("data", "/var/lib/leasehold"),
                ("data-1", "/var/lib/leasehold-1"),
                ("data-2", "/var/lib/leasehold-2"),
            ]
        );
        assert_eq!(
            objects.config.data.unwrap()["broker.yaml"],
            "num.partitions: \"2\"\nlog.dirs: \"/var/lib/leasehold,/var/lib/leasehold-1,/var/lib/leasehold-2\"\n"
        );
        let one = built("{storage: {volumes: 1}}", 2);
        assert_eq!(one.revision, built("{}", 2).revision);
    }

    #[test]
    fn only_what_a_broker_reads_at_its_start_makes_a_new_revision() {
        let first = built("{}", 3).revision;
        assert_eq!(
            first,
            built("{replicas: 5}", 5).revision,
            "membership is not configuration"
        );
        assert_ne!(first, built("{config: {num.partitions: 2}}", 3).revision);
        assert_ne!(first, built("{image: other}", 3).revision);
        let changed = |spec: &str| {
            let now = built(spec, 3).revision;
            super::super::roll::Revision::difference(Some(&first), &now).unwrap_or_default()
        };
        assert_eq!(changed("{config: {num.partitions: 2}}"), "configuration");
        assert_eq!(
            changed("{config: {log.retention.ms: 1, min.insync.replicas: 2}}"),
            ""
        );
        assert_eq!(changed("{image: other}"), "image");
        assert_eq!(changed("{resources: {requests: {cpu: 1}}}"), "resources");
        let priority = "{podTemplate: {spec: {priorityClassName: high}}}";
        assert_eq!(changed(priority), "pod template");
        assert_eq!(changed("{rolling: {settleSeconds: 1}}"), "");
        assert_eq!(changed("{balancing: {mode: Off, maxMoves: 1}}"), "");
    }

    #[test]
    fn overrides_reach_the_pod_and_defaults_stay() {
        let objects = built(
            "{podTemplate: {metadata: {annotations: {a: b}}, spec: {priorityClassName: high, containers: [{name: broker, env: [{name: X, value: y}]}]}}}",
            1,
        );
        let template = objects.stateful_set.spec.unwrap().template;
        assert_eq!(template.metadata.unwrap().annotations.unwrap()["a"], "b");
        let spec = template.spec.unwrap();
        assert_eq!(spec.priority_class_name.as_deref(), Some("high"));
        let names: Vec<_> = spec.containers[0]
            .env
            .iter()
            .flatten()
            .map(|e| e.name.as_str())
            .collect();
        assert!(
            names.contains(&"X") && names.contains(&"POD_IP"),
            "{names:?}"
        );
    }

    #[test]
    fn the_image_is_pulled_with_the_secrets_that_are_named_and_with_no_others() {
        let secrets = |spec: &str| {
            let template = built(spec, 1).stateful_set.spec.unwrap().template;
            let secrets = template.spec.unwrap().image_pull_secrets.into_iter();
            secrets.flatten().map(|s| s.name).collect::<Vec<_>>()
        };
        assert_eq!(
            secrets("{imagePullSecrets: [{name: a}, {name: b}]}"),
            ["a", "b"]
        );
        assert_eq!(secrets("{}"), [""; 0]);
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let objects = built(r#"{config: {log.message.timestamp.type: "CreateTime"}}"#, 1);
        assert_eq!(
            objects.config.data.unwrap()["broker.yaml"],
            "log.message.timestamp.type: \"CreateTime\"\n"
        );
    }
}
