//! Folds the records of one `__consumer_offsets` partition into the groups that they describe.
//!
//! Holds only what is live: the last value of each key. A record that cannot be understood is
//! counted and passed over; it never keeps the others from being served.

use super::consumer::{
    ConsumerKey, CurrentValue, EpochValue, MemberMetadata, Partitions, RegexValue,
    TargetEpochValue, decode_target,
};
use super::records::{GroupValue, Key, OffsetValue};
use crate::coordinator::fields::FieldError;
use crate::group::open::OpenTransactions;
use leasehold_log::batch::BatchHeader;
use leasehold_types::seams::{HashMap, taken_out};
use leasehold_types::{Offset, ProducerId};
use std::collections::BTreeMap;

/// Offsets of an aborted transaction are dropped; the simulation takes that out.
pub const ABORTED_SHOW_NOT: &str = "aborted-offsets-do-not-show";

/// One group as its records tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedGroup {
    /// `None` where only offsets were committed.
    pub metadata: Option<GroupValue>,
    /// What is known of a group of the newer protocol.
    pub consumer: LoadedConsumer,
    /// By topic and partition.
    pub offsets: HashMap<String, BTreeMap<i32, OffsetValue>>,
}

/// A group of the newer protocol as its records tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedConsumer {
    pub epoch: Option<EpochValue>,
    pub target_epoch: Option<TargetEpochValue>,
    pub members: BTreeMap<String, LoadedMember>,
    pub regexes: BTreeMap<String, RegexValue>,
}

/// A member as its records tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedMember {
    pub metadata: Option<MemberMetadata>,
    pub target: Option<Partitions>,
    pub current: Option<CurrentValue>,
}

/// The state so far.
#[derive(Debug, Default)]
pub struct Loaded {
    groups: HashMap<String, LoadedGroup>,
    open: OpenTransactions,
    records: u64,
    skipped: u64,
}

impl Loaded {
    /// The next record of the log.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.records += 1;
        if self.try_apply(key, value).is_none() {
            self.skipped += 1;
        }
    }

    /// The next record of the log, in a batch of this header: one of a transaction waits for its end, which
    /// a control record tells (of a 16-bit version, and a 16-bit type: 0 aborts, 1 commits).
    pub fn apply_of(
        &mut self,
        header: &BatchHeader,
        at: Offset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let producer = header.producer_id;
        if header.is_control() {
            self.records += 1;
            match key {
                Some([_, _, 0, 0, ..]) if !taken_out(ABORTED_SHOW_NOT) => {
                    drop(self.open.end(producer, at));
                }
                Some([_, _, 0, 0 | 1, ..]) => {
                    for (group, (topic, partition), value) in self.open.end(producer, at) {
                        self.set_offset(group, topic, partition, value);
                    }
                }
                _ => self.skipped += 1,
            }
        } else if header.is_transactional() && !taken_out("a-log-that-is-read-keeps-offsets-open") {
            self.records += 1;
            if self.try_pend(producer, at, key, value).is_none() {
                self.skipped += 1;
            }
        } else {
            self.apply(key, value);
        }
    }

    fn try_pend(
        &mut self,
        producer: ProducerId,
        at: Offset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<()> {
        let key = Key::decode(key?).ok()??;
        let value = OffsetValue::decode(value?).ok()??;
        let Key::Offset {
            group,
            topic,
            partition,
        } = key
        else {
            return None;
        };
        self.open
            .loaded(producer, &group, (topic, partition), at, value);
        Some(())
    }

    fn set_offset(&mut self, group: String, topic: String, partition: i32, value: OffsetValue) {
        let loaded = self.groups.entry(group).or_default();
        let partitions = loaded.offsets.entry(topic).or_default();
        partitions.insert(partition, value);
    }

    /// A batch that could not be read.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    /// How many records were seen, and how many of them (and of unreadable batches) passed over.
    pub fn counts(&self) -> (u64, u64) {
        (self.records, self.skipped)
    }

    /// The groups so far.
    pub fn groups(&self) -> &HashMap<String, LoadedGroup> {
        &self.groups
    }

    /// The groups, and the offsets in transactions that have not ended.
    pub fn into_parts(self) -> (HashMap<String, LoadedGroup>, OpenTransactions) {
        (self.groups, self.open)
    }

    /// The groups.
    #[cfg(test)]
    pub fn into_groups(self) -> HashMap<String, LoadedGroup> {
        self.groups
    }

    fn try_apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<()> {
        match (Key::decode(key?).ok()??, value) {
            (Key::Group { group }, Some(value)) => {
                let value = GroupValue::decode(value).ok()??;
                let loaded = self.groups.entry(group).or_default();
                loaded.metadata = Some(value);
                // A group is of one kind: the later record tells which, whatever was left of the other.
                loaded.consumer = LoadedConsumer::default();
            }
            (Key::Group { group }, None) => self.forget(&group, |loaded| loaded.metadata = None),
            (Key::Consumer { group, what }, Some(value)) => {
                let loaded = self.groups.entry(group.clone()).or_default();
                let understood = loaded.consumer.set(what, value).ok().flatten();
                if understood.is_some() {
                    loaded.metadata = None;
                }
                self.forget(&group, |_| ());
                understood?;
            }
            (Key::Consumer { group, what }, None) => {
                self.forget(&group, |loaded| loaded.consumer.remove(&what));
            }
            (
                Key::Offset {
                    group,
                    topic,
                    partition,
                },
                Some(value),
            ) => {
                let value = OffsetValue::decode(value).ok()??;
                self.open.superseded(&group, &topic, partition, None);
                self.set_offset(group, topic, partition, value);
            }
            (
                Key::Offset {
                    group,
                    topic,
                    partition,
                },
                None,
            ) => {
                self.open.superseded(&group, &topic, partition, None);
                self.forget(&group, |loaded| {
                    if let Some(partitions) = loaded.offsets.get_mut(&topic) {
                        partitions.remove(&partition);
                        if partitions.is_empty() {
                            loaded.offsets.remove(&topic);
                        }
                    }
                });
            }
        }
        Some(())
    }

    fn forget(&mut self, group: &str, change: impl FnOnce(&mut LoadedGroup)) {
        if let Some(loaded) = self.groups.get_mut(group) {
            change(loaded);
            let nothing = LoadedConsumer::default();
            let blank = loaded.metadata.is_none() && loaded.consumer == nothing;
            if blank && loaded.offsets.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

impl LoadedConsumer {
    /// `None` if the value's version is not known here.
    fn set(&mut self, what: ConsumerKey, value: &[u8]) -> Result<Option<()>, FieldError> {
        let read = match what {
            ConsumerKey::Epoch => EpochValue::decode(value)?.map(|v| self.epoch = Some(v)),
            ConsumerKey::TargetEpoch => {
                TargetEpochValue::decode(value)?.map(|v| self.target_epoch = Some(v))
            }
            ConsumerKey::Member(id) => {
                MemberMetadata::decode(value)?.map(|v| self.member(id).metadata = Some(v))
            }
            ConsumerKey::Target(id) => {
                decode_target(value)?.map(|v| self.member(id).target = Some(v))
            }
            ConsumerKey::Current(id) => {
                CurrentValue::decode(value)?.map(|v| self.member(id).current = Some(v))
            }
            ConsumerKey::Regex(regex) => {
                RegexValue::decode(value)?.map(|v| drop(self.regexes.insert(regex, v)))
            }
        };
        Ok(read)
    }

    fn member(&mut self, id: String) -> &mut LoadedMember {
        self.members.entry(id).or_default()
    }

    fn remove(&mut self, what: &ConsumerKey) {
        match what {
            ConsumerKey::Epoch => self.epoch = None,
            ConsumerKey::TargetEpoch => self.target_epoch = None,
            ConsumerKey::Regex(regex) => drop(self.regexes.remove(regex)),
            ConsumerKey::Member(id) => self.without(id, |member| member.metadata = None),
            ConsumerKey::Target(id) => self.without(id, |member| member.target = None),
            ConsumerKey::Current(id) => self.without(id, |member| member.current = None),
        }
    }

    fn without(&mut self, id: &str, change: impl FnOnce(&mut LoadedMember)) {
        if let Some(member) = self.members.get_mut(id) {
            change(member);
            if *member == LoadedMember::default() {
                self.members.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::batch::{RecordBatchBuilder, batches};
    use leasehold_log::{LogConfig, LogDir, PartitionLog};
    use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, TopicId};

    fn offset_key(topic: &str, partition: i32) -> Vec<u8> {
        let key = Key::Offset {
            group: "g".to_owned(),
            topic: topic.to_owned(),
            partition,
        };
        key.encode().unwrap()
    }

    fn offset(offset: i64) -> Vec<u8> {
        let value = OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp: 1,
            expire_timestamp: None,
        };
        value.encode().unwrap()
    }

    #[test]
    fn the_last_value_of_a_key_counts_and_a_tombstone_removes_it() {
        let mut loaded = Loaded::default();
        loaded.apply(Some(&offset_key("t", 0)), Some(&offset(1)));
        loaded.apply(Some(&offset_key("t", 0)), Some(&offset(2)));
        loaded.apply(Some(&offset_key("t", 1)), Some(&offset(3)));
        loaded.apply(Some(&offset_key("t", 1)), None);
        let groups = loaded.into_groups();
        assert_eq!(groups["g"].offsets["t"].len(), 1);
        assert_eq!(groups["g"].offsets["t"][&0].offset, 2);
    }

    #[test]
    fn a_group_whose_last_record_is_removed_is_gone() {
        let mut loaded = Loaded::default();
        loaded.apply(Some(&offset_key("t", 0)), Some(&offset(1)));
        loaded.apply(Some(&offset_key("t", 0)), None);
        assert!(loaded.into_groups().is_empty());
    }

    #[test]
    fn records_of_unknown_kinds_and_versions_and_broken_ones_are_passed_over() {
        let mut loaded = Loaded::default();
        loaded.apply(Some(&[0, 11, 0, 1, b'g']), Some(&[0, 0]));
        loaded.apply(Some(&offset_key("t", 0)), Some(&[0, 9, 1, 2, 3]));
        loaded.apply(Some(&offset_key("t", 0)), Some(&[0, 3, 1]));
        loaded.apply(Some(&[0]), None);
        loaded.apply(None, Some(&offset(1)));
        loaded.apply(Some(&offset_key("t", 7)), Some(&offset(1)));
        assert_eq!(loaded.counts(), (6, 5));
        assert_eq!(loaded.into_groups()["g"].offsets["t"][&7].offset, 1);
    }

    fn load(log: &PartitionLog) -> Loaded {
        let mut loaded = Loaded::default();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let mut next = start;
        while next < end {
            for batch in batches(log.read(next, 500, end, true).unwrap()) {
                let batch = batch.unwrap();
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    loaded.apply(record.key.as_deref(), record.value.as_deref());
                }
                next = batch.header.next_offset();
            }
        }
        loaded
    }

    #[test]
    fn a_compacted_log_tells_of_the_same_groups_in_fewer_records() {
        let folder = tempfile::tempdir().unwrap();
        let dir = LogDir::open(folder.path(), &ClusterId("c".into()), BrokerId(0)).unwrap();
        dir.begin(Incarnation(1)).unwrap();
        dir.confirm(Incarnation(1)).unwrap();
        let config = LogConfig {
            segment_bytes: 1000,
            compact: true,
            delete: false,
            delete_retention_ms: 0,
            ..LogConfig::default()
        };
        let log = dir.open_partition(TopicId::random(), 0, config).unwrap();
        log.begin_epoch(LeaderEpoch(0)).unwrap();
        let mut all = Loaded::default();
        for round in 1..3 {
            for n in 0..100 {
                let key = offset_key("t", n % 7);
                // Of every third key the last record is a tombstone.
                let value = (n % 3 > 0 || n < 90).then(|| offset(i64::from(n)));
                all.apply(Some(&key), value.as_deref());
                let mut batch = RecordBatchBuilder::new();
                batch.push(round, Some(&key), value.as_deref());
                log.append_leader(&batch.build(), LeaderEpoch(0), round)
                    .unwrap();
            }
            let end = log.log_end_offset();
            assert!(log.clean(round, end, 1000).unwrap().is_some());
        }
        let loaded = load(&log);
        assert!(loaded.counts().0 < 40, "{:?}", loaded.counts());
        assert_eq!(loaded.counts().1, 0);
        assert_eq!(loaded.into_groups(), all.into_groups());
    }
}
