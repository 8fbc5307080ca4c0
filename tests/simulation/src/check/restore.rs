//! The API server's objects were put back to an older state: what is no longer true, and what must be from
//! then on. A broker whose durable position was undone applies nothing of the new line, and the controller
//! decides nothing any more once it has said that it is frozen (I13).

use super::Checker;
use leasehold_metadata::image::Position;
use serde_json::Value;

/// An entry that is no longer true.
pub struct Undone {
    epoch: i64,
    claim_id: String,
    nonce: String,
}

impl Checker {
    /// The head is that of `seq` again.
    pub fn restored(&mut self, seq: u64) {
        let broken = std::mem::take(&mut self.broken);
        self.restored = true;
        for (node, position) in self.positions.iter().enumerate() {
            if position.is_some_and(|(_, at)| at > seq) {
                self.undone.insert(node);
            }
        }
        let undone = self.log.split_off(&(seq + 1));
        for (seq, entry) in undone {
            self.nonces.remove(&entry.nonce);
            if let Some(claim) = self.claims.get(&entry.epoch) {
                let undone = Undone {
                    epoch: entry.epoch,
                    claim_id: claim.claim_id.clone(),
                    nonce: entry.nonce,
                };
                self.old_line.insert(seq, undone);
            }
        }
        self.claims.retain(|_, claim| claim.first_seq <= seq);
        self.brokers.clear();
        self.topics.clear();
        self.parts.clear();
        let texts: Vec<String> = self.log.values().map(|entry| entry.text.clone()).collect();
        for text in texts {
            let records = text.lines().skip(1);
            for record in records.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                self.fold(&record);
            }
        }
        self.joins.clear();
        self.granted.clear();
        self.denied.clear();
        // What the fold found odd was judged when it was written.
        self.broken = broken;
    }

    /// An old copy of its volume took the place of a broker's disk; `position` is what it holds of the metadata.
    pub fn put_back(&mut self, node: usize, position: Option<&Position>) {
        self.wiped(node);
        let Some(position) = position else {
            return;
        };
        let (epoch, seq) = (position.epoch.0, position.seq.0);
        self.positions[node] = Some((epoch, seq));
        if self.is_undone(position) {
            self.undone.insert(node);
        }
    }

    /// Whether this is a point of the line that was undone.
    pub(super) fn is_undone(&self, position: &Position) -> bool {
        self.old_line.get(&position.seq.0).is_some_and(|undone| {
            undone.epoch == position.epoch.0 && undone.claim_id == position.claim_id.to_string()
        })
    }

    /// Entry `seq` was written. A controller that never heard of the first time writes the very same again, or a
    /// write that was sent before all was put back arrives once more: what was undone is true again. Tells whether
    /// it is.
    pub(super) fn written_again(&mut self, seq: u64, nonce: &str) -> bool {
        let same = self
            .old_line
            .get(&seq)
            .is_some_and(|undone| undone.nonce == nonce);
        if same && let Some(undone) = self.old_line.remove(&seq) {
            let positions = &self.positions;
            self.undone
                .retain(|node| positions[*node] != Some((undone.epoch, seq)));
        }
        same
    }

    /// The API server was put back, and no broker has heard yet that anybody took notice.
    pub fn is_unnoticed(&self) -> bool {
        self.restored && self.frozen.is_empty()
    }

    /// A broker heard that the controller of `epoch` is frozen; only an undone position justifies that.
    pub fn frozen(&mut self, node: usize, epoch: i64) {
        if self.undone.is_empty() {
            self.broke(format!(
                "I13 broker {node} hears that the controller is frozen, without a cause"
            ));
        }
        let last = self.last_seq();
        self.frozen.entry(epoch).or_insert(last);
    }

    /// A controller that said that it is frozen wrote `seq`: the one write that was under way cannot be taken
    /// back, and nothing may follow it.
    pub(super) fn check_frozen(&mut self, epoch: i64, seq: u64) {
        if self.frozen.get(&epoch).is_some_and(|&last| seq > last + 1) {
            self.broke(format!(
                "I13 the controller of epoch {epoch} said that it is frozen, and wrote entry {seq}"
            ));
        }
    }
}
