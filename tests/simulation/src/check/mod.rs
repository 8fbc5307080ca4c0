//! What must hold, rebuilt from what was observed: the bytes written to the API, the logs on the disks, the
//! answers to clients. Calls no decision code of the product; reads its JSON as anyone could.
//!
//! Every broken promise becomes a line in [`Checker::broken`], which begins with the number of the
//! invariant in the design (I1 to I16), or with C for what a client was told.

mod data;
mod groups;
mod head;
mod logs;
mod offsets;
mod records;
mod restore;
mod stamps;
mod txns;
pub use records::key_of;
pub(crate) use records::name_of;
mod wishes;
pub use data::TRANSACTIONAL;
pub use logs::{Deletions, TOMBSTONE};

use crate::disk::{Entry, Key};
pub use groups::{Groups, Ticket};
use leasehold_metadata::image::Position;
use leasehold_types::{Incarnation, LeaderEpoch, Seq};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
pub use txns::{OffsetAsked, TxnId, Txns, Who};

/// One committed head write.
#[derive(Clone, Debug)]
pub struct Committed {
    pub epoch: i64,
    pub nonce: String,
    /// Its text, as it stands in the tail or in a segment.
    pub text: String,
}

/// A claim: who, as of which entry, under which id.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub first_seq: u64,
    pub claim_id: String,
    pub by: (usize, Incarnation),
}

/// A broker as the records have it.
#[derive(Clone, Debug)]
pub struct Registered {
    pub incarnation: i64,
    pub fenced: bool,
    /// The entry that last registered or fenced it.
    pub changed_at: u64,
}

/// A partition as the records have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub replicas: Vec<i64>,
    pub isr: Vec<i64>,
    pub elr: Vec<i64>,
    pub leader: Option<i64>,
    pub leader_epoch: i64,
    pub partition_epoch: i64,
    pub adding: Vec<i64>,
    /// Its leader may lack what was committed.
    pub recovering: bool,
}

/// What is known of a partition's data.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// The longest prefix that a leader showed as committed; nothing is what was gone when it did.
    pub committed: Vec<Option<Entry>>,
    /// Where the last of what was gone was.
    pub unseen: Option<usize>,
    /// Where each key is last in it.
    pub last_of: BTreeMap<u8, usize>,
    /// Where each key was last before records were lost: who compacted by what is lost may lack what was before that.
    pub was_last_of: BTreeMap<u8, usize>,
    pub deletions: Deletions,
    /// In which leader epoch each of them was.
    pub committed_in: Vec<LeaderEpoch>,
    /// Leader epochs, offsets and values that were acknowledged with acks=all.
    pub acked: Vec<(LeaderEpoch, usize, u64)>,
    /// Who was the first to append in which leader epoch: its leader.
    pub appenders: BTreeMap<LeaderEpoch, (usize, Incarnation)>,
    /// Which value stands at an offset in an epoch, and who ever held it.
    pub held: BTreeMap<(usize, LeaderEpoch), (u64, BTreeSet<usize>)>,
    /// The last leader epoch that each broker began.
    pub leads: BTreeMap<usize, LeaderEpoch>,
    /// When each value was made, by the calendar, and the codec that its producer packed it in.
    pub made: BTreeMap<u64, (i64, i16)>,
    /// The time of what stands at an offset in an epoch.
    pub stamps: BTreeMap<(usize, LeaderEpoch), i64>,
    /// Numbers of producers that these gave up, with good reason.
    pub given_up: BTreeSet<(u32, u32)>,
    /// The last of each producer's numbers among what is committed, and where it is.
    pub last: BTreeMap<u32, (usize, u32)>,
    /// The highest of each producer's numbers that was ever committed.
    pub highest: BTreeMap<u32, u32>,
    /// Epochs below this are not believed: an election that may lose records followed.
    pub lossy_since: Option<LeaderEpoch>,
    /// That election's leader has not begun yet.
    pub loss_pending: bool,
}

impl Data {
    /// Whether an election that may lose records was ever marked as such.
    pub fn is_lossy(&self) -> bool {
        self.loss_pending || self.lossy_since.is_some()
    }
}

/// The observer of one run.
#[derive(Default)]
pub struct Checker {
    pub broken: Vec<String>,
    pub log: BTreeMap<u64, Committed>,
    pub nonces: BTreeSet<String>,
    pub claims: BTreeMap<i64, Claimed>,
    pub brokers: BTreeMap<i64, Registered>,
    pub topics: BTreeMap<String, Topic>,
    pub parts: BTreeMap<(String, i64), Part>,
    pub data: BTreeMap<Key, Data>,
    /// The highest position that each broker's disk held.
    pub positions: Vec<Option<(i64, u64)>>,
    /// How far each incarnation applied.
    pub reached: BTreeMap<i64, u64>,
    /// When each broker sent its last Lease write that was applied.
    pub renewals: Vec<u64>,
    /// Who joined which ISR by the last head write.
    pub joins: Vec<(Key, usize)>,
    /// The API server was put back to an older state.
    pub restored: bool,
    /// Brokers whose durable position was undone by that.
    pub undone: BTreeSet<usize>,
    /// Chunks that went with that.
    pub taken: BTreeSet<String>,
    /// The line that was undone, by seq.
    pub old_line: BTreeMap<u64, restore::Undone>,
    /// Epochs whose controller said that it is frozen, and the last entry then.
    pub frozen: BTreeMap<i64, u64>,
    /// Who registers by the head write that is looked at.
    pub registering: BTreeSet<i64>,
    pub denied: BTreeMap<String, String>,
    pub granted: BTreeSet<String>,
    pub acknowledged: u64,
    pub consumed: u64,
    pub elections: u64,
    pub groups: Groups,
    pub txns: Txns,
    /// `min.insync.replicas` where a topic has none of its own.
    pub default_min: usize,
}

/// The configuration that says so.
pub fn min_isr(min: usize) -> BTreeMap<String, String> {
    BTreeMap::from([("min.insync.replicas".to_owned(), min.to_string())])
}

/// A topic as the records have it.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    pub name: String,
    pub configs: BTreeMap<String, String>,
}

impl Checker {
    pub fn new(nodes: usize) -> Self {
        Self {
            positions: vec![None; nodes],
            renewals: vec![0; nodes],
            default_min: 1,
            ..Self::default()
        }
    }

    /// A promise is broken. Once the metadata was put back to an older state, only the promises that
    /// speak of that count.
    pub fn broke(&mut self, line: impl Into<String>) {
        let line = line.into();
        let always = ["I1 ", "I2 ", "I3 ", "I11 ", "I13 ", "I16 "];
        if !self.restored || always.iter().any(|number| line.starts_with(number)) {
            self.broken.push(line);
        }
    }

    /// The seq of the last head write.
    pub fn last_seq(&self) -> u64 {
        self.log.keys().next_back().copied().unwrap_or(0)
    }

    /// A broker made this position durable.
    pub fn applied(&mut self, node: usize, life: Incarnation, position: &Position) {
        let (epoch, seq) = (position.epoch.0, position.seq.0);
        if let Some((known_epoch, known)) = self.positions[node]
            && (seq < known || epoch < known_epoch)
        {
            self.broke(format!(
                "I11 the position of broker {node} fell from {known_epoch}/{known} to {epoch}/{seq}"
            ));
        }
        if self.is_undone(position) {
            // It was told of this before all was put back.
            self.undone.insert(node);
            self.positions[node] = Some((epoch, seq));
            return;
        }
        if self.undone.contains(&node) {
            self.broke(format!(
                "I13 broker {node} applied {epoch}/{seq}, which does not extend what it holds"
            ));
        }
        self.positions[node] = Some((epoch, seq));
        self.reached.insert(life.0, seq);
        let entry = self.log.get(&seq).map(|entry| entry.epoch);
        let claim = self.claims.get(&epoch).map(|claim| claim.claim_id.clone());
        if entry != Some(epoch) || claim != Some(position.claim_id.to_string()) {
            self.broke(format!("I13 broker {node} applied {epoch}/{seq}, but entry {seq} was written in epoch {entry:?}"));
        }
    }

    /// A Lease write that `node` sent at `sent` was applied.
    pub fn lease_written(&mut self, node: usize, sent: u64) {
        self.renewals[node] = self.renewals[node].max(sent);
    }

    /// The controller on `node` answers a poll: only within three seconds of its last renewal.
    pub fn controller_answered(&mut self, node: usize, now: u64) {
        let sent = self.renewals[node];
        if now > sent + 3_000 + 100 {
            self.broke(format!(
                "C4 broker {node} answers as controller, its last renewal was sent at {sent}"
            ));
        }
    }

    /// A disk was wiped.
    pub fn wiped(&mut self, node: usize) {
        self.positions[node] = None;
        self.undone.remove(&node);
    }

    /// A process was told that its registration is committed.
    pub fn registered(&mut self, node: usize, life: Incarnation, at: Seq) {
        if self.restored {
            return;
        }
        let known = self.brokers.get(&(node as i64)).map(|b| b.incarnation);
        if self.last_seq() < at.0 {
            self.broke(format!(
                "C2 broker {node} is told of its registration at {at}, which is not committed"
            ));
        } else if known != Some(life.0) && at.0 == self.last_seq() {
            self.broke(format!(
                "C2 broker {node} is told of the registration of {life}, the records say {known:?}"
            ));
        }
    }
}

/// A list of broker ids.
fn ids(value: &Value) -> Vec<i64> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_i64).collect()
}
