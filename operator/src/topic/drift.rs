//! Whether a topic that is not as wished was made so by others, and what follows; pure.
//!
//! Promises: only what was as wished before can drift, so a wish that is new, edited, or was never
//! fulfilled in this cluster is pursued, not reported; `Report` asks for nothing; `Revert` undoes all
//! that can be undone, and says what cannot; what the object wishes nothing about never drifts.

use super::plan::{self, Action, Refusal, Wish, target_width};
use leasehold_crds::{Fulfilled, TopicDrift};
use leasehold_metadata::image::{Image, Topic};

/// The condition.
pub const DRIFTED: &str = "Drifted";
/// Differences that are named; more are counted.
const NAMED: usize = 6;
/// Characters of a value that are shown.
const SHOWN: usize = 64;

/// What others made of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Why, in one word, for the condition.
    pub reason: &'static str,
    /// What differs, and what becomes of it.
    pub message: String,
    /// Whether it is left as others made it.
    pub left: bool,
}

/// What a round does about one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// What to ask for.
    pub steps: Vec<Action>,
    /// What stands against the rest of the wish.
    pub refusal: Option<Refusal>,
    pub drift: Option<Drift>,
}

impl Course {
    /// Whether the topic is left as others made it.
    pub fn is_left(&self) -> bool {
        self.drift.as_ref().is_some_and(|drift| drift.left)
    }
}

/// Whether the wish of `generation` was fulfilled in the cluster of `image` already.
pub fn was_fulfilled(fulfilled: &Fulfilled, generation: Option<i64>, image: &Image) -> bool {
    Some(fulfilled.generation) == generation && fulfilled.cluster_id == image.cluster_id.to_string()
}

/// Decides. `before` is the wish that was fulfilled last, if it is this one.
pub fn course(
    policy: TopicDrift,
    wish: &Wish,
    owned_keys: &[String],
    before: Option<&Fulfilled>,
    image: &Image,
) -> Course {
    let topic = image.topic_by_name(&wish.name).map(|topic| &**topic);
    let differs = before.map_or_else(Vec::new, |before| differences(wish, before, topic));
    if differs.is_empty() {
        return pursue(wish, owned_keys, image);
    }
    let what = listed(&differs);
    if policy == TopicDrift::Report {
        let reason = match topic {
            None => "Deleted",
            Some(topic) if was_replaced(before, topic) => "Replaced",
            Some(_) => "Edited",
        };
        let drift = Drift {
            reason,
            message: format!("{what}. It stays so until spec is edited or spec.drift is Revert"),
            left: true,
        };
        return Course {
            drift: Some(drift),
            ..Course::default()
        };
    }
    let too_many = |wanted: &i32| topic.is_some_and(|topic| count(topic) > *wanted);
    let mut course = if wish.partitions.as_ref().is_some_and(too_many) {
        // The rest can be undone all the same.
        let rest = Wish {
            partitions: None,
            ..wish.clone()
        };
        let mut course = pursue(&rest, owned_keys, image);
        course.refusal = course.refusal.or(plan::plan(wish, owned_keys, image).err());
        course
    } else {
        pursue(wish, owned_keys, image)
    };
    let (reason, outcome) = match course.refusal {
        Some(_) => ("CannotRevert", "not all of it can be undone"),
        // Only the id differs.
        None if course.steps.is_empty() => ("Replaced", "it counts as this object's from now on"),
        None => ("Reverting", "it is being undone"),
    };
    course.drift = Some(Drift {
        reason,
        message: format!("{what}: {outcome}"),
        left: false,
    });
    course
}

fn pursue(wish: &Wish, owned_keys: &[String], image: &Image) -> Course {
    match plan::plan(wish, owned_keys, image) {
        Ok(steps) => Course {
            steps,
            ..Course::default()
        },
        Err(refusal) => Course {
            refusal: Some(refusal),
            ..Course::default()
        },
    }
}

fn count(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

fn was_replaced(before: Option<&Fulfilled>, topic: &Topic) -> bool {
    before.is_some_and(|before| before.topic_id != topic.id.to_string())
}

/// What is not as it was wished, in words.
fn differences(wish: &Wish, before: &Fulfilled, topic: Option<&Topic>) -> Vec<String> {
    let Some(topic) = topic else {
        return vec![format!(
            "topic {} is gone: deleted by a client, or unknown to metadata that was put back",
            wish.name
        )];
    };
    let mut found = Vec::new();
    if was_replaced(Some(before), topic) {
        found.push(format!(
            "topic {} was deleted and made anew: its id is {}, not {}",
            wish.name, topic.id, before.topic_id
        ));
    }
    if let Some(wanted) = wish.partitions.filter(|wanted| *wanted != count(topic)) {
        found.push(format!("partitions: {}, not {wanted}", count(topic)));
    }
    let wanted = wish.replication_factor.unwrap_or_default();
    let other = |width: &usize| *width != usize::from(wanted.unsigned_abs());
    let mut widths = topic.partitions.iter().map(|p| target_width(p));
    if wish.replication_factor.is_some()
        && let Some(width) = widths.find(other)
    {
        found.push(format!("replicationFactor: {width}, not {wanted}"));
    }
    for (key, wanted) in &wish.configs {
        match topic.configs.get(key) {
            Some(value) if value == wanted => {}
            Some(value) => found.push(format!("{key}: {}, not {}", short(value), short(wanted))),
            None => found.push(format!("{key}: not set, not {}", short(wanted))),
        }
    }
    found
}

fn short(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn listed(differences: &[String]) -> String {
    let named = differences[..differences.len().min(NAMED)].join("; ");
    match differences.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::facts::tests::{add_topic, image};
    use crate::topic::plan::tests::{show, spec};
    use leasehold_types::BrokerId;
    use std::sync::Arc;

    /// Two partitions of three replicas and `retention.ms: 1`, after `edit`.
    fn orders(edit: impl FnOnce(&mut Topic)) -> Image {
        let mut image = image("0 1 2");
        let id = add_topic(&mut image, "orders", &["012/012/0", "120/120/1"]);
        let mut topic = (*image.topics[&id]).clone();
        topic.configs.insert("retention.ms".into(), "1".into());
        edit(&mut topic);
        image.topics.insert(id, Arc::new(topic));
        image
    }

    fn fulfilled(image: &Image) -> Fulfilled {
        Fulfilled {
            generation: 3,
            cluster_id: image.cluster_id.to_string(),
            topic_id: image
                .names
                .get("orders")
                .map_or("other".into(), |id| id.to_string()),
        }
    }

    const WISH: &str = "{partitions: 2, replicationFactor: 3, config: {retention.ms: 1}}";

    /// One line: the steps, the refusal, the drift's reason and what differs.
    fn run(text: &str, image: &Image, before: Option<&Fulfilled>) -> String {
        let spec = spec(text);
        let wish = plan::wish("orders", &spec).unwrap();
        let course = course(spec.drift, &wish, &[], before, image);
        let drift = course
            .drift
            .map(|drift| format!("{}: {}", drift.reason, drift.message));
        format!(
            "[{}] {} {}",
            show(&course.steps),
            course.refusal.map_or("-", |refusal| refusal.reason),
            drift.as_deref().unwrap_or("-"),
        )
    }

    fn both(image: &Image) -> (String, String) {
        let before = fulfilled(image);
        let revert = WISH.replace('}', "").replace("1", "1}, drift: Revert}");
        let tail = ". It stays so until spec is edited or spec.drift is Revert";
        let reported = run(WISH, image, Some(&before));
        (
            reported.replace(tail, ""),
            run(&revert, image, Some(&before)),
        )
    }

    #[test]
    fn an_edit_of_a_client_is_reported_or_undone() {
        let (report, revert) = both(&orders(|topic| {
            topic.configs.insert("retention.ms".into(), "9".into());
        }));
        assert_eq!(report, "[] - Edited: retention.ms: 9, not 1");
        assert_eq!(
            revert,
            "[configure {\"retention.ms\": Some(\"1\")}] - Reverting: retention.ms: 9, not 1: it is being undone"
        );
        let (report, revert) = both(&orders(|topic| topic.configs.clear()));
        assert_eq!(report, "[] - Edited: retention.ms: not set, not 1");
        assert!(
            revert.starts_with("[configure {\"retention.ms\": Some(\"1\")}] - Reverting"),
            "{revert}"
        );
        let (report, revert) = both(&orders(|topic| {
            Arc::make_mut(&mut topic.partitions[1]).replicas = vec![BrokerId(1)];
        }));
        assert_eq!(report, "[] - Edited: replicationFactor: 1, not 3");
        assert!(revert.starts_with("[width 3] - Reverting"), "{revert}");
    }

    #[test]
    fn partitions_cannot_be_taken_back_but_the_rest_is() {
        let (report, revert) = both(&orders(|topic| {
            topic.partitions.push(topic.partitions[0].clone());
            topic.configs.clear();
        }));
        assert_eq!(
            report,
            "[] - Edited: partitions: 3, not 2; retention.ms: not set, not 1"
        );
        assert_eq!(
            revert,
            "[configure {\"retention.ms\": Some(\"1\")}] PartitionsCannotShrink CannotRevert: partitions: 3, not 2; retention.ms: not set, not 1: not all of it can be undone"
        );
    }

    #[test]
    fn a_topic_that_a_client_deleted_stays_so_or_is_made_again() {
        let (report, revert) = both(&image("0 1 2"));
        assert!(
            report.starts_with("[] - Deleted: topic orders is gone"),
            "{report}"
        );
        assert!(
            revert.starts_with("[create 2x3 {\"retention.ms\": \"1\"}] - Reverting"),
            "{revert}"
        );
    }

    #[test]
    fn a_namesake_is_told_from_the_topic_that_was_there() {
        let image = orders(|_| {});
        let mut before = fulfilled(&image);
        before.topic_id = "first".into();
        let report = run(WISH, &image, Some(&before));
        assert!(
            report.starts_with("[] - Replaced: topic orders"),
            "{report}"
        );
        assert!(report.contains("not first"), "{report}");
    }

    #[test]
    fn only_what_was_as_wished_drifts() {
        let edited = orders(|topic| {
            topic.configs.insert("retention.ms".into(), "9".into());
        });
        let pursued = "[configure {\"retention.ms\": Some(\"1\")}] - -";
        assert_eq!(run(WISH, &edited, None), pursued, "never fulfilled");
        let before = fulfilled(&edited);
        let is = |generation, image: &Image| was_fulfilled(&before, generation, image);
        assert!(is(Some(3), &edited));
        assert!(!is(Some(4), &edited), "the spec was edited since");
        let mut other = edited.clone();
        other.cluster_id = leasehold_types::ClusterId("another".into());
        assert!(!is(Some(3), &other), "another cluster under the name");
    }

    #[test]
    fn what_is_not_wished_and_what_is_as_wished_never_drifts() {
        let image = orders(|topic| {
            topic.configs.insert("segment.ms".into(), "7".into());
        });
        let before = fulfilled(&image);
        assert_eq!(run("{}", &image, Some(&before)), "[] - -");
        assert_eq!(run(WISH, &image, Some(&before)), "[] - -");
    }

    #[test]
    fn a_move_under_way_is_no_drift_and_long_lists_are_cut() {
        let image = orders(|topic| {
            let partition = Arc::make_mut(&mut topic.partitions[0]);
            partition.replicas.push(BrokerId(3));
            partition.adding = vec![BrokerId(3)];
            partition.removing = vec![BrokerId(0)];
        });
        assert_eq!(run(WISH, &image, Some(&fulfilled(&image))), "[] - -");
        let many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        assert_eq!(listed(&many), "0; 1; 2; 3; 4; 5; and 3 more");
        assert_eq!(short(&"é".repeat(70)), format!("{}…", "é".repeat(64)));
    }
}
