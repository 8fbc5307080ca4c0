//! What the deletion of a Topic object does to the topic, and the finalizer that waits for it.
//!
//! Promises: only the topic that the object spoke for is deleted, and only with `reclaimPolicy: Delete`
//! and while no other object wishes it; nothing hangs on a cluster that is gone or going.

use super::reconcile::{BUSY, KIND, TopicError};
use super::request::{outcome_of, refusal_of};
use super::tell::{Outlook, about_drift, tell};
use super::{plan, rivals};
use crate::admin;
use crate::context::Context;
use crate::finalizer;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use leasehold_crds::{TOPIC_FINALIZER, Topic, TopicReclaimPolicy};
use leasehold_metadata::rpc::{AdminRequest, TopicRef, codes};
use leasehold_types::TopicId;

/// One round for an object that is being deleted.
pub(super) async fn delete(
    topic: &Topic,
    context: &Context,
    cluster_going: bool,
) -> Result<Action, TopicError> {
    context.told.forget(&about_drift(topic));
    if !finalizer::has(topic, TOPIC_FINALIZER) {
        return Ok(Action::await_change());
    }
    if cluster_going || topic.spec.reclaim_policy == TopicReclaimPolicy::Retain {
        set_finalizer(topic, context, false).await?;
        return Ok(Action::await_change());
    }
    let all = context.topics.state();
    let readable = || all.iter().filter_map(|other| other.0.as_ref().ok());
    if let Some(heir) = rivals::heir(topic, readable()) {
        tracing::info!(namespace = ?topic.namespace(), topic = %topic.name_any(), %heir, "the topic stays: another object wishes it too");
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
        Ok(wish) if rivals::elder(topic, readable()).is_none() => {
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

/// Puts the finalizer on or takes it off.
pub(super) async fn set_finalizer(
    topic: &Topic,
    context: &Context,
    wanted: bool,
) -> Result<(), TopicError> {
    finalizer::set(context, topic, TOPIC_FINALIZER, wanted)
        .await
        .map_err(|error| TopicError::Finalizer(Box::new(error)))
}
