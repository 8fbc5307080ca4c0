//! Topics that clients made: which of them lack an object, and how that object is called; pure.
//!
//! Promises: a topic that any object speaks for gets none; one that appears, or loses its object, gets one after
//! a while in which whoever made it may apply an object of their own; the brokers' own topics get none.

pub mod finder;
mod make_way;

pub(super) use make_way::{drop_found, reason_to_go};

use leasehold_crds::Topic;
use leasehold_metadata::image::Image;
use leasehold_types::TopicId;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// How long a topic may be without an object: a deletion by an object is seen in the metadata some time after the
/// object is gone, and tools apply objects one after another.
const GRACE: Duration = Duration::from_secs(3);
/// Of a topic's name that Kubernetes does not take, the part that its object's keeps.
const KEPT: usize = 200;

/// The topics of `image` that no object of `objects`, those of this cluster, speaks for.
pub fn lone<'a>(
    image: &'a Image,
    objects: impl Iterator<Item = &'a Topic>,
) -> BTreeMap<TopicId, &'a str> {
    let spoken_for: HashSet<&str> = objects.filter_map(Topic::topic_name).collect();
    let topics = image.topics.values();
    topics
        .filter(|topic| !topic.internal && !spoken_for.contains(topic.name.as_str()))
        .map(|topic| (topic.id, topic.name.as_str()))
        .collect()
}

/// The name of the object for `topic`: the topic's own where Kubernetes takes it and nobody else has it.
pub fn object_name(cluster: &str, topic: &str, is_taken: impl Fn(&str) -> bool) -> String {
    if is_subdomain(topic) && !is_taken(topic) {
        return topic.to_owned();
    }
    let low = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let kept: String = topic.chars().take(KEPT).map(low).collect();
    let digest = Sha256::digest(format!("{cluster}/{topic}").as_bytes());
    let digest: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    match kept.trim_matches('-') {
        "" => format!("topic-{digest}"),
        kept => format!("{kept}-{digest}"),
    }
}

/// RFC 1123, as Kubernetes asks of most names:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names>.
fn is_subdomain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Since when the topics of one cluster are without an object.
#[derive(Debug, Default)]
pub struct Waiting {
    since: BTreeMap<TopicId, Instant>,
}

impl Waiting {
    /// Those of `lone` that have waited long enough, and when the next one will have.
    pub fn due<'a>(
        &mut self,
        lone: &BTreeMap<TopicId, &'a str>,
        now: Instant,
    ) -> (Vec<(TopicId, &'a str)>, Option<Instant>) {
        self.since.retain(|id, _| lone.contains_key(id));
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (id, name) in lone {
            let ripe = *self.since.entry(*id).or_insert(now) + GRACE;
            if ripe <= now {
                due.push((*id, *name));
            } else {
                next = Some(next.map_or(ripe, |next| next.min(ripe)));
            }
        }
        (due, next)
    }

    /// One was tried: until the watch shows its object it is not tried again at once.
    pub fn tried(&mut self, id: TopicId, now: Instant) {
        self.since.insert(id, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::facts::tests::{add_topic, image};
    use std::sync::Arc;

    #[test]
    fn topics_without_an_object_are_found_but_not_the_brokers_own() {
        let mut image = image("0");
        let own = add_topic(&mut image, "__consumer_offsets", &["0/0/0"]);
        let mut internal = (*image.topics[&own]).clone();
        internal.internal = true;
        image.topics.insert(own, Arc::new(internal));
        add_topic(&mut image, "wished", &["0/0/0"]);
        add_topic(&mut image, "Wished_2", &["0/0/0"]);
        let by_client = add_topic(&mut image, "orders", &["0/0/0"]);
        let objects = [
            Topic::found("wished", "demo", "wished"),
            Topic::found("other", "demo", "Wished_2"),
        ];
        let found = lone(&image, objects.iter());
        assert_eq!(found, BTreeMap::from([(by_client, "orders")]));
    }

    #[test]
    fn an_object_has_its_topics_name_where_it_can() {
        let free = |_: &str| false;
        for name in ["orders", "shop.orders-2", "9"] {
            assert_eq!(object_name("demo", name, free), name);
        }
        let other = object_name("demo", "orders", |name| name == "orders");
        assert!(
            other.starts_with("orders-") && is_subdomain(&other),
            "{other}"
        );
        assert_ne!(
            other,
            object_name("next", "orders", |name| name == "orders")
        );
        let long = "_".repeat(249);
        for name in ["Orders", "a_b", "_", "a..b", ".a", "-a", "a-.b", &long] {
            let made = object_name("demo", name, free);
            assert!(made != name && is_subdomain(&made), "{name}: {made}");
        }
        assert_ne!(
            object_name("demo", "a_b", free),
            object_name("demo", "a-B", free)
        );
    }

    #[test]
    fn a_topic_waits_for_an_object_of_its_makers_first() {
        let (id, start) = (TopicId::random(), Instant::now());
        let lone = BTreeMap::from([(id, "orders")]);
        let mut waiting = Waiting::default();
        assert_eq!(waiting.due(&lone, start), (vec![], Some(start + GRACE)));
        let ripe = start + GRACE;
        assert_eq!(waiting.due(&lone, ripe), (vec![(id, "orders")], None));
        waiting.tried(id, ripe);
        assert_eq!(waiting.due(&lone, ripe), (vec![], Some(ripe + GRACE)));
        // It had one meanwhile: the next time it waits anew.
        waiting.due(&BTreeMap::new(), ripe);
        let later = ripe + 9 * GRACE;
        assert_eq!(waiting.due(&lone, later), (vec![], Some(later + GRACE)));
    }

    #[test]
    fn an_object_for_a_found_topic_is_one_until_it_is_edited_or_not_marked_any_more() {
        let found = Topic::found("a-b-1", "demo", "a_b");
        assert!(found.is_found() && Topic::found("a", "demo", "a").is_found());
        let mut edited = found.clone();
        edited.spec.partitions = Some(3);
        assert!(!edited.is_found());
        let mut unmarked = found.clone();
        unmarked.metadata.labels = None;
        assert!(!unmarked.is_found());
    }
}
