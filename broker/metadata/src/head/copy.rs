//! The text of a broker's own copy of the metadata: what a recovery starts from.
//!
//! A line that names the cluster, a snapshot, then entries, all as readable JSON lines. Promises: a last
//! entry that was cut short (nobody acted on it) is left out; anything else that does not fit, a kind of record
//! that is not known included, is an error, not a guess.

use super::format::{json, parse_entries};
use super::load::{TextError, parse_snapshot, snapshot_text};
use crate::features::Unsupported;
use crate::image::Image;
use leasehold_types::ClusterId;
use serde::{Deserialize, Serialize};

/// Why a copy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    #[error("it belongs to cluster {found}, not to {ours}")]
    Foreign { found: ClusterId, ours: ClusterId },
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl From<TextError> for CopyError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Unsupported(unsupported) => Self::Unsupported(unsupported),
            other => Self::Damaged(other.to_string()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct FirstLine {
    cluster_id: ClusterId,
    /// Lines of the snapshot that follows.
    snapshot_lines: usize,
}

/// The text of a copy that begins with `image`; entries may be appended to it.
pub fn copy_text(image: &Image) -> String {
    let snapshot = snapshot_text(image);
    let first = FirstLine {
        cluster_id: image.cluster_id.clone(),
        snapshot_lines: snapshot.lines().count(),
    };
    let mut text = json(&first);
    text.push('\n');
    text.push_str(&snapshot);
    text
}

/// The image, and how many bytes of `text` are good. Without `ours` any cluster's copy will do.
pub fn parse_copy(text: &str, ours: Option<&ClusterId>) -> Result<(Image, usize), CopyError> {
    let damaged = CopyError::Damaged;
    let (first, rest) = text
        .split_once('\n')
        .ok_or_else(|| damaged("it has no complete line".to_owned()))?;
    let header: FirstLine = serde_json::from_str(first).map_err(|e| damaged(e.to_string()))?;
    if let Some(ours) = ours.filter(|ours| **ours != header.cluster_id) {
        return Err(CopyError::Foreign {
            found: header.cluster_id,
            ours: ours.clone(),
        });
    }
    let lines: Vec<&str> = rest.split_inclusive('\n').collect();
    let (snapshot, mut entries) = lines
        .split_at_checked(header.snapshot_lines)
        .ok_or_else(|| damaged("its snapshot is cut short".to_owned()))?;
    let mut image = parse_snapshot(&header.cluster_id, &snapshot.concat())?;
    let mut good = first.len() + 1 + snapshot.iter().map(|l| l.len()).sum::<usize>();
    while let Some(header) = entries.first() {
        let Some(count) = records_in(header) else {
            // Not a header: the torn end of the file, or damage in its midst.
            let is_json = serde_json::from_str::<serde_json::Value>(header).is_ok();
            if entries.len() == 1 && !is_json {
                break;
            }
            let why = format!("a line that is no entry follows {good} good bytes");
            return Err(damaged(why));
        };
        let Some((block, after)) = entries.split_at_checked(count.saturating_add(1)) else {
            break;
        };
        let text = block.concat();
        match parse_entries(&text) {
            Ok(parsed) if text.ends_with('\n') => {
                for entry in &parsed {
                    image.apply(entry).map_err(TextError::from)?;
                }
            }
            Ok(_) => break,
            Err(why) if after.is_empty() && why.may_be_torn() => break,
            Err(why) => return Err(damaged(why.to_string())),
        }
        good += text.len();
        entries = after;
    }
    Ok((image, good))
}

fn records_in(header: &str) -> Option<usize> {
    #[derive(Deserialize)]
    struct Count {
        records: usize,
    }
    let count: Count = serde_json::from_str(header).ok()?;
    Some(count.records)
}
