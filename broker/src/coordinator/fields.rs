//! Kafka's field types: big-endian integers, strings with an i16 length, bytes with i32; and those of the
//! flexible (compact, tagged) ones that every coordinator's records have.

use bytes::Bytes;

/// Why a key or value cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("a string of {0} bytes is longer than the 32767 that its record can hold")]
    TooLong(usize),
    #[error("the record ends in the middle of a field")]
    Truncated,
    #[error("a field is null or negative where it must not be")]
    Null,
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("a number takes more bytes than its type has")]
    Varint,
}

/// Appends a string.
pub fn put_str(out: &mut Vec<u8>, text: &str) -> Result<(), FieldError> {
    let len = i16::try_from(text.len()).map_err(|_| FieldError::TooLong(text.len()))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends a string or null.
pub fn put_opt_str(out: &mut Vec<u8>, text: Option<&str>) -> Result<(), FieldError> {
    match text {
        Some(text) => put_str(out, text),
        None => {
            out.extend_from_slice(&(-1i16).to_be_bytes());
            Ok(())
        }
    }
}

/// Appends bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), FieldError> {
    let len = i32::try_from(bytes.len()).map_err(|_| FieldError::TooLong(bytes.len()))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Reads fields from the front of what is left.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FieldError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(FieldError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(FieldError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// An i8.
    pub fn i8(&mut self) -> Result<i8, FieldError> {
        self.array().map(i8::from_be_bytes)
    }

    /// An i16.
    pub fn i16(&mut self) -> Result<i16, FieldError> {
        self.array().map(i16::from_be_bytes)
    }

    /// An i32.
    pub fn i32(&mut self) -> Result<i32, FieldError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An i64.
    pub fn i64(&mut self) -> Result<i64, FieldError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string or null.
    pub fn opt_str(&mut self) -> Result<Option<&'a str>, FieldError> {
        let Ok(len) = usize::try_from(self.i16()?) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| FieldError::NotUtf8)?;
        Ok(Some(text))
    }

    /// A string.
    pub fn str(&mut self) -> Result<&'a str, FieldError> {
        self.opt_str()?.ok_or(FieldError::Null)
    }

    /// An unsigned number, seven bits a byte, the lowest first.
    pub fn uvarint(&mut self) -> Result<u32, FieldError> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| FieldError::Varint);
            }
        }
        Err(FieldError::Varint)
    }

    /// A string whose length is an unsigned varint, one more than it is.
    pub fn compact_str(&mut self) -> Result<&'a str, FieldError> {
        let len = self.uvarint()?.checked_sub(1).ok_or(FieldError::Null)?;
        std::str::from_utf8(self.take(len as usize)?).map_err(|_| FieldError::NotUtf8)
    }

    /// Passes over the tagged fields at the end of a structure.
    pub fn skip_tags(&mut self) -> Result<(), FieldError> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()?;
            self.take(len as usize)?;
        }
        Ok(())
    }

    /// Bytes, copied: what is loaded must not keep whole segments in memory.
    pub fn bytes(&mut self) -> Result<Bytes, FieldError> {
        let len = usize::try_from(self.i32()?).map_err(|_| FieldError::Null)?;
        Ok(Bytes::copy_from_slice(self.take(len)?))
    }
}
