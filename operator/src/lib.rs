//! The Leasehold operator: turns `Cluster` and `Topic` objects into brokers and topics.
//!
//! - [`cluster`] and [`topic`] hold the decisions, which are pure, and the rounds that carry them out;
//! - [`view`] follows the clusters' metadata, [`news`] tells what changed in it, [`hints`] which rounds follow and [`pace`] how often, [`admin`] asks the
//!   clusters' controllers for changes, [`copies`] fetches the brokers' copies of it;
//! - [`leader`] makes one replica act, [`status_queue`] and [`events`] bound what is written, [`finalizer`] keeps what is
//!   deleted until it is settled;
//! - [`plugin`] is another program, `kubectl leasehold`;
//! - [`run`] wires it all together; [`http`] and [`metrics`] show how it fares.

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod copies;
pub mod events;
pub mod finalizer;
pub mod hints;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod news;
pub mod pace;
pub mod plugin;
pub mod release;
pub mod run;
pub mod status_queue;
pub mod topic;
pub mod view;
