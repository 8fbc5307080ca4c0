//! What is left of a batch.
//!
//! Works on the records' frames as they are: nothing in a record changes but, where a delete horizon
//! is set, the time delta, as the batch's base timestamp is then another. A batch of which all is left
//! stays byte for byte.

use super::{Fate, LastOffsets};
use crate::batch::{
    self, ATTRIBUTE_CODEC, ATTRIBUTE_DELETE_HORIZON, Batch, BatchError, BatchHeader, CRC_START,
    HEADER_LEN, LENGTH_PREFIX, RecordHead,
};
use crate::producers::LastRecord;
use bytes::Bytes;
use leasehold_types::seams::{HashMap, taken_out};
use leasehold_types::{Offset, ProducerId};

/// By what a cleaning judges.
pub(crate) struct Rules<'a> {
    pub keys: &'a LastOffsets,
    /// What must stay of each known producer.
    pub producers: &'a HashMap<ProducerId, LastRecord>,
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
    fate: Fate,
    must_stay: bool,
) -> Result<Filtered, BatchError> {
    let header = &batch.header;
    let must_stay = must_stay || is_last_of_producer(header, rules);
    if fate == (Fate::Marker { needed: true }) {
        return Ok(Filtered::Same);
    }
    if header.record_count == 0 {
        return Ok(match must_stay {
            true => Filtered::Same,
            false => Filtered::Gone,
        });
    }
    let without_records = || match must_stay {
        true => Filtered::Changed(emptied(batch)),
        false => Filtered::Gone,
    };
    match fate {
        Fate::Aborted => return Ok(without_records()),
        Fate::Marker { .. } => return alone(batch, rules, without_records),
        Fate::Counts => {}
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
        return Ok(without_records());
    }
    let horizon = sets_horizon.then(|| rules.horizon());
    rebuilt(batch, &left, horizon).map(Filtered::Changed)
}

/// A marker of whose transaction nothing is left: it gets a delete horizon, and goes when that has passed.
fn alone(
    batch: &Batch,
    rules: &Rules<'_>,
    without_records: impl FnOnce() -> Filtered,
) -> Result<Filtered, BatchError> {
    match batch.header.delete_horizon() {
        Some(horizon) if horizon <= rules.now_ms => Ok(without_records()),
        Some(_) => Ok(Filtered::Same),
        None => {
            let header = &batch.header;
            let records = batch::unpack(header.codec(), &batch.bytes[HEADER_LEN..])?;
            let all = frames(header, &records).collect::<Result<Vec<_>, _>>()?;
            rebuilt(batch, &all, Some(rules.horizon())).map(Filtered::Changed)
        }
    }
}

/// Whether nothing else in the log says what must be known of the producer.
fn is_last_of_producer(header: &BatchHeader, rules: &Rules<'_>) -> bool {
    let last = rules.producers.get(&header.producer_id);
    match last.filter(|_| header.has_producer()) {
        None => false,
        Some(LastRecord::Batch(at)) => {
            *at == header.last_offset() && !taken_out("a-producers-last-batch-stays")
        }
        Some(LastRecord::Marker(epoch)) => header.is_control() && *epoch == header.producer_epoch,
    }
}

impl Rules<'_> {
    /// From when on a deletion that is met now for the first time need not be heard of.
    fn horizon(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
}

/// The offsets and keys of a batch's records, which must not be a control batch: that holds no keys of the
/// topic's. A record without a key is left out, and so not kept: nothing can be the last of no key.
pub(crate) fn keyed_records(
    batch: &Batch,
    mut visit: impl FnMut(Offset, &[u8]) -> bool,
) -> Result<bool, BatchError> {
    let header = &batch.header;
    if header.record_count == 0 {
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
    let expired = header
        .delete_horizon()
        .is_some_and(|at| at <= rules.now_ms || taken_out("a-tombstone-stays-for-its-time"));
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
