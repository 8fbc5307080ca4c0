//! The high watermarks of all partitions, in one file. Each is a lower bound of the real one, so an
//! old file, or none, costs time and loses nothing.

use crate::{LogError, disk};
use leasehold_types::{Offset, TopicId};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

const MARKS: &str = "high-watermarks";
/// First line: names the format.
const TITLE: &str = "high watermarks 1";

pub(super) fn save(
    folder: &Path,
    marks: impl IntoIterator<Item = ((TopicId, i32), Offset)>,
) -> Result<(), LogError> {
    let mut text = format!("{TITLE}\n");
    for ((topic, partition), mark) in marks {
        let _ = writeln!(text, "{topic} {partition} {mark}");
    }
    disk::write_durably(&folder.join(MARKS), text.as_bytes())
}

pub(super) fn load(folder: &Path) -> HashMap<(TopicId, i32), Offset> {
    let path = folder.join(MARKS);
    let content = match disk::read_if_there(&path) {
        Ok(content) => content.unwrap_or_default(),
        Err(e) => {
            tracing::warn!("starting without high watermarks: {e}");
            return HashMap::new();
        }
    };
    let text = String::from_utf8_lossy(&content);
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return HashMap::new();
    }
    lines.filter_map(parse).collect()
}

fn parse(line: &str) -> Option<((TopicId, i32), Offset)> {
    let mut words = line.split(' ');
    let topic = TopicId::parse(words.next()?)?;
    let partition = words.next()?.parse().ok()?;
    let mark: i64 = words.next()?.parse().ok()?;
    (mark >= 0 && words.next().is_none()).then_some(((topic, partition), Offset(mark)))
}
