//! The codecs of record batches, for the checker and the simulated clients: by Kafka's documentation, not by the
//! product's code. Snappy is in the blocks of Java's streams.
//!
//! Promise: what unpacks to nothing sensible is `None`.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

/// Kafka's names of them, by their numbers.
pub const NAMES: [&str; 5] = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];

/// What a snappy stream of Java's begins with: its name, and twice the version 1.
const STREAM: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Records' bytes out of the codec of this number.
pub fn unpack(codec: i16, packed: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut out = Vec::new();
    match codec {
        0 => return Some(Cow::Borrowed(packed)),
        1 => drop(
            flate2::read::GzDecoder::new(packed)
                .read_to_end(&mut out)
                .ok()?,
        ),
        2 => {
            let mut rest = packed.strip_prefix(&STREAM)?;
            while let Some((length, more)) = rest.split_first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (block, more) = more.split_at_checked(length)?;
                out.extend(snap::raw::Decoder::new().decompress_vec(block).ok()?);
                rest = more;
            }
        }
        3 => drop(
            lz4_flex::frame::FrameDecoder::new(packed)
                .read_to_end(&mut out)
                .ok()?,
        ),
        4 => out = zstd::stream::decode_all(packed).ok()?,
        _ => return None,
    }
    Some(Cow::Owned(out))
}

/// Records' bytes in the codec of this number; as they are, if there is none or it cannot be done.
pub fn pack(codec: i16, plain: &[u8]) -> Vec<u8> {
    let packed = match codec {
        1 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(plain).and_then(|()| gzip.finish()).ok()
        }
        2 => {
            let block = snap::raw::Encoder::new().compress_vec(plain);
            block.ok().map(|block| {
                let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
                [&STREAM[..], &length.to_be_bytes(), &block].concat()
            })
        }
        3 => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(plain).ok().and_then(|()| lz4.finish().ok())
        }
        4 => zstd::bulk::compress(plain, 1).ok(),
        _ => None,
    };
    packed.unwrap_or_else(|| plain.to_vec())
}
