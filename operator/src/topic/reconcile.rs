//! One round for one Topic: compare the wish with the cluster's metadata, ask for the next step, tell.
//!
//! Promises: every Topic gets a `Ready` condition, whatever order objects appear in; only an object's
//! own deletion deletes a topic, never an absence; a finalizer is held only while there is a cluster
//! that could lose something by its going.

use super::delete::{delete, set_finalizer};
use super::plan::{self, Wish};
use super::request::{outcome_of, refusal_of, request};
use super::status::standing;
use super::tell::{Outlook, tell, tell_drift};
use super::{drift, found, rivals};
use crate::admin::{self, AdminError};
use crate::context::Context;
use crate::view::View;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{Cluster, Fulfilled, PAUSED_ANNOTATION, Topic, TopicReclaimPolicy};
use leasehold_metadata::rpc::{Outcome, codes};
use std::sync::Arc;
use std::time::Duration;

pub(super) const KIND: &str = "Topic";
/// How soon a round comes back after a request that was accepted but is not seen yet.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// How soon the object that is not the eldest looks whether it is now.
const RIVAL: Duration = Duration::from_secs(15);
/// How soon it comes back when all is well.
const IDLE: Duration = Duration::from_secs(600);

/// Why a round broke off.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("cannot change the finalizer: {0}")]
    Finalizer(#[source] Box<kube::Error>),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("cannot take away the object that shows the topic: {0}")]
    Found(#[source] Box<kube::Error>),
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
    // Before all Clusters are known every one of them seems to be gone.
    context.clusters_known.opened().await;
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
    if let Some(done) = make_way(topic, context, cluster.filter(|_| !going)).await? {
        return Ok(done);
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
    let all = context.topics.state();
    let readable = all.iter().filter_map(|other| other.0.as_ref().ok());
    if let Some(elder) = rivals::elder(topic, readable) {
        set_finalizer(topic, context, false).await?;
        let message = format!(
            "Topic {elder} is older and speaks for topic {} already: delete one of the two",
            wish.name
        );
        tell(topic, context, &Outlook::waiting("Duplicate", message));
        return Ok(Action::requeue(RIVAL));
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

/// The object goes if it only shows what a client made, and need not any more; if it wishes, others that only show
/// its topic go.
async fn make_way(
    topic: &Topic,
    context: &Context,
    cluster: Option<&Cluster>,
) -> Result<Option<Action>, TopicError> {
    let failed = |error| TopicError::Found(Box::new(error));
    let all = context.topics.state();
    let others = all.iter().filter_map(|other| other.0.as_ref().ok());
    if !topic.is_found() {
        let shows: Vec<Topic> = rivals::shows(topic, others).cloned().collect();
        for shown in &shows {
            let why = "another object speaks for the topic";
            found::drop_found(context, shown, why)
                .await
                .map_err(failed)?;
        }
        return Ok(None);
    }
    let outdone = rivals::is_outdone(topic, others);
    let key = (
        topic.namespace().unwrap_or_default(),
        topic.spec.cluster.clone(),
    );
    let view = context.views.get(&key);
    // Of another cluster's metadata under the name nothing follows.
    let id = cluster.and_then(|cluster| cluster.status.as_ref()?.cluster_id.as_ref());
    let image = view.as_ref().map(|view| &*view.image);
    let image = image.filter(|image| id.is_some_and(|id| *id == image.cluster_id.0));
    let Some(why) = found::reason_to_go(topic, outdone, cluster, image) else {
        return Ok(None);
    };
    found::drop_found(context, topic, why)
        .await
        .map_err(failed)?;
    // If it was edited meanwhile, that brings its next round.
    Ok(Some(Action::requeue(BUSY)))
}

async fn fulfil(
    topic: &Topic,
    context: &Context,
    cluster: Option<&Cluster>,
    wish: &Wish,
    view: &View,
) -> Result<Action, TopicError> {
    let has = view.image.topic_by_name(&wish.name).map(|topic| &**topic);
    let known = topic.status.as_ref().and_then(|s| s.fulfilled.as_ref());
    let generation = topic.metadata.generation;
    let before = known.filter(|f| drift::was_fulfilled(f, generation, &view.image));
    let owned = owned_before(topic);
    let course = drift::course(topic.spec.drift, wish, &owned, before, &view.image);
    let outlook = |ready, reason, message| Outlook {
        ready,
        reason,
        message,
        wish: Some(wish),
        topic: has,
        course: Some(&course),
        fulfilled: None,
    };
    tell_drift(topic, context, course.drift.as_ref());
    for step in &course.steps {
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
            tell(
                topic,
                context,
                &outlook(false, refusal.reason, refusal.message),
            );
            let wait = context.backoff.failed(
                KIND,
                &topic.namespace().unwrap_or_default(),
                &topic.name_any(),
            );
            return Ok(Action::requeue(wait));
        }
        tracing::info!(namespace = ?topic.namespace(), topic = %wish.name, ?step, "asked the controller");
    }
    if let Some(refusal) = &course.refusal {
        // Enough brokers are wanted, and not all are there yet: a matter of time, not of the wish.
        let coming = cluster.map_or(0, |cluster| cluster.spec.replicas);
        let fits = wish
            .replication_factor
            .is_some_and(|wanted| i32::from(wanted) <= coming);
        let outlook = if refusal.reason == "ReplicationFactorTooLarge" && fits {
            let message = "not all of the cluster's brokers are there yet";
            outlook(false, "WaitingForBrokers", message.to_owned())
        } else {
            outlook(false, refusal.reason, refusal.message.clone())
        };
        tell(topic, context, &outlook);
        return Ok(Action::requeue(IDLE));
    }
    context.backoff.succeeded(
        KIND,
        &topic.namespace().unwrap_or_default(),
        &topic.name_any(),
    );
    if !course.steps.is_empty() {
        let message = "the controller was asked for the change".to_owned();
        tell(topic, context, &outlook(false, "Applying", message));
        return Ok(Action::requeue(BUSY));
    }
    let (ready, reason, message) = standing(wish, has, course.drift.as_ref());
    let mut outlook = outlook(ready, reason, message);
    if let (Some(has), Some(generation), false) = (has, generation, course.is_left()) {
        outlook.fulfilled = Some(Fulfilled {
            generation,
            cluster_id: view.image.cluster_id.to_string(),
            topic_id: has.id.to_string(),
        });
    }
    tell(topic, context, &outlook);
    Ok(Action::requeue(IDLE))
}

fn owned_before(topic: &Topic) -> Vec<String> {
    topic
        .status
        .as_ref()
        .map(|status| status.config_keys.clone())
        .unwrap_or_default()
}
