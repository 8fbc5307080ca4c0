//! How long a decision takes in a large cluster.

use super::bench::*;
use crate::controller::*;
use crate::image::{Image, Partition};
use crate::records::{Record, RegisterBroker};
use leasehold_types::*;
use std::time::{Duration, Instant};

/// 100 brokers, 2,000 topics of 100 partitions, three replicas each.
fn large() -> Image {
    let mut image = genesis();
    let mut records = vec![];
    for id in 0..100 {
        records.push(Record::RegisterBroker(RegisterBroker {
            broker: b(id),
            incarnation: Incarnation(i64::from(id)),
            client: endpoint(1),
            internal: endpoint(2),
            http: None,
            rack: None,
            version: String::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
            registered_at: None,
            changed_at: None,
            directories: Vec::new(),
            listeners: Default::default(),
            features: crate::features::supported(),
        }));
    }
    for t in 0..2_000 {
        let id = TopicId(uuid::Uuid::from_u128(t + 1));
        records.push(Record::Topic {
            id,
            name: format!("topic-{t}"),
            internal: false,
            configs: Default::default(),
        });
        for partition in 0..100 {
            let at = (t as i32 * 7 + partition) % 100;
            let replicas = ids(&[at, (at + 1 + partition % 7) % 100, (at + 50) % 100]);
            let state = Partition {
                isr: replicas.clone(),
                leader: replicas.first().copied(),
                replicas,
                ..Partition::default()
            };
            records.push(Record::Partition {
                topic: id,
                partition,
                state,
            });
        }
    }
    for record in &records {
        image.apply_record(record, Seq(1)).unwrap();
    }
    image
}

/// Unoptimized, on a busy machine: the bound is generous, an accidental pass per partition is not.
#[test]
fn losing_one_broker_among_a_hundred_with_200_000_partitions_is_decided_quickly() {
    let image = large();
    let mut controller = Controller::new(image, settings(), Millis(0));
    controller.step(Input::Tick, Millis(1));
    let started = Instant::now();
    let input = Input::SessionEvidence {
        broker: b(42),
        incarnation: Incarnation(42),
        evidence: String::new(),
    };
    let output = controller.step(input, Millis(2));
    let took = started.elapsed();
    eprintln!("{} records in {took:?}", output.records.len());
    assert!((5_000..7_000).contains(&output.records.len()));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
