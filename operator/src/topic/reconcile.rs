//! One round for one Topic: compare the wish with the cluster's metadata, ask for the next step, tell.
//!
//! Promises: every Topic gets a `Ready` condition, whatever order objects appear in; only an object's
//! own deletion deletes a topic, never an absence; a finalizer is held only while there is a cluster
//! that could lose something by its going.

use super::plan::{self, Refusal, Wish};
use super::request::{outcome_of, refusal_of, request};
use super::tell::{Outlook, tell};
use crate::admin::{self, AdminError};
use crate::context::Context;
use crate::view::View;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{Cluster, PAUSED_ANNOTATION, TOPIC_FINALIZER, Topic, TopicReclaimPolicy};
use leasehold_metadata::image::Topic as ClusterTopic;
use leasehold_metadata::rpc::{AdminRequest, Outcome, TopicRef, codes};
use leasehold_types::TopicId;
use std::sync::Arc;
use std::time::Duration;

pub(super) const KIND: &str = "Topic";
/// How soon a round comes back after a request that was accepted but is not seen yet.
const BUSY: Duration = Duration::from_secs(5);
/// How soon it comes back when all is well.
const IDLE: Duration = Duration::from_secs(600);

/// Why a round broke off.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("cannot change the finalizer: {0}")]
    Finalizer(#[source] Box<kube::Error>),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("this operator does not hold its Lease")]
    NotLeader,
}

/// The controller's entry.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<Topic>>,
    context: Arc<Context>,
) -> Result<Action, TopicError> {
    let topic = match &guarded.0 {
        Ok(topic) => topic,
        Err(invalid) => {
            tracing::warn!(name = ?invalid.metadata.name, namespace = ?invalid.metadata.namespace, error = %invalid.error, "a Topic cannot be read; it is left alone until it is mended");
            return Ok(Action::await_change());
        }
    };
    let started = std::time::Instant::now();
    let result = round(topic, &context).await;
    context
        .metrics
        .reconciled(KIND, result.is_ok(), started.elapsed());
    if let Err(error) = &result
        && !matches!(error, TopicError::NotLeader)
    {
        let message = error.to_string();
        tell(
            topic,
            &context,
            &Outlook::waiting("ClusterUnreachable", message),
        );
    }
    result
}

/// What the controller does after an error.
pub fn on_error(
    guarded: Arc<DeserializeGuard<Topic>>,
    error: &TopicError,
    context: Arc<Context>,
) -> Action {
    let meta = guarded.meta();
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let wait = context.backoff.failed(KIND, &namespace, &name);
    tracing::warn!(%namespace, topic = %name, %error, ?wait, "a round failed");
    Action::requeue(wait)
}

async fn round(topic: &Topic, context: &Context) -> Result<Action, TopicError> {
    if !context.leadership.is_held() {
        return Err(TopicError::NotLeader);
    }
    let namespace = topic.namespace().unwrap_or_default();
    let guarded = context.cluster(&namespace, &topic.spec.cluster);
    let cluster = guarded.as_ref().and_then(|guarded| guarded.0.as_ref().ok());
    let going = guarded
        .as_ref()
        .is_none_or(|guarded| guarded.meta().deletion_timestamp.is_some());
    if topic.metadata.deletion_timestamp.is_some() {
        return delete(topic, context, going).await;
    }
    if topic
        .annotations()
        .get(PAUSED_ANNOTATION)
        .is_some_and(|value| value == "true")
    {
        tell(topic, context, &Outlook::waiting("Paused", "the operator leaves this topic alone until the annotation leasehold.dev/paused is removed".to_owned()));
        return Ok(Action::await_change());
    }
    let name = &topic.spec.cluster;
    if going {
        // Nothing may hang on a cluster that is gone.
        set_finalizer(topic, context, false).await?;
        let (reason, message) = match guarded {
            None => (
                "ClusterMissing",
                format!(
                    "there is no Cluster {name} in namespace {namespace}: create it, or name another"
                ),
            ),
            Some(_) => ("ClusterDeleted", format!("Cluster {name} is being deleted")),
        };
        tell(topic, context, &Outlook::waiting(reason, message));
        return Ok(Action::await_change());
    }
    let wish = match plan::wish(&topic.name_any(), &topic.spec) {
        Ok(wish) => wish,
        Err(refusal) => {
            tell(
                topic,
                context,
                &Outlook::waiting(refusal.reason, refusal.message),
            );
            return Ok(Action::requeue(IDLE));
        }
    };
    if let Some(elder) = elder(topic, &wish.name, context) {
        set_finalizer(topic, context, false).await?;
        let message = format!(
            "Topic {elder} is older and speaks for topic {} already: delete one of the two",
            wish.name
        );
        tell(topic, context, &Outlook::waiting("Duplicate", message));
        return Ok(Action::requeue(Duration::from_secs(60)));
    }
    set_finalizer(
        topic,
        context,
        topic.spec.reclaim_policy == TopicReclaimPolicy::Delete,
    )
    .await?;
    let Some(view) = context.views.get(&(namespace, name.clone())) else {
        let born = cluster
            .and_then(|cluster| cluster.status.as_ref())
            .is_some_and(|status| status.cluster_id.is_some());
        if born && topic.status.is_some() {
            // A replica that has just begun to act: the metadata is on its way, what is told stands.
            return Ok(Action::requeue(BUSY));
        }
        let outlook = Outlook {
            wish: Some(&wish),
            ..Outlook::waiting(
                "ClusterNotReady",
                format!("Cluster {name} has no metadata yet"),
            )
        };
        tell(topic, context, &outlook);
        return Ok(Action::requeue(Duration::from_secs(60)));
    };
    let id = cluster.and_then(|cluster| cluster.status.as_ref()?.cluster_id.as_ref());
    if id.is_some_and(|id| *id != view.image.cluster_id.0) {
        let message =
            format!("Cluster {name} is held: another cluster's metadata stands under its name");
        tell(
            topic,
            context,
            &Outlook::waiting("ClusterNotReady", message),
        );
        return Ok(Action::requeue(Duration::from_secs(60)));
    }
    fulfil(topic, context, cluster, &wish, &view).await
}

async fn fulfil(
    topic: &Topic,
    context: &Context,
    cluster: Option<&Cluster>,
    wish: &Wish,
    view: &View,
) -> Result<Action, TopicError> {
    let has = view.image.topic_by_name(&wish.name).map(|topic| &**topic);
    let owned = owned_before(topic);
    let refused = |refusal: &Refusal| {
        tell(
            topic,
            context,
            &Outlook {
                ready: false,
                reason: refusal.reason,
                message: refusal.message.clone(),
                wish: Some(wish),
                topic: has,
            },
        );
    };
    let steps = match plan::plan(wish, &owned, &view.image) {
        Ok(steps) => steps,
        Err(refusal) => {
            // Enough brokers are wanted, and not all are there yet: a matter of time, not of the wish.
            let coming = cluster.map_or(0, |cluster| cluster.spec.replicas);
            let fits = wish
                .replication_factor
                .is_some_and(|wanted| i32::from(wanted) <= coming);
            if refusal.reason == "ReplicationFactorTooLarge" && fits {
                refused(&Refusal::new(
                    "WaitingForBrokers",
                    "not all of the cluster's brokers are there yet",
                ));
            } else {
                refused(&refusal);
            }
            return Ok(Action::requeue(IDLE));
        }
    };
    for step in &steps {
        if !context.leadership.is_held() {
            return Err(TopicError::NotLeader);
        }
        let answer = admin::ask(&view.image, request(step)).await;
        let outcome = match answer {
            Ok(answer) => outcome_of(answer),
            // The controller refused the request as a whole; what is not about the wish is tried again.
            Err(AdminError::Refused { code, message }) => Outcome::refused(code, message),
            Err(error) => return Err(error.into()),
        };
        if !outcome.is_ok() && outcome.code != codes::TOPIC_ALREADY_EXISTS {
            let refusal = refusal_of(&outcome);
            refused(&refusal);
            let wait = context.backoff.failed(
                KIND,
                &topic.namespace().unwrap_or_default(),
                &topic.name_any(),
            );
            return Ok(Action::requeue(wait));
        }
        tracing::info!(namespace = ?topic.namespace(), topic = %wish.name, ?step, "asked the controller");
    }
    context.backoff.succeeded(
        KIND,
        &topic.namespace().unwrap_or_default(),
        &topic.name_any(),
    );
    let (ready, reason, message) = if steps.is_empty() {
        standing(wish, has)
    } else {
        (
            false,
            "Applying",
            "the controller was asked for the change".to_owned(),
        )
    };
    tell(
        topic,
        context,
        &Outlook {
            ready,
            reason,
            message,
            wish: Some(wish),
            topic: has,
        },
    );
    Ok(Action::requeue(if steps.is_empty() { IDLE } else { BUSY }))
}

/// How a topic stands for which nothing is left to ask.
fn standing(wish: &Wish, topic: Option<&ClusterTopic>) -> (bool, &'static str, String) {
    let Some(topic) = topic else {
        return (false, "Applying", "the topic is being created".to_owned());
    };
    let total = topic.partitions.len();
    let moving = match wish.replication_factor {
        Some(wanted) => topic
            .partitions
            .iter()
            .filter(|p| p.replication_factor() != usize::from(wanted.unsigned_abs()))
            .count(),
        None => 0,
    };
    if moving > 0 {
        return (
            false,
            "Reassigning",
            format!("{moving} of {total} partitions do not have their replicas yet"),
        );
    }
    match topic
        .partitions
        .iter()
        .filter(|p| p.leader.is_none())
        .count()
    {
        0 => (
            true,
            "Ready",
            format!(
                "{total} partition{} led",
                if total == 1 { " is" } else { "s are" }
            ),
        ),
        offline => (
            false,
            "PartitionsOffline",
            format!("{offline} of {total} partitions have no leader"),
        ),
    }
}

async fn delete(
    topic: &Topic,
    context: &Context,
    cluster_going: bool,
) -> Result<Action, TopicError> {
    if !has_finalizer(topic) {
        return Ok(Action::await_change());
    }
    if cluster_going || topic.spec.reclaim_policy == TopicReclaimPolicy::Retain {
        set_finalizer(topic, context, false).await?;
        return Ok(Action::await_change());
    }
    let key = (
        topic.namespace().unwrap_or_default(),
        topic.spec.cluster.clone(),
    );
    let known = topic
        .status
        .as_ref()
        .and_then(|status| status.topic_id.as_deref())
        .and_then(TopicId::parse);
    let Some(view) = context.views.get(&key) else {
        if known.is_none() {
            // No metadata, and none ever seen: there is nothing to delete.
            set_finalizer(topic, context, false).await?;
            return Ok(Action::await_change());
        }
        let message =
            "the cluster's metadata cannot be read, so the topic cannot be deleted yet".to_owned();
        tell(topic, context, &Outlook::waiting("Deleting", message));
        return Ok(Action::requeue(BUSY));
    };
    // The status may lag behind a creation; then the name says which topic this object speaks for.
    let named = || match plan::wish(&topic.name_any(), &topic.spec) {
        Ok(wish) if elder(topic, &wish.name, context).is_none() => {
            view.image.names.get(&wish.name).copied()
        }
        _ => None,
    };
    if let Some(id) = plan::to_delete(known.or_else(named), &view.image) {
        let request = AdminRequest::DeleteTopics {
            topics: vec![TopicRef::Id(id)],
        };
        let outcome = outcome_of(admin::ask(&view.image, request).await?);
        if !outcome.is_ok() && outcome.code != codes::UNKNOWN_TOPIC_ID {
            let refusal = refusal_of(&outcome);
            tell(
                topic,
                context,
                &Outlook::waiting(
                    refusal.reason,
                    format!("cannot delete the topic: {}", refusal.message),
                ),
            );
            let wait = context.backoff.failed(KIND, &key.0, &topic.name_any());
            return Ok(Action::requeue(wait));
        }
        tracing::info!(namespace = %key.0, topic = %topic.name_any(), %id, "the topic is deleted");
    }
    context.backoff.succeeded(KIND, &key.0, &topic.name_any());
    set_finalizer(topic, context, false).await?;
    Ok(Action::await_change())
}

/// The object that speaks for the same topic and is older, if there is one.
fn elder(topic: &Topic, name: &str, context: &Context) -> Option<String> {
    let age = |topic: &Topic| {
        (
            topic
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            topic.uid(),
        )
    };
    let mine = age(topic);
    context.topics.state().iter().find_map(|other| {
        let other = other.0.as_ref().ok()?;
        let same = other.namespace() == topic.namespace()
            && other.spec.cluster == topic.spec.cluster
            && other
                .spec
                .topic_name
                .as_deref()
                .unwrap_or(&other.name_any())
                == name
            && other.uid() != topic.uid();
        (same && age(other) < mine).then(|| other.name_any())
    })
}

fn has_finalizer(topic: &Topic) -> bool {
    topic
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == TOPIC_FINALIZER)
}

async fn set_finalizer(topic: &Topic, context: &Context, wanted: bool) -> Result<(), TopicError> {
    if has_finalizer(topic) == wanted {
        return Ok(());
    }
    let mut finalizers = topic.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != TOPIC_FINALIZER);
    if wanted {
        finalizers.push(TOPIC_FINALIZER.to_owned());
    }
    // The resourceVersion guards the finalizers that others set meanwhile.
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": topic.resource_version()}});
    let api = context.api::<Topic>(&topic.namespace().unwrap_or_default());
    match api
        .patch_metadata(
            &topic.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(TopicError::Finalizer(Box::new(error))),
    }
}

fn owned_before(topic: &Topic) -> Vec<String> {
    topic
        .status
        .as_ref()
        .map(|status| status.config_keys.clone())
        .unwrap_or_default()
}
