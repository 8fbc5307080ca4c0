//! One round for one Cluster: fetch, validate, decide, build, apply, status.
//!
//! Promises: a round never waits for the world to change; it does what can be done now, writes why the
//! rest cannot, and comes back. Nothing is changed without holding the operator's Lease.

use super::apply::{ApplyError, apply_all};
use super::build::{BuildError, Inputs, build};
use super::facts::{Totals, totals};
use super::fetch::{Existing, FetchError, existing, found};
use super::genesis::{self, Verdict};
use super::restart::outdated;
use super::scale::{self, Decision, Facts};
use super::status::{Findings, status};
use super::teardown::{self, TeardownError};
use super::validate::{ValidCluster, validate};
use crate::admin::{self, AdminError};
use crate::context::Context;
use crate::status_queue::Key;
use crate::view::{ClusterKey, View};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{CLUSTER_FINALIZER, Cluster, PAUSED_ANNOTATION, ReclaimPolicy, ScalePolicy};
use leasehold_metadata::head::genesis::{self as head, Genesis, GenesisError};
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::head::load::LoadError;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Outcome};
use leasehold_metadata::store::StoreError;
use leasehold_types::{BrokerId, ClusterId};
use std::sync::Arc;
use std::time::Duration;

const KIND: &str = "Cluster";
/// How soon a round comes back while something is under way that no watch reports.
const BUSY: Duration = Duration::from_secs(2);
/// How soon it comes back when all is well: a watch that was missed is made up for.
const IDLE: Duration = Duration::from_secs(300);

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
    #[error("cannot change the finalizer: {0}")]
    Finalizer(#[source] Box<kube::Error>),
    #[error("this operator does not hold its Lease")]
    NotLeader,
}

/// The controller's entry.
pub async fn reconcile(guarded: Arc<DeserializeGuard<Cluster>>, context: Arc<Context>) -> Result<Action, ClusterError> {
    let cluster = match &guarded.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            tracing::warn!(name = ?invalid.metadata.name, namespace = ?invalid.metadata.namespace, error = %invalid.error, "a Cluster cannot be read; it is left alone until it is mended");
            return Ok(Action::await_change());
        }
    };
    let started = std::time::Instant::now();
    let result = round(cluster, &context).await;
    context.metrics.reconciled(KIND, result.is_ok(), started.elapsed());
    if let Err(error) = &result
        && !matches!(error, ClusterError::NotLeader)
    {
        tell_error(cluster, &context, error.to_string());
    }
    result
}

/// What the controller does after an error.
pub fn on_error(guarded: Arc<DeserializeGuard<Cluster>>, error: &ClusterError, context: Arc<Context>) -> Action {
    let meta = guarded.meta();
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
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
    let paused = cluster.annotations().get(PAUSED_ANNOTATION).is_some_and(|value| value == "true");
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
    let view = context.views.get(&key);
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
    let cluster_id = match birth(cluster, context, &key, &existing).await? {
        Ok(id) => id,
        Err(hold) => {
            tracing::warn!(namespace = %key.0, cluster = %key.1, ?hold, "the cluster is held");
            findings.held = Some(hold);
            publish(cluster, context, &findings);
            return Ok(Action::requeue(Duration::from_secs(30)));
        }
    };
    let round = Round { context, key: &key, valid: &valid, existing: &existing, cluster_id: &cluster_id };
    round.run(cluster, known.as_ref(), findings).await
}

/// Creates or adopts the metadata: the cluster id, or why the cluster is held.
async fn birth(
    cluster: &Cluster,
    context: &Context,
    key: &ClusterKey,
    existing: &Existing,
) -> Result<Result<String, Verdict>, ClusterError> {
    let known_id = cluster.status.as_ref().and_then(|status| status.cluster_id.clone());
    let found = found(context, key, existing, known_id).await?;
    match genesis::decide(&key.1, &found) {
        Verdict::Adopt(id) => Ok(Ok(id)),
        Verdict::Create => {
            if !context.leadership.is_held() {
                return Err(ClusterError::NotLeader);
            }
            // If someone else was faster, theirs counts.
            let store = context.views.store(key)?;
            Ok(Ok(match head::genesis(&*store, &ClusterId::random()).await? {
                Genesis::Created(head) => {
                    let id = head.data.get(CLUSTER_ID).cloned().unwrap_or_default();
                    tracing::info!(namespace = %key.0, cluster = %key.1, cluster_id = %id, "a cluster is born");
                    id
                }
                Genesis::Adopted(id) => id.to_string(),
            }))
        }
        hold @ Verdict::Hold { .. } => Ok(Err(hold)),
    }
}

/// The part of a round that changes the world.
struct Round<'a> {
    context: &'a Context,
    key: &'a ClusterKey,
    valid: &'a ValidCluster,
    existing: &'a Existing,
    cluster_id: &'a str,
}

impl Round<'_> {
    async fn run(
        &self,
        cluster: &Cluster,
        known: Option<&(&View, Totals)>,
        mut findings: Findings<'_>,
    ) -> Result<Action, ClusterError> {
        let facts = self.facts(known.map(|(_, totals)| totals));
        let mut decision = scale::decide(&facts);
        let current = facts.current.unwrap_or(0);
        if decision.replicas < current && self.valid.spec.replicas > 0 && !self.still_lower(&decision).await? {
            decision.replicas = current;
        }
        if let Some((view, _)) = known {
            findings.problems.extend(self.settle_brokers(view, &decision).await);
        }
        let inputs = Inputs {
            cluster_id: self.cluster_id,
            replicas: decision.replicas,
            may_disrupt: known.is_none_or(|(_, totals)| totals.at_minimum == 0),
        };
        let objects = build(self.valid, &inputs)?;
        if !self.context.leadership.is_held() {
            return Err(ClusterError::NotLeader);
        }
        // Fewer pods only if the StatefulSet is the very one that the decision looked at.
        let set = self.existing.stateful_set.as_ref();
        let version = set.filter(|_| decision.replicas < current).and_then(|set| set.resource_version());
        apply_all(&self.context.client, &self.context.applied, &objects, version.as_deref()).await?;
        if self.valid.spec.storage.when_scaled == ScalePolicy::Delete {
            self.delete_spent(&decision).await?;
        }
        let rack_key = &self.valid.spec.rack.topology_key;
        if let Err(error) = super::racks::tell(self.context, &self.key.0, rack_key, &self.existing.pods).await {
            tracing::warn!(namespace = %self.key.0, cluster = %self.key.1, %error, "cannot tell the pods their racks; brokers keep the last known ones");
        }
        let revisions: Vec<_> = self.existing.pods.iter().map(|pod| pod.revision.clone()).collect();
        findings.outdated = Some(outdated(&revisions, &objects.revision));
        let busy = matches!(decision.draining, scale::Draining::InProgress(_)) || !findings.problems.is_empty();
        findings.draining = Some(decision.draining);
        publish(cluster, self.context, &findings);
        self.context.backoff.succeeded(KIND, &self.key.0, &self.key.1);
        Ok(Action::requeue(if busy { BUSY } else { IDLE }))
    }

    fn facts(&self, totals: Option<&Totals>) -> Facts {
        let spec = self.existing.stateful_set.as_ref().and_then(|set| set.spec.as_ref());
        Facts {
            wanted: self.valid.spec.replicas,
            current: spec.map(|spec| spec.replicas.unwrap_or(1)),
            pods: self.existing.pods.iter().map(|pod| pod.revision.ordinal).collect(),
            brokers: totals.map(|totals| totals.brokers.clone()),
            widest: totals.and_then(|totals| totals.widest.clone()),
        }
    }

    /// Looks again, by a quorum read of the head, whether the pod may really go: whoever is controller
    /// now, under whatever epoch, this is what it has committed, and the cordon keeps it so.
    async fn still_lower(&self, decision: &Decision) -> Result<bool, ClusterError> {
        let view = self.context.views.read(self.key).await?;
        let again = scale::decide(&self.facts(Some(&totals(&view.image))));
        let same = again.replicas == decision.replicas;
        tracing::info!(
            namespace = %self.key.0, cluster = %self.key.1, replicas = decision.replicas,
            controller_epoch = %view.image.position.epoch, seq = %view.image.position.seq, confirmed = same,
            "a drained broker is to go"
        );
        Ok(same)
    }

    /// Cordons and forgets brokers as decided. What does not work is told, and does not stop the rest.
    async fn settle_brokers(&self, view: &View, decision: &Decision) -> Vec<String> {
        let mut problems = Vec::new();
        let image = &view.image;
        if let Some(wanted) = &decision.cordon {
            let is: std::collections::BTreeSet<i32> =
                image.brokers.values().filter(|b| b.cordoned).map(|b| b.id.0).collect();
            if is != *wanted {
                let brokers = wanted.iter().map(|id| BrokerId(*id)).collect();
                let answer = self.ask(view, AdminRequest::Cordon { brokers }).await;
                problems.extend(failure("cordon the brokers that are to leave", answer));
            }
        }
        for id in &decision.unregister {
            let broker = BrokerId(*id);
            let answer = self.ask(view, AdminRequest::UnregisterBroker { broker }).await;
            problems.extend(failure(&format!("unregister broker {id}"), answer));
        }
        problems
    }

    async fn ask(&self, view: &View, request: AdminRequest) -> Result<AdminResponse, AdminError> {
        if !self.context.leadership.is_held() {
            return Err(AdminError::NotLeader);
        }
        admin::ask(&view.image, request).await
    }

    async fn delete_spent(&self, decision: &Decision) -> Result<(), ClusterError> {
        for claim in &self.existing.claims {
            let spent = claim.ordinal.is_some_and(|ordinal| decision.spent.contains(&ordinal));
            if spent && claim.cluster_id.as_deref() == Some(self.cluster_id) {
                teardown::delete_claim(self.context, &self.key.0, &claim.name, &claim.uid).await?;
            }
        }
        Ok(())
    }
}

/// What went wrong with a request, for people; `None` if nothing.
fn failure(what: &str, answer: Result<AdminResponse, AdminError>) -> Option<String> {
    let refused = |outcome: &Outcome| {
        (!outcome.is_ok()).then(|| format!("cannot {what}: {}", outcome.message.as_deref().unwrap_or("refused")))
    };
    match answer {
        Ok(AdminResponse::Cordon(outcomes)) => outcomes.iter().find_map(|(_, outcome)| refused(outcome)),
        Ok(AdminResponse::UnregisterBroker(outcome)) => refused(&outcome),
        Ok(_) => None,
        Err(error) => Some(format!("cannot {what}: {error}")),
    }
}

async fn delete(cluster: &Cluster, context: &Context, key: &ClusterKey) -> Result<Action, ClusterError> {
    context.applied.forget(&key.0, &key.1);
    if !cluster.finalizers().iter().any(|finalizer| finalizer == CLUSTER_FINALIZER) {
        return Ok(Action::await_change());
    }
    if cluster.spec.reclaim_policy == ReclaimPolicy::Retain {
        set_finalizer(cluster, context, false).await?;
        return Ok(Action::await_change());
    }
    publish(cluster, context, &Findings { deleting: true, ..Findings::default() });
    let known_id = cluster.status.as_ref().and_then(|status| status.cluster_id.clone());
    if !teardown::step(context, key, known_id).await? {
        return Ok(Action::requeue(Duration::from_secs(1)));
    }
    set_finalizer(cluster, context, false).await?;
    Ok(Action::await_change())
}

async fn set_finalizer(cluster: &Cluster, context: &Context, wanted: bool) -> Result<(), ClusterError> {
    let mut finalizers = cluster.finalizers().to_vec();
    let has = finalizers.iter().any(|finalizer| finalizer == CLUSTER_FINALIZER);
    if has == wanted {
        return Ok(());
    }
    if wanted {
        finalizers.push(CLUSTER_FINALIZER.to_owned());
    } else {
        finalizers.retain(|finalizer| finalizer != CLUSTER_FINALIZER);
    }
    // The resourceVersion guards the finalizers that others set meanwhile.
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": cluster.resource_version()}});
    let api = context.api::<Cluster>(&cluster.namespace().unwrap_or_default());
    match api.patch_metadata(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(ClusterError::Finalizer(Box::new(error))),
    }
}

fn key_of(cluster: &Cluster) -> Key {
    Key {
        kind: KIND,
        namespace: cluster.namespace().unwrap_or_default(),
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
    }
}

fn publish(cluster: &Cluster, context: &Context, findings: &Findings<'_>) {
    let next = status(cluster, findings, Time(Timestamp::now()));
    let current = serde_json::to_value(&cluster.status).unwrap_or_default();
    context.statuses.put(key_of(cluster), serde_json::to_value(next).unwrap_or_default(), &current);
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
