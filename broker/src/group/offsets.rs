//! The committed offsets of one group.
//!
//! An offset is visible once its record is stored. Those that are on their way are counted, so that a
//! deletion names them too and an expiry leaves them alone.

use super::store::records::OffsetValue;
use leasehold_types::seams::HashMap;
use std::collections::BTreeMap;

/// A partition of a topic.
pub type TopicPartition = (String, i32);

#[derive(Clone, Debug, Default)]
struct Slot {
    committed: Option<OffsetValue>,
    on_their_way: u32,
}

/// Offsets by topic and partition.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    topics: HashMap<String, BTreeMap<i32, Slot>>,
}

/// When an offset of a group may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not while the group consumes.
    Never,
    /// This long after the commit.
    AfterCommit,
    /// This long after the group became empty, at the given time; after the commit if that is not known.
    AfterEmpty(i64),
}

impl Offsets {
    /// What a log held.
    pub fn loaded(topics: HashMap<String, BTreeMap<i32, OffsetValue>>) -> Self {
        let slot = |value| Slot {
            committed: Some(value),
            on_their_way: 0,
        };
        let slots = |partitions: BTreeMap<i32, OffsetValue>| {
            partitions.into_iter().map(|(p, v)| (p, slot(v))).collect()
        };
        Self {
            topics: topics.into_iter().map(|(t, p)| (t, slots(p))).collect(),
        }
    }

    /// Whether nothing is committed, nor on its way.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many partitions have an offset, or one on its way.
    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }

    /// A commit is being stored.
    pub fn begin(&mut self, topic: &str, partition: i32) {
        let partitions = match self.topics.get_mut(topic) {
            Some(partitions) => partitions,
            None => self.topics.entry(topic.to_owned()).or_default(),
        };
        partitions.entry(partition).or_default().on_their_way += 1;
    }

    /// The commit is stored (`Some`), or could not be.
    pub fn end(&mut self, topic: &str, partition: i32, value: Option<OffsetValue>) {
        let Some(slot) = self.slot(topic, partition) else {
            return;
        };
        slot.on_their_way = slot.on_their_way.saturating_sub(1);
        if value.is_some() {
            slot.committed = value;
        }
        self.tidy(topic, partition);
    }

    /// The offset's tombstone is stored.
    pub fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(slot) = self.slot(topic, partition) {
            slot.committed = None;
        }
        self.tidy(topic, partition);
    }

    /// A visible offset.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.topics.get(topic)?.get(&partition)?.committed.as_ref()
    }

    /// All visible offsets by topic; topics without any are left out.
    pub fn visible(&self) -> impl Iterator<Item = (&str, Vec<(i32, &OffsetValue)>)> {
        self.topics.iter().filter_map(|(topic, partitions)| {
            let visible: Vec<_> = partitions
                .iter()
                .filter_map(|(partition, slot)| Some((*partition, slot.committed.as_ref()?)))
                .collect();
            (!visible.is_empty()).then_some((topic.as_str(), visible))
        })
    }

    /// Every partition with an offset, visible or on its way.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.of_topics(|_| true)
    }

    /// The same, of some topics.
    pub fn of_topics(&self, wanted: impl Fn(&str) -> bool) -> Vec<TopicPartition> {
        let topics = self.topics.iter().filter(|(topic, _)| wanted(topic));
        topics
            .flat_map(|(topic, partitions)| partitions.keys().map(|p| (topic.clone(), *p)))
            .collect()
    }

    /// Partitions whose offset has been kept for `retention_ms` by the rule of its topic.
    pub fn expired(
        &self,
        rule: impl Fn(&str) -> Expiry,
        retention_ms: i64,
        now: i64,
    ) -> Vec<TopicPartition> {
        let mut expired = Vec::new();
        for (topic, partitions) in &self.topics {
            let rule = rule(topic);
            for (partition, slot) in partitions {
                if slot.on_their_way > 0 {
                    continue;
                }
                if let Some(value) = &slot.committed
                    && is_expired(value, rule, retention_ms, now)
                {
                    expired.push((topic.clone(), *partition));
                }
            }
        }
        expired
    }

    fn slot(&mut self, topic: &str, partition: i32) -> Option<&mut Slot> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    fn tidy(&mut self, topic: &str, partition: i32) {
        let Some(partitions) = self.topics.get_mut(topic) else {
            return;
        };
        if partitions
            .get(&partition)
            .is_some_and(|slot| slot.committed.is_none() && slot.on_their_way == 0)
        {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
    }
}

fn is_expired(value: &OffsetValue, rule: Expiry, retention_ms: i64, now: i64) -> bool {
    let since = match rule {
        Expiry::Never => return false,
        Expiry::AfterEmpty(at) if at >= 0 => at,
        Expiry::AfterCommit | Expiry::AfterEmpty(_) => value.commit_timestamp,
    };
    match value.expire_timestamp {
        Some(at) => now >= at,
        None => now.saturating_sub(since) >= retention_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(offset: i64, committed: i64) -> OffsetValue {
        OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp: committed,
            expire_timestamp: None,
        }
    }

    #[test]
    fn an_offset_is_visible_only_when_stored_and_stays_what_it_was_if_the_store_failed() {
        let mut offsets = Offsets::default();
        offsets.begin("t", 0);
        assert!(offsets.get("t", 0).is_none());
        assert_eq!(offsets.visible().count(), 0);
        assert_eq!(offsets.partitions(), [("t".to_owned(), 0)]);
        offsets.end("t", 0, Some(value(5, 1)));
        offsets.begin("t", 0);
        offsets.end("t", 0, None);
        assert_eq!(offsets.get("t", 0).unwrap().offset, 5);
        offsets.begin("u", 0);
        offsets.end("u", 0, None);
        assert_eq!(offsets.len(), 1);
        offsets.remove("t", 0);
        assert!(offsets.is_empty());
    }

    #[test]
    fn an_offset_expires_by_its_own_time_or_by_that_of_its_group_but_not_while_another_is_on_its_way()
     {
        let mut offsets = Offsets::default();
        for (partition, committed) in [(0, 100), (1, 900)] {
            offsets.begin("t", partition);
            offsets.end("t", partition, Some(value(1, committed)));
        }
        let expired = |offsets: &Offsets, rule, now| offsets.expired(|_| rule, 1000, now).len();
        assert_eq!(expired(&offsets, Expiry::Never, 1_000_000), 0);
        assert_eq!(expired(&offsets, Expiry::AfterCommit, 1099), 0);
        assert_eq!(expired(&offsets, Expiry::AfterCommit, 1100), 1);
        assert_eq!(expired(&offsets, Expiry::AfterEmpty(5000), 5999), 0);
        assert_eq!(expired(&offsets, Expiry::AfterEmpty(5000), 6000), 2);
        assert_eq!(expired(&offsets, Expiry::AfterEmpty(-1), 1100), 1);
        offsets.begin("t", 0);
        assert_eq!(expired(&offsets, Expiry::AfterCommit, 1100), 0);
    }

    #[test]
    fn a_retention_that_the_client_chose_counts_before_the_brokers() {
        let mut offsets = Offsets::default();
        offsets.begin("t", 0);
        let short = OffsetValue {
            expire_timestamp: Some(150),
            ..value(1, 100)
        };
        offsets.end("t", 0, Some(short));
        assert_eq!(
            offsets.expired(|_| Expiry::AfterCommit, 1_000, 149).len(),
            0
        );
        assert_eq!(
            offsets.expired(|_| Expiry::AfterCommit, 1_000, 150).len(),
            1
        );
    }
}
