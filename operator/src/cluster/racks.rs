//! Tells each broker's pod the zone of its node: a pod cannot read its node's labels itself.
//!
//! A convenience, not a condition: a broker without it starts with its last known rack, and registers
//! again when its pod is told another.

use super::fetch::BrokerPod;
use crate::context::Context;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use leasehold_crds::RACK_ANNOTATION;

/// Annotates the pods whose rack is not told yet, or is another by now.
pub async fn tell(
    context: &Context,
    namespace: &str,
    topology_key: &str,
    pods: &[BrokerPod],
) -> Result<(), kube::Error> {
    for pod in pods.iter().filter(|pod| !pod.facts.terminating) {
        let Some(rack) = rack_of(context, topology_key, pod).await? else {
            continue;
        };
        if pod.rack.as_ref() == Some(&rack) {
            continue;
        }
        let patch = serde_json::json!({"metadata": {"annotations": {RACK_ANNOTATION: rack}}});
        let api = context.api::<Pod>(namespace);
        match api
            .patch_metadata(
                &pod.facts.name,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        {
            Ok(_) => tracing::info!(pod = %pod.facts.name, rack, "told the pod its rack"),
            // It went meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn rack_of(
    context: &Context,
    topology_key: &str,
    pod: &BrokerPod,
) -> Result<Option<String>, kube::Error> {
    // Newer Kubernetes copies the node's topology labels to the pod.
    if let Some(rack) = pod.labels.get(topology_key) {
        return Ok(Some(rack.clone()));
    }
    // Nodes are cluster-scoped: an operator of one namespace may not read them.
    let (Some(node), None) = (&pod.node, &context.namespace) else {
        return Ok(None);
    };
    // A pod stays on its node, and a node in its zone: once told is told.
    if pod.rack.is_some() {
        return Ok(pod.rack.clone());
    }
    let node = Api::<Node>::all(context.client.clone())
        .get_metadata_opt(node)
        .await?;
    Ok(node.and_then(|node| node.labels().get(topology_key).cloned()))
}
