//! What the transaction APIs ask and answer, as plain values: no version, no wire type reaches further in.

use crate::coordinator::write::Producer;
use leasehold_types::ProducerId;
use leasehold_wire::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

/// Partitions by the name of their topic.
pub type Partitions = BTreeMap<String, BTreeSet<i32>>;

/// InitProducerId with a transactional id.
#[derive(Clone, Debug)]
pub struct InitRequest {
    pub transactional_id: String,
    pub timeout_ms: i32,
    /// The producer that goes on under a new epoch (v3+); `None`: a new one.
    pub expected: Option<Producer>,
}

/// What became of an InitProducerId.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitAnswer {
    Done(Producer),
    Refused(ErrorCode),
    /// Ask again, with a producer id that nobody has.
    NeedsProducerId,
}

/// AddPartitionsToTxn of one transaction; AddOffsetsToTxn is the same for a partition of the offsets topic.
#[derive(Clone, Debug)]
pub struct AddRequest {
    pub transactional_id: String,
    pub producer: Producer,
    pub partitions: Partitions,
}

/// EndTxn.
#[derive(Clone, Debug)]
pub struct EndRequest {
    pub transactional_id: String,
    pub producer: Producer,
    pub commit: bool,
    /// v5+: the producer goes on in the next epoch (KIP-890).
    pub bump: bool,
}

/// What became of an EndTxn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndAnswer {
    /// As which producer it goes on.
    Done(Producer),
    Refused(ErrorCode),
    /// Ask again, with a producer id that nobody has.
    NeedsProducerId,
}

/// One transactional id's part of the answer to DescribeTransactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub transactional_id: String,
    pub error: ErrorCode,
    pub state: &'static str,
    pub timeout_ms: i32,
    pub started: i64,
    pub producer: Producer,
    pub partitions: Partitions,
}

impl Described {
    /// An id that could not be described.
    pub fn refused(transactional_id: &str, error: ErrorCode) -> Self {
        Self {
            transactional_id: transactional_id.to_owned(),
            error,
            state: "",
            timeout_ms: 0,
            started: 0,
            producer: Producer {
                id: ProducerId(0),
                epoch: 0,
            },
            partitions: Partitions::new(),
        }
    }
}

/// ListTransactions; empty filters let everything through.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    pub states: Vec<super::state::State>,
    /// Only unknown states were asked for: nothing can pass.
    pub nothing: bool,
    pub producers: Vec<ProducerId>,
    /// v1+: running for longer than this many milliseconds; negative: all.
    pub longer_than_ms: i64,
    /// v2+: the whole id has to match.
    pub pattern: Option<regex::Regex>,
}

/// A transaction in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub transactional_id: String,
    pub producer: ProducerId,
    pub state: &'static str,
}

/// The end of a transaction, to be told to the leaders of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub transactional_id: std::sync::Arc<str>,
    pub producer: Producer,
    pub commit: bool,
    /// The producer's epoch is the one after that of the transaction's records: it was ended in version 2.
    pub bumped: bool,
    pub partitions: Partitions,
}
