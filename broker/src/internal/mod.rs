//! The listener that only brokers talk to, and how they talk.
//!
//! Kafka's framing with the cluster id as the request header's client id, and these keys: Fetch from
//! followers, AddPartitionsToTxn and WriteTxnMarkers, [`CONTROLLER_KEY`] for calls to the controller (JSON of [`leasehold_metadata::rpc`]), and
//! [`PING_KEY`], by which a broker tells who it is. Promise: a connection that names another cluster is
//! closed with a log line.

mod call;
mod handler;
pub mod peer;

pub use call::{CallError, connect, controller_call};
pub(crate) use handler::no_controller;
pub use handler::{BrokerApis, FollowerFetch, InternalHandler, same_cluster};

use leasehold_types::{BrokerId, ClusterId, Incarnation};
use serde::{Deserialize, Serialize};

/// Key of a call to the controller.
pub const CONTROLLER_KEY: i16 = 20_000;
/// Key of "who are you?".
pub const PING_KEY: i16 = 20_001;
/// The one version of both.
pub const VERSION: i16 = 0;
/// Kafka's Fetch.
pub const FETCH_KEY: i16 = 1;

/// Kafka's AddPartitionsToTxn, by which a leader asks what is in a transaction.
pub const VERIFY_KEY: i16 = 24;
/// Kafka's WriteTxnMarkers, by which a transaction coordinator ends transactions.
pub const MARKERS_KEY: i16 = 27;

/// The answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    pub cluster_id: ClusterId,
    pub broker: BrokerId,
    pub incarnation: Incarnation,
}
