//! Clients that are broken: batches that no log may take, each damaged in one way.

use super::{any_partition, leader};
use crate::batches::{packed, sealed};
use crate::broker::mail::Mail;
use crate::check::name_of;
use crate::codecs::NAMES;
use crate::core::Core;
use crate::process::CALENDAR;
use leasehold_log::batch::RecordBatchBuilder;
use rand::Rng as _;

/// Records may be this much ahead of the leader's calendar by default, in milliseconds; and no calendar here is so
/// far off.
const FUTURE: i64 = 3_600_000 + 600_000;
/// Larger than any batch may be by default.
const LARGE: usize = 1_100_000;

/// Where things are in a batch.
const MAGIC: usize = 16;
const ATTRIBUTES: usize = 22;
const LAST_DELTA: usize = 26;
const COUNT: usize = 60;
const RECORDS: usize = 61;

/// A whole batch of one record, which is made as late as `time`.
fn whole(time: i64, key: Option<&[u8]>, value: &[u8]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new();
    builder.push(time, key, Some(value));
    builder.build().to_vec()
}

/// Now and then somebody sends such a batch.
pub(super) fn send(core: &mut Core) {
    let Some(key) = any_partition(core).filter(|key| !core.check.is_internal(*key)) else {
        return;
    };
    let now = CALENDAR + i64::try_from(core.now).unwrap_or(0);
    let topic = core.check.topics.get(&name_of(key).0);
    let config = |name: &str| topic.and_then(|topic| topic.configs.get(name).cloned());
    let is_stamped = config("message.timestamp.type").is_some();
    // What is in the topic's codec anyhow is stored as it is, unless its keys matter.
    let own = config("compression.type").filter(|_| !core.check.is_compacted(key));
    let codec: u8 = core.rng.random_range(1..8);
    let named = NAMES.get(usize::from(codec)).copied();
    let is_looked_into = match own {
        Some(own) => named != Some(own.as_str()),
        None => core.check.is_compacted(key),
    };
    let value = u64::MAX.to_be_bytes();
    let plain = whole(now, Some(b"k"), &value);
    let mut spoilt = plain.clone();
    let what = match core.rng.random_range(0..14) {
        0 => {
            *spoilt.last_mut().unwrap_or(&mut 0) ^= 1;
            "a flipped bit"
        }
        1 => {
            spoilt.truncate(core.rng.random_range(0..spoilt.len()));
            "an end that is missing"
        }
        2 => {
            spoilt[MAGIC] = core.rng.random_range(0..2);
            "an old format"
        }
        3 => {
            spoilt[COUNT] = 2;
            "a record too few"
        }
        4 => {
            spoilt[LAST_DELTA] = 5;
            "offsets that nothing is at"
        }
        5 => {
            spoilt[ATTRIBUTES] |= 0x20;
            "a marker's bit"
        }
        6 => {
            spoilt[ATTRIBUTES] |= 0x10;
            "a transaction without a producer"
        }
        7 => {
            spoilt.extend(&plain);
            "a second batch"
        }
        8 => {
            spoilt.pop();
            "a record that ends early"
        }
        9 if !is_stamped => {
            spoilt = whole(now + FUTURE, Some(b"k"), &value);
            "a time far ahead"
        }
        10 if core.check.is_compacted(key) => {
            spoilt = whole(now, None, &value);
            "no key"
        }
        11 if is_looked_into => {
            spoilt[ATTRIBUTES] |= codec;
            "a codec that it is not in"
        }
        12 if core.chance(100) => {
            spoilt = whole(now, Some(b"k"), &vec![0; LARGE]);
            "too many bytes"
        }
        13 if is_looked_into && codec < 5 => {
            // Without its second half: some decoders do without the very end.
            spoilt = packed(&plain, codec.into());
            spoilt.truncate((RECORDS + spoilt.len()) / 2);
            "an end that is missing within what is packed"
        }
        _ => return,
    };
    // In the midst of it nothing is wrong but what is said.
    if !matches!(
        what,
        "a flipped bit" | "an end that is missing" | "a second batch"
    ) {
        sealed(&mut spoilt);
    }
    let to = leader(core, key);
    let records = spoilt.into();
    core.post_from(u64::MAX - 3, to, Mail::Garbage { key, records, what });
}
