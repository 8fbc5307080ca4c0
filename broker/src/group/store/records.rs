//! The keys and values of `__consumer_offsets`.
//!
//! Written: OffsetCommitKey 1 with value 3 (value 1 where the client chose a retention),
//! GroupMetadataKey 2 with value 3. Read: those and all older versions; a version that is newer, or
//! a kind of key that is not known here, reads as `None` and is for the caller to skip.

use super::consumer::ConsumerKey;
use crate::coordinator::fields::{FieldError, Fields, put_bytes, put_opt_str, put_str};
use bytes::Bytes;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A committed offset (key version 1).
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    /// A group's members and their assignment (key version 2).
    Group { group: String },
    /// Something of a group of the newer protocol.
    Consumer { group: String, what: ConsumerKey },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1 if the client said none.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_timestamp: i64,
    /// Set by clients that chose a retention (OffsetCommit up to v4).
    pub expire_timestamp: Option<i64>,
}

/// A group at a generation. Without members it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group entered its state; -1 if not known.
    pub state_timestamp: i64,
    pub members: Vec<MemberValue>,
}

/// A member of a stored group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberValue {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// -1 if not known: the session timeout then serves as both.
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

impl Key {
    /// The key's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = Vec::new();
        match self {
            Self::Offset {
                group,
                topic,
                partition,
            } => {
                out.extend_from_slice(&1i16.to_be_bytes());
                put_str(&mut out, group)?;
                put_str(&mut out, topic)?;
                out.extend_from_slice(&partition.to_be_bytes());
            }
            Self::Group { group } => {
                out.extend_from_slice(&2i16.to_be_bytes());
                put_str(&mut out, group)?;
            }
            Self::Consumer { group, what } => out = what.encode(group)?,
        }
        Ok(out)
    }

    /// Reads a key; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut fields = Fields(bytes);
        Ok(match fields.i16()? {
            0 | 1 => Some(Self::Offset {
                group: fields.str()?.to_owned(),
                topic: fields.str()?.to_owned(),
                partition: fields.i32()?,
            }),
            2 => Some(Self::Group {
                group: fields.str()?.to_owned(),
            }),
            version => ConsumerKey::decode(version, &mut fields)?
                .map(|(group, what)| Self::Consumer { group, what }),
        })
    }
}

impl OffsetValue {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = Vec::new();
        // Only version 1 has an expiry, and it has no leader epoch; Kafka chooses in the same way.
        let version: i16 = if self.expire_timestamp.is_some() {
            1
        } else {
            3
        };
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        if version == 3 {
            out.extend_from_slice(&self.leader_epoch.to_be_bytes());
        }
        put_str(&mut out, &self.metadata)?;
        out.extend_from_slice(&self.commit_timestamp.to_be_bytes());
        if let Some(at) = self.expire_timestamp {
            out.extend_from_slice(&at.to_be_bytes());
        }
        Ok(out)
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut fields = Fields(bytes);
        let version = fields.i16()?;
        if !(0..=3).contains(&version) {
            return Ok(None);
        }
        let offset = fields.i64()?;
        let leader_epoch = if version == 3 { fields.i32()? } else { -1 };
        let metadata = fields.str()?.to_owned();
        let commit_timestamp = fields.i64()?;
        let expire_timestamp = if version == 1 { fields.i64()? } else { -1 };
        Ok(Some(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp: (expire_timestamp >= 0).then_some(expire_timestamp),
        }))
    }
}

impl GroupValue {
    /// The value's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, FieldError> {
        let mut out = Vec::new();
        out.extend_from_slice(&3i16.to_be_bytes());
        put_str(&mut out, &self.protocol_type)?;
        out.extend_from_slice(&self.generation.to_be_bytes());
        put_opt_str(&mut out, self.protocol.as_deref())?;
        put_opt_str(&mut out, self.leader.as_deref())?;
        out.extend_from_slice(&self.state_timestamp.to_be_bytes());
        let count = i32::try_from(self.members.len())
            .map_err(|_| FieldError::TooLong(self.members.len()))?;
        out.extend_from_slice(&count.to_be_bytes());
        for member in &self.members {
            put_str(&mut out, &member.member_id)?;
            put_opt_str(&mut out, member.instance_id.as_deref())?;
            put_str(&mut out, &member.client_id)?;
            put_str(&mut out, &member.client_host)?;
            out.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
            out.extend_from_slice(&member.session_timeout_ms.to_be_bytes());
            put_bytes(&mut out, &member.subscription)?;
            put_bytes(&mut out, &member.assignment)?;
        }
        Ok(out)
    }

    /// Reads a value; `None` if its version is not known here.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut fields = Fields(bytes);
        let version = fields.i16()?;
        if !(0..=3).contains(&version) {
            return Ok(None);
        }
        let protocol_type = fields.str()?.to_owned();
        let generation = fields.i32()?;
        let protocol = fields.opt_str()?.map(str::to_owned);
        let leader = fields.opt_str()?.map(str::to_owned);
        let state_timestamp = if version >= 2 { fields.i64()? } else { -1 };
        // The count sizes nothing: every member takes bytes of those that are there.
        let count = fields.i32()?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(MemberValue::decode(&mut fields, version)?);
        }
        Ok(Some(Self {
            protocol_type,
            generation,
            protocol,
            leader,
            state_timestamp,
            members,
        }))
    }
}

impl MemberValue {
    fn decode(fields: &mut Fields<'_>, version: i16) -> Result<Self, FieldError> {
        let member_id = fields.str()?.to_owned();
        let instance_id = match version {
            3.. => fields.opt_str()?.map(str::to_owned),
            _ => None,
        };
        Ok(Self {
            member_id,
            instance_id,
            client_id: fields.str()?.to_owned(),
            client_host: fields.str()?.to_owned(),
            rebalance_timeout_ms: if version >= 1 { fields.i32()? } else { -1 },
            session_timeout_ms: fields.i32()?,
            subscription: fields.bytes()?,
            assignment: fields.bytes()?,
        })
    }
}

/// The topics at the front of a ConsumerProtocolSubscription, which uses the same field types.
pub fn read_topics(metadata: &[u8]) -> Result<Vec<String>, FieldError> {
    let mut fields = Fields(metadata);
    if fields.i16()? < 0 {
        return Err(FieldError::Null);
    }
    let count = fields.i32()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(fields.str()?.to_owned());
    }
    Ok(topics)
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
