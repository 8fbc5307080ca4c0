//! What lies in `__transaction_state`, in Apache Kafka's own record format: its tools can read the
//! topic, and a log that Kafka wrote can be loaded.
//!
//! Written: TransactionLogKey 0 with TransactionLogValue 0. Read: values 0 and 1 (whose tagged fields
//! belong to transactions v2 and are passed over); another key is none of ours, and skipped.

use super::state::{Metadata, State};
use super::types::Partitions;
use crate::coordinator::fields::{FieldError, Fields, put_str};
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

/// The value of a transactional id.
pub fn encode_value(metadata: &Metadata) -> Result<Vec<u8>, FieldError> {
    let mut out = Vec::new();
    out.extend_from_slice(&0i16.to_be_bytes());
    out.extend_from_slice(&metadata.producer.0.to_be_bytes());
    out.extend_from_slice(&metadata.epoch.to_be_bytes());
    out.extend_from_slice(&metadata.timeout_ms.to_be_bytes());
    out.push(metadata.state as u8);
    let count = |len: usize| i32::try_from(len).map_err(|_| FieldError::TooLong(len));
    if metadata.state == State::Empty {
        out.extend_from_slice(&(-1i32).to_be_bytes());
    } else {
        out.extend_from_slice(&count(metadata.partitions.len())?.to_be_bytes());
        for (topic, partitions) in &metadata.partitions {
            put_str(&mut out, topic)?;
            out.extend_from_slice(&count(partitions.len())?.to_be_bytes());
            for partition in partitions {
                out.extend_from_slice(&partition.to_be_bytes());
            }
        }
    }
    out.extend_from_slice(&metadata.updated.to_be_bytes());
    out.extend_from_slice(&metadata.started.to_be_bytes());
    Ok(out)
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
    Ok(Some(Metadata {
        producer,
        last_producer: ProducerId(-1),
        epoch,
        last_epoch: -1,
        timeout_ms,
        state,
        partitions,
        updated: fields.i64()?,
        started: fields.i64()?,
    }))
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
