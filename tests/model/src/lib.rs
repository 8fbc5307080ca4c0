//! Everything that can happen to a small cluster, within bounds, with the product's own decisions.
//!
//! Where tests/simulation draws long random runs of a whole cluster, this searches all runs of a small one: one
//! partition on two or three brokers, a few records, crashes, false alarms, late messages. The decisions are the
//! product's: the controller's `step()`, elections, verdicts over restarts, ISR proposals and their judgement,
//! the high watermark, who may fetch. The network, the disks and the order of events are the model's. See
//! docs/model.md.
//!
//! - [`search`] goes breadth first, [`pool`] makes states small;
//! - [`partition`] is one small world, [`head`] the other: candidates that claim and write it; [`cases`] says with which bounds it is searched, and which rule, taken
//!   out, is noticed where.

pub mod cases;
pub mod head;
pub mod partition;
pub mod pool;
pub mod search;
