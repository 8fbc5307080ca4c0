//! Kafka's flexible field types (KIP-482): lengths as unsigned varints, one more than they are so that
//! zero is null, and tagged fields behind each structure. The values of the newer protocol's records
//! are written in them; their keys are not.

use crate::coordinator::fields::{FieldError, Fields};
use leasehold_types::TopicId;
use std::collections::BTreeMap;

/// Tagged fields: the tag and the bytes of each.
pub type Tags<'a> = Vec<(u32, &'a [u8])>;

/// Appends an unsigned varint.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of a string or array.
pub fn put_len(out: &mut Vec<u8>, len: usize) -> Result<(), FieldError> {
    let len = u32::try_from(len).ok().filter(|len| *len < i32::MAX as u32);
    put_uvarint(out, len.ok_or(FieldError::TooLong(usize::MAX))? + 1);
    Ok(())
}

/// Appends a compact string.
pub fn put_compact_str(out: &mut Vec<u8>, text: &str) -> Result<(), FieldError> {
    put_len(out, text.len())?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends a compact string or null.
pub fn put_compact_opt_str(out: &mut Vec<u8>, text: Option<&str>) -> Result<(), FieldError> {
    match text {
        Some(text) => put_compact_str(out, text),
        None => {
            out.push(0);
            Ok(())
        }
    }
}

/// Appends tagged fields, in the order of their tags.
pub fn put_tags(out: &mut Vec<u8>, tags: &[(u32, Vec<u8>)]) {
    put_uvarint(out, tags.len() as u32);
    for (tag, bytes) in tags {
        put_uvarint(out, *tag);
        put_uvarint(out, bytes.len() as u32);
        out.extend_from_slice(bytes);
    }
}

impl<'a> Fields<'a> {
    /// The length of a string or array; `None` is null. It sizes nothing.
    pub fn compact_len(&mut self) -> Result<Option<usize>, FieldError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    /// The length of an array that is not null.
    pub fn array_len(&mut self) -> Result<usize, FieldError> {
        self.compact_len()?.ok_or(FieldError::Null)
    }

    /// A compact string or null.
    pub fn compact_opt_str(&mut self) -> Result<Option<&'a str>, FieldError> {
        let Some(len) = self.compact_len()? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| FieldError::NotUtf8)?;
        Ok(Some(text))
    }

    /// Compact bytes.
    pub fn compact_bytes(&mut self) -> Result<&'a [u8], FieldError> {
        let len = self.array_len()?;
        self.take(len)
    }

    /// A topic's id.
    pub fn topic_id(&mut self) -> Result<TopicId, FieldError> {
        let bytes = self.take(16)?.try_into();
        let bytes = bytes.map_err(|_| FieldError::Truncated)?;
        Ok(TopicId(uuid::Uuid::from_bytes(bytes)))
    }

    /// The tagged fields behind a structure.
    pub fn tags(&mut self) -> Result<Tags<'a>, FieldError> {
        let mut tags = Vec::new();
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let len = self.uvarint()? as usize;
            tags.push((tag, self.take(len)?));
        }
        Ok(tags)
    }
}

/// What stands under `tag`.
pub fn tagged<'a>(tags: &Tags<'a>, tag: u32) -> Option<Fields<'a>> {
    let found = tags.iter().find(|(number, _)| *number == tag)?;
    Some(Fields(found.1))
}

/// Appends partitions by topic, each topic with the tagged fields that `tags` gives.
pub fn put_partitions<T>(
    out: &mut Vec<u8>,
    topics: &BTreeMap<TopicId, T>,
    partitions: impl Fn(&T) -> Vec<i32>,
    tags: impl Fn(&T) -> Result<Vec<(u32, Vec<u8>)>, FieldError>,
) -> Result<(), FieldError> {
    put_len(out, topics.len())?;
    for (topic, value) in topics {
        out.extend_from_slice(topic.0.as_bytes());
        put_i32s(out, &partitions(value))?;
        put_tags(out, &tags(value)?);
    }
    Ok(())
}

/// Appends an array of numbers.
pub fn put_i32s(out: &mut Vec<u8>, numbers: &[i32]) -> Result<(), FieldError> {
    put_len(out, numbers.len())?;
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
    Ok(())
}

impl Fields<'_> {
    /// An array of numbers.
    pub fn i32s(&mut self) -> Result<Vec<i32>, FieldError> {
        let mut numbers = Vec::new();
        for _ in 0..self.array_len()? {
            numbers.push(self.i32()?);
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_survives_and_one_of_more_than_32_bits_is_refused() {
        for value in [0, 1, 127, 128, 300, u32::MAX] {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            assert_eq!(Fields(&out).uvarint().unwrap(), value);
        }
        assert!(Fields(&[0xff, 0xff, 0xff, 0xff, 0x7f]).uvarint().is_err());
        assert!(Fields(&[0xff; 6]).uvarint().is_err());
        assert!(Fields(&[0x80]).uvarint().is_err());
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_without_an_allocation() {
        let mut out = Vec::new();
        put_uvarint(&mut out, u32::MAX);
        assert!(Fields(&out).i32s().is_err());
        assert!(Fields(&out).compact_str().is_err());
        assert!(Fields(&out).tags().is_err());
    }
}
