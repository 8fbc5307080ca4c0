//! Offsets that nobody needs any more: expired ones, and those of deleted topics.

use super::offsets::offset_key;
use super::{Entry, Output, Purpose, Shard, WriteRecord};
use crate::group::offsets::Expiry;
use crate::group::state::{Group, Now, State, Token};
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
            let expired =
                entry
                    .offsets
                    .expired(|topic| expiry(&entry.group, topic), retention, now.wall);
            // A group that is left with nothing goes as a whole; one that has just been emptied
            // may still be wanted, so it goes at the next look.
            let whole = entry.offsets.len() == expired.len() && is_idle(entry);
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
            let partitions = entry.offsets.of_topics(|topic| topics.contains(topic));
            // A group that is being deleted has tombstones for all its offsets already.
            if !partitions.is_empty() && entry.group.state() != State::Dead {
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
        let tombstone = |(topic, partition): &(String, i32)| -> Option<WriteRecord> {
            Some((offset_key(id, topic, *partition).encode().ok()?, None))
        };
        for chunk in partitions.chunks(TOMBSTONES_AT_ONCE) {
            let records = chunk.iter().filter_map(tombstone).collect();
            self.write(id, records, Purpose::Forget(chunk.to_vec()), now, out);
        }
    }
}

fn expiry(group: &Group, topic: &str) -> Expiry {
    match (group.state(), group.protocol_type()) {
        // Consumers that assign their partitions themselves: the group never has members.
        (State::Empty, None) => Expiry::AfterCommit,
        (State::Empty, Some(_)) => Expiry::AfterEmpty(group.state_since()),
        (State::Stable, Some(_)) if group.knows_its_topics() && !group.is_subscribed_to(topic) => {
            Expiry::AfterCommit
        }
        _ => Expiry::Never,
    }
}

fn is_idle(entry: &Entry) -> bool {
    entry.group.is_idle() && entry.writes == 0
}
