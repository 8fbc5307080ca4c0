//! Decoding of message bodies from strangers.
//!
//! Promise: whatever the bytes, decoding returns an error or a value, and the memory it takes is
//! bounded. The codec already refuses an array that claims more elements than bytes are left. That
//! alone is not enough: an element of one byte on the wire may be two hundred in memory, so 100 MB
//! of them would ask for 20 GB. [`Limited`] therefore also counts what is read, field by field,
//! and lets no array claim more elements than may still be read.

use crate::kafka::error::ProtoError;
use crate::kafka::protocol::Decodable;
use crate::kafka::protocol::buf::{ByteBuf, NotEnoughBytesError};
use bytes::{Buf, Bytes};
use std::ops::Range;

/// How many fields one message may hold. A Fetch of 25,000 partitions stays below it.
pub const MAX_FIELDS: usize = 200_000;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("malformed body: {0}")]
    Malformed(#[from] ProtoError),
    #[error("more than {0} fields in one message; split it")]
    TooManyFields(usize),
}

/// Decodes a whole body. `body` is frozen, so byte fields are slices of it and nothing is copied.
pub fn decode<T: Decodable>(body: Bytes, version: i16) -> Result<T, DecodeError> {
    decode_limited(body, version, MAX_FIELDS)
}

/// [`decode`] with a limit of one's own.
pub fn decode_limited<T: Decodable>(
    body: Bytes,
    version: i16,
    max_fields: usize,
) -> Result<T, DecodeError> {
    let mut limited = Limited {
        inner: body,
        fields_left: max_fields,
    };
    T::decode(&mut limited, version).map_err(|error| {
        // An array beyond the limit looks to the codec like one beyond the frame's end.
        if limited.inner.len() > limited.fields_left {
            DecodeError::TooManyFields(max_fields)
        } else {
            DecodeError::Malformed(error)
        }
    })
}

/// `Bytes` that admit to no more remaining bytes than fields may still be read.
struct Limited {
    inner: Bytes,
    fields_left: usize,
}

impl Buf for Limited {
    fn remaining(&self) -> usize {
        self.inner.len().min(self.fields_left)
    }

    fn chunk(&self) -> &[u8] {
        &self.inner[..self.remaining()]
    }

    fn advance(&mut self, count: usize) {
        self.fields_left = self.fields_left.saturating_sub(1);
        self.inner.advance(count);
    }
}

impl ByteBuf for Limited {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.inner.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.fields_left = self.fields_left.saturating_sub(1);
        self.inner.split_to(size)
    }

    // Strings and records may be longer than the number of fields left: measured on the real bytes.
    fn try_peek_bytes(&mut self, range: Range<usize>) -> Result<Bytes, NotEnoughBytesError> {
        if range.end > self.inner.len() || range.start > range.end {
            return Err(NotEnoughBytesError);
        }
        Ok(self.peek_bytes(range))
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        if size > self.inner.len() || self.fields_left == 0 {
            return Err(NotEnoughBytesError);
        }
        Ok(self.get_bytes(size))
    }
}
