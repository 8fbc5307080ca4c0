//! Reads a topic from its beginning and holds it against what its producer was told.

use crate::load::History;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A record as it was read: its offset and the number that it carries.
pub type Read = (i64, u64);

/// The partition that a record was read from, and the record. It must say itself that it belongs there.
pub(crate) fn record(message: &BorrowedMessage<'_>) -> (i32, Read) {
    let text = String::from_utf8_lossy(message.payload().unwrap_or_default());
    let mut parts = text.split(':');
    let says: Option<i32> = parts.next().and_then(|p| p.parse().ok());
    let number = parts.next().and_then(|n| n.parse().ok());
    assert_eq!(
        says,
        Some(message.partition()),
        "a record stands in another partition than it was sent to"
    );
    (
        message.partition(),
        (message.offset(), number.expect("a number")),
    )
}

/// All records of `topic`, per partition, from the beginning to the high watermark of now.
pub fn read_all(bootstrap: &str, topic: &str, partitions: i32) -> Vec<Vec<Read>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "readback")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("isolation.level", "read_uncommitted")
        .create()
        .expect("librdkafka accepts the configuration");
    let mut list = TopicPartitionList::new();
    let mut left = HashMap::new();
    for partition in 0..partitions {
        let what = format!("the watermarks of {topic}-{partition}");
        let (low, high) = crate::wait::until(&what, Duration::from_secs(30), || {
            consumer.fetch_watermarks(topic, partition, Duration::from_secs(5))
        });
        if high > low {
            left.insert(partition, high);
        }
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&list).expect("assign");
    let mut read = vec![Vec::new(); partitions as usize];
    let mut progress = Instant::now();
    while !left.is_empty() {
        assert!(
            progress.elapsed() < Duration::from_secs(30),
            "no record for 30 s; left: {left:?}"
        );
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        progress = Instant::now();
        let (partition, record) = record(&message);
        read[partition as usize].push(record);
        if left
            .get(&partition)
            .is_some_and(|high| message.offset() + 1 >= *high)
        {
            left.remove(&partition);
        }
    }
    read
}

/// What is wrong with `read`, given `history` of an idempotent producer; empty means nothing.
///
/// Checked: every acknowledged record is there, at the offset that was acknowledged; each record
/// once; numbers rise with the offsets.
pub fn faults(history: &History, read: &[Vec<Read>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (partition, (acked, read)) in history.acked.iter().zip(read).enumerate() {
        let mut at: HashMap<u64, i64> = HashMap::new();
        for (offset, number) in read {
            if let Some(first) = at.insert(*number, *offset) {
                faults.push(format!(
                    "partition {partition}: {number} stands at {first} and {offset}"
                ));
            }
        }
        for record in acked {
            match at.get(&record.number) {
                None => faults.push(format!(
                    "partition {partition}: {} was acknowledged at {} and is lost",
                    record.number, record.offset
                )),
                // After a retry of an old duplicate the broker may not know the offset any more.
                Some(offset) if record.offset >= 0 && *offset != record.offset => {
                    faults.push(format!(
                        "partition {partition}: {} was acknowledged at {} but stands at {offset}",
                        record.number, record.offset
                    ))
                }
                Some(_) => {}
            }
        }
        for pair in read.windows(2) {
            if pair[1].1 <= pair[0].1 {
                faults.push(format!(
                    "partition {partition}: {} at {} comes after {} at {}",
                    pair[1].1, pair[1].0, pair[0].1, pair[0].0
                ));
            }
        }
    }
    faults
}

/// What a failure says that no second try may hide (`tests/run`).
pub const UNSAFE: &str = "PROMISE BROKEN";

/// Reads everything back and panics with what is wrong, if anything is.
pub fn check(bootstrap: &str, topic: &str, history: &History) {
    let read = read_all(bootstrap, topic, history.acked.len() as i32);
    let faults = faults(history, &read);
    assert!(
        faults.is_empty(),
        "{UNSAFE}: {} faults among {} acknowledged records of {topic}; the first: {:#?}",
        faults.len(),
        history.acked_total(),
        &faults[..faults.len().min(10)]
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Acked;

    fn history(acked: &[(u64, i64)]) -> History {
        let now = Instant::now();
        let acked = acked.iter().map(|(number, offset)| Acked {
            number: *number,
            offset: *offset,
            sent: now,
            at: now,
        });
        History {
            acked: vec![acked.collect()],
            ..History::default()
        }
    }

    #[test]
    fn the_check_notices_a_lost_a_doubled_and_a_swapped_record() {
        let told = history(&[(0, 0), (1, 1), (2, 2)]);
        assert!(faults(&told, &[vec![(0, 0), (1, 1), (2, 2)]]).is_empty());
        assert!(faults(&told, &[vec![(0, 0), (1, 1)]])[0].contains("lost"));
        assert!(faults(&told, &[vec![(0, 0), (1, 1), (2, 2), (3, 2)]])[0].contains("stands at"));
        assert!(!faults(&told, &[vec![(0, 1), (1, 0), (2, 2)]]).is_empty());
    }
}
