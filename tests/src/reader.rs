//! A librdkafka consumer that reads a topic while it is written, and what it saw.
//!
//! Promise of [`Seen::faults`]: it finds every record that was shown and is not stored, every record
//! that was shown as another than it is, and every offset that did not rise.

use crate::readback::{Read, record};
use crate::wait;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a consumer was shown, per partition, in the order in which it came.
pub struct Seen {
    records: Vec<Vec<Read>>,
    /// When each poll brought something.
    at: Vec<Instant>,
    /// Positions that a broker said it does not have.
    refused: Vec<String>,
}

impl Seen {
    /// How many records.
    pub fn total(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }

    /// The longest time in `[from, to]` without a record of any partition.
    pub fn longest_silence(&self, from: Instant, to: Instant) -> Duration {
        let inside = self.at.iter().copied().filter(|at| (from..to).contains(at));
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in inside.chain([to]) {
            longest = longest.max(at.duration_since(last));
            last = at;
        }
        longest
    }

    /// What is wrong with it, given all that is `stored`; empty means nothing.
    pub fn faults(&self, stored: &[Vec<Read>]) -> Vec<String> {
        let mut faults = self.refused.clone();
        for (partition, (seen, stored)) in self.records.iter().zip(stored).enumerate() {
            let stored: HashMap<i64, u64> = stored.iter().copied().collect();
            for pair in seen.windows(2).filter(|pair| pair[1].0 <= pair[0].0) {
                let (then, before) = (pair[1].0, pair[0].0);
                faults.push(format!("partition {partition}: read {then} after {before}"));
            }
            for (offset, number) in seen {
                let now = stored.get(offset);
                if now != Some(number) {
                    faults.push(format!(
                        "partition {partition}: read {number} at {offset}, where {now:?} is stored"
                    ));
                }
            }
        }
        faults
    }
}

/// Why librdkafka gave up positions: it says so only in its log.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<String>>>);

impl ClientContext for Reasons {
    fn log(&self, _: RDKafkaLogLevel, _: &str, line: &str) {
        if line.contains("offset reset") || line.contains("Offset reply error") {
            self.0.lock().expect("reasons").push(line.to_owned());
        }
    }
}

impl ConsumerContext for Reasons {}

/// A consumer at work.
pub struct Reader {
    stop: Arc<AtomicBool>,
    /// Partitions of which it has seen a record.
    begun: Arc<AtomicUsize>,
    thread: JoinHandle<Seen>,
}

impl Reader {
    /// Reads all partitions of `topic` from the beginning, until it is stopped.
    pub fn start(bootstrap: &str, topic: &str, partitions: i32) -> Self {
        let reasons = Reasons::default();
        let consumer: BaseConsumer<Reasons> = ClientConfig::new()
            .set_log_level(RDKafkaLogLevel::Debug)
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("debug", "topic")
            .create_with_context(reasons.clone())
            .expect("librdkafka accepts the configuration");
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .expect("a valid offset");
        }
        consumer.assign(&list).expect("assign");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = begun.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen {
                records: vec![Vec::new(); partitions as usize],
                at: Vec::new(),
                refused: Vec::new(),
            };
            while !stopped.load(Ordering::Relaxed) {
                let message = match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) => message,
                    Some(Err(KafkaError::MessageConsumption(
                        code @ (RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::OffsetOutOfRange),
                    ))) => {
                        let why = std::mem::take(&mut *reasons.0.lock().expect("reasons"));
                        seen.refused.push(format!("{code}: {why:#?}"));
                        continue;
                    }
                    // Everything else librdkafka tries again by itself.
                    Some(Err(_)) | None => continue,
                };
                let (partition, read) = record(&message);
                let records = &mut seen.records[partition as usize];
                if records.is_empty() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                records.push(read);
                seen.at.push(Instant::now());
            }
            seen
        });
        Self {
            stop,
            begun,
            thread,
        }
    }

    /// Waits until it has read something of every one of so many partitions. Until then librdkafka may give up one for
    /// good: it takes a leader's name that cannot be resolved for a moment as a permanent refusal of the offset to begin at.
    pub fn wait_begun(&self, partitions: usize, limit: Duration) {
        wait::until("a record of every partition", limit, || {
            let begun = self.begun.load(Ordering::Relaxed);
            (begun == partitions).then_some(()).ok_or(begun)
        });
    }

    /// Stops it; gives what it saw.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the consumer's thread")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(records: &[Read]) -> Seen {
        Seen {
            records: vec![records.to_vec()],
            at: Vec::new(),
            refused: Vec::new(),
        }
    }

    #[test]
    fn what_was_undone_or_went_back_is_noticed() {
        let stored = [vec![(0, 0), (1, 1), (2, 2)]];
        assert!(seen(&[(0, 0), (2, 2)]).faults(&stored).is_empty());
        assert!(seen(&[(0, 0), (3, 3)]).faults(&stored)[0].contains("None is stored"));
        assert!(seen(&[(1, 7)]).faults(&stored)[0].contains("Some(1) is stored"));
        assert!(seen(&[(1, 1), (0, 0)]).faults(&stored)[0].contains("read 0 after 1"));
    }
}
