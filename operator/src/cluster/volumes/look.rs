//! What a broker's volume claim tells, and whether its volume is gone for good.

use super::super::names;
use crate::context::Context;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use leasehold_crds::CLUSTER_ID_ANNOTATION;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// A broker's volume claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFacts {
    pub name: String,
    pub uid: String,
    pub ordinal: i32,
    /// Which of its broker's volumes it is, from 0.
    pub volume: i32,
    pub cluster_id: Option<String>,
    /// The size that it asks for, and the one that it has.
    pub asked: Option<String>,
    pub has: Option<String>,
    pub bound: bool,
    /// Its broker serves.
    pub in_use: bool,
    /// Why its volume is gone for good; `None` if it is there, or may come back.
    pub lost: Option<String>,
}

/// Reads the claims of a cluster; `ready` are the brokers whose pods are.
pub async fn claims(
    context: &Context,
    namespace: &str,
    cluster: &str,
    ready: &[i32],
) -> Result<Vec<ClaimFacts>, kube::Error> {
    let by_label = ListParams::default().labels(&names::selector_text(cluster));
    let api = context.api::<PersistentVolumeClaim>(namespace);
    let mut found = Vec::new();
    for claim in api.list(&by_label).await? {
        let Some(mut facts) = facts(cluster, &claim) else {
            continue;
        };
        facts.in_use = ready.contains(&facts.ordinal);
        if facts.lost.is_none() && facts.bound && !facts.in_use {
            facts.lost = stranded(context, &claim).await?;
        }
        found.push(facts);
    }
    Ok(found)
}

fn facts(cluster: &str, claim: &PersistentVolumeClaim) -> Option<ClaimFacts> {
    let name = claim.name_any();
    let (ordinal, volume) = names::claimed(cluster, &name)?;
    let spec = claim.spec.as_ref();
    let requests = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let status = claim.status.as_ref();
    let capacity = status.and_then(|status| status.capacity.as_ref());
    let phase = status.and_then(|status| status.phase.as_deref());
    let persistent = spec.and_then(|spec| spec.volume_name.as_deref());
    let lost = || {
        format!(
            "PersistentVolume {} does not exist",
            persistent.unwrap_or_default()
        )
    };
    Some(ClaimFacts {
        uid: claim.uid().unwrap_or_default(),
        ordinal,
        volume,
        cluster_id: claim.annotations().get(CLUSTER_ID_ANNOTATION).cloned(),
        asked: requests
            .and_then(|all| all.get("storage"))
            .map(|size| size.0.clone()),
        has: capacity
            .and_then(|all| all.get("storage"))
            .map(|size| size.0.clone()),
        bound: phase == Some("Bound"),
        in_use: false,
        lost: (phase == Some("Lost")).then(lost),
        name,
    })
}

/// Whether the volume can be used only on nodes that are no more. Volumes and nodes are cluster-scoped: an operator
/// of one namespace may not read them, and never finds so.
async fn stranded(
    context: &Context,
    claim: &PersistentVolumeClaim,
) -> Result<Option<String>, kube::Error> {
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    let (Some(volume), None) = (volume, &context.namespace) else {
        return Ok(None);
    };
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    let Some(found) = volumes.get_opt(&volume).await? else {
        // Kubernetes says so of the claim in a moment.
        return Ok(None);
    };
    let Some(hosts) = hosts(&found) else {
        return Ok(None);
    };
    let named = format!("{HOSTNAME} in ({})", hosts.join(","));
    let nodes = Api::<Node>::all(context.client.clone());
    let left = nodes
        .list_metadata(&ListParams::default().labels(&named))
        .await?;
    Ok(left.items.is_empty().then(|| {
        let nodes = hosts.join(", ");
        format!("PersistentVolume {volume} can be used on {nodes} only, and no such node exists")
    }))
}

/// The host names of the only nodes on which a volume can be used; `None` if it is not bound to such.
fn hosts(volume: &PersistentVolume) -> Option<Vec<String>> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required.as_ref()?.node_selector_terms;
    let mut all = Vec::new();
    for term in terms {
        let mut expressions = term.match_expressions.iter().flatten();
        let named = expressions.find(|e| e.key == HOSTNAME && e.operator == "In")?;
        all.extend(named.values.iter().flatten().cloned());
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_tells_its_sizes_and_that_its_volume_is_no_more() {
        let claim = |status: &str| {
            let text = format!(
                "{{metadata: {{name: data-demo-broker-1, uid: u}}, spec: {{volumeName: pv-7, resources: {{requests: {{storage: 2Gi}}}}}}, status: {status}}}"
            );
            let claim: PersistentVolumeClaim = serde_yaml::from_str(&text).unwrap();
            facts("demo", &claim).unwrap()
        };
        let bound = claim("{phase: Bound, capacity: {storage: 1Gi}}");
        assert_eq!(
            (
                bound.ordinal,
                bound.bound,
                bound.asked.as_deref(),
                bound.has.as_deref()
            ),
            (1, true, Some("2Gi"), Some("1Gi"))
        );
        assert_eq!(bound.lost, None);
        let lost = claim("{phase: Lost}").lost;
        assert_eq!(
            lost.as_deref(),
            Some("PersistentVolume pv-7 does not exist")
        );
    }

    #[test]
    fn only_a_volume_that_is_bound_to_hosts_by_name_can_be_stranded() {
        let of = |terms: &str| {
            let text =
                format!("{{spec: {{nodeAffinity: {{required: {{nodeSelectorTerms: {terms}}}}}}}}}");
            hosts(&serde_yaml::from_str(&text).unwrap())
        };
        let host =
            "{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [n1]}]}";
        let zone =
            "{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [a]}]}";
        assert_eq!(of(&format!("[{host}]")), Some(vec!["n1".to_owned()]));
        assert_eq!(
            of(&format!("[{host}, {zone}]")),
            None,
            "a zone will have nodes again"
        );
        assert_eq!(of("[]"), None);
        assert_eq!(hosts(&PersistentVolume::default()), None);
    }
}
