//! The names of a cluster's objects, and the labels they carry. Brokers and operator agree on these.

use leasehold_crds::CLUSTER_LABEL;
use std::collections::BTreeMap;

/// The clients' port.
pub const CLIENT_PORT: i32 = 9092;
/// The port on which only brokers and the operator talk.
pub const INTERNAL_PORT: i32 = 9091;
/// The port of probes, metrics and status.
pub const HTTP_PORT: i32 = 8080;
/// The broker's container in its pod.
pub const CONTAINER: &str = "broker";
/// Who applies: the field manager of server-side apply.
pub const MANAGER: &str = "leasehold-operator";
/// The end of the ServiceAccount's name. Distinct enough for an admission policy to know a broker by it.
pub const SERVICE_ACCOUNT_SUFFIX: &str = "-leasehold-broker";

/// The ConfigMap that is the cluster's metadata log.
pub fn head(cluster: &str) -> String {
    format!("{cluster}-metadata")
}

/// The Lease of the controller role.
pub fn lease(cluster: &str) -> String {
    format!("{cluster}-controller")
}

/// The StatefulSet; its pods are numbered from here.
pub fn stateful_set(cluster: &str) -> String {
    format!("{cluster}-broker")
}

/// The pod of one broker.
pub fn pod(cluster: &str, broker: i32) -> String {
    format!("{cluster}-broker-{broker}")
}

/// The name of a broker's volume in its pod, and in the claim template, counted from 0.
pub fn volume(number: i32) -> String {
    match number {
        0 => "data".to_owned(),
        more => format!("data-{more}"),
    }
}

/// The claim of one volume of one broker.
pub fn claim(cluster: &str, broker: i32, number: i32) -> String {
    format!("{}-{}", volume(number), pod(cluster, broker))
}

/// The NetworkPolicy of the brokers' pods.
pub fn network_policy(cluster: &str) -> String {
    format!("{cluster}-brokers")
}

/// The headless Service that gives each pod its DNS name.
pub fn headless(cluster: &str) -> String {
    format!("{cluster}-brokers")
}

/// The Service to which clients connect first.
pub fn bootstrap(cluster: &str) -> String {
    format!("{cluster}-bootstrap")
}

/// The Service to which clients of a further listener connect first.
pub fn listener_bootstrap(cluster: &str, listener: &str) -> String {
    format!("{cluster}-bootstrap-{listener}")
}

/// The Service through which clients of an external listener reach one broker.
pub fn listener_broker(cluster: &str, listener: &str, broker: i32) -> String {
    format!("{cluster}-broker-{broker}-{listener}")
}

/// The ConfigMap with the brokers' configuration.
pub fn config(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// The brokers' ServiceAccount, and the Role and RoleBinding of the same name.
pub fn service_account(cluster: &str) -> String {
    format!("{cluster}{SERVICE_ACCOUNT_SUFFIX}")
}

/// The number at the end of a broker's pod name, or of one of its claims'.
pub fn ordinal(cluster: &str, name: &str) -> Option<i32> {
    // A cluster may itself be called `data`.
    of_pod(cluster, name).or_else(|| claimed(cluster, name).map(|(broker, _)| broker))
}

/// The broker and the volume that a claim is of.
pub fn claimed(cluster: &str, name: &str) -> Option<(i32, i32)> {
    let claim = name.strip_prefix("data-")?;
    if let Some(broker) = of_pod(cluster, claim) {
        return Some((broker, 0));
    }
    let (volume, pod) = claim.split_once('-')?;
    let volume = volume.parse::<u8>().ok().filter(|number| *number > 0)?;
    Some((of_pod(cluster, pod)?, volume.into()))
}

fn of_pod(cluster: &str, name: &str) -> Option<i32> {
    let number = name.strip_prefix(&format!("{cluster}-broker-"))?;
    number.parse().ok().filter(|n| *n >= 0)
}

/// What selects the brokers' pods; fixed for a StatefulSet's life.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "app.kubernetes.io/component".to_owned(),
            "broker".to_owned(),
        ),
        (CLUSTER_LABEL.to_owned(), cluster.to_owned()),
    ])
}

/// The labels of everything the operator makes for a cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    let mut labels = selector(cluster);
    labels.insert("app.kubernetes.io/name".to_owned(), "leasehold".to_owned());
    labels.insert("app.kubernetes.io/instance".to_owned(), cluster.to_owned());
    labels.insert(
        "app.kubernetes.io/managed-by".to_owned(),
        MANAGER.to_owned(),
    );
    labels
}

/// A selector as a label query.
pub fn selector_text(cluster: &str) -> String {
    selector(cluster)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_brokers_own_pod_or_claim_has_an_ordinal() {
        assert_eq!(super::ordinal("demo", "demo-broker-11"), Some(11));
        assert_eq!(super::ordinal("demo", "data-demo-broker-0"), Some(0));
        for (volume, name) in [
            (0, "data-demo-broker-3"),
            (1, "data-1-demo-broker-3"),
            (7, "data-7-demo-broker-3"),
        ] {
            assert_eq!(super::claim("demo", 3, volume), name);
            assert_eq!(super::ordinal("demo", name), Some(3));
            assert_eq!(super::claimed("demo", name), Some((3, volume)));
        }
        assert_eq!(super::ordinal("data", "data-broker-2"), Some(2));
        assert_eq!(super::ordinal("data", "data-data-broker-2"), Some(2));
        assert_eq!(super::claimed("data", "data-broker-2"), None, "a pod");
        assert_eq!(super::claimed("data", "data-1-data-broker-2"), Some((2, 1)));
        assert_eq!(super::ordinal("demo", "data-x-demo-broker-3"), None);
        assert_eq!(super::ordinal("demo", "demo-broker-x"), None);
        assert_eq!(super::ordinal("demo", "demo-broker-broker-1"), None);
        assert_eq!(super::ordinal("demo", "other-broker-1"), None);
    }
}
