//! What transactional producers ask and are told: the product's own plain forms of Kafka's requests.

use crate::check::TxnId;
use leasehold_broker::coordinator::find::FoundCoordinator;
use leasehold_broker::coordinator::write::Producer;
use leasehold_broker::txn::types::{AddRequest, EndRequest, InitRequest};
use leasehold_wire::ErrorCode;

/// A question to a coordinator.
#[derive(Clone, Debug)]
pub enum Ask {
    Find,
    Init(InitRequest),
    Add(AddRequest),
    /// The end of that transaction, if it is known to have begun.
    End(EndRequest, TxnId),
}

/// Its answer.
#[derive(Clone, Debug)]
pub enum Answer {
    Find(FoundCoordinator),
    /// As which producer it goes on.
    Goes(Result<Producer, ErrorCode>),
    Added(ErrorCode),
}

impl Answer {
    /// Its error.
    pub fn error(&self) -> ErrorCode {
        match self {
            Self::Find(found) => found.error,
            Self::Goes(Ok(_)) => ErrorCode::None,
            Self::Goes(Err(error)) | Self::Added(error) => *error,
        }
    }
}
