//! The 61-byte header of a record batch (magic 2), read by hand and never re-encoded.
//!
//! Promise: reading needs no allocation and copes with any bytes; the records behind the header are
//! not looked at.

/// Bytes of a batch before its records.
pub const HEADER_LEN: usize = 61;
/// Bytes before what the batch's own length counts: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// Where the CRC's range begins.
pub const CRC_START: usize = 21;

/// The fields of a batch header, as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    pub length: i32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; `None` if fewer than [`HEADER_LEN`] bytes are there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            base_offset: i64::from_be_bytes(at(header, 0)),
            length: i32::from_be_bytes(at(header, 8)),
            leader_epoch: i32::from_be_bytes(at(header, 12)),
            magic: i8::from_be_bytes(at(header, 16)),
            crc: u32::from_be_bytes(at(header, 17)),
            attributes: i16::from_be_bytes(at(header, 21)),
            last_offset_delta: i32::from_be_bytes(at(header, 23)),
            base_timestamp: i64::from_be_bytes(at(header, 27)),
            max_timestamp: i64::from_be_bytes(at(header, 35)),
            producer_id: i64::from_be_bytes(at(header, 43)),
            producer_epoch: i16::from_be_bytes(at(header, 51)),
            base_sequence: i32::from_be_bytes(at(header, 53)),
            count: i32::from_be_bytes(at(header, 57)),
        })
    }

    /// Bytes of the whole batch, header included; `None` if its length makes no sense.
    pub fn size(&self) -> Option<usize> {
        let size = usize::try_from(self.length)
            .ok()?
            .checked_add(LOG_OVERHEAD)?;
        (size >= HEADER_LEN).then_some(size)
    }

    /// Offset of the batch's last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }
}

/// The CRC-32C that the header of `batch` (one whole batch) should carry.
pub fn crc_of(batch: &[u8]) -> Option<u32> {
    batch.get(CRC_START..).map(crc32c::crc32c)
}

fn at<const N: usize>(header: &[u8; HEADER_LEN], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[from..from + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_where_kafka_puts_them() {
        let mut bytes = [0u8; HEADER_LEN];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let header = BatchHeader::read(&bytes).unwrap();
        assert_eq!(header.base_offset, 0x0001_0203_0405_0607);
        assert_eq!(header.magic, 16);
        assert_eq!(header.crc, 0x1112_1314);
        assert_eq!(header.count, i32::from_be_bytes([57, 58, 59, 60]));
        assert_eq!(BatchHeader::read(&bytes[..60]), None);
    }

    #[test]
    fn a_senseless_length_has_no_size() {
        let mut header = BatchHeader::read(&[0; HEADER_LEN]).unwrap();
        assert_eq!(header.size(), None);
        header.length = -5;
        assert_eq!(header.size(), None);
        header.length = 49;
        assert_eq!(header.size(), Some(61));
    }
}
