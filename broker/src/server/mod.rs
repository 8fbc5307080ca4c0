//! Listeners and connections: bytes in, frames to a [`Handler`], replies out in request order.
//!
//! Knows Kafka's framing and nothing of what a request means; the client listener and the listener
//! between brokers are both one [`Server`] with a different handler.
//!
//! Promises:
//! - replies leave in the order of the requests, several in one writev; a pipelined request's wait
//!   (an acks=all produce) does not hold up the next request of its connection;
//! - memory for requests is bounded for all connections together ([`memory`]), and an idle
//!   connection holds no buffer;
//! - a peer that is idle, slow, malformed or too many is disconnected with one log line, and a
//!   panic ends its connection only;
//! - [`Server::shutdown`] stops accepting, lets requests in flight finish, then closes.

mod connection;
mod handler;
mod limits;
mod listener;
pub mod memory;
mod outbox;
mod quiet;
mod reader;

#[cfg(test)]
mod tests;

pub use connection::ConnectionContext;
pub use handler::{Handler, Refusal, Reply, ReplyFuture};
pub use limits::Limits;
pub use listener::{Server, Stats};
