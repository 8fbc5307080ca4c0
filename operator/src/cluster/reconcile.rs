//! One round for one Cluster: fetch, validate, decide, build, apply, status.
//!
//! Promises: a round never waits for the world to change; it does what can be done now, writes why the
//! rest cannot, and comes back. Nothing is changed without holding the operator's Lease.

use super::apply::ApplyError;
use super::build::BuildError;
use super::facts::totals;
use super::fetch::{Existing, FetchError, existing, found};
use super::genesis::{self, Verdict};
use super::maintenance;
use super::recover::{self, Progress, RecoverError};
use super::restart::RestartError;
use super::round::Round;
use super::status::Findings;
use super::teardown::{self, TeardownError};
use super::tell::publish;
use super::validate::validate;
use super::volumes::{self, VolumeError};
use crate::admin;
use crate::context::Context;
use crate::finalizer;
use crate::view::{ClusterKey, View};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{
    CLUSTER_FINALIZER, Cluster, MAINTENANCE_ANNOTATION, PAUSED_ANNOTATION, ReclaimPolicy,
    StorageKind,
};
use leasehold_metadata::head::genesis::{self as head, Genesis, GenesisError};
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::head::load::LoadError;
use leasehold_metadata::store::StoreError;
use leasehold_types::ClusterId;
use std::sync::Arc;
use std::time::Duration;

pub(super) const KIND: &str = "Cluster";
/// How soon a round comes back while something is under way that no watch reports.
pub(super) const BUSY: Duration = Duration::from_secs(2);
/// How soon it comes back for what is about to be over.
pub(super) const SOON: Duration = Duration::from_millis(500);
/// How soon it comes back when all is well: a watch that was missed is made up for, and a controller that
/// froze, which writes nothing that a watch could report, is noticed.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// Why a round broke off. It is logged, told in `status`, and tried again.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Teardown(#[from] TeardownError),
    #[error("the metadata cannot be recovered: {0}")]
    Recover(#[from] RecoverError),
    #[error(transparent)]
    Restart(#[from] RestartError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("cannot change the finalizer: {0}")]
    Finalizer(#[source] Box<kube::Error>),
    #[error("this operator does not hold its Lease")]
    NotLeader,
}

/// The controller's entry.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<Cluster>>,
    context: Arc<Context>,
) -> Result<Action, ClusterError> {
    let cluster = match &guarded.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            tracing::warn!(name = ?invalid.metadata.name, namespace = ?invalid.metadata.namespace, error = %invalid.error, "a Cluster cannot be read; it is left alone until it is mended");
            return Ok(Action::await_change());
        }
    };
    let started = std::time::Instant::now();
    let result = round(cluster, &context).await;
    context
        .metrics
        .reconciled(KIND, result.is_ok(), started.elapsed());
    if let Err(error) = &result
        && !matches!(error, ClusterError::NotLeader)
    {
        tell_error(cluster, &context, error.to_string());
    }
    result
}

/// What the controller does after an error.
pub fn on_error(
    guarded: Arc<DeserializeGuard<Cluster>>,
    error: &ClusterError,
    context: Arc<Context>,
) -> Action {
    let meta = guarded.meta();
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let wait = context.backoff.failed(KIND, &namespace, &name);
    tracing::warn!(%namespace, cluster = %name, %error, ?wait, "a round failed");
    Action::requeue(wait)
}

async fn round(cluster: &Cluster, context: &Context) -> Result<Action, ClusterError> {
    if !context.leadership.is_held() {
        return Err(ClusterError::NotLeader);
    }
    let key: ClusterKey = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    if cluster.metadata.deletion_timestamp.is_some() {
        return delete(cluster, context, &key).await;
    }
    let paused = cluster
        .annotations()
        .get(PAUSED_ANNOTATION)
        .is_some_and(|value| value == "true");
    if !paused {
        let wants = cluster.spec.reclaim_policy == ReclaimPolicy::Delete;
        set_finalizer(cluster, context, wants).await?;
    }
    let existing = existing(context, &key).await?;
    let mut findings = Findings {
        paused,
        pods: i32::try_from(existing.pods.len()).unwrap_or(i32::MAX),
        ..Findings::default()
    };
    let view = view_of(cluster, context, &key).await?;
    let known = view.as_deref().map(|view| (view, totals(&view.image)));
    findings.image = known.as_ref().map(|(view, totals)| (&*view.image, totals));
    if paused {
        publish(cluster, context, &findings);
        return Ok(Action::requeue(IDLE));
    }
    let valid = match validate(cluster, &context.defaults) {
        Ok(valid) => valid,
        Err(invalid) => {
            findings.invalid = Some(invalid.to_string());
            publish(cluster, context, &findings);
            return Ok(Action::requeue(IDLE));
        }
    };
    // Where storage goes with the pod there are no claims, but for those of an earlier cluster.
    let persistent = valid.spec.storage.kind == StorageKind::Persistent;
    let unmounted = volumes::unmounted(&existing.claims, valid.spec.storage.volumes);
    if let Some(why) = unmounted.filter(|_| persistent) {
        findings.invalid = Some(why);
        publish(cluster, context, &findings);
        return Ok(Action::requeue(IDLE));
    }
    match recover::run(cluster, context, &key, &valid, &existing).await? {
        Progress::Idle => {}
        Progress::Waiting(why) => {
            findings.recovering = Some(why);
            publish(cluster, context, &findings);
            return Ok(Action::requeue(BUSY));
        }
        Progress::Over => return Ok(Action::requeue(BUSY)),
    }
    let cluster_id = match birth(cluster, context, &key, &existing).await? {
        Ok(id) => id,
        Err(hold) => {
            tracing::warn!(namespace = %key.0, cluster = %key.1, ?hold, "the cluster is held");
            findings.held = Some(hold);
            publish(cluster, context, &findings);
            return Ok(Action::requeue(Duration::from_secs(30)));
        }
    };
    let asked = cluster.annotations().get(MAINTENANCE_ANNOTATION);
    let round = Round {
        context,
        key: &key,
        valid: &valid,
        existing: &existing,
        cluster_id: &cluster_id,
        maintenance: maintenance::wish(asked.map(String::as_str), valid.spec.replicas),
    };
    let known = known
        .as_ref()
        .filter(|(view, _)| view.image.cluster_id.0 == cluster_id);
    // The head may have been put back to an older state; then its controller says so, once it has heard of
    // a broker that holds more: look again soon after each claim.
    let mut soon = false;
    if let (Some((view, _)), Some(status)) = (known, &cluster.status) {
        findings.frozen = admin::frozen(&view.image).await;
        let claimed = status.controller_epoch != Some(view.image.position.epoch.0);
        soon = claimed || findings.frozen.is_some();
    }
    let action = round.run(cluster, known, findings).await?;
    Ok(if soon { Action::requeue(BUSY) } else { action })
}

/// The metadata as the watch has it. Where it has none yet but there should be some, it is read: a
/// replica that has just begun to act must not report an empty cluster.
async fn view_of(
    cluster: &Cluster,
    context: &Context,
    key: &ClusterKey,
) -> Result<Option<Arc<View>>, ClusterError> {
    let id = cluster
        .status
        .as_ref()
        .and_then(|status| status.cluster_id.as_ref());
    let known = match (context.views.get(key), id) {
        (None, Some(_)) => match context.views.read(key).await {
            Ok(view) => Some(Arc::new(view)),
            Err(LoadError::NoHead(_)) => None,
            Err(error) => return Err(error.into()),
        },
        (known, _) => known,
    };
    // Another cluster's metadata says nothing about this one.
    Ok(known.filter(|view| id.is_none_or(|id| *id == view.image.cluster_id.0)))
}

/// Creates or adopts the metadata: the cluster id, or why the cluster is held.
async fn birth(
    cluster: &Cluster,
    context: &Context,
    key: &ClusterKey,
    existing: &Existing,
) -> Result<Result<String, Verdict>, ClusterError> {
    let known_id = cluster
        .status
        .as_ref()
        .and_then(|status| status.cluster_id.clone());
    let found = found(context, key, existing, known_id).await?;
    match genesis::decide(&key.1, &found) {
        Verdict::Adopt(id) => Ok(Ok(id)),
        Verdict::Create => {
            if !context.leadership.is_held() {
                return Err(ClusterError::NotLeader);
            }
            // If someone else was faster, theirs counts.
            let store = context.views.store(key)?;
            Ok(Ok(
                match head::genesis(&*store, &ClusterId::random()).await? {
                    Genesis::Created(head) => {
                        let id = head.data.get(CLUSTER_ID).cloned().unwrap_or_default();
                        tracing::info!(namespace = %key.0, cluster = %key.1, cluster_id = %id, "a cluster is born");
                        id
                    }
                    Genesis::Adopted(id) => id.to_string(),
                },
            ))
        }
        hold @ Verdict::Hold { .. } => Ok(Err(hold)),
    }
}

async fn delete(
    cluster: &Cluster,
    context: &Context,
    key: &ClusterKey,
) -> Result<Action, ClusterError> {
    context.applied.forget(&key.0, &key.1);
    if !finalizer::has(cluster, CLUSTER_FINALIZER) {
        return Ok(Action::await_change());
    }
    if cluster.spec.reclaim_policy == ReclaimPolicy::Retain {
        set_finalizer(cluster, context, false).await?;
        return Ok(Action::await_change());
    }
    publish(
        cluster,
        context,
        &Findings {
            deleting: true,
            ..Findings::default()
        },
    );
    let known_id = cluster
        .status
        .as_ref()
        .and_then(|status| status.cluster_id.clone());
    if !teardown::step(context, key, known_id).await? {
        return Ok(Action::requeue(Duration::from_secs(1)));
    }
    set_finalizer(cluster, context, false).await?;
    Ok(Action::await_change())
}

async fn set_finalizer(
    cluster: &Cluster,
    context: &Context,
    wanted: bool,
) -> Result<(), ClusterError> {
    finalizer::set(context, cluster, CLUSTER_FINALIZER, wanted)
        .await
        .map_err(|error| ClusterError::Finalizer(Box::new(error)))
}

/// After an error, what is known from the watch still stands.
fn tell_error(cluster: &Cluster, context: &Context, problem: String) {
    let key = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let view = context.views.get(&key);
    let known = view.as_deref().map(|view| (view, totals(&view.image)));
    let findings = Findings {
        image: known.as_ref().map(|(view, totals)| (&*view.image, totals)),
        pods: cluster.status.as_ref().map_or(0, |status| status.replicas),
        deleting: cluster.metadata.deletion_timestamp.is_some(),
        problems: vec![problem],
        ..Findings::default()
    };
    publish(cluster, context, &findings);
}
