//! Writes the seeds of the corpus: what the product's own encoders and logs make. The frames of requests, which
//! are in the corpus too, came from the clients of the broker's own tests.
//!
//!     cargo run -p leasehold-fuzz --bin leasehold-fuzz-seeds

mod log;
mod metadata;

use leasehold_broker::group::store::records::{GroupValue, Key, MemberValue, OffsetValue};
use std::fs;
use std::path::PathBuf;

fn main() {
    log::write();
    metadata::write();
    groups();
    config();
    frames();
}

/// One seed of `target`.
fn put(target: &str, name: &str, content: &[u8]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder).expect("the corpus");
    fs::write(folder.join(format!("seed-{name}")), content).expect("a seed");
}

fn framed(parts: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let len = part.map_or(u16::MAX, |part| part.len() as u16);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(part.unwrap_or_default());
    }
    out
}

fn groups() {
    let offset = Key::Offset {
        group: "g".into(),
        topic: "a".into(),
        partition: 1,
    };
    let offset = offset.encode().expect("a key");
    let group = Key::Group { group: "g".into() }.encode().expect("a key");
    let committed = |expire_timestamp| OffsetValue {
        offset: 5,
        leader_epoch: 3,
        metadata: "m".into(),
        commit_timestamp: 1_000,
        expire_timestamp,
    };
    let member = |id: &str, instance: Option<&str>| MemberValue {
        member_id: id.into(),
        instance_id: instance.map(Into::into),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 45_000,
        subscription: b"\0\x01\0\0\0\x01\0\x01a\xff\xff\xff\xff"[..].into(),
        assignment: b"\0\x01\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x01"[..].into(),
    };
    let members = |members: Vec<MemberValue>| {
        let value = GroupValue {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            state_timestamp: 900,
            members,
        };
        value.encode().expect("a value")
    };
    let (plain, expiring) = (committed(None), committed(Some(9_000)));
    let (plain, expiring) = (
        plain.encode().expect("a value"),
        expiring.encode().expect("a value"),
    );
    let empty = members(Vec::new());
    let three = members(vec![
        member("m1", None),
        member("m2", Some("i")),
        member("m3", None),
    ]);
    put(
        "groups",
        "offsets",
        &framed(&[Some(&offset), Some(&plain), Some(&offset), Some(&expiring)]),
    );
    put(
        "groups",
        "forgotten",
        &framed(&[Some(&offset), Some(&plain), Some(&offset), None]),
    );
    put(
        "groups",
        "empty",
        &framed(&[Some(&group), Some(&empty), Some(&offset), Some(&plain)]),
    );
    put(
        "groups",
        "members",
        &framed(&[Some(&group), Some(&three), Some(&offset), Some(&expiring)]),
    );
}

fn config() {
    put(
        "config",
        "broker",
        b"num.partitions: 3\nauto.create.topics.enable: false\nlog.retention.hours: 5\n",
    );
    put(
        "config",
        "topic",
        b"cleanup.policy: compact,delete\nretention.ms: -1\ncompression.type: zstd\n",
    );
    put(
        "config",
        "numbers",
        b"min.cleanable.dirty.ratio: 0.25\nsegment.bytes: 1048576\nflush.ms: 9223372036854775807\n",
    );
    put(
        "config",
        "lag",
        b"min.compaction.lag.ms: 5\nmax.compaction.lag.ms: 4\n",
    );
    put(
        "config",
        "defaults",
        leasehold_broker::config::reference()
            .as_bytes()
            .get(..1500)
            .unwrap_or_default(),
    );
}

fn frames() {
    let frame = |len: usize| [&(len as u32).to_be_bytes()[..], &vec![7; len]].concat();
    put(
        "frames",
        "small",
        &[&[9][..], &frame(3), &frame(0), &frame(40)].concat(),
    );
    put(
        "frames",
        "long",
        &[&[200][..], &frame(30_000), &frame(5)].concat(),
    );
    put("frames", "too-long", b"\x05\x7f\xff\xff\xffabc");
    put("frames", "negative", b"\x05\0\0\0\x01a\xff\xff\xff\xff");
}
