//! Produce, Fetch and what tells of offsets.

use super::{Ask, Bind, Episode};
use serde_json::{Value, json};

impl Episode {
    pub(super) fn good_produce(&mut self, topic: &str, partition: i32, batch: Value) -> Ask {
        let name = self.name(topic);
        produce(&name, partition, -1, None, batch)
    }

    pub(super) fn produce(&mut self) -> Vec<Ask> {
        let (topic, partition) = (self.topic(), self.one(&[0, 0, 0, 1, 7]));
        let count = self.one(&[1, 1, 2, 5]);
        let key = if self.chance(50) {
            json!("k")
        } else {
            Value::Null
        };
        let deviation = self.one(&[
            json!({}),
            json!({}),
            json!({}),
            json!({"timestampStep": 5}),
            json!({"corrupt": true}),
            json!({"magic": 0}),
            json!({"magic": 1}),
            json!({"magic": 3}),
            json!({"count": 0}),
            json!({"count": 2, "really": 1}),
            json!({"count": 1, "really": 2}),
            json!({"lastOffsetDelta": 9}),
            json!({"baseOffset": 5}),
            json!({"baseOffset": -1}),
            json!({"leaderEpoch": 7}),
            json!({"attributes": 0x20}),
            json!({"attributes": 0x10}),
            // With a time Kafka takes it, and all offsets after it differ: see intended.rs.
            json!({"attributes": 0x08, "timestamp": -1}),
            json!({"attributes": 0x07}),
            json!({"attributes": 0x40}),
            json!({"producerId": 123_456, "producerEpoch": 0, "sequence": 0}),
            json!({"producerId": 123_456, "producerEpoch": 0, "sequence": -1}),
            json!({"producerId": 123_456, "producerEpoch": -1, "sequence": 0}),
            json!({"producerId": -1, "producerEpoch": 0, "sequence": 0}),
            json!({"timestamp": -1}),
            json!({"timestamp": -2}),
            json!({"timestamp": 4_000_000_000_000_i64}),
            json!({"maxTimestamp": -1}),
            json!({"cut": 3}),
            json!({"cut": 60}),
            json!({"length": 10}),
            json!({"length": -1}),
            json!({"length": 1_000_000}),
        ]);
        let mut batch = json!({"count": count, "key": key});
        merge(&mut batch, deviation);
        let batch = match self.rng_percent() {
            0..4 => json!([batch.clone(), batch]),
            4..7 => Value::Null,
            7..10 => json!(""),
            10..12 => json!("0102030405"),
            _ => batch,
        };
        let acks = self.one(&[-1, -1, -1, 1, 1, 0, 2, -2]);
        let transactional = if self.chance(6) {
            json!(self.name("t"))
        } else {
            Value::Null
        };
        let mut ask = produce(&topic, partition, acks, Some(transactional), batch);
        if acks == 0 && self.chance(50) {
            ask = ask.plain();
        }
        vec![ask]
    }

    /// A producer with an id and no transactions: in order, again, out of order, of another epoch.
    pub(super) fn idempotent(&mut self) -> Vec<Ask> {
        let slot = self.name("i");
        let mut all = vec![
            Ask::new("InitProducerId", json!({"TransactionalId": null, "TransactionTimeoutMs": 60_000, "ProducerId": -1, "ProducerEpoch": -1}))
                .binds(Bind::Producer(slot.clone())),
        ];
        let mut sequence = 0;
        let partition = self.one(&[0, 1]);
        for _ in 0..self.one(&[3, 5, 8]) {
            let epoch = self.one(&["", "", "", "", "", "+1"]);
            let shift = self.one(&[0, 0, 0, 0, 0, -2, -4, 3]);
            let batch = json!({"count": 2, "producerId": format!("$pid:{slot}"), "producerEpoch": format!("$epoch:{slot}{epoch}"), "sequence": sequence + shift});
            all.push(self.good_produce("a", partition, batch).plain());
            if shift == 0 {
                sequence += 2;
            }
        }
        all.push(self.describe_producers());
        all
    }

    pub(super) fn describe_producers(&mut self) -> Ask {
        let (topic, partitions) = (
            self.topic(),
            self.one(&[json!([0]), json!([0, 1]), json!([9]), json!([])]),
        );
        Ask::new(
            "DescribeProducers",
            json!({"Topics": [{"Name": topic, "PartitionIndexes": partitions}]}),
        )
    }

    pub(super) fn fetch(&mut self) -> Vec<Ask> {
        if self.chance(25) {
            return self.session();
        }
        let ask = self.one_fetch(0, -1);
        vec![ask]
    }

    fn one_fetch(&mut self, session: i32, epoch: i32) -> Ask {
        let topic = self.topic();
        let offset = self.one(&[0_i64, 0, 0, 1, 2, 4, 5, 100, -1, -2]);
        let leader_epoch = self.one(&[-1, -1, -1, 0, 1, 9]);
        let fetched_epoch = self.one(&[-1, -1, -1, 0, 1, 9]);
        let size = self.one(&[1_048_576, 1_048_576, 1, 0, 150]);
        let partition = json!({"Partition": self.one(&[0, 0, 0, 1, 7]), "CurrentLeaderEpoch": leader_epoch, "FetchOffset": offset,
            "LastFetchedEpoch": fetched_epoch, "LogStartOffset": -1, "PartitionMaxBytes": size});
        let body = json!({"ReplicaId": -1, "MaxWaitMs": 20, "MinBytes": self.one(&[0, 1, 1, 100_000]),
            "MaxBytes": self.one(&[10_000_000, 10_000_000, 1, 0]), "IsolationLevel": self.one(&[0, 0, 1, 1, 2]),
            "SessionId": session, "SessionEpoch": epoch,
            "Topics": [{"Topic": topic, "TopicId": Self::topic_id(&topic), "Partitions": [partition]}]});
        Ask::new("Fetch", body)
    }

    /// A session that is begun, used, forgotten in part, and closed.
    fn session(&mut self) -> Vec<Ask> {
        let mut begin = self.one_fetch(0, 0).plain().from(7).binds(Bind::Session);
        let a = self.name("a");
        begin.body["Topics"][0]["Topic"] = json!(a);
        begin.body["Topics"][0]["TopicId"] = json!(Self::topic_id(&a));
        let mut all = vec![begin];
        for epoch in 1..self.one(&[2, 3, 4]) {
            let number = self.one(&[epoch, epoch, epoch, 7]);
            let mut next = self.one_fetch(0, number).from(7);
            next.body["SessionId"] = self.one(&[
                json!("$session:s"),
                json!("$session:s"),
                json!("$session:s"),
                json!(12_345),
            ]);
            if self.chance(50) {
                next.body["Topics"] = json!([]);
            }
            if self.chance(30) {
                next.body["ForgottenTopicsData"] =
                    json!([{"Topic": a, "TopicId": Self::topic_id(&a), "Partitions": [0]}]);
            }
            all.push(next);
        }
        let mut close = self.one_fetch(0, -1).from(7);
        close.body["SessionId"] = json!("$session:s");
        all.push(close);
        all
    }

    pub(super) fn offsets(&mut self) -> Vec<Ask> {
        let (topic, partition) = (self.topic(), self.one(&[0, 0, 0, 1, 7]));
        let epoch = self.one(&[-1, -1, -1, 0, 1, 9]);
        let ask = match self.rng_percent() {
            0..60 => {
                let time = self.one(&[
                    -1_i64,
                    -1,
                    -2,
                    -2,
                    -3,
                    -4,
                    -5,
                    -6,
                    -7,
                    0,
                    1_700_000_000_000,
                    1_700_000_000_010,
                    1_700_000_000_015,
                    1_900_000_000_000,
                ]);
                let partition = json!({"PartitionIndex": partition, "CurrentLeaderEpoch": epoch, "Timestamp": time});
                let body = json!({"ReplicaId": -1, "IsolationLevel": self.one(&[0, 0, 1]), "TimeoutMs": 1000,
                    "Topics": [{"Name": topic, "Partitions": [partition]}]});
                Ask::new("ListOffsets", body)
            }
            60..85 => {
                let partition = json!({"Partition": partition, "CurrentLeaderEpoch": epoch, "LeaderEpoch": self.one(&[0, 0, 1, 9, -1])});
                Ask::new(
                    "OffsetForLeaderEpoch",
                    json!({"ReplicaId": self.one(&[-1, -1, -2]), "Topics": [{"Topic": topic, "Partitions": [partition]}]}),
                )
            }
            _ => {
                let partition = json!({"PartitionIndex": partition, "Offset": self.one(&[0, 1, 1, 2, -1, -2, 1000])});
                Ask::new(
                    "DeleteRecords",
                    json!({"TimeoutMs": 1000, "Topics": [{"Name": topic, "Partitions": [partition]}]}),
                )
            }
        };
        vec![ask]
    }

    pub(super) fn rng_percent(&mut self) -> u32 {
        use rand::Rng as _;
        self.rng.random_range(0..100)
    }
}

fn produce(
    topic: &str,
    partition: i32,
    acks: i16,
    transactional: Option<Value>,
    records: Value,
) -> Ask {
    Ask::new(
        "Produce",
        json!({"TransactionalId": transactional.unwrap_or(Value::Null), "Acks": acks, "TimeoutMs": 1000,
            "TopicData": [{"Name": topic, "TopicId": Episode::topic_id(topic), "PartitionData": [{"Index": partition, "Records": records}]}]}),
    )
}

pub(super) fn transactional_produce(id: &str, topic: &str, partition: i32, batch: Value) -> Ask {
    produce(topic, partition, -1, Some(json!(id)), batch)
}

fn merge(batch: &mut Value, deviation: Value) {
    if let (Value::Object(batch), Value::Object(deviation)) = (batch, deviation) {
        batch.extend(deviation);
    }
}
