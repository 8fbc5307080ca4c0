//! What the coordinators of groups and of transactions share: state that is kept in the partitions of an
//! internal topic, each coordinated by whoever leads it.
//!
//! [`hash`] says which partition an id belongs to, [`find`] which broker that makes its coordinator
//! (and creates the topic for the first who asks); [`log`] is what a coordinator needs of its log,
//! [`replicas`] gives it that; [`shards`] runs a
//! task per led partition; [`load`] reads the log back at the beginning of a leadership, [`fields`] are
//! the primitives of its records; [`write`] packs what is to be stored into batches; [`timer`] is one queue of everything that will be due.

pub mod fields;
pub mod find;
pub mod hash;
pub mod load;
pub mod log;
pub mod replicas;
pub mod shards;
pub mod timer;
pub mod write;

/// Names a caller who waits for an answer. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The time of a call: what timers run on, and what is written into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds that never go back.
    pub mono: u64,
    /// Milliseconds since 1970.
    pub wall: i64,
}
