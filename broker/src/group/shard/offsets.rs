//! Committing and fetching offsets.

use super::kind::Kind;
use super::{Output, Purpose, Reply, Shard};
use crate::group::consumer::{Commits, diff};
use crate::group::state::{Effects, Now, State, Token};
use crate::group::store::FieldError;
use crate::group::store::records::{Key, OffsetValue};
use crate::group::types::*;
use leasehold_types::seams::taken_out;
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
        let group = self.groups.get(request.group_id.as_str());
        let consumer = group.and_then(|entry| entry.group.consumer());
        // Until its successor is stored, a classic group decides itself.
        let consumer = consumer.filter(|cell| cell.upgrading().is_none());
        let allowed = match consumer.map(|cell| cell.group().check_commit(request)) {
            Some(Ok(allowed)) => allowed,
            Some(Err(error)) => return (request.all_partitions(error), None),
            None => Commits::All,
        };
        let mut taken = Taken::new();
        let mut offsets = Vec::new();
        let mut records = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for commit in &topic.partitions {
                let checked = allowed.check(&self.image, &topic.name, commit.partition);
                let record =
                    checked.and_then(|()| self.offset_record(request, &topic.name, commit, now));
                let error = match record {
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
        if taken_out("an-offset-is-shown-when-stored") {
            self.commit_written(&group, self.next_write(), offsets.clone(), true);
        }
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
        if entry.group.is_deleting() {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let upgrading = entry.group.consumer().and_then(|cell| cell.upgrading());
        let Some(group) = entry.group.classic().or(upgrading) else {
            return Ok(());
        };
        let mut fx = Effects::default();
        let result = group.check_commit(request, now, &mut fx);
        let id = group.id().clone();
        self.carry_out(&id, fx, now, out);
        result
    }

    pub(super) fn offset_record(
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
        write: super::WriteId,
        offsets: Vec<(String, i32, OffsetValue)>,
        stored: bool,
    ) {
        for (topic, partition, _) in offsets.iter().filter(|_| stored) {
            self.open.superseded(group, topic, *partition, Some(write));
        }
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
        let group = request.group_id.as_str();
        let entry = self.groups.get(group);
        let consumer = entry.and_then(|entry| entry.group.consumer());
        if let Some(Err(error)) = consumer.map(|cell| cell.group().check_fetch(request)) {
            return FetchResponse::refused(&request.group_id, error);
        }
        let offsets = entry.map(|entry| &entry.offsets);
        let fetched = |topic: &str, p: i32, value: Option<&OffsetValue>| match request
            .require_stable
            && self.open.has(group, topic, p)
            && !taken_out("who-wants-stable-offsets-waits")
        {
            true => unstable(p),
            false => fetched(p, value),
        };
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|(topic, partitions)| {
                    let get = |p: &i32| fetched(topic, *p, offsets.and_then(|o| o.get(topic, *p)));
                    (topic.clone(), partitions.iter().map(get).collect())
                })
                .collect(),
            None => offsets
                .iter()
                .flat_map(|offsets| offsets.visible())
                .map(|(topic, partitions)| {
                    let all = partitions
                        .into_iter()
                        .map(|(p, v)| fetched(topic, p, Some(v)));
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
        let entry = self
            .groups
            .get_mut(group_id)
            .ok_or(ErrorCode::GroupIdNotFound)?;
        let tombstones = match &entry.group {
            group if group.is_deleting() => return Err(ErrorCode::GroupIdNotFound),
            Kind::Classic(group) if group.state() == State::Empty => {
                let key = Key::Group {
                    group: group_id.to_owned(),
                };
                key.encode().map(|key| vec![(key, None)])
            }
            Kind::Consumer(cell) if entry.group.is_idle() => diff::tombstones(cell.group()),
            _ => return Err(ErrorCode::NonEmptyGroup),
        };
        let tombstones = tombstones.map_err(|_| ErrorCode::UnknownServerError)?;
        let mut partitions = entry.offsets.partitions();
        partitions.extend(self.open.of(group_id).cloned());
        entry.group.set_deleting(true, now);
        let id = entry.group.id().clone();
        // The group's own tombstone comes last: what a crash leaves in between can be deleted again.
        self.forget_offsets(&id, partitions, now, out);
        self.write(&id, tombstones, Purpose::Delete(token), now, out);
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

/// A transaction is about to change it (KIP-447).
fn unstable(partition: i32) -> FetchedOffset {
    FetchedOffset {
        error: ErrorCode::UnstableOffsetCommit,
        ..fetched(partition, None)
    }
}

fn fetched(partition: i32, value: Option<&OffsetValue>) -> FetchedOffset {
    match value {
        Some(value) => FetchedOffset {
            partition,
            error: ErrorCode::None,
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.clone(),
        },
        None => FetchedOffset {
            partition,
            error: ErrorCode::None,
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
