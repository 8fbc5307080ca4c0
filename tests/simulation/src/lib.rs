//! Deterministic simulation of a Leasehold cluster: one seed, one run, byte for byte the same.
//!
//! Real are: the candidate for the controller role with Lease, head writer, term and all decisions; what a
//! broker takes in of the metadata; and the replica, leader and proposal state machines. Simulated are time,
//! the network, the disks, the Kubernetes API, and the shell around the replicas. See docs/simulation.md.
//!
//! - [`world`] is a run, [`process`] one process in it, [`core`] what they share, [`broker`] what they do;
//! - [`api`] and [`disk`] are the world's objects, [`faults`] what goes wrong, [`clients`] who asks;
//! - [`check`] rebuilds what happened and says which promise was broken; [`rules`] can be taken out;
//! - [`scale`] is no simulation: it counts what the loss of a broker costs in a large cluster.

pub mod api;
pub mod broker;
pub mod check;
pub mod clients;
pub mod core;
pub mod disk;
pub mod faults;
pub mod panics;
pub mod process;
pub mod rules;
pub mod scale;
pub mod world;
