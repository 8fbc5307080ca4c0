//! Packing a batch anew, where the topic's `compression.type` is not the producer's.
//!
//! Promises: the records stay byte for byte what they were, and with them offsets, keys, headers and times;
//! so do producer id, epoch and sequence and the transactional bit. Only codec, length, greatest timestamp and
//! CRC are other ones, and they fit. What results is held to the topic's bounds like what was sent. It is done
//! by the leader, before the append: followers copy the result.

use crate::batch::{self, ATTRIBUTE_CODEC, BatchHeader, HEADER_LEN, LENGTH_PREFIX};
use crate::{AppendError, LogConfig, validate};

/// Packs `records`, those of the batch of `header`, which are unpacked and were checked, in `codec`.
pub(crate) fn repack(
    header: &mut BatchHeader,
    records: batch::Unpacked<'_>,
    codec: i16,
    config: &LogConfig,
) -> Result<Vec<u8>, AppendError> {
    // Held against the bounds before it is copied or packed, where that tells already.
    if codec == 0 {
        length(records.len(), config)?;
    }
    let body = match codec {
        0 => records.into_owned(),
        _ => batch::pack_at(codec, config.level(codec), &records)
            .map_err(|e| AppendError::InvalidRecord(e.to_string()))?,
    };
    header.length = length(body.len(), config)?;
    header.attributes = header.attributes & !ATTRIBUTE_CODEC | codec;
    Ok(body)
}

/// The length field of a batch with `len` bytes behind its header, if the topic takes one so large.
fn length(len: usize, config: &LogConfig) -> Result<i32, AppendError> {
    let size = HEADER_LEN + len;
    validate::check_size(size, config)?;
    let max = config.segment_bytes as usize;
    i32::try_from(size - LENGTH_PREFIX).map_err(|_| AppendError::TooLarge { size, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Record, RecordBatchBuilder};
    use crate::{Compression, TimestampType};
    use bytes::Bytes;
    use leasehold_types::{LeaderEpoch, Offset, ProducerId};

    const NOW: i64 = 1_000_000_000;
    const KINDS: [Compression; 5] = [
        Compression::Uncompressed,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn config(compression: Compression) -> LogConfig {
        LogConfig {
            compression,
            ..LogConfig::default()
        }
    }

    fn sent(codec: i16) -> Bytes {
        let mut b = RecordBatchBuilder::new()
            .attributes(codec)
            .producer(ProducerId(77), 5, 1234);
        for i in 0..50u8 {
            let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"v")), (b"h", None)];
            let value = [i; 100];
            let value = (i % 7 != 0).then_some(&value[..]);
            b.push_with_headers(NOW + i64::from(i % 9), Some(b"key"), value, &headers);
        }
        match codec {
            0 => b.build(),
            _ => batch::packed(&b.build()),
        }
    }

    fn stored(bytes: &[u8], config: &LogConfig) -> Batch {
        let mut valid = validate::leader(bytes, config, NOW).unwrap();
        valid.header.base_offset = Offset(90);
        valid.header.leader_epoch = LeaderEpoch(3);
        let mut stored = validate::encode_head(&valid.header, bytes)
            .unwrap()
            .to_vec();
        stored.extend_from_slice(&valid.body);
        let mut stored = Bytes::from(stored);
        let batch = Batch::split_from(&mut stored).unwrap();
        assert!(stored.is_empty(), "the length fits");
        assert_eq!(batch.header, valid.header);
        batch.check_crc().unwrap();
        batch
    }

    fn records(batch: &Batch) -> Vec<Record> {
        let records = batch.unpacked().unwrap().records().unwrap();
        records.map(Result::unwrap).collect()
    }

    #[test]
    fn every_codec_becomes_every_other_with_the_same_records_and_producer() {
        let expected = records(&stored(&sent(0), &config(Compression::Producer)));
        assert_eq!(expected.len(), 50);
        for codec in 0..5 {
            let bytes = sent(codec);
            for kind in KINDS {
                let target = kind.codec().unwrap();
                let batch = stored(&bytes, &config(kind));
                let header = batch.header;
                assert_eq!(header.codec(), target);
                assert_eq!(records(&batch), expected, "{codec} to {kind:?}");
                let producer = (
                    header.producer_id,
                    header.producer_epoch,
                    header.base_sequence,
                );
                assert_eq!(producer, (ProducerId(77), 5, 1234));
                assert_eq!((header.record_count, header.last_offset_delta), (50, 49));
                assert_eq!(
                    (header.base_timestamp, header.max_timestamp),
                    (NOW, NOW + 8)
                );
                if codec == target {
                    assert_eq!(batch.bytes[HEADER_LEN..], bytes[HEADER_LEN..], "untouched");
                }
            }
            let kept = stored(&bytes, &config(Compression::Producer));
            assert_eq!(kept.bytes[HEADER_LEN..], bytes[HEADER_LEN..]);
        }
    }

    #[test]
    fn the_leaders_time_and_another_codec_go_together() {
        let config = LogConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..config(Compression::Lz4)
        };
        let batch = stored(&sent(batch::GZIP), &config);
        assert_eq!(batch.header.codec(), batch::LZ4);
        assert!(records(&batch).iter().all(|r| r.timestamp == NOW));
    }

    #[test]
    fn a_greatest_timestamp_that_the_producer_made_up_is_mended() {
        let mut bytes = sent(batch::ZSTD).to_vec();
        bytes[35..43].copy_from_slice(&(NOW + 500).to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let batch = stored(&bytes, &config(Compression::Gzip));
        assert_eq!(batch.header.max_timestamp, NOW + 8);
    }

    #[test]
    fn levels_are_those_of_the_topic() {
        let mut seed = 1u32;
        let mut letter = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"aaabbcdefgh kafka"[(seed >> 20) as usize % 17]
        };
        let mut b = RecordBatchBuilder::new();
        for _ in 0..100 {
            let value: Vec<u8> = (0..1000).map(|_| letter()).collect();
            b.push(NOW, None, Some(&value));
        }
        let bytes = b.build();
        for (kind, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -50, 19)] {
            let size = |level| {
                let config = LogConfig {
                    gzip_level: level,
                    zstd_level: level,
                    ..config(kind)
                };
                stored(&bytes, &config).bytes.len()
            };
            assert!(size(high) < size(low), "{kind:?}");
        }
    }

    #[test]
    fn what_becomes_larger_than_the_topic_allows_is_refused() {
        let bytes = sent(batch::ZSTD);
        let whole = sent(0).len();
        assert!(bytes.len() < whole / 2);
        let small = LogConfig {
            max_message_bytes: (whole - 1) as u32,
            ..config(Compression::Uncompressed)
        };
        let code = |config| {
            validate::leader(&bytes, config, NOW)
                .unwrap_err()
                .kafka_code()
        };
        assert_eq!(code(&small), 10);
        let segment = LogConfig {
            segment_bytes: (whole - 1) as u32,
            ..config(Compression::Uncompressed)
        };
        assert_eq!(code(&segment), 18);
    }

    #[test]
    fn what_cannot_be_unpacked_or_does_not_hold_its_records_is_refused() {
        // Named as packed, and not packed.
        let mut b = RecordBatchBuilder::new().attributes(batch::SNAPPY);
        b.push(NOW, None, Some(b"v"));
        let config = config(Compression::Lz4);
        let code = |bytes: &[u8]| {
            validate::leader(bytes, &config, NOW)
                .unwrap_err()
                .kafka_code()
        };
        assert_eq!(code(&b.build()), 87);
        let mut bytes = sent(batch::ZSTD).to_vec();
        // One record more than there is.
        (bytes[26], bytes[60]) = (50, 51);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(code(&bytes), 87);
    }
}
