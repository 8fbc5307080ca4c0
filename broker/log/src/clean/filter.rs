//! What is left of a batch.
//!
//! Works on the records' frames as they are: nothing in a record changes but, where a delete horizon
//! is set, the time delta, as the batch's base timestamp is then another. A batch of which all is left
//! stays byte for byte.

use super::LastOffsets;
use crate::batch::{
    self, ATTRIBUTE_CODEC, ATTRIBUTE_DELETE_HORIZON, Batch, BatchError, BatchHeader, CRC_START,
    HEADER_LEN, LENGTH_PREFIX, RecordHead,
};
use bytes::Bytes;
use leasehold_types::{Offset, ProducerId};
use std::collections::HashMap;

/// By what a cleaning judges.
pub(crate) struct Rules<'a> {
    pub keys: &'a LastOffsets,
    /// Where the last batch of each known producer ends.
    pub producers: &'a HashMap<ProducerId, Offset>,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

/// A batch's fate.
#[derive(Debug, PartialEq)]
pub(crate) enum Filtered {
    /// It stays as it is.
    Same,
    /// It is replaced by these bytes.
    Changed(Bytes),
    /// It goes.
    Gone,
}

/// One record: its frame as it lies in the batch, length included, and what the rules look at.
struct Frame<'a> {
    bytes: &'a [u8],
    head: RecordHead<'a>,
    key: Option<&'a [u8]>,
    is_tombstone: bool,
}

/// Judges one batch; with `must_stay`, it stays even if nothing is left in it.
pub(crate) fn filter(
    batch: &Batch,
    rules: &Rules<'_>,
    must_stay: bool,
) -> Result<Filtered, BatchError> {
    let header = &batch.header;
    if header.is_control() {
        // Transaction markers have rules of their own. As there are no transactions yet, a log holds
        // none of our making, and what it holds is left alone.
        return Ok(Filtered::Same);
    }
    let known = rules.producers.get(&header.producer_id);
    let must_stay = must_stay || (header.has_producer() && known == Some(&header.last_offset()));
    if header.record_count == 0 {
        return Ok(match must_stay {
            true => Filtered::Same,
            false => Filtered::Gone,
        });
    }
    let records = batch::unpack(header.codec(), &batch.bytes[HEADER_LEN..])?;
    let mut left = Vec::new();
    for frame in frames(header, &records) {
        let frame = frame?;
        if stays(&frame, header, rules) {
            left.push(frame);
        }
    }
    let sets_horizon = header.delete_horizon().is_none() && left.iter().any(|f| f.is_tombstone);
    if left.len() == header.record_count as usize && !sets_horizon {
        return Ok(Filtered::Same);
    }
    if left.is_empty() {
        return Ok(match must_stay {
            true => Filtered::Changed(emptied(batch)),
            false => Filtered::Gone,
        });
    }
    let horizon = sets_horizon.then(|| rules.now_ms.saturating_add(rules.delete_retention_ms));
    rebuilt(batch, &left, horizon).map(Filtered::Changed)
}

/// The offsets and keys of a batch's records; none of control batches, which hold no keys of the
/// topic's. A record without a key is left out, and so not kept: nothing can be the last of no key.
pub(crate) fn keyed_records(
    batch: &Batch,
    mut visit: impl FnMut(Offset, &[u8]) -> bool,
) -> Result<bool, BatchError> {
    let header = &batch.header;
    if header.is_control() || header.record_count == 0 {
        return Ok(true);
    }
    let records = batch::unpack(header.codec(), &batch.bytes[HEADER_LEN..])?;
    for frame in frames(header, &records) {
        let frame = frame?;
        if let Some(key) = frame.key
            && !visit(offset_of(&frame, header), key)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn stays(frame: &Frame<'_>, header: &BatchHeader, rules: &Rules<'_>) -> bool {
    let offset = offset_of(frame, header);
    if offset >= rules.keys.end() {
        return true;
    }
    let Some(key) = frame.key else {
        return false;
    };
    let expired = header.delete_horizon().is_some_and(|at| at <= rules.now_ms);
    let may_go = frame.is_tombstone && expired;
    !may_go && !rules.keys.is_superseded(key, offset)
}

fn offset_of(frame: &Frame<'_>, header: &BatchHeader) -> Offset {
    Offset(header.base_offset.0 + i64::from(frame.head.offset_delta))
}

/// The records one by one; after an error, none. As many as the header says, or it is an error.
fn frames<'a>(
    header: &BatchHeader,
    mut records: &'a [u8],
) -> impl Iterator<Item = Result<Frame<'a>, BatchError>> {
    let (count, last_delta) = (header.record_count, header.last_offset_delta);
    let mut index = 0;
    let mut before = -1;
    std::iter::from_fn(move || {
        if index >= count {
            return None;
        }
        let found = take(&mut records).filter(|frame| {
            let delta = frame.head.offset_delta;
            delta > before && delta <= last_delta
        });
        let Some(frame) = found else {
            let what = "it is malformed";
            let broken = BatchError::Record { index, what };
            index = count;
            return Some(Err(broken));
        };
        before = frame.head.offset_delta;
        index += 1;
        Some(Ok(frame))
    })
}

fn take<'a>(records: &mut &'a [u8]) -> Option<Frame<'a>> {
    let all = *records;
    let frame = batch::take_frame(records)?;
    let bytes = &all[..all.len() - records.len()];
    let head = batch::parse_head(frame)?;
    let mut rest = head.rest;
    let key = match usize::try_from(batch::take_int(&mut rest)?) {
        Ok(len) => {
            let (key, more) = rest.split_at_checked(len)?;
            rest = more;
            Some(key)
        }
        Err(_) => None,
    };
    let is_tombstone = batch::take_int(&mut rest)? < 0;
    Some(Frame {
        bytes,
        head,
        key,
        is_tombstone,
    })
}

/// The batch with the records that are `left`, and with a delete horizon if one is to be set.
fn rebuilt(batch: &Batch, left: &[Frame<'_>], horizon: Option<i64>) -> Result<Bytes, BatchError> {
    let mut header = batch.header;
    let time = |frame: &Frame<'_>| {
        let base = batch.header.base_timestamp;
        base.saturating_add(frame.head.timestamp_delta)
    };
    let mut records = Vec::new();
    if let Some(horizon) = horizon {
        header.attributes |= ATTRIBUTE_DELETE_HORIZON;
        header.base_timestamp = horizon;
        let mut body = Vec::new();
        for frame in left {
            body.clear();
            // The attributes, of which none is defined.
            body.push(0);
            batch::put_varint(&mut body, time(frame).saturating_sub(horizon));
            batch::put_varint(&mut body, frame.head.offset_delta.into());
            body.extend_from_slice(frame.head.rest);
            batch::put_varint(&mut records, body.len() as i64);
            records.extend_from_slice(&body);
        }
    } else {
        for frame in left {
            records.extend_from_slice(frame.bytes);
        }
    }
    // The leader's time is every record's, however few are left.
    if !header.is_log_append_time() {
        header.max_timestamp = left.iter().map(time).max().unwrap_or(-1);
    }
    header.record_count = left.len() as i32;
    Ok(encode(&header, &batch::pack(header.codec(), &records)?))
}

/// The batch without records: what is left to say which offsets and sequences it had.
fn emptied(batch: &Batch) -> Bytes {
    let mut header = batch.header;
    header.attributes &= !(ATTRIBUTE_CODEC | ATTRIBUTE_DELETE_HORIZON);
    header.base_timestamp = header.max_timestamp;
    header.record_count = 0;
    encode(&header, &[])
}

fn encode(header: &BatchHeader, records: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_LEN + records.len());
    out.extend_from_slice(&header.base_offset.0.to_be_bytes());
    let length = HEADER_LEN - LENGTH_PREFIX + records.len();
    out.extend_from_slice(&(length as i32).to_be_bytes());
    out.extend_from_slice(&header.leader_epoch.0.to_be_bytes());
    out.push(2);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header.attributes.to_be_bytes());
    out.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    out.extend_from_slice(&header.base_timestamp.to_be_bytes());
    out.extend_from_slice(&header.max_timestamp.to_be_bytes());
    out.extend_from_slice(&header.producer_id.0.to_be_bytes());
    out.extend_from_slice(&header.producer_epoch.to_be_bytes());
    out.extend_from_slice(&header.base_sequence.to_be_bytes());
    out.extend_from_slice(&header.record_count.to_be_bytes());
    out.extend_from_slice(records);
    let crc = crc32c::crc32c(&out[CRC_START..]);
    out[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    out.into()
}
