use super::*;
use proptest::prelude::*;

fn sample() -> Bytes {
    let mut builder = RecordBatchBuilder::new().producer(ProducerId(7), 1, 42);
    builder.push(1000, Some(b"k"), Some(b"v"));
    builder.push_with_headers(1005, None, None, &[(b"h", Some(b"x")), (b"h", None)]);
    builder.build()
}

#[test]
fn what_was_built_is_read_back() {
    let bytes = sample();
    let batch = batches(bytes.clone()).next().unwrap().unwrap();
    batch.check_crc().unwrap();
    let h = batch.header;
    assert_eq!(h.total_len(), bytes.len());
    assert_eq!((h.base_timestamp, h.max_timestamp), (1000, 1005));
    assert_eq!((h.last_offset_delta, h.record_count), (1, 2));
    assert_eq!(
        (h.producer_id, h.producer_epoch, h.base_sequence),
        (ProducerId(7), 1, 42)
    );
    let records: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[0].value.as_deref(), Some(&b"v"[..]));
    assert_eq!(records[1].offset, Offset(1));
    assert_eq!(records[1].timestamp, 1005);
    assert_eq!(records[1].headers.len(), 2);
    assert_eq!(
        (records[1].key.as_ref(), records[1].value.as_ref()),
        (None, None)
    );
}

#[test]
fn a_changed_bit_after_the_crc_is_noticed() {
    let bytes = sample();
    for i in CRC_START..bytes.len() {
        let mut torn = bytes.to_vec();
        torn[i] ^= 0x10;
        if let Ok(header) = BatchHeader::parse(&torn) {
            assert!(header.check_crc(&torn).is_err(), "byte {i}");
        }
    }
}

#[test]
fn old_formats_are_called_by_their_name() {
    let mut bytes = sample().to_vec();
    bytes[16] = 1;
    assert_eq!(BatchHeader::parse(&bytes[..20]), Err(BatchError::Magic(1)));
}

#[test]
fn a_hostile_record_count_ends_with_the_bytes() {
    let mut bytes = sample().to_vec();
    bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let batch = batches(bytes.into()).next().unwrap().unwrap();
    let read: Vec<_> = batch.records().unwrap().collect();
    assert_eq!(read.len(), 3);
    assert!(read[2].is_err());
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), fix: bool) {
        if fix && bytes.len() > HEADER_LEN {
            bytes[16] = 2;
            let length = (bytes.len() - LENGTH_PREFIX) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[22] &= !0x7;
            bytes[23] &= 0x7f;
            bytes[0] = 0;
        }
        for batch in batches(bytes.into()).flatten() {
            let _ = batch.check_crc();
            if let Ok(records) = batch.records() {
                let _ = records.take(1000).count();
            }
        }
    }

    #[test]
    fn records_survive(
        records in proptest::collection::vec(
            (0i64..1 << 40, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))), 1..20)
    ) {
        let mut builder = RecordBatchBuilder::new().at(Offset(9), LeaderEpoch(3));
        for (ts, key, value) in &records {
            builder.push(*ts, key.as_deref(), value.as_deref());
        }
        let batch = batches(builder.build()).next().unwrap().unwrap();
        prop_assert!(batch.check_crc().is_ok());
        let read: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), records.len());
        for (i, ((ts, key, value), got)) in records.iter().zip(read).enumerate() {
            prop_assert_eq!(got.offset, Offset(9 + i as i64));
            prop_assert_eq!(got.timestamp, *ts);
            prop_assert_eq!(got.key.as_deref(), key.as_deref());
            prop_assert_eq!(got.value.as_deref(), value.as_deref());
        }
    }
}
