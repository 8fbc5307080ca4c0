//! Cutting a byte stream into frames: a 4-byte big-endian length, then that many bytes.
//!
//! Pure: it holds bytes and says how many more are worth reading. Promise: it never asks for room
//! beyond twice the bytes that really arrived (or one small step), whatever length a peer claims,
//! and refuses a length above its limit at once.

use bytes::{Bytes, BytesMut};

/// Room to make for the first bytes of a frame.
pub const FIRST_STEP: usize = 4 * 1024;

/// Frames up to this size are read together with what follows them; longer ones exactly to their
/// end, so that a small rest never pins a large buffer.
const SHARED_READ: usize = 16 * 1024;

/// Longer frames are collected in pieces of this size and joined at the end: growing one buffer again
/// and again leaves holes of every size behind.
const PIECE: usize = 64 * 1024;

/// A frame longer than this gets one buffer as soon as its first piece arrived: joining its pieces at
/// the end would take twice its memory for a moment.
const LONG: usize = 2 * 1024 * 1024;

/// The least capacity of that buffer. Pages that are never written take no memory; and of allocations
/// above 32 MiB glibc's allocator gives every one back to the system when it is freed, while what is
/// below may come out of a heap that keeps it.
const OWN_MAPPING: usize = 33 * 1024 * 1024;

/// Why a byte stream is no sequence of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes exceeds the limit of {limit} (socket.request.max.bytes)")]
    TooLarge { length: usize, limit: usize },
    #[error("a frame claims a negative length, {0}")]
    NegativeLength(i32),
}

/// Bytes of a stream on their way to becoming frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    /// Append what arrives here, at most [`Self::room`] bytes at a time.
    pub bytes: BytesMut,
    /// Pieces of the frame at the front that are full.
    pieces: Vec<Bytes>,
    in_pieces: usize,
    limit: usize,
}

impl FrameBuffer {
    /// An empty buffer (no memory is taken yet) that refuses frames above `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Bytes that arrived and were not taken yet.
    pub fn len(&self) -> usize {
        self.in_pieces + self.bytes.len()
    }

    /// Whether no frame has begun.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of the frame at the front, once its prefix arrived.
    fn claimed(&self) -> Result<Option<usize>, FrameError> {
        let front = self
            .pieces
            .first()
            .map_or(&self.bytes[..], |piece| &piece[..]);
        let Some(prefix) = front.first_chunk::<4>() else {
            return Ok(None);
        };
        let raw = i32::from_be_bytes(*prefix);
        let length = usize::try_from(raw).map_err(|_| FrameError::NegativeLength(raw))?;
        if length > self.limit {
            return Err(FrameError::TooLarge {
                length,
                limit: self.limit,
            });
        }
        Ok(Some(length))
    }

    /// Length and API key of the frame at the front, as far as they arrived.
    pub fn announced(&self) -> (Option<usize>, Option<i16>) {
        let front = self.pieces.first().map_or(&self.bytes[..], |p| &p[..]);
        let key = front.get(4..6).and_then(|key| key.first_chunk::<2>());
        let length = self.claimed().ok().flatten();
        (length, key.map(|key| i16::from_be_bytes(*key)))
    }

    /// The next whole frame, without its length prefix.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.claimed()? else {
            return Ok(None);
        };
        if self.len() < 4 + length {
            self.keep_growing(4 + length);
            return Ok(None);
        }
        self.join(4 + length);
        let mut frame = self.bytes.split_to(4 + length).freeze();
        if self.bytes.is_empty() {
            // Let go of the allocation: an idle connection holds no buffer.
            self.bytes = BytesMut::new();
        }
        let _prefix = frame.split_to(4);
        Ok(Some(frame))
    }

    /// Puts a full buffer aside as a piece, or begins the one buffer of a very long frame.
    fn keep_growing(&mut self, whole: usize) {
        if self.bytes.len() < PIECE || self.bytes.capacity() >= whole {
            return;
        }
        self.in_pieces += self.bytes.len();
        self.pieces.push(self.bytes.split().freeze());
        self.bytes = BytesMut::new();
        if whole > LONG {
            self.join(whole.max(OWN_MAPPING));
        }
    }

    /// Makes one buffer with room for `whole` bytes out of the pieces, letting go of each as it is copied.
    fn join(&mut self, whole: usize) {
        if self.pieces.is_empty() {
            return;
        }
        let last = std::mem::replace(&mut self.bytes, BytesMut::with_capacity(whole));
        for piece in self.pieces.drain(..) {
            self.bytes.extend_from_slice(&piece);
        }
        self.bytes.extend_from_slice(&last);
        self.in_pieces = 0;
    }

    /// How many bytes to make room for and read next. Call after [`Self::next_frame`] said `None`.
    pub fn room(&self) -> Result<usize, FrameError> {
        let have = self.len();
        let step = have.max(FIRST_STEP);
        Ok(match self.claimed()? {
            Some(length) if length > SHARED_READ => {
                let piece = match PIECE.saturating_sub(self.bytes.len()) {
                    // Only the one buffer of a very long frame grows beyond a piece.
                    0 => PIECE,
                    left => left.max(FIRST_STEP),
                };
                step.min(piece).min(4 + length - have)
            }
            _ => step.min(SHARED_READ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            lengths in prop::collection::vec(
                prop_oneof![4 => 0..40_000usize, 1 => 200_000..1_200_000usize, 1 => Just(9 << 20)],
                0..5,
            ),
            cuts in prop::collection::vec(1usize..500_000, 1..20),
        ) {
            let frames: Vec<Vec<u8>> =
                lengths.iter().map(|len| (0..*len).map(|i| (i * 7 + len) as u8).collect()).collect();
            let mut stream = BytesMut::new();
            for frame in &frames {
                stream.put_i32(frame.len() as i32);
                stream.put_slice(frame);
            }
            let mut buffer = FrameBuffer::new(10 << 20);
            let mut seen = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let room = buffer.room().unwrap();
                prop_assert!(room > 0 && room <= buffer.len().max(SHARED_READ));
                let take = room.min(*cuts.next().unwrap()).min(stream.len());
                buffer.bytes.put_slice(&stream.split_to(take));
                while let Some(frame) = buffer.next_frame().unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_claimed_length_alone_takes_no_memory() {
        let mut buffer = FrameBuffer::new(100 << 20);
        buffer.bytes.put_i32(100 << 20);
        assert_eq!(buffer.next_frame(), Ok(None));
        assert_eq!(buffer.room(), Ok(FIRST_STEP));
    }

    #[test]
    fn a_length_beyond_the_limit_or_below_zero_is_refused_at_once() {
        let mut buffer = FrameBuffer::new(1000);
        buffer.bytes.put_i32(1001);
        assert_eq!(
            buffer.next_frame(),
            Err(FrameError::TooLarge {
                length: 1001,
                limit: 1000
            })
        );
        let mut buffer = FrameBuffer::new(1000);
        buffer.bytes.put_i32(-1);
        assert_eq!(buffer.next_frame(), Err(FrameError::NegativeLength(-1)));
    }
}
