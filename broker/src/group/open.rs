//! Offsets that were committed in transactions which have not ended yet (KIP-98, KIP-447).
//!
//! Such an offset shows once its transaction is committed, and never if it is aborted. Meanwhile it makes
//! the offset of its partition unstable. An offset that the group commits otherwise, or a tombstone, ends
//! what was pending before it, whatever becomes of the transaction: the later record counts.

use super::offsets::TopicPartition;
use super::shard::WriteId;
use super::store::records::OffsetValue;
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, ProducerId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq)]
struct Slot {
    /// The write that is to store it; `None` if a log held it.
    write: Option<WriteId>,
    /// Where it is stored, if it is.
    at: Option<Offset>,
    value: OffsetValue,
}

type OfGroup = BTreeMap<TopicPartition, Vec<Slot>>;

/// The pending offsets of one partition of the offsets topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenTransactions {
    by_producer: HashMap<ProducerId, HashMap<String, OfGroup>>,
    by_group: HashMap<String, BTreeSet<ProducerId>>,
}

impl OpenTransactions {
    /// A log held this offset.
    pub fn loaded(
        &mut self,
        producer: ProducerId,
        group: &str,
        key: TopicPartition,
        at: Offset,
        value: OffsetValue,
    ) {
        let slots = self.slots(producer, group, key);
        // What the same transaction committed before counts no more.
        slots.clear();
        slots.push(Slot {
            write: None,
            at: Some(at),
            value,
        });
    }

    /// `write` is to store this offset.
    pub fn begin(
        &mut self,
        producer: ProducerId,
        group: &str,
        key: TopicPartition,
        write: WriteId,
        value: OffsetValue,
    ) {
        let slots = self.slots(producer, group, key);
        slots.push(Slot {
            write: Some(write),
            at: None,
            value,
        });
    }

    /// `write` is stored at an offset; `None`: it could not be, or its transaction has ended.
    pub fn written(
        &mut self,
        producer: ProducerId,
        group: &str,
        write: WriteId,
        at: Option<Offset>,
    ) {
        self.retain(producer, group, |_, slot| {
            if slot.write != Some(write) {
                return true;
            }
            slot.at = at;
            at.is_some()
        });
    }

    /// `write` has stored another offset, outside of any transaction (`None`: a log held it).
    pub fn superseded(&mut self, group: &str, topic: &str, partition: i32, write: Option<WriteId>) {
        for producer in self.producers(group) {
            self.retain(producer, group, |key, slot| {
                let later = write.is_some_and(|write| slot.write > Some(write));
                later || (key.0.as_str(), key.1) != (topic, partition)
            });
        }
    }

    /// A marker of `producer` ends what is stored before it: gives the last offset of each partition.
    pub fn end(
        &mut self,
        producer: ProducerId,
        marker: Offset,
    ) -> Vec<(String, TopicPartition, OffsetValue)> {
        let groups = self.by_producer.get(&producer).into_iter().flatten();
        let groups: Vec<String> = groups.map(|(group, _)| group.clone()).collect();
        let mut ended = Vec::new();
        for group in groups {
            let mut last = BTreeMap::new();
            self.retain(producer, &group, |key, slot| {
                let before = slot.at.is_some_and(|at| at < marker);
                if before {
                    last.insert(key.clone(), slot.value.clone());
                }
                !before
            });
            ended.extend(last.into_iter().map(|(key, v)| (group.clone(), key, v)));
        }
        ended
    }

    /// Whether the group has offsets in any transaction.
    pub fn has_any(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// Whether an offset of this partition is pending.
    pub fn has(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.has_any(group)
            && self
                .of(group)
                .any(|(t, p)| (t.as_str(), *p) == (topic, partition))
    }

    /// The partitions of which the group has pending offsets; perhaps more than once.
    pub fn of(&self, group: &str) -> impl Iterator<Item = &TopicPartition> {
        let producers = self.by_group.get(group).into_iter().flatten();
        let offsets = producers.filter_map(|producer| self.by_producer.get(producer));
        let group = group.to_owned();
        offsets
            .filter_map(move |groups| groups.get(&group))
            .flat_map(BTreeMap::keys)
    }

    /// The groups that have pending offsets.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.by_group.keys().map(String::as_str)
    }

    fn producers(&self, group: &str) -> Vec<ProducerId> {
        let producers = self.by_group.get(group).into_iter().flatten();
        producers.copied().collect()
    }

    fn retain(
        &mut self,
        producer: ProducerId,
        group: &str,
        mut keep: impl FnMut(&TopicPartition, &mut Slot) -> bool,
    ) {
        let Some(groups) = self.by_producer.get_mut(&producer) else {
            return;
        };
        let Some(offsets) = groups.get_mut(group) else {
            return;
        };
        offsets.retain(|key, slots| {
            slots.retain_mut(|slot| keep(key, slot));
            !slots.is_empty()
        });
        if offsets.is_empty() {
            groups.remove(group);
            if groups.is_empty() {
                self.by_producer.remove(&producer);
            }
            self.forget_group_of(producer, group);
        }
    }

    fn forget_group_of(&mut self, producer: ProducerId, group: &str) {
        if let Some(producers) = self.by_group.get_mut(group) {
            producers.remove(&producer);
            if producers.is_empty() {
                self.by_group.remove(group);
            }
        }
    }

    fn slots(&mut self, producer: ProducerId, group: &str, key: TopicPartition) -> &mut Vec<Slot> {
        let producers = self.by_group.entry(group.to_owned()).or_default();
        producers.insert(producer);
        let groups = self.by_producer.entry(producer).or_default();
        let of_group = groups.entry(group.to_owned()).or_default();
        of_group.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: ProducerId = ProducerId(7);
    const Q: ProducerId = ProducerId(8);

    fn value(offset: i64) -> OffsetValue {
        OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp: 1,
            expire_timestamp: None,
        }
    }

    fn key(partition: i32) -> TopicPartition {
        ("t".to_owned(), partition)
    }

    fn ended(open: &mut OpenTransactions, producer: ProducerId) -> Vec<(i32, i64)> {
        let ended = open.end(producer, Offset(100)).into_iter();
        ended.map(|(_, key, value)| (key.1, value.offset)).collect()
    }

    #[test]
    fn a_transaction_commits_the_last_offset_that_is_stored_and_nothing_else() {
        let mut open = OpenTransactions::default();
        open.begin(P, "g", key(0), WriteId(1), value(5));
        open.begin(P, "g", key(1), WriteId(1), value(6));
        open.begin(Q, "g", key(0), WriteId(2), value(9));
        open.begin(P, "g", key(0), WriteId(3), value(7));
        assert!(open.has("g", "t", 0) && open.has("g", "t", 1) && !open.has("g", "t", 2));
        open.written(P, "g", WriteId(1), Some(Offset(10)));
        open.written(P, "g", WriteId(3), None);
        assert_eq!(ended(&mut open, P), [(0, 5), (1, 6)]);
        assert!(open.has("g", "t", 0), "the other transaction's");
        assert!(!open.has("g", "t", 1));
        // Not stored yet: still pending.
        assert_eq!(ended(&mut open, Q), []);
        assert!(open.has("g", "t", 0));
        // Nor is what lies behind the marker.
        open.written(Q, "g", WriteId(2), Some(Offset(100)));
        assert_eq!(ended(&mut open, Q), []);
        open.written(Q, "g", WriteId(2), None);
        assert_eq!(open, OpenTransactions::default());
    }

    #[test]
    fn what_is_committed_otherwise_ends_what_was_pending_before_it_and_not_what_comes_later() {
        let mut open = OpenTransactions::default();
        open.loaded(P, "g", key(0), Offset(1), value(1));
        open.begin(Q, "g", key(0), WriteId(4), value(3));
        open.written(Q, "g", WriteId(4), Some(Offset(9)));
        open.superseded("g", "t", 0, Some(WriteId(3)));
        assert_eq!(ended(&mut open, P), []);
        assert_eq!(ended(&mut open, Q), [(0, 3)]);

        open.begin(Q, "g", key(0), WriteId(6), value(3));
        open.superseded("g", "t", 0, Some(WriteId(7)));
        assert_eq!(open, OpenTransactions::default());
    }

    #[test]
    fn of_a_log_only_the_last_offset_of_a_transaction_counts() {
        let mut open = OpenTransactions::default();
        open.loaded(P, "g", key(0), Offset(1), value(1));
        open.loaded(P, "g", key(0), Offset(2), value(2));
        open.loaded(P, "h", key(0), Offset(3), value(3));
        assert!(open.has_any("h"));
        let mut groups: Vec<_> = open.groups().collect();
        groups.sort();
        assert_eq!(groups, ["g", "h"]);
        open.superseded("h", "t", 0, None);
        assert_eq!(ended(&mut open, P), [(0, 2)]);
    }
}
