//! Builds uncompressed batches, as a producer would: for what the broker itself writes, and tests.

use super::{CRC_START, HEADER_LEN, LENGTH_PREFIX, varint};
use bytes::Bytes;
use leasehold_types::{LeaderEpoch, Offset, ProducerId};

/// Collects records and builds one batch of them. Base offset 0 and leader epoch -1 unless told.
#[derive(Clone, Debug)]
pub struct RecordBatchBuilder {
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    attributes: i16,
    producer: (ProducerId, i16, i32),
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    records: Vec<u8>,
    frame: Vec<u8>,
}

impl Default for RecordBatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordBatchBuilder {
    /// A batch without records.
    pub fn new() -> Self {
        Self {
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::NONE,
            attributes: 0,
            producer: (ProducerId(-1), -1, -1),
            base_timestamp: -1,
            max_timestamp: -1,
            count: 0,
            records: Vec::new(),
            frame: Vec::new(),
        }
    }

    /// As it would lie in a log: what a follower is given.
    pub fn at(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        self.base_offset = base_offset;
        self.leader_epoch = leader_epoch;
        self
    }

    /// From an idempotent producer.
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Sets the attributes' bits; the records stay uncompressed whatever they say.
    pub fn attributes(mut self, attributes: i16) -> Self {
        self.attributes = attributes;
        self
    }

    /// Adds a record without headers.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> &mut Self {
        self.push_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record.
    pub fn push_with_headers(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Self {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let frame = &mut self.frame;
        frame.clear();
        frame.push(0);
        varint::put(frame, timestamp.saturating_sub(self.base_timestamp));
        varint::put(frame, i64::from(self.count));
        put_blob(frame, key);
        put_blob(frame, value);
        varint::put(frame, headers.len() as i64);
        for (name, value) in headers {
            put_blob(frame, Some(name));
            put_blob(frame, *value);
        }
        varint::put(&mut self.records, self.frame.len() as i64);
        self.records.extend_from_slice(&self.frame);
        self.count += 1;
        self
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size that the batch would have now.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// The batch. One without records is well-formed, but no leader appends it.
    pub fn build(&self) -> Bytes {
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let mut out = Vec::with_capacity(self.size());
        out.extend_from_slice(&self.base_offset.0.to_be_bytes());
        let length = (self.size() - LENGTH_PREFIX) as i32;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.leader_epoch.0.to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.attributes.to_be_bytes());
        out.extend_from_slice(&(self.count - 1).max(0).to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&producer_id.0.to_be_bytes());
        out.extend_from_slice(&producer_epoch.to_be_bytes());
        out.extend_from_slice(&base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.records);
        let crc = crc32c::crc32c(&out[CRC_START..]);
        out[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        out.into()
    }
}

fn put_blob(out: &mut Vec<u8>, blob: Option<&[u8]>) {
    match blob {
        Some(blob) => {
            varint::put(out, blob.len() as i64);
            out.extend_from_slice(blob);
        }
        None => varint::put(out, -1),
    }
}
