use super::*;

fn topic() -> TopicId {
    TopicId(uuid::Uuid::from_bytes([7; 16]))
}

#[test]
fn a_key_has_the_bytes_of_kafkas_schema() {
    let key = ConsumerKey::Current("m".to_owned()).encode("g").unwrap();
    assert_eq!(key, [0, 8, 0, 1, b'g', 0, 1, b'm']);
    let epoch = ConsumerKey::Epoch.encode("g").unwrap();
    assert_eq!(epoch, [0, 3, 0, 1, b'g']);
    for (version, key) in [
        (3, ConsumerKey::Epoch),
        (5, ConsumerKey::Member("m".into())),
        (6, ConsumerKey::TargetEpoch),
        (7, ConsumerKey::Target("m".into())),
        (8, ConsumerKey::Current("m".into())),
        (16, ConsumerKey::Regex("m".into())),
    ] {
        let bytes = key.encode("g").unwrap();
        let mut fields = Fields(&bytes);
        assert_eq!(fields.i16().unwrap(), version);
        let read = ConsumerKey::decode(version, &mut fields).unwrap();
        assert_eq!(read, Some(("g".to_owned(), key)));
    }
    assert_eq!(ConsumerKey::decode(4, &mut Fields(&[0, 1, b'g'])), Ok(None));
}

#[test]
fn an_epoch_has_the_bytes_of_kafkas_schema() {
    let value = EpochValue {
        epoch: 5,
        metadata_hash: 0,
    };
    assert_eq!(value.encode(), [0, 0, 0, 0, 0, 5, 0]);
    let value = EpochValue {
        epoch: 5,
        metadata_hash: 9,
    };
    let bytes = [0, 0, 0, 0, 0, 5, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
    assert_eq!(value.encode(), bytes);
    assert_eq!(EpochValue::decode(&bytes), Ok(Some(value)));
    assert_eq!(EpochValue::decode(&[0, 1, 0]), Ok(None));
}

#[test]
fn what_a_member_has_has_the_bytes_of_kafkas_schema() {
    let value = CurrentValue {
        epoch: 3,
        previous_epoch: 2,
        state: MemberState::Unrevoked,
        assigned: Owned::from([(topic(), [(1, 3)].into())]),
        revoking: Owned::new(),
    };
    let mut bytes = vec![0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 1];
    bytes.push(2); // one topic
    bytes.extend_from_slice(&[7; 16]);
    bytes.extend_from_slice(&[2, 0, 0, 0, 1]); // one partition: 1
    bytes.extend_from_slice(&[1, 0, 5, 2, 0, 0, 0, 3]); // tag 0: one epoch: 3
    bytes.extend_from_slice(&[1, 0]); // nothing to revoke, no tags
    assert_eq!(value.encode().unwrap(), bytes);
    assert_eq!(CurrentValue::decode(&bytes), Ok(Some(value)));
}

#[test]
fn a_record_of_an_older_broker_without_epochs_counts_its_partitions_from_the_members_own() {
    let mut bytes = vec![0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 2];
    bytes.extend_from_slice(&[7; 16]);
    bytes.extend_from_slice(&[2, 0, 0, 0, 1, 0, 1, 0]);
    let value = CurrentValue::decode(&bytes).unwrap().unwrap();
    assert_eq!(value.assigned, Owned::from([(topic(), [(1, 3)].into())]));
}

#[test]
fn every_value_survives_being_written_and_read_and_none_is_read_from_half_its_bytes() {
    let member = MemberMetadata {
        instance_id: Some("i".into()),
        rack_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        topics: ["a".to_owned(), "b".to_owned()].into(),
        regex: Some("x.*".into()),
        rebalance_timeout_ms: 7,
        assignor: Some("range".into()),
        classic: Some(ClassicMetadata {
            session_timeout_ms: 9,
            protocols: vec![("range".into(), Bytes::from_static(b"xyz"))],
        }),
    };
    let bytes = member.encode().unwrap();
    assert_eq!(MemberMetadata::decode(&bytes), Ok(Some(member)));
    for cut in 2..bytes.len() {
        assert!(MemberMetadata::decode(&bytes[..cut]).is_err(), "{cut}");
    }
    let target = Partitions::from([(topic(), [0, 4].into())]);
    let bytes = encode_target(&target).unwrap();
    assert_eq!(decode_target(&bytes), Ok(Some(target)));
    let regex = RegexValue {
        topics: ["t".to_owned()].into(),
        version: 4,
        timestamp: 5,
    };
    let bytes = regex.encode().unwrap();
    assert_eq!(RegexValue::decode(&bytes), Ok(Some(regex)));
    let epoch = TargetEpochValue {
        epoch: 4,
        timestamp: 5,
    };
    assert_eq!(TargetEpochValue::decode(&epoch.encode()), Ok(Some(epoch)));
}
