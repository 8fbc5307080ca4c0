//! Fetch sessions (KIP-227): who fetches from many partitions names them once, then only what changed.
//!
//! [`session`] is one session: its partitions, and what its owner was told of each. [`cache`] decides
//! which sessions are kept. [`FetchSessions`] is both as the serving side uses them, for consumers and
//! for followers alike: it completes a request before it is served and cuts down its answer afterwards.
//! [`follower`] is the other end, of a follower.
//!
//! Promises: what is served is what the owner would have named itself; a request out of order, or of
//! somebody else, is told to begin anew; a partition with records, an error, a truncation, another
//! high watermark or another start than its owner knows is in the answer; what sessions remember is
//! bounded.

pub mod cache;
pub mod follower;
pub mod session;

#[cfg(test)]
mod tests;

use crate::replica::PartitionKey;
use cache::{Cache, Limits};
use leasehold_types::seams::{self, HashMap};
use leasehold_types::{Offset, TopicId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse};
use parking_lot::Mutex;
use session::{NoRoom, Owner, Session};
use std::sync::Arc;

/// The epoch that asks for a new session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch that asks for none, and ends the one that is named.
pub const FINAL_EPOCH: i32 = -1;
/// From this version of Fetch on topics go by id.
const BY_ID: i16 = 13;

/// The epoch after `epoch`, which is positive.
pub const fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

/// The sessions of one listener.
pub struct FetchSessions {
    cache: Mutex<Cache>,
}

/// A request that is being served.
pub enum Turn {
    /// All partitions were named, and no session is wanted.
    Whole,
    /// All partitions were named, for a new session.
    Opening {
        owner: Owner,
        by_id: bool,
        topics: Vec<FetchTopic>,
    },
    /// The next request of a session.
    Next {
        session: Arc<Mutex<Session>>,
        /// The epoch of the request after this one.
        epoch: i32,
    },
}

impl Turn {
    /// An answer without any news, to one who has to wait.
    pub fn postponed(self) -> FetchResponse {
        let id = match self {
            Self::Next { session, .. } => session.lock().id(),
            Self::Whole | Self::Opening { .. } => 0,
        };
        FetchResponse::default().with_session_id(id)
    }

    /// The high watermarks that the owner of the session, or of the one to be, knows.
    pub fn known_marks(&self) -> HashMap<PartitionKey, Offset> {
        match self {
            Self::Next { session, .. } => session.lock().known_marks(),
            Self::Opening { topics, .. } => {
                let all = topics.iter().flat_map(|topic| {
                    let id = TopicId(topic.topic_id);
                    let one = move |asked: &FetchPartition| ((id, asked.partition), Offset(-1));
                    topic.partitions.iter().map(one)
                });
                all.collect()
            }
            Self::Whole => HashMap::default(),
        }
    }
}

impl FetchSessions {
    /// No session yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            cache: Mutex::new(Cache::new(limits)),
        }
    }

    /// How many sessions are kept, and of how many partitions.
    pub fn size(&self) -> (usize, usize) {
        self.cache.lock().size()
    }

    /// Completes `request` with the partitions that its session remembers.
    pub fn begin(&self, request: &mut FetchRequest, version: i16) -> Result<Turn, ErrorCode> {
        let now = seams::now();
        let by_id = version >= BY_ID;
        let owner = Owner::of(request, version);
        let mut cache = self.cache.lock();
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            // What is named is given up.
            if cache
                .get(request.session_id)
                .is_some_and(|kept| kept.lock().owner() == owner)
            {
                cache.remove(request.session_id);
            }
            if request.session_epoch == FINAL_EPOCH {
                return Ok(Turn::Whole);
            }
            let topics = request.topics.clone();
            return Ok(Turn::Opening {
                owner,
                by_id,
                topics,
            });
        }
        let session = cache.get(request.session_id);
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let mut open = session.lock();
        if open.owner() != owner {
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if open.epoch() != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if open.by_id() != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        open.forget(&request.forgotten_topics_data);
        open.update(&request.topics);
        let empty = open.is_empty();
        let epoch = next_epoch(open.epoch());
        open.expect(epoch);
        if !empty {
            request.topics = open.topics();
        }
        drop(open);
        let id = request.session_id;
        if empty {
            // Nothing left to remember: Kafka ends it, too.
            cache.remove(id);
            request.topics.clear();
            return Ok(Turn::Whole);
        }
        cache.used(id, now).map_err(|NoRoom| {
            // It has grown beyond what all sessions together may remember.
            cache.remove(id);
            ErrorCode::FetchSessionIdNotFound
        })?;
        Ok(Turn::Next { session, epoch })
    }

    /// Cuts `response`, which answers all partitions, down to what the session's owner does not know;
    /// opens the session that was asked for, if there is room for it.
    pub fn finish(&self, turn: Turn, response: &mut FetchResponse) {
        match turn {
            Turn::Whole => {}
            Turn::Opening {
                owner,
                by_id,
                topics,
            } => {
                if response.error_code != 0 || topics.is_empty() {
                    return;
                }
                let mut session = Session::new(owner, by_id, next_epoch(INITIAL_EPOCH));
                session.update(&topics);
                session.tell_all(response);
                let opened = self.cache.lock().open(session, seams::now());
                response.session_id = opened.unwrap_or(0);
            }
            Turn::Next { session, epoch } => {
                let mut open = session.lock();
                if open.epoch() != epoch {
                    *response = refusal(ErrorCode::InvalidFetchSessionEpoch);
                    return;
                }
                open.tell(response);
                response.session_id = open.id();
            }
        }
    }
}

/// The answer to a request whose session is not as it believes.
pub fn refusal(error: ErrorCode) -> FetchResponse {
    FetchResponse::default().with_error_code(error.code())
}
