//! The files of a whole log directory, and then its partitions.

use super::{Finding, Tell, content, damage, note, partition};
use crate::dir::marks::{self, MARKS};
use crate::dir::meta::{self, META};
use crate::dir::moving::{parse_future, parse_left};
use crate::dir::run::{self, RUN};
use crate::dir::{REMOVED, parse_folder};
use crate::{LogError, disk};
use leasehold_types::Offset;
use std::collections::HashMap;
use std::path::Path;

/// Whether these are the names in a log directory.
pub(super) fn is_one(names: &[String]) -> bool {
    let own = [META, RUN, MARKS];
    names
        .iter()
        .any(|n| own.contains(&n.as_str()) || parse_folder(n).is_some())
}

pub(super) fn inspect(
    path: &Path,
    mut names: Vec<String>,
    tell: &mut Tell<'_>,
) -> Result<(), LogError> {
    names.sort();
    tell(Finding::Directory(path));
    owner(&path.join(META), tell);
    let clean = last_run(&path.join(RUN), tell);
    let marks = high_watermarks(&path.join(MARKS), tell);
    for name in &names {
        let folder = path.join(name);
        if parse_folder(name).is_some() {
            let held = partition::inspect(&folder, disk::names(&folder)?, clean, tell)?;
            if let Some(mark) = marks.get(name).filter(|mark| **mark > held) {
                let what = format!("its high watermark was {mark}, and it ends at {held}");
                note(tell, &folder, what);
            }
        } else if name.ends_with(REMOVED) {
            note(
                tell,
                &folder,
                "a deleted partition: the next start removes it",
            );
        } else if let Some((id, target)) = parse_left(name) {
            let what = format!(
                "{}-{} lies in directory {target} now: the next start removes this",
                id.0, id.1
            );
            note(tell, &folder, what);
        } else if parse_future(name).is_some() {
            note(
                tell,
                &folder,
                "a copy of a partition that was on its way here: the next start removes it, or completes the move",
            );
        }
    }
    Ok(())
}

fn owner(path: &Path, tell: &mut Tell<'_>) {
    let Some(content) = content(path, tell) else {
        return note(tell, path, "there is none: no broker has begun to use it");
    };
    match meta::parse(&content) {
        Ok((cluster, broker, directory)) => tell(Finding::Owner {
            cluster,
            broker,
            directory,
        }),
        Err((at, what)) => damage(tell, path, at, what),
    }
}

/// Tells what the `run` file says; whether the last life closed in order.
fn last_run(path: &Path, tell: &mut Tell<'_>) -> bool {
    let Some(content) = content(path, tell) else {
        note(tell, path, "there is none: the next start counts as a loss");
        return false;
    };
    match run::parse(&content) {
        Ok((confirmed, attempted)) => {
            let clean = confirmed.as_ref().is_some_and(|life| life.clean);
            tell(Finding::Run {
                confirmed,
                attempted,
            });
            clean
        }
        Err((at, what)) => {
            damage(
                tell,
                path,
                at,
                format!("{what}: the next start counts as a loss"),
            );
            false
        }
    }
}

/// By the folder's name.
fn high_watermarks(path: &Path, tell: &mut Tell<'_>) -> HashMap<String, Offset> {
    let mut marks = HashMap::new();
    let Some(content) = content(path, tell) else {
        return marks;
    };
    let mut at = 0;
    for (i, line) in content.split_inclusive(|&b| b == b'\n').enumerate() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match (i, marks::parse(text)) {
            (0, _) if marks::is_title(text) => {}
            (0, _) => {
                damage(
                    tell,
                    path,
                    0,
                    "it does not begin with its title: none of it counts",
                );
                break;
            }
            (_, Some(((topic, partition), offset))) => {
                let partition = format!("{topic}-{partition}");
                marks.insert(partition.clone(), offset);
                tell(Finding::HighWatermark { partition, offset });
            }
            (_, None) => damage(tell, path, at, "the line is damaged: it does not count"),
        }
        at += line.len() as u64;
    }
    marks
}
