//! A byte stream cut into frames, as a connection's reader does it.
//!
//! Input: the size of the reads, then the stream. Held against a second, simple cutting of the same stream;
//! the memory that it asks for is bounded by the bytes that arrived.

use bytes::BufMut;
use leasehold_wire::frame::{FIRST_STEP, FrameBuffer, FrameError};

/// Small, so that the fuzzer comes by it.
const LIMIT: usize = 48 << 10;

/// See above.
pub(crate) fn run(data: &[u8]) {
    let Some((step, mut stream)) = data.split_first() else {
        return;
    };
    let step = 1 + usize::from(*step) * usize::from(*step);
    let expected = cut(stream);
    let mut buffer = FrameBuffer::new(LIMIT);
    let mut seen = Vec::new();
    let mut arrived = 0;
    let end = loop {
        match buffer.next_frame() {
            Ok(Some(frame)) => {
                seen.push(frame);
                continue;
            }
            Ok(None) if stream.is_empty() => break Ok(()),
            Ok(None) => {}
            Err(error) => break Err(error),
        }
        let _ = buffer.announced();
        let room = match buffer.room() {
            Ok(room) => room,
            Err(error) => break Err(error),
        };
        assert!(room > 0, "no room, and no frame");
        let (now, rest) = stream.split_at(room.min(step).min(stream.len()));
        buffer.bytes.put_slice(now);
        (stream, arrived) = (rest, arrived + now.len());
        assert!(buffer.len() <= arrived);
        let most = 2 * arrived + FIRST_STEP + (128 << 10);
        assert!(buffer.bytes.capacity() <= most, "{arrived} bytes arrived");
    };
    assert_eq!(seen, expected.0, "the frames");
    assert_eq!(end, expected.1, "the end");
}

fn cut(mut stream: &[u8]) -> (Vec<&[u8]>, Result<(), FrameError>) {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = stream.split_first_chunk::<4>() {
        let claimed = i32::from_be_bytes(*prefix);
        let Ok(length) = usize::try_from(claimed) else {
            return (frames, Err(FrameError::NegativeLength(claimed)));
        };
        if length > LIMIT {
            let limit = LIMIT;
            return (frames, Err(FrameError::TooLarge { length, limit }));
        }
        let Some((frame, rest)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push(frame);
        stream = rest;
    }
    (frames, Ok(()))
}
