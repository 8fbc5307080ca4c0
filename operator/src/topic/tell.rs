//! What a round found out, as the object's status.

use super::drift::{Course, DRIFTED, Drift};
use super::plan::{self, Wish};
use super::status::describe;
use crate::context::Context;
use crate::events::News;
use crate::status_queue::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{Condition, Conditions, Fulfilled, Topic};
use leasehold_metadata::image::Topic as ClusterTopic;

/// What is told in the status.
pub(super) struct Outlook<'a> {
    pub ready: bool,
    pub reason: &'a str,
    pub message: String,
    pub wish: Option<&'a Wish>,
    /// What the metadata has under the wished name, if this object may speak for it.
    pub topic: Option<&'a ClusterTopic>,
    /// What was decided about it; `None`: nothing could be.
    pub course: Option<&'a Course>,
    /// Set when the topic is as wished; else what was known stays.
    pub fulfilled: Option<Fulfilled>,
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
            course: None,
            fulfilled: None,
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
    status.fulfilled = outlook.fulfilled.clone().or(before.fulfilled);
    status.config_keys = plan::owned_keys(outlook.wish, &before.config_keys, outlook.topic);
    let now = Time(Timestamp::now());
    let mut conditions = Conditions::from_existing(&before.conditions);
    conditions.set(
        "Ready",
        outlook.ready,
        outlook.reason,
        outlook.message.clone(),
        topic.metadata.generation,
        now.clone(),
    );
    match outlook.course.map(|course| &course.drift) {
        Some(Some(drift)) => conditions.set(
            DRIFTED,
            true,
            drift.reason,
            drift.message.clone(),
            topic.metadata.generation,
            now,
        ),
        // Most topics never drift; those that did say that it is over.
        Some(None) if conditions.get(DRIFTED).is_some() => {
            conditions.set(DRIFTED, false, "None", "", topic.metadata.generation, now);
        }
        _ => {}
    }
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

/// Tells people when others changed the topic, and when it is as wished again.
pub(super) fn tell_drift(topic: &Topic, context: &Context, drift: Option<&Drift>) {
    let conditions = topic.status.as_ref().map(|status| &status.conditions);
    let before = conditions.and_then(|all| all.iter().find(|c| c.type_ == DRIFTED));
    let Some(news) = drift_news(before, drift) else {
        return;
    };
    // The status that this is held against may be older than what was told last.
    let about = about_drift(topic);
    if context.told.is_news(&about, news.reason, &news.note) {
        tracing::info!(namespace = ?topic.namespace(), topic = %topic.name_any(), reason = news.reason, "{}", news.note);
        context.events.tell(topic.object_ref(&()), news);
    }
}

/// Under what it is remembered which drift was told last.
pub(super) fn about_drift(topic: &Topic) -> String {
    format!("{}/drift", topic.uid().unwrap_or_default())
}

fn drift_news(before: Option<&Condition>, drift: Option<&Drift>) -> Option<News> {
    let was = before.filter(|condition| condition.status == "True");
    match drift {
        Some(drift) if was.is_some_and(|c| c.message == drift.message) => None,
        Some(drift) => Some(News {
            warning: true,
            reason: DRIFTED,
            action: if drift.left { "Report" } else { "Revert" },
            note: drift.message.clone(),
        }),
        None => was.map(|_| News {
            warning: false,
            reason: "DriftOver",
            action: "Compare",
            note:
                "what others changed no longer counts as drift: it was undone, or spec was edited"
                    .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_is_told_once_and_so_is_its_end() {
        let drift = Drift {
            reason: "Edited",
            message: "partitions: 3, not 2".into(),
            left: true,
        };
        let told = |conditions: &Conditions, drift| {
            drift_news(conditions.get(DRIFTED), drift).map(|news| (news.warning, news.reason))
        };
        let mut conditions = Conditions::default();
        let mut set = |is, message: &str| {
            conditions.set(DRIFTED, is, "Edited", message, None, Time(Timestamp::now()));
            conditions.clone()
        };
        let (same, other, over) = (set(true, &drift.message), set(true, "else"), set(false, ""));
        assert_eq!(told(&Conditions::default(), None), None);
        assert_eq!(
            told(&Conditions::default(), Some(&drift)),
            Some((true, DRIFTED))
        );
        assert_eq!(told(&same, Some(&drift)), None);
        assert_eq!(told(&other, Some(&drift)), Some((true, DRIFTED)));
        assert_eq!(told(&same, None), Some((false, "DriftOver")));
        assert_eq!(told(&over, None), None);
    }
}
