//! The high watermarks of all partitions, in one file. Each is a lower bound of the real one, so an
//! old file, or none, costs time and loses nothing.

use crate::lines::{seal, unseal};
use crate::{LogError, disk};
use leasehold_types::seams::HashMap;
use leasehold_types::{Offset, TopicId};
use std::path::Path;

pub(crate) const MARKS: &str = "high-watermarks";
/// First line: names the format.
const TITLE: &str = "high watermarks 1";

pub(super) fn save(
    folder: &Path,
    marks: impl IntoIterator<Item = ((TopicId, i32), Offset)>,
) -> Result<(), LogError> {
    let mut text = format!("{TITLE}\n");
    for ((topic, partition), mark) in marks {
        text += &seal(&format!("{topic} {partition} {mark}"));
    }
    disk::write_durably(&folder.join(MARKS), text.as_bytes())
}

pub(super) fn load(folder: &Path) -> HashMap<(TopicId, i32), Offset> {
    let path = folder.join(MARKS);
    let content = match disk::read_if_there(&path) {
        Ok(content) => content.unwrap_or_default(),
        Err(e) => {
            tracing::warn!("starting without high watermarks: {e}");
            return HashMap::default();
        }
    };
    let mut lines = content
        .strip_suffix(b"\n")
        .unwrap_or(&content)
        .split(|&b| b == b'\n');
    if !lines.next().is_some_and(is_title) {
        return HashMap::default();
    }
    let parsed = |line: &[u8]| {
        let mark = parse(line);
        if mark.is_none() {
            tracing::warn!(file = %path.display(), "a damaged line is left out");
        }
        mark
    };
    lines.filter_map(parsed).collect()
}

/// Whether this is the file's first line, its end left out.
pub(crate) fn is_title(line: &[u8]) -> bool {
    line == TITLE.as_bytes()
}

/// The high watermark in a line, its end left out; `None` if it is damaged.
pub(crate) fn parse(line: &[u8]) -> Option<((TopicId, i32), Offset)> {
    let mut words = unseal(line)?.split(' ');
    let topic = TopicId::parse(words.next()?)?;
    let partition = words.next()?.parse().ok()?;
    let mark: i64 = words.next()?.parse().ok()?;
    (mark >= 0 && words.next().is_none()).then_some(((topic, partition), Offset(mark)))
}
