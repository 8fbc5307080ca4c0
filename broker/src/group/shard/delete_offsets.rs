//! OffsetDelete: an administrator takes back what a group committed for topics that it consumes no more.

use super::kind::Kind;
use super::{Output, Purpose, Shard, Taken};
use crate::group::state::{Now, State, Token};
use crate::group::types::DeleteOffsetsRequest;
use leasehold_wire::ErrorCode;

impl Shard {
    /// The outcome of each partition; with a token, those without an error wait for the store. `Err` is
    /// the answer to all of it.
    pub fn delete_offsets(
        &mut self,
        request: &DeleteOffsetsRequest,
        token: Token,
        now: Now,
        out: &mut Output,
    ) -> Result<(Taken, Option<Token>), ErrorCode> {
        let entry = self.groups.get(request.group_id.as_str());
        let entry = entry.ok_or(ErrorCode::GroupIdNotFound)?;
        let mut taken = Taken::new();
        let mut gone = Vec::new();
        for (topic, partitions) in &request.topics {
            let error = match consumes(&entry.group, topic)? {
                true => ErrorCode::GroupSubscribedToTopic,
                false => ErrorCode::None,
            };
            taken.push((
                topic.clone(),
                partitions.iter().map(|p| (*p, error)).collect(),
            ));
            let stored = partitions.iter();
            let stored =
                stored.filter(|p| error.is_ok() && entry.offsets.get(topic, **p).is_some());
            gone.extend(stored.map(|p| (topic.clone(), *p)));
        }
        let id = entry.group.id().clone();
        if gone.is_empty() {
            return Ok((taken, None));
        }
        tracing::info!(group = %id, offsets = gone.len(), "an administrator removes offsets");
        let records = super::cleanup::tombstones(&id, &gone);
        let purpose = Purpose::DeleteOffsets {
            partitions: gone,
            token,
        };
        self.write(&id, records, purpose, now, out);
        Ok((taken, Some(token)))
    }
}

/// Whether a group consumes `topic`; an error if none of its offsets may be taken back.
fn consumes(group: &Kind, topic: &str) -> Result<bool, ErrorCode> {
    match group {
        group if group.is_deleting() => Err(ErrorCode::GroupIdNotFound),
        Kind::Classic(group) if group.state() == State::Empty => Ok(false),
        // Whose topics are not known may consume any of them.
        Kind::Classic(group) if !group.knows_its_topics() => Err(ErrorCode::NonEmptyGroup),
        Kind::Classic(group) => Ok(group.is_subscribed_to(topic)),
        Kind::Consumer(cell) => Ok(cell.group().is_subscribed_to(topic)),
    }
}
