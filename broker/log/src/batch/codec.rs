//! The codecs in which producers compress a batch's records: gzip, snappy, lz4, zstd.
//!
//! Used only where a broker must see into compressed batches: in compacted topics, and in those that have a
//! codec of their own. Unpacking is bounded: what unpacks to more than [`MAX_UNPACKED`] is refused, however
//! small it is packed; and of what takes more than [`LARGE`], one is in memory at a time in this process.

use super::BatchError;
use parking_lot::{Mutex, MutexGuard};
use snap::raw::{Decoder as SnappyDecoder, Encoder as SnappyEncoder};
use std::borrow::Cow;
use std::io::{Read, Write};
use std::ops::Deref;

/// A compressed batch's records may take this many bytes unpacked. At Kafka's default of 1 MiB per
/// batch this allows a ratio that only made-up data reaches.
pub(crate) const MAX_UNPACKED: usize = 64 << 20;
/// Ordinary batches stay below this. Whatever takes more waits for its turn, so that many such at the same
/// time, on all the threads that append, do not take the broker's memory.
const LARGE: usize = 4 << 20;
static LARGE_TURN: Mutex<()> = Mutex::new(());

pub(crate) const GZIP: i16 = 1;
pub(crate) const SNAPPY: i16 = 2;
pub(crate) const LZ4: i16 = 3;
pub(crate) const ZSTD: i16 = 4;

/// What a zstd encoder may look back on, at high levels, as a power of two: they would take hundreds of
/// megabytes for a large batch.
const ZSTD_WINDOW_LOG: u32 = 22;
/// From this level on zstd by itself looks back further than that.
const ZSTD_HIGH: i32 = 17;

/// Before snappy blocks, as Java's snappy streams have it: a name, and two versions of 1.
const XERIAL: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes per snappy block, unpacked; Java's default.
const XERIAL_BLOCK: usize = 32 << 10;

/// Unpacked records. Do not unpack another batch while one is held: that might wait for itself.
pub(crate) struct Unpacked<'a> {
    bytes: Cow<'a, [u8]>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Unpacked<'_> {
    /// Gives the bytes away.
    pub(crate) fn into_owned(self) -> Vec<u8> {
        self.bytes.into_owned()
    }
}

impl Deref for Unpacked<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The records' bytes, unpacked from `codec`, 0 included.
pub(crate) fn unpack(codec: i16, packed: &[u8]) -> Result<Unpacked<'_>, BatchError> {
    let unpacked = match codec {
        0 => {
            return Ok(Unpacked {
                bytes: Cow::Borrowed(packed),
                _turn: None,
            });
        }
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
    let Output { bytes, turn } = unpacked?;
    Ok(Unpacked {
        bytes: Cow::Owned(bytes),
        _turn: turn,
    })
}

/// Packs records' bytes into `codec`, at its default level.
pub(crate) fn pack(codec: i16, records: &[u8]) -> Result<Vec<u8>, BatchError> {
    pack_at(codec, None, records)
}

/// Packs records' bytes into `codec` at `level`, which counts for gzip and zstd only.
pub(crate) fn pack_at(
    codec: i16,
    level: Option<i32>,
    records: &[u8],
) -> Result<Vec<u8>, BatchError> {
    let failed = |e| broken(codec, e);
    match codec {
        0 => Ok(records.to_vec()),
        GZIP => {
            let level = level.and_then(|level| u32::try_from(level).ok());
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut out = flate2::write::GzEncoder::new(Vec::new(), level);
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
        ZSTD => {
            // 0 is zstd's name for its default. Told the whole at once, it takes memory to fit.
            let level = level.unwrap_or(0);
            let mut encoder = zstd::bulk::Compressor::new(level).map_err(failed)?;
            if level >= ZSTD_HIGH {
                let window = zstd::zstd_safe::CParameter::WindowLog(ZSTD_WINDOW_LOG);
                encoder.set_parameter(window).map_err(failed)?;
            }
            encoder.compress(records).map_err(failed)
        }
        unknown => Err(BatchError::Compressed(unknown)),
    }
}

/// Unpacked bytes as they become more.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    turn: Option<MutexGuard<'static, ()>>,
}

impl Output {
    /// To be asked before there are `len` bytes: waits for the turn of large ones.
    fn may_hold(&mut self, len: usize, codec: i16) -> Result<(), BatchError> {
        if len > MAX_UNPACKED {
            return Err(broken(
                codec,
                format!("more than {MAX_UNPACKED} bytes unpacked"),
            ));
        }
        if len > LARGE && self.turn.is_none() {
            self.turn = Some(LARGE_TURN.lock());
        }
        Ok(())
    }
}

/// Reads to the end, or to the bound. The memory grows with what is really there.
fn drain(codec: i16, from: impl Read) -> Result<Output, BatchError> {
    let mut out = Output::default();
    let mut from = from.take(0);
    for bound in [LARGE, MAX_UNPACKED] {
        // One more byte than the bound tells whether there is more.
        from.set_limit((bound + 1 - out.bytes.len()) as u64);
        from.read_to_end(&mut out.bytes)
            .map_err(|e| broken(codec, e))?;
        if out.bytes.len() <= bound {
            break;
        }
        out.may_hold(bound + 1, codec)?;
    }
    Ok(out)
}

/// Java writes blocks behind a header, other clients a single bare block.
fn snappy(packed: &[u8]) -> Result<Output, BatchError> {
    let mut out = Output::default();
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

fn snappy_block(block: &[u8], out: &mut Output) -> Result<(), BatchError> {
    let len = snap::raw::decompress_len(block).map_err(|e| broken(SNAPPY, e))?;
    // The length is only claimed; but snappy packs no more than about 22 bytes into one.
    if len > block.len().saturating_mul(64) {
        return Err(broken(SNAPPY, "a block claims more than it can hold"));
    }
    let at = out.bytes.len();
    out.may_hold(at + len, SNAPPY)?;
    let out = &mut out.bytes;
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
                assert_eq!(*unpack(codec, &packed).unwrap(), text[..len], "{codec}");
            }
        }
    }

    #[test]
    fn snappy_without_javas_framing_is_understood() {
        let packed = SnappyEncoder::new().compress_vec(b"some bytes").unwrap();
        assert_eq!(*unpack(SNAPPY, &packed).unwrap(), b"some bytes"[..]);
    }

    #[test]
    fn a_higher_level_packs_better_and_unpacks_to_the_same() {
        let mut seed = 1u32;
        let text: Vec<u8> = (0..300_000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"aaabbcdefgh kafka"[(seed >> 20) as usize % 17]
            })
            .collect();
        for (codec, low, high) in [(GZIP, 1, 9), (ZSTD, -5, 22)] {
            let [low, high] = [low, high].map(|l| pack_at(codec, Some(l), &text).unwrap());
            assert!(
                high.len() < low.len(),
                "{codec}: {} {}",
                high.len(),
                low.len()
            );
            assert_eq!(*unpack(codec, &low).unwrap(), text[..]);
            assert_eq!(*unpack(codec, &high).unwrap(), text[..]);
        }
        // -1 is gzip's name for its default.
        assert_eq!(
            pack_at(GZIP, Some(-1), &text).unwrap(),
            pack(GZIP, &text).unwrap()
        );
    }

    #[test]
    fn of_large_batches_one_is_unpacked_at_a_time_and_small_ones_do_not_wait() {
        let large = vec![1; LARGE + 1];
        for codec in [GZIP, SNAPPY, LZ4, ZSTD] {
            let packed = [
                pack(codec, &large).unwrap(),
                pack(codec, &large[1..]).unwrap(),
            ];
            let first = unpack(codec, &packed[0]).unwrap();
            let (done, told) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let (packed, done) = (&packed, &done);
                scope.spawn(move || {
                    drop(unpack(codec, &packed[1]).unwrap());
                    done.send("small").unwrap();
                    drop(unpack(codec, &packed[0]).unwrap());
                    done.send("large").unwrap();
                });
                assert_eq!(told.recv().unwrap(), "small");
                let waits = told.recv_timeout(std::time::Duration::from_millis(50));
                assert!(waits.is_err(), "{codec}");
                drop(first);
                assert_eq!(told.recv().unwrap(), "large");
            });
        }
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
