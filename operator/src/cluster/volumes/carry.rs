//! Carries out what is decided of volumes: thin I/O.

use super::super::names;
use super::super::teardown::{self, TeardownError};
use super::{Decision, Facts, Storage, decide};
use crate::context::Context;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};

/// Why it did not go on.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("cannot {what}: {source}")]
    Api {
        what: String,
        source: Box<kube::Error>,
    },
    #[error(transparent)]
    Claim(#[from] TeardownError),
}

fn api(what: String) -> impl FnOnce(kube::Error) -> VolumeError {
    move |source| VolumeError::Api {
        what,
        source: Box::new(source),
    }
}

/// Decides, and does it. `true`: the StatefulSet goes, and is to be made anew once it is gone.
pub async fn settle(
    context: &Context,
    facts: &Facts<'_>,
    set: Option<&StatefulSet>,
) -> Result<(Storage, bool), VolumeError> {
    let Decision {
        grow,
        renew,
        replace,
        storage,
    } = decide(facts);
    let wanted = facts.wanted.unwrap_or_default();
    let claims = context.api::<PersistentVolumeClaim>(facts.namespace);
    for name in &grow {
        let patch = serde_json::json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
        let patched = claims
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match patched {
            Ok(_) => {
                tracing::info!(namespace = facts.namespace, claim = %name, wanted, "the volume is to grow");
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                let why = format!("{name} cannot grow to {wanted}: {}", status.message);
                return Ok((Storage::Refused(why), false));
            }
            Err(error) => return Err(api(format!("ask for {wanted} in {name}"))(error)),
        }
    }
    if let Some(claim) = replace {
        tracing::warn!(namespace = facts.namespace, claim = %claim.name, why = ?claim.lost, "a lost volume is replaced by an empty one");
        // The claim goes once no pod uses it; the StatefulSet's controller makes both again.
        teardown::delete_claim(context, facts.namespace, &claim.name, &claim.uid).await?;
        let pod = names::pod(facts.cluster, claim.ordinal);
        let deleted = context
            .api::<Pod>(facts.namespace)
            .delete(&pod, &DeleteParams::default())
            .await;
        match deleted {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(api(format!("delete {pod}"))(error)),
        }
    }
    if let (true, Some(set)) = (renew, set) {
        let how = DeleteParams::orphan().preconditions(Preconditions {
            uid: set.uid(),
            resource_version: set.resource_version(),
        });
        let name = set.name_any();
        let sets = context.api::<StatefulSet>(facts.namespace);
        sets.delete(&name, &how)
            .await
            .map_err(api(format!("delete {name} without its pods")))?;
        tracing::info!(namespace = facts.namespace, stateful_set = %name, wanted, "made anew for the size of its claims");
        return Ok((storage, true));
    }
    Ok((storage, false))
}
