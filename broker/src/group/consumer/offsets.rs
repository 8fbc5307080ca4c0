//! Who may commit and fetch the offsets of a group.

use super::group::ConsumerGroup;
use super::member::Member;
use crate::group::types::{CommitRequest, FetchRequest};
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;

/// From this version on, a client understands that its member epoch is stale.
const MEMBER_EPOCH_FROM: i16 = 9;

/// What a commit may store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commits<'a> {
    /// All that it names.
    All,
    /// What the member got in an epoch up to that of the commit: it has moved on since (KIP-1251).
    Since(&'a Member, i32),
}

impl Commits<'_> {
    /// Whether the offset of one partition may be stored.
    pub fn check(&self, image: &Image, topic: &str, partition: i32) -> Result<(), ErrorCode> {
        let Self::Since(member, epoch) = self else {
            return Ok(());
        };
        let id = image.topic_by_name(topic).map(|topic| topic.id);
        let current = &member.current;
        let since = id.and_then(|id| {
            let find = |owned: &crate::group::store::consumer::Owned| {
                owned.get(&id).and_then(|all| all.get(&partition)).copied()
            };
            find(&current.assigned).or_else(|| find(&current.revoking))
        });
        match since {
            Some(since) if since <= *epoch => Ok(()),
            _ => Err(stale(member)),
        }
    }
}

fn stale(member: &Member) -> ErrorCode {
    match member.classic() {
        Some(_) => ErrorCode::IllegalGeneration,
        None => ErrorCode::StaleMemberEpoch,
    }
}

impl ConsumerGroup {
    /// Whether, and of what, this commit may be stored.
    pub fn check_commit(&self, request: &CommitRequest) -> Result<Commits<'_>, ErrorCode> {
        // An administrator, or a consumer that assigns its partitions itself.
        if request.generation < 0 && self.members.is_empty() {
            return Ok(Commits::All);
        }
        let member = self.members.get(request.member_id.as_str());
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if member.classic().is_none() && request.api_version < MEMBER_EPOCH_FROM {
            return Err(ErrorCode::UnsupportedVersion);
        }
        match request.generation {
            epoch if epoch == member.epoch() => Ok(Commits::All),
            epoch if epoch > member.epoch() => Err(stale(member)),
            epoch => Ok(Commits::Since(member, epoch)),
        }
    }

    /// The same for an offset in a transaction. As in Kafka, who tells no member may commit whatever the group
    /// does (KIP-447), and the request has no error for another epoch but that of a generation.
    pub fn check_transactional_commit(&self, request: &CommitRequest) -> Result<(), ErrorCode> {
        let member_id = request.member_id.as_str();
        let tells_none = member_id.is_empty() && request.instance_id.is_none();
        if request.generation < 0 && (tells_none || self.members.is_empty()) {
            return Ok(());
        }
        let member = self.members.get(member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        match request.generation == member.epoch() {
            true => Ok(()),
            false => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// Whether this fetch may be answered.
    pub fn check_fetch(&self, request: &FetchRequest) -> Result<(), ErrorCode> {
        let Some(member_id) = request.member_id.as_deref() else {
            if request.member_epoch < 0 {
                return Ok(());
            }
            return Err(ErrorCode::UnknownMemberId);
        };
        let member = self.members.get(member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        match member.epoch() == request.member_epoch {
            true => Ok(()),
            false => Err(stale(member)),
        }
    }
}
