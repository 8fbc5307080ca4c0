//! How brokers are found to be reached, what the controller is told of it, and the status.

use super::super::super::facts::tests::image as plain_image;
use super::super::check::{check, tests::specs};
use super::*;
use std::sync::Arc;

const TWO: &str =
    "[{name: out, type: NodePort, port: 9094}, {name: lb, type: LoadBalancer, port: 9095}]";

fn listeners(yaml: &str) -> Listeners {
    check(&specs(yaml)).unwrap()
}

fn name(text: &str) -> ListenerName {
    ListenerName::parse(text).unwrap()
}

fn at(text: &str) -> Endpoint {
    let (host, port) = text.rsplit_once(':').unwrap();
    Endpoint {
        host: host.to_owned(),
        port: port.parse().unwrap(),
    }
}

/// Three brokers on three nodes; the load balancer of broker 1 is not there yet.
fn facts() -> Facts {
    let mut facts = Facts::default();
    for broker in 0..3 {
        let out = ServiceFacts {
            node_port: Some(31_000 + broker as u16),
            ..ServiceFacts::default()
        };
        let lb = ServiceFacts {
            ingress: (broker != 1).then(|| format!("198.51.100.{broker}")),
            ..ServiceFacts::default()
        };
        let services = &mut facts.services;
        services.insert(names::listener_broker("demo", "out", broker), out);
        services.insert(names::listener_broker("demo", "lb", broker), lb);
        facts.nodes.insert(broker, format!("node-{broker}"));
        let address = Ok(format!("192.0.2.{broker}"));
        facts.addresses.insert(format!("node-{broker}"), address);
    }
    let bootstrap = ServiceFacts {
        node_port: Some(30_999),
        ..ServiceFacts::default()
    };
    facts
        .services
        .insert("demo-bootstrap-out".into(), bootstrap);
    facts
}

/// Brokers that have both listeners open, told what is given: `(broker, listener, endpoint)`.
fn image(told: &[(i32, &str, &str)]) -> Image {
    let mut image = plain_image("0 1 2");
    let ids: Vec<BrokerId> = image.brokers.keys().copied().collect();
    for id in ids {
        let mut broker = (**image.broker(id).unwrap()).clone();
        broker.listeners = [(name("out"), None), (name("lb"), None)].into();
        for (_, listener, endpoint) in told.iter().filter(|(of, ..)| *of == id.0) {
            broker.listeners.insert(name(listener), Some(at(endpoint)));
        }
        image.brokers.insert(id, Arc::new(broker));
    }
    image
}

fn found(facts: &Facts, yaml: &str, listener: &str, broker: i32) -> Found {
    find("demo", &listeners(yaml), 3, facts)[&(name(listener), broker)].clone()
}

#[test]
fn a_node_port_is_reached_at_the_brokers_own_node_and_a_load_balancer_at_its_ingress() {
    let facts = facts();
    assert_eq!(
        found(&facts, TWO, "out", 2),
        Found::At(at("192.0.2.2:31002"))
    );
    assert_eq!(
        found(&facts, TWO, "lb", 2),
        Found::At(at("198.51.100.2:9095"))
    );
    let Found::Unknown(why) = found(&facts, TWO, "lb", 1) else {
        panic!("there is none")
    };
    assert!(why.contains("demo-broker-1-lb"), "{why}");
}

#[test]
fn a_host_that_is_asked_for_comes_before_what_is_found_and_needs_no_node() {
    let mut facts = facts();
    facts.addresses.clear();
    let one = "[{name: out, type: NodePort, port: 9094, host: kafka.example.com}]";
    assert_eq!(
        found(&facts, one, "out", 2),
        Found::At(at("kafka.example.com:31002"))
    );
    let each = "[{name: lb, type: LoadBalancer, port: 9095, host: 'b{broker}.example.com'}]";
    assert_eq!(
        found(&facts, each, "lb", 1),
        Found::At(at("b1.example.com:9095"))
    );
}

#[test]
fn a_pod_without_a_node_keeps_what_clients_were_told() {
    let mut facts = facts();
    facts.nodes.remove(&1);
    assert!(matches!(found(&facts, TWO, "out", 1), Found::Away(_)));
    let image = image(&[
        (0, "out", "192.0.2.0:31000"),
        (1, "out", "192.0.2.1:31001"),
        (2, "out", "192.0.2.2:31002"),
        (0, "lb", "198.51.100.0:9095"),
        (2, "lb", "198.51.100.2:9095"),
    ]);
    let findings = find("demo", &listeners(TWO), 3, &facts);
    assert_eq!(news(&image, &findings), []);
}

#[test]
fn a_changed_address_is_told_of_one_broker_and_no_other() {
    let known = [
        (0, "out", "192.0.2.0:31000"),
        (1, "out", "192.0.2.1:31001"),
        (2, "out", "192.0.2.2:31002"),
        (0, "lb", "198.51.100.0:9095"),
        (2, "lb", "198.51.100.2:9095"),
    ];
    let image = image(&known);
    let mut facts = facts();
    let of = |facts: &Facts| news(&image, &find("demo", &listeners(TWO), 3, facts));
    assert_eq!(of(&facts), []);
    // The load balancer that was waited for.
    let lb = facts.services.get_mut("demo-broker-1-lb").unwrap();
    lb.ingress = Some("lb-1.example.net".into());
    let told = of(&facts);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].broker, BrokerId(1));
    let expected = [(name("lb"), Some(at("lb-1.example.net:9095")))];
    assert_eq!(told[0].listeners, expected.into());
    // A load balancer that is gone.
    facts.services.get_mut("demo-broker-2-lb").unwrap().ingress = None;
    let told = of(&facts);
    assert_eq!(told[1].listeners, [(name("lb"), None)].into());
}

#[test]
fn a_broker_that_does_not_listen_there_yet_is_not_told() {
    let image = plain_image("0 1 2");
    assert_eq!(
        news(&image, &find("demo", &listeners(TWO), 3, &facts())),
        []
    );
}

fn status(facts: &Facts, image: &Image, trouble: Option<&str>) -> Told {
    let place = Place {
        cluster: "demo",
        namespace: "shop",
        domain: "cluster.local",
        brokers: 3,
    };
    let listeners = listeners(TWO);
    let findings = find("demo", &listeners, 3, facts);
    told(&place, &listeners, facts, &findings, Some(image), trouble)
}

#[test]
fn the_status_tells_every_address_and_what_is_waited_for() {
    let told = status(&facts(), &image(&[]), None);
    insta::assert_yaml_snapshot!(told.listeners);
    let waiting = told.waiting.unwrap();
    let expected = "listener lb: broker 1 waits for the load balancer of Service demo-broker-1-lb";
    assert!(waiting.starts_with(expected), "{waiting}");
    assert!(!waiting.contains("out"), "{waiting}");
}

#[test]
fn where_nodes_cannot_be_read_the_condition_asks_for_a_host() {
    let mut facts = facts();
    let confined = || Err(super::super::look::CONFINED.to_owned());
    facts.addresses.values_mut().for_each(|at| *at = confined());
    let waiting = status(&facts, &image(&[]), None).waiting.unwrap();
    let expected =
        "listener out: broker 0 waits for host in spec.listeners: an operator of one namespace";
    assert!(waiting.starts_with(expected), "{waiting}");
    let one = "[{name: out, type: NodePort, port: 9094, host: kafka.example.com}]";
    assert_eq!(
        found(&facts, one, "out", 0),
        Found::At(at("kafka.example.com:31000"))
    );
}

#[test]
fn an_address_that_the_controller_was_not_told_is_not_claimed() {
    let image = image(&[(0, "out", "192.0.2.0:31000"), (1, "out", "192.0.2.9:31001")]);
    let told = status(
        &facts(),
        &image,
        Some("the controller: it cannot be reached"),
    );
    let out = &told.listeners[1].brokers;
    assert_eq!(out[0].waiting, None);
    assert_eq!(out[1].address.as_deref(), Some("192.0.2.9:31001"));
    assert!(
        out[1]
            .waiting
            .as_ref()
            .unwrap()
            .contains("cannot be reached")
    );
}

#[test]
fn an_external_address_of_a_node_comes_before_an_internal_one() {
    let node = |addresses: &str| -> Node {
        let text = format!("{{metadata: {{name: n}}, status: {{addresses: {addresses}}}}}");
        serde_yaml::from_str(&text).unwrap()
    };
    let both = "[{type: Hostname, address: n}, {type: InternalIP, address: 10.0.0.1}, {type: ExternalIP, address: 192.0.2.1}]";
    assert_eq!(node_address(&node(both)).as_deref(), Some("192.0.2.1"));
    let internal = "[{type: Hostname, address: n}, {type: InternalIP, address: 10.0.0.1}]";
    assert_eq!(node_address(&node(internal)).as_deref(), Some("10.0.0.1"));
    assert_eq!(node_address(&node("[{type: Hostname, address: n}]")), None);
}

#[test]
fn a_service_tells_its_node_port_and_its_load_balancer() {
    let service = |yaml: &str| ServiceFacts::of(&serde_yaml::from_str(yaml).unwrap());
    let named = service(
        "{metadata: {uid: u}, spec: {ports: [{port: 9094, nodePort: 31000}]}, status: {loadBalancer: {ingress: [{hostname: lb.example.net}]}}}",
    );
    assert_eq!(named.node_port, Some(31_000));
    assert_eq!(named.ingress.as_deref(), Some("lb.example.net"));
    let ip = service(
        "{metadata: {uid: u}, spec: {ports: [{port: 9094}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.9, hostname: ''}]}}}",
    );
    assert_eq!(
        (ip.node_port, ip.ingress.as_deref()),
        (None, Some("192.0.2.9"))
    );
    assert_eq!(service("{metadata: {uid: u}}").ingress, None);
}
