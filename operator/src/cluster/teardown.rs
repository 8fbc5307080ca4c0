//! The end of a Cluster with `reclaimPolicy: Delete`: its brokers, then its volumes, then its metadata.
//!
//! Promises: nothing is deleted while a broker's pod still stands; volumes and metadata of another
//! cluster id are left alone; the order lets an interrupted teardown go on where it stopped.

use super::fetch::{self, Existing, FetchError};
use super::names;
use crate::context::Context;
use crate::view::ClusterKey;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{DeleteParams, Preconditions};
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::store::{Store as _, StoreError};

/// Why it did not go on.
#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot delete {what}: {source}")]
    Api {
        what: String,
        source: Box<kube::Error>,
    },
}

/// Deletes the next things; `true` when nothing is left.
pub async fn step(
    context: &Context,
    cluster: &ClusterKey,
    known_id: Option<String>,
) -> Result<bool, TeardownError> {
    let (namespace, name) = cluster;
    let Existing {
        stateful_set,
        pods,
        claims,
    } = fetch::existing(context, cluster).await?;
    if stateful_set.is_some() {
        let set = names::stateful_set(name);
        gone(
            &set,
            context
                .api::<StatefulSet>(namespace)
                .delete(&set, &DeleteParams::background())
                .await,
        )?;
        return Ok(false);
    }
    if !pods.is_empty() {
        return Ok(false);
    }
    let store = context.views.store(cluster)?;
    let head = store.read_head().await?;
    let id = head
        .as_ref()
        .and_then(|head| head.data.get(CLUSTER_ID))
        .cloned()
        .or(known_id);
    for claim in &claims {
        if claim.cluster_id.is_none() || claim.cluster_id == id {
            delete_claim(context, namespace, &claim.name, &claim.uid).await?;
        }
    }
    for chunk in store.list_chunks().await? {
        if id.as_ref() == Some(&chunk.cluster.0) {
            store.delete_chunk(&chunk.name).await?;
        }
    }
    let lease = names::lease(name);
    gone(
        &lease,
        context
            .api::<Lease>(namespace)
            .delete(&lease, &DeleteParams::default())
            .await,
    )?;
    if let Some(head) = head {
        // The metadata last: as long as it stands, an interrupted teardown is recognised as such.
        let name = names::head(name);
        gone(
            &name,
            context
                .api::<ConfigMap>(namespace)
                .delete(&name, &only(&head.uid))
                .await,
        )?;
    }
    Ok(true)
}

/// Deletes one volume claim: that very object, not a namesake made since.
pub async fn delete_claim(
    context: &Context,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), TeardownError> {
    gone(
        name,
        context
            .api::<PersistentVolumeClaim>(namespace)
            .delete(name, &only(uid))
            .await,
    )
}

fn only(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    })
}

/// Gone already is as good as deleted.
fn gone<T>(what: &str, result: Result<T, kube::Error>) -> Result<(), TeardownError> {
    match result {
        Ok(_) => {
            tracing::info!(what, "deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(TeardownError::Api {
            what: what.to_owned(),
            source: Box::new(source),
        }),
    }
}
