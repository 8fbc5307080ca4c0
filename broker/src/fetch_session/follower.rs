//! A follower's end of its fetch session with one leader. Pure.
//!
//! It names a partition when it is new, when its position or leader epoch is another than the leader
//! heard last, and when the leader's last answer for it did no good. It takes back what it does not
//! fetch now. Whatever goes wrong, it begins anew with all partitions.

use super::{INITIAL_EPOCH, next_epoch};
use crate::replica::wire_fetch::{to_request, to_results};
use crate::replica::{FetchEntry, FetchParams, FetchResult, PartitionKey};
use leasehold_types::seams::HashMap;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::fetch_request::ForgottenTopic;
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse};

/// What the leader has been told, and the session's state.
#[derive(Debug, Default)]
pub struct FollowerSession {
    /// 0: there is none.
    id: i32,
    /// That of the next request.
    epoch: i32,
    /// What was named last; `None`: it must be named again.
    told: HashMap<PartitionKey, Option<FetchEntry>>,
    /// A request of which no answer has been taken: the leader may have it or not.
    unanswered: bool,
}

impl FollowerSession {
    /// The request for `entries`, of which each partition is there once.
    pub fn request(&mut self, params: &FetchParams, entries: &[FetchEntry]) -> FetchRequest {
        if std::mem::replace(&mut self.unanswered, true) {
            self.reset();
        }
        let key = |entry: &FetchEntry| (entry.topic, entry.partition);
        if self.id == 0 {
            let known = entries
                .iter()
                .map(|entry| (key(entry), Some(entry.clone())));
            self.told = known.collect();
            return to_request(params, entries).with_session_epoch(INITIAL_EPOCH);
        }
        let mut named = Vec::new();
        let mut present = 0;
        for entry in entries {
            let told = self.told.get_mut(&key(entry));
            present += usize::from(told.is_some());
            match told {
                Some(Some(told)) if told == entry => {}
                Some(told) => {
                    *told = Some(entry.clone());
                    named.push(entry.clone());
                }
                None => {
                    self.told.insert(key(entry), Some(entry.clone()));
                    named.push(entry.clone());
                    present += 1;
                }
            }
        }
        let mut request = to_request(params, &named)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch);
        if self.told.len() > present {
            request.forgotten_topics_data = self.forget(entries);
        }
        request
    }

    /// What the leader answered to the last request: of partitions that are not in it there is no news.
    pub fn take(&mut self, response: FetchResponse) -> Result<Vec<FetchResult>, ErrorCode> {
        self.unanswered = false;
        let error = ErrorCode::from_code(response.error_code);
        match error {
            ErrorCode::None => {}
            ErrorCode::FetchSessionIdNotFound
            | ErrorCode::InvalidFetchSessionEpoch
            | ErrorCode::FetchSessionTopicIdError => {
                self.reset();
                return Ok(Vec::new());
            }
            error => {
                self.reset();
                return Err(error);
            }
        }
        self.epoch = match response.session_id == self.id {
            true => next_epoch(self.epoch),
            false => next_epoch(INITIAL_EPOCH),
        };
        self.id = response.session_id;
        to_results(response)
    }

    /// The answer for these did no good: the leader shall tell it again.
    pub fn repeat(&mut self, keys: impl IntoIterator<Item = PartitionKey>) {
        for key in keys {
            if let Some(told) = self.told.get_mut(&key) {
                *told = None;
            }
        }
    }

    fn reset(&mut self) {
        self.id = 0;
        self.told.clear();
    }

    /// Takes back all but `entries`.
    fn forget(&mut self, entries: &[FetchEntry]) -> Vec<ForgottenTopic> {
        let stays: leasehold_types::seams::HashSet<PartitionKey> = entries
            .iter()
            .map(|entry| (entry.topic, entry.partition))
            .collect();
        let mut gone: Vec<PartitionKey> = Vec::new();
        self.told.retain(|key, _| {
            let stays = stays.contains(key);
            if !stays {
                gone.push(*key);
            }
            stays
        });
        gone.sort_unstable();
        let mut topics: Vec<ForgottenTopic> = Vec::new();
        for (topic, partition) in gone {
            match topics.last_mut() {
                Some(last) if last.topic_id == topic.0 => last.partitions.push(partition),
                _ => topics.push(
                    ForgottenTopic::default()
                        .with_topic_id(topic.0)
                        .with_partitions(vec![partition]),
                ),
            }
        }
        topics
    }
}
