//! What to ask of the controller so that a topic becomes what its object wishes; pure.
//!
//! Promises: a wish that cannot be fulfilled is refused with a reason and asks for nothing, and is
//! judged anew whenever object or cluster change; partitions never shrink; configuration keys that
//! this object never set are left alone; only a topic's own id is ever deleted.

use leasehold_crds::TopicSpec;
use leasehold_metadata::image::{Image, Topic};
use leasehold_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// Kafka's limit.
const MAX_NAME: usize = 249;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// -1 leaves the number to the cluster's defaults.
    Create {
        name: String,
        partitions: i32,
        replication_factor: i16,
        configs: BTreeMap<String, String>,
    },
    Grow {
        name: String,
        partitions: i32,
    },
    /// `None` takes a key back.
    Configure {
        name: String,
        changes: BTreeMap<String, Option<String>>,
    },
    SetReplicationFactor {
        name: String,
        replication_factor: i16,
    },
}

/// Why a wish is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// What a Topic object wishes, in Kafka's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub name: String,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    pub configs: BTreeMap<String, String>,
}

/// Reads the wish; refuses what no cluster could ever fulfil.
pub fn wish(object_name: &str, spec: &TopicSpec) -> Result<Wish, Refusal> {
    let name = spec
        .topic_name
        .clone()
        .unwrap_or_else(|| object_name.to_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    if name.is_empty()
        || name.len() > MAX_NAME
        || name == "."
        || name == ".."
        || !name.chars().all(legal)
    {
        let shown: String = name.chars().take(80).collect();
        return Err(Refusal::new(
            "InvalidName",
            format!(
                "{shown:?} is no topic name: 1 to {MAX_NAME} letters, digits, '.', '_' and '-', and neither \".\" nor \"..\""
            ),
        ));
    }
    if name == "__consumer_offsets" {
        return Err(Refusal::new(
            "InvalidName",
            format!("{name} is the brokers' own: spec.config of the Cluster configures it"),
        ));
    }
    if let Some(partitions) = spec.partitions.filter(|n| *n < 1) {
        return Err(Refusal::new(
            "InvalidPartitions",
            format!("spec.partitions is {partitions}: a topic has at least one"),
        ));
    }
    let replication_factor = match spec.replication_factor {
        None => None,
        Some(wanted) => match i16::try_from(wanted).ok().filter(|n| *n >= 1) {
            Some(wanted) => Some(wanted),
            None => {
                return Err(Refusal::new(
                    "InvalidReplicationFactor",
                    format!(
                        "spec.replicationFactor is {wanted}: a partition has at least one replica"
                    ),
                ));
            }
        },
    };
    let configs = crate::cluster::validate::plain_values("spec.config", &spec.config)
        .map_err(|problems| Refusal::new("InvalidConfig", problems.join("; ")))?;
    Ok(Wish {
        name,
        partitions: spec.partitions,
        replication_factor,
        configs,
    })
}

/// What is to be asked for now; empty when the wish is fulfilled or under way.
///
/// `owned_keys` are the configuration keys that this object set before.
pub fn plan(wish: &Wish, owned_keys: &[String], image: &Image) -> Result<Vec<Action>, Refusal> {
    fits(wish, image)?;
    let Some(topic) = image.topic_by_name(&wish.name) else {
        collides(wish, image)?;
        return Ok(vec![Action::Create {
            name: wish.name.clone(),
            partitions: wish.partitions.unwrap_or(-1),
            replication_factor: wish.replication_factor.unwrap_or(-1),
            configs: wish.configs.clone(),
        }]);
    };
    let mut actions = Vec::new();
    let has = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    match wish.partitions {
        Some(wanted) if wanted < has => {
            return Err(Refusal::new(
                "PartitionsCannotShrink",
                format!(
                    "the topic has {has} partitions and cannot go back to {wanted}: that would lose records. Set spec.partitions to {has} or more"
                ),
            ));
        }
        Some(wanted) if wanted > has => actions.push(Action::Grow {
            name: wish.name.clone(),
            partitions: wanted,
        }),
        _ => {}
    }
    let changes = config_changes(wish, owned_keys, topic);
    if !changes.is_empty() {
        actions.push(Action::Configure {
            name: wish.name.clone(),
            changes,
        });
    }
    if let Some(wanted) = wish.replication_factor
        && topic
            .partitions
            .iter()
            .any(|p| target_width(p) != usize::from(wanted.unsigned_abs()))
    {
        actions.push(Action::SetReplicationFactor {
            name: wish.name.clone(),
            replication_factor: wanted,
        });
    }
    Ok(actions)
}

/// The number of replicas that a partition has once what is under way is done.
pub(super) fn target_width(partition: &leasehold_metadata::image::Partition) -> usize {
    partition
        .replicas
        .len()
        .saturating_sub(partition.removing.len())
}

fn fits(wish: &Wish, image: &Image) -> Result<(), Refusal> {
    let brokers = image
        .brokers
        .values()
        .filter(|broker| !broker.cordoned)
        .count();
    if let Some(wanted) = wish.replication_factor
        && usize::from(wanted.unsigned_abs()) > brokers
    {
        return Err(Refusal::new(
            "ReplicationFactorTooLarge",
            format!(
                "spec.replicationFactor is {wanted}, but the cluster has {brokers} broker{} to hold replicas: lower it or add brokers",
                if brokers == 1 { "" } else { "s" }
            ),
        ));
    }
    Ok(())
}

/// Kafka's rule: `.` and `_` are the same in metric names, so two topics may not differ only in them.
fn collides(wish: &Wish, image: &Image) -> Result<(), Refusal> {
    let folded = wish.name.replace('.', "_");
    match image
        .names
        .keys()
        .find(|name| name.replace('.', "_") == folded)
    {
        Some(other) => Err(Refusal::new(
            "NameCollision",
            format!("topic {other} exists, and '.' and '_' count as the same in topic names"),
        )),
        None => Ok(()),
    }
}

fn config_changes(
    wish: &Wish,
    owned_keys: &[String],
    topic: &Topic,
) -> BTreeMap<String, Option<String>> {
    let mut changes = BTreeMap::new();
    for (key, value) in &wish.configs {
        if topic.configs.get(key) != Some(value) {
            changes.insert(key.clone(), Some(value.clone()));
        }
    }
    for key in owned_keys {
        if !wish.configs.contains_key(key) && topic.configs.contains_key(key) {
            changes.insert(key.clone(), None);
        }
    }
    changes
}

/// The keys that the object owns from now on: those it wishes, and those it set and that are still there.
pub fn owned_keys(wish: Option<&Wish>, before: &[String], topic: Option<&Topic>) -> Vec<String> {
    let mut keys: BTreeSet<String> = before.iter().cloned().collect();
    if let Some(topic) = topic {
        keys.retain(|key| topic.configs.contains_key(key));
    }
    if let Some(wish) = wish {
        keys.extend(wish.configs.keys().cloned());
    }
    keys.into_iter().collect()
}

/// What a deletion should delete: the topic that this object made or adopted, if it is still there.
pub fn to_delete(known_id: Option<TopicId>, image: &Image) -> Option<TopicId> {
    known_id.filter(|id| image.topic(id).is_some())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::facts::tests::{add_topic, image};
    use std::sync::Arc;

    pub fn spec(text: &str) -> TopicSpec {
        let mut value = serde_json::json!({"cluster": "demo"});
        crate::cluster::overrides::merge(&mut value, &serde_yaml::from_str(text).unwrap());
        serde_json::from_value(value).unwrap()
    }

    /// One line: the reason of a refusal, or the actions.
    fn run(text: &str, owned: &[&str], image: &Image) -> String {
        let owned: Vec<String> = owned.iter().map(|key| (*key).to_owned()).collect();
        let wish = match wish("orders", &spec(text)) {
            Ok(wish) => wish,
            Err(refusal) => return refusal.reason.to_owned(),
        };
        match plan(&wish, &owned, image) {
            Err(refusal) => refusal.reason.to_owned(),
            Ok(actions) => show(&actions),
        }
    }

    /// One line.
    pub fn show(actions: &[Action]) -> String {
        let words = actions.iter().map(|action| match action {
            Action::Create {
                partitions,
                replication_factor,
                configs,
                ..
            } => format!("create {partitions}x{replication_factor} {configs:?}"),
            Action::Grow { partitions, .. } => format!("grow to {partitions}"),
            Action::Configure { changes, .. } => format!("configure {changes:?}"),
            Action::SetReplicationFactor {
                replication_factor, ..
            } => format!("width {replication_factor}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn with_orders() -> Image {
        let mut image = image("0 1 2");
        let id = add_topic(&mut image, "orders", &["012/012/0", "120/120/1"]);
        let mut topic = (*image.topics[&id]).clone();
        topic.configs.insert("retention.ms".into(), "1".into());
        topic.configs.insert("segment.ms".into(), "9".into());
        image.topics.insert(id, Arc::new(topic));
        image
    }

    #[test]
    fn the_table_of_wishes() {
        let (empty, orders) = (image("0 1 2"), with_orders());
        let cases: Vec<(&str, &str, &[&str], &Image, &str)> = vec![
            (
                "a new topic",
                "{partitions: 3, replicationFactor: 2, config: {retention.ms: 5}}",
                &[],
                &empty,
                "create 3x2 {\"retention.ms\": \"5\"}",
            ),
            (
                "the cluster's defaults",
                "{}",
                &[],
                &empty,
                "create -1x-1 {}",
            ),
            (
                "fulfilled",
                "{partitions: 2, replicationFactor: 3}",
                &[],
                &orders,
                "",
            ),
            ("no opinion about an existing topic", "{}", &[], &orders, ""),
            (
                "more partitions",
                "{partitions: 4}",
                &[],
                &orders,
                "grow to 4",
            ),
            (
                "fewer partitions",
                "{partitions: 1}",
                &[],
                &orders,
                "PartitionsCannotShrink",
            ),
            (
                "no partitions",
                "{partitions: 0}",
                &[],
                &empty,
                "InvalidPartitions",
            ),
            (
                "no replicas",
                "{replicationFactor: 0}",
                &[],
                &empty,
                "InvalidReplicationFactor",
            ),
            (
                "more replicas than brokers",
                "{replicationFactor: 4}",
                &[],
                &empty,
                "ReplicationFactorTooLarge",
            ),
            (
                "fewer replicas",
                "{replicationFactor: 2}",
                &[],
                &orders,
                "width 2",
            ),
            (
                "another value",
                "{config: {retention.ms: 2}}",
                &[],
                &orders,
                "configure {\"retention.ms\": Some(\"2\")}",
            ),
            (
                "the same value",
                "{config: {retention.ms: 1}}",
                &[],
                &orders,
                "",
            ),
            (
                "a key taken back; another tool's stays",
                "{}",
                &["retention.ms"],
                &orders,
                "configure {\"retention.ms\": None}",
            ),
            (
                "a value that is none",
                "{config: {retention.ms: [1]}}",
                &[],
                &empty,
                "InvalidConfig",
            ),
            (
                "a bad name",
                "{topicName: 'a b'}",
                &[],
                &empty,
                "InvalidName",
            ),
            (
                "a reserved name",
                "{topicName: __consumer_offsets}",
                &[],
                &empty,
                "InvalidName",
            ),
            (
                "two wishes at once",
                "{partitions: 3, config: {retention.ms: 2}}",
                &[],
                &orders,
                "grow to 3, configure {\"retention.ms\": Some(\"2\")}",
            ),
        ];
        for (what, wish, owned, image, expected) in cases {
            assert_eq!(run(wish, owned, image), expected, "{what}");
        }
    }

    #[test]
    fn names_that_differ_only_in_dot_and_underscore_collide() {
        let mut image = image("0");
        add_topic(&mut image, "a.b", &["0/0/0"]);
        assert_eq!(run("{topicName: a_b}", &[], &image), "NameCollision");
        assert_eq!(run("{topicName: a.b}", &[], &image), "");
    }

    #[test]
    fn a_cordoned_broker_does_not_count_as_room() {
        assert_eq!(
            run("{replicationFactor: 3}", &[], &image("0 1 2c")),
            "ReplicationFactorTooLarge"
        );
    }

    #[test]
    fn a_change_of_replicas_under_way_is_not_asked_for_again() {
        let mut image = image("0 1 2");
        let id = add_topic(&mut image, "orders", &["012/012/0"]);
        let mut topic = (*image.topics[&id]).clone();
        Arc::make_mut(&mut topic.partitions[0]).removing = vec![leasehold_types::BrokerId(2)];
        image.topics.insert(id, Arc::new(topic));
        assert_eq!(run("{replicationFactor: 2}", &[], &image), "");
    }

    #[test]
    fn keys_are_owned_until_they_are_gone() {
        let image = with_orders();
        let topic = image.topic_by_name("orders").map(|t| &**t);
        let before = ["retention.ms".to_owned(), "gone.key".to_owned()];
        assert_eq!(owned_keys(None, &before, topic), ["retention.ms"]);
    }

    #[test]
    fn only_the_very_topic_is_deleted() {
        let image = with_orders();
        let id = *image.names.get("orders").unwrap();
        assert_eq!(to_delete(Some(id), &image), Some(id));
        assert_eq!(
            to_delete(Some(TopicId::random()), &image),
            None,
            "a namesake made later"
        );
        assert_eq!(to_delete(None, &image), None);
    }
}
