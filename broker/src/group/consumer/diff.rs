//! What is to be stored of a change: the records that lead from one state of a group to the next.

use super::group::ConsumerGroup;
use crate::group::store::FieldError;
use crate::group::store::consumer::{ConsumerKey, encode_target};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use std::sync::Arc;

/// A record to append: key, and value or tombstone.
type Record = (Vec<u8>, Option<Vec<u8>>);

/// The records of a change, in Kafka's order: who the members are before what they shall have, and that
/// before what they have. A log that ends in the middle of them is still one that can be served.
pub fn records(before: &ConsumerGroup, after: &ConsumerGroup) -> Result<Vec<Record>, FieldError> {
    let group = &*after.id;
    let mut records = Vec::new();
    let mut push = |key: ConsumerKey, value: Option<Vec<u8>>| {
        records.push((key.encode(group)?, value));
        Ok::<(), FieldError>(())
    };
    let gone = |id: &Arc<str>| !after.members.contains_key(id);
    for id in before.members.keys().filter(|id| gone(id)) {
        push(ConsumerKey::Current(id.to_string()), None)?;
        push(ConsumerKey::Target(id.to_string()), None)?;
        push(ConsumerKey::Member(id.to_string()), None)?;
    }
    for (id, member) in changed(&before.members, &after.members) {
        let known = before.members.get(id);
        if known.is_none_or(|known| known.metadata != member.metadata) {
            push(
                ConsumerKey::Member(id.to_string()),
                Some(member.metadata.encode()?),
            )?;
        }
    }
    for regex in before.regexes.keys() {
        if !after.regexes.contains_key(regex) {
            push(ConsumerKey::Regex(regex.to_string()), None)?;
        }
    }
    for (regex, value) in changed(&before.regexes, &after.regexes) {
        push(ConsumerKey::Regex(regex.to_string()), Some(value.encode()?))?;
    }
    if before.epoch != after.epoch {
        push(ConsumerKey::Epoch, Some(after.epoch.encode()))?;
    }
    for id in before.targets.keys() {
        let gone_with_its_member = before.members.contains_key(id) && gone(id);
        if !after.targets.contains_key(id) && !gone_with_its_member {
            push(ConsumerKey::Target(id.to_string()), None)?;
        }
    }
    for (id, target) in changed(&before.targets, &after.targets) {
        push(
            ConsumerKey::Target(id.to_string()),
            Some(encode_target(target)?),
        )?;
    }
    if before.target_epoch != after.target_epoch {
        push(ConsumerKey::TargetEpoch, Some(after.target_epoch.encode()))?;
    }
    for (id, member) in changed(&before.members, &after.members) {
        let known = before.members.get(id);
        if known.is_none_or(|known| known.current != member.current) {
            push(
                ConsumerKey::Current(id.to_string()),
                Some(member.current.encode()?),
            )?;
        }
    }
    Ok(records)
}

/// The tombstones of all that is stored of a group.
pub fn tombstones(group: &ConsumerGroup) -> Result<Vec<Record>, FieldError> {
    let mut empty = ConsumerGroup::new(group.id.clone());
    empty.epoch = group.epoch;
    empty.target_epoch = group.target_epoch;
    let mut records = records(group, &empty)?;
    for key in [ConsumerKey::TargetEpoch, ConsumerKey::Epoch] {
        records.push((key.encode(&group.id)?, None));
    }
    Ok(records)
}

/// What is new or different in `after`.
fn changed<'a, V: PartialEq>(
    before: &'a OrdMap<Arc<str>, V>,
    after: &'a OrdMap<Arc<str>, V>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> {
    before.diff(after).filter_map(|item| match item {
        DiffItem::Add(id, value) => Some((id, value)),
        DiffItem::Update {
            new: (id, value), ..
        } => Some((id, value)),
        DiffItem::Remove(..) => None,
    })
}
