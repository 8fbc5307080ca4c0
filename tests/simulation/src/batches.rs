//! A decoder of record batches v2, for the checker: by Kafka's documentation, not by the product's code.
//!
//! Promise: what it returns is whole and has its checksum; it stops at the first byte that is not so.

use crate::codecs;
use leasehold_types::LeaderEpoch;

/// One batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub base: usize,
    /// Where the next one begins at the earliest: compaction may leave less than was there.
    pub end: usize,
    pub epoch: LeaderEpoch,
    /// Its producer's id; -1 if it has none.
    pub producer: i64,
    /// It belongs to a transaction.
    pub transactional: bool,
    /// It is a marker, or the like.
    pub control: bool,
    /// The number of the codec that the records are packed in.
    pub codec: i16,
    /// When each record was made, or appended, in the order of the records.
    pub times: Vec<i64>,
    /// The records: where each is, and its value of eight bytes; a tombstone has that in a header. For others it is
    /// a number made of key and value.
    pub records: Vec<(usize, u64)>,
    /// Those others.
    pub texts: Vec<Text>,
}

/// A record that is more than a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub number: u64,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Where things are in a batch.
const LENGTH: usize = 8;
const EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_DELTA: usize = 23;
const FIRST_TIME: usize = 27;
const GREATEST_TIME: usize = 35;
const PRODUCER: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const COUNT: usize = 57;
const RECORDS: usize = 61;

/// In the attributes: the codec, and that all records have the time of their append.
const CODEC: i16 = 7;
const APPEND_TIME: i16 = 8;
/// That it belongs to a transaction, and that it holds a marker.
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// In the number that stands for a marker; no record of a client has one like that.
const MARKER: u64 = 0x007f_ffff_0000_0000;

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer: i64,
    pub epoch: i16,
    pub commit: bool,
}

impl Marker {
    /// The number that stands for it.
    fn number(self) -> u64 {
        let (producer, epoch) = (self.producer as u64 & 0xffff, self.epoch as u64 & 0x7fff);
        MARKER | producer << 16 | epoch << 1 | u64::from(self.commit)
    }
}

/// The marker that a number stands for.
pub fn marker_of(number: u64) -> Option<Marker> {
    (number & !0xffff_ffff == MARKER).then_some(Marker {
        producer: (number >> 16 & 0xffff) as i64,
        epoch: (number >> 1 & 0x7fff) as i16,
        commit: number & 1 == 1,
    })
}

/// Whether a control record commits, by its key: a version, and 0 for an abort or 1 for a commit.
fn commits(key: &[u8]) -> Option<bool> {
    match int16(key, 2)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn int16(bytes: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn int32(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn int64(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A zigzag varint off the front of `bytes`.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let (mut raw, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// A field with its length before it; -1 is none.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let Ok(length) = usize::try_from(varint(bytes)?) else {
        return Some(None);
    };
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Some(field))
}

/// How far from its batch's base a record is, how much later it is, and its value.
fn record(record: &[u8]) -> Option<(usize, i64, Result<u64, Text>)> {
    let mut rest = record.get(1..)?;
    let later = varint(&mut rest)?;
    let delta = usize::try_from(varint(&mut rest)?).ok()?;
    let key = field(&mut rest)?.unwrap_or_default();
    let value = field(&mut rest)?;
    let mut number = value;
    if number.is_none() && varint(&mut rest)? == 1 {
        field(&mut rest)?;
        number = field(&mut rest)?;
    }
    let number = number.and_then(|number| number.try_into().ok());
    let number = number.map(u64::from_be_bytes);
    Some((delta, later, number.ok_or_else(|| text(key, value))))
}

fn text(key: &[u8], value: Option<&[u8]>) -> Text {
    let mut number: u64 = 0xcbf2_9ce4_8422_2325;
    let end = [u8::from(value.is_none())];
    for byte in key.iter().chain(value.unwrap_or_default()).chain(&end) {
        number = (number ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    Text {
        number,
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    }
}

/// The first batch of `bytes`, and how long it is.
fn first(bytes: &[u8]) -> Option<(Batch, usize)> {
    let length = usize::try_from(int32(bytes, LENGTH)?).ok()? + EPOCH;
    let batch = bytes.get(..length)?;
    let crc = int32(batch, CRC)? as u32;
    if *batch.get(MAGIC)? != 2 || crc32c::crc32c(batch.get(ATTRIBUTES..)?) != crc {
        return None;
    }
    let base = usize::try_from(int64(batch, 0)?).ok()?;
    let attributes = int16(batch, ATTRIBUTES)?;
    let codec = attributes & CODEC;
    let (producer, producer_epoch) = (int64(batch, PRODUCER)?, int16(batch, PRODUCER_EPOCH)?);
    let control = attributes & CONTROL != 0;
    let (first, greatest) = (int64(batch, FIRST_TIME)?, int64(batch, GREATEST_TIME)?);
    let body = codecs::unpack(codec, batch.get(RECORDS..)?)?;
    let mut rest = &body[..];
    let (mut records, mut times, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..int32(batch, COUNT)? {
        let (delta, later, value) = record(field(&mut rest)??)?;
        times.push(match attributes & APPEND_TIME {
            0 => first + later,
            _ => greatest,
        });
        let marker = |text: &Text| {
            let commit = commits(&text.key).filter(|_| control)?;
            let epoch = producer_epoch;
            let marker = Marker {
                producer,
                epoch,
                commit,
            };
            Some(marker.number())
        };
        let number = value.unwrap_or_else(|text| match marker(&text) {
            Some(marker) => marker,
            None => {
                let number = text.number;
                texts.push(text);
                number
            }
        });
        records.push((base + delta, number));
    }
    let batch = Batch {
        base,
        end: base + usize::try_from(int32(batch, LAST_DELTA)?).ok()? + 1,
        epoch: LeaderEpoch(int32(batch, EPOCH)?),
        producer,
        transactional: attributes & TRANSACTIONAL != 0,
        control,
        codec,
        times,
        records,
        texts,
    };
    Some((batch, length))
}

/// `batch`, which is not packed, with its records packed in `codec`.
pub fn packed(batch: &[u8], codec: i16) -> Vec<u8> {
    let body = codecs::pack(codec, &batch[RECORDS..]);
    let mut out = [&batch[..RECORDS], &body].concat();
    out[ATTRIBUTES + 1] |= codec as u8;
    sealed(&mut out);
    out
}

/// Gives a batch the length and the checksum that it has.
pub fn sealed(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - EPOCH).unwrap_or(i32::MAX);
    batch[LENGTH..EPOCH].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// The batches that `bytes` begin with.
pub fn batches(mut bytes: &[u8]) -> Vec<Batch> {
    let mut all = Vec::new();
    while let Some((batch, length)) = first(bytes) {
        all.push(batch);
        bytes = &bytes[length..];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::batch::RecordBatchBuilder;
    use leasehold_types::{Offset, ProducerId};

    fn built(base: i64, epoch: i32, values: &[u64]) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new()
            .at(Offset(base), LeaderEpoch(epoch))
            .producer(ProducerId(5), 0, 7);
        for (n, value) in (0..).zip(values) {
            builder.push(1_000 + n, Some(b"key"), Some(&value.to_be_bytes()));
        }
        builder.build().to_vec()
    }

    #[test]
    fn whole_batches_are_read_and_nothing_after_a_damaged_or_torn_one() {
        let mut bytes = built(3, 2, &[70, 1 << 40]);
        let whole = bytes.len();
        bytes.extend(built(5, 4, &[9]));
        let expected = |base: usize, epoch, values: &[u64]| Batch {
            base,
            end: base + values.len(),
            epoch: LeaderEpoch(epoch),
            producer: 5,
            transactional: false,
            control: false,
            codec: 0,
            times: (1_000..).take(values.len()).collect(),
            records: (base..).zip(values.iter().copied()).collect(),
            texts: Vec::new(),
        };
        let (one, two) = (expected(3, 2, &[70, 1 << 40]), expected(5, 4, &[9]));
        assert_eq!(batches(&bytes[..bytes.len() - 1]), [one]);
        let all = batches(&bytes);
        assert_eq!(all.last(), Some(&two));
        bytes[whole - 1] ^= 1;
        assert_eq!(batches(&bytes), []);
    }

    #[test]
    fn a_packed_batch_reads_as_it_did_before_but_for_its_codec() {
        let plain = built(3, 2, &[70, 1 << 40]);
        for codec in 0..=4 {
            let read = batches(&packed(&plain, codec));
            assert_eq!(read.len(), 1, "codec {codec}");
            assert_eq!(read[0].codec, codec);
            assert_eq!(read[0].records, batches(&plain)[0].records);
            assert_eq!(read[0].times, [1_000, 1_001]);
        }
    }

    #[test]
    fn a_tombstone_has_its_number_in_a_header() {
        let mut builder = RecordBatchBuilder::new().at(Offset(3), LeaderEpoch(1));
        builder.push_with_headers(5, Some(b"k"), None, &[(b"n", Some(&7_u64.to_be_bytes()))]);
        let read = batches(&builder.build());
        assert_eq!(read[0].records, [(3, 7)]);
    }

    #[test]
    fn a_marker_is_read_as_what_it_says() {
        // Kafka's: version 0 and type 1 for a commit; version 0 and the coordinator's epoch.
        let built = |kind: u8| {
            let mut builder = RecordBatchBuilder::new()
                .at(Offset(3), LeaderEpoch(1))
                .producer(ProducerId(70), 9, -1)
                .attributes(TRANSACTIONAL | CONTROL);
            builder.push(5, Some(&[0, 0, 0, kind]), Some(&[0, 0, 0, 0, 0, 4]));
            batches(&builder.build()).remove(0)
        };
        for (kind, commit) in [(1, true), (0, false)] {
            let read = built(kind);
            assert!(read.control && read.transactional && read.texts.is_empty());
            let (producer, epoch) = (70, 9);
            let marker = Marker {
                producer,
                epoch,
                commit,
            };
            assert_eq!(marker_of(read.records[0].1), Some(marker));
        }
        assert_eq!(marker_of(built(2).records[0].1), None);
    }
}
