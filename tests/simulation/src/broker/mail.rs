//! What processes say to each other.

use crate::disk::Key;
use leasehold_metadata::rpc::{Request, Response};
use leasehold_types::{Incarnation, LeaderEpoch, Offset};
use tokio::sync::oneshot;

/// A follower's fetch of one partition.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub key: Key,
    pub from: usize,
    pub incarnation: Incarnation,
    pub epoch: LeaderEpoch,
    pub offset: usize,
    pub last: LeaderEpoch,
}

/// What the leader says to it.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub fetch: Fetch,
    pub answer: FetchAnswer,
}

#[derive(Clone, Debug)]
pub enum FetchAnswer {
    Refused,
    /// The logs part ways: the greatest epoch not above the follower's, and where it ends here.
    Diverges(LeaderEpoch, usize),
    Data {
        high_watermark: Offset,
        entries: Vec<(LeaderEpoch, u64)>,
    },
}

/// A message to a process.
#[derive(Debug)]
pub enum Mail {
    /// A question to the controller that may run there.
    Call {
        from: usize,
        request: Box<Request>,
        reply: oneshot::Sender<Response>,
    },
    Fetch(Fetch),
    Fetched(Fetched),
    /// A record to append with acks=all.
    Produce {
        key: Key,
        value: u64,
    },
    /// End in order.
    Leave,
}

impl Mail {
    /// A second copy, of what may arrive twice. Nobody waits for its answer.
    pub fn copy(&self) -> Option<Self> {
        match self {
            Self::Fetch(fetch) => Some(Self::Fetch(fetch.clone())),
            Self::Fetched(fetched) => Some(Self::Fetched(fetched.clone())),
            Self::Call { from, request, .. } => match **request {
                Request::AlterPartition(_) | Request::Register(_) => Some(Self::Call {
                    from: *from,
                    request: request.clone(),
                    reply: oneshot::channel().0,
                }),
                _ => None,
            },
            _ => None,
        }
    }
}
