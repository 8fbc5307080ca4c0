//! Records of `__consumer_offsets`, as a coordinator loads them.
//!
//! Input: records, each a key and a value with u16 lengths before them; 0xffff is a tombstone. They are folded
//! as at a load, and a shard of the coordinator is made of them, which lists, describes and ticks. What
//! decodes is encoded and decoded to the same.

use leasehold_broker::group::consumer::ConsumerSettings;
use leasehold_broker::group::shard::{Output, Settings, Shard};
use leasehold_broker::group::state::{Limits, Now};
use leasehold_broker::group::store::loaded::Loaded;
use leasehold_broker::group::store::records::{GroupValue, Key, OffsetValue, read_topics};
use leasehold_broker::group::types::ListRequest;
use leasehold_types::ClusterId;
use std::sync::Arc;

const SETTINGS: Settings = Settings {
    limits: Limits {
        max_size: 2,
        initial_rebalance_delay_ms: 0,
        new_member_join_timeout_ms: 300_000,
        max_pending: 10,
    },
    consumer: ConsumerSettings::DEFAULT,
    offset_metadata_max: 4096,
    offsets_retention_ms: 3_600_000,
    offsets_check_interval_ms: 600_000_000,
    write_timeout_ms: 5_000,
};

/// See above.
pub(crate) fn run(data: &[u8]) {
    let mut loaded = Loaded::default();
    let mut rest = data;
    while let Some(key) = take(&mut rest) {
        let Some(value) = take(&mut rest) else { break };
        both_ways(key, value);
        loaded.apply(key, value);
    }
    let now = Now {
        mono: 1,
        wall: 1_000_000,
    };
    let mut out = Output::default();
    let (groups, open) = loaded.into_parts();
    let ids: Vec<String> = groups.keys().cloned().collect();
    let image = Arc::new(crate::image(&ClusterId("c".into())));
    let mut shard = Shard::new(SETTINGS, image, groups, open, now, &mut out);
    // A group without members, offsets or a past is not kept.
    assert!(shard.counts().groups <= ids.len());
    assert_eq!(
        shard.list(&ListRequest::default()).len(),
        shard.counts().groups
    );
    for id in &ids {
        assert_eq!(shard.describe(id, 6).group_id, *id);
    }
    // Sessions and retention run out, rebalances end; nobody answers the writes.
    for mono in [10_000, u64::from(u32::MAX)] {
        let wall = now.wall + mono as i64;
        shard.tick(Now { mono, wall }, &mut out);
    }
}

/// A length and as many bytes; the inner `None` is null.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, more) = rest.split_first_chunk::<2>()?;
    let len = u16::from_be_bytes(*len);
    if len == u16::MAX {
        *rest = more;
        return Some(None);
    }
    let (taken, more) = more.split_at(usize::from(len).min(more.len()));
    *rest = more;
    Some(Some(taken))
}

fn both_ways(key: Option<&[u8]>, value: Option<&[u8]>) {
    if let Some(Ok(Some(key))) = key.map(Key::decode) {
        let again = key.encode().expect("a key that was decoded");
        assert_eq!(Key::decode(&again), Ok(Some(key)));
    }
    let Some(value) = value else { return };
    let _ = read_topics(value);
    if let Ok(Some(value)) = OffsetValue::decode(value) {
        let again = value.encode().expect("a value that was decoded");
        let second = OffsetValue::decode(&again)
            .expect("what was encoded")
            .expect("a known version");
        assert_eq!(
            (second.offset, second.metadata),
            (value.offset, value.metadata)
        );
    }
    if let Ok(Some(value)) = GroupValue::decode(value) {
        let again = value.encode().expect("a value that was decoded");
        assert_eq!(GroupValue::decode(&again), Ok(Some(value)));
    }
}
