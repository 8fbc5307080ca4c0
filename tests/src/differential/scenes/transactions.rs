//! Transactions, whole ones and ones in the wrong order.

use super::data::transactional_produce;
use super::{Ask, Bind, Episode};
use serde_json::{Value, json};

impl Episode {
    pub(super) fn transaction(&mut self) -> Vec<Ask> {
        let id = self.one(&["t", "t", "u"]);
        let id = self.name(id);
        let (pid, epoch) = (format!("$pid:{id}"), format!("$epoch:{id}"));
        let mut all = vec![self.init(&id)];
        let topic = self.one(&["a", "a", "b", "missing"]);
        let topic = self.name(topic);
        let partition = self.one(&[0, 0, 1]);
        if self.chance(85) {
            all.push(Ask::new("AddPartitionsToTxn", json!({
                "Transactions": [{"TransactionalId": id, "ProducerId": pid, "ProducerEpoch": epoch, "VerifyOnly": self.chance(30),
                    "Topics": [{"Name": topic, "Partitions": [partition]}]}],
                "V3AndBelowTransactionalId": id, "V3AndBelowProducerId": pid, "V3AndBelowProducerEpoch": epoch,
                "V3AndBelowTopics": [{"Name": topic, "Partitions": self.one(&[json!([partition]), json!([partition]), json!([0, 9])])}]})));
        }
        let batch = json!({"count": 2, "attributes": 0x10, "producerId": pid, "producerEpoch": epoch, "sequence": self.one(&[0, 0, 0, 0, 2])});
        all.push(transactional_produce(&id, &topic, partition, batch));
        if self.chance(40) {
            let group = self.name("g");
            if self.chance(80) {
                all.push(Ask::new("AddOffsetsToTxn", json!({"TransactionalId": id, "ProducerId": pid, "ProducerEpoch": epoch, "GroupId": group})));
            }
            all.push(Ask::new("TxnOffsetCommit", json!({"TransactionalId": id, "GroupId": group, "ProducerId": pid, "ProducerEpoch": epoch,
                "GenerationId": -1, "MemberId": "", "GroupInstanceId": null,
                "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": partition, "CommittedOffset": 2, "CommittedLeaderEpoch": -1, "CommittedMetadata": "m"}]}]})));
            all.push(Ask::new("OffsetFetch", json!({"GroupId": group, "RequireStable": false, "Topics": [{"Name": topic, "PartitionIndexes": [partition]}],
                "Groups": [{"GroupId": group, "Topics": [{"Name": topic, "PartitionIndexes": [partition]}]}]})));
        }
        if self.chance(40) {
            all.push(self.look(&id));
        }
        for _ in 0..self.one(&[1, 1, 1, 2]) {
            all.push(Ask::new("EndTxn", json!({"TransactionalId": id, "ProducerId": pid, "ProducerEpoch": epoch, "Committed": self.chance(60)})));
        }
        all.push(self.look(&id));
        if self.chance(10) {
            all.push(Ask::new("WriteTxnMarkers", json!({"Markers": [{"ProducerId": pid, "ProducerEpoch": epoch, "TransactionResult": true,
                "Topics": [{"Name": topic, "PartitionIndexes": [partition]}], "CoordinatorEpoch": 0}]})).plain());
        }
        // What is left open would hold the last stable offset of the episode.
        all.push(self.init(&id).plain());
        all
    }

    fn init(&mut self, id: &str) -> Ask {
        let (pid, epoch) = match self.chance(80) {
            true => (json!(-1), json!(-1)),
            false => (json!(format!("$pid:{id}")), json!(format!("$epoch:{id}"))),
        };
        let timeout = self.one(&[60_000, 60_000, 60_000, 60_000, 0, -1, i32::MAX]);
        Ask::new("InitProducerId", json!({"TransactionalId": id, "TransactionTimeoutMs": timeout, "ProducerId": pid, "ProducerEpoch": epoch}))
            .binds(Bind::Producer(id.to_owned()))
    }

    fn look(&mut self, id: &str) -> Ask {
        let missing = self.name("no-id");
        match self.rng_percent() {
            0..40 => Ask::new(
                "DescribeTransactions",
                json!({"TransactionalIds": [self.one(&[id.to_owned(), id.to_owned(), missing])]}),
            ),
            40..70 => Ask::new(
                "ListTransactions",
                json!({"StateFilters": self.one(&[json!([]), json!(["Ongoing"]), json!(["Empty", "CompleteCommit"]), json!(["none"])]),
                "ProducerIdFilters": self.one(&[json!([]), json!([format!("$pid:{id}")]), json!([5])]), "DurationFilter": self.one(&[-1, 0, 1_000_000]),
                "TransactionalIdPattern": self.one(&[Value::Null, json!(""), json!(".*t"), json!("(")])}),
            ),
            _ => self.describe_producers(),
        }
    }
}
