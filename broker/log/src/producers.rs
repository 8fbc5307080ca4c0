//! What idempotent producers have written: enough to refuse gaps and to recognize repeats.
//!
//! Pure, but for the snapshot beside it: `<offset>.snapshot` holds the state before that offset,
//! with a checksum, so that a torn one is noticed and an older one, or the log itself, is used.

use crate::batch::BatchHeader;
use crate::{AppendError, LogError, disk};
use bytes::Buf;
use leasehold_types::{Offset, ProducerId};
use std::collections::{HashMap, VecDeque};
use std::path::Path;

/// Kafka's: a producer has at most five requests in flight, so a repeat is among the last five.
const KEPT_BATCHES: usize = 5;
const SNAPSHOT_MAGIC: u32 = 0x4c48_5001;
const BATCH_LEN: usize = 4 + 4 + 8 + 4 + 8;

/// One of a producer's last batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    first_sequence: i32,
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp: i64,
}

/// A producer's last batches, oldest first; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Written>,
}

/// Where a repeated batch lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp: i64,
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    by_id: HashMap<ProducerId, Producer>,
}

/// Sequences wrap from `i32::MAX` to 0.
fn advance(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (1 << 31)) as i32
}

impl Producers {
    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Judges a batch before the append: a repeat of one of the last five, next in sequence
    /// (`None`), or an error. An unknown producer may start anywhere.
    pub fn check(&self, header: &BatchHeader) -> Result<Option<Repeat>, AppendError> {
        let id = header.producer_id;
        let Some(producer) = self.by_id.get(&id).filter(|_| header.has_producer()) else {
            return Ok(None);
        };
        let got = header.base_sequence;
        let out_of_order = |expected| AppendError::OutOfOrderSequence {
            producer: id,
            expected,
            got,
        };
        if header.producer_epoch < producer.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer: id,
                current: producer.epoch,
                got: header.producer_epoch,
            });
        }
        if header.producer_epoch > producer.epoch {
            return if got == 0 {
                Ok(None)
            } else {
                Err(out_of_order(0))
            };
        }
        let last_sequence = advance(got, header.last_offset_delta);
        let repeat = producer
            .batches
            .iter()
            .find(|b| b.first_sequence == got && b.last_sequence == last_sequence);
        if let Some(b) = repeat {
            return Ok(Some(Repeat {
                base_offset: Offset(b.last_offset.0 - i64::from(b.offset_delta)),
                last_offset: b.last_offset,
                timestamp: b.timestamp,
            }));
        }
        match producer.batches.back() {
            Some(last) if advance(last.last_sequence, 1) != got => {
                Err(out_of_order(advance(last.last_sequence, 1)))
            }
            _ => Ok(None),
        }
    }

    /// Takes note of a batch that was appended, with the offsets that it got.
    pub fn note(&mut self, header: &BatchHeader) {
        // A transaction marker carries its producer's id, but no sequence.
        if !header.has_producer() || header.base_sequence < 0 || header.is_control() {
            return;
        }
        let producer = self.by_id.entry(header.producer_id).or_insert(Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(1),
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == KEPT_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Written {
            first_sequence: header.base_sequence,
            last_sequence: advance(header.base_sequence, header.last_offset_delta),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
    }

    /// Where each one's last batch ends.
    pub fn last_offsets(&self) -> HashMap<ProducerId, Offset> {
        let last = |(id, p): (&ProducerId, &Producer)| Some((*id, p.batches.back()?.last_offset));
        self.by_id.iter().filter_map(last).collect()
    }

    /// Forgets those that have been silent for longer than `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let oldest = now_ms.saturating_sub(expiration_ms);
        self.by_id
            .retain(|_, p| p.batches.back().is_some_and(|b| b.timestamp >= oldest));
    }

    /// Writes a snapshot; not fsynced, as the log itself can make up for it.
    pub fn save(&self, path: &Path) -> Result<(), LogError> {
        let mut body = Vec::new();
        for (id, producer) in &self.by_id {
            body.extend_from_slice(&id.0.to_be_bytes());
            body.extend_from_slice(&producer.epoch.to_be_bytes());
            body.push(producer.batches.len() as u8);
            for b in &producer.batches {
                body.extend_from_slice(&b.first_sequence.to_be_bytes());
                body.extend_from_slice(&b.last_sequence.to_be_bytes());
                body.extend_from_slice(&b.last_offset.0.to_be_bytes());
                body.extend_from_slice(&b.offset_delta.to_be_bytes());
                body.extend_from_slice(&b.timestamp.to_be_bytes());
            }
        }
        let mut content = SNAPSHOT_MAGIC.to_be_bytes().to_vec();
        content.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        content.extend_from_slice(&body);
        disk::write(path, &content).map(drop)
    }

    /// Reads a snapshot; `None` if there is none, or it is torn.
    pub fn load(path: &Path) -> Result<Option<Self>, LogError> {
        let content = disk::read_if_there(path)?;
        Ok(content.and_then(|content| Self::decode(&content)))
    }

    /// Each producer with its epoch, its last sequence, and the offset of the record that has it.
    pub fn list(&self) -> Vec<(ProducerId, i16, i32, Offset)> {
        let one = |(id, p): (&ProducerId, &Producer)| {
            let last = p.batches.back()?;
            Some((*id, p.epoch, last.last_sequence, last.last_offset))
        };
        let mut all: Vec<_> = self.by_id.iter().filter_map(one).collect();
        all.sort_unstable_by_key(|(id, ..)| *id);
        all
    }

    /// A snapshot's content; `None` if it is damaged.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let (mut head, mut body) = content.split_at_checked(8)?;
        if head.get_u32() != SNAPSHOT_MAGIC || head.get_u32() != crc32c::crc32c(body) {
            return None;
        }
        let mut producers = Self::default();
        while !body.is_empty() {
            if body.len() < 11 {
                return None;
            }
            let id = ProducerId(body.get_i64());
            let epoch = body.get_i16();
            let count = usize::from(body.get_u8());
            if count > KEPT_BATCHES || body.len() < count * BATCH_LEN {
                return None;
            }
            let batches = (0..count)
                .map(|_| Written {
                    first_sequence: body.get_i32(),
                    last_sequence: body.get_i32(),
                    last_offset: Offset(body.get_i64()),
                    offset_delta: body.get_i32(),
                    timestamp: body.get_i64(),
                })
                .collect();
            producers.by_id.insert(id, Producer { epoch, batches });
        }
        Some(producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RecordBatchBuilder;
    use leasehold_types::LeaderEpoch;

    fn header(offset: i64, epoch: i16, sequence: i32, count: i32) -> BatchHeader {
        let mut b = RecordBatchBuilder::new()
            .at(Offset(offset), LeaderEpoch(0))
            .producer(ProducerId(9), epoch, sequence);
        for _ in 0..count {
            b.push(1000 + offset, None, Some(b"v"));
        }
        BatchHeader::parse(&b.build()).unwrap()
    }

    #[test]
    fn the_last_five_batches_are_recognized_and_older_ones_refused() {
        let mut producers = Producers::default();
        for i in 0..7 {
            let h = header(i64::from(i) * 2, 0, i * 2, 2);
            assert_eq!(producers.check(&h), Ok(None));
            producers.note(&h);
        }
        for i in 2..7 {
            let repeat = producers.check(&header(0, 0, i * 2, 2)).unwrap().unwrap();
            assert_eq!(repeat.base_offset, Offset(i64::from(i) * 2));
            assert_eq!(repeat.last_offset, Offset(i64::from(i) * 2 + 1));
        }
        for sequence in [0, 2, 13, 15, 16] {
            let result = producers.check(&header(0, 0, sequence, 2));
            let refused = matches!(
                result,
                Err(AppendError::OutOfOrderSequence { expected: 14, .. })
            );
            assert!(refused, "{sequence}: {result:?}");
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.note(&header(0, 0, i32::MAX - 1, 3));
        assert!(producers.check(&header(0, 0, 0, 1)).is_err());
        assert_eq!(producers.check(&header(0, 0, 1, 1)), Ok(None));
        assert!(
            producers
                .check(&header(0, 0, i32::MAX - 1, 3))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old() {
        let mut producers = Producers::default();
        producers.note(&header(0, 3, 0, 1));
        assert!(producers.check(&header(0, 4, 1, 1)).is_err());
        let h = header(1, 4, 0, 1);
        assert_eq!(producers.check(&h), Ok(None));
        producers.note(&h);
        let fenced = producers.check(&header(0, 3, 1, 1));
        assert!(matches!(
            fenced,
            Err(AppendError::InvalidProducerEpoch {
                current: 4,
                got: 3,
                ..
            })
        ));
    }

    #[test]
    fn a_snapshot_is_read_back_and_a_torn_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let mut producers = Producers::default();
        for i in 0..7 {
            producers.note(&header(i, 0, i as i32, 1));
        }
        producers.save(&path).unwrap();
        assert_eq!(Producers::load(&path).unwrap(), Some(producers.clone()));
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            assert_eq!(Producers::decode(&whole[..len]), None);
        }
        producers.expire(1006 + 50, 50);
        assert!(!producers.is_empty());
        producers.expire(1006 + 51, 50);
        assert!(producers.is_empty());
    }
}
