//! What a round found out, as the object's status.

use super::plan::{self, Wish};
use super::status::describe;
use crate::context::Context;
use crate::status_queue::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use leasehold_crds::{Conditions, Topic};
use leasehold_metadata::image::Topic as ClusterTopic;

/// What is told in the status.
pub(super) struct Outlook<'a> {
    pub ready: bool,
    pub reason: &'a str,
    pub message: String,
    pub wish: Option<&'a Wish>,
    /// What the metadata has under the wished name, if this object may speak for it.
    pub topic: Option<&'a ClusterTopic>,
}

impl Outlook<'_> {
    /// Nothing can be said about the topic itself yet.
    pub fn waiting(reason: &str, message: String) -> Outlook<'_> {
        Outlook {
            ready: false,
            reason,
            message,
            wish: None,
            topic: None,
        }
    }
}

/// Leaves the status with the queue that writes it.
pub(super) fn tell(topic: &Topic, context: &Context, outlook: &Outlook<'_>) {
    let before = topic.status.clone().unwrap_or_default();
    let mut status = match outlook.wish {
        Some(wish) => describe(&wish.name, outlook.topic),
        // Without a wish that can be read, what was known stays.
        None => before.clone(),
    };
    status.observed_generation = topic.metadata.generation;
    status.config_keys = plan::owned_keys(outlook.wish, &before.config_keys, outlook.topic);
    let mut conditions = Conditions::from_existing(&before.conditions);
    conditions.set(
        "Ready",
        outlook.ready,
        outlook.reason,
        outlook.message.clone(),
        topic.metadata.generation,
        Time(Timestamp::now()),
    );
    status.conditions = conditions.into_vec();
    let key = Key {
        kind: super::reconcile::KIND,
        namespace: topic.namespace().unwrap_or_default(),
        name: topic.name_any(),
        uid: topic.uid().unwrap_or_default(),
    };
    let current = serde_json::to_value(&topic.status).unwrap_or_default();
    context.statuses.put(
        key,
        serde_json::to_value(status).unwrap_or_default(),
        &current,
    );
}
