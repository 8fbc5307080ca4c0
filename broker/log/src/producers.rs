//! What the producers of a partition have written: enough to refuse gaps, to recognize repeats, and to know
//! whose transaction is open since where (KIP-98).
//!
//! Pure, but for the snapshot beside it: `<offset>.snapshot` holds the state before that offset,
//! with a checksum, so that a torn one is noticed and an older one, or the log itself, is used.

mod snapshot;

#[cfg(test)]
mod tests;

pub(crate) use snapshot::Snapshot;

use crate::AppendError;
use crate::batch::{BatchHeader, Marker, MarkerEpoch};
use crate::transactions::Noted;
use leasehold_types::seams::{HashMap, taken_out};
use leasehold_types::{Offset, ProducerId};
use std::collections::VecDeque;

/// Kafka's: a producer has at most five requests in flight, so a repeat is among the last five.
const KEPT_BATCHES: usize = 5;

/// One of a producer's last batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    first_sequence: i32,
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp: i64,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Its last batches in this epoch, oldest first; empty if a marker brought the epoch.
    batches: VecDeque<Written>,
    /// The epoch of the transaction coordinator that ended its last transaction; -1 if none has.
    coordinator_epoch: i32,
    /// The time of its last batch or marker.
    last_timestamp: i64,
    /// The first offset of its open transaction.
    open_since: Option<Offset>,
}

impl Producer {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            coordinator_epoch: -1,
            last_timestamp: -1,
            open_since: None,
        }
    }

    /// A newer instance begins without batches.
    fn enter(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

/// Where a repeated batch lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub timestamp: i64,
}

/// What is known of a producer: as Kafka's DescribeProducers tells it (KIP-664).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Who.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The last sequence in that epoch; -1 if there is none.
    pub last_sequence: i32,
    /// The offset of the record that has it; -1 if there is none.
    pub last_offset: Offset,
    /// The time of the last batch or marker.
    pub last_timestamp: i64,
    /// The epoch of the coordinator that ended the last transaction; -1 if none has.
    pub coordinator_epoch: i32,
    /// The first offset of the open transaction.
    pub open_since: Option<Offset>,
}

/// What the cleaner must keep of a producer that is still known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRecord {
    /// The batch that ends here: it has the last sequence.
    Batch(Offset),
    /// It has no batch in its epoch: the marker that brought this epoch.
    Marker(i16),
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
    /// (`None`), or an error. An unknown producer may start anywhere. A batch that would begin a transaction
    /// must be `verified`: known to the coordinator, from this sequence on.
    pub fn check(
        &self,
        header: &BatchHeader,
        verified: Option<i32>,
    ) -> Result<Option<Repeat>, AppendError> {
        if !header.has_producer() {
            return Ok(None);
        }
        let id = header.producer_id;
        let known = self.by_id.get(&id);
        if let Some(producer) = known {
            if header.producer_epoch < producer.epoch {
                return Err(AppendError::InvalidProducerEpoch {
                    producer: id,
                    current: producer.epoch,
                    got: header.producer_epoch,
                });
            }
            if let Some(repeat) = producer.repeated(header) {
                let known = !taken_out("a-repeat-is-recognised");
                return Ok(known.then_some(repeat));
            }
        }
        check_transaction(known, header, verified)?;
        if let Some(producer) = known {
            producer.check_sequence(header)?;
        }
        Ok(None)
    }

    /// Judges a batch of one of the broker's own coordinators: as that of its producer, but for the sequence.
    pub fn check_coordinator(
        &self,
        header: &BatchHeader,
        verified: Option<i32>,
    ) -> Result<(), AppendError> {
        if !header.has_producer() {
            return Ok(());
        }
        let known = self.by_id.get(&header.producer_id);
        if let Some(producer) = known.filter(|known| header.producer_epoch < known.epoch) {
            return Err(AppendError::InvalidProducerEpoch {
                producer: header.producer_id,
                current: producer.epoch,
                got: header.producer_epoch,
            });
        }
        check_transaction(known, header, verified)
    }

    /// Judges a marker before the append: neither producer nor coordinator may be older than one heard of. One that `has`
    /// a later epoch than its transaction ends none of its own epoch: that is the next one.
    pub fn check_marker(&self, marker: &Marker, has: MarkerEpoch) -> Result<(), AppendError> {
        let Some(producer) = self.by_id.get(&marker.producer_id) else {
            return Ok(());
        };
        let next = has == MarkerEpoch::Later
            && producer.open_since.is_some()
            && marker.producer_epoch == producer.epoch
            && !taken_out("a-marker-does-not-end-the-next-transaction");
        if marker.producer_epoch < producer.epoch || next {
            return Err(AppendError::InvalidProducerEpoch {
                producer: marker.producer_id,
                current: producer.epoch,
                got: marker.producer_epoch,
            });
        }
        if marker.coordinator_epoch < producer.coordinator_epoch {
            return Err(AppendError::CoordinatorFenced {
                producer: marker.producer_id,
                current: producer.coordinator_epoch,
                got: marker.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Takes note of a batch that was appended, with the offsets that it got; of a control batch, with what
    /// its record says.
    pub fn note(&mut self, header: &BatchHeader, marker: Option<Marker>) -> Noted {
        if !header.has_producer() {
            return Noted::Nothing;
        }
        if header.is_control() {
            return self.note_control(header, marker);
        }
        if header.base_sequence < 0 {
            return Noted::Nothing;
        }
        let id = header.producer_id;
        let producer = self
            .by_id
            .entry(id)
            .or_insert_with(|| Producer::new(header.producer_epoch));
        let same_epoch = producer.epoch == header.producer_epoch;
        producer.enter(header.producer_epoch);
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
        producer.last_timestamp = header.max_timestamp;
        if !header.is_transactional() || (producer.open_since.is_some() && same_epoch) {
            return Noted::Nothing;
        }
        Noted::Began {
            producer: id,
            epoch: header.producer_epoch,
            first: *producer.open_since.get_or_insert(header.base_offset),
        }
    }

    fn note_control(&mut self, header: &BatchHeader, marker: Option<Marker>) -> Noted {
        // Of a marker that compaction emptied, the producer's epoch is left. Others are not of transactions.
        if marker.is_none() && header.record_count > 0 {
            return Noted::Nothing;
        }
        let producer = self
            .by_id
            .entry(header.producer_id)
            .or_insert_with(|| Producer::new(header.producer_epoch));
        producer.enter(header.producer_epoch);
        let Some(marker) = marker else {
            return Noted::Nothing;
        };
        producer.coordinator_epoch = marker.coordinator_epoch;
        producer.last_timestamp = header.max_timestamp;
        Noted::Ended {
            producer: header.producer_id,
            first: producer.open_since.take(),
            marker: header.base_offset,
            committed: marker.committed,
        }
    }

    /// What of each one must stay in the log.
    pub fn last_records(&self) -> HashMap<ProducerId, LastRecord> {
        let last = |(id, p): (&ProducerId, &Producer)| match p.batches.back() {
            Some(batch) => (*id, LastRecord::Batch(batch.last_offset)),
            None => (*id, LastRecord::Marker(p.epoch)),
        };
        self.by_id.iter().map(last).collect()
    }

    /// Forgets those that have been silent for longer than `expiration_ms`, and have no transaction open.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let oldest = now_ms.saturating_sub(expiration_ms);
        self.by_id
            .retain(|_, p| p.open_since.is_some() || p.last_timestamp >= oldest);
    }

    /// Each producer, by its id.
    pub fn list(&self) -> Vec<ProducerState> {
        let one = |(id, p): (&ProducerId, &Producer)| ProducerState {
            producer_id: *id,
            producer_epoch: p.epoch,
            last_sequence: p.batches.back().map_or(-1, |b| b.last_sequence),
            last_offset: p.batches.back().map_or(Offset(-1), |b| b.last_offset),
            last_timestamp: p.last_timestamp,
            coordinator_epoch: p.coordinator_epoch,
            open_since: p.open_since,
        };
        let mut all: Vec<_> = self.by_id.iter().map(one).collect();
        all.sort_unstable_by_key(|p| p.producer_id);
        all
    }

    /// The open transactions: whose, in which epoch, since where.
    pub fn open(&self) -> impl Iterator<Item = (ProducerId, i16, Offset)> + '_ {
        let open = |(id, p): (&ProducerId, &Producer)| Some((*id, p.epoch, p.open_since?));
        self.by_id.iter().filter_map(open)
    }
}

impl Producer {
    /// Whether it is one of the last batches.
    fn repeated(&self, header: &BatchHeader) -> Option<Repeat> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        let got = header.base_sequence;
        let last_sequence = advance(got, header.last_offset_delta);
        let same = |b: &&Written| b.first_sequence == got && b.last_sequence == last_sequence;
        self.batches.iter().find(same).map(|b| Repeat {
            base_offset: Offset(b.last_offset.0 - i64::from(b.offset_delta)),
            last_offset: b.last_offset,
            timestamp: b.timestamp,
        })
    }

    /// A new epoch starts at 0; within one there is no gap. Of a producer without an epoch (-1, which no client
    /// sends) nothing is demanded, as in Kafka.
    fn check_sequence(&self, header: &BatchHeader) -> Result<(), AppendError> {
        if self.epoch < 0 {
            return Ok(());
        }
        let last = self
            .batches
            .back()
            .filter(|_| header.producer_epoch == self.epoch);
        let expected = last.map_or(0, |last| advance(last.last_sequence, 1));
        if header.base_sequence == expected
            || (last.is_some() && taken_out("sequences-have-no-gap"))
        {
            return Ok(());
        }
        Err(AppendError::OutOfOrderSequence {
            producer: header.producer_id,
            expected,
            got: header.base_sequence,
        })
    }
}

/// Judges a batch by the transactions: one that belongs to none must not lie within one of its producer, and
/// what begins one must be `verified`.
fn check_transaction(
    known: Option<&Producer>,
    header: &BatchHeader,
    verified: Option<i32>,
) -> Result<(), AppendError> {
    let id = header.producer_id;
    let open = known.filter(|p| p.open_since.is_some());
    if !header.is_transactional() {
        return match open {
            Some(_) => Err(AppendError::WithinTransaction(id)),
            None => Ok(()),
        };
    }
    if open.is_some_and(|p| p.epoch == header.producer_epoch) {
        return Ok(());
    }
    if taken_out("what-begins-a-transaction-is-verified") {
        return Ok(());
    }
    let Some(lowest) = verified else {
        return Err(AppendError::NotInTransaction(id));
    };
    if header.base_sequence > lowest {
        return Err(AppendError::OutOfOrderSequence {
            producer: id,
            expected: lowest,
            got: header.base_sequence,
        });
    }
    Ok(())
}
