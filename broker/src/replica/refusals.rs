//! Keeps an idempotent producer's pipelined batches in order across the beginning of a leadership.
//!
//! A producer sends several batches ahead. If this broker refuses the first because it does not lead yet, and
//! begins to lead before the second is looked at, the second has a gap before it. Told so
//! (OUT_OF_ORDER_SEQUENCE_NUMBER), librdkafka takes a new epoch and sends again whatever it
//! has no answer for, and what was stored under the old epoch stands there twice. Promise: what follows a refused
//! batch is refused in the same way, until that batch comes again; bounded in memory, and in time for a
//! producer that gave the batch up.

use leasehold_log::ProducerId;
use leasehold_log::batch::BatchHeader;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Producers remembered per partition; beyond it the oldest is forgotten.
const MOST: usize = 64;
/// For how long a refused batch is waited for: what was sent ahead of its answer has come by then, and it
/// comes again itself, after the 100 ms that clients wait by default.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Refused {
    producer: (ProducerId, i16),
    sequence: i32,
    at: Instant,
}

/// The first batch that each producer must send again.
#[derive(Debug, Default)]
pub struct Refusals(VecDeque<Refused>);

impl Refusals {
    /// A batch was refused because this broker does not lead.
    pub fn refused(&mut self, batch: &BatchHeader, now: Instant) {
        if !batch.has_producer() {
            return;
        }
        let producer = (batch.producer_id, batch.producer_epoch);
        let sequence = batch.base_sequence;
        if let Some(known) = self.0.iter_mut().find(|r| r.producer == producer) {
            // One that is only refused because it waits does not make the others wait longer.
            if !is_after(sequence, known.sequence) {
                known.sequence = sequence;
                known.at = now;
            }
            return;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Refused {
            producer,
            sequence,
            at: now,
        });
    }

    /// Whether none is awaited, as nearly always.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a batch must be refused because one before it was. One that holds the awaited sequence passes,
    /// and is the last that was waited for: a producer may have put the refused records into another batch.
    pub fn must_wait(&mut self, batch: &BatchHeader, now: Instant) -> bool {
        self.0.retain(|r| now.duration_since(r.at) < PATIENCE);
        let producer = (batch.producer_id, batch.producer_epoch);
        let Some(at) = self.0.iter().position(|r| r.producer == producer) else {
            return false;
        };
        let awaited = self.0[at].sequence;
        let last = batch.base_sequence.wrapping_add(batch.last_offset_delta) & i32::MAX;
        let waits = is_after(batch.base_sequence, awaited);
        if !waits && !is_after(awaited, last) {
            self.0.remove(at);
        }
        waits
    }
}

/// Sequences go from 0 to the largest number, and begin anew.
fn is_after(sequence: i32, other: i32) -> bool {
    let ahead = sequence.wrapping_sub(other) & i32::MAX;
    ahead != 0 && ahead < i32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::batch::RecordBatchBuilder;

    fn batch(producer: i64, epoch: i16, sequence: i32) -> BatchHeader {
        batch_of(1, producer, epoch, sequence)
    }

    fn batch_of(records: usize, producer: i64, epoch: i16, sequence: i32) -> BatchHeader {
        let mut builder = RecordBatchBuilder::new().producer(ProducerId(producer), epoch, sequence);
        for _ in 0..records {
            builder.push(1, None, Some(b"v"));
        }
        BatchHeader::parse(&builder.build()).unwrap()
    }

    #[test]
    fn what_follows_a_refused_batch_waits_until_that_batch_comes_again() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(!refusals.must_wait(&batch(1, 0, 9), now));
        refusals.refused(&batch(1, 0, 5), now);
        refusals.refused(&batch(1, 0, 6), now);
        assert!(refusals.must_wait(&batch(1, 0, 7), now));
        assert!(refusals.must_wait(&batch(1, 0, 6), now));
        // An old one that comes again, another producer, and one that began anew.
        for passes in [batch(1, 0, 4), batch(2, 0, 7), batch(1, 1, 7)] {
            assert!(!refusals.must_wait(&passes, now));
        }
        assert!(!refusals.must_wait(&batch(1, 0, 5), now));
        assert!(!refusals.must_wait(&batch(1, 0, 6), now));
        assert!(!refusals.must_wait(&batch(1, 0, 7), now));
    }

    #[test]
    fn the_refused_records_may_come_again_in_another_batch() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.refused(&batch(1, 0, 5), now);
        assert!(!refusals.must_wait(&batch_of(2, 1, 0, 3), now));
        assert!(refusals.must_wait(&batch(1, 0, 7), now), "5 has not come");
        assert!(!refusals.must_wait(&batch_of(4, 1, 0, 3), now));
        assert!(!refusals.must_wait(&batch(1, 0, 7), now));
        // Refusing again and again does not go on for ever.
        refusals.refused(&batch(1, 0, 5), now);
        let later = now + PATIENCE / 2;
        assert!(refusals.must_wait(&batch(1, 0, 9), later));
        refusals.refused(&batch(1, 0, 9), later);
        assert!(!refusals.must_wait(&batch(1, 0, 9), now + PATIENCE));
        // Unless the awaited batch itself came too early again.
        refusals.refused(&batch(1, 0, 5), now);
        refusals.refused(&batch(1, 0, 5), later);
        assert!(refusals.must_wait(&batch(1, 0, 9), now + PATIENCE));
    }

    #[test]
    fn the_earliest_counts_across_the_end_of_the_numbers() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.refused(&batch(1, 0, 2), now);
        refusals.refused(&batch(1, 0, i32::MAX), now);
        assert!(refusals.must_wait(&batch(1, 0, 0), now));
        assert!(!refusals.must_wait(&batch(1, 0, i32::MAX), now));
    }

    #[test]
    fn a_batch_that_was_given_up_is_forgotten_and_so_is_the_oldest_of_many() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        refusals.refused(&batch(1, 0, 5), now);
        assert!(refusals.must_wait(&batch(1, 0, 7), now));
        assert!(!refusals.must_wait(&batch(1, 0, 7), now + PATIENCE));
        for producer in 0..=MOST as i64 {
            refusals.refused(&batch(producer, 0, 5), now);
        }
        assert_eq!(refusals.0.len(), MOST);
        assert!(!refusals.must_wait(&batch(0, 0, 7), now));
        assert!(refusals.must_wait(&batch(1, 0, 7), now));
    }
}
