//! Record batches of format v2: header, checks, iteration, records, building.
//!
//! The broker keeps batches as bytes and reads only their 61-byte header; records are decoded
//! where the broker itself is the reader (`__consumer_offsets`), in compacted topics, where a topic has a
//! codec of its own, and in tests. Nothing here trusts
//! a length or a count: each is held against the bytes that are really there.

mod builder;
mod codec;
mod marker;
mod record;
mod varint;

pub use builder::RecordBatchBuilder;
#[cfg(test)]
pub(crate) use codec::packed;
pub(crate) use codec::{GZIP, LZ4, SNAPPY, Unpacked, ZSTD, pack, pack_at, unpack};
pub use marker::{Marker, MarkerEpoch};
pub use record::{Record, Records};
pub(crate) use record::{RecordHead, parse_head, take_frame};
pub(crate) use varint::{put as put_varint, take_int};

use bytes::{Buf, Bytes};
use leasehold_types::{LeaderEpoch, Offset, ProducerId};

/// Bytes of a batch's header; the records follow.
pub const HEADER_LEN: usize = 61;
/// Bytes before those that the length field counts: base offset and length itself.
pub const LENGTH_PREFIX: usize = 12;
/// The CRC covers everything from here on.
pub const CRC_START: usize = 21;

pub(crate) const ATTRIBUTE_CODEC: i16 = 0x07;
pub(crate) const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub(crate) const ATTRIBUTE_CONTROL: i16 = 0x20;
pub(crate) const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

/// What is wrong with the bytes of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header, or than its length field, promise.
    #[error("{have} bytes, of {need}")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A length that no batch can have.
    #[error("length field {0} is below that of an empty batch")]
    Length(i32),
    /// Not format v2.
    #[error("message format v{0}, where only v2 is supported")]
    Magic(i8),
    /// The CRC does not match.
    #[error("CRC32C is {computed:#010x}, the header says {stored:#010x}")]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// The records are compressed: in a codec that does not exist, or where none is expected.
    #[error("the records are compressed (codec {0})")]
    Compressed(i16),
    /// The compressed records cannot be unpacked.
    #[error("the compressed records (codec {codec}) cannot be read: {why}")]
    Packed {
        /// The codec's number.
        codec: i16,
        /// Its own words.
        why: String,
    },
    /// A record's framing is broken.
    #[error("record {index}: {what}")]
    Record {
        /// Its place in the batch.
        index: i32,
        /// What is wrong.
        what: &'static str,
    },
}

/// The 61 bytes before a batch's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub length: i32,
    /// The epoch of the leader that appended it; outside the CRC.
    pub leader_epoch: LeaderEpoch,
    /// CRC32C of everything after it.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control.
    pub attributes: i16,
    /// The last record's offset less the first's.
    pub last_offset_delta: i32,
    /// The time that the records' timestamp deltas count from.
    pub base_timestamp: i64,
    /// The greatest timestamp of the records.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The first record's sequence, or -1.
    pub base_sequence: i32,
    /// How many records there are.
    pub record_count: i32,
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`, which may hold less or more than the whole batch.
    /// A header that parses has magic 2, a length of a whole header at least, a base offset and a
    /// last offset delta that are not negative and do not overflow.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, BatchError> {
        // The magic comes first: the older formats' shorter headers shall be called by their name.
        if let Some(&magic) = bytes.get(16)
            && magic != 2
        {
            return Err(BatchError::Magic(magic as i8));
        }
        if bytes.len() < HEADER_LEN {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need: HEADER_LEN,
            });
        }
        let base_offset = Offset(bytes.get_i64());
        let length = bytes.get_i32();
        let leader_epoch = LeaderEpoch(bytes.get_i32());
        bytes.advance(1);
        let header = Self {
            base_offset,
            length,
            leader_epoch,
            crc: bytes.get_u32(),
            attributes: bytes.get_i16(),
            last_offset_delta: bytes.get_i32(),
            base_timestamp: bytes.get_i64(),
            max_timestamp: bytes.get_i64(),
            producer_id: ProducerId(bytes.get_i64()),
            producer_epoch: bytes.get_i16(),
            base_sequence: bytes.get_i32(),
            record_count: bytes.get_i32(),
        };
        if (length as i64) < (HEADER_LEN - LENGTH_PREFIX) as i64 {
            return Err(BatchError::Length(length));
        }
        let record = |what| BatchError::Record { index: 0, what };
        if header.last_offset_delta < 0 {
            return Err(record("the last offset delta is negative"));
        }
        if base_offset.0 < 0 || base_offset.0 > i64::MAX - (1 << 32) {
            return Err(record("the base offset is outside of any log"));
        }
        Ok(header)
    }

    /// The whole batch's size in bytes, header included.
    pub fn total_len(&self) -> usize {
        LENGTH_PREFIX + self.length as usize
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.last_offset_delta))
    }

    /// The offset after the last record's.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0 + 1)
    }

    /// The compression codec's number: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are undefined.
    pub fn codec(&self) -> i16 {
        self.attributes & ATTRIBUTE_CODEC
    }

    /// Whether the leader set the timestamps.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds a transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// From when on the batch's tombstones may be dropped, if compaction has said so (KIP-534). The base
    /// timestamp has been put in that place; the records' deltas count from it as from any other.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & ATTRIBUTE_DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether an idempotent producer sent it.
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// Checks the CRC of `batch`, the whole batch that this header was parsed from.
    pub fn check_crc(&self, batch: &[u8]) -> Result<(), BatchError> {
        let need = self.total_len();
        let Some(covered) = batch.get(CRC_START..need) else {
            return Err(BatchError::Truncated {
                have: batch.len(),
                need,
            });
        };
        let computed = crc32c::crc32c(covered);
        if computed != self.crc {
            return Err(BatchError::Crc {
                stored: self.crc,
                computed,
            });
        }
        Ok(())
    }
}

/// One whole batch: its header, and all its bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The parsed header.
    pub header: BatchHeader,
    /// Header and records.
    pub bytes: Bytes,
}

impl Batch {
    /// Splits the first batch off `bytes`. The CRC is not checked.
    pub fn split_from(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let need = header.total_len();
        if bytes.len() < need {
            return Err(BatchError::Truncated {
                have: bytes.len(),
                need,
            });
        }
        Ok(Self {
            header,
            bytes: bytes.split_to(need),
        })
    }

    /// Checks the CRC.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        self.header.check_crc(&self.bytes)
    }

    /// The batch with its records unpacked, within a bound; its CRC is still that of the packed ones.
    pub fn unpacked(&self) -> Result<Self, BatchError> {
        let mut header = self.header;
        let packed = self.bytes.get(HEADER_LEN..header.total_len());
        if header.codec() == 0 {
            return Ok(self.clone());
        }
        let records = unpack(header.codec(), packed.unwrap_or_default())?;
        header.attributes &= !ATTRIBUTE_CODEC;
        header.length = (HEADER_LEN - LENGTH_PREFIX + records.len()) as i32;
        let mut bytes = Vec::with_capacity(HEADER_LEN + records.len());
        bytes.extend_from_slice(&self.bytes[..8]);
        bytes.extend_from_slice(&header.length.to_be_bytes());
        bytes.extend_from_slice(&self.bytes[12..CRC_START]);
        bytes.extend_from_slice(&header.attributes.to_be_bytes());
        bytes.extend_from_slice(&self.bytes[CRC_START + 2..HEADER_LEN]);
        bytes.extend_from_slice(&records);
        Ok(Self {
            header,
            bytes: bytes.into(),
        })
    }

    /// The records, decoded one by one; an error for compressed ones.
    pub fn records(&self) -> Result<Records, BatchError> {
        Records::new(self)
    }
}

/// The batches in `bytes`, one after another. After an error it ends.
pub fn batches(bytes: Bytes) -> Batches {
    Batches { bytes }
}

/// Iterator over whole batches; see [`batches`].
#[derive(Clone, Debug)]
pub struct Batches {
    bytes: Bytes,
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let batch = Batch::split_from(&mut self.bytes);
        if batch.is_err() {
            self.bytes.clear();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests;
