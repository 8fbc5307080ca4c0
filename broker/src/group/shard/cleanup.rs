//! Offsets that nobody needs any more: expired ones, and those of deleted topics.

use super::offsets::offset_key;
use super::{Entry, Output, Purpose, Shard, WriteRecord};
use crate::group::state::{Now, Token};
use std::collections::HashSet;
use std::sync::Arc;

/// Nobody waits for a deletion that the coordinator decided itself.
const NOBODY: Token = Token(0);

/// So many fit into a batch of the default `max.message.bytes`, with the names that people give.
const TOMBSTONES_AT_ONCE: usize = 1000;

impl Shard {
    pub(super) fn remove_expired(&mut self, now: Now, out: &mut Output) {
        let retention = self.settings.offsets_retention_ms;
        let mut done = Vec::new();
        for (id, entry) in &self.groups {
            let mut expired =
                entry
                    .offsets
                    .expired(|topic| entry.group.expiry(topic), retention, now.wall);
            // What a transaction is about to change is not idle.
            expired.retain(|(topic, partition)| !self.open.has(id, topic, *partition));
            // A group that is left with nothing goes as a whole; one that has just been emptied
            // may still be wanted, so it goes at the next look.
            let whole =
                entry.offsets.len() == expired.len() && is_idle(entry) && !self.open.has_any(id);
            if whole || !expired.is_empty() {
                done.push((id.clone(), expired, whole));
            }
        }
        for (id, expired, whole) in done {
            if whole {
                tracing::info!(group = %id, offsets = expired.len(), "the group has expired");
                if let Err(error) = self.delete(&id, NOBODY, now, out) {
                    tracing::warn!(group = %id, %error, "the expired group could not be deleted");
                }
            } else {
                self.forget_offsets(&id, expired, now, out);
            }
        }
    }

    /// Topics were deleted: their offsets mean nothing to a topic that is created under the same name.
    pub fn topics_deleted(&mut self, topics: &HashSet<String>, now: Now, out: &mut Output) {
        let mut gone = Vec::new();
        for (id, entry) in &self.groups {
            let mut partitions = entry.offsets.of_topics(|topic| topics.contains(topic));
            let pending = self.open.of(id).filter(|(topic, _)| topics.contains(topic));
            partitions.extend(pending.cloned());
            // A group that is being deleted has tombstones for all its offsets already.
            if !partitions.is_empty() && !entry.group.is_deleting() {
                gone.push((id.clone(), partitions));
            }
        }
        for (id, partitions) in gone {
            tracing::info!(group = %id, offsets = partitions.len(), "removing offsets of deleted topics");
            self.forget_offsets(&id, partitions, now, out);
        }
    }

    pub(super) fn forget_offsets(
        &mut self,
        id: &Arc<str>,
        partitions: Vec<(String, i32)>,
        now: Now,
        out: &mut Output,
    ) {
        for chunk in partitions.chunks(TOMBSTONES_AT_ONCE) {
            let records = tombstones(id, chunk);
            self.write(id, records, Purpose::Forget(chunk.to_vec()), now, out);
        }
    }
}

/// What removes the offsets of these partitions.
pub(super) fn tombstones(id: &str, partitions: &[(String, i32)]) -> Vec<WriteRecord> {
    let tombstone = |(topic, partition): &(String, i32)| -> Option<WriteRecord> {
        Some((offset_key(id, topic, *partition).encode().ok()?, None))
    };
    partitions.iter().filter_map(tombstone).collect()
}

fn is_idle(entry: &Entry) -> bool {
    entry.group.is_idle() && entry.writes == 0
}
