//! How clients of each listener reach each broker: from what the Services, pods and nodes say; pure.
//!
//! Promises: what is not known is told with its reason, never guessed; the address of one broker depends on that
//! broker's Service and node alone; a broker whose pod is away keeps its address, since it comes back soon and
//! nobody gains from its being forgotten meanwhile.

use super::super::names;
use super::{Further, Listeners};
use k8s_openapi::api::core::v1::{Node, Service};
use leasehold_crds::{ListenerBroker, ListenerKind, ListenerStatus};
use leasehold_metadata::image::{Endpoint, Image};
use leasehold_metadata::rpc::BrokerEndpoints;
use leasehold_types::{BrokerId, ListenerName};
use std::collections::{BTreeMap, BTreeSet};

/// Addresses that stand in one bootstrap list at most.
const LISTED: usize = 3;
/// Brokers that one message names at most.
const NAMED: usize = 5;

/// What is known of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    pub uid: String,
    pub node_port: Option<u16>,
    /// The address or name of its load balancer.
    pub ingress: Option<String>,
}

impl ServiceFacts {
    /// Of a Service as the API server has it.
    pub fn of(service: &Service) -> Self {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let port = ports.and_then(|ports| ports.first()?.node_port);
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()?.first());
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            node_port: port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|p| *p > 0),
            ingress: ingress.and_then(|at| given(&at.ip).or_else(|| given(&at.hostname))),
        }
    }
}

/// The address at which a node is reached from outside: its ExternalIP, else its InternalIP.
pub fn node_address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let first = |kind: &str| {
        let mut of_kind = addresses.iter().filter(|address| address.type_ == kind);
        of_kind.next().map(|address| address.address.clone())
    };
    first("ExternalIP").or_else(|| first("InternalIP"))
}

/// What is known outside of the metadata.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The Services of listeners, by name.
    pub services: BTreeMap<String, ServiceFacts>,
    /// The node of each broker's pod.
    pub nodes: BTreeMap<i32, String>,
    /// The addresses of those nodes, or why they are not known.
    pub addresses: BTreeMap<String, Result<String, String>>,
}

/// How one broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    At(Endpoint),
    /// It is not known, and what clients were told before is wrong.
    Unknown(String),
    /// It cannot be known now, and what clients were told before stands.
    Away(String),
}

/// How each broker is reached through each external listener.
pub type Findings = BTreeMap<(ListenerName, i32), Found>;

/// Finds all.
pub fn find(cluster: &str, listeners: &Listeners, brokers: i32, facts: &Facts) -> Findings {
    let mut findings = Findings::new();
    for listener in listeners.external() {
        for broker in 0..brokers {
            let found = reach(cluster, listener, broker, facts);
            findings.insert((listener.name.clone(), broker), found);
        }
    }
    findings
}

fn reach(cluster: &str, listener: &Further, broker: i32, facts: &Facts) -> Found {
    let name = names::listener_broker(cluster, listener.name.as_str(), broker);
    let Some(service) = facts.services.get(&name) else {
        return Found::Unknown(format!("Service {name}"));
    };
    let host = listener.host(broker);
    if listener.spec.kind == ListenerKind::LoadBalancer {
        let Ok(port) = u16::try_from(listener.spec.port) else {
            return Found::Unknown(format!("{} is no port", listener.spec.port));
        };
        return match host.or_else(|| service.ingress.clone()) {
            Some(host) => Found::At(Endpoint { host, port }),
            None => Found::Unknown(format!(
                "the load balancer of Service {name}: its status.loadBalancer.ingress is empty"
            )),
        };
    }
    let Some(port) = service.node_port else {
        return Found::Unknown(format!("a node port of Service {name}"));
    };
    if let Some(host) = host {
        return Found::At(Endpoint { host, port });
    }
    let Some(node) = facts.nodes.get(&broker) else {
        return Found::Away(format!("a node for pod {}", names::pod(cluster, broker)));
    };
    match facts.addresses.get(node) {
        Some(Ok(host)) => Found::At(Endpoint {
            host: host.clone(),
            port,
        }),
        Some(Err(why)) => Found::Unknown(why.clone()),
        None => Found::Away(format!("the address of node {node}")),
    }
}

/// What the controller is to be told: only brokers and listeners of which it knows something else.
pub fn news(image: &Image, findings: &Findings) -> Vec<BrokerEndpoints> {
    let mut news: BTreeMap<i32, BrokerEndpoints> = BTreeMap::new();
    for ((name, broker), found) in findings {
        let id = BrokerId(*broker);
        let wanted = match found {
            Found::At(endpoint) => Some(endpoint.clone()),
            Found::Unknown(_) => None,
            Found::Away(_) => continue,
        };
        // Who does not listen there (yet) would refuse it.
        let known = image.broker(id).and_then(|b| b.listeners.get(name));
        if known.is_some_and(|known| *known != wanted) {
            let told = news.entry(*broker).or_insert_with(|| BrokerEndpoints {
                broker: id,
                listeners: BTreeMap::new(),
            });
            told.listeners.insert(name.clone(), wanted);
        }
    }
    news.into_values().collect()
}

/// What a cluster's listeners are, for its status.
#[derive(Default)]
pub struct Told {
    pub listeners: Vec<ListenerStatus>,
    /// What is waited for; `None` if every broker is reached through every listener.
    pub waiting: Option<String>,
}

/// Where a cluster is.
pub struct Place<'a> {
    pub cluster: &'a str,
    pub namespace: &'a str,
    pub domain: &'a str,
    pub brokers: i32,
}

/// Puts the status together. `trouble`: why the controller could not be told what it should know.
pub fn told(
    place: &Place<'_>,
    listeners: &Listeners,
    facts: &Facts,
    findings: &Findings,
    image: Option<&Image>,
    trouble: Option<&str>,
) -> Told {
    let mut all = vec![ListenerStatus {
        name: listeners.main.clone(),
        kind: ListenerKind::Internal,
        bootstrap: Some(inside(
            place,
            names::bootstrap(place.cluster),
            listeners.main_port,
        )),
        brokers: brokers(place, |broker| {
            let known = image.and_then(|image| image.broker(BrokerId(broker)));
            (known.map(|known| text(&known.client)), None)
        }),
    }];
    let mut waiting = Vec::new();
    for listener in &listeners.further {
        let name = &listener.name;
        let rows = brokers(place, |broker| {
            let known = image.and_then(|image| image.broker(BrokerId(broker)));
            let Some(current) = known.and_then(|known| known.listeners.get(name)) else {
                let why = "its next start: it has not registered this listener";
                return (None, Some(why.to_owned()));
            };
            let found = findings.get(&(name.clone(), broker));
            let (is, why) = match found {
                None => (current.as_ref(), None),
                Some(Found::At(endpoint)) if trouble.is_none() => (Some(endpoint), None),
                Some(Found::At(endpoint)) if current.as_ref() == Some(endpoint) => {
                    (Some(endpoint), None)
                }
                Some(Found::At(_)) => (current.as_ref(), trouble.map(str::to_owned)),
                Some(Found::Unknown(why)) if trouble.is_none() => (None, Some(why.clone())),
                Some(Found::Unknown(why)) => (current.as_ref(), Some(why.clone())),
                Some(Found::Away(why)) => {
                    (current.as_ref(), current.is_none().then(|| why.clone()))
                }
            };
            (is.map(text), why)
        });
        waiting.extend(summary(name, &rows));
        all.push(ListenerStatus {
            name: name.to_string(),
            kind: listener.spec.kind,
            bootstrap: bootstrap(place, listener, facts, &rows),
            brokers: rows,
        });
    }
    Told {
        listeners: all,
        waiting: (!waiting.is_empty()).then(|| waiting.join("; ")),
    }
}

fn brokers(
    place: &Place<'_>,
    of: impl Fn(i32) -> (Option<String>, Option<String>),
) -> Vec<ListenerBroker> {
    let row = |broker| {
        let (address, waiting) = of(broker);
        let waiting = waiting.map(|why| why.chars().take(500).collect());
        ListenerBroker {
            broker,
            address,
            waiting,
        }
    };
    (0..place.brokers).map(row).collect()
}

/// What one listener waits for: each reason once, with the brokers that it is about.
fn summary(name: &ListenerName, rows: &[ListenerBroker]) -> Option<String> {
    let waiting: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row.broker, row.waiting.as_ref()?)))
        .collect();
    let named: Vec<String> = waiting
        .iter()
        .take(NAMED)
        .map(|(broker, why)| format!("broker {broker} waits for {why}"))
        .collect();
    let more = match waiting.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!named.is_empty()).then(|| format!("listener {name}: {}{more}", named.join(", ")))
}

/// What clients are given to begin with.
fn bootstrap(
    place: &Place<'_>,
    listener: &Further,
    facts: &Facts,
    rows: &[ListenerBroker],
) -> Option<String> {
    let name = names::listener_bootstrap(place.cluster, listener.name.as_str());
    let service = facts.services.get(&name);
    match listener.spec.kind {
        ListenerKind::Internal => Some(inside(place, name, listener.spec.port)),
        ListenerKind::NodePort => {
            let port = service?.node_port?;
            let node = |broker| facts.addresses.get(facts.nodes.get(&broker)?)?.clone().ok();
            let hosts: BTreeSet<String> = (0..place.brokers)
                .filter_map(|broker| listener.host(broker).or_else(|| node(broker)))
                .collect();
            let all: Vec<String> = hosts
                .into_iter()
                .take(LISTED)
                .map(|host| text(&Endpoint { host, port }))
                .collect();
            (!all.is_empty()).then(|| all.join(","))
        }
        ListenerKind::LoadBalancer => {
            let port = u16::try_from(listener.spec.port).ok()?;
            let balancer = service.and_then(|service| service.ingress.clone());
            if let Some(host) = balancer {
                return Some(text(&Endpoint { host, port }));
            }
            // Any broker will do to begin with.
            let some: Vec<String> = rows
                .iter()
                .filter_map(|row| row.address.clone())
                .take(LISTED)
                .collect();
            (!some.is_empty()).then(|| some.join(","))
        }
    }
}

fn inside(place: &Place<'_>, service: String, port: i32) -> String {
    let Place {
        namespace, domain, ..
    } = place;
    format!("{service}.{namespace}.svc.{domain}:{port}")
}

fn text(endpoint: &Endpoint) -> String {
    match endpoint.host.contains(':') {
        true => format!("[{}]:{}", endpoint.host, endpoint.port),
        false => endpoint.to_string(),
    }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
