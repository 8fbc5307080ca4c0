//! What transactional producers ask and are told: the product's own plain forms of Kafka's requests.

use crate::check::TxnId;
use leasehold_broker::coordinator::find::FoundCoordinator;
use leasehold_broker::coordinator::write::Producer;
use leasehold_broker::txn::types::{AddRequest, EndRequest, InitRequest};
use leasehold_wire::ErrorCode;

/// A group's offset that is to be committed in a transaction.
#[derive(Clone, Debug)]
pub struct Offset {
    pub group: String,
    pub producer: Producer,
    /// The offset, by which it is known of which transaction it is.
    pub txn: TxnId,
    /// Of version 2.
    pub second: bool,
}

/// A question to a coordinator.
#[derive(Clone, Debug)]
pub enum Ask {
    Find,
    Init(InitRequest),
    Add(AddRequest),
    /// The end of that transaction, if it is known to have begun.
    End(EndRequest, TxnId),
    /// Who coordinates a group.
    FindGroup(String),
    /// Offsets of a group will be committed.
    AddOffsets(Offset),
    Commit(Offset),
    /// What is committed of a group.
    Read(String),
}

/// Its answer.
#[derive(Clone, Debug)]
pub enum Answer {
    Find(FoundCoordinator),
    /// As which producer it goes on.
    Goes(Result<Producer, ErrorCode>),
    Added(ErrorCode),
    FindGroup(FoundCoordinator),
    Committed(ErrorCode),
    /// The offset, if there is one.
    Read(Result<Option<i64>, ErrorCode>),
}

impl Answer {
    /// Its error.
    pub fn error(&self) -> ErrorCode {
        match self {
            Self::Find(found) | Self::FindGroup(found) => found.error,
            Self::Goes(Ok(_)) | Self::Read(Ok(_)) => ErrorCode::None,
            Self::Goes(Err(error)) | Self::Read(Err(error)) => *error,
            Self::Added(error) | Self::Committed(error) => *error,
        }
    }
}
