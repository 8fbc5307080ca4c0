//! The finalizer that keeps a deleted object until what it stands for is settled.
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/>

use crate::context::Context;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Whether the object has it.
pub fn has<K: ResourceExt>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|has| has == finalizer)
}

/// Puts it on or takes it off; those that others set stay. An object that is gone needs neither.
pub async fn set<K>(
    context: &Context,
    object: &K,
    finalizer: &str,
    wanted: bool,
) -> Result<(), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    if has(object, finalizer) == wanted {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|has| has != finalizer);
    if wanted {
        finalizers.push(finalizer.to_owned());
    }
    // The resourceVersion guards what others set meanwhile.
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    let api = context.api::<K>(&object.namespace().unwrap_or_default());
    let how = PatchParams::default();
    match api
        .patch_metadata(&object.name_any(), &how, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
