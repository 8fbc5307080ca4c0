//! The records inside an uncompressed batch.

use super::varint::{take_int, take_long};
use super::{Batch, BatchError, BatchHeader, HEADER_LEN};
use bytes::Bytes;
use leasehold_types::Offset;

/// One record. Key, value and headers share the batch's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970: the producer's, or the leader's for LogAppendTime.
    pub timestamp: i64,
    /// `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// `None` is Kafka's null: a tombstone.
    pub value: Option<Bytes>,
    /// In the order sent; keys may repeat and need not be UTF-8.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Iterator over a batch's records; see [`Batch::records`]. After an error it ends.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    bytes: Bytes,
    index: i32,
}

impl Records {
    pub(super) fn new(batch: &Batch) -> Result<Self, BatchError> {
        if batch.header.codec() != 0 {
            return Err(BatchError::Compressed(batch.header.codec()));
        }
        let have = batch.bytes.len();
        let need = batch.header.total_len();
        if have < need {
            return Err(BatchError::Truncated { have, need });
        }
        Ok(Self {
            header: batch.header,
            bytes: batch.bytes.slice(HEADER_LEN..need),
            index: 0,
        })
    }

    fn decode(&mut self) -> Result<Record, BatchError> {
        let index = self.index;
        let broken = |what| BatchError::Record { index, what };
        let mut rest = &self.bytes[..];
        let frame = take_frame(&mut rest).ok_or(broken("its length is not that of the bytes"))?;
        let head = parse_head(frame).ok_or(broken("its fixed fields are cut short"))?;
        let mut rest = head.rest;
        let mut headers = Vec::new();
        let blob = |rest: &mut &[u8], what| -> Result<Option<Bytes>, BatchError> {
            let len = take_int(rest).ok_or(broken(what))?;
            let Ok(len) = usize::try_from(len) else {
                return Ok(None);
            };
            let (taken, left) = rest.split_at_checked(len).ok_or(broken(what))?;
            *rest = left;
            Ok(Some(self.bytes.slice_ref(taken)))
        };
        let key = blob(&mut rest, "its key is longer than the record")?;
        let value = blob(&mut rest, "its value is longer than the record")?;
        // The count sizes nothing: each header takes at least two bytes of those that are there.
        let count = take_int(&mut rest).ok_or(broken("it has no header count"))?;
        for _ in 0..count {
            let name = blob(&mut rest, "a header's key is longer than the record")?
                .ok_or(broken("a header's key is null"))?;
            let value = blob(&mut rest, "a header's value is longer than the record")?;
            headers.push((name, value));
        }
        if !rest.is_empty() || count < 0 {
            return Err(broken("its headers do not end where it ends"));
        }
        let header = &self.header;
        let record = Record {
            offset: Offset(
                header
                    .base_offset
                    .0
                    .saturating_add(i64::from(head.offset_delta)),
            ),
            timestamp: if header.is_log_append_time() {
                header.max_timestamp
            } else {
                header.base_timestamp.saturating_add(head.timestamp_delta)
            },
            key,
            value,
            headers,
        };
        let used = self.bytes.len() - rest_len(&self.bytes, frame);
        self.bytes = self.bytes.slice(used..);
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.record_count {
            return None;
        }
        let record = self.decode();
        self.index = match record {
            Ok(_) => self.index + 1,
            Err(_) => i32::MAX,
        };
        Some(record)
    }
}

/// How many bytes of `all` lie after `frame`, a slice of it.
fn rest_len(all: &[u8], frame: &[u8]) -> usize {
    let end = frame.as_ptr() as usize + frame.len();
    all.as_ptr() as usize + all.len() - end
}

/// The fields at a record's front.
#[derive(Clone, Copy)]
pub(crate) struct RecordHead<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    /// Key, value, headers.
    pub rest: &'a [u8],
}

/// Takes one record's bytes, without the length before them.
pub(crate) fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_int(bytes)?).ok()?;
    let (frame, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(frame)
}

/// Parses the front of what [`take_frame`] gave.
pub(crate) fn parse_head(frame: &[u8]) -> Option<RecordHead<'_>> {
    // One byte of attributes, all unused.
    let mut rest = frame.get(1..)?;
    let timestamp_delta = take_long(&mut rest)?;
    let offset_delta = take_int(&mut rest)?;
    Some(RecordHead {
        timestamp_delta,
        offset_delta,
        rest,
    })
}
