//! One member in a process of its own, which can die as processes do: reads, tells what it read, and only then
//! stores the offset to be committed. Tells the parent by lines on its standard output; leaves the group when its
//! standard input ends.

use super::Protocol;
use super::ledger::{Nanos, Told};
use anyhow::Context as _;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Members that have died are missed after this, and a rebalance is heard of within a second.
const SETTINGS: [(&str, &str); 7] = [
    ("auto.offset.reset", "earliest"),
    ("enable.auto.offset.store", "false"),
    ("auto.commit.interval.ms", "1000"),
    ("fetch.wait.max.ms", "200"),
    // A broker's answer tells of new leaders at once; nothing else is to be remembered by chance.
    ("log_level", "3"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("queued.max.messages.kbytes", "4096"),
];
/// Of the classic protocol these are the client's; of the newer one the broker's (`super::SESSION`).
const CLASSIC: [(&str, &str); 2] = [
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "1000"),
];

/// What the machine's monotonic clock says.
pub fn now() -> Nanos {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn tell(told: &[Told]) {
    let text: String = told.iter().map(Told::line).collect();
    // With nobody to tell, the parent is gone, and the end of the input says so.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The offset after the last record of each partition that was worked on.
#[derive(Default)]
struct Context(Mutex<BTreeMap<(String, i32), i64>>);

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, message: &str) {
        eprintln!("{fac} {message}");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let numbers = |list: &TopicPartitionList| -> Vec<i32> {
            list.elements().iter().map(|e| e.partition()).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => tell(&[Told::Given(now(), numbers(list))]),
            Rebalance::Revoke(list) if consumer.assignment_lost() => {
                self.forget(list);
                tell(&[Told::Lost(now(), numbers(list))]);
            }
            Rebalance::Revoke(list) => {
                let done = self.forget(list);
                if done.count() > 0
                    && let Err(error) = consumer.commit(&done, CommitMode::Sync)
                {
                    tell(&[Told::Refused(error.to_string())]);
                }
                tell(&[Told::Taken(now(), numbers(list))]);
            }
            Rebalance::Error(error) => tell(&[Told::Refused(error.to_string())]),
        }
    }
}

impl Context {
    /// How far these were worked on; that is forgotten.
    fn forget(&self, list: &TopicPartitionList) -> TopicPartitionList {
        let mut positions = self.0.lock().expect("positions");
        let mut done = TopicPartitionList::new();
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            if let Some(next) = positions.remove(&(topic.to_owned(), partition)) {
                done.add_partition_offset(topic, partition, Offset::Offset(next))
                    .expect("an offset");
            }
        }
        done
    }
}

/// Runs a member until its input ends.
pub fn run(bootstrap: &str, topic: &str, group: &str, protocol: Protocol) -> anyhow::Result<()> {
    let stop = Arc::<AtomicBool>::default();
    let told = stop.clone();
    std::thread::spawn(move || {
        // It ends, or cannot be read any more: both mean to leave.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config.set("group.id", group);
    for (key, value) in SETTINGS {
        config.set(key, value);
    }
    match protocol {
        Protocol::Consumer => config.set("group.protocol", "consumer"),
        Protocol::Eager => config.set("partition.assignment.strategy", "range"),
        Protocol::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
    };
    for (key, value) in CLASSIC {
        if protocol != Protocol::Consumer {
            config.set(key, value);
        }
    }
    let consumer: BaseConsumer<Context> = config.create_with_context(Context::default())?;
    consumer.subscribe(&[topic])?;
    while !stop.load(Ordering::Relaxed) {
        work(&consumer).context("the member's work")?;
    }
    Ok(())
}

/// Takes what has come, tells it, and only then lets it be committed.
fn work(consumer: &BaseConsumer<Context>) -> anyhow::Result<()> {
    let message = match consumer.poll(Duration::from_millis(50)) {
        Some(Ok(message)) => message,
        Some(Err(error)) => {
            eprintln!("{error}");
            return Ok(());
        }
        None => return Ok(()),
    };
    let (partition, offset) = (message.partition(), message.offset());
    tell(&[Told::Read(partition, offset)]);
    let at = (message.topic().to_owned(), partition);
    let mut positions = consumer.context().0.lock().expect("positions");
    positions.insert(at, offset + 1);
    drop(positions);
    // Refused only for a partition that was taken meanwhile.
    if let Err(error) = consumer.store_offset_from_message(&message) {
        eprintln!("{error}");
    }
    Ok(())
}
