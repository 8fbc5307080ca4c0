//! Carries restarts out: passes a wish for all on to the pods, and takes one pod away.
//!
//! Promises: nothing is done without holding the operator's Lease; the pod that goes is the very one that
//! was judged. While the disruption budget is open, pods are evicted, so that the API server counts them
//! with those that others evict, such as a drain of a node or a deposed operator: of two who take away a
//! broker at the same time, one is refused. While it is closed nobody else can evict one that is ready, and
//! it is deleted.

use super::fetch::BrokerPod;
use super::roll::Restart;
use crate::context::Context;
use crate::view::ClusterKey;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use leasehold_crds::{Cluster, RESTART_ANNOTATION};

/// Why it was not done. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    #[error("cannot ask {pod} for a restart: {source}")]
    Ask {
        pod: String,
        source: Box<kube::Error>,
    },
    #[error("cannot take the annotation {annotation} off the Cluster: {source}")]
    Answer {
        annotation: &'static str,
        source: Box<kube::Error>,
    },
    #[error("cannot restart {pod}: {source}")]
    Remove {
        pod: String,
        source: Box<kube::Error>,
    },
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    Going,
    /// It is another one by now, or gone.
    Another,
    /// Somebody else took a broker away, or the budget is not counted anew yet.
    NotYet,
}

/// Passes a wish on the Cluster on to its pods; `true` if there was one.
pub(super) async fn pass_on(
    context: &Context,
    cluster: &Cluster,
    pods: &[BrokerPod],
) -> Result<bool, RestartError> {
    if !cluster.annotations().contains_key(RESTART_ANNOTATION) {
        return Ok(false);
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let api = context.api::<Pod>(&namespace);
    let value = &cluster.annotations()[RESTART_ANNOTATION];
    let patch = serde_json::json!({"metadata": {"annotations": {RESTART_ANNOTATION: value}}});
    for pod in pods.iter().filter(|pod| !pod.facts.terminating) {
        let patched = api
            .patch_metadata(
                &pod.facts.name,
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        match patched {
            Ok(_) => {}
            // It restarts anyhow.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                return Err(RestartError::Ask {
                    pod: pod.facts.name.clone(),
                    source: Box::new(source),
                });
            }
        }
    }
    // Only when all have been told.
    take_off(context, cluster, RESTART_ANNOTATION).await?;
    Ok(true)
}

/// A wish on the Cluster was granted. The resourceVersion keeps a newer one.
pub(super) async fn take_off(
    context: &Context,
    cluster: &Cluster,
    annotation: &'static str,
) -> Result<(), RestartError> {
    let patch = serde_json::json!({"metadata": {
        "annotations": {annotation: null}, "resourceVersion": cluster.resource_version(),
    }});
    let taken_off = context
        .api::<Cluster>(&cluster.namespace().unwrap_or_default())
        .patch_metadata(
            &cluster.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await;
    match taken_off {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(source) => Err(RestartError::Answer {
            annotation,
            source: Box::new(source),
        }),
    }
}

/// Takes the pod away; the StatefulSet brings it back as it is wanted today.
pub(super) async fn remove(
    context: &Context,
    cluster: &ClusterKey,
    restart: &Restart,
    budget_is_open: bool,
) -> Result<Removed, RestartError> {
    let api = context.api::<Pod>(&cluster.0);
    let only = DeleteParams::default().preconditions(Preconditions {
        uid: Some(restart.uid.clone()),
        resource_version: None,
    });
    let result = if budget_is_open {
        let params = EvictParams {
            delete_options: Some(only),
            ..EvictParams::default()
        };
        api.evict(&restart.pod, &params).await.map(drop)
    } else {
        api.delete(&restart.pod, &only).await.map(drop)
    };
    match result {
        Ok(()) => Ok(Removed::Going),
        Err(kube::Error::Api(status)) => match status.code {
            404 | 409 => Ok(Removed::Another),
            429 => Ok(Removed::NotYet),
            _ => Err(RestartError::Remove {
                pod: restart.pod.clone(),
                source: Box::new(kube::Error::Api(status)),
            }),
        },
        Err(source) => Err(RestartError::Remove {
            pod: restart.pod.clone(),
            source: Box::new(source),
        }),
    }
}
