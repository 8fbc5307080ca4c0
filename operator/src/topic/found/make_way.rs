//! When an object that only shows what a client made has to go.
//!
//! Promises: it goes when its topic is gone, when somebody wishes for that topic by an object of their own, when its
//! Cluster is gone or wants no such objects, and at no other time; an edit in between counts more, and keeps it.

use crate::context::Context;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions};
use leasehold_crds::{ClientTopics, Cluster, Topic};
use leasehold_metadata::image::Image;

/// Why `topic` has to go; `None`: it stays, or wishes for something itself. `cluster` is the one that is there and
/// not going, `image` its metadata if it is known, `outdone` whether another object speaks for the topic.
pub fn reason_to_go(
    topic: &Topic,
    outdone: bool,
    cluster: Option<&Cluster>,
    image: Option<&Image>,
) -> Option<&'static str> {
    if !topic.is_found() {
        return None;
    }
    let Some(cluster) = cluster else {
        return Some("its Cluster is gone");
    };
    if cluster.spec.client_topics == ClientTopics::Hide {
        return Some("the Cluster's spec.clientTopics is Hide");
    }
    if outdone {
        return Some("another object speaks for the topic");
    }
    let is_there = |image: &Image| {
        let name = topic.topic_name().unwrap_or_default();
        image.topic_by_name(name).is_some()
    };
    (!image.is_none_or(is_there)).then_some("the topic is gone")
}

/// Deletes the object as it was seen: if it was edited since, or is another by now, it stays.
pub async fn drop_found(
    context: &Context,
    topic: &Topic,
    why: &'static str,
) -> Result<(), kube::Error> {
    let (namespace, name) = (topic.namespace().unwrap_or_default(), topic.name_any());
    let seen = DeleteParams {
        preconditions: Some(Preconditions {
            uid: topic.uid(),
            resource_version: topic.resource_version(),
        }),
        ..DeleteParams::default()
    };
    match context.api::<Topic>(&namespace).delete(&name, &seen).await {
        Ok(_) => {
            tracing::info!(%namespace, object = %name, why, "the object of a topic that a client made goes");
            Ok(())
        }
        // It is gone, or its next round sees what it is now.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::facts::tests::{add_topic, image};

    fn cluster(more: &str) -> Cluster {
        serde_yaml::from_str(&format!(
            "{{apiVersion: leasehold.dev/v1alpha1, kind: Cluster, metadata: {{name: demo}}, spec: {{storage: {{type: Ephemeral}}{more}}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn it_goes_with_its_topic_with_its_cluster_for_another_or_when_hidden_and_else_stays() {
        let found = Topic::found("orders", "demo", "orders");
        let (shown, hidden) = (cluster(""), cluster(", clientTopics: Hide"));
        let (without, mut with) = (image("0"), image("0"));
        add_topic(&mut with, "orders", &["0/0/0"]);
        let why = |outdone, cluster, image| reason_to_go(&found, outdone, cluster, image);
        assert_eq!(why(false, Some(&shown), Some(&with)), None);
        assert_eq!(why(false, Some(&shown), None), None, "nothing is known yet");
        assert!(why(false, Some(&shown), Some(&without)).is_some());
        assert!(why(true, Some(&shown), Some(&with)).is_some());
        assert!(why(false, Some(&hidden), Some(&with)).is_some());
        assert!(why(false, None, None).is_some());
    }

    #[test]
    fn what_was_edited_never_goes_by_itself() {
        let mut edited = Topic::found("orders", "demo", "orders");
        edited.spec.config.insert("retention.ms".into(), 1.into());
        assert_eq!(reason_to_go(&edited, true, None, Some(&image("0"))), None);
    }
}
