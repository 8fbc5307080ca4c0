//! Reads a cluster's whole metadata: the head, the chunks it names, and the image they add up to.
//!
//! Promises: a chunk that does not have the hash that the head names is refused (I16); a chunk that is
//! missing means that the head has moved on, so the head is read again; if it has not, that is an error.

use super::chunks::{ChunkError, ChunkRef, unpack};
use super::format::{BadLine, FormatError, Head, check_level, json, lines, parse_entries};
use crate::features::{self, Unsupported};
use crate::image::{ApplyError, Image, Position};
use crate::records::{Entry, Record};
use crate::store::{Store, StoreError};
use leasehold_types::ClusterId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Everything, as of one head.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The head object's uid.
    pub uid: String,
    pub head: Head,
    pub image: Arc<Image>,
    /// The entries of the tail, oldest first: for brokers that are a little behind.
    pub recent: Vec<Entry>,
}

/// Why the metadata could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "there is no head in {0}: the operator (or `leasehold-broker dev`) creates it, a broker never does"
    )]
    NoHead(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("chunk {name}, which the head at seq {seq} names, does not exist")]
    Missing { name: String, seq: u64 },
    #[error("{what} does not continue the metadata before it: {why}")]
    Broken { what: String, why: String },
}

/// Why a text does not lead to an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error("{0}")]
    Other(String),
}

impl From<ApplyError> for TextError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Unsupported(unsupported) => Self::Unsupported(unsupported),
            other => Self::Other(other.to_string()),
        }
    }
}

/// The first line of a snapshot's text.
#[derive(Serialize, Deserialize)]
struct SnapshotHeader {
    position: Position,
    records: usize,
}

/// The text of a snapshot of `image`.
pub fn snapshot_text(image: &Image) -> String {
    let records = image.to_records();
    let header = SnapshotHeader {
        position: image.position,
        records: records.len(),
    };
    let mut text = json(&header);
    text.push('\n');
    text.push_str(&lines(&records));
    text
}

/// Reads a snapshot's text back.
pub fn parse_snapshot(cluster_id: &ClusterId, text: &str) -> Result<Image, TextError> {
    let mut all = text.lines();
    let first = all.next().unwrap_or_default();
    let bad = |number: usize, error: &serde_json::Error| BadLine::of(number, error);
    let header: SnapshotHeader = serde_json::from_str(first).map_err(|e| bad(1, &e))?;
    let mut records: Vec<Record> = Vec::new();
    for (line, number) in all.zip(2..) {
        let record = serde_json::from_str(line).map_err(|e| bad(number, &e))?;
        // It stands before what a release of a lower level cannot read.
        if let Record::FeatureLevel { name, level } = &record {
            features::check(name, *level)?;
        }
        records.push(record);
    }
    if records.len() != header.records {
        let (said, found) = (header.records, records.len());
        let why = format!("it says {said} records and has {found}");
        return Err(TextError::Other(why));
    }
    let image = Image::from_snapshot(cluster_id.clone(), header.position, &records)?;
    Ok(image)
}

/// Loads head and image.
pub async fn load(store: &dyn Store) -> Result<Loaded, LoadError> {
    let mut missing: Option<(String, String)> = None;
    loop {
        let object = store.read_head().await?;
        let object = object.ok_or_else(|| LoadError::NoHead(store.describe()))?;
        check_level(&object.data)?;
        let head = Head::parse(&object)?;
        if let Some((name, nonce)) = missing.take()
            && nonce == head.nonce
        {
            let seq = head.seq.0;
            return Err(LoadError::Missing { name, seq });
        }
        match image_of(store, &head).await? {
            Ok((image, recent)) => {
                return Ok(Loaded {
                    uid: object.uid,
                    head,
                    image: Arc::new(image),
                    recent,
                });
            }
            Err(name) => missing = Some((name, head.nonce)),
        }
    }
}

/// The inner error is the name of a missing chunk.
async fn image_of(
    store: &dyn Store,
    head: &Head,
) -> Result<Result<(Image, Vec<Entry>), String>, LoadError> {
    let chunks: Vec<&ChunkRef> = head.snapshot.iter().chain(&head.segments).collect();
    let read = futures::future::join_all(chunks.iter().map(|chunk| read_text(store, chunk))).await;
    let mut texts = Vec::with_capacity(read.len());
    for text in read {
        match text? {
            Ok(text) => texts.push(text),
            Err(name) => return Ok(Err(name)),
        }
    }
    let mut texts = texts.into_iter();
    let broken = |what: &str, why: TextError| match why {
        TextError::Unsupported(unsupported) => LoadError::Unsupported(unsupported),
        why => LoadError::Broken {
            what: what.to_owned(),
            why: why.to_string(),
        },
    };
    let mut image = Image::genesis(head.cluster_id.clone());
    if head.snapshot.is_some() {
        let text = texts.next().unwrap_or_default();
        image =
            parse_snapshot(&head.cluster_id, &text).map_err(|why| broken("the snapshot", why))?;
    }
    let mut entries = Vec::new();
    for text in texts.chain(std::iter::once(head.tail_text())) {
        entries =
            parse_entries(&text).map_err(|why| broken("a segment or the tail", why.into()))?;
        for entry in &entries {
            image
                .apply(entry)
                .map_err(|why| broken(&format!("entry {}", entry.seq), why.into()))?;
        }
    }
    if image.position.seq != head.seq || image.position.epoch != head.epoch {
        let why = format!(
            "it ends at {:?}, the head at {}/{}",
            image.position, head.epoch, head.seq
        );
        return Err(broken("the metadata", TextError::Other(why)));
    }
    Ok(Ok((image, entries)))
}

async fn read_text(
    store: &dyn Store,
    chunk: &ChunkRef,
) -> Result<Result<String, String>, LoadError> {
    let mut bodies = Vec::with_capacity(chunk.parts.len());
    for part in &chunk.parts {
        match store.read_chunk(&part.name).await? {
            Some(body) => bodies.push(body),
            None => return Ok(Err(part.name.clone())),
        }
    }
    Ok(Ok(unpack(&chunk.parts, bodies)?))
}
