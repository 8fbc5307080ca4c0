//! An idempotent producer that sends ahead while its partition changes its leader, as librdkafka does it: after
//! NOT_LEADER_OR_FOLLOWER it sends again what has no answer, in order; after OUT_OF_ORDER_SEQUENCE_NUMBER it does
//! so under a new epoch, by which no broker knows what was stored under the old one.
//!
//! Promise: each record stands in the log once, in the order in which it was sent.

use super::harness::*;
use super::refusals::PATIENCE;
use super::*;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_types::{BrokerId, ProducerId};
use leasehold_wire::ErrorCode;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);

/// The client's side.
struct Producer {
    epoch: i16,
    /// What has no answer yet, and under which sequence it was sent.
    unanswered: Vec<(i32, &'static str)>,
}

impl Producer {
    async fn send(&self, cluster: &Cluster, broker: i32, sequence: i32, value: &str) -> ErrorCode {
        let mut batch = RecordBatchBuilder::new().producer(ProducerId(7), self.epoch, sequence);
        batch.push(1, None, Some(value.as_bytes()));
        let entry = ProduceEntry {
            records: batch.build(),
            ..entry("")
        };
        let pending = cluster.broker(broker).append(Acks::All, LONG, vec![entry]);
        pending.await.remove(0).error
    }

    /// Sends all that has no answer until it has.
    async fn send_again(&mut self, cluster: &Cluster, broker: i32, mut last: ErrorCode) {
        while last != ErrorCode::None {
            match last {
                ErrorCode::NotLeaderOrFollower => {}
                ErrorCode::OutOfOrderSequenceNumber => {
                    self.epoch += 1;
                    for (sequence, (sent, _)) in (0..).zip(&mut self.unanswered) {
                        *sent = sequence;
                    }
                }
                other => panic!("{other:?}"),
            }
            while let Some((sequence, value)) = self.unanswered.first().copied() {
                last = self.send(cluster, broker, sequence, value).await;
                if last != ErrorCode::None {
                    break;
                }
                self.unanswered.remove(0);
            }
        }
    }
}

/// The records as they stand in the end; `None` if it took longer than a refused batch is waited for, as on a
/// machine that stood still.
async fn sent_ahead_of_an_election() -> Option<Vec<(i32, String)>> {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    let mut producer = Producer {
        epoch: 0,
        unanswered: vec![(0, "stored, answer lost"), (1, "second"), (2, "third")],
    };
    let [first, second, third] = producer.unanswered[..] else {
        unreachable!("three");
    };
    let lost = producer.send(&cluster, 0, first.0, first.1).await;
    assert_eq!(lost, ErrorCode::None);

    // To the broker that is about to lead; all three are on their way before the first answer is.
    let begun = Instant::now();
    for (sequence, value) in [first, second] {
        let early = producer.send(&cluster, 1, sequence, value).await;
        assert_eq!(early, ErrorCode::NotLeaderOrFollower);
    }
    cluster.controller.elect(BrokerId(1));
    cluster.leader(1).await;
    let late = producer.send(&cluster, 1, third.0, third.1).await;
    let in_time = begun.elapsed() < PATIENCE;
    producer.send_again(&cluster, 1, late).await;
    in_time.then(|| cluster.values(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_sends_ahead_of_an_election_has_each_record_stored_once_and_in_order() {
    for _ in 0..100 {
        if let Some(values) = sent_ahead_of_an_election().await {
            let values: Vec<_> = values.iter().map(|(_, value)| value.as_str()).collect();
            assert_eq!(values, ["stored, answer lost", "second", "third"]);
            return;
        }
    }
    panic!("an election never took less than {PATIENCE:?}");
}
