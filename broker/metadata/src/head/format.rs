//! The head as a value: its data keys read into a [`Head`] and written from it.
//!
//! Promises: what [`Head::parse`] accepts is coherent (the tail ends at `seq`, has no gap, and joins the
//! segments); text that it did not write is refused with the key's name, never guessed at.

use super::{chunks::ChunkRef, keys};
use crate::features::{self, Level, METADATA_VERSION, Unsupported};
use crate::image::Claim;
use crate::records::{Entry, Record};
use crate::store::HeadObject;
use leasehold_types::{BrokerId, ClusterId, ControllerEpoch, Incarnation, Seq};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Who claimed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRef {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    /// Its internal listener, `host:port`.
    pub address: String,
}

/// What stands before the records of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHeader {
    pub seq: Seq,
    pub epoch: ControllerEpoch,
    pub nonce: String,
    /// How many lines of records follow.
    pub records: usize,
}

impl EntryHeader {
    /// That of `entry`.
    pub fn of(entry: &Entry) -> Self {
        Self {
            seq: entry.seq,
            epoch: entry.epoch,
            nonce: entry.nonce.clone(),
            records: entry.records.len(),
        }
    }
}

/// One entry of the tail: its header, and the text as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailEntry {
    pub header: EntryHeader,
    pub text: String,
}

/// The head's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub cluster_id: ClusterId,
    pub epoch: ControllerEpoch,
    pub controller: Option<ControllerRef>,
    pub seq: Seq,
    pub nonce: String,
    pub snapshot: Option<ChunkRef>,
    pub segments: Vec<ChunkRef>,
    /// The most recent claims, oldest first.
    pub claims: Vec<Claim>,
    pub tail: BTreeMap<Seq, TailEntry>,
    /// As the image has it.
    pub metadata_version: Option<Level>,
}

/// A head that Leasehold did not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the head's {key} is not what Leasehold writes: {why}")]
pub struct FormatError {
    pub key: String,
    pub why: String,
}

fn malformed(key: &str, why: impl ToString) -> FormatError {
    FormatError {
        key: key.to_owned(),
        why: why.to_string(),
    }
}

/// The head of a cluster that has just come into being.
pub fn initial(cluster_id: &ClusterId) -> BTreeMap<String, String> {
    [
        (keys::CLUSTER_ID, cluster_id.to_string()),
        (keys::EPOCH, "0".to_owned()),
        (keys::SEQ, "0".to_owned()),
        (keys::NONCE, crate::store::random_nonce()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn get<'a>(data: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, FormatError> {
    data.get(key)
        .map(String::as_str)
        .ok_or_else(|| malformed(key, "it is missing"))
}

fn parse_text<T: std::str::FromStr>(
    data: &BTreeMap<String, String>,
    key: &str,
) -> Result<T, FormatError>
where
    T::Err: std::fmt::Display,
{
    get(data, key)?.parse().map_err(|e| malformed(key, e))
}

fn parse_json<T: DeserializeOwned>(
    data: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<T>, FormatError> {
    let parse = |text: &String| serde_json::from_str(text).map_err(|e| malformed(key, e));
    data.get(key).map(parse).transpose()
}

fn parse_lines<T: DeserializeOwned>(
    data: &BTreeMap<String, String>,
    key: &str,
) -> Result<Vec<T>, FormatError> {
    let text = data.get(key).map(String::as_str).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|e| malformed(key, e)))
        .collect()
}

/// JSON of a value of ours. Such values (numbers, strings, lists, maps with string keys) always encode.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn lines<T: Serialize>(values: &[T]) -> String {
    let mut text = String::new();
    for value in values {
        text.push_str(&json(value));
        text.push('\n');
    }
    text
}

/// Refuses a head whose records this release may not know, by its own word, before anything else of it is read.
pub fn check_level(data: &BTreeMap<String, String>) -> Result<(), Unsupported> {
    let told = data.get(keys::METADATA_VERSION);
    match told.and_then(|text| text.parse().ok()) {
        Some(level) => features::check(METADATA_VERSION, Level(level)),
        // What is no level, `Head::parse` refuses.
        None => Ok(()),
    }
}

impl Head {
    /// Reads the head's data.
    pub fn parse(object: &HeadObject) -> Result<Self, FormatError> {
        let data = &object.data;
        let mut tail = BTreeMap::new();
        for (key, text) in data.iter().filter(|(key, _)| keys::is_entry(key)) {
            let first = text.lines().next().unwrap_or_default();
            let header: EntryHeader = serde_json::from_str(first).map_err(|e| malformed(key, e))?;
            if keys::entry(header.seq) != *key {
                return Err(malformed(key, format!("it holds entry {}", header.seq)));
            }
            let text = text.clone();
            tail.insert(header.seq, TailEntry { header, text });
        }
        let head = Self {
            cluster_id: ClusterId(get(data, keys::CLUSTER_ID)?.to_owned()),
            epoch: ControllerEpoch(parse_text(data, keys::EPOCH)?),
            controller: parse_json(data, keys::CONTROLLER)?,
            seq: Seq(parse_text(data, keys::SEQ)?),
            nonce: get(data, keys::NONCE)?.to_owned(),
            snapshot: parse_json(data, keys::SNAPSHOT)?,
            segments: parse_lines(data, keys::SEGMENTS)?,
            claims: parse_lines(data, keys::CLAIMS)?,
            tail,
            metadata_version: match data.contains_key(keys::METADATA_VERSION) {
                true => Some(Level(parse_text(data, keys::METADATA_VERSION)?)),
                false => None,
            },
        };
        head.check()?;
        Ok(head)
    }

    /// Snapshot, segments and tail must follow each other without a gap and end at `seq`.
    fn check(&self) -> Result<(), FormatError> {
        let mut last = self.snapshot.as_ref().map_or(Seq(0), |s| s.last);
        for segment in &self.segments {
            if segment.first != last.next() || segment.last < segment.first {
                let why = format!("{}-{} follows {last}", segment.first, segment.last);
                return Err(malformed(keys::SEGMENTS, why));
            }
            last = segment.last;
        }
        for seq in self.tail.keys() {
            if *seq != last.next() {
                return Err(malformed(&keys::entry(*seq), format!("it follows {last}")));
            }
            last = *seq;
        }
        if last != self.seq {
            return Err(malformed(keys::SEQ, format!("the last entry is {last}")));
        }
        Ok(())
    }

    /// Bytes of the tail.
    pub fn tail_bytes(&self) -> usize {
        self.tail.values().map(|entry| entry.text.len()).sum()
    }

    /// The tail as the text of a segment.
    pub fn tail_text(&self) -> String {
        self.tail
            .values()
            .map(|entry| entry.text.as_str())
            .collect()
    }

    /// Names of all chunks that this head needs.
    pub fn chunk_names(&self) -> impl Iterator<Item = &str> {
        let chunks = self.snapshot.iter().chain(&self.segments);
        chunks.flat_map(|chunk| chunk.parts.iter().map(|part| part.name.as_str()))
    }
}

/// The text of an entry: a line that names it, then one line per record.
pub fn entry_text(entry: &Entry) -> String {
    let mut text = json(&EntryHeader::of(entry));
    text.push('\n');
    text.push_str(&lines(&entry.records));
    text
}

/// A line that is not what was to be there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {why}{}", hint(*.kind))]
pub struct BadLine {
    number: usize,
    why: String,
    kind: Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    /// No line, or no JSON: the write of it may not have been completed.
    Torn,
    /// JSON that was written whole, and is none of ours.
    Foreign,
}

fn hint(kind: Bad) -> &'static str {
    match kind {
        Bad::Torn => "",
        Bad::Foreign => " (was it written by a newer release?)",
    }
}

impl BadLine {
    /// Judges the error that reading line `number` ended with.
    pub(super) fn of(number: usize, error: &serde_json::Error) -> Self {
        Self {
            number,
            why: error.to_string(),
            kind: match error.classify() {
                serde_json::error::Category::Data => Bad::Foreign,
                _ => Bad::Torn,
            },
        }
    }

    /// Whether it may be what a power loss left of a line of ours.
    pub fn may_be_torn(&self) -> bool {
        self.kind == Bad::Torn
    }
}

/// Reads the entries from the text of a segment or of the tail. The error names the line.
pub fn parse_entries(text: &str) -> Result<Vec<Entry>, BadLine> {
    let mut entries = Vec::new();
    let mut numbered = text.lines().zip(1usize..);
    let bad = |number: usize, error: serde_json::Error| BadLine::of(number, &error);
    while let Some((line, number)) = numbered.next() {
        let header: EntryHeader = serde_json::from_str(line).map_err(|e| bad(number, e))?;
        let mut records: Vec<Record> = Vec::new();
        for _ in 0..header.records {
            let Some((line, number)) = numbered.next() else {
                return Err(BadLine {
                    number,
                    why: format!("entry {} is cut short", header.seq),
                    kind: Bad::Torn,
                });
            };
            records.push(serde_json::from_str(line).map_err(|e| bad(number, e))?);
        }
        entries.push(Entry {
            seq: header.seq,
            epoch: header.epoch,
            nonce: header.nonce,
            records,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(data: BTreeMap<String, String>) -> HeadObject {
        HeadObject {
            uid: "u".into(),
            data,
        }
    }

    fn entry(seq: u64) -> Entry {
        Entry {
            seq: Seq(seq),
            epoch: ControllerEpoch(1),
            nonce: format!("n{seq}"),
            records: vec![Record::NoOp, Record::NoOp],
        }
    }

    #[test]
    fn a_new_head_reads_back_empty() {
        let id = ClusterId::random();
        let head = Head::parse(&object(initial(&id))).unwrap();
        assert_eq!(
            (head.cluster_id, head.epoch, head.seq),
            (id, ControllerEpoch(0), Seq(0))
        );
        assert!(head.tail.is_empty() && head.controller.is_none());
    }

    #[test]
    fn a_gap_between_the_entries_is_refused() {
        let mut data = initial(&ClusterId::random());
        data.insert(keys::SEQ.into(), "2".into());
        data.insert(keys::entry(Seq(1)), entry_text(&entry(1)));
        data.insert(keys::entry(Seq(2)), entry_text(&entry(2)));
        assert!(Head::parse(&object(data.clone())).is_ok());
        data.remove(&keys::entry(Seq(1)));
        let error = Head::parse(&object(data.clone())).unwrap_err();
        assert!(error.to_string().contains("entry-"), "{error}");
        data.remove(&keys::entry(Seq(2)));
        assert!(Head::parse(&object(data)).is_err());
    }

    #[test]
    fn entries_survive_their_text() {
        let text = entry_text(&entry(1)) + &entry_text(&entry(2));
        assert_eq!(parse_entries(&text).unwrap(), vec![entry(1), entry(2)]);
        let cut = &text[..text.len() - 2];
        assert!(parse_entries(cut).is_err());
    }
}
