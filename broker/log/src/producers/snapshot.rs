//! A snapshot's content. The fields are those of Kafka's producer snapshots, with all of the last batches, and
//! the transactions that have ended where that might still be lost.

use super::{KEPT_BATCHES, Producer, Producers, Written};
use crate::{LogError, disk};
use bytes::Buf;
use leasehold_types::{Offset, ProducerId};
use std::collections::BTreeMap;
use std::path::Path;

/// As snapshots began before there were transactions.
const MAGIC_1: u32 = 0x4c48_5001;
const MAGIC: u32 = 0x4c48_5002;
const BATCH_LEN: usize = 4 + 4 + 8 + 4 + 8;
const PRODUCER_LEN: usize = 8 + 2 + 1;
const TRANSACTION_LEN: usize = 4 + 8 + 8;

/// The state before an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub producers: Producers,
    /// Transactions that have ended, by the marker's offset, with their first.
    pub ended: BTreeMap<Offset, Offset>,
}

impl Snapshot {
    /// Writes a snapshot; not fsynced, as the log itself can make up for it.
    pub fn save(
        producers: &Producers,
        ended: &BTreeMap<Offset, Offset>,
        path: &Path,
    ) -> Result<(), LogError> {
        disk::write(path, &encode(producers, ended)).map(drop)
    }

    /// Reads a snapshot; `None` if there is none, or it is torn.
    pub fn load(path: &Path) -> Result<Option<Self>, LogError> {
        let content = disk::read_if_there(path)?;
        Ok(content.and_then(|content| Self::decode(&content)))
    }

    /// A snapshot's content; `None` if it is damaged.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let (mut head, mut body) = content.split_at_checked(8)?;
        let magic = head.get_u32();
        if head.get_u32() != crc32c::crc32c(body) {
            return None;
        }
        let mut snapshot = Self::default();
        let knows_transactions = match magic {
            MAGIC => true,
            MAGIC_1 => false,
            _ => return None,
        };
        if knows_transactions {
            let count = body.try_get_u32().ok()?;
            for _ in 0..count {
                let marker = Offset(body.try_get_i64().ok()?);
                let first = Offset(body.try_get_i64().ok()?);
                snapshot.ended.insert(marker, first);
            }
        }
        while !body.is_empty() {
            let (id, producer) = producer(&mut body, knows_transactions)?;
            snapshot.producers.by_id.insert(id, producer);
        }
        Some(snapshot)
    }
}

fn encode(producers: &Producers, ended: &BTreeMap<Offset, Offset>) -> Vec<u8> {
    let mut body = (ended.len() as u32).to_be_bytes().to_vec();
    for (marker, first) in ended {
        body.extend_from_slice(&marker.0.to_be_bytes());
        body.extend_from_slice(&first.0.to_be_bytes());
    }
    for (id, producer) in &producers.by_id {
        body.extend_from_slice(&id.0.to_be_bytes());
        body.extend_from_slice(&producer.epoch.to_be_bytes());
        body.push(producer.batches.len() as u8);
        body.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
        body.extend_from_slice(&producer.last_timestamp.to_be_bytes());
        let open = producer.open_since.unwrap_or(Offset(-1));
        body.extend_from_slice(&open.0.to_be_bytes());
        for b in &producer.batches {
            body.extend_from_slice(&b.first_sequence.to_be_bytes());
            body.extend_from_slice(&b.last_sequence.to_be_bytes());
            body.extend_from_slice(&b.last_offset.0.to_be_bytes());
            body.extend_from_slice(&b.offset_delta.to_be_bytes());
            body.extend_from_slice(&b.timestamp.to_be_bytes());
        }
    }
    let mut content = MAGIC.to_be_bytes().to_vec();
    content.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    content.extend_from_slice(&body);
    content
}

fn producer(body: &mut &[u8], knows_transactions: bool) -> Option<(ProducerId, Producer)> {
    if body.len() < PRODUCER_LEN {
        return None;
    }
    let id = ProducerId(body.get_i64());
    let mut producer = Producer::new(body.get_i16());
    let count = usize::from(body.get_u8());
    if knows_transactions {
        if body.len() < TRANSACTION_LEN {
            return None;
        }
        producer.coordinator_epoch = body.get_i32();
        producer.last_timestamp = body.get_i64();
        producer.open_since = Some(Offset(body.get_i64())).filter(|at| at.0 >= 0);
    }
    if count > KEPT_BATCHES || body.len() < count * BATCH_LEN {
        return None;
    }
    let batches = (0..count).map(|_| Written {
        first_sequence: body.get_i32(),
        last_sequence: body.get_i32(),
        last_offset: Offset(body.get_i64()),
        offset_delta: body.get_i32(),
        timestamp: body.get_i64(),
    });
    producer.batches = batches.collect();
    if !knows_transactions {
        producer.last_timestamp = producer.batches.back()?.timestamp;
    }
    Some((id, producer))
}

#[cfg(test)]
pub(super) fn first_format(producers: &Producers) -> Vec<u8> {
    let mut body = Vec::new();
    for (id, p) in &producers.by_id {
        body.extend_from_slice(&id.0.to_be_bytes());
        body.extend_from_slice(&p.epoch.to_be_bytes());
        body.push(p.batches.len() as u8);
        for b in &p.batches {
            body.extend_from_slice(&b.first_sequence.to_be_bytes());
            body.extend_from_slice(&b.last_sequence.to_be_bytes());
            body.extend_from_slice(&b.last_offset.0.to_be_bytes());
            body.extend_from_slice(&b.offset_delta.to_be_bytes());
            body.extend_from_slice(&b.timestamp.to_be_bytes());
        }
    }
    let mut content = MAGIC_1.to_be_bytes().to_vec();
    content.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    content.extend_from_slice(&body);
    content
}
