//! Reads what exists of a cluster.

use super::genesis::Found;
use super::names;
use super::roll::{self, PodFacts};
use super::volumes::{self, ClaimFacts};
use crate::context::Context;
use crate::view::ClusterKey;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;
use leasehold_crds::{RACK_ANNOTATION, RESTART_ANNOTATION, REVISION_ANNOTATION};
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::store::{Store as _, StoreError};
use std::time::Duration;

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot read {what}: {source}")]
    Api {
        what: &'static str,
        source: Box<kube::Error>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn api(what: &'static str) -> impl Fn(kube::Error) -> FetchError {
    move |source| FetchError::Api {
        what,
        source: Box::new(source),
    }
}

/// A broker's pod.
#[derive(Clone, Debug)]
pub struct BrokerPod {
    pub facts: PodFacts,
    pub node: Option<String>,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// The rack that it was told.
    pub rack: Option<String>,
    pub labels: std::collections::BTreeMap<String, String>,
}

/// What exists.
#[derive(Clone, Debug)]
pub struct Existing {
    pub stateful_set: Option<StatefulSet>,
    pub pods: Vec<BrokerPod>,
    pub claims: Vec<ClaimFacts>,
}

impl Existing {
    /// The size in the StatefulSet's claim template, which cannot be changed.
    pub fn claim_size(&self) -> Option<&str> {
        let spec = self.stateful_set.as_ref()?.spec.as_ref()?;
        let claim = spec.volume_claim_templates.as_ref()?.first()?;
        let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage").map(|size| size.0.as_str())
    }
}

/// The children that decisions look at.
pub async fn existing(context: &Context, cluster: &ClusterKey) -> Result<Existing, FetchError> {
    let (namespace, name) = cluster;
    let by_label = ListParams::default().labels(&names::selector_text(name));
    let sets = context.api::<StatefulSet>(namespace);
    let stateful_set = sets
        .get_opt(&names::stateful_set(name))
        .await
        .map_err(api("the StatefulSet"))?;
    let pods = context
        .api::<Pod>(namespace)
        .list(&by_label)
        .await
        .map_err(api("the pods"))?;
    let now = Timestamp::now();
    let pods: Vec<BrokerPod> = pods
        .into_iter()
        .filter_map(|pod| broker_pod(name, &pod, now))
        .collect();
    let ready = pods.iter().filter(|pod| pod.facts.ready_for.is_some());
    let ready: Vec<i32> = ready.map(|pod| pod.facts.ordinal).collect();
    let claims = volumes::claims(context, namespace, name, &ready)
        .await
        .map_err(api("the volume claims"))?;
    Ok(Existing {
        stateful_set,
        pods,
        claims,
    })
}

fn broker_pod(cluster: &str, pod: &Pod, now: Timestamp) -> Option<BrokerPod> {
    let name = pod.name_any();
    Some(BrokerPod {
        facts: PodFacts {
            ordinal: names::ordinal(cluster, &name)?,
            name,
            uid: pod.uid().unwrap_or_default(),
            revision: pod.annotations().get(REVISION_ANNOTATION).cloned(),
            asked: pod.annotations().contains_key(RESTART_ANNOTATION),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            // A clock that is behind the node's makes this wait longer, never shorter.
            ready_for: roll::ready_since(pod)
                .map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default()),
            trouble: roll::trouble(pod, now),
        },
        address: pod.status.as_ref().and_then(|s| s.pod_ip.clone()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        rack: pod.annotations().get(RACK_ANNOTATION).cloned(),
        labels: pod.labels().clone(),
    })
}

/// What the question of birth rests on: quorum reads, past every cache.
pub async fn found(
    context: &Context,
    cluster: &ClusterKey,
    existing: &Existing,
    known_id: Option<String>,
) -> Result<Found, FetchError> {
    let store = context.views.store(cluster)?;
    let head = store.read_head().await?;
    let chunks = match head {
        // With a head, stray chunks mean nothing.
        Some(_) => Vec::new(),
        None => store
            .list_chunks()
            .await?
            .into_iter()
            .map(|chunk| format!("{}-{}", names::head(&cluster.1), chunk.name))
            .collect(),
    };
    Ok(Found {
        head: head.map(|head| {
            head.data
                .get(CLUSTER_ID)
                .filter(|id| !id.is_empty())
                .cloned()
        }),
        chunks,
        volumes: existing
            .claims
            .iter()
            .map(|claim| (claim.name.clone(), claim.cluster_id.clone()))
            .collect(),
        known_id,
    })
}
