//! What the loss of one broker costs in a large cluster: the controller's `step()` and the planning of the head
//! write, on a made-up image of 100 brokers.
//!
//! Promise: whatever the size, it is one head write, preceded by at most two objects; unless a snapshot is due with
//! it, which is as large as the cluster.

use leasehold_metadata::controller::{Controller, Effect, Input, Millis, ReplyTo, Settings};
use leasehold_metadata::features::{self, Level, METADATA_VERSION};
use leasehold_metadata::head::format::{EntryHeader, TailEntry, entry_text, initial};
use leasehold_metadata::head::load::snapshot_text;
use leasehold_metadata::head::plan::plan_commit;
use leasehold_metadata::head::{Head, Limits};
use leasehold_metadata::image::{Claim, ClaimId, Endpoint, Image, Partition, Position};
use leasehold_metadata::records::{Entry, Record, RegisterBroker};
use leasehold_metadata::rpc::{BrokerState, Poll};
use leasehold_metadata::store::{ChunkBody, HeadObject};
use leasehold_types::{
    BrokerId, ClusterId, ControllerEpoch, Incarnation, LeaderEpoch, PartitionEpoch, Seq, TopicId,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BROKERS: i32 = 100;
const PARTITIONS_PER_TOPIC: usize = 20;

/// What it costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub partitions: usize,
    /// Partitions that the lost broker held.
    pub touched: usize,
    /// Until nothing more follows from the loss: all in the next minute.
    pub head_writes: usize,
    /// Of `step()`.
    pub decided_in: Duration,
    pub write: Write,
    /// The same write if a snapshot is due with it.
    pub with_snapshot: Write,
    /// Records decided in a minute in which nothing happens but polls by all.
    pub quiet_minute: usize,
}

/// One head write and what goes before it.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Chunks created before.
    pub objects: usize,
    /// All that is sent to the API server for it.
    pub bytes: usize,
    /// Of planning, compression and the applying of the entry.
    pub planned_in: Duration,
}

impl Write {
    fn of(head: &Head, image: &Image, records: Vec<Record>, limits: Limits) -> (Self, Image) {
        let begun = Instant::now();
        let planned = plan_commit(head, records, limits, &|| snapshot_text(image));
        let mut next = image.clone();
        next.apply(&planned.entry)
            .expect("a decision fits its image");
        let planned_in = begun.elapsed();
        let patch = &planned.patch;
        let set = patch.set.iter().map(|(key, value)| key.len() + value.len());
        let removed = patch.remove.iter().map(String::len);
        let chunks = planned.chunks.iter().map(|chunk| match &chunk.body {
            ChunkBody::Lines(text) => text.len(),
            // In base64.
            ChunkBody::Zstd(bytes) => bytes.len().div_ceil(3) * 4,
        });
        let write = Self {
            objects: planned.chunks.len(),
            bytes: set.chain(removed).chain(chunks).sum(),
            planned_in,
        };
        (write, next)
    }
}

fn broker(id: i32) -> BrokerId {
    BrokerId(id)
}

fn life(id: i32) -> Incarnation {
    Incarnation(1_000_000_000_000 + i64::from(id))
}

/// 100 brokers and so many partitions of three replicas, each led by its first.
fn image(partitions: usize) -> Image {
    let claim = Claim {
        epoch: ControllerEpoch(1),
        claim_id: ClaimId(1),
        first_seq: Seq(1),
        broker: broker(0),
        incarnation: life(0),
    };
    let endpoint = |id: i32| Endpoint {
        host: format!("large-broker-{id}.large.default.svc.cluster.local"),
        port: 9092,
    };
    let mut records = vec![
        Record::Claim(claim),
        Record::FeatureLevel {
            name: METADATA_VERSION.to_owned(),
            level: Level::NEWEST,
        },
    ];
    records.extend((0..BROKERS).map(|id| {
        Record::RegisterBroker(RegisterBroker {
            broker: broker(id),
            incarnation: life(id),
            client: endpoint(id),
            internal: endpoint(id),
            http: None,
            rack: Some(format!("zone-{}", id % 3)),
            version: "0.1.0".to_owned(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
            registered_at: None,
            changed_at: None,
            directories: Vec::new(),
            listeners: Default::default(),
            features: features::supported(),
        })
    }));
    for n in 0..partitions {
        let (number, topic) = (n / PARTITIONS_PER_TOPIC, n % PARTITIONS_PER_TOPIC);
        let (id, index) = (number as u128 + 1, topic as i32);
        // Spread like a hash would.
        let id = TopicId(uuid::Uuid::from_u128(
            id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ));
        if index == 0 {
            records.push(Record::Topic {
                id,
                name: format!("topic-{number}"),
                internal: false,
                configs: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
            });
        }
        records.push(Record::Partition {
            topic: id,
            partition: index,
            state: partition(n),
        });
    }
    let mut image = Image::genesis(ClusterId("large".to_owned()));
    let entry = Entry {
        seq: Seq(1),
        epoch: ControllerEpoch(1),
        nonce: "0".repeat(32),
        records,
    };
    image.apply(&entry).expect("a made-up image is coherent");
    image
}

fn partition(n: usize) -> Partition {
    let all = BROKERS as usize;
    let (first, turn) = (n % all, n / all);
    let second = 1 + turn % (all - 1);
    let third = 1 + (turn * 7 + 3) % (all - 1);
    let third = if third == second {
        1 + third % (all - 1)
    } else {
        third
    };
    let replicas: Vec<BrokerId> = [0, second, third]
        .map(|step| broker(((first + step) % all) as i32))
        .to_vec();
    Partition {
        isr: replicas.clone(),
        leader: replicas.first().copied(),
        replicas,
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(12),
        ..Partition::default()
    }
}

/// A head at the image's position, with one small entry in its tail.
fn head(position: &Position, cluster: &ClusterId) -> Head {
    let object = HeadObject {
        uid: "head".to_owned(),
        data: initial(cluster),
    };
    let mut head = Head::parse(&object).expect("a first head can be read");
    head.epoch = position.epoch;
    head.seq = position.seq;
    head.metadata_version = Some(Level::NEWEST);
    let entry = Entry {
        seq: position.seq,
        epoch: position.epoch,
        nonce: head.nonce.clone(),
        records: vec![Record::NoOp],
    };
    let header = EntryHeader {
        seq: entry.seq,
        epoch: entry.epoch,
        nonce: entry.nonce.clone(),
        records: 1,
    };
    let text = entry_text(&entry);
    head.tail.insert(entry.seq, TailEntry { header, text });
    head
}

/// Loses one of 100 brokers that hold so many partitions.
pub fn lose_one(partitions: usize) -> Cost {
    let image = image(partitions);
    let head = head(&image.position, &image.cluster_id);
    let mut controller = Controller::new(image.clone(), Settings::default(), Millis(0));
    let quiet_minute: usize = minute(&mut controller, Millis(0), &image).iter().sum();
    let now = Millis(60_001);
    let lost = Input::SessionEvidence {
        broker: broker(7),
        incarnation: life(7),
        evidence: "connection reset".to_owned(),
    };
    let begun = Instant::now();
    let output = controller.step(lost, now);
    let decided_in = begun.elapsed();
    let touched = output.records.iter();
    let touched = touched.filter(|r| matches!(r, Record::PartitionChange(_)));
    let touched = touched.count();
    let records = output.records;
    let (write, next) = Write::of(&head, &image, records.clone(), Limits::default());
    let crowded = Limits {
        segments: 0,
        ..Limits::default()
    };
    let (with_snapshot, _) = Write::of(&head, &image, records, crowded);
    let sealed = controller.seal();
    controller.committed(sealed);
    let after = minute(&mut controller, now, &next);
    Cost {
        partitions,
        touched,
        head_writes: 1 + after.iter().filter(|records| **records > 0).count(),
        decided_in,
        write,
        with_snapshot,
        quiet_minute,
    }
}

/// A minute with polls by all who are alive; the records of each step. The controller stays in office.
fn minute(controller: &mut Controller, begun: Millis, image: &Image) -> Vec<usize> {
    let mut decided = Vec::new();
    for turn in 1..=240 {
        let now = begun.plus(turn * 250);
        let alive = (0..BROKERS).filter(|id| image.is_live(broker(*id)));
        for input in alive.map(|id| heartbeat(id, image)).chain([Input::Tick]) {
            let output = controller.step(input, now);
            let resigned = |e: &Effect| matches!(e, Effect::Resign { .. });
            assert!(!output.effects.iter().any(resigned), "it resigned");
            decided.push(output.records.len());
        }
    }
    decided
}

fn heartbeat(id: i32, image: &Image) -> Input {
    Input::Poll {
        to: ReplyTo(0),
        poll: Poll {
            broker: broker(id),
            incarnation: life(id),
            position: Some(image.position),
            state: BrokerState::default(),
        },
    }
}

/// The table for 1,000 to 200,000 partitions.
pub fn table() {
    println!(
        "| partitions | touched | records in a quiet minute | head writes | decided in | objects, bytes, planned in | the same with a snapshot |"
    );
    println!("|---|---|---|---|---|---|---|");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let told = |write: Write| {
        let (objects, bytes) = (write.objects, write.bytes);
        format!("{objects}, {bytes}, {:.0} ms", ms(write.planned_in))
    };
    for partitions in [1_000, 10_000, 100_000, 200_000] {
        let cost = lose_one(partitions);
        println!(
            "| {} | {} | {} | {} | {:.0} ms | {} | {} |",
            cost.partitions,
            cost.touched,
            cost.quiet_minute,
            cost.head_writes,
            ms(cost.decided_in),
            told(cost.write),
            told(cost.with_snapshot)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losing_one_broker_is_one_head_write_and_at_most_two_objects() {
        for partitions in [1_000, 10_000] {
            let cost = lose_one(partitions);
            assert!(cost.touched >= partitions / 50, "{cost:?}");
            assert!(cost.head_writes == 1 && cost.write.objects <= 2, "{cost:?}");
            assert_eq!(cost.quiet_minute, 0, "{cost:?}");
        }
    }
}
