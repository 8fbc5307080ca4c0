//! What lies in `__transaction_state`, in Apache Kafka's own record format: its tools can read the
//! topic, and a log that Kafka wrote can be loaded.
//!
//! TransactionLogKey 0 with TransactionLogValue 0, or 1 after an end in transactions v2, whose tagged fields tell what a
//! repeated end must find. Another key, or another tag, is none of ours, and skipped.

use super::state::{Metadata, NO_PRODUCER, State};
use super::types::Partitions;
use crate::coordinator::fields::{FieldError, Fields, put_str};
use crate::group::store::flexible::{put_compact_str, put_tags, put_uvarint};
use leasehold_log::batch::Batch;
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, ProducerId};

/// The key of a transactional id.
pub fn encode_key(id: &str) -> Result<Vec<u8>, FieldError> {
    let mut out = vec![0, 0];
    put_str(&mut out, id)?;
    Ok(out)
}

fn decode_key(bytes: &[u8]) -> Result<Option<String>, FieldError> {
    let mut fields = Fields(bytes);
    Ok(match fields.i16()? {
        0 => Some(fields.str()?.to_owned()),
        _ => None,
    })
}

/// Tags of TransactionLogValue 1.
const LAST_PRODUCER: u32 = 0;
const NEXT_PRODUCER: u32 = 1;
const CLIENT_VERSION: u32 = 2;

/// What a client of transactions v2 is stored as.
const V2: i16 = 2;

/// The value of a transactional id.
pub fn encode_value(metadata: &Metadata) -> Result<Vec<u8>, FieldError> {
    let flexible = metadata.bumped;
    let mut out = Vec::new();
    out.extend_from_slice(&i16::from(flexible).to_be_bytes());
    out.extend_from_slice(&metadata.producer.0.to_be_bytes());
    out.extend_from_slice(&metadata.epoch.to_be_bytes());
    out.extend_from_slice(&metadata.timeout_ms.to_be_bytes());
    out.push(metadata.state as u8);
    if metadata.state == State::Empty {
        put_count(&mut out, None, flexible)?;
    } else {
        put_count(&mut out, Some(metadata.partitions.len()), flexible)?;
        for (topic, partitions) in &metadata.partitions {
            match flexible {
                true => put_compact_str(&mut out, topic)?,
                false => put_str(&mut out, topic)?,
            }
            put_count(&mut out, Some(partitions.len()), flexible)?;
            for partition in partitions {
                out.extend_from_slice(&partition.to_be_bytes());
            }
            if flexible {
                put_uvarint(&mut out, 0);
            }
        }
    }
    out.extend_from_slice(&metadata.updated.to_be_bytes());
    out.extend_from_slice(&metadata.started.to_be_bytes());
    if flexible {
        put_tags(&mut out, &tags(metadata));
    }
    Ok(out)
}

fn tags(metadata: &Metadata) -> Vec<(u32, Vec<u8>)> {
    let producers = [
        (LAST_PRODUCER, metadata.last_producer),
        (NEXT_PRODUCER, metadata.next_producer),
    ];
    let told = producers.into_iter().filter(|(_, id)| *id != NO_PRODUCER);
    let bytes = |(tag, id): (u32, ProducerId)| (tag, id.0.to_be_bytes().to_vec());
    let mut tags: Vec<_> = told.map(bytes).collect();
    tags.push((CLIENT_VERSION, V2.to_be_bytes().to_vec()));
    tags
}

/// The length of an array; `None` for a null one.
fn put_count(out: &mut Vec<u8>, len: Option<usize>, flexible: bool) -> Result<(), FieldError> {
    let fits = |len: usize| i32::try_from(len).map_err(|_| FieldError::TooLong(len));
    match (flexible, len.map(fits).transpose()?) {
        (true, len) => put_uvarint(out, len.map_or(0, |len| len.unsigned_abs() + 1)),
        (false, len) => out.extend_from_slice(&len.unwrap_or(-1).to_be_bytes()),
    }
    Ok(())
}

fn decode_value(bytes: &[u8]) -> Result<Option<Metadata>, FieldError> {
    let mut fields = Fields(bytes);
    let flexible = match fields.i16()? {
        0 => false,
        1 => true,
        _ => return Ok(None),
    };
    let producer = ProducerId(fields.i64()?);
    let epoch = fields.i16()?;
    let timeout_ms = fields.i32()?;
    let Some(state) = State::from_id(fields.i8()?) else {
        return Ok(None);
    };
    let mut partitions = Partitions::new();
    // No count sizes anything: every entry takes bytes of those that are there.
    for _ in 0..count(&mut fields, flexible)? {
        let topic = match flexible {
            true => fields.compact_str()?,
            false => fields.str()?,
        };
        let of_topic = partitions.entry(topic.to_owned()).or_default();
        for _ in 0..count(&mut fields, flexible)? {
            of_topic.insert(fields.i32()?);
        }
        if flexible {
            fields.skip_tags()?;
        }
    }
    let mut metadata = Metadata {
        producer,
        last_producer: NO_PRODUCER,
        next_producer: NO_PRODUCER,
        epoch,
        last_epoch: -1,
        timeout_ms,
        state,
        partitions,
        updated: fields.i64()?,
        started: fields.i64()?,
        bumped: false,
    };
    if flexible {
        read_tags(&mut fields, &mut metadata)?;
    }
    Ok(Some(metadata))
}

fn read_tags(fields: &mut Fields<'_>, metadata: &mut Metadata) -> Result<(), FieldError> {
    for _ in 0..fields.uvarint()? {
        let (tag, len) = (fields.uvarint()?, fields.uvarint()?);
        let mut value = Fields(fields.take(len as usize)?);
        match tag {
            LAST_PRODUCER => metadata.last_producer = ProducerId(value.i64()?),
            NEXT_PRODUCER => metadata.next_producer = ProducerId(value.i64()?),
            CLIENT_VERSION => metadata.bumped = value.i16()? >= V2,
            _ => {}
        }
    }
    Ok(())
}

/// The length of an array; a null one has none.
fn count(fields: &mut Fields<'_>, flexible: bool) -> Result<u32, FieldError> {
    Ok(match flexible {
        true => fields.uvarint()?.saturating_sub(1),
        false => u32::try_from(fields.i32()?).unwrap_or(0),
    })
}

/// The state of a partition's transactional ids, as its log tells. A record that cannot be understood is
/// counted and passed over; it never keeps the others from being served.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By transactional id.
    pub transactions: HashMap<String, Metadata>,
    /// Records seen.
    pub records: u64,
    /// Records and batches passed over.
    pub skipped: u64,
}

impl Loaded {
    /// The next batch of the log; its records count from `from` on.
    pub fn apply_batch(&mut self, batch: &Batch, from: Offset) {
        // Nobody writes transactions into this topic.
        if batch.header.is_control() || batch.header.is_transactional() {
            self.skipped += 1;
            return;
        }
        let Ok(records) = batch.unpacked().and_then(|batch| batch.records()) else {
            self.skipped += 1;
            return;
        };
        for record in records {
            match record {
                Ok(record) if record.offset >= from => {
                    self.apply(record.key.as_deref(), record.value.as_deref());
                }
                Ok(_) => {}
                Err(_) => self.skipped += 1,
            }
        }
    }

    /// The next record.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.records += 1;
        if self.try_apply(key, value).is_none() {
            self.skipped += 1;
        }
    }

    fn try_apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<()> {
        let id = decode_key(key?).ok()??;
        match value {
            Some(value) => {
                let metadata = decode_value(value).ok()??;
                self.transactions.insert(id, metadata);
            }
            None => drop(self.transactions.remove(&id)),
        }
        Some(())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
