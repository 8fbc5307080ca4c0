//! Several objects that wish for one topic: which of them speaks for it; pure.
//!
//! Promises: exactly one does, the same for every replica of the operator: the eldest; the others say
//! so and change nothing; deleting one of several never takes the topic from the rest. An object that only shows
//! what a client made has no say beside one that wishes.

use kube::ResourceExt as _;
use leasehold_crds::Topic;

/// The object that speaks for the same topic and is older, if there is one.
pub fn elder<'a>(topic: &'a Topic, others: impl IntoIterator<Item = &'a Topic>) -> Option<String> {
    rivals(topic, others)
        .filter(|other| !other.is_found())
        .find(|other| age(other) < age(topic))
        .map(|other| other.name_any())
}

/// The object that speaks for the topic once this one is gone, if there is one.
pub fn heir<'a>(topic: &'a Topic, others: impl IntoIterator<Item = &'a Topic>) -> Option<String> {
    rivals(topic, others)
        .filter(|other| other.metadata.deletion_timestamp.is_none() && !other.is_found())
        .min_by_key(|other| age(other))
        .map(|other| other.name_any())
}

/// The objects that only show the topic that this one wishes for.
pub fn shows<'a>(
    topic: &'a Topic,
    others: impl IntoIterator<Item = &'a Topic>,
) -> impl Iterator<Item = &'a Topic> {
    rivals(topic, others).filter(|other| other.is_found())
}

/// Whether another object speaks for the topic that `topic` only shows.
pub fn is_outdone<'a>(topic: &'a Topic, others: impl IntoIterator<Item = &'a Topic>) -> bool {
    let stays = |other: &&Topic| other.metadata.deletion_timestamp.is_none();
    rivals(topic, others)
        .filter(stays)
        .any(|other| !other.is_found() || age(other) < age(topic))
}

fn rivals<'a>(
    topic: &'a Topic,
    others: impl IntoIterator<Item = &'a Topic>,
) -> impl Iterator<Item = &'a Topic> {
    // Every round of every Topic comes through all of them: nothing is copied.
    let (mine, name) = (&topic.metadata, topic.topic_name());
    others.into_iter().filter(move |other| {
        other.metadata.namespace == mine.namespace
            && other.topic_name() == name
            && other.spec.cluster == topic.spec.cluster
            && other.metadata.uid != mine.uid
    })
}

/// Creation times are full seconds; the uid decides among those of one.
fn age(topic: &Topic) -> impl Ord + use<> {
    let created = topic.metadata.creation_timestamp.as_ref();
    (created.map(|time| time.0), topic.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        let mut value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        value["apiVersion"] = "leasehold.dev/v1alpha1".into();
        value["kind"] = "Topic".into();
        serde_json::from_value(value).unwrap()
    }

    fn made(name: &str, uid: &str, second: u32, spec: &str) -> Topic {
        topic(&format!(
            "{{metadata: {{name: {name}, namespace: shop, uid: {uid}, creationTimestamp: '2026-01-01T00:00:{second:02}Z'}}, spec: {{cluster: demo{spec}}}}}"
        ))
    }

    #[test]
    fn the_eldest_speaks_and_among_those_of_one_second_the_uid_decides() {
        let first = made("orders", "b", 1, "");
        let second = made("again", "a", 2, ", topicName: orders");
        let twin = made("twin", "c", 1, ", topicName: orders");
        let all = [first.clone(), second.clone(), twin.clone()];
        assert_eq!(elder(&first, &all), None);
        assert_eq!(elder(&second, &all).as_deref(), Some("orders"));
        assert_eq!(elder(&twin, &all).as_deref(), Some("orders"));
    }

    #[test]
    fn other_clusters_topics_and_namespaces_are_no_rivals() {
        let mine = made("orders", "b", 5, "");
        let mut elsewhere = made("orders", "a", 1, "");
        elsewhere.metadata.namespace = Some("other".into());
        let mut other_cluster = made("more", "c", 1, ", topicName: orders");
        other_cluster.spec.cluster = "prod".into();
        let other_topic = made("less", "d", 1, "");
        assert_eq!(elder(&mine, &[elsewhere, other_cluster, other_topic]), None);
    }

    #[test]
    fn an_object_that_only_shows_the_topic_yields_to_one_that_wishes_and_inherits_nothing() {
        let second = |mut topic: Topic, uid: &str, second| {
            topic.metadata = kube::api::ObjectMeta {
                labels: topic.metadata.labels,
                ..made("orders", uid, second, "").metadata
            };
            topic
        };
        let shown = second(Topic::found("orders", "demo", "orders"), "a", 1);
        let twin = second(Topic::found("orders", "demo", "orders"), "b", 2);
        let wish = made("mine", "c", 3, ", topicName: orders");
        let all = [shown.clone(), wish.clone(), twin.clone()];
        assert_eq!(elder(&wish, &all), None);
        assert_eq!(heir(&wish, &all), None);
        assert_eq!(shows(&wish, &all).count(), 2);
        assert!(is_outdone(&shown, &all) && is_outdone(&twin, &all));
        let shows = [shown.clone(), twin.clone()];
        assert!(!is_outdone(&shown, &shows) && is_outdone(&twin, &shows));
    }

    #[test]
    fn the_next_eldest_inherits_unless_it_goes_too() {
        let first = made("orders", "a", 1, "");
        let mut second = made("second", "b", 2, ", topicName: orders");
        let third = made("third", "c", 3, ", topicName: orders");
        let heir_of = |second: &Topic| {
            let all = [first.clone(), second.clone(), third.clone()];
            heir(&first, &all)
        };
        assert_eq!(heir_of(&second).as_deref(), Some("second"));
        second.metadata.deletion_timestamp = second.metadata.creation_timestamp.clone();
        assert_eq!(heir_of(&second).as_deref(), Some("third"));
        assert_eq!(heir(&third, std::slice::from_ref(&third)), None);
    }
}
