//! What a Cluster's spec must satisfy beyond its schema; pure.
//!
//! Promises: every problem is reported at once, each naming the field and the way out; what comes
//! out as [`ValidCluster`] can be built without further questions.

use super::listeners::Listeners;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{Cluster, ClusterSpec, StorageKind};
use leasehold_metadata::broker_config::BrokerConfig;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the operator adds where a Cluster is silent.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The image of brokers: the operator's own.
    pub image: String,
    /// When that image is pulled; empty leaves it to Kubernetes.
    pub image_pull_policy: Option<String>,
    /// Where the operator's own pods are, which brokers let in; `None`: no NetworkPolicies are made, as they would
    /// keep the operator itself out.
    pub operator: Option<OperatorPods>,
}

/// How a NetworkPolicy knows the operator's pods.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorPods {
    pub namespace: String,
    pub labels: PodLabels,
}

/// The labels of pods.
pub type PodLabels = BTreeMap<String, String>;

/// Reads labels that are written `key=value,key=value`.
pub fn pod_labels(text: &str) -> Result<PodLabels, String> {
    let pairs = text.split(',').map(|pair| {
        let found = pair.split_once('=');
        let found = found.filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let (key, value) =
            found.ok_or_else(|| format!("{pair:?} is not a label such as app=operator"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// A Cluster that can be built.
#[derive(Clone, Debug)]
pub struct ValidCluster {
    pub name: String,
    pub namespace: String,
    pub owner: OwnerReference,
    pub spec: ClusterSpec,
    pub image: String,
    pub image_pull_policy: Option<String>,
    /// The operator's pods, as in [`Defaults`].
    pub operator: Option<OperatorPods>,
    /// Kafka's keys, values as text.
    pub config: BTreeMap<String, String>,
    /// The same, typed, with defaults.
    pub broker_config: BrokerConfig,
    /// How clients come in.
    pub listeners: Listeners,
}

/// What is wrong with a Cluster.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct InvalidCluster {
    pub problems: Vec<String>,
}

/// Checks `cluster` and fills in `defaults`.
pub fn validate(cluster: &Cluster, defaults: &Defaults) -> Result<ValidCluster, InvalidCluster> {
    let mut problems = Vec::new();
    let spec = &cluster.spec;
    let config = match plain_values("spec.config", &spec.config) {
        Ok(config) => config,
        Err(found) => {
            problems.extend(found);
            BTreeMap::new()
        }
    };
    let broker_config = match BrokerConfig::from_map(&config) {
        Ok(typed) => typed,
        Err(errors) => {
            problems.extend(errors.iter().map(|error| format!("spec.config: {error}")));
            BrokerConfig::default()
        }
    };
    for key in ["log.dir", "log.dirs"]
        .iter()
        .filter(|key| config.contains_key(**key))
    {
        // What lies beside the volume goes with the container, and its replicas with it.
        problems.push(format!(
            "spec.config: {key} is not supported in a Cluster: each broker has the volumes of spec.storage, as many as spec.storage.volumes says"
        ));
    }
    let volumes = spec.storage.volumes;
    if !(1..=8).contains(&volumes) {
        problems.push(format!(
            "spec.storage.volumes: {volumes} is not between 1 and 8"
        ));
    }
    if volumes > 1 && spec.storage.kind == StorageKind::Ephemeral {
        problems.push("spec.storage.volumes: several are for storage.type Persistent".to_owned());
    }
    if let Some(over) = &spec.pod_template {
        problems.extend(super::overrides::problems(over));
    }
    if let Some(resources) = &spec.resources {
        let probe = serde_json::json!({"spec": {"containers": [{"name": super::names::CONTAINER, "resources": resources}]}});
        let found = super::overrides::problems(&probe);
        problems.extend(found.into_iter().map(|problem| {
            problem.replace(
                "spec.podTemplate.spec.containers[0].resources",
                "spec.resources",
            )
        }));
    }
    let listeners = super::listeners::check::check(&spec.listeners);
    let listeners = listeners.map_err(|found| problems.extend(found));
    let owner = cluster.controller_owner_ref(&());
    match (listeners, owner) {
        (Ok(listeners), Some(owner)) if problems.is_empty() => Ok(ValidCluster {
            name: cluster.name_any(),
            namespace: cluster.namespace().unwrap_or_default(),
            owner,
            spec: spec.clone(),
            image: spec.image.clone().unwrap_or_else(|| defaults.image.clone()),
            image_pull_policy: match spec.image_pull_policy {
                Some(policy) => Some(policy.as_str().to_owned()),
                // The default policy goes with the default image.
                None if spec.image.is_none() => defaults.image_pull_policy.clone(),
                None => None,
            },
            operator: defaults.operator.clone(),
            config,
            broker_config,
            listeners,
        }),
        (Ok(_), None) if problems.is_empty() => Err(InvalidCluster {
            problems: vec![
                "the object carries no uid: it was not read from the API server".to_owned(),
            ],
        }),
        _ => Err(InvalidCluster { problems }),
    }
}

/// Configuration values as text: strings, numbers and booleans; anything else is reported by key.
pub fn plain_values(
    field: &str,
    values: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut texts = BTreeMap::new();
    let mut problems = Vec::new();
    for (key, value) in values {
        match value {
            Value::String(text) => texts.insert(key.clone(), text.clone()),
            Value::Bool(flag) => texts.insert(key.clone(), flag.to_string()),
            Value::Number(number) => texts.insert(key.clone(), number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                problems.push(format!(
                    "{field}[{key}] must be a string, a number or a boolean"
                ));
                None
            }
        };
    }
    if problems.is_empty() {
        Ok(texts)
    } else {
        Err(problems)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn defaults() -> Defaults {
        Defaults {
            image: "example.org/leasehold:1.2.3".to_owned(),
            image_pull_policy: None,
            operator: Some(OperatorPods {
                namespace: "leasehold-system".to_owned(),
                labels: pod_labels("app=operator").unwrap(),
            }),
        }
    }

    pub(crate) fn cluster(spec: &str) -> Cluster {
        let mut cluster: Cluster = serde_yaml::from_str(
            "{apiVersion: leasehold.dev/v1alpha1, kind: Cluster, metadata: {name: demo, namespace: shop, uid: u-1, generation: 4}, spec: {storage: {size: 1Gi}}}",
        )
        .unwrap();
        let mut value = serde_json::to_value(&cluster.spec).unwrap();
        super::super::overrides::merge(&mut value, &serde_yaml::from_str(spec).unwrap());
        cluster.spec = serde_json::from_value(value).unwrap();
        cluster
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let cluster = cluster(
            "{config: {no.such.key: 1, num.partitions: 0, min.insync.replicas: [2]}, podTemplate: {spec: {nodeSelecter: {}}}, resources: {request: {cpu: 1}}}",
        );
        let text = validate(&cluster, &defaults()).unwrap_err().to_string();
        for part in [
            "spec.config[min.insync.replicas]",
            "spec.podTemplate.spec.nodeSelecter",
            "spec.resources.request",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn an_unknown_configuration_key_is_named() {
        let text = validate(&cluster("{config: {no.such.key: 1}}"), &defaults())
            .unwrap_err()
            .to_string();
        assert!(text.contains("no.such.key"), "{text}");
    }

    #[test]
    fn log_directories_beside_the_volume_are_refused_by_name() {
        for key in ["log.dir", "log.dirs"] {
            let spec = format!("{{config: {{{key}: /elsewhere}}}}");
            let error = validate(&cluster(&spec), &defaults())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("{key} is not supported")),
                "{error}"
            );
        }
    }

    /// The example of a page, as a user would take it from there.
    fn example(page: &str) -> ValidCluster {
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let mut cluster: Cluster = serde_yaml::from_str(example).unwrap();
        cluster.metadata.uid = Some("u-1".to_owned());
        validate(&cluster, &defaults()).unwrap()
    }

    #[test]
    fn several_volumes_are_for_storage_that_stays_and_are_not_too_many() {
        let problems = |storage: &str| {
            let spec = format!("{{storage: {storage}}}");
            validate(&cluster(&spec), &defaults()).map_or_else(|e| e.to_string(), |_| String::new())
        };
        assert_eq!(problems("{volumes: 8}"), "");
        assert!(problems("{volumes: 9}").contains("9 is not between 1 and 8"));
        assert!(problems("{volumes: 0}").contains("0 is not between 1 and 8"));
        assert!(problems("{volumes: 2, type: Ephemeral}").contains("storage.type Persistent"));
        assert_eq!(problems("{volumes: 1, type: Ephemeral}"), "");
    }

    #[test]
    fn the_example_of_the_page_about_the_network_is_valid() {
        let valid = example(include_str!("../../../docs/network.md"));
        let from = valid.spec.listeners.iter().map(|l| l.from.len());
        assert_eq!(from.collect::<Vec<_>>(), [2, 1]);
        assert_eq!(valid.spec.network_policy.metrics_from.len(), 1);
    }

    #[test]
    fn the_example_of_the_page_about_listeners_is_valid() {
        let valid = example(include_str!("../../../docs/listeners.md"));
        assert_eq!(valid.listeners.main, "plain");
        assert_eq!(valid.listeners.external().count(), 2);
    }

    #[test]
    fn wrong_listeners_are_named_with_the_other_problems() {
        let spec = "{config: {no.such.key: 1}, listeners: [{name: a, type: NodePort, port: 9091}]}";
        let text = validate(&cluster(spec), &defaults())
            .unwrap_err()
            .to_string();
        assert!(text.contains("no.such.key"), "{text}");
        assert!(text.contains("spec.listeners[0].port: 9091"), "{text}");
    }

    #[test]
    fn labels_that_select_nothing_or_everything_are_no_operator() {
        let labels = pod_labels("a=b,c.d/e=f").unwrap();
        assert_eq!((labels["a"].as_str(), labels["c.d/e"].as_str()), ("b", "f"));
        for wrong in ["", "a", "a=", "=b", "a=b,", "a=b,c"] {
            assert!(pod_labels(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_and_booleans_are_taken_as_their_text() {
        let valid = validate(
            &cluster("{config: {auto.create.topics.enable: false, num.partitions: 3}}"),
            &defaults(),
        )
        .unwrap();
        assert_eq!(valid.config["num.partitions"], "3");
        assert_eq!(valid.config["auto.create.topics.enable"], "false");
        assert_eq!(valid.image, "example.org/leasehold:1.2.3");
    }
}
