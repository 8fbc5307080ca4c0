//! Leasehold's metadata: what the cluster is, and who decides about it.
//!
//! - [`records`] are the facts, one per line of the metadata log; [`image`] is what they add up to.
//! - [`controller`] decides, purely: inputs and time go in, records and effects come out. [`assign`]
//!   places replicas, [`configs`] knows the keys of topics, [`broker_config`] those of brokers,
//!   [`dynamic`] which of them are changed while brokers run, [`group_configs`] and [`client_metrics`] those of
//!   single groups and of subscriptions to what clients measure.
//! - [`features`] says which records a cluster may have, so that brokers of two releases can be in it.
//! - [`rpc`] is what brokers and the controller say to each other.
//! - [`store`], [`head`] and [`lease`] keep the log on Kubernetes objects (or files), fence split
//!   brain and elect the controller.
//!
//! Nothing here opens a socket to a client or a partition's log.

pub mod assign;
pub mod balance;
pub mod broker_config;
pub mod client_metrics;
pub mod configs;
pub mod controller;
pub mod dynamic;
pub mod features;
pub mod group_configs;
pub mod head;
pub mod image;
pub mod lease;
pub mod quotas;
pub mod records;
pub mod rpc;
pub mod store;

pub use controller::{Controller, Effect, Event, Input, Millis, Output, ReplyTo, Settings};
pub use image::{Broker, Claim, ClaimId, Image, Partition, Position, Topic};
pub use records::{Entry, Record};
