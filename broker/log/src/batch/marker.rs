//! Transaction markers: the control batch that ends a producer's transaction in a partition (KIP-98).
//!
//! Its one record has type and version in the key, and the transaction coordinator's epoch in the value,
//! as Kafka's `EndTxnMarker` schema has them. What it says of the producer is in the batch's header.

use super::{
    ATTRIBUTE_CONTROL, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL, BatchHeader, HEADER_LEN,
    RecordBatchBuilder, parse_head, take_frame, take_int,
};
use bytes::{Buf, Bytes};
use leasehold_types::ProducerId;

/// The types of control records that concern clients.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// The version of key and value.
const VERSION: i16 = 0;

/// The end of a producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction.
    pub producer_id: ProducerId,
    /// The producer's epoch; older ones are fenced from here on.
    pub producer_epoch: i16,
    /// The epoch of the transaction coordinator that decided.
    pub coordinator_epoch: i32,
    /// Whether what the producer wrote counts.
    pub committed: bool,
}

/// Which epoch of its producer a marker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MarkerEpoch {
    /// That of the records which it ends, or a later one.
    #[default]
    Any,
    /// A later one: so it is in version 2 of transactions, where the next transaction has the marker's (KIP-1228).
    Later,
}

impl Marker {
    /// The control batch, for offset 0.
    pub(crate) fn build(&self, now_ms: i64, log_append_time: bool) -> Bytes {
        let kind = if self.committed { COMMIT } else { ABORT };
        let time = if log_append_time {
            ATTRIBUTE_LOG_APPEND_TIME
        } else {
            0
        };
        let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
        let mut value = VERSION.to_be_bytes().to_vec();
        value.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut batch = RecordBatchBuilder::new()
            .attributes(ATTRIBUTE_CONTROL | ATTRIBUTE_TRANSACTIONAL | time)
            .producer(self.producer_id, self.producer_epoch, -1);
        batch.push(now_ms, Some(&key), Some(&value));
        batch.build()
    }

    /// What a control batch says; `bytes` are all of it. `None` if it is no marker: of another type, or
    /// emptied by compaction.
    pub fn parse(header: &BatchHeader, bytes: &[u8]) -> Option<Self> {
        if !header.is_control() || header.record_count < 1 || header.codec() != 0 {
            return None;
        }
        let mut records = bytes.get(HEADER_LEN..header.total_len())?;
        let mut rest = parse_head(take_frame(&mut records)?)?.rest;
        let mut blob = || {
            let len = usize::try_from(take_int(&mut rest)?).ok()?;
            let (blob, left) = rest.split_at_checked(len)?;
            rest = left;
            Some(blob)
        };
        let mut key = blob()?;
        let mut value = blob()?;
        if key.len() < 4 || value.len() < 6 || key.get_i16() < 0 || value.get_i16() < 0 {
            return None;
        }
        let committed = match key.get_i16() {
            ABORT => false,
            COMMIT => true,
            _ => return None,
        };
        Some(Self {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch: value.get_i32(),
            committed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use proptest::prelude::*;

    fn marker(committed: bool) -> Marker {
        Marker {
            producer_id: ProducerId(7),
            producer_epoch: 3,
            coordinator_epoch: 12,
            committed,
        }
    }

    #[test]
    fn a_marker_is_read_back_and_has_kafkas_bytes() {
        for committed in [false, true] {
            let bytes = marker(committed).build(1000, false);
            let header = BatchHeader::parse(&bytes).unwrap();
            header.check_crc(&bytes).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.base_sequence, header.record_count), (-1, 1));
            assert_eq!(Marker::parse(&header, &bytes), Some(marker(committed)));
            let record = Batch { header, bytes }.records().unwrap().next().unwrap();
            let record = record.unwrap();
            assert_eq!(record.key.unwrap(), [0, 0, 0, u8::from(committed)][..]);
            assert_eq!(record.value.unwrap(), [0, 0, 0, 0, 0, 12][..]);
        }
    }

    #[test]
    fn other_batches_are_no_markers() {
        let bytes = marker(true).build(1000, false);
        let mut header = BatchHeader::parse(&bytes).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(Marker::parse(&header, &bytes[..len]), None);
        }
        header.attributes = ATTRIBUTE_TRANSACTIONAL;
        assert_eq!(Marker::parse(&header, &bytes), None);
        header.attributes = ATTRIBUTE_CONTROL;
        header.record_count = 0;
        assert_eq!(Marker::parse(&header, &bytes), None);
    }

    proptest! {
        #[test]
        fn hostile_control_records_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = marker(true).build(1000, false)[..HEADER_LEN].to_vec();
            bytes.extend_from_slice(&body);
            let len = (bytes.len() - 12) as i32;
            bytes[8..12].copy_from_slice(&len.to_be_bytes());
            let header = BatchHeader::parse(&bytes).unwrap();
            let _ = Marker::parse(&header, &bytes);
        }
    }
}
