//! The Leasehold broker: one process that serves the Kafka protocol, replicates its partitions,
//! and, when it holds the controller Lease, decides for the whole cluster.
//!
//! Rooms, from the socket inwards:
//! - [`server`] accepts connections and keeps replies in order; [`api`] has one file per Kafka API;
//! - [`replica`] leads and follows partitions; [`group`] coordinates consumer groups;
//! - [`fetch_session`] remembers what consumers and followers fetch;
//! - [`quota`] measures what clients take, against their limits;
//! - [`session`] keeps this broker registered and its image of the metadata current;
//! - [`controller`] runs the pure controller of `leasehold-metadata` while this broker holds the Lease;
//! - [`internal`] is the listener that only brokers talk to;
//! - [`loggers`] are levels of what is logged, changed while it runs;
//! - [`http`] answers probes, metrics and status; [`config`] reads Kafka's configuration keys;
//! - [`run`] wires all of it into one broker, [`dev`] starts several of them on a laptop;
//! - [`inspect`] prints a log directory while no broker runs on it.

pub mod api;
pub mod cli;
pub mod config;
pub mod controller;
pub mod coordinator;
pub mod dev;
pub mod fetch_session;
pub mod group;
pub mod http;
pub mod inspect;
pub mod internal;
pub mod loggers;
pub mod quota;
pub mod replica;
pub mod run;
pub mod server;
pub mod session;
pub mod txn;
