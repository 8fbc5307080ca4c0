//! Committing and fetching offsets.

use super::{Output, Purpose, Reply, Shard};
use crate::group::state::{Effects, Now, Token};
use crate::group::store::FieldError;
use crate::group::store::records::{Key, OffsetValue};
use crate::group::types::*;
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// From this version on, a client understands that a group does not exist.
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;

/// Whether one partition of a commit was taken; the others wait for the store.
pub type Taken = Vec<(String, Vec<(i32, ErrorCode)>)>;

impl Shard {
    /// OffsetCommit. Partitions that are refused at once come back with their error; what is to be
    /// stored is answered under `token`, for all of them. `None`: nothing is, so no answer follows.
    pub fn commit(
        &mut self,
        request: &CommitRequest,
        token: Token,
        now: Now,
        out: &mut Output,
    ) -> (Taken, Option<Token>) {
        if let Err(error) = self.check_commit(request, now, out) {
            return (request.all_partitions(error), None);
        }
        let mut taken = Taken::new();
        let mut offsets = Vec::new();
        let mut records = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for commit in &topic.partitions {
                let error = match self.offset_record(request, &topic.name, commit, now) {
                    Ok((value, record)) => {
                        offsets.push((topic.name.clone(), commit.partition, value));
                        records.push(record);
                        ErrorCode::None
                    }
                    Err(error) => error,
                };
                partitions.push((commit.partition, error));
            }
            taken.push((topic.name.clone(), partitions));
        }
        if records.is_empty() {
            self.forget_if_blank(&request.group_id);
            return (taken, None);
        }
        let Some(entry) = self.groups.get_mut(request.group_id.as_str()) else {
            return (request.all_partitions(ErrorCode::UnknownServerError), None);
        };
        for (topic, partition, _) in &offsets {
            entry.offsets.begin(topic, *partition);
        }
        let group = entry.group.id().clone();
        let purpose = Purpose::Commit { offsets, token };
        self.write(&group, records, purpose, now, out);
        (taken, Some(token))
    }

    fn check_commit(
        &mut self,
        request: &CommitRequest,
        now: Now,
        out: &mut Output,
    ) -> Result<(), ErrorCode> {
        if !self.groups.contains_key(request.group_id.as_str()) {
            match (request.generation, request.api_version) {
                (..0, _) => self.create(&request.group_id, now),
                (_, GROUP_ID_NOT_FOUND_FROM..) => return Err(ErrorCode::GroupIdNotFound),
                _ => return Err(ErrorCode::IllegalGeneration),
            }
        }
        let Some(entry) = self.groups.get(request.group_id.as_str()) else {
            return Err(ErrorCode::UnknownMemberId);
        };
        let mut fx = Effects::default();
        let result = entry.group.check_commit(request, now, &mut fx);
        let id = entry.group.id().clone();
        self.carry_out(&id, fx, now, out);
        result
    }

    fn offset_record(
        &self,
        request: &CommitRequest,
        topic: &str,
        commit: &CommitPartition,
        now: Now,
    ) -> Result<(OffsetValue, super::WriteRecord), ErrorCode> {
        let metadata = commit.metadata.as_deref().unwrap_or_default();
        // Kafka counts as Java does, in UTF-16 units.
        if metadata.encode_utf16().count() > self.settings.offset_metadata_max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        let value = OffsetValue {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            metadata: metadata.to_owned(),
            commit_timestamp: now.wall,
            expire_timestamp: (request.retention_ms >= 0)
                .then(|| now.wall.saturating_add(request.retention_ms)),
        };
        let key = offset_key(&request.group_id, topic, commit.partition);
        let encode = || Ok::<_, FieldError>((key.encode()?, Some(value.encode()?)));
        match encode() {
            Ok(record) => Ok((value, record)),
            Err(_) => Err(ErrorCode::InvalidCommitOffsetSize),
        }
    }

    pub(super) fn commit_written(
        &mut self,
        group: &Arc<str>,
        offsets: Vec<(String, i32, OffsetValue)>,
        stored: bool,
    ) {
        let Some(entry) = self.groups.get_mut(group) else {
            return;
        };
        for (topic, partition, value) in offsets {
            entry
                .offsets
                .end(&topic, partition, stored.then_some(value));
        }
    }

    /// OffsetFetch of one group.
    pub fn fetch(&self, request: &FetchRequest) -> FetchResponse {
        let offsets = self
            .groups
            .get(request.group_id.as_str())
            .map(|e| &e.offsets);
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|(topic, partitions)| {
                    let get = |p: &i32| fetched(*p, offsets.and_then(|o| o.get(topic, *p)));
                    (topic.clone(), partitions.iter().map(get).collect())
                })
                .collect(),
            None => offsets
                .iter()
                .flat_map(|offsets| offsets.visible())
                .map(|(topic, partitions)| {
                    let all = partitions.into_iter().map(|(p, v)| fetched(p, Some(v)));
                    (topic.to_owned(), all.collect())
                })
                .collect(),
        };
        FetchResponse {
            group_id: request.group_id.clone(),
            error: ErrorCode::None,
            topics,
        }
    }

    /// DeleteGroups, for one group. `Err` is the answer; else it comes under `token`.
    pub fn delete(
        &mut self,
        group_id: &str,
        token: Token,
        now: Now,
        out: &mut Output,
    ) -> Result<(), ErrorCode> {
        use crate::group::state::State;
        let entry = self
            .groups
            .get_mut(group_id)
            .ok_or(ErrorCode::GroupIdNotFound)?;
        match entry.group.state() {
            State::Empty => {}
            State::Dead => return Err(ErrorCode::GroupIdNotFound),
            _ => return Err(ErrorCode::NonEmptyGroup),
        }
        let key = Key::Group {
            group: group_id.to_owned(),
        };
        let tombstone = key.encode().map_err(|_| ErrorCode::UnknownServerError)?;
        let partitions = entry.offsets.partitions();
        entry.group.set_deleting(true, now);
        let id = entry.group.id().clone();
        // The group's own tombstone comes last: what a crash leaves in between can be deleted again.
        self.forget_offsets(&id, partitions, now, out);
        self.write(
            &id,
            vec![(tombstone, None)],
            Purpose::Delete(token),
            now,
            out,
        );
        Ok(())
    }

    pub(super) fn delete_written(&mut self, group: &Arc<str>, stored: bool, now: Now) {
        if stored {
            tracing::info!(%group, "the group is deleted");
            self.groups.remove(group);
        } else if let Some(entry) = self.groups.get_mut(group) {
            entry.group.set_deleting(false, now);
        }
    }
}

pub(super) fn offset_key(group: &str, topic: &str, partition: i32) -> Key {
    Key::Offset {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
    }
}

fn fetched(partition: i32, value: Option<&OffsetValue>) -> FetchedOffset {
    match value {
        Some(value) => FetchedOffset {
            partition,
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.clone(),
        },
        None => FetchedOffset {
            partition,
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
        },
    }
}

impl Reply {
    /// The outcome of a commit, spread over its partitions: those refused before keep their error.
    pub fn spread(taken: Taken, stored: ErrorCode) -> CommitResponse {
        let mark = |(partition, error): (i32, ErrorCode)| {
            (partition, if error.is_ok() { stored } else { error })
        };
        let topics = taken.into_iter();
        CommitResponse {
            topics: topics
                .map(|(topic, partitions)| (topic, partitions.into_iter().map(mark).collect()))
                .collect(),
        }
    }
}
