//! Text in immutable chunks: small ones as readable lines, large ones compressed, none near 1 MiB.
//!
//! Promise: [`unpack`] of what [`pack`] made gives the same text, or an error; never a different one
//! (SHA-256 of each part stands in the head, I16).

use crate::store::{Chunk, ChunkBody, random_nonce};
use leasehold_types::{ClusterId, ControllerEpoch, Seq};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::ops::RangeInclusive;

/// Text up to this size stays readable.
const READABLE: usize = 24 * 1024;
/// The largest compressed part: under 1 MiB even in base64 and with the object around it.
const LARGEST_PART: usize = 640 * 1024;
/// The most text that goes into one part before compression.
const LARGEST_PIECE: usize = 4 * 1024 * 1024;

/// One chunk as the head names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub sha256: String,
}

/// A segment or a snapshot as the head names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The first entry in it; for a snapshot, 0.
    pub first: Seq,
    /// The last entry in it.
    pub last: Seq,
    /// The nonce of the head write that made entry `last`: with it an in-doubt write is found here.
    pub nonce: String,
    /// Bytes of text, before compression.
    pub bytes: usize,
    pub parts: Vec<Part>,
}

/// Why a chunk could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk {name} does not have the SHA-256 that the head names for it")]
    WrongHash { name: String },
    #[error("chunk {name} cannot be decoded: {why}")]
    Undecodable { name: String, why: String },
}

/// The segment or snapshot of `text`, which holds the entries `span` and ends with the head write of `nonce`,
/// as the head names it, and the chunks to create first.
pub fn store(
    text: &str,
    cluster: &ClusterId,
    epoch: ControllerEpoch,
    span: RangeInclusive<Seq>,
    nonce: &str,
) -> (ChunkRef, Vec<Chunk>) {
    let (parts, chunks) = pack(text, cluster, epoch).into_iter().unzip();
    let (first, last) = span.into_inner();
    let stored = ChunkRef {
        first,
        last,
        nonce: nonce.to_owned(),
        bytes: text.len(),
        parts,
    };
    (stored, chunks)
}

/// Cuts and compresses `text` into chunks of this writer.
pub fn pack(text: &str, cluster: &ClusterId, epoch: ControllerEpoch) -> Vec<(Part, Chunk)> {
    let mut bodies = Vec::new();
    if text.len() <= READABLE {
        bodies.push(ChunkBody::Lines(text.to_owned()));
    } else {
        for piece in text.as_bytes().chunks(LARGEST_PIECE) {
            compress(piece, &mut bodies);
        }
    }
    let named = bodies.into_iter().map(|body| {
        let name = format!("{epoch}-{}", random_nonce());
        let part = Part {
            name: name.clone(),
            sha256: hash(&body),
        };
        let chunk = Chunk {
            name,
            cluster: cluster.clone(),
            epoch,
            body,
        };
        (part, chunk)
    });
    named.collect()
}

fn compress(piece: &[u8], bodies: &mut Vec<ChunkBody>) {
    // Compression into memory cannot fail; if it did, the half is tried, and at last text is kept as is.
    match zstd::bulk::compress(piece, 3) {
        Ok(bytes) if bytes.len() <= LARGEST_PART => bodies.push(ChunkBody::Zstd(bytes)),
        _ => {
            let (left, right) = piece.split_at(piece.len() / 2);
            compress(left, bodies);
            compress(right, bodies);
        }
    }
}

fn hash(body: &ChunkBody) -> String {
    let bytes = match body {
        ChunkBody::Lines(text) => text.as_bytes(),
        ChunkBody::Zstd(bytes) => bytes,
    };
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks `bodies` against the head's `parts` and joins them.
pub fn unpack(parts: &[Part], bodies: Vec<ChunkBody>) -> Result<String, ChunkError> {
    let mut bytes = Vec::new();
    for (part, body) in parts.iter().zip(bodies) {
        if hash(&body) != part.sha256 {
            let name = part.name.clone();
            return Err(ChunkError::WrongHash { name });
        }
        let undecodable = |why: String| ChunkError::Undecodable {
            name: part.name.clone(),
            why,
        };
        match body {
            ChunkBody::Lines(text) => bytes.extend_from_slice(text.as_bytes()),
            ChunkBody::Zstd(compressed) => {
                let decoder = zstd::stream::read::Decoder::new(compressed.as_slice())
                    .map_err(|e| undecodable(e.to_string()))?;
                let limit = LARGEST_PIECE as u64 + 1;
                let before = bytes.len();
                decoder
                    .take(limit)
                    .read_to_end(&mut bytes)
                    .map_err(|e| undecodable(e.to_string()))?;
                if bytes.len() - before > LARGEST_PIECE {
                    return Err(undecodable(format!(
                        "it holds more than {LARGEST_PIECE} bytes"
                    )));
                }
            }
        }
    }
    let first = parts.first().map(|p| p.name.clone()).unwrap_or_default();
    String::from_utf8(bytes).map_err(|error| ChunkError::Undecodable {
        name: first,
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> Vec<ChunkBody> {
        let packed = pack(text, &ClusterId("c".into()), ControllerEpoch(3));
        let (parts, chunks): (Vec<_>, Vec<_>) = packed.into_iter().unzip();
        let bodies: Vec<_> = chunks.into_iter().map(|c| c.body).collect();
        assert_eq!(unpack(&parts, bodies.clone()).unwrap(), text);
        bodies
    }

    #[test]
    fn small_text_stays_readable_and_large_text_is_compressed() {
        assert!(matches!(round_trip("{}\n")[..], [ChunkBody::Lines(_)]));
        let large = "{\"a\":1}\n".repeat(10_000);
        assert!(matches!(round_trip(&large)[..], [ChunkBody::Zstd(_)]));
    }

    #[test]
    fn text_that_hardly_compresses_is_cut_until_every_part_fits() {
        let noise: String = (0..60_000).map(|_| random_nonce()).collect();
        for body in round_trip(&noise) {
            assert!(matches!(body, ChunkBody::Zstd(b) if b.len() <= LARGEST_PART));
        }
    }

    #[test]
    fn a_changed_chunk_is_refused() {
        let packed = pack("{}\n", &ClusterId("c".into()), ControllerEpoch(3));
        let parts: Vec<_> = packed.into_iter().map(|(part, _)| part).collect();
        let changed = vec![ChunkBody::Lines("{ }\n".into())];
        assert!(matches!(
            unpack(&parts, changed),
            Err(ChunkError::WrongHash { .. })
        ));
    }
}
