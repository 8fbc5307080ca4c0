//! A topic's status from the metadata; pure.

use super::drift::{DRIFTED, Drift};
use super::plan::Wish;
use crate::cluster::facts::is_under_replicated;
use leasehold_crds::{PartitionState, TopicStatus};
use leasehold_metadata::image::{Partition, Topic};
use leasehold_types::BrokerId;

/// Partitions that are shown one by one. Totals count all.
const SHOWN: usize = 64;
/// Leaders in the column of `kubectl get`.
const LEADERS: usize = 12;

/// What the metadata says about the topic, without conditions.
pub fn describe(name: &str, topic: Option<&Topic>) -> TopicStatus {
    let mut status = TopicStatus {
        topic_name: Some(name.to_owned()),
        ..TopicStatus::default()
    };
    let Some(topic) = topic else { return status };
    let count = |test: fn(&Partition) -> bool| {
        let number = topic.partitions.iter().filter(|p| test(p)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let narrowest = topic
        .partitions
        .iter()
        .map(|p| p.replication_factor())
        .min();
    status.topic_id = Some(topic.id.to_string());
    status.partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    status.replication_factor = narrowest.and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    status.led_partitions = count(|p| p.leader.is_some());
    status.offline_partitions = count(|p| p.leader.is_none());
    status.under_replicated_partitions = count(is_under_replicated);
    status.leaders = Some(leaders(topic));
    status.partition_states = (0..)
        .zip(topic.partitions.iter().take(SHOWN))
        .map(|(n, p)| state(n, p))
        .collect();
    status
}

/// How a topic stands for which nothing is left to ask.
pub fn standing(
    wish: &Wish,
    topic: Option<&Topic>,
    drift: Option<&Drift>,
) -> (bool, &'static str, String) {
    let left = drift.filter(|drift| drift.left);
    let Some(topic) = topic else {
        return match left {
            Some(drift) => (false, drift.reason, drift.message.clone()),
            None => (false, "Applying", "the topic is being created".to_owned()),
        };
    };
    let total = topic.partitions.len();
    let moving = match wish.replication_factor {
        // It has the replicas that others want it to have.
        _ if left.is_some() => 0,
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
        0 if left.is_some() => {
            let message = left.map(|drift| drift.message.clone());
            (true, DRIFTED, message.unwrap_or_default())
        }
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

fn leaders(topic: &Topic) -> String {
    let mut list: Vec<String> = topic
        .partitions
        .iter()
        .take(LEADERS)
        .map(|p| p.leader.map_or("-".to_owned(), |leader| leader.to_string()))
        .collect();
    if topic.partitions.len() > LEADERS {
        list.push("…".to_owned());
    }
    list.join(",")
}

fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    // The schema's bound; Kafka's clients would not know what to do with more either.
    brokers.iter().take(64).map(|broker| broker.0).collect()
}

fn state(number: i32, partition: &Partition) -> PartitionState {
    PartitionState {
        partition: number,
        leader: partition.leader.map(|leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        replicas: numbers(&partition.replicas),
        isr: numbers(&partition.isr),
        elr: numbers(&partition.elr),
        adding: numbers(&partition.adding),
        removing: numbers(&partition.removing),
        recovering: partition.recovering,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::facts::tests::{add_topic, image};

    #[test]
    fn totals_count_all_partitions_and_the_first_64_are_shown() {
        let mut image = image("0 1");
        add_topic(&mut image, "a", &["01/0/0"; 100]);
        let status = describe("a", image.topic_by_name("a").map(|t| &**t));
        assert_eq!(
            (status.partitions, status.under_replicated_partitions),
            (100, 100)
        );
        assert_eq!(status.partition_states.len(), 64);
        assert_eq!(status.leaders.as_deref(), Some("0,0,0,0,0,0,0,0,0,0,0,0,…"));
        assert!(status.leaders.unwrap().len() < 128);
    }

    #[test]
    fn what_others_made_of_a_topic_counts_as_ready_while_it_is_led() {
        let drift = Drift {
            reason: "Edited",
            message: "replicationFactor: 2, not 3".into(),
            left: true,
        };
        let wish = Wish {
            name: "a".into(),
            partitions: None,
            replication_factor: Some(3),
            configs: Default::default(),
        };
        let told = |partitions: &[&str], drift: Option<&Drift>| {
            let mut image = image("0 1 2");
            if !partitions.is_empty() {
                add_topic(&mut image, "a", partitions);
            }
            let (ready, reason, _) = standing(&wish, image.topic_by_name("a").map(|t| &**t), drift);
            (ready, reason)
        };
        assert_eq!(told(&["01/01/0"], Some(&drift)), (true, "Drifted"));
        let undone = Drift {
            left: false,
            ..drift.clone()
        };
        assert_eq!(told(&["01/01/0"], Some(&undone)), (false, "Reassigning"));
        assert_eq!(told(&["012/012/0"], None), (true, "Ready"));
        let offline = told(&["01/01/-"], Some(&drift));
        assert_eq!(offline, (false, "PartitionsOffline"));
        assert_eq!(told(&[], Some(&drift)), (false, "Edited"));
        assert_eq!(told(&[], None), (false, "Applying"));
    }

    #[test]
    fn a_topic_that_does_not_exist_has_no_id() {
        assert_eq!(describe("a", None).topic_id, None);
    }
}
