//! What a coordinator wants stored, and how it is packed into batches.

use crate::replica::Verified;
use bytes::Bytes;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_types::ProducerId;

/// Writes that come together go into batches of about this size.
const BATCH_TARGET: usize = 256 * 1024;
const TRANSACTIONAL: i16 = 0x10;

/// A record to append: key, and value or tombstone.
pub type WriteRecord = (Vec<u8>, Option<Vec<u8>>);

/// Names a write. Rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// A producer in one of its epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: i16,
}

/// Records that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub id: WriteId,
    pub records: Vec<WriteRecord>,
    /// The transaction that they are part of.
    pub transaction: Option<InTransaction>,
}

/// Whose transaction something is part of, and what its coordinator said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTransaction {
    pub producer: Producer,
    pub verified: Verified,
}

/// A batch, the writes in it, and what is known of its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub ids: Vec<WriteId>,
    pub batch: Bytes,
    pub verified: Verified,
}

/// A batch of one record that is part of a producer's transaction: what the log is asked about before the
/// real one is made.
pub fn transactional_sample(producer: Producer) -> Bytes {
    let mut builder = RecordBatchBuilder::new();
    builder.push(0, Some(&[]), None);
    in_transaction(builder, producer).build()
}

fn in_transaction(builder: RecordBatchBuilder, producer: Producer) -> RecordBatchBuilder {
    // As Kafka's coordinators do it: such a batch has a sequence of 0, always.
    builder
        .producer(producer.id, producer.epoch, 0)
        .attributes(TRANSACTIONAL)
}

/// Puts writes into batches, in order; a write is never split, one of a transaction never shares.
pub fn pack(writes: impl Iterator<Item = Write>, now: i64) -> Vec<Packed> {
    let mut packed = Vec::new();
    let mut builder = RecordBatchBuilder::new();
    let mut ids = Vec::new();
    let mut close = |builder: &mut RecordBatchBuilder, ids: &mut Vec<WriteId>, verified| {
        if !builder.is_empty() {
            packed.push(Packed {
                ids: std::mem::take(ids),
                batch: std::mem::take(builder).build(),
                verified,
            });
        }
    };
    for write in writes {
        let size = |(key, value): &WriteRecord| key.len() + value.as_ref().map_or(0, Vec::len) + 32;
        let added: usize = write.records.iter().map(size).sum();
        if write.transaction.is_some() || builder.size() + added > BATCH_TARGET {
            close(&mut builder, &mut ids, Verified::NotAsked);
        }
        for (key, value) in &write.records {
            builder.push(now, Some(key), value.as_deref());
        }
        ids.push(write.id);
        if let Some(InTransaction { producer, verified }) = write.transaction {
            builder = in_transaction(builder, producer);
            close(&mut builder, &mut ids, verified);
        }
    }
    close(&mut builder, &mut ids, Verified::NotAsked);
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::batch::BatchHeader;

    fn write(id: u64, producer: Option<Producer>) -> Write {
        Write {
            id: WriteId(id),
            records: vec![(vec![1], Some(vec![2])), (vec![3], None)],
            transaction: producer.map(|producer| InTransaction {
                producer,
                verified: Verified::NotAsked,
            }),
        }
    }

    #[test]
    fn writes_that_come_together_share_a_batch_but_for_those_of_transactions() {
        let producer = Producer {
            id: ProducerId(7),
            epoch: 2,
        };
        let writes = [
            write(0, None),
            write(1, None),
            write(2, Some(producer)),
            write(3, Some(producer)),
            write(4, None),
        ];
        let packed = pack(writes.into_iter(), 1);
        let ids: Vec<Vec<u64>> = packed
            .iter()
            .map(|packed| packed.ids.iter().map(|id| id.0).collect())
            .collect();
        assert_eq!(ids, [vec![0, 1], vec![2], vec![3], vec![4]]);
        let headers: Vec<_> = packed
            .iter()
            .map(|packed| BatchHeader::parse(&packed.batch).unwrap())
            .collect();
        assert!(!headers[0].is_transactional() && !headers[0].has_producer());
        assert_eq!(headers[0].record_count, 4);
        assert!(headers[1].is_transactional());
        assert_eq!(headers[1].producer_id, ProducerId(7));
        assert_eq!(
            (headers[1].producer_epoch, headers[1].base_sequence),
            (2, 0)
        );
        assert!(!headers[3].is_transactional());
    }
}
