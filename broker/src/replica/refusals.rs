//! Keeps an idempotent producer's pipelined batches in order across the beginning of a leadership, and across
//! the moment in which a full disk has room again.
//!
//! A producer sends several batches ahead. If this broker refuses the first because it does not lead yet, or
//! has no room, and leads or has room before the second is looked at, the second has a gap before it. Told so
//! (OUT_OF_ORDER_SEQUENCE_NUMBER), librdkafka takes a new epoch and sends again whatever it
//! has no answer for, and what was stored under the old epoch stands there twice. Promise: what follows a refused
//! batch is refused in the same way, until that batch comes again; bounded in memory, and in time for a
//! producer that gave the batch up.

use leasehold_log::ProducerId;
use leasehold_log::batch::BatchHeader;
use leasehold_wire::ErrorCode;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Producers remembered per partition; beyond it the oldest is forgotten.
const MOST: usize = 64;
/// For how long a refused batch is waited for: what was sent ahead of its answer has come by then, and it
/// comes again itself, after the 100 ms that clients wait by default.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Refused {
    producer: (ProducerId, i16),
    sequence: i32,
    /// What it was told.
    error: ErrorCode,
    at: Instant,
}

/// The first batch that each producer must send again.
#[derive(Debug, Default)]
pub struct Refusals(VecDeque<Refused>);

impl Refusals {
    /// A batch was refused with an error that makes its producer send it again.
    pub fn refused(&mut self, batch: &BatchHeader, error: ErrorCode, now: Instant) {
        if !batch.has_producer() {
            return;
        }
        let producer = (batch.producer_id, batch.producer_epoch);
        let sequence = batch.base_sequence;
        if let Some(known) = self.0.iter_mut().find(|r| r.producer == producer) {
            // One that is only refused because it waits does not make the others wait longer.
            if !is_after(sequence, known.sequence) {
                (known.sequence, known.error) = (sequence, error);
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
            error,
            at: now,
        });
    }

    /// Whether none is awaited, as nearly always.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With what a batch must be refused, because one before it was. One that holds the awaited sequence passes,
    /// and is the last that was waited for: a producer may have put the refused records into another batch.
    pub fn must_wait(&mut self, batch: &BatchHeader, now: Instant) -> Option<ErrorCode> {
        self.0.retain(|r| now.duration_since(r.at) < PATIENCE);
        let producer = (batch.producer_id, batch.producer_epoch);
        let at = self.0.iter().position(|r| r.producer == producer)?;
        let Refused {
            sequence: awaited,
            error,
            ..
        } = self.0[at];
        let last = batch.base_sequence.wrapping_add(batch.last_offset_delta) & i32::MAX;
        let waits = is_after(batch.base_sequence, awaited);
        if !waits && !is_after(awaited, last) {
            self.0.remove(at);
        }
        waits.then_some(error)
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

    fn told(refusals: &mut Refusals, batch: &BatchHeader, now: Instant) {
        refusals.refused(batch, ErrorCode::NotLeaderOrFollower, now);
    }

    fn waits(refusals: &mut Refusals, batch: &BatchHeader, now: Instant) -> bool {
        refusals.must_wait(batch, now).is_some()
    }

    #[test]
    fn what_waits_is_told_what_the_awaited_batch_was_told() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let full = ErrorCode::KafkaStorageError;
        refusals.refused(&batch(1, 0, 5), full, now);
        assert_eq!(refusals.must_wait(&batch(1, 0, 7), now), Some(full));
        told(&mut refusals, &batch(1, 0, 5), now);
        let moved = Some(ErrorCode::NotLeaderOrFollower);
        assert_eq!(refusals.must_wait(&batch(1, 0, 7), now), moved);
    }

    #[test]
    fn what_follows_a_refused_batch_waits_until_that_batch_comes_again() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(!waits(&mut refusals, &batch(1, 0, 9), now));
        told(&mut refusals, &batch(1, 0, 5), now);
        told(&mut refusals, &batch(1, 0, 6), now);
        assert!(waits(&mut refusals, &batch(1, 0, 7), now));
        assert!(waits(&mut refusals, &batch(1, 0, 6), now));
        // An old one that comes again, another producer, and one that began anew.
        for passes in [batch(1, 0, 4), batch(2, 0, 7), batch(1, 1, 7)] {
            assert!(!waits(&mut refusals, &passes, now));
        }
        assert!(!waits(&mut refusals, &batch(1, 0, 5), now));
        assert!(!waits(&mut refusals, &batch(1, 0, 6), now));
        assert!(!waits(&mut refusals, &batch(1, 0, 7), now));
    }

    #[test]
    fn the_refused_records_may_come_again_in_another_batch() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        told(&mut refusals, &batch(1, 0, 5), now);
        assert!(!waits(&mut refusals, &batch_of(2, 1, 0, 3), now));
        assert!(waits(&mut refusals, &batch(1, 0, 7), now), "5 has not come");
        assert!(!waits(&mut refusals, &batch_of(4, 1, 0, 3), now));
        assert!(!waits(&mut refusals, &batch(1, 0, 7), now));
        // Refusing again and again does not go on for ever.
        told(&mut refusals, &batch(1, 0, 5), now);
        let later = now + PATIENCE / 2;
        assert!(waits(&mut refusals, &batch(1, 0, 9), later));
        told(&mut refusals, &batch(1, 0, 9), later);
        assert!(!waits(&mut refusals, &batch(1, 0, 9), now + PATIENCE));
        // Unless the awaited batch itself came too early again.
        told(&mut refusals, &batch(1, 0, 5), now);
        told(&mut refusals, &batch(1, 0, 5), later);
        assert!(waits(&mut refusals, &batch(1, 0, 9), now + PATIENCE));
    }

    #[test]
    fn the_earliest_counts_across_the_end_of_the_numbers() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        told(&mut refusals, &batch(1, 0, 2), now);
        told(&mut refusals, &batch(1, 0, i32::MAX), now);
        assert!(waits(&mut refusals, &batch(1, 0, 0), now));
        assert!(!waits(&mut refusals, &batch(1, 0, i32::MAX), now));
    }

    #[test]
    fn a_batch_that_was_given_up_is_forgotten_and_so_is_the_oldest_of_many() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        told(&mut refusals, &batch(1, 0, 5), now);
        assert!(waits(&mut refusals, &batch(1, 0, 7), now));
        assert!(!waits(&mut refusals, &batch(1, 0, 7), now + PATIENCE));
        for producer in 0..=MOST as i64 {
            told(&mut refusals, &batch(producer, 0, 5), now);
        }
        assert_eq!(refusals.0.len(), MOST);
        assert!(!waits(&mut refusals, &batch(0, 0, 7), now));
        assert!(waits(&mut refusals, &batch(1, 0, 7), now));
    }
}
