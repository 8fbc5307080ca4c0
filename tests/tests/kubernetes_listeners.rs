//! Clients outside of Kubernetes: through node ports and through load balancers at once, beside those inside. An
//! address that changes, or comes late, reaches clients of its listener alone, and restarts no pod. For the load
//! balancers this test plays the provider: it writes into the Services' status what a provider would.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Api, ListParams, Patch, PatchParams};
use leasehold_crds::ListenerStatus;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest};
use leasehold_tests::conditions::condition;
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::collections::BTreeMap;
use std::time::Duration;

const NAMESPACE: &str = "listeners";
const NAME: &str = "main";
const BROKERS: i32 = 3;
const LB_PORT: i32 = 9095;

type Brokers = BTreeMap<i32, String>;

fn spec(listeners: &str) -> String {
    let listeners = match listeners {
        "" => String::new(),
        some => format!("  listeners: [{some}]\n"),
    };
    manifest(NAME, BROKERS) + "  rolling: {settleSeconds: 1}\n" + &listeners
}

/// The brokers that clients of `bootstrap` are told, and how they are reached.
fn brokers(bootstrap: &str) -> anyhow::Result<Brokers> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0")
        .create()?;
    let metadata = client.fetch_metadata(None, Duration::from_secs(5))?;
    let brokers = metadata.brokers().iter();
    Ok(brokers
        .map(|b| (b.id(), format!("{}:{}", b.host(), b.port())))
        .collect())
}

fn wait_told(bootstrap: &str, expected: &Brokers) {
    wait::until("the answers to clients to be right", PATIENCE, || {
        let told = brokers(bootstrap)?;
        anyhow::ensure!(told == *expected, "{told:?} instead of {expected:?}");
        anyhow::Ok(())
    });
}

/// What the Cluster's status says of a listener.
fn listener(kube: &Kube, name: &str) -> anyhow::Result<ListenerStatus> {
    let status = kube.cluster()?.status.context("no status")?;
    let mut listeners = status.listeners.into_iter();
    let found = listeners.find(|listener| listener.name == name);
    found.with_context(|| format!("no listener {name}"))
}

fn addresses(kube: &Kube, name: &str) -> anyhow::Result<Brokers> {
    let brokers = listener(kube, name)?.brokers.into_iter();
    Ok(brokers
        .filter_map(|row| Some((row.broker, row.address?)))
        .collect())
}

fn wait_addresses(kube: &Kube, name: &str, expected: &Brokers) {
    let what = format!("the status of listener {name} to be right");
    wait::until(&what, PATIENCE, || {
        let told = addresses(kube, name)?;
        anyhow::ensure!(told == *expected, "{told:?} instead of {expected:?}");
        Ok(())
    });
}

fn service(kube: &Kube, name: &str) -> Service {
    let found = kube.block_on(kube.api::<Service>().get(name));
    found.unwrap_or_else(|error| panic!("Service {name}: {error}"))
}

fn node_port(kube: &Kube, name: &str) -> i32 {
    let spec = service(kube, name).spec.expect("a spec");
    let port = spec.ports.expect("ports").remove(0).node_port;
    port.expect("a node port")
}

/// What Services of listeners there are.
fn services(kube: &Kube) -> Vec<String> {
    let labelled = ListParams::default().labels("leasehold.dev/listener");
    let found = kube.block_on(kube.api::<Service>().list(&labelled));
    let found = found.expect("Services").items.into_iter();
    let mut names: Vec<String> = found.filter_map(|s| s.metadata.name).collect();
    names.sort();
    names
}

/// Does what a provider of load balancers does.
fn provide(kube: &Kube, broker: i32, host: Option<&str>) {
    let name = format!("{}-lb", kube.pod_name(broker));
    let ingress: Vec<_> = host
        .iter()
        .map(|ip| serde_json::json!({"ip": ip}))
        .collect();
    let status = serde_json::json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let (api, how) = (kube.api::<Service>(), PatchParams::default());
    kube.block_on(api.patch_status(&name, &how, &Patch::Merge(&status)))
        .unwrap_or_else(|error| panic!("the status of {name}: {error}"));
}

/// The ExternalIP of a broker's node, else its InternalIP.
fn node_address(kube: &Kube, broker: i32) -> String {
    let nodes: Api<Node> = Api::all(kube.client());
    let node = kube.block_on(nodes.get(&kube.node(broker))).expect("node");
    let addresses = node.status.and_then(|s| s.addresses).unwrap_or_default();
    let of = |kind: &str| addresses.iter().find(|a| a.type_ == kind);
    let found = of("ExternalIP").or_else(|| of("InternalIP"));
    found.expect("an address").address.clone()
}

/// An address of this machine for each load balancer: whatever goes there is taken by kube-proxy.
fn balancers(kube: &Kube) -> Vec<String> {
    let nodes: Api<Node> = Api::all(kube.client());
    let nodes = kube.block_on(nodes.list(&ListParams::default()));
    let address = |node: Node| {
        let all = node.status.and_then(|s| s.addresses).unwrap_or_default();
        let internal = all.into_iter().find(|a| a.type_ == "InternalIP");
        internal.expect("an InternalIP").address
    };
    nodes
        .expect("nodes")
        .items
        .into_iter()
        .map(address)
        .collect()
}

/// Waits for an Event of the Cluster with this reason and type.
fn wait_event(kube: &Kube, reason: &str, kind: &str) {
    let told = format!("reason={reason},type={kind}");
    wait::until(&format!("an Event with {told}"), PATIENCE, || {
        let events = ["get", "events", "--field-selector", &told, "-o", "name"];
        let found = leasehold_tests::cluster::kubectl(&kube.namespace, &events);
        anyhow::ensure!(!found.trim().is_empty(), "none");
        anyhow::Ok(())
    });
}

fn wait_listeners(kube: &Kube, status: &str) -> String {
    let object = kube.wait_condition("Cluster", NAME, "ListenersReady", status);
    condition(&object, "ListenersReady").1
}

/// Records written and read back through a listener.
fn flows(kube: &Kube, bootstrap: &str) {
    let topic = fresh("through");
    kube.ready_topic(&topic, 6);
    let load = Load::start(bootstrap, &topic, 6, 300, &[]);
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(bootstrap, &topic, &history);
}

#[test]
fn clients_outside_reach_every_broker_and_an_address_changes_without_a_restart() {
    let kube = Kube::connect(NAMESPACE, NAME);
    let out = "{name: out, type: NodePort, port: 9094}";
    let lb = format!("{{name: lb, type: LoadBalancer, port: {LB_PORT}}}");
    let refused = kube.try_apply(&spec(
        "{name: out, type: LoadBalancer, port: 9094, host: kafka.example.com}",
    ));
    let refused = format!(
        "{:#}",
        refused.expect_err("one name for all load balancers")
    );
    assert!(refused.contains("host must contain {broker}"), "{refused}");

    kube.apply(&spec(&format!("{out}, {lb}")));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    (0..BROKERS).for_each(|broker| kube.wait_name(broker));
    let before = kube.restarts();

    // Node ports: at the node of each broker's pod.
    let nodes: Brokers = (0..BROKERS)
        .map(|broker| {
            let port = node_port(&kube, &format!("{}-out", kube.pod_name(broker)));
            (broker, format!("{}:{port}", node_address(&kube, broker)))
        })
        .collect();
    wait_addresses(&kube, "out", &nodes);
    let through_nodes = listener(&kube, "out").expect("status").bootstrap;
    let through_nodes = through_nodes.expect("a bootstrap address");
    println!("node ports: {nodes:?}, to begin with {through_nodes}");
    wait_told(&through_nodes, &nodes);
    flows(&kube, &through_nodes);

    // Load balancers: nobody provides one yet, and it is said so.
    let why = wait_listeners(&kube, "False");
    assert!(
        why.contains("listener lb: broker 0 waits for the load balancer"),
        "{why}"
    );
    assert!(!why.contains("listener out"), "{why}");
    assert_eq!(addresses(&kube, "lb").expect("status"), Brokers::new());
    wait_event(&kube, "ListenerAddressMissing", "Normal");
    let given = balancers(&kube);
    let at = |host: &str| format!("{host}:{LB_PORT}");
    provide(&kube, 0, Some(&given[0]));
    let mut balanced = Brokers::from([(0, at(&given[0]))]);
    wait_addresses(&kube, "lb", &balanced);
    // Only that broker is in the answers of that listener, and those of the other stay what they were.
    wait_told(&at(&given[0]), &balanced);
    wait_told(&through_nodes, &nodes);
    for broker in [1, 2] {
        provide(&kube, broker, Some(&given[broker as usize]));
        balanced.insert(broker, at(&given[broker as usize]));
    }
    wait_addresses(&kube, "lb", &balanced);
    wait_listeners(&kube, "True");
    let through_balancers = listener(&kube, "lb").expect("status").bootstrap;
    let through_balancers = through_balancers.expect("the brokers' own, without one to begin with");
    wait_told(&through_balancers, &balanced);
    flows(&kube, &through_balancers);

    // One load balancer gets another address: clients hear of it, of that broker alone.
    let another = "198.18.200.7";
    provide(&kube, 0, Some(another));
    let moved = Brokers::from([
        (0, at(another)),
        (1, balanced[&1].clone()),
        (2, balanced[&2].clone()),
    ]);
    wait_told(&balanced[&1], &moved);
    wait_addresses(&kube, "lb", &moved);
    wait_told(&through_nodes, &nodes);
    // It is gone for a while: the broker is in no answer of that listener until it is back.
    provide(&kube, 0, None);
    let without = Brokers::from([(1, balanced[&1].clone()), (2, balanced[&2].clone())]);
    wait_told(&balanced[&1], &without);
    wait_event(&kube, "ListenerAddressMissing", "Warning");
    wait_event(&kube, "ListenersAddressed", "Normal");
    provide(&kube, 0, Some(&given[0]));
    wait_told(&balanced[&1], &balanced);
    wait_listeners(&kube, "True");
    assert_eq!(
        kube.restarts(),
        before,
        "the very same pods, never restarted"
    );

    // A broker that restarts is reached as before, if it stays on its node, and at its node wherever that is.
    let old = kube.pod(2).expect("the pod").metadata.uid.expect("a uid");
    kube.delete_pod(2, false);
    kube.wait_replaced(2, &old);
    let mut now = nodes.clone();
    let port = node_port(&kube, &format!("{}-out", kube.pod_name(2)));
    now.insert(2, format!("{}:{port}", node_address(&kube, 2)));
    wait_told(&now[&1], &now);
    wait_told(&balanced[&1], &balanced);

    // Clients inside are told what they always were.
    let inside = |id| {
        format!(
            "{}.{NAME}-brokers.{NAMESPACE}.svc.cluster.local:9092",
            kube.pod_name(id)
        )
    };
    let inside: Brokers = (0..BROKERS).map(|id| (id, inside(id))).collect();
    wait_told(&kube.bootstrap(), &inside);

    // A listener is taken off: its Services go, and the other one's stay.
    let all = services(&kube);
    assert_eq!(all.len(), 8, "{all:?}");
    kube.apply(&spec(out));
    wait::until("the load balancers to be gone", PATIENCE, || {
        let left = services(&kube);
        anyhow::ensure!(
            left.len() == 4 && left.iter().all(|s| s.ends_with("-out")),
            "{left:?}"
        );
        Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    let nodes: Brokers = (0..BROKERS)
        .map(|broker| {
            let port = node_port(&kube, &format!("{}-out", kube.pod_name(broker)));
            (broker, format!("{}:{port}", node_address(&kube, broker)))
        })
        .collect();
    wait_addresses(&kube, "out", &nodes);
    wait_told(&nodes[&0], &nodes);
    kube.remove_namespace();
}
