//! A topic's status from the metadata; pure.

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
    fn a_topic_that_does_not_exist_has_no_id() {
        assert_eq!(describe("a", None).topic_id, None);
    }
}
