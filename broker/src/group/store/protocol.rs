//! What consumers of the classic protocol put into its opaque fields: ConsumerProtocolSubscription and
//! ConsumerProtocolAssignment, versions 0 to 3. A later version has these fields first, so it reads too.

use crate::coordinator::fields::{FieldError, Fields, put_str};
use std::collections::{BTreeMap, BTreeSet};

/// Partitions by the topic's name.
pub type NamedPartitions = BTreeMap<String, BTreeSet<i32>>;

/// The newest version that is written.
const NEWEST: i16 = 3;

/// What a consumer wants, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    pub version: i16,
    pub topics: BTreeSet<String>,
    /// v1+; before, a consumer has given up everything when it joins.
    pub owned: NamedPartitions,
    /// v3+.
    pub rack: Option<String>,
}

impl Subscription {
    /// Reads a subscription.
    pub fn decode(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut fields = Fields(bytes);
        let version = fields.i16()?;
        if version < 0 {
            return Err(FieldError::Null);
        }
        let mut subscription = Self {
            version,
            ..Self::default()
        };
        for _ in 0..fields.i32()? {
            subscription.topics.insert(fields.str()?.to_owned());
        }
        skip_opt_bytes(&mut fields)?;
        if version >= 1 {
            subscription.owned = read_partitions(&mut fields)?;
        }
        if version >= 2 {
            // The generation in which it got them: the coordinator knows that itself.
            fields.i32()?;
        }
        if version >= 3 {
            subscription.rack = fields.opt_str()?.map(str::to_owned);
        }
        Ok(subscription)
    }
}

/// An assignment, in the version of the subscription that it answers.
pub fn encode_assignment(
    partitions: &NamedPartitions,
    version: i16,
) -> Result<Vec<u8>, FieldError> {
    let mut out = version.clamp(0, NEWEST).to_be_bytes().to_vec();
    put_count(&mut out, partitions.len())?;
    for (topic, partitions) in partitions {
        put_str(&mut out, topic)?;
        put_count(&mut out, partitions.len())?;
        for partition in partitions {
            out.extend_from_slice(&partition.to_be_bytes());
        }
    }
    // No user data.
    out.extend_from_slice(&(-1i32).to_be_bytes());
    Ok(out)
}

/// Reads an assignment. Without any bytes it is empty: nothing was assigned yet.
pub fn decode_assignment(bytes: &[u8]) -> Result<NamedPartitions, FieldError> {
    if bytes.is_empty() {
        return Ok(NamedPartitions::new());
    }
    let mut fields = Fields(bytes);
    if fields.i16()? < 0 {
        return Err(FieldError::Null);
    }
    read_partitions(&mut fields)
}

fn put_count(out: &mut Vec<u8>, count: usize) -> Result<(), FieldError> {
    let count = i32::try_from(count).map_err(|_| FieldError::TooLong(count))?;
    out.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

/// The counts size nothing: every element takes bytes of those that are there.
fn read_partitions(fields: &mut Fields<'_>) -> Result<NamedPartitions, FieldError> {
    let mut topics = NamedPartitions::new();
    for _ in 0..fields.i32()? {
        let topic = fields.str()?.to_owned();
        let partitions = topics.entry(topic).or_default();
        for _ in 0..fields.i32()? {
            partitions.insert(fields.i32()?);
        }
    }
    Ok(topics)
}

fn skip_opt_bytes(fields: &mut Fields<'_>) -> Result<(), FieldError> {
    if let Ok(len) = usize::try_from(fields.i32()?) {
        let (_, rest) = fields
            .0
            .split_at_checked(len)
            .ok_or(FieldError::Truncated)?;
        fields.0 = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_read_in_every_version() {
        let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 2]);
        bytes.extend_from_slice(&[0, 0, 0, 9, 0, 1, b'r']);
        let read = Subscription::decode(&bytes).unwrap();
        assert_eq!(read.topics, ["t".to_owned()].into());
        assert_eq!(read.owned["t"], [2].into());
        assert_eq!(read.rack.as_deref(), Some("r"));
        for cut in 0..bytes.len() {
            assert!(Subscription::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let version_0 = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 7];
        assert!(Subscription::decode(&version_0).unwrap().owned.is_empty());
    }

    #[test]
    fn an_assignment_has_the_bytes_of_kafkas_schema() {
        let partitions = NamedPartitions::from([("t".to_owned(), [1].into())]);
        let bytes = encode_assignment(&partitions, 1).unwrap();
        let expected = [
            0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 1, 255, 255, 255, 255,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode_assignment(&bytes), Ok(partitions));
        assert_eq!(decode_assignment(&[]), Ok(NamedPartitions::new()));
    }
}
