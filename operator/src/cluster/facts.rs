//! What the decisions need to know of the metadata, counted in one pass; pure.

use super::roll::{Survives, survives};
use super::scale::BrokerFacts;
use leasehold_metadata::image::{Image, Partition, Topic};
use std::collections::BTreeMap;

/// Totals over all topics and brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub topics: i32,
    pub partitions: i32,
    pub under_replicated: i32,
    pub offline: i32,
    /// Partitions that already miss a replica and could not lose another without refusing acks=all.
    pub at_minimum: i32,
    /// Partitions that are whole, and need every one of their replicas for acks=all.
    pub indispensable: i32,
    /// The name of one that could not lose another replica, of the former kind if there is one.
    pub example: Option<String>,
    pub brokers: BTreeMap<i32, BrokerFacts>,
    /// The topic with the most replicas.
    pub widest: Option<(String, usize)>,
}

/// Whether a partition lacks a replica in sync.
pub fn is_under_replicated(partition: &Partition) -> bool {
    partition.isr.len() < partition.replication_factor()
}

/// Counts.
pub fn totals(image: &Image) -> Totals {
    let mut totals = Totals::default();
    for broker in image.brokers.values() {
        totals.brokers.insert(
            broker.id.0,
            BrokerFacts {
                registered: true,
                fenced: broker.fenced,
                cordoned: broker.cordoned,
                ..BrokerFacts::default()
            },
        );
    }
    for topic in image.topics.values() {
        totals.topics += 1;
        for (number, partition) in topic.partitions.iter().enumerate() {
            count(&mut totals, image, topic, number, partition);
        }
    }
    totals
}

fn count(totals: &mut Totals, image: &Image, topic: &Topic, number: usize, partition: &Partition) {
    totals.partitions += 1;
    totals.offline += i32::from(partition.leader.is_none());
    let under = is_under_replicated(partition);
    totals.under_replicated += i32::from(under);
    let name = || format!("{}-{number}", topic.name);
    match survives(image, topic, partition, None) {
        Survives::Yes => {}
        Survives::NeedsAll => {
            totals.indispensable += 1;
            totals.example.get_or_insert_with(name);
        }
        Survives::No => {
            if totals.at_minimum == 0 {
                totals.example = Some(name());
            }
            totals.at_minimum += 1;
        }
    }
    for replica in &partition.replicas {
        totals.brokers.entry(replica.0).or_default().replicas += 1;
    }
    if let Some(leader) = partition.leader {
        totals.brokers.entry(leader.0).or_default().leaders += 1;
    }
    let width = partition.replication_factor();
    if totals.widest.as_ref().is_none_or(|(_, most)| width > *most) {
        totals.widest = Some((topic.name.clone(), width));
    }
}

impl Totals {
    /// Why no broker may be taken away just now; `None` if any one may.
    pub fn indisposed(&self, may_interrupt: bool) -> Option<String> {
        let example = self.example.as_deref().unwrap_or_default();
        if self.at_minimum > 0 {
            return Some(format!(
                "{} of {} partitions (such as {example}) lack replicas in sync, and would refuse acks=all if they lost another",
                self.at_minimum, self.partitions
            ));
        }
        (self.indispensable > 0 && !may_interrupt).then(|| {
            format!(
                "{} of {} partitions (such as {example}) need every one of their replicas for acks=all: give them more, lower min.insync.replicas, or set spec.rolling.whenUnavailable to Proceed",
                self.indispensable, self.partitions
            )
        })
    }

    /// Brokers that are registered and serve.
    pub fn serving(&self) -> impl Iterator<Item = i32> {
        self.brokers
            .iter()
            .filter(|(_, b)| b.registered && !b.fenced)
            .map(|(id, _)| *id)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use leasehold_metadata::image::{Broker, Endpoint};
    use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, Seq, TopicId};
    use std::sync::Arc;

    /// An image of `brokers` (`"0 1 2f 3c"`: f = fenced, c = cordoned) and no topics.
    pub(crate) fn image(brokers: &str) -> Image {
        let mut image = Image::genesis(ClusterId("abc".into()));
        for one in brokers.split_whitespace() {
            let id: i32 = one.trim_end_matches(['f', 'c']).parse().unwrap();
            let at = |port| Endpoint {
                host: format!("10.0.0.{id}"),
                port,
            };
            let broker = Broker {
                id: BrokerId(id),
                incarnation: Incarnation(7),
                client: at(9092),
                internal: at(9091),
                http: None,
                rack: None,
                version: String::new(),
                fenced: one.ends_with('f'),
                shutting_down: false,
                cordoned: one.ends_with('c'),
                registered_at: Seq(1),
                changed_at: Seq(1),
                directories: Vec::new(),
                listeners: Default::default(),
                features: Default::default(),
            };
            image.brokers.insert(BrokerId(id), Arc::new(broker));
        }
        image
    }

    fn ids(text: &str) -> Vec<BrokerId> {
        text.chars()
            .filter_map(|c| c.to_digit(10))
            .map(|n| BrokerId(n as i32))
            .collect()
    }

    /// Adds a topic; each partition is `"replicas/isr/leader"`, such as `"012/01/0"` or `"01//-"`.
    pub(crate) fn add_topic(image: &mut Image, name: &str, partitions: &[&str]) -> TopicId {
        let id = TopicId::random();
        let parse = |text: &&str| {
            let parts: Vec<&str> = text.split('/').collect();
            Arc::new(Partition {
                replicas: ids(parts[0]),
                isr: ids(parts[1]),
                leader: ids(parts[2]).first().copied(),
                leader_epoch: LeaderEpoch(3),
                ..Partition::default()
            })
        };
        let topic = Topic {
            id,
            name: name.to_owned(),
            internal: false,
            partitions: partitions.iter().map(parse).collect(),
            configs: BTreeMap::new(),
        };
        image.names.insert(name.to_owned(), id);
        image.topics.insert(id, Arc::new(topic));
        id
    }

    #[test]
    fn a_broker_may_go_while_every_partition_could_lose_one_more() {
        let told = |brokers: &str, partition: &str, proceed: bool| {
            let mut image = image(brokers);
            // Kafka's default: min.insync.replicas is 1.
            add_topic(&mut image, "a", &[partition]);
            totals(&image).indisposed(proceed).unwrap_or_default()
        };
        assert_eq!(told("0 1 2", "012/012/0", false), "");
        assert_eq!(told("0 1 2", "012/01/0", false), "");
        assert!(told("0 1 2", "012/0/0", true).contains("1 of 1 partitions (such as a-0) lack"));
        assert!(told("0 1f 2f", "012/012/0", true).contains("lack"));
        assert!(told("0 1 2", "0/0/0", false).contains("need every one"));
        assert_eq!(told("0 1 2", "0/0/0", true), "");
        assert!(told("0f 1 2", "0/0/-", true).contains("lack"));
    }

    #[test]
    fn replicas_leaders_and_gaps_are_counted_per_broker() {
        let mut image = image("0 1 2f 3c");
        add_topic(&mut image, "a", &["012/01/0", "123/13/-"]);
        add_topic(&mut image, "b", &["0/0/0"]);
        let totals = totals(&image);
        assert_eq!(
            (
                totals.topics,
                totals.partitions,
                totals.under_replicated,
                totals.offline
            ),
            (2, 3, 2, 1)
        );
        assert_eq!(totals.brokers[&0].leaders, 2);
        assert_eq!(totals.brokers[&1].replicas, 2);
        assert_eq!(totals.widest, Some(("a".into(), 3)));
        assert_eq!(totals.serving().collect::<Vec<_>>(), [0, 1, 3]);
    }
}
