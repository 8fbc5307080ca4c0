//! The header in front of every request, parsed by hand.
//!
//! Parsed before anything else is believed about a frame, so it copes with any key and version:
//! the first eight bytes have meant the same in every version of Kafka. Header version 2 adds
//! tagged fields, which are skipped.

use crate::kafka::messages::ApiKey;
use crate::kafka::protocol::StrBytes;
use bytes::{Buf, Bytes};

/// Who asks what, in which version, under which number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the frame ends inside its request header")]
    Short,
    #[error("the client id is not UTF-8")]
    ClientId,
    #[error("the tagged fields of the request header are malformed")]
    Tags,
}

/// The version of the request header that `key` uses at `version`; 1 for keys that Kafka does not know.
pub fn request_header_version(key: i16, version: i16) -> i16 {
    ApiKey::try_from(key).map_or(1, |api| api.request_header_version(version))
}

impl RequestHead {
    /// Takes the header off the front of `frame`, and leaves the body there.
    pub fn take(frame: &mut Bytes) -> Result<Self, HeadError> {
        let short = |_| HeadError::Short;
        let key = frame.try_get_i16().map_err(short)?;
        let version = frame.try_get_i16().map_err(short)?;
        let correlation_id = frame.try_get_i32().map_err(short)?;
        let length = frame.try_get_i16().map_err(short)?;
        let client_id = match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if length > frame.len() => return Err(HeadError::Short),
            Ok(length) => {
                Some(StrBytes::from_utf8(frame.split_to(length)).map_err(|_| HeadError::ClientId)?)
            }
        };
        if request_header_version(key, version) >= 2 {
            skip_tagged_fields(frame)?;
        }
        Ok(Self {
            key,
            version,
            correlation_id,
            client_id,
        })
    }
}

/// Skips a block of tagged fields. Each costs at least two bytes, so the loop ends with the frame.
fn skip_tagged_fields(frame: &mut Bytes) -> Result<(), HeadError> {
    let count = take_varint(frame)?;
    for _ in 0..count {
        take_varint(frame)?;
        let size = take_varint(frame)? as usize;
        if size > frame.len() {
            return Err(HeadError::Tags);
        }
        frame.advance(size);
    }
    Ok(())
}

fn take_varint(frame: &mut Bytes) -> Result<u32, HeadError> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = frame.try_get_u8().map_err(|_| HeadError::Tags)?;
        let bits = u32::from(byte & 0x7f);
        if shift == 28 && bits > 0x0f {
            return Err(HeadError::Tags);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HeadError::Tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_header_versions_and_leaves_the_body() {
        // Metadata v0 has header 1, Metadata v9 header 2 with one tagged field.
        let mut old = Bytes::from_static(b"\0\x03\0\0\0\0\0\x07\0\x02meBODY");
        let head = RequestHead::take(&mut old).unwrap();
        assert_eq!((head.key, head.version, head.correlation_id), (3, 0, 7));
        assert_eq!(head.client_id.as_deref(), Some("me"));
        assert_eq!(&old[..], b"BODY");

        let mut flexible = Bytes::from_static(b"\0\x03\0\x09\0\0\0\x08\xff\xff\x01\x05\x02xyBODY");
        let head = RequestHead::take(&mut flexible).unwrap();
        assert_eq!(head.client_id, None);
        assert_eq!(&flexible[..], b"BODY");
    }

    #[test]
    fn a_hostile_header_is_an_error() {
        for bytes in [
            &b""[..],
            b"\0\x03\0\0\0\0\0",
            b"\0\x03\0\0\0\0\0\x07\x7f\xffab",
            b"\0\x03\0\0\0\0\0\x07\0\x02\xff\xfe",
            b"\0\x03\0\x09\0\0\0\x08\xff\xff\xff\xff\xff\xff\x0f",
            b"\0\x03\0\x09\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(RequestHead::take(&mut Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
