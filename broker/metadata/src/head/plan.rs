//! What one head write looks like: pure. Every change, whatever its size, is exactly one patch of the
//! head, preceded by the creation of the chunks that it names.

use super::chunks::store;
use super::format::{ControllerRef, EntryHeader, Head, TailEntry, entry_text, json, lines};
use super::keys;
use crate::features::METADATA_VERSION;
use crate::image::Claim;
use crate::records::{Entry, Record};
use crate::store::{Chunk, HeadPatch, random_nonce};
use leasehold_types::seams::taken_out;
use leasehold_types::{ControllerEpoch, Seq};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// When the tail is rolled, when a snapshot replaces the segments, and when chunks that nothing names go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A tail that would pass this many bytes is rolled into a segment.
    pub tail_bytes: usize,
    /// The most segments before a snapshot replaces them.
    pub segments: usize,
    /// The most bytes of segments before a snapshot replaces them.
    pub segment_bytes: usize,
    /// How long a chunk outlives its last reference, so that a reader of an older head still finds it.
    pub grace: Duration,
    /// How often it is looked for chunks whose time has come.
    pub collect_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tail_bytes: 8 * 1024,
            segments: 32,
            segment_bytes: 1024 * 1024,
            grace: Duration::from_secs(600),
            collect_every: Duration::from_secs(60),
        }
    }
}

/// How many claims the head shows.
const CLAIMS_SHOWN: usize = 16;

/// A head write, ready to be sent.
#[derive(Clone, Debug)]
pub struct Planned {
    pub entry: Entry,
    /// To be created first.
    pub chunks: Vec<Chunk>,
    pub patch: HeadPatch,
    /// The head once this is applied.
    pub next: Head,
    /// Chunks that `next` no longer names.
    pub dropped: Vec<String>,
}

/// Plans a claim: the next epoch, ours. `claim` tells the epoch, which is the head's plus one.
pub fn plan_claim(head: &Head, controller: ControllerRef, claim: Claim, limits: Limits) -> Planned {
    let mut next = head.clone();
    next.epoch = claim.epoch;
    next.controller = Some(controller);
    next.claims.push(claim.clone());
    let surplus = next.claims.len().saturating_sub(CLAIMS_SHOWN);
    next.claims.drain(..surplus);
    plan(head, next, vec![Record::Claim(claim)], limits, None)
}

/// Plans the commit of `records`. `snapshot` gives the text of a snapshot as of `head`, if one is due.
pub fn plan_commit(
    head: &Head,
    records: Vec<Record>,
    limits: Limits,
    snapshot: &dyn Fn() -> String,
) -> Planned {
    plan(head, head.clone(), records, limits, Some(snapshot))
}

fn plan(
    head: &Head,
    mut next: Head,
    records: Vec<Record>,
    limits: Limits,
    snapshot: Option<&dyn Fn() -> String>,
) -> Planned {
    let entry = Entry {
        seq: head.seq.next(),
        epoch: next.epoch,
        nonce: random_nonce(),
        records,
    };
    let text = entry_text(&entry);
    next.seq = entry.seq;
    for record in &entry.records {
        if let Record::FeatureLevel { name, level } = record
            && name == METADATA_VERSION
        {
            next.metadata_version = Some(*level);
        }
    }
    next.nonce.clone_from(&entry.nonce);
    let mut chunks = Vec::new();
    let mut keep = |text: &str, first: Seq, last: Seq, nonce: &str| {
        let (stored, made) = store(text, &head.cluster_id, next.epoch, first..=last, nonce);
        chunks.extend(made);
        stored
    };
    let too_long = head.tail_bytes() + text.len() > limits.tail_bytes;
    let segment_bytes: usize = head.segments.iter().map(|s| s.bytes).sum();
    let too_many = head.segments.len() >= limits.segments || segment_bytes >= limits.segment_bytes;
    if too_long && head.seq > Seq(0) {
        match snapshot {
            Some(snapshot) if too_many => {
                next.snapshot = Some(keep(&snapshot(), Seq(0), head.seq, &head.nonce));
                next.segments.clear();
                next.tail.clear();
            }
            _ => {
                if let Some(first) = head.tail.keys().next() {
                    let segment = keep(&head.tail_text(), *first, head.seq, &head.nonce);
                    next.segments.push(segment);
                    next.tail.clear();
                }
            }
        }
    }
    if text.len() > limits.tail_bytes && next.tail.is_empty() {
        // Too large for the tail: a segment of its own, named by this same write.
        let segment = keep(&text, entry.seq, entry.seq, &entry.nonce);
        next.segments.push(segment);
    } else {
        let header = EntryHeader::of(&entry);
        next.tail.insert(entry.seq, TailEntry { header, text });
    }
    let kept: HashSet<&str> = next.chunk_names().collect();
    let dropped = head
        .chunk_names()
        .filter(|name| !kept.contains(name))
        .map(str::to_owned)
        .collect();
    Planned {
        patch: difference(&to_data(head), &to_data(&next), &next.nonce),
        entry,
        chunks,
        dropped,
        next,
    }
}

/// The head's keys and values; what is absent has no key.
pub(super) fn to_data(head: &Head) -> BTreeMap<String, String> {
    let mut data = BTreeMap::new();
    let mut set = |key: &str, value: String| data.insert(key.to_owned(), value);
    set(keys::CLUSTER_ID, head.cluster_id.to_string());
    set(keys::EPOCH, head.epoch.to_string());
    set(keys::SEQ, head.seq.to_string());
    set(keys::NONCE, head.nonce.clone());
    if let Some(controller) = &head.controller {
        set(keys::CONTROLLER, json(controller));
    }
    if let Some(level) = head.metadata_version {
        set(keys::METADATA_VERSION, level.to_string());
    }
    if let Some(snapshot) = &head.snapshot {
        set(keys::SNAPSHOT, json(snapshot));
    }
    if !head.segments.is_empty() {
        set(keys::SEGMENTS, lines(&head.segments));
    }
    if !head.claims.is_empty() {
        set(keys::CLAIMS, lines(&head.claims));
    }
    for (seq, entry) in &head.tail {
        set(&keys::entry(*seq), entry.text.clone());
    }
    data
}

pub(super) fn difference(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    nonce: &str,
) -> HeadPatch {
    let changed = after
        .iter()
        .filter(|(key, value)| *key != keys::NONCE && before.get(*key) != Some(value));
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    HeadPatch {
        nonce: nonce.to_owned(),
        set: changed.map(|(k, v)| (k.clone(), v.clone())).collect(),
        remove: removed.cloned().collect(),
    }
}

/// The epoch that follows `head`'s.
pub fn next_epoch(head: &Head) -> ControllerEpoch {
    if taken_out("claim-raises-epoch") {
        head.epoch
    } else {
        head.epoch.next()
    }
}
