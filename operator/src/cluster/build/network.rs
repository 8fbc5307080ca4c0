//! Services, and the budget of voluntary disruptions.

use super::super::names::{self, HTTP_PORT, INTERNAL_PORT};
use super::super::validate::ValidCluster;
use super::owned;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// Gives each pod a name in DNS, ready or not: a broker that recovers is still itself.
pub(super) fn headless(cluster: &ValidCluster) -> Service {
    let mut ports = vec![
        port("kafka", cluster.listeners.main_port),
        port("internal", INTERNAL_PORT),
        port("http", HTTP_PORT),
    ];
    ports.extend(super::listeners::inside(cluster));
    Service {
        metadata: owned(cluster, names::headless(&cluster.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(&cluster.name)),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Where clients connect first: any broker that is ready.
pub(super) fn bootstrap(cluster: &ValidCluster) -> Service {
    Service {
        metadata: owned(cluster, names::bootstrap(&cluster.name)),
        spec: Some(ServiceSpec {
            selector: Some(names::selector(&cluster.name)),
            ports: Some(vec![port("kafka", cluster.listeners.main_port)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// At most one broker at a time, and none while a partition could not lose another replica: a pod that is ready
/// is not yet in sync. A pod that is not ready may go at any time: a node is not kept for it.
pub(super) fn disruption_budget(cluster: &ValidCluster, may_disrupt: bool) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owned(cluster, names::stateful_set(&cluster.name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(i32::from(may_disrupt))),
            selector: Some(LabelSelector {
                match_labels: Some(names::selector(&cluster.name)),
                match_expressions: None,
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
