//! One fetch session: the partitions that its owner fetches, and what it was told of each. Pure.

use crate::replica::PartitionKey;
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, TopicId};
use leasehold_wire::StrBytes;
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use leasehold_wire::kafka::messages::fetch_response::PartitionData;
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse, TopicName};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Whom a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A consumer: whoever knows the session's id.
    Consumer,
    /// A follower in one incarnation.
    Follower { replica: i32, incarnation: i64 },
}

impl Owner {
    /// Who sends `request`.
    pub fn of(request: &FetchRequest, version: i16) -> Self {
        const IN_STATE: i16 = 15;
        let (replica, incarnation) = match version >= IN_STATE {
            true => (
                request.replica_state.replica_id.0,
                request.replica_state.replica_epoch,
            ),
            false => (request.replica_id.0, -1),
        };
        match replica >= 0 {
            true => Self::Follower {
                replica,
                incarnation,
            },
            false => Self::Consumer,
        }
    }
}

/// All sessions together would remember too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// A partition's name in a session: by topic id, or by the topic's name where that is nil.
type Key = (TopicName, Uuid, i32);

#[derive(Debug)]
struct Kept {
    /// As its owner last named it.
    asked: FetchPartition,
    /// Where it stands in the order of service.
    turn: u64,
    /// The high watermark and log start that the owner knows; `None`: tell it in any case.
    told: Option<(i64, i64)>,
    /// It was named again, and is to be answered even if nothing changed: what its owner was told may not
    /// have helped it.
    named: bool,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    id: i32,
    owner: Owner,
    by_id: bool,
    /// That of the next request.
    epoch: i32,
    partitions: HashMap<Key, Kept>,
    /// Who was served last comes last.
    order: BTreeMap<u64, Key>,
    turns: u64,
}

impl Session {
    /// An empty session whose next request has `epoch`.
    pub fn new(owner: Owner, by_id: bool, epoch: i32) -> Self {
        Self {
            id: 0,
            owner,
            by_id,
            epoch,
            partitions: HashMap::default(),
            order: BTreeMap::new(),
            turns: 0,
        }
    }

    pub fn id(&self) -> i32 {
        self.id
    }

    /// It was given its id.
    pub fn named(&mut self, id: i32) {
        self.id = id;
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Whether topics go by id.
    pub fn by_id(&self) -> bool {
        self.by_id
    }

    /// The epoch that the next request must have.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The next request must have `epoch`.
    pub fn expect(&mut self, epoch: i32) {
        self.epoch = epoch;
    }

    /// How many partitions it remembers.
    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// The owner names these partitions: new ones, or ones with another position.
    pub fn update(&mut self, topics: &[FetchTopic]) {
        for topic in topics {
            // A copy: the name is a piece of a frame, which it would keep in memory.
            let name = match self.by_id {
                true => TopicName::default(),
                false => TopicName(StrBytes::from_string(topic.topic.to_string())),
            };
            for asked in &topic.partitions {
                let key = (name.clone(), topic.topic_id, asked.partition);
                let mut asked = asked.clone();
                asked.unknown_tagged_fields.clear();
                if let Some(kept) = self.partitions.get_mut(&key) {
                    kept.asked = asked;
                    kept.named = true;
                    continue;
                }
                let turn = self.next_turn();
                self.order.insert(turn, key.clone());
                let kept = Kept {
                    asked,
                    turn,
                    told: None,
                    named: false,
                };
                self.partitions.insert(key, kept);
            }
        }
    }

    /// The owner fetches these no more.
    pub fn forget(&mut self, topics: &[ForgottenTopic]) {
        for topic in topics {
            let name = match self.by_id {
                true => TopicName::default(),
                false => topic.topic.clone(),
            };
            for partition in &topic.partitions {
                let key = (name.clone(), topic.topic_id, *partition);
                if let Some(kept) = self.partitions.remove(&key) {
                    self.order.remove(&kept.turn);
                }
            }
        }
    }

    /// All of it as a request names it, in the order of service.
    pub fn topics(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (name, id, partition) in self.order.values() {
            let key = (name.clone(), *id, *partition);
            let Some(kept) = self.partitions.get(&key) else {
                continue;
            };
            let asked = kept.asked.clone();
            match topics.last_mut() {
                Some(last) if last.topic_id == *id && last.topic == *name => {
                    last.partitions.push(asked);
                }
                _ => topics.push(
                    FetchTopic::default()
                        .with_topic(name.clone())
                        .with_topic_id(*id)
                        .with_partitions(vec![asked]),
                ),
            }
        }
        topics
    }

    /// The high watermarks that the owner knows, of partitions that go by id; -1 where it knows none.
    pub fn known_marks(&self) -> HashMap<PartitionKey, Offset> {
        let all = self.partitions.iter();
        all.map(|((_, id, partition), kept)| {
            let mark = kept.told.map_or(-1, |told| told.0);
            ((TopicId(*id), *partition), Offset(mark))
        })
        .collect()
    }

    /// The owner hears all of `response`.
    pub fn tell_all(&mut self, response: &FetchResponse) {
        for topic in &response.responses {
            for data in &topic.partitions {
                self.is_news(
                    (topic.topic.clone(), topic.topic_id, data.partition_index),
                    data,
                );
            }
        }
    }

    /// Leaves in `response` what the owner does not know yet.
    pub fn tell(&mut self, response: &mut FetchResponse) {
        for topic in &mut response.responses {
            let (name, id) = (topic.topic.clone(), topic.topic_id);
            topic
                .partitions
                .retain(|data| self.is_news((name.clone(), id, data.partition_index), data));
        }
        response
            .responses
            .retain(|topic| !topic.partitions.is_empty());
    }

    fn is_news(&mut self, key: Key, data: &PartitionData) -> bool {
        let Some(kept) = self.partitions.get_mut(&key) else {
            return true;
        };
        let records = data
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty());
        // Once what is wrong is over, the owner is to hear that, too.
        let passing = data.error_code != 0 || data.diverging_epoch.end_offset >= 0;
        let named = std::mem::take(&mut kept.named);
        let now = (data.high_watermark, data.log_start_offset);
        let news = records
            || passing
            || data.preferred_read_replica.0 >= 0
            || kept.told != Some(now)
            || named;
        kept.told = (!passing).then_some(now);
        if records {
            // So that those whose records find no room in one answer come first in the next.
            let was = kept.turn;
            let turn = self.turns;
            self.turns += 1;
            kept.turn = turn;
            if let Some(key) = self.order.remove(&was) {
                self.order.insert(turn, key);
            }
        }
        news
    }

    fn next_turn(&mut self) -> u64 {
        let turn = self.turns;
        self.turns += 1;
        turn
    }
}
