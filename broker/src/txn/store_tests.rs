use super::*;

fn metadata(state: State) -> Metadata {
    let mut partitions = Partitions::new();
    if state != State::Empty {
        partitions
            .entry("topic".to_owned())
            .or_default()
            .extend([1, 258]);
    }
    Metadata {
        producer: ProducerId(0x0102),
        last_producer: ProducerId(-1),
        next_producer: ProducerId(-1),
        epoch: 5,
        last_epoch: -1,
        timeout_ms: 60_000,
        state,
        partitions,
        started: 0x0304,
        updated: 0x0506,
        bumped: false,
    }
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn records_have_the_bytes_of_kafkas_schema() {
    let key = bytes(&[&[0, 0], &[0, 2], b"id"]);
    assert_eq!(encode_key("id").unwrap(), key);
    assert_eq!(decode_key(&key).unwrap().as_deref(), Some("id"));

    let value = bytes(&[
        &[0, 0],                   // version
        &[0, 0, 0, 0, 0, 0, 1, 2], // producer id
        &[0, 5],                   // epoch
        &[0, 0, 0xea, 0x60],       // timeout
        &[1],                      // Ongoing
        &[0, 0, 0, 1],             // topics
        &[0, 5],
        b"topic",
        &[0, 0, 0, 2],
        &[0, 0, 0, 1],
        &[0, 0, 1, 2],
        &[0, 0, 0, 0, 0, 0, 5, 6], // last update
        &[0, 0, 0, 0, 0, 0, 3, 4], // start
    ]);
    assert_eq!(encode_value(&metadata(State::Ongoing)).unwrap(), value);
    assert_eq!(
        decode_value(&value).unwrap(),
        Some(metadata(State::Ongoing))
    );
}

#[test]
fn an_empty_transaction_has_no_list_of_partitions_at_all() {
    let value = encode_value(&metadata(State::Empty)).unwrap();
    assert_eq!(value[17..21], [0xff; 4]);
    assert_eq!(decode_value(&value).unwrap(), Some(metadata(State::Empty)));
}

#[test]
fn what_cannot_be_read_is_passed_over_and_hides_nothing_else() {
    let mut loaded = Loaded::default();
    let value = encode_value(&metadata(State::Ongoing)).unwrap();
    let key = |id| encode_key(id).unwrap();
    loaded.apply(Some(&key("a")), Some(&value));
    for cut in 0..value.len() {
        loaded.apply(Some(&key("a")), Some(&value[..cut]));
    }
    loaded.apply(Some(&[0, 9, 0, 1, b'a']), Some(&value));
    loaded.apply(None, Some(&value));
    // A count that the bytes do not justify, and a state that nobody knows.
    let mut hostile = value.clone();
    hostile[17..21].copy_from_slice(&i32::MAX.to_be_bytes());
    loaded.apply(Some(&key("a")), Some(&hostile));
    hostile[16] = 99;
    loaded.apply(Some(&key("a")), Some(&hostile));
    assert_eq!(loaded.skipped, value.len() as u64 + 4);
    assert_eq!(loaded.transactions["a"], metadata(State::Ongoing));
    loaded.apply(Some(&key("a")), None);
    assert!(loaded.transactions.is_empty());
}

#[test]
fn an_id_that_no_record_can_hold_is_an_error() {
    let id = "i".repeat(40_000);
    assert_eq!(encode_key(&id), Err(FieldError::TooLong(40_000)));
}

#[test]
fn an_end_in_version_2_has_the_bytes_of_kafkas_flexible_schema() {
    let ended = Metadata {
        last_producer: ProducerId(0x0a0b),
        next_producer: ProducerId(0x0c0d),
        bumped: true,
        ..metadata(State::PrepareCommit)
    };
    let value = bytes(&[
        &[0, 1],                   // version
        &[0, 0, 0, 0, 0, 0, 1, 2], // producer id
        &[0, 5],                   // epoch
        &[0, 0, 0xea, 0x60],       // timeout
        &[2],                      // PrepareCommit
        &[2],                      // one topic
        &[6],
        b"topic",
        &[3], // two partitions
        &[0, 0, 0, 1],
        &[0, 0, 1, 2],
        &[0],                      // no tags of the topic
        &[0, 0, 0, 0, 0, 0, 5, 6], // last update
        &[0, 0, 0, 0, 0, 0, 3, 4], // start
        &[3],                      // three tags
        &[0, 8, 0, 0, 0, 0, 0, 0, 10, 11],
        &[1, 8, 0, 0, 0, 0, 0, 0, 12, 13],
        &[2, 2, 0, 2], // the client's version
    ]);
    assert_eq!(encode_value(&ended).unwrap(), value);
    assert_eq!(decode_value(&value).unwrap(), Some(ended.clone()));
    let plain = Metadata {
        last_producer: ProducerId(-1),
        next_producer: ProducerId(-1),
        state: State::CompleteCommit,
        partitions: Partitions::new(),
        ..ended
    };
    let value = encode_value(&plain).unwrap();
    assert_eq!(
        value[17..],
        bytes(&[&[1], &value[18..34], &[1, 2, 2, 0, 2]])
    );
    assert_eq!(decode_value(&value).unwrap(), Some(plain));
}
