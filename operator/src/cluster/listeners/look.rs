//! Reads what the finding of addresses rests on, and takes away the Services that no listener has any more.

use super::super::fetch::BrokerPod;
use super::super::names;
use super::super::validate::ValidCluster;
use super::Listeners;
use super::find::{Facts, ServiceFacts, node_address};
use crate::context::Context;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt as _};
use leasehold_crds::{LISTENER_LABEL, ListenerKind};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// For how long the address of a node is taken for granted. Rounds may come several times a second, and nodes
/// keep their addresses.
const KEPT: Duration = Duration::from_secs(30);

/// What a node port waits for where nodes cannot be read.
pub const CONFINED: &str =
    "host in spec.listeners: an operator of one namespace may not read the addresses of nodes";

/// Addresses of nodes that were read a moment ago.
#[derive(Default)]
pub struct Nodes(Mutex<HashMap<String, (Instant, String)>>);

impl Nodes {
    fn get(&self, node: &str) -> Option<String> {
        let mut known = self.0.lock();
        known.retain(|_, (since, _)| since.elapsed() < KEPT);
        known.get(node).map(|(_, address)| address.clone())
    }

    fn put(&self, node: &str, address: &str) {
        let known = (Instant::now(), address.to_owned());
        self.0.lock().insert(node.to_owned(), known);
    }
}

/// Reads the Services of listeners, and the nodes where they matter.
pub async fn look(
    context: &Context,
    cluster: &ValidCluster,
    pods: &[BrokerPod],
) -> Result<Facts, kube::Error> {
    let labels = format!("{},{LISTENER_LABEL}", names::selector_text(&cluster.name));
    let services = context.api::<Service>(&cluster.namespace);
    let listed = services
        .list(&ListParams::default().labels(&labels))
        .await?;
    let ours = |service: &Service| {
        let owners = service.owner_references();
        owners.iter().any(|owner| owner.uid == cluster.owner.uid)
    };
    let mut facts = Facts {
        services: listed
            .iter()
            .filter(|service| ours(service))
            .map(|service| (service.name_any(), ServiceFacts::of(service)))
            .collect(),
        nodes: pods
            .iter()
            .filter(|pod| !pod.facts.terminating)
            .filter_map(|pod| Some((pod.facts.ordinal, pod.node.clone()?)))
            .collect(),
        ..Facts::default()
    };
    if needs_nodes(&cluster.listeners) {
        let names: BTreeSet<String> = facts.nodes.values().cloned().collect();
        for name in names {
            let address = address_of(context, &name).await?;
            facts.addresses.insert(name, address);
        }
    }
    Ok(facts)
}

fn needs_nodes(listeners: &Listeners) -> bool {
    let mut external = listeners.external();
    external.any(|one| one.spec.kind == ListenerKind::NodePort && one.spec.host.is_none())
}

async fn address_of(context: &Context, node: &str) -> Result<Result<String, String>, kube::Error> {
    if context.namespace.is_some() {
        // Nodes are cluster-scoped.
        return Ok(Err(CONFINED.to_owned()));
    }
    if let Some(address) = context.nodes.get(node) {
        return Ok(Ok(address));
    }
    let found = Api::<Node>::all(context.client.clone())
        .get_opt(node)
        .await?;
    Ok(match found.as_ref().and_then(node_address) {
        Some(address) => {
            context.nodes.put(node, &address);
            Ok(address)
        }
        None => Err(format!("an ExternalIP or InternalIP of node {node}")),
    })
}

/// Deletes the Services of listeners that are not `wanted` any more: a load balancer costs money. Only the very
/// object that was looked at.
pub async fn remove_others(
    context: &Context,
    namespace: &str,
    facts: &mut Facts,
    wanted: &BTreeSet<String>,
) -> Result<(), kube::Error> {
    let api = context.api::<Service>(namespace);
    let others: Vec<String> = facts
        .services
        .keys()
        .filter(|name| !wanted.contains(*name))
        .cloned()
        .collect();
    for name in others {
        let Some(service) = facts.services.remove(&name) else {
            continue;
        };
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(service.uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&name, &parameters).await {
            Ok(_) => {
                tracing::info!(%namespace, service = %name, "no listener has this Service any more")
            }
            // Gone, or another of the name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
