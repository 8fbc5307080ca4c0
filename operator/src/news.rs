//! What happened between two images of a cluster's metadata, as Events; pure.

use crate::events::News;
use leasehold_metadata::image::Image;
use leasehold_types::BrokerId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Partitions that one Event names; more are counted.
const NAMED: usize = 8;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names of topics that were created, deleted or changed.
    pub topics: BTreeSet<String>,
    /// Whether brokers came, went or changed their standing.
    pub brokers: bool,
    pub news: Vec<News>,
}

fn news(warning: bool, reason: &'static str, action: &'static str, note: String) -> News {
    News {
        warning,
        reason,
        action,
        note,
    }
}

/// Compares.
pub fn changes(cluster: &str, old: &Image, new: &Image) -> Changes {
    let mut changes = Changes::default();
    controller(cluster, old, new, &mut changes);
    brokers(cluster, old, new, &mut changes);
    topics(old, new, &mut changes);
    changes
}

fn controller(cluster: &str, old: &Image, new: &Image, changes: &mut Changes) {
    if old.position.epoch == new.position.epoch {
        return;
    }
    if let Some(broker) = crate::admin::controller(new) {
        let pod = crate::cluster::names::pod(cluster, broker.0);
        let note = format!("{pod} is controller, epoch {}", new.position.epoch);
        changes
            .news
            .push(news(false, "ControllerElected", "Elect", note));
    }
}

fn brokers(cluster: &str, old: &Image, new: &Image, changes: &mut Changes) {
    let pod = |id: BrokerId| crate::cluster::names::pod(cluster, id.0);
    for (id, broker) in &new.brokers {
        let before = old.brokers.get(id);
        changes.brokers |= before != Some(broker);
        let was_live = before.is_some_and(|b| !b.fenced);
        let is_new = before.is_none_or(|b| b.fenced || b.incarnation != broker.incarnation);
        if broker.fenced && was_live {
            let note = format!("{} is fenced: it leads nothing until it is back", pod(*id));
            changes.news.push(news(true, "BrokerFenced", "Fence", note));
        } else if !broker.fenced && is_new {
            let note = format!("{} serves", pod(*id));
            changes
                .news
                .push(news(false, "BrokerServes", "Unfence", note));
        }
    }
    for id in old
        .brokers
        .keys()
        .filter(|id| new.brokers.get(*id).is_none())
    {
        changes.brokers = true;
        changes.news.push(news(
            false,
            "BrokerRemoved",
            "Unregister",
            format!("{} was unregistered", pod(*id)),
        ));
    }
}

fn topics(old: &Image, new: &Image, changes: &mut Changes) {
    let mut elected = Vec::new();
    let mut lost = Vec::new();
    for (id, topic) in &new.topics {
        let before = old.topics.get(id);
        if before.is_some_and(|before| Arc::ptr_eq(before, topic) || before == topic) {
            continue;
        }
        changes.topics.insert(topic.name.clone());
        let Some(before) = before else { continue };
        for (index, (is, was)) in topic.partitions.iter().zip(&before.partitions).enumerate() {
            if is.leader == was.leader {
                continue;
            }
            let name = format!("{}-{index}", topic.name);
            match is.leader {
                Some(leader) => elected.push(format!(
                    "{name}: {leader} (leader epoch {})",
                    is.leader_epoch
                )),
                None => lost.push(name),
            }
        }
    }
    for (_, topic) in old
        .topics
        .iter()
        .filter(|(id, _)| new.topics.get(*id).is_none())
    {
        changes.topics.insert(topic.name.clone());
    }
    if !elected.is_empty() {
        changes.news.push(news(
            false,
            "LeaderElected",
            "Elect",
            listed("new leader of", &elected),
        ));
    }
    if !lost.is_empty() {
        changes.news.push(news(
            true,
            "PartitionOffline",
            "Elect",
            listed("no leader for", &lost),
        ));
    }
}

fn listed(what: &str, items: &[String]) -> String {
    let named = items[..items.len().min(NAMED)].join(", ");
    match items.len().saturating_sub(NAMED) {
        0 => format!("{what} {named}"),
        more => format!("{what} {} partitions: {named} and {more} more", items.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::facts::tests::{add_topic, image};

    fn reasons(changes: &Changes) -> Vec<&str> {
        changes.news.iter().map(|news| news.reason).collect()
    }

    #[test]
    fn nothing_happened() {
        let image = image("0 1 2");
        assert_eq!(changes("demo", &image, &image.clone()), Changes::default());
    }

    #[test]
    fn a_failover_is_told_once_however_many_partitions_it_moves() {
        let mut old = image("0 1 2");
        let id = add_topic(&mut old, "orders", &["012/012/0"; 20]);
        let mut new = old.clone();
        let mut topic = (*new.topics[&id]).clone();
        for partition in &mut topic.partitions {
            Arc::make_mut(partition).leader = Some(BrokerId(1));
        }
        new.topics.insert(id, Arc::new(topic));
        let changes = changes("demo", &old, &new);
        assert_eq!(reasons(&changes), ["LeaderElected"]);
        assert!(
            changes.news[0].note.contains("20 partitions")
                && changes.news[0].note.contains("12 more")
        );
        assert!(changes.topics.contains("orders") && !changes.brokers);
    }

    #[test]
    fn fencing_and_return_are_told() {
        let (live, fenced) = (image("0 1"), image("0 1f"));
        assert_eq!(reasons(&changes("demo", &live, &fenced)), ["BrokerFenced"]);
        assert_eq!(reasons(&changes("demo", &fenced, &live)), ["BrokerServes"]);
        assert_eq!(
            reasons(&changes("demo", &live, &image("0"))),
            ["BrokerRemoved"]
        );
    }

    #[test]
    fn a_partition_without_a_leader_is_a_warning() {
        let mut old = image("0 1");
        let id = add_topic(&mut old, "orders", &["01/01/0"]);
        let mut new = old.clone();
        let mut topic = (*new.topics[&id]).clone();
        Arc::make_mut(&mut topic.partitions[0]).leader = None;
        new.topics.insert(id, Arc::new(topic));
        let changes = changes("demo", &old, &new);
        assert_eq!(reasons(&changes), ["PartitionOffline"]);
        assert!(changes.news[0].warning);
    }
}
