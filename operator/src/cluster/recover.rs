//! Mends a cluster whose head was lost or put back, when its object asks for it: a head from the brokers'
//! copies.
//!
//! Promises: nothing is written unless people asked, by the annotation; nor unless a copy can be chosen
//! without guessing, or they named it; what is waited for, refused or done is told in `status` and an
//! Event. Brokers of a cluster of which only volumes are left are started first: they wait for a head, and
//! tell their copies meanwhile.

use super::apply::{ApplyError, apply_all};
use super::build::{BuildError, Inputs, build};
use super::fetch::Existing;
use super::names;
use super::validate::ValidCluster;
use crate::context::Context;
use crate::copies;
use crate::events::News;
use crate::view::ClusterKey;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{Cluster, RECOVER_ANNOTATION};
use leasehold_metadata::head::load::LoadError;
use leasehold_metadata::head::recover::{OldHead, Refused, Wish, WriteError, choose, plan, write};
use leasehold_metadata::image::Position;
use leasehold_metadata::store::StoreError;
use leasehold_types::{BrokerId, ClusterId};
use std::collections::BTreeSet;

/// How far it is.
pub(super) enum Progress {
    /// Nobody asked for it.
    Idle,
    /// It cannot go on yet, or not so: why.
    Waiting(String),
    /// It is over, and the annotation is taken off.
    Over,
}

/// Why a step broke off. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the head that stands cannot be read: {0}")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{what}: {source}")]
    Api {
        what: &'static str,
        source: Box<kube::Error>,
    },
    #[error("this operator does not hold its Lease")]
    NotLeader,
}

/// Takes the next step.
pub(super) async fn run(
    cluster: &Cluster,
    context: &Context,
    key: &ClusterKey,
    valid: &ValidCluster,
    existing: &Existing,
) -> Result<Progress, RecoverError> {
    let Some(wish) = cluster.annotations().get(RECOVER_ANNOTATION) else {
        return Ok(Progress::Idle);
    };
    let waiting = |why: String| Ok(Progress::Waiting(why));
    let wish: Wish = match wish.parse() {
        Ok(wish) => wish,
        Err(why) => return waiting(format!("annotation {RECOVER_ANNOTATION}: {why}")),
    };
    let store = context.views.store(key)?;
    let old = OldHead::read(&*store).await?;
    let id = match cluster_id(cluster, old.as_ref(), existing) {
        Ok(id) => id,
        Err(why) => return waiting(why),
    };
    let pods = pods_wanted(valid, existing);
    if existing.stateful_set.is_none() {
        let inputs = Inputs {
            cluster_id: &id.0,
            replicas: pods,
            may_disrupt: false,
            claim_size: None,
        };
        let objects = build(valid, &inputs)?;
        if !context.leadership.is_held() {
            return Err(RecoverError::NotLeader);
        }
        apply_all(&context.client, &context.applied, &objects, None).await?;
        return waiting("starting the brokers, which hold the copies".to_owned());
    }
    let copies = copies::fetch(&existing.pods, &id).await;
    let expected: BTreeSet<BrokerId> = (0..pods).map(BrokerId).collect();
    let chosen = match choose(&copies.told, &expected, wish) {
        Ok(chosen) => chosen,
        Err(why) => return waiting(with_silent(&why, &copies)),
    };
    let source = &copies.told[&chosen];
    if let Some(Err(why)) = old.as_ref().map(|old| old.check_behind(chosen, source)) {
        finish(cluster, context, true, "NothingToRecover", why.to_string()).await?;
        return Ok(Progress::Over);
    }
    let mut seen: Vec<Position> = copies.told.values().map(|image| image.position).collect();
    seen.extend(old.as_ref().map(OldHead::position));
    let reason = format!("{RECOVER_ANNOTATION} asked for it; broker {chosen}'s copy");
    let recovered = match plan(source, &seen, &reason) {
        Ok(recovered) => recovered,
        Err(why) => return waiting(format!("broker {chosen}'s copy cannot be used: {why}")),
    };
    if !context.leadership.is_held() {
        return Err(RecoverError::NotLeader);
    }
    write(&*store, &recovered, old.as_ref()).await?;
    let told = format!(
        "the metadata is broker {chosen}'s copy (controller epoch {}, seq {}, topics: {}); it goes on at controller epoch {}",
        source.position.epoch,
        source.position.seq,
        source.topics.len(),
        recovered.image.position.epoch
    );
    tracing::warn!(namespace = %key.0, cluster = %key.1, "RECOVERED: {told}");
    depose(context, key).await?;
    finish(cluster, context, false, "MetadataRecovered", told).await?;
    Ok(Progress::Over)
}

/// The id of the cluster that is to be mended: all that is left of it must agree.
fn cluster_id(
    cluster: &Cluster,
    old: Option<&OldHead>,
    existing: &Existing,
) -> Result<ClusterId, String> {
    let known = cluster.status.as_ref().and_then(|s| s.cluster_id.clone());
    let of_head = old.map(|old| old.head.cluster_id.0.clone());
    let of_claims = existing.claims.iter().filter_map(|c| c.cluster_id.clone());
    let ids: BTreeSet<String> = known.into_iter().chain(of_head).chain(of_claims).collect();
    let mut ids = ids.into_iter();
    match (ids.next(), ids.next()) {
        (Some(id), None) => Ok(ClusterId(id)),
        (None, _) => Err("nothing is left that names the cluster's id".to_owned()),
        (Some(one), Some(other)) => Err(format!(
            "head, volumes and status belong to different clusters ({one}, {other}): move what is not this cluster's away"
        )),
    }
}

/// How many brokers there were, by what is left.
fn pods_wanted(valid: &ValidCluster, existing: &Existing) -> i32 {
    let claims = existing.claims.iter().map(|claim| claim.ordinal);
    let last = claims.max().map_or(0, |ordinal| ordinal.saturating_add(1));
    valid.spec.replicas.max(last)
}

fn with_silent(why: &Refused, copies: &copies::Copies) -> String {
    let silent: Vec<String> = copies
        .silent
        .iter()
        .map(|(broker, why)| format!("broker {broker}: {why}"))
        .collect();
    if silent.is_empty() {
        why.to_string()
    } else {
        format!("{why}; {}", silent.join("; "))
    }
}

/// A controller that froze writes nothing, so it would never see the new head: its Lease goes, and whoever
/// takes the next one reads it.
async fn depose(context: &Context, key: &ClusterKey) -> Result<(), RecoverError> {
    let leases = context.api::<Lease>(&key.0);
    let name = names::lease(&key.1);
    match leases.delete(&name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(RecoverError::Api {
            what: "cannot delete the controller's Lease",
            source: Box::new(source),
        }),
    }
}

async fn finish(
    cluster: &Cluster,
    context: &Context,
    warning: bool,
    reason: &'static str,
    note: String,
) -> Result<(), RecoverError> {
    let api = context.api::<Cluster>(&cluster.namespace().unwrap_or_default());
    let off = serde_json::json!({"metadata": {"annotations": {RECOVER_ANNOTATION: null}}});
    api.patch_metadata(
        &cluster.name_any(),
        &PatchParams::default(),
        &Patch::Merge(&off),
    )
    .await
    .map_err(|source| RecoverError::Api {
        what: "cannot take the annotation off",
        source: Box::new(source),
    })?;
    context.events.tell(
        cluster.object_ref(&()),
        News {
            warning,
            reason,
            action: "Recover",
            note,
        },
    );
    Ok(())
}
