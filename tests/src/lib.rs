//! What the end-to-end scenes share: clusters to break, clients that others wrote to load them
//! with, and the check of what those clients saw.
//!
//! - [`bench`] measures Leasehold and Apache Kafka side by side;
//! - [`chaos`] strikes such a cluster with one fault after the other;
//! - [`churn`] has the members of a group come and go;
//! - [`cluster`] talks to a real Kubernetes and hurts the pods in it;
//! - [`controller`] asks a laptop cluster's controller what the operator asks;
//! - [`differential`] asks Leasehold and Apache Kafka the same and compares their answers;
//! - [`kafka`] starts a node of Apache Kafka;
//! - [`dev`] starts `leasehold-broker dev` on free ports and kills its brokers;
//! - [`load`] runs a librdkafka producer and keeps the history of its acknowledgements;
//! - [`network_policy`] enforces NetworkPolicies where the network does not;
//! - [`pods`] keeps which pods went when;
//! - [`readback`] reads everything back and holds it against that history; [`reader`] reads meanwhile;
//! - [`http`] asks a broker's HTTP port; [`wait`] waits for a condition and says what it saw last;
//! - [`topics`] creates topics and watches their leaders and ISR;
//! - [`wire`] speaks Produce and Fetch by hand and counts the error codes of the answers;
//! - [`witness`] tells when the machine itself stood still;
//! - [`tools`] runs Kafka's own command line tools, kcat and Python clients.

pub mod bench;
pub mod chaos;
pub mod churn;
pub mod cluster;
pub mod conditions;
pub mod controller;
pub mod dev;
pub mod differential;
pub mod http;
pub mod kafka;
pub mod load;
pub mod log_dirs;
pub mod network_policy;
pub mod pods;
pub mod prometheus;
pub mod readback;
pub mod reader;
pub mod tools;
pub mod topics;
pub mod wait;
pub mod wire;
pub mod witness;
