//! Puts built objects in place by server-side apply, and only those that may differ.
//!
//! Promises: an object that was applied and has not been touched since is not applied again; an
//! object of the name that belongs to someone else is never overwritten, but reported.

use super::build::Objects;
use super::names::MANAGER;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use leasehold_crds::CLUSTER_LABEL;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash as _, Hasher as _};

/// Why an object is not in place.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(
        "{kind} {name} exists and belongs to {owner}: rename the Cluster, or move that object away"
    )]
    Foreign {
        kind: String,
        name: String,
        owner: String,
    },
    #[error("{kind} {name} cannot be applied: {source}")]
    Api {
        kind: String,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("{kind} {name} cannot be written as JSON: {source}")]
    Json {
        kind: String,
        name: String,
        source: serde_json::Error,
    },
}

type Id = (&'static str, String, String);

/// What was applied, by kind, namespace and name; watches report what was touched since.
#[derive(Default)]
pub struct Applied {
    hashes: Mutex<HashMap<Id, u64>>,
}

impl Applied {
    /// The object changed, or is gone: apply it at the next opportunity.
    pub fn touched(&self, kind: &'static str, namespace: &str, name: &str) {
        self.hashes
            .lock()
            .remove(&(kind, namespace.to_owned(), name.to_owned()));
    }

    /// Forgets a whole cluster's objects.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        let prefix = format!("{cluster}-");
        self.hashes
            .lock()
            .retain(|(_, of, name), _| of != namespace || !name.starts_with(&prefix));
    }
}

/// Applies everything in order, the StatefulSet last: its pods need all the rest.
///
/// `stateful_set_version` is the resourceVersion on which the number of pods was decided; if the
/// StatefulSet changed since, the apply fails and the decision is taken anew.
pub async fn apply_all(
    client: &Client,
    applied: &Applied,
    objects: &Objects,
    stateful_set_version: Option<&str>,
) -> Result<(), ApplyError> {
    apply(client, applied, &objects.service_account, None).await?;
    apply(client, applied, &objects.role, None).await?;
    apply(client, applied, &objects.role_binding, None).await?;
    apply(client, applied, &objects.config, None).await?;
    apply(client, applied, &objects.headless, None).await?;
    apply(client, applied, &objects.bootstrap, None).await?;
    for service in &objects.listeners {
        apply(client, applied, service, None).await?;
    }
    apply(client, applied, &objects.disruption_budget, None).await?;
    match &objects.network_policy {
        Some(policy) => apply(client, applied, policy, None).await?,
        None => absent(client, applied, &objects.headless).await?,
    }
    apply::<StatefulSet>(client, applied, &objects.stateful_set, stateful_set_version).await
}

async fn apply<K>(
    client: &Client,
    applied: &Applied,
    object: &K,
    version: Option<&str>,
) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
    K: k8s_openapi::Resource,
{
    let kind = <K as k8s_openapi::Resource>::KIND;
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let json = |source| ApplyError::Json {
        kind: kind.to_owned(),
        name: name.clone(),
        source,
    };
    let failed = |source| ApplyError::Api {
        kind: kind.to_owned(),
        name: name.clone(),
        source: Box::new(source),
    };
    let mut body = serde_json::to_value(object).map_err(json)?;
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    let hash = hasher.finish();
    let id = (kind, namespace.clone(), name.clone());
    if applied.hashes.lock().get(&id) == Some(&hash) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let live = api.get_metadata_opt(&name).await.map_err(failed)?;
    if let Some(live) = live {
        let mine = object
            .owner_references()
            .first()
            .map(|owner| owner.uid.clone());
        let same_cluster = live.labels().get(CLUSTER_LABEL) == object.labels().get(CLUSTER_LABEL);
        let owner = live.owner_references().first();
        // Without an owner but with our labels: left behind when a Cluster was deleted with its
        // children orphaned. Theirs now.
        let ours = match owner {
            Some(owner) => Some(&owner.uid) == mine.as_ref(),
            None => same_cluster,
        };
        if !ours {
            let owner = owner.map_or("nobody we know".to_owned(), |o| {
                format!("{} {} ({})", o.kind, o.name, o.uid)
            });
            return Err(ApplyError::Foreign {
                kind: kind.to_owned(),
                name,
                owner,
            });
        }
        if let Some(version) = version {
            body["metadata"]["resourceVersion"] = version.into();
        }
    }
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&body))
        .await
        .map_err(failed)?;
    applied.hashes.lock().insert(id, hash);
    tracing::info!(kind, namespace = %namespace, name = %name, "applied");
    Ok(())
}

/// Takes a cluster's NetworkPolicy away, if it is the operator's. `of` is an object of the same cluster.
async fn absent(client: &Client, applied: &Applied, of: &Service) -> Result<(), ApplyError> {
    const KIND: &str = "NetworkPolicy";
    /// No object has it: the hash of what is not there.
    const NOTHING: u64 = 0;
    let cluster = of.labels().get(CLUSTER_LABEL).cloned().unwrap_or_default();
    let name = super::names::network_policy(&cluster);
    let namespace = of.namespace().unwrap_or_default();
    let id = (KIND, namespace.clone(), name.clone());
    if applied.hashes.lock().get(&id) == Some(&NOTHING) {
        return Ok(());
    }
    let failed = |source| ApplyError::Api {
        kind: KIND.to_owned(),
        name: name.clone(),
        source: Box::new(source),
    };
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let live = api.get_metadata_opt(&name).await.map_err(failed)?;
    let owner = of.owner_references().first().map(|owner| &owner.uid);
    let ours = |live: &kube::core::PartialObjectMeta<NetworkPolicy>| {
        live.owner_references().first().map(|owner| &owner.uid) == owner
    };
    if let Some(live) = live.filter(ours) {
        let only = DeleteParams::default().preconditions(Preconditions {
            uid: live.uid(),
            resource_version: None,
        });
        match api.delete(&name, &only).await {
            Ok(_) => {
                tracing::info!(kind = KIND, %namespace, %name, "deleted: it is switched off");
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(failed(error)),
        }
    }
    applied.hashes.lock().insert(id, NOTHING);
    Ok(())
}
