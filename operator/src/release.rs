//! Before the operator is uninstalled: stop it, then take its finalizers off every object, so that no
//! object and no namespace hangs on an operator that is gone. Deletes no data.

use crate::cli::ReleaseArgs;
use crate::context::Context;
use anyhow::Context as _;
use futures::future::try_join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt as _};
use leasehold_crds::{CLUSTER_FINALIZER, Cluster, TOPIC_FINALIZER, Topic};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// Does it.
pub async fn release(args: ReleaseArgs) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("cannot reach the Kubernetes API")?;
    stop(&client, &args).await?;
    let namespace = args.namespace.as_deref();
    let topics = take_off::<Topic>(&client, namespace, TOPIC_FINALIZER).await?;
    let clusters = take_off::<Cluster>(&client, namespace, CLUSTER_FINALIZER).await?;
    tracing::info!(
        topics,
        clusters,
        "finalizers are taken off; no data was deleted"
    );
    Ok(())
}

/// A running operator would put them on again.
async fn stop(client: &Client, args: &ReleaseArgs) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &args.own_namespace);
    let patch = serde_json::json!({"spec": {"replicas": 0}});
    match api
        .patch_scale(
            &args.deployment,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error).context("cannot stop the operator's Deployment"),
    }
    // The Deployment does not count pods that are still ending, and such a one still acts.
    let deployment = api.get_opt(&args.deployment).await;
    let Some(deployment) = deployment.context("cannot read the operator's Deployment")? else {
        return Ok(());
    };
    let labels = deployment.spec.and_then(|spec| spec.selector.match_labels);
    let selector: Vec<String> = labels
        .iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &args.own_namespace);
    let running = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await
        .context("cannot list the operator's pods")?;
    let ended = running.items.iter().filter_map(|pod| {
        let gone = is_deleted(pod.metadata.uid.as_deref()?);
        Some(await_condition(
            pods.clone(),
            pod.metadata.name.as_deref()?,
            gone,
        ))
    });
    tokio::time::timeout(Duration::from_secs(60), try_join_all(ended))
        .await
        .context("the operator's pods did not end within a minute")?
        .context("cannot watch the operator's pods")?;
    Ok(())
}

async fn take_off<K>(
    client: &Client,
    namespace: Option<&str>,
    finalizer: &str,
) -> anyhow::Result<usize>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let mut count = 0;
    let list = match Context::scoped::<K>(client, namespace)
        .list_metadata(&ListParams::default())
        .await
    {
        Ok(list) => list,
        // The CRD is gone already.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        Err(error) => return Err(error).context("cannot list the objects"),
    };
    for object in list {
        let mut finalizers = object.finalizers().to_vec();
        if !finalizers.iter().any(|name| name == finalizer) {
            continue;
        }
        finalizers.retain(|name| name != finalizer);
        let patch = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
        let api: Api<K> = Api::namespaced(
            client.clone(),
            object.namespace().as_deref().unwrap_or_default(),
        );
        match api
            .patch_metadata(
                &object.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        {
            Ok(_) => count += 1,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot take the finalizer off {}", object.name_any())
                });
            }
        }
    }
    Ok(count)
}
