//! The API server's objects were put back to an older state: what is no longer true, and what must be from
//! then on. A broker whose durable position was undone applies nothing of the new line, and the controller
//! decides nothing any more once it has said that it is frozen (I13).

use super::Checker;
use serde_json::Value;

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
                let point = (entry.epoch, claim.claim_id.clone());
                self.old_line.insert(seq, point);
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

    /// A controller that said that it is frozen wrote `seq`; one write may have been under way.
    pub(super) fn check_frozen(&mut self, epoch: i64, seq: u64) {
        if self.frozen.get(&epoch).is_some_and(|&last| seq > last + 1) {
            self.broke(format!(
                "I13 the controller of epoch {epoch} said that it is frozen, and wrote entry {seq}"
            ));
        }
    }
}
