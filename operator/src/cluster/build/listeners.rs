//! The Services of further listeners, and what the brokers' pods need to know of them.
//!
//! An `Internal` listener has one Service, for the first connection. An external one has that too, and one for
//! each broker, so that a client that was told which broker leads can get to that one. Kubernetes gives out the
//! node ports: they are not in what is applied, so they stay what they are.

use super::super::listeners::{BROKER, Further};
use super::super::names;
use super::super::validate::ValidCluster;
use super::owned;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use leasehold_crds::{LISTENER_LABEL, ListenerKind, TrafficPolicy};

/// The label that a StatefulSet gives each of its pods.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// All of them, for so many brokers.
pub(super) fn services(cluster: &ValidCluster, brokers: i32) -> Vec<Service> {
    let mut services = Vec::new();
    for listener in &cluster.listeners.further {
        services.push(bootstrap(cluster, listener));
        if listener.spec.kind != ListenerKind::Internal {
            services.extend((0..brokers).map(|id| broker(cluster, listener, id)));
        }
    }
    services
}

/// Ports of the brokers' own DNS names.
pub(super) fn inside(cluster: &ValidCluster) -> Vec<ServicePort> {
    let further = cluster.listeners.further.iter();
    further
        .filter(|listener| listener.spec.kind == ListenerKind::Internal)
        .map(|listener| port(&format!("kafka-{}", listener.name), listener.spec.port))
        .collect()
}

/// The value of `--listener`. Only inside the cluster is an address known before there is a pod.
pub(super) fn argument(listener: &Further, inside: &str) -> String {
    let (name, port) = (&listener.name, listener.spec.port);
    match listener.spec.kind {
        ListenerKind::Internal => format!("{name}=0.0.0.0:{port},{inside}:{port}"),
        ListenerKind::NodePort | ListenerKind::LoadBalancer => format!("{name}=0.0.0.0:{port}"),
    }
}

fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        target_port: Some(IntOrString::Int(number)),
        ..super::network::port(name, number)
    }
}

/// Any broker that is ready.
fn bootstrap(cluster: &ValidCluster, listener: &Further) -> Service {
    let name = names::listener_bootstrap(&cluster.name, listener.name.as_str());
    let mut service = service(cluster, listener, name, None);
    // Whichever node is asked, it knows a broker.
    set_policy(&mut service, listener, TrafficPolicy::Cluster);
    service
}

/// One broker, ready or not: one that recovers is still itself, and its port is open only once it serves.
fn broker(cluster: &ValidCluster, listener: &Further, id: i32) -> Service {
    let name = names::listener_broker(&cluster.name, listener.name.as_str(), id);
    let mut service = service(cluster, listener, name, Some(id));
    if let Some(spec) = &mut service.spec {
        spec.publish_not_ready_addresses = Some(true);
        let pod = (POD_NAME.to_owned(), names::pod(&cluster.name, id));
        spec.selector.get_or_insert_default().extend([pod]);
    }
    // One name for all brokers leads to any node.
    let detours = listener.spec.kind == ListenerKind::NodePort && listener.has_common_host();
    let policy = listener.spec.external_traffic_policy;
    set_policy(
        &mut service,
        listener,
        policy.unwrap_or(match detours {
            true => TrafficPolicy::Cluster,
            false => TrafficPolicy::Local,
        }),
    );
    service
}

fn set_policy(service: &mut Service, listener: &Further, policy: TrafficPolicy) {
    if let (Some(spec), true) = (
        &mut service.spec,
        listener.spec.kind != ListenerKind::Internal,
    ) {
        spec.external_traffic_policy = Some(policy.as_str().to_owned());
    }
}

fn service(
    cluster: &ValidCluster,
    listener: &Further,
    name: String,
    broker: Option<i32>,
) -> Service {
    let spec = &listener.spec;
    let mut metadata = owned(cluster, name);
    let label = (LISTENER_LABEL.to_owned(), listener.name.to_string());
    metadata.labels.get_or_insert_default().extend([label]);
    let annotations = spec.annotations.iter().filter_map(|(key, value)| {
        let value = match broker {
            Some(id) => value.replace(BROKER, &id.to_string()),
            None if value.contains(BROKER) => return None,
            None => value.clone(),
        };
        Some((key.clone(), value))
    });
    metadata.annotations = Some(annotations.collect())
        .filter(|all: &std::collections::BTreeMap<_, _>| !all.is_empty());
    let kind = match spec.kind {
        ListenerKind::Internal => None,
        ListenerKind::NodePort => Some("NodePort".to_owned()),
        ListenerKind::LoadBalancer => Some("LoadBalancer".to_owned()),
    };
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: kind,
            selector: Some(names::selector(&cluster.name)),
            ports: Some(vec![port("kafka", spec.port)]),
            load_balancer_class: spec.load_balancer_class.clone(),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::validate::tests::{cluster, defaults};
    use super::super::super::validate::validate;
    use super::*;

    const ALL: &str = "{listeners: [
        {name: out, type: NodePort, port: 9094},
        {name: lb, type: LoadBalancer, port: 9095, loadBalancerClass: example.org/lb, annotations: {a: b, 'dns/host': 'b{broker}.example.com'}},
        {name: more, type: Internal, port: 9096},
        {name: main, type: Internal, port: 9097}]}";

    fn built(spec: &str, brokers: i32) -> super::super::Objects {
        let valid = validate(&cluster(spec), &defaults()).unwrap();
        let inputs = super::super::Inputs {
            cluster_id: "abc",
            replicas: brokers,
            may_disrupt: true,
            claim_size: None,
        };
        super::super::build(&valid, &inputs).unwrap()
    }

    fn names(objects: &super::super::Objects) -> Vec<String> {
        let services = objects.listeners.iter();
        services.map(|s| s.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn the_services_of_two_external_listeners() {
        let objects = built(ALL, 1);
        insta::assert_yaml_snapshot!((&objects.listeners, &objects.headless.spec));
    }

    #[test]
    fn each_broker_has_a_service_of_its_own_for_each_external_listener() {
        let of = |brokers| {
            names(&built(
                "{listeners: [{name: out, type: NodePort, port: 9094}]}",
                brokers,
            ))
        };
        assert_eq!(
            of(2),
            [
                "demo-bootstrap-out",
                "demo-broker-0-out",
                "demo-broker-1-out"
            ]
        );
        assert_eq!(of(0), ["demo-bootstrap-out"]);
        assert!(names(&built("{}", 3)).is_empty());
    }

    #[test]
    fn the_longest_names_fit_into_a_service() {
        let name = names::listener_broker(&"c".repeat(40), &"l".repeat(11), 499);
        assert!(name.len() <= 63, "{name} has {}", name.len());
        let name = names::listener_bootstrap(&"c".repeat(40), &"l".repeat(11));
        assert!(name.len() <= 63, "{name} has {}", name.len());
    }

    #[test]
    fn brokers_know_their_ports_at_their_start_and_only_inner_addresses() {
        let objects = built(ALL, 1);
        let pod = objects.stateful_set.spec.unwrap().template.spec.unwrap();
        let args = pod.containers[0].args.clone().unwrap();
        let at = |flag: &str| -> Vec<String> {
            let pairs = args.windows(2).filter(|pair| pair[0] == flag);
            pairs.map(|pair| pair[1].clone()).collect()
        };
        assert_eq!(
            at("--listener"),
            [
                "out=0.0.0.0:9094",
                "lb=0.0.0.0:9095",
                "main=0.0.0.0:9097,$(POD_NAME).demo-brokers.shop.svc.cluster.local:9097",
            ]
        );
        assert_eq!(at("--client-listen"), ["0.0.0.0:9096"]);
        let ports: Vec<i32> = pod.containers[0]
            .ports
            .iter()
            .flatten()
            .map(|p| p.container_port)
            .collect();
        assert_eq!(ports, [9096, 9091, 8080, 9094, 9095, 9097]);
    }

    #[test]
    fn only_ports_and_names_make_a_new_revision() {
        let revision = |spec: &str| built(spec, 3).revision;
        let none = revision("{}");
        let out = revision("{listeners: [{name: out, type: NodePort, port: 9094}]}");
        assert_ne!(none, out, "a new port restarts");
        for same in [
            "{listeners: [{name: out, type: LoadBalancer, port: 9094}]}",
            "{listeners: [{name: out, type: NodePort, port: 9094, host: kafka.example.com}]}",
            "{listeners: [{name: out, type: NodePort, port: 9094, annotations: {a: b}, externalTrafficPolicy: Cluster}]}",
        ] {
            assert_eq!(out, revision(same), "{same} restarts nobody");
        }
    }

    #[test]
    fn one_name_for_all_node_ports_takes_detours_unless_it_is_said_otherwise() {
        let policy = |more: &str| {
            let spec = format!("{{listeners: [{{name: out, type: NodePort, port: 9094{more}}}]}}");
            let broker = built(&spec, 1).listeners.remove(1);
            broker.spec.unwrap().external_traffic_policy.unwrap()
        };
        assert_eq!(policy(""), "Local");
        assert_eq!(policy(", host: kafka.example.com"), "Cluster");
        assert_eq!(policy(", host: 'b{broker}.example.com'"), "Local");
        assert_eq!(policy(", externalTrafficPolicy: Cluster"), "Cluster");
    }
}
