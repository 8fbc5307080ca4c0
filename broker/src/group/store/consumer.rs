//! The records of a group of the newer protocol (KIP-848), in Kafka 4.3's formats.
//!
//! Keys 3 to 8 and 16; their values are version 0. Kind 4 (the metadata of subscribed partitions) is
//! what older brokers wrote: it is passed over, like everything that is not known here.

use super::flexible::*;
use crate::coordinator::fields::{FieldError, Fields, put_str};
use bytes::Bytes;
use leasehold_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// What of a group a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConsumerKey {
    /// The group's epoch (3).
    Epoch,
    /// What a member told of itself (5).
    Member(String),
    /// The epoch of the target assignment (6).
    TargetEpoch,
    /// A member's target (7).
    Target(String),
    /// What a member has, and its epoch (8).
    Current(String),
    /// The topics of a regular expression (16).
    Regex(String),
}

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// Partitions by topic, each with the epoch in which its member got it.
pub type Owned = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// The group's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochValue {
    pub epoch: i32,
    /// Of the topics that the epoch was raised for; compared, never interpreted.
    pub metadata_hash: i64,
}

/// What a member told of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberMetadata {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topics: BTreeSet<String>,
    pub regex: Option<String>,
    pub rebalance_timeout_ms: i32,
    pub assignor: Option<String>,
    /// Of a member that uses the classic protocol.
    pub classic: Option<ClassicMetadata>,
}

/// What a member of the classic protocol joined with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicMetadata {
    pub session_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
}

/// The epoch of the target assignment, and when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetEpochValue {
    pub epoch: i32,
    pub timestamp: i64,
}

/// Where a member's reconciliation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    #[default]
    Stable,
    /// It must give up partitions first.
    Unrevoked,
    /// Partitions of its target are still another's.
    Unreleased,
    /// Written by something newer.
    Unknown,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrentValue {
    pub epoch: i32,
    pub previous_epoch: i32,
    pub state: MemberState,
    pub assigned: Owned,
    pub revoking: Owned,
}

/// The topics of a regular expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegexValue {
    pub topics: BTreeSet<String>,
    /// Of the metadata that it was resolved with.
    pub version: i64,
    pub timestamp: i64,
}

impl ConsumerKey {
    /// The key's bytes.
    pub fn encode(&self, group: &str) -> Result<Vec<u8>, FieldError> {
        let (version, second): (i16, _) = match self {
            Self::Epoch => (3, None),
            Self::Member(member) => (5, Some(member)),
            Self::TargetEpoch => (6, None),
            Self::Target(member) => (7, Some(member)),
            Self::Current(member) => (8, Some(member)),
            Self::Regex(regex) => (16, Some(regex)),
        };
        let mut out = version.to_be_bytes().to_vec();
        put_str(&mut out, group)?;
        if let Some(second) = second {
            put_str(&mut out, second)?;
        }
        Ok(out)
    }

    /// Reads what is behind a key's version: the group, and what of it; `None` if the kind is not known.
    pub fn decode(
        version: i16,
        fields: &mut Fields<'_>,
    ) -> Result<Option<(String, Self)>, FieldError> {
        if !matches!(version, 3 | 5..=8 | 16) {
            return Ok(None);
        }
        let group = fields.str()?.to_owned();
        let key = match version {
            3 => Self::Epoch,
            5 => Self::Member(fields.str()?.to_owned()),
            6 => Self::TargetEpoch,
            7 => Self::Target(fields.str()?.to_owned()),
            8 => Self::Current(fields.str()?.to_owned()),
            _ => Self::Regex(fields.str()?.to_owned()),
        };
        Ok(Some((group, key)))
    }
}

/// A value of version 0: starts it, and reads past its version.
fn value() -> Vec<u8> {
    vec![0, 0]
}

fn fields(bytes: &[u8]) -> Result<Option<Fields<'_>>, FieldError> {
    let mut fields = Fields(bytes);
    Ok((fields.i16()? == 0).then_some(fields))
}

impl EpochValue {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = value();
        out.extend_from_slice(&self.epoch.to_be_bytes());
        let hash =
            (self.metadata_hash != 0).then(|| (0, self.metadata_hash.to_be_bytes().to_vec()));
        put_tags(&mut out, &Vec::from_iter(hash));
        out
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let Some(mut fields) = fields(bytes)? else {
            return Ok(None);
        };
        let epoch = fields.i32()?;
        let hash = tagged(&fields.tags()?, 0).map(|mut hash| hash.i64());
        Ok(Some(Self {
            epoch,
            metadata_hash: hash.transpose()?.unwrap_or(0),
        }))
    }
}

impl TargetEpochValue {
    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = value();
        out.extend_from_slice(&self.epoch.to_be_bytes());
        let at = (self.timestamp != 0).then(|| (0, self.timestamp.to_be_bytes().to_vec()));
        put_tags(&mut out, &Vec::from_iter(at));
        out
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let Some(mut fields) = fields(bytes)? else {
            return Ok(None);
        };
        let epoch = fields.i32()?;
        let at = tagged(&fields.tags()?, 0).map(|mut at| at.i64());
        Ok(Some(Self {
            epoch,
            timestamp: at.transpose()?.unwrap_or(0),
        }))
    }
}

impl MemberMetadata {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = value();
        put_compact_opt_str(&mut out, self.instance_id.as_deref())?;
        put_compact_opt_str(&mut out, self.rack_id.as_deref())?;
        put_compact_str(&mut out, &self.client_id)?;
        put_compact_str(&mut out, &self.client_host)?;
        put_len(&mut out, self.topics.len())?;
        for topic in &self.topics {
            put_compact_str(&mut out, topic)?;
        }
        put_compact_opt_str(&mut out, self.regex.as_deref())?;
        out.extend_from_slice(&self.rebalance_timeout_ms.to_be_bytes());
        put_compact_opt_str(&mut out, self.assignor.as_deref())?;
        let classic = self.classic.as_ref().map(ClassicMetadata::encode);
        let tags = classic.transpose()?.map(|bytes| (0, bytes));
        put_tags(&mut out, &Vec::from_iter(tags));
        Ok(out)
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let Some(mut fields) = fields(bytes)? else {
            return Ok(None);
        };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let instance_id = owned(fields.compact_opt_str()?);
        let rack_id = owned(fields.compact_opt_str()?);
        let client_id = fields.compact_str()?.to_owned();
        let client_host = fields.compact_str()?.to_owned();
        let topics = read_names(&mut fields)?;
        let regex = owned(fields.compact_opt_str()?);
        let rebalance_timeout_ms = fields.i32()?;
        let assignor = owned(fields.compact_opt_str()?);
        let classic = tagged(&fields.tags()?, 0);
        let classic = classic.map(|mut at| ClassicMetadata::decode(&mut at));
        Ok(Some(Self {
            instance_id,
            rack_id,
            client_id,
            client_host,
            topics,
            regex,
            rebalance_timeout_ms,
            assignor,
            classic: classic.transpose()?.flatten(),
        }))
    }
}

impl ClassicMetadata {
    /// A nullable structure: a byte that says that it is there, then its fields.
    fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = vec![1];
        out.extend_from_slice(&self.session_timeout_ms.to_be_bytes());
        put_len(&mut out, self.protocols.len())?;
        for (name, metadata) in &self.protocols {
            put_compact_str(&mut out, name)?;
            put_len(&mut out, metadata.len())?;
            out.extend_from_slice(metadata);
            put_tags(&mut out, &[]);
        }
        put_tags(&mut out, &[]);
        Ok(out)
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, FieldError> {
        if fields.i8()? < 0 {
            return Ok(None);
        }
        let session_timeout_ms = fields.i32()?;
        let mut protocols = Vec::new();
        for _ in 0..fields.array_len()? {
            let name = fields.compact_str()?.to_owned();
            // A copy: what is loaded must not keep whole segments in memory.
            let metadata = Bytes::copy_from_slice(fields.compact_bytes()?);
            fields.tags()?;
            protocols.push((name, metadata));
        }
        fields.tags()?;
        Ok(Some(Self {
            session_timeout_ms,
            protocols,
        }))
    }
}

fn read_names(fields: &mut Fields<'_>) -> Result<BTreeSet<String>, FieldError> {
    let mut names = BTreeSet::new();
    for _ in 0..fields.array_len()? {
        names.insert(fields.compact_str()?.to_owned());
    }
    Ok(names)
}

/// A member's target, as bytes.
pub fn encode_target(target: &Partitions) -> Result<Vec<u8>, FieldError> {
    let mut out = value();
    let numbers = |partitions: &BTreeSet<i32>| partitions.iter().copied().collect();
    put_partitions(&mut out, target, numbers, |_| Ok(Vec::new()))?;
    put_tags(&mut out, &[]);
    Ok(out)
}

/// Reads a member's target; `None` if its version is not known here.
pub fn decode_target(bytes: &[u8]) -> Result<Option<Partitions>, FieldError> {
    let Some(mut fields) = fields(bytes)? else {
        return Ok(None);
    };
    let mut target = Partitions::new();
    for _ in 0..fields.array_len()? {
        let topic = fields.topic_id()?;
        target.insert(topic, fields.i32s()?.into_iter().collect());
        fields.tags()?;
    }
    Ok(Some(target))
}

impl MemberState {
    fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::Unrevoked => 1,
            Self::Unreleased => 2,
            Self::Unknown => 127,
        }
    }

    fn of(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::Unrevoked,
            2 => Self::Unreleased,
            _ => Self::Unknown,
        }
    }
}

impl CurrentValue {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = value();
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.previous_epoch.to_be_bytes());
        out.push(self.state.code() as u8);
        for owned in [&self.assigned, &self.revoking] {
            let numbers = |partitions: &BTreeMap<i32, i32>| partitions.keys().copied().collect();
            put_partitions(&mut out, owned, numbers, |partitions| {
                let mut epochs = Vec::new();
                put_i32s(&mut epochs, &Vec::from_iter(partitions.values().copied()))?;
                Ok(vec![(0, epochs)])
            })?;
        }
        put_tags(&mut out, &[]);
        Ok(out)
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let Some(mut fields) = fields(bytes)? else {
            return Ok(None);
        };
        let epoch = fields.i32()?;
        let previous_epoch = fields.i32()?;
        let state = MemberState::of(fields.i8()?);
        let assigned = read_owned(&mut fields, epoch)?;
        let revoking = read_owned(&mut fields, epoch)?;
        Ok(Some(Self {
            epoch,
            previous_epoch,
            state,
            assigned,
            revoking,
        }))
    }
}

/// Where an older broker wrote no epochs, the member's own is the strictest that can be meant.
fn read_owned(fields: &mut Fields<'_>, member_epoch: i32) -> Result<Owned, FieldError> {
    let mut owned = Owned::new();
    for _ in 0..fields.array_len()? {
        let topic = fields.topic_id()?;
        let partitions = fields.i32s()?;
        let epochs = tagged(&fields.tags()?, 0).map(|mut epochs| epochs.i32s());
        let epochs = epochs.transpose()?.unwrap_or_default();
        let epoch = |at: usize| epochs.get(at).copied().unwrap_or(member_epoch);
        let with_epochs = partitions.into_iter().enumerate();
        owned.insert(topic, with_epochs.map(|(at, p)| (p, epoch(at))).collect());
    }
    Ok(owned)
}

impl RegexValue {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = value();
        put_len(&mut out, self.topics.len())?;
        for topic in &self.topics {
            put_compact_str(&mut out, topic)?;
        }
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        put_tags(&mut out, &[]);
        Ok(out)
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let Some(mut fields) = fields(bytes)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            topics: read_names(&mut fields)?,
            version: fields.i64()?,
            timestamp: fields.i64()?,
        }))
    }
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
