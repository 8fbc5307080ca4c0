use super::*;

/// Big-endian fields as Kafka's schema lists them, written out by hand.
fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn an_offset_commit_has_the_bytes_of_kafkas_schema() {
    let key = Key::Offset {
        group: "group".to_owned(),
        topic: "topic".to_owned(),
        partition: 258,
    };
    let key_bytes = bytes(&[
        &[0, 1], // version
        &[0, 5],
        b"group",
        &[0, 5],
        b"topic",
        &[0, 0, 1, 2], // partition
    ]);
    assert_eq!(key.encode().unwrap(), key_bytes);
    assert_eq!(Key::decode(&key_bytes).unwrap(), Some(key));

    let value = OffsetValue {
        offset: 0x0102,
        leader_epoch: 7,
        metadata: "m".to_owned(),
        commit_timestamp: 0x0304,
        expire_timestamp: None,
    };
    let value_bytes = bytes(&[
        &[0, 3],
        &[0, 0, 0, 0, 0, 0, 1, 2], // offset
        &[0, 0, 0, 7],             // leader epoch
        &[0, 1],
        b"m",
        &[0, 0, 0, 0, 0, 0, 3, 4], // commit timestamp
    ]);
    assert_eq!(value.encode().unwrap(), value_bytes);
    assert_eq!(OffsetValue::decode(&value_bytes).unwrap(), Some(value));
}

#[test]
fn a_commit_with_its_own_retention_is_written_in_the_version_that_can_hold_it() {
    let value = OffsetValue {
        offset: 1,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp: 2,
        expire_timestamp: Some(3),
    };
    let value_bytes = bytes(&[
        &[0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 2],
        &[0, 0, 0, 0, 0, 0, 0, 3],
    ]);
    assert_eq!(value.encode().unwrap(), value_bytes);
    assert_eq!(OffsetValue::decode(&value_bytes).unwrap(), Some(value));
}

#[test]
fn group_metadata_has_the_bytes_of_kafkas_schema() {
    let key = Key::Group {
        group: "g".to_owned(),
    };
    let key_bytes = bytes(&[&[0, 2], &[0, 1], b"g"]);
    assert_eq!(key.encode().unwrap(), key_bytes);
    assert_eq!(Key::decode(&key_bytes).unwrap(), Some(key));

    let value = GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 3,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        state_timestamp: 5,
        members: vec![MemberValue {
            member_id: "m-1".to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            client_host: "/1.2.3.4".to_owned(),
            rebalance_timeout_ms: 256,
            session_timeout_ms: 512,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"as"),
        }],
    };
    let value_bytes = bytes(&[
        &[0, 3],
        &[0, 8],
        b"consumer",
        &[0, 0, 0, 3], // generation
        &[0, 5],
        b"range",
        &[0, 3],
        b"m-1",
        &[0, 0, 0, 0, 0, 0, 0, 5], // state timestamp
        &[0, 0, 0, 1],             // members
        &[0, 3],
        b"m-1",
        &[0xff, 0xff], // member id, no instance id
        &[0, 1],
        b"c",
        &[0, 8],
        b"/1.2.3.4",
        &[0, 0, 1, 0],
        &[0, 0, 2, 0], // rebalance and session timeout
        &[0, 0, 0, 3],
        b"sub",
        &[0, 0, 0, 2],
        b"as",
    ]);
    assert_eq!(value.encode().unwrap(), value_bytes);
    assert_eq!(GroupValue::decode(&value_bytes).unwrap(), Some(value));
}

#[test]
fn an_empty_group_has_no_protocol_and_no_leader() {
    let value = GroupValue {
        protocol_type: "consumer".to_owned(),
        generation: 4,
        protocol: None,
        leader: None,
        state_timestamp: -1,
        members: Vec::new(),
    };
    let encoded = value.encode().unwrap();
    assert_eq!(GroupValue::decode(&encoded).unwrap(), Some(value));
}

#[test]
fn values_of_older_versions_are_read() {
    let offset_0 = bytes(&[&[0, 0], &[0, 0, 0, 0, 0, 0, 0, 9], &[0, 0], &[0; 8]]);
    assert_eq!(OffsetValue::decode(&offset_0).unwrap().unwrap().offset, 9);
    let group_0 = bytes(&[
        &[0, 0],
        &[0, 1],
        b"t",
        &[0, 0, 0, 1],
        &[0, 1],
        b"p",
        &[0, 1],
        b"m",
        &[0, 0, 0, 1],
        &[0, 1],
        b"m",
        &[0, 1],
        b"c",
        &[0, 1],
        b"h",
        &[0, 0, 0, 9],
        &[0, 0, 0, 0],
        &[0, 0, 0, 0],
    ]);
    let group = GroupValue::decode(&group_0).unwrap().unwrap();
    assert_eq!(group.members[0].session_timeout_ms, 9);
    assert_eq!(group.members[0].rebalance_timeout_ms, -1);
}

#[test]
fn what_no_version_can_hold_is_an_error_and_cut_values_do_not_panic() {
    let key = Key::Group {
        group: "g".repeat(40_000),
    };
    assert_eq!(key.encode(), Err(FieldError::TooLong(40_000)));
    let value = OffsetValue {
        offset: 1,
        leader_epoch: 1,
        metadata: "meta".to_owned(),
        commit_timestamp: 1,
        expire_timestamp: None,
    };
    let whole = value.encode().unwrap();
    for cut in 0..whole.len() {
        assert_eq!(
            OffsetValue::decode(&whole[..cut]),
            Err(FieldError::Truncated)
        );
    }
    // A member count that the bytes do not justify.
    let hostile = bytes(&[
        &[0, 0],
        &[0, 1],
        b"t",
        &[0, 0, 0, 1],
        &[0xff, 0xff],
        &[0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
    ]);
    assert_eq!(GroupValue::decode(&hostile), Err(FieldError::Truncated));
}
