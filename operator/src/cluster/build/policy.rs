//! Who may reach the brokers' pods.
//!
//! Promises: the internal port is for the cluster's own brokers and for the operator, whatever else is allowed; each
//! listener is open to those that it names, or to all; the operator reaches what it needs; nothing that a broker
//! itself asks for (the API server, DNS, other brokers) is limited.

use super::super::names::{self, HTTP_PORT, INTERNAL_PORT};
use super::super::validate::{OperatorPods, ValidCluster};
use super::owned;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use leasehold_crds::{Labels, Peer};
use std::collections::BTreeMap;

/// The label that every namespace has.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// The policy, if there is to be one.
pub(super) fn network_policy(cluster: &ValidCluster) -> Option<NetworkPolicy> {
    let operator = cluster.operator.as_ref()?;
    let spec = &cluster.spec.network_policy;
    if !spec.enabled {
        return None;
    }
    let operator = of_operator(operator);
    let brokers = NetworkPolicyPeer {
        pod_selector: Some(selector(names::selector(&cluster.name))),
        ..NetworkPolicyPeer::default()
    };
    let mut readers: Vec<_> = spec.metrics_from.iter().map(peer).collect();
    if !readers.is_empty() {
        readers.push(operator.clone());
    }
    let mut rules = vec![
        rule(INTERNAL_PORT, vec![brokers, operator]),
        rule(HTTP_PORT, readers),
    ];
    let listeners = &cluster.spec.listeners;
    let of = |port: i32| {
        let listener = listeners.iter().find(|listener| listener.port == port);
        let peers = listener.into_iter().flat_map(|listener| &listener.from);
        rule(port, peers.map(peer).collect())
    };
    rules.push(of(cluster.listeners.main_port));
    rules.extend(cluster.listeners.further.iter().map(|l| of(l.spec.port)));
    Some(NetworkPolicy {
        metadata: owned(cluster, names::network_policy(&cluster.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(names::selector(&cluster.name))),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules),
            egress: None,
        }),
    })
}

/// One port, for these; without any, for everyone.
fn rule(port: i32, from: Vec<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(from).filter(|from| !from.is_empty()),
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(port)),
            protocol: Some("TCP".to_owned()),
            end_port: None,
        }]),
    }
}

fn of_operator(pods: &OperatorPods) -> NetworkPolicyPeer {
    let namespace = BTreeMap::from([(NAMESPACE.to_owned(), pods.namespace.clone())]);
    NetworkPolicyPeer {
        namespace_selector: Some(selector(namespace)),
        pod_selector: Some(selector(pods.labels.clone())),
        ip_block: None,
    }
}

fn peer(peer: &Peer) -> NetworkPolicyPeer {
    let labels = |labels: &Labels| selector(labels.match_labels.clone());
    NetworkPolicyPeer {
        pod_selector: peer.pod_selector.as_ref().map(labels),
        namespace_selector: peer.namespace_selector.as_ref().map(labels),
        ip_block: peer.ip_block.as_ref().map(|block| IPBlock {
            cidr: block.cidr.clone(),
            except: Some(block.except.clone()).filter(|except| !except.is_empty()),
        }),
    }
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::validate::tests::{cluster, defaults};
    use super::super::super::validate::{Defaults, validate};
    use super::*;

    fn built(spec: &str) -> Option<NetworkPolicy> {
        network_policy(&validate(&cluster(spec), &defaults()).unwrap())
    }

    /// Who may reach a port; `None`: everyone.
    fn from(policy: &NetworkPolicy, port: i32) -> Option<Vec<NetworkPolicyPeer>> {
        let rules = policy.spec.as_ref().unwrap().ingress.as_ref().unwrap();
        let of_port = |rule: &&NetworkPolicyIngressRule| {
            rule.ports.as_ref().unwrap()[0].port == Some(IntOrString::Int(port))
        };
        let mut found = rules.iter().filter(of_port);
        let rule = found.next().unwrap_or_else(|| panic!("no rule of {port}"));
        assert_eq!(found.next(), None, "one rule of {port}");
        rule.from.clone()
    }

    #[test]
    fn the_internal_port_is_for_brokers_and_operator_whatever_else_is_open() {
        let policy = built("{}").unwrap();
        let peers = from(&policy, INTERNAL_PORT).unwrap();
        assert_eq!(peers.len(), 2, "{peers:?}");
        let own = LabelSelector {
            match_labels: Some(names::selector("demo")),
            match_expressions: None,
        };
        assert_eq!(peers[0].pod_selector.as_ref(), Some(&own));
        assert_eq!(peers[0].namespace_selector, None, "of this namespace alone");
        let namespace = peers[1].namespace_selector.clone().unwrap();
        assert_eq!(
            namespace.match_labels.unwrap()[NAMESPACE],
            "leasehold-system"
        );
        let pods = peers[1].pod_selector.clone().unwrap().match_labels.unwrap();
        assert_eq!(pods["app"], "operator");
        assert_eq!(
            (from(&policy, 9092), from(&policy, HTTP_PORT)),
            (None, None)
        );
        let spec = policy.spec.unwrap();
        assert_eq!(spec.pod_selector, Some(own));
        assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    }

    #[test]
    fn each_listener_is_open_to_those_that_it_names() {
        let policy = built(
            "{listeners: [
                {name: in, type: Internal, port: 9095, from: [{namespaceSelector: {matchLabels: {team: a}}}, {podSelector: {}}]},
                {name: out, type: NodePort, port: 9094, from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}]},
                {name: more, type: Internal, port: 9096}]}",
        )
        .unwrap();
        let inside = from(&policy, 9095).unwrap();
        assert_eq!(inside.len(), 2);
        assert_eq!(inside[1].pod_selector, Some(selector(BTreeMap::new())));
        let out = from(&policy, 9094).unwrap();
        let block = out[0].ip_block.as_ref().unwrap();
        assert_eq!(block.except.as_ref().unwrap(), &["10.9.0.0/16"]);
        assert_eq!(from(&policy, 9096), None);
        let rules = policy.spec.unwrap().ingress.unwrap();
        assert_eq!(rules.len(), 5, "a port that no listener has stays closed");
    }

    #[test]
    fn who_limits_the_readers_of_metrics_does_not_shut_the_operator_out() {
        let policy = built(
            "{networkPolicy: {metricsFrom: [{podSelector: {matchLabels: {app: prometheus}}}]}}",
        )
        .unwrap();
        let readers = from(&policy, HTTP_PORT).unwrap();
        assert_eq!(readers.len(), 2);
        assert!(from(&policy, INTERNAL_PORT).unwrap().contains(&readers[1]));
    }

    #[test]
    fn there_is_none_where_it_is_switched_off_or_the_operator_does_not_know_itself() {
        assert_eq!(built("{networkPolicy: {enabled: false}}"), None);
        let blind = Defaults {
            operator: None,
            ..defaults()
        };
        let valid = validate(&cluster("{}"), &blind).unwrap();
        assert_eq!(network_policy(&valid), None);
    }
}
