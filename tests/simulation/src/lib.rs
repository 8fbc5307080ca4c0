//! Deterministic simulation of a Leasehold cluster: one seed, one run, byte for byte the same.
//!
//! Real are: the candidate for the controller role with Lease, head writer, term and all decisions; what a
//! broker takes in of the metadata; the replica manager; and the log with its files. Simulated are time, the
//! network, what a power cut leaves on a disk, and the Kubernetes API. See docs/simulation.md.
//!
//! - [`world`] is a run, [`process`] one process in it, [`core`] what they share, [`broker`] what they do;
//! - [`api`] and [`disk`] are the world's objects, [`faults`] what goes wrong, [`clients`], [`groups`] and [`txns`] who asks;
//! - [`ambush`] are the faults that aim at one message, [`outage`] is the end of some runs;
//! - [`batches`] reads record batches on its own, and [`codecs`] what they are packed in;
//! - [`check`] rebuilds what happened and says which promise was broken; [`rules`] can be taken out;
//! - [`voices`] has the product speak in the trace;
//! - [`scale`] is no simulation: it counts what the loss of a broker costs in a large cluster.

pub mod ambush;
pub mod api;
pub mod batches;
pub mod broker;
pub mod check;
pub mod clients;
pub mod codecs;
pub mod core;
pub mod disk;
pub mod faults;
pub mod groups;
pub mod outage;
pub mod panics;
pub mod ploys;
pub mod process;
pub mod rules;
pub mod scale;
pub mod txns;
pub mod voices;
pub mod world;
