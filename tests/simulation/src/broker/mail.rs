//! What processes say to each other.

use super::reply::{Kept, Reply, nobody};
use crate::batches::Batch;
use crate::disk::Key;
use crate::groups::mail::{Answer, Ask};
use crate::txns::mail as txns;
use bytes::Bytes;
use leasehold_broker::replica::TransactionClient;
use leasehold_metadata::rpc::{Request, Response};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, FetchRequest, FetchResponse,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

/// What a producer is told: an error, or where its first record is.
pub type Produced = Result<usize, ErrorCode>;

/// What a consumer is told: an error, or records, and from where on they are those.
pub type Consumed = Result<(usize, Vec<Batch>), ErrorCode>;

/// What someone wants to know of a partition.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    Earliest,
    Latest,
    LargestTime,
    /// The first record of that time or later.
    Time(i64),
    EndOfEpoch(i32),
    /// What the broker tells of all its replicas.
    Status,
}

/// A message to a process.
#[derive(Debug)]
pub enum Mail {
    /// A question to the controller that may run there.
    Call {
        from: usize,
        request: Box<Request>,
        reply: Reply<Response>,
    },
    /// A follower's fetch.
    Fetch {
        from: usize,
        request: Box<FetchRequest>,
        reply: Reply<FetchResponse>,
    },
    /// A batch to append with acks=all, and the values in it.
    Produce {
        key: Key,
        records: Bytes,
        values: Vec<u64>,
        reply: Reply<Produced>,
    },
    /// A batch that must be refused, and why.
    Garbage {
        key: Key,
        records: Bytes,
        what: &'static str,
    },
    /// A consumer's fetch; from where the log begins, if it does not know better.
    Consume {
        key: Key,
        from: Option<usize>,
        reply: Reply<Consumed>,
    },
    /// A question whose answer is judged where it is given.
    Ask { key: Key, question: Question },
    /// The records below an offset are to go; -1 stands for all that is committed.
    Delete { key: Key, before: i64 },
    /// What a peer of another cluster sent.
    Foreign(Box<Mail>),
    /// A question of a group's member.
    Group { ask: Ask, reply: Reply<Answer> },
    /// A question of the producer with that transactional id.
    Txn {
        id: &'static str,
        ask: txns::Ask,
        reply: Reply<txns::Answer>,
    },
    /// A batch of its transaction, as [`Self::Produce`].
    ProduceIn {
        id: &'static str,
        client: TransactionClient,
        key: Key,
        records: Bytes,
        values: Vec<u64>,
        reply: Reply<Produced>,
    },
    /// The end of transactions, from their coordinator.
    Markers {
        from: usize,
        request: Box<WriteTxnMarkersRequest>,
        reply: Reply<WriteTxnMarkersResponse>,
    },
    /// A leader asks a coordinator whether its partition is in a transaction, or wants it to be.
    Verify {
        from: usize,
        request: Box<AddPartitionsToTxnRequest>,
        reply: Reply<AddPartitionsToTxnResponse>,
    },
    /// End in order.
    Leave,
}

impl Mail {
    /// Whether it carries ISR proposals.
    pub fn is_proposal(&self) -> bool {
        matches!(self, Self::Call { request, .. } if matches!(**request, Request::AlterPartition(_)))
    }

    /// Whether it carries a wish for the ISR of this partition.
    pub fn wishes_for(&self, key: Key) -> bool {
        let Self::Call { request, .. } = self else {
            return false;
        };
        let Request::AlterPartition(alter) = &**request else {
            return false;
        };
        alter
            .proposals
            .iter()
            .any(|one| (one.topic, one.partition) == key)
    }

    /// What the machine keeps of the way back of its answer.
    pub fn kept(&self) -> Option<Kept> {
        match self {
            Self::Call { reply, .. } => Some(reply.kept()),
            Self::Fetch { reply, .. } => Some(reply.kept()),
            Self::Produce { reply, .. } => Some(reply.kept()),
            Self::Consume { reply, .. } => Some(reply.kept()),
            Self::Group { reply, .. } => Some(reply.kept()),
            Self::Txn { reply, .. } => Some(reply.kept()),
            Self::ProduceIn { reply, .. } => Some(reply.kept()),
            Self::Markers { reply, .. } => Some(reply.kept()),
            Self::Verify { reply, .. } => Some(reply.kept()),
            Self::Foreign(mail) => mail.kept(),
            _ => None,
        }
    }

    /// A second copy, of what may arrive twice. Nobody waits for its answer.
    pub fn copy(&self) -> Option<Self> {
        match self {
            Self::Fetch { from, request, .. } => Some(Self::Fetch {
                from: *from,
                request: request.clone(),
                reply: nobody(),
            }),
            Self::Produce {
                key,
                records,
                values,
                ..
            } => Some(Self::Produce {
                key: *key,
                records: records.clone(),
                values: values.clone(),
                reply: nobody(),
            }),
            Self::Delete { key, before } => Some(Self::Delete {
                key: *key,
                before: *before,
            }),
            Self::Call { from, request, .. } => match **request {
                Request::AlterPartition(_) | Request::Register(_) => Some(Self::Call {
                    from: *from,
                    request: request.clone(),
                    reply: nobody(),
                }),
                _ => None,
            },
            // In version 1 a repeated end that comes late is taken for that of the next transaction, as in Kafka.
            Self::Txn {
                ask: txns::Ask::End(request, _),
                ..
            } if !request.bump => None,
            // So is a repeated commit of offsets.
            Self::Txn {
                ask: txns::Ask::Commit(offset),
                ..
            } if !offset.second => None,
            Self::Txn { id, ask, .. } => Some(Self::Txn {
                id,
                ask: ask.clone(),
                reply: nobody(),
            }),
            Self::ProduceIn {
                id,
                client,
                key,
                records,
                values,
                ..
            } => Some(Self::ProduceIn {
                id,
                client: *client,
                key: *key,
                records: records.clone(),
                values: values.clone(),
                reply: nobody(),
            }),
            Self::Markers { from, request, .. } => Some(Self::Markers {
                from: *from,
                request: request.clone(),
                reply: nobody(),
            }),
            Self::Verify { from, request, .. } => Some(Self::Verify {
                from: *from,
                request: request.clone(),
                reply: nobody(),
            }),
            Self::Group { ask, .. } => Some(Self::Group {
                ask: ask.clone(),
                reply: nobody(),
            }),
            _ => None,
        }
    }
}
