//! What a leader demands of a batch that a client sent. Pure; the producer's sequence is judged
//! apart, where the partition's state is at hand.

use crate::batch::{self, ATTRIBUTE_LOG_APPEND_TIME, BatchHeader, CRC_START, HEADER_LEN};
use crate::repack::repack;
use crate::{AppendError, LogConfig, RecordErrors, TimestampType};
use leasehold_types::seams::taken_out;
use std::borrow::Cow;
use std::sync::Arc;

/// A batch that may be appended: its header as it shall be stored, but for the base offset and the
/// leader epoch, and what follows the header.
#[derive(Debug)]
pub(crate) struct Valid<'a> {
    pub header: BatchHeader,
    /// As it was sent, unless the topic wants another codec.
    pub body: Cow<'a, [u8]>,
    /// The time set by the leader, or -1.
    pub log_append_time: i64,
}

/// Checks all that can be checked without the log.
pub(crate) fn leader<'a>(
    bytes: &'a [u8],
    config: &LogConfig,
    now_ms: i64,
) -> Result<Valid<'a>, AppendError> {
    let invalid = |what: &str| Err(AppendError::InvalidRecord(what.into()));
    if bytes.is_empty() {
        return invalid("there is no batch");
    }
    let mut header = BatchHeader::parse(bytes)?;
    let size = header.total_len();
    check_size(size, config)?;
    if !taken_out("a-batch-has-its-checksum") {
        header.check_crc(bytes)?;
    }
    if bytes.len() > size {
        return invalid("more than one batch for one partition");
    }
    if header.base_offset.0 != 0 {
        return invalid("the base offset is not 0");
    }
    if i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        return invalid("the record count does not match the last offset delta");
    }
    if header.is_control() {
        return invalid("clients do not write control batches");
    }
    if header.codec() > 4 {
        return invalid("the compression codec is unknown");
    }
    if header.has_producer() && header.base_sequence < 0 {
        return invalid("a producer id without a sequence");
    }
    if header.is_transactional() && !header.has_producer() {
        return invalid("a transactional batch without a producer id");
    }
    if header.is_log_append_time() {
        let what = "a producer does not set the timestamp type LogAppendTime";
        return Err(AppendError::InvalidTimestamp(what.into()));
    }
    let body = look_inside(&mut header, bytes, config, now_ms)?;
    let log_append_time = match config.timestamp_type {
        TimestampType::CreateTime => -1,
        TimestampType::LogAppendTime => now_ms,
    };
    if config.timestamp_type == TimestampType::LogAppendTime
        && !taken_out("the-leader-gives-the-time")
    {
        header.attributes |= ATTRIBUTE_LOG_APPEND_TIME;
        header.max_timestamp = now_ms;
    }
    if matches!(body, Cow::Owned(_)) || header.is_log_append_time() {
        let head = encode_head(&header, bytes)?;
        let crc = crc32c::crc32c(&head[CRC_START..]);
        header.crc = crc32c::crc32c_append(crc, &body);
    }
    Ok(Valid {
        header,
        body,
        log_append_time,
    })
}

/// Whether the topic takes a batch of `size` bytes, header included.
pub(crate) fn check_size(size: usize, config: &LogConfig) -> Result<(), AppendError> {
    let max = config.max_message_bytes as usize;
    if size > max {
        return Err(AppendError::TooLarge { size, max });
    }
    let max = config.segment_bytes as usize;
    if size > max {
        return Err(AppendError::LargerThanSegment { size, max });
    }
    Ok(())
}

/// Holds times against the topic's bounds, looks at the records where that is needed, and packs them anew
/// where the topic wants them in another codec.
///
/// Compressed records are unpacked only where the topic is compacted (each must have a key, and the cleaner
/// must be able to read them), has another codec, or bounds how old a record may be: of the times, only
/// the first and the greatest are in the header. Everywhere else they are not touched, unless one of those two is
/// out of bounds: then it is told which records are.
fn look_inside<'a>(
    header: &mut BatchHeader,
    bytes: &'a [u8],
    config: &LogConfig,
    now_ms: i64,
) -> Result<Cow<'a, [u8]>, AppendError> {
    let body = &bytes[HEADER_LEN..];
    let target = config.compression.codec();
    let target = target.filter(|c| *c != header.codec() && !taken_out("a-topic-has-its-codec"));
    let bounds = Bounds::of(config, now_ms);
    let ends = [header.base_timestamp, header.max_timestamp];
    let unseen = header.codec() != 0 && !config.compact && !bounds.by_age;
    if unseen && target.is_none() && ends.iter().all(|time| bounds.hold(*time)) {
        return Ok(Cow::Borrowed(body));
    }
    let records = batch::unpack(header.codec(), body)
        .map_err(|e| AppendError::InvalidRecord(e.to_string()))?;
    let newest = check_records(header, &records, config, &bounds)?;
    // No record is to blame, but reads by time go by what the header says.
    if let Some(time) = ends.iter().find(|time| !bounds.hold(**time)) {
        return Err(AppendError::InvalidTimestamp(format!(
            "the header's {time} is not within {} to {}",
            bounds.oldest, bounds.newest
        )));
    }
    let Some(codec) = target else {
        return Ok(Cow::Borrowed(body));
    };
    header.max_timestamp = newest;
    repack(header, records, codec, config).map(Cow::Owned)
}

/// Between which times a record may lie.
struct Bounds {
    oldest: i64,
    newest: i64,
    /// Whether the topic bounds how old a record may be.
    by_age: bool,
}

impl Bounds {
    fn of(config: &LogConfig, now_ms: i64) -> Self {
        if config.timestamp_type == TimestampType::LogAppendTime {
            // The leader sets the time, whatever was sent.
            return Self {
                oldest: i64::MIN,
                newest: i64::MAX,
                by_age: false,
            };
        }
        Self {
            oldest: now_ms.saturating_sub(config.timestamp_before_max_ms),
            newest: now_ms.saturating_add(config.timestamp_after_max_ms),
            by_age: config.timestamp_before_max_ms < i64::MAX,
        }
    }

    /// Whether they hold `time`. A record without a time has none to be judged.
    fn hold(&self, time: i64) -> bool {
        time < 0 || (self.oldest..=self.newest).contains(&time)
    }
}

/// Walks the unpacked records' framing. Returns the greatest of their times; or all records that the topic does
/// not take, if they can all be read.
fn check_records(
    header: &BatchHeader,
    records: &[u8],
    config: &LogConfig,
    bounds: &Bounds,
) -> Result<i64, AppendError> {
    let mut newest = -1;
    let mut rest = records;
    let mut errors = RecordErrors::none(bounds.oldest, bounds.newest);
    for index in 0..header.record_count {
        let head = batch::take_frame(&mut rest).and_then(batch::parse_head);
        let Some(head) = head.filter(|head| head.offset_delta == index) else {
            return Err(AppendError::InvalidRecord(format!(
                "record {index} of {} is malformed",
                header.record_count
            )));
        };
        let time = header.base_timestamp.saturating_add(head.timestamp_delta);
        newest = newest.max(time);
        // One reason a record is enough, and the key comes first, as in Kafka.
        if config.compact && batch::take_int(&mut { head.rest }).is_none_or(|len| len < 0) {
            errors.no_key(index);
        } else if !bounds.hold(time) {
            errors.time(index, time);
        }
    }
    if !rest.is_empty() {
        let what = format!("bytes after the {} records", header.record_count);
        return Err(AppendError::InvalidRecord(what));
    }
    if !errors.is_empty() {
        return Err(Arc::new(errors).into());
    }
    Ok(newest)
}

/// The header's bytes as they shall be stored: those of `bytes`, but for the fields that a leader
/// sets. The records behind them are not touched.
pub(crate) fn encode_head(
    header: &BatchHeader,
    bytes: &[u8],
) -> Result<[u8; HEADER_LEN], AppendError> {
    let head = bytes.first_chunk::<HEADER_LEN>();
    let mut head = *head.ok_or_else(|| AppendError::Corrupt("no header".into()))?;
    head[0..8].copy_from_slice(&header.base_offset.0.to_be_bytes());
    head[8..12].copy_from_slice(&header.length.to_be_bytes());
    head[12..16].copy_from_slice(&header.leader_epoch.0.to_be_bytes());
    head[17..21].copy_from_slice(&header.crc.to_be_bytes());
    head[21..23].copy_from_slice(&header.attributes.to_be_bytes());
    head[35..43].copy_from_slice(&header.max_timestamp.to_be_bytes());
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RecordBatchBuilder;
    use leasehold_types::{Offset, ProducerId};
    use proptest::prelude::*;

    const NOW: i64 = 1_000_000_000;

    fn code(bytes: &[u8], config: &LogConfig) -> i16 {
        leader(bytes, config, NOW).map_or_else(|e| e.kafka_code(), |_| 0)
    }

    /// Rewrites bytes of a good batch and mends the CRC.
    fn with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut b = RecordBatchBuilder::new();
        b.push(NOW, Some(b"k"), Some(b"v"));
        b.push(NOW + 1, None, Some(b"w"));
        let mut bytes = b.build().to_vec();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn each_rule_has_kafkas_error_code() {
        let config = LogConfig::default();
        assert_eq!(code(&with(|_| ()), &config), 0);
        assert_eq!(code(&[], &config), 87, "no batch");
        assert_eq!(code(&[0; 20], &config), 87, "magic 0");
        assert_eq!(code(&with(|_| ())[..70], &config), 2, "cut short");
        assert_eq!(code(&with(|b| b[7] = 1), &config), 87, "base offset");
        assert_eq!(code(&with(|b| b[60] = 3), &config), 87, "count");
        assert_eq!(
            code(&with(|b| (b[26], b[60]) = (2, 3)), &config),
            87,
            "records missing"
        );
        assert_eq!(
            code(&with(|b| (b[26], b[60]) = (0, 1)), &config),
            87,
            "records left over"
        );
        assert_eq!(code(&with(|b| b[22] = 0x20), &config), 87, "control");
        assert_eq!(code(&with(|b| b[22] = 0x10), &config), 87, "transactional");
        assert_eq!(code(&with(|b| b[22] = 0x05), &config), 87, "codec");
        assert_eq!(code(&with(|b| b[22] = 0x08), &config), 32, "LogAppendTime");
        assert_eq!(code(&with(|b| b[43] = 0), &config), 87, "no sequence");
        let without_epoch = with(|b| (b[43], b[53]) = (0, 0));
        assert_eq!(code(&without_epoch, &config), 0, "no epoch, as in Kafka");
        let mut torn = with(|_| ());
        torn[65] ^= 1;
        assert_eq!(code(&torn, &config), 2, "CRC");
        let twice = [with(|_| ()), with(|_| ())].concat();
        assert_eq!(code(&twice, &config), 87, "two batches");
        let small = LogConfig {
            max_message_bytes: 70,
            ..LogConfig::default()
        };
        assert_eq!(code(&with(|_| ()), &small), 10);
        let segment = LogConfig {
            segment_bytes: 70,
            ..LogConfig::default()
        };
        assert_eq!(code(&with(|_| ()), &segment), 18);
    }

    #[test]
    fn a_compacted_topic_takes_no_record_without_a_key_compressed_or_not() {
        let config = LogConfig {
            compact: true,
            ..LogConfig::default()
        };
        for codec in 0..5 {
            let mut keyed = RecordBatchBuilder::new().attributes(codec);
            keyed.push(NOW, Some(b"k"), None).push(NOW, Some(b""), None);
            assert_eq!(code(&batch::packed(&keyed.build()), &config), 0);
            let mut bare = keyed.clone();
            bare.push(NOW, None, Some(b"w"));
            let bytes = batch::packed(&bare.build());
            assert_eq!(code(&bytes, &config), 87, "{codec}");
            assert_eq!(code(&bytes, &LogConfig::default()), 0, "{codec}");
            // What the cleaner could not read.
            let unread = keyed.attributes(codec).build();
            let expected = if codec == 0 { 0 } else { 87 };
            assert_eq!(code(&unread, &config), expected, "{codec}");
        }
    }

    #[test]
    fn timestamps_are_held_to_the_topics_bounds_unless_the_leader_sets_them() {
        let config = |timestamp_type| LogConfig {
            timestamp_type,
            timestamp_before_max_ms: 1000,
            timestamp_after_max_ms: 1000,
            ..LogConfig::default()
        };
        for (ts, expected) in [
            (NOW - 1001, 32),
            (NOW - 1000, 0),
            (NOW + 1000, 0),
            (NOW + 1001, 32),
        ] {
            let mut b = RecordBatchBuilder::new();
            b.push(NOW, None, None).push(ts, None, None);
            let bytes = b.build();
            assert_eq!(code(&bytes, &config(TimestampType::CreateTime)), expected);
            assert_eq!(code(&bytes, &config(TimestampType::LogAppendTime)), 0);
        }
    }

    #[test]
    fn an_old_record_in_the_middle_of_a_compressed_batch_is_found() {
        let bounded = LogConfig {
            timestamp_before_max_ms: 1000,
            ..LogConfig::default()
        };
        for codec in 1..5 {
            let mut b = RecordBatchBuilder::new().attributes(codec);
            b.push(NOW, None, None);
            b.push(NOW - 1001, None, None).push(NOW, None, None);
            let bytes = batch::packed(&b.build());
            assert_eq!(code(&bytes, &bounded), 32, "{codec}");
            assert_eq!(code(&bytes, &LogConfig::default()), 0, "{codec}");
        }
    }

    #[test]
    fn every_record_that_the_topic_does_not_take_is_named() {
        let config = LogConfig {
            compact: true,
            timestamp_before_max_ms: 1000,
            timestamp_after_max_ms: 1000,
            ..LogConfig::default()
        };
        let plain = LogConfig {
            compact: false,
            timestamp_before_max_ms: i64::MAX,
            ..config.clone()
        };
        let named = |bytes: &[u8], config: &LogConfig| match leader(bytes, config, NOW) {
            Err(error @ AppendError::Records(_)) => {
                let code = error.kafka_code();
                let AppendError::Records(errors) = error else {
                    unreachable!("it was matched as such")
                };
                let rows = errors.rows().map(|(index, words)| {
                    let about = words.contains("key") || words.contains("timestamp");
                    assert!(about, "{words}");
                    (index, words.contains("key"))
                });
                (code, rows.collect::<Vec<_>>())
            }
            other => panic!("{other:?}"),
        };
        let key = Some(&b"k"[..]);
        for codec in 0..5 {
            let batch = |records: &[(i64, Option<&[u8]>)]| {
                let mut b = RecordBatchBuilder::new().attributes(codec);
                for (time, key) in records {
                    b.push(*time, *key, Some(b"v"));
                }
                batch::packed(&b.build())
            };
            let keyless = batch(&[(NOW, key), (NOW, None), (NOW, key), (NOW, None)]);
            assert_eq!(named(&keyless, &config), (87, vec![(1, true), (3, true)]));
            // Of a record without a key the time is not looked at; one time decides over the code.
            let both = [(NOW - 5000, None), (NOW, key), (NOW + 5000, key)];
            let expected = (32, vec![(0, true), (2, false)]);
            assert_eq!(named(&batch(&both), &config), expected, "{codec}");
            // Out of bounds by the header: which ones it is stands in the records, packed or not.
            let expected = (32, vec![(2, false)]);
            assert_eq!(named(&batch(&both), &plain), expected, "{codec}");
        }
    }

    #[test]
    fn a_header_whose_greatest_time_no_record_has_is_refused_without_naming_one() {
        let time = (NOW + (1 << 40)).to_be_bytes();
        let bytes = with(|b| b[35..43].copy_from_slice(&time));
        let error = leader(&bytes, &LogConfig::default(), NOW).unwrap_err();
        assert!(matches!(error, AppendError::InvalidTimestamp(_)), "{error}");
    }

    #[test]
    fn the_leaders_time_goes_into_the_header_with_a_new_crc() {
        let config = LogConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        };
        let bytes = with(|_| ());
        let mut valid = leader(&bytes, &config, NOW + 77).unwrap();
        assert_eq!(valid.log_append_time, NOW + 77);
        valid.header.base_offset = Offset(5);
        let mut stored = bytes.clone();
        stored[..HEADER_LEN].copy_from_slice(&encode_head(&valid.header, &bytes).unwrap());
        assert_eq!(*valid.body, bytes[HEADER_LEN..]);
        let batch = batch::batches(stored.into()).next().unwrap().unwrap();
        assert_eq!(batch.header, valid.header);
        batch.check_crc().unwrap();
        let times: Vec<_> = batch
            .records()
            .unwrap()
            .map(|r| r.unwrap().timestamp)
            .collect();
        assert_eq!(times, [NOW + 77, NOW + 77]);
        assert_eq!(batch.header.producer_id, ProducerId(-1));
    }

    proptest! {
        #[test]
        fn a_changed_byte_never_panics_with_the_crc_mended(at in 0usize..61, value: u8, more in 61usize..90) {
            let bytes = with(|b| {
                b[at] = value;
                if let Some(byte) = b.get_mut(more) {
                    *byte = value;
                }
            });
            let _ = leader(&bytes, &LogConfig::default(), NOW);
        }
    }
}
