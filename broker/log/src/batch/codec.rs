//! The codecs in which producers compress a batch's records: gzip, snappy, lz4, zstd.
//!
//! Used only where a broker must see into compressed batches, which is in compacted topics. Unpacking
//! is bounded: what unpacks to more than [`MAX_UNPACKED`] is refused, however small it is packed.

use super::BatchError;
use snap::raw::{Decoder as SnappyDecoder, Encoder as SnappyEncoder};
use std::borrow::Cow;
use std::io::{Read, Write};

/// A compressed batch's records may take this many bytes unpacked. At Kafka's default of 1 MiB per
/// batch this allows a ratio that only made-up data reaches.
pub(crate) const MAX_UNPACKED: usize = 64 << 20;

const GZIP: i16 = 1;
const SNAPPY: i16 = 2;
const LZ4: i16 = 3;
const ZSTD: i16 = 4;

/// Before snappy blocks, as Java's snappy streams have it: a name, and two versions of 1.
const XERIAL: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes per snappy block, unpacked; Java's default.
const XERIAL_BLOCK: usize = 32 << 10;

/// The records' bytes, unpacked from `codec`, 0 included.
pub(crate) fn unpack(codec: i16, packed: &[u8]) -> Result<Cow<'_, [u8]>, BatchError> {
    let unpacked = match codec {
        0 => return Ok(Cow::Borrowed(packed)),
        // A gzip file may hold several members, one after another.
        GZIP => drain(codec, flate2::read::MultiGzDecoder::new(packed)),
        SNAPPY => snappy(packed),
        LZ4 => drain(codec, lz4_flex::frame::FrameDecoder::new(packed)),
        ZSTD => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed);
            drain(codec, decoder.map_err(|e| broken(codec, e))?)
        }
        unknown => Err(BatchError::Compressed(unknown)),
    };
    Ok(Cow::Owned(unpacked?))
}

/// Packs records' bytes into `codec`, at its default level.
pub(crate) fn pack(codec: i16, records: &[u8]) -> Result<Vec<u8>, BatchError> {
    let failed = |e| broken(codec, e);
    match codec {
        0 => Ok(records.to_vec()),
        GZIP => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(records).map_err(failed)?;
            out.finish().map_err(failed)
        }
        SNAPPY => {
            let mut out = XERIAL.to_vec();
            let mut encoder = SnappyEncoder::new();
            for block in records.chunks(XERIAL_BLOCK) {
                let packed = encoder.compress_vec(block).map_err(|e| broken(codec, e))?;
                out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                out.extend_from_slice(&packed);
            }
            Ok(out)
        }
        LZ4 => {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            out.write_all(records).map_err(failed)?;
            out.finish().map_err(|e| broken(codec, e))
        }
        ZSTD => zstd::stream::encode_all(records, 0).map_err(failed),
        unknown => Err(BatchError::Compressed(unknown)),
    }
}

/// Reads to the end, or to the bound. The memory grows with what is really there.
fn drain(codec: i16, from: impl Read) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    from.take(MAX_UNPACKED as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| broken(codec, e))?;
    match out.len() > MAX_UNPACKED {
        true => Err(too_large(codec)),
        false => Ok(out),
    }
}

/// Java writes blocks behind a header, other clients a single bare block.
fn snappy(packed: &[u8]) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    // The versions are not held against ours: Java does not either, and there is only one.
    let Some(mut rest) = packed.strip_prefix(&XERIAL[..8]) else {
        snappy_block(packed, &mut out)?;
        return Ok(out);
    };
    rest = rest.get(8..).ok_or_else(|| broken(SNAPPY, "no version"))?;
    while !rest.is_empty() {
        let cut_short = || broken(SNAPPY, "a block is cut short");
        let (len, more) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (block, more) = more.split_at_checked(len).ok_or_else(cut_short)?;
        snappy_block(block, &mut out)?;
        rest = more;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    let len = snap::raw::decompress_len(block).map_err(|e| broken(SNAPPY, e))?;
    // The length is only claimed; but snappy packs no more than about 22 bytes into one.
    if len > block.len().saturating_mul(64) {
        return Err(broken(SNAPPY, "a block claims more than it can hold"));
    }
    let at = out.len();
    if at + len > MAX_UNPACKED {
        return Err(too_large(SNAPPY));
    }
    out.resize(at + len, 0);
    let written = SnappyDecoder::new()
        .decompress(block, &mut out[at..])
        .map_err(|e| broken(SNAPPY, e))?;
    out.truncate(at + written);
    Ok(())
}

fn broken(codec: i16, why: impl std::fmt::Display) -> BatchError {
    BatchError::Packed {
        codec,
        why: why.to_string(),
    }
}

fn too_large(codec: i16) -> BatchError {
    broken(codec, format!("more than {MAX_UNPACKED} bytes unpacked"))
}

/// A batch whose header names a codec that its records are not packed in yet: packs them.
#[cfg(test)]
pub(crate) fn packed(batch: &[u8]) -> bytes::Bytes {
    use super::{BatchHeader, CRC_START, HEADER_LEN, LENGTH_PREFIX};
    let header = BatchHeader::parse(batch).unwrap();
    let mut out = batch[..HEADER_LEN].to_vec();
    out.extend_from_slice(&pack(header.codec(), &batch[HEADER_LEN..]).unwrap());
    let length = (out.len() - LENGTH_PREFIX) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&out[CRC_START..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [i16; 5] = [0, GZIP, SNAPPY, LZ4, ZSTD];

    #[test]
    fn what_is_packed_unpacks_to_the_same_in_every_codec() {
        let mut text = Vec::new();
        for i in 0..20_000u32 {
            text.extend_from_slice(&(i / 7).to_be_bytes());
        }
        for codec in CODECS {
            for len in [0, 1, 100, text.len()] {
                let packed = pack(codec, &text[..len]).unwrap();
                assert!(codec == 0 || len < 1000 || packed.len() < len, "{codec}");
                assert_eq!(unpack(codec, &packed).unwrap(), &text[..len], "{codec}");
            }
        }
    }

    #[test]
    fn snappy_without_javas_framing_is_understood() {
        let packed = SnappyEncoder::new().compress_vec(b"some bytes").unwrap();
        assert_eq!(unpack(SNAPPY, &packed).unwrap(), &b"some bytes"[..]);
    }

    #[test]
    fn what_unpacks_to_more_than_the_bound_is_refused() {
        let bomb = vec![0; MAX_UNPACKED + 1];
        for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
            let packed = pack(codec, &bomb).unwrap();
            let refused = unpack(codec, &packed);
            assert!(
                matches!(refused, Err(BatchError::Packed { .. })),
                "{codec} of {} bytes",
                packed.len()
            );
        }
    }

    #[test]
    fn damaged_bytes_give_errors_or_other_bytes_but_no_panic() {
        for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
            let packed = pack(codec, &[7; 500]).unwrap();
            for at in 0..packed.len() {
                let _ = unpack(codec, &packed[..at]);
                for bit in 0..8 {
                    let mut damaged = packed.clone();
                    damaged[at] ^= 1 << bit;
                    let _ = unpack(codec, &damaged);
                }
            }
        }
        // A claimed length sizes nothing.
        assert!(unpack(SNAPPY, &[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        assert!(unpack(5, &[]).is_err());
    }
}
