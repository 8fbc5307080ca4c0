//! A copy of a log's folder, made while the log is written to: in passes, of which each copies what changed since the one
//! before, until the last one, made while nothing changes, has little to do.
//!
//! What counts of a segment is what the log says that it holds, as behind that there may be half an append. A file
//! that grew is copied from where the copy ends, unless something was cut off or rewritten meanwhile: then what is in
//! question is copied anew. After each pass what it copied is on the disk.

use crate::segment::{CLEANED, DELETED, LOG, SWAP};
use crate::{LogError, PartitionLog, disk};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Read and written at a time.
const PIECE: usize = 1 << 20;
/// The clock of files is so coarse at most.
const GRAIN: Duration = Duration::from_secs(1);

/// Which of the two folders an error is of.
#[derive(Debug)]
pub(crate) enum Side {
    From(LogError),
    To(LogError),
    /// Nobody wants the copy any more.
    Stopped,
}

/// What a file was when it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    inode: u64,
    len: u64,
    modified: SystemTime,
}

/// The copy, and what is known to be in it.
pub(crate) struct FolderCopy {
    to: PathBuf,
    known: BTreeMap<String, Known>,
    /// The log's generation at the last pass, and when that began.
    generation: u64,
    looked_at: SystemTime,
}

/// Asked before each piece of so many bytes; `false` ends the copy. It may wait.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(u64) -> bool;

impl FolderCopy {
    /// An empty folder at `to`, in place of whatever is there.
    pub fn begin(to: PathBuf) -> Result<Self, LogError> {
        disk::remove_folder(&to)?;
        disk::create_folder(&to)?;
        if let Some(parent) = to.parent() {
            disk::sync_folder(parent)?;
        }
        Ok(Self {
            to,
            known: BTreeMap::new(),
            generation: 0,
            looked_at: UNIX_EPOCH,
        })
    }

    /// Copies what changed since the last pass; returns how many bytes that was.
    pub fn pass(&mut self, log: &PartitionLog, pace: Pace<'_>) -> Result<u64, Side> {
        let began = SystemTime::now();
        let (segments, generation) = log.files();
        let sizes: BTreeMap<String, u64> = segments.into_iter().collect();
        let same = generation == self.generation;
        let names = disk::names(log.folder()).map_err(Side::From)?;
        let names: Vec<String> = names.into_iter().filter(|name| is_kept(name)).collect();
        let mut copied = 0;
        for name in &names {
            // A segment that the log does not know is on its way out, or has just begun.
            let size = match (sizes.get(name), name.ends_with(LOG)) {
                (None, true) => continue,
                (size, _) => size.copied(),
            };
            copied += self.file(log.folder(), name, size, same, pace)?;
        }
        self.drop_others(&names)?;
        if copied > 0 || !same {
            disk::sync_folder(&self.to).map_err(Side::To)?;
        }
        (self.generation, self.looked_at) = (generation, began);
        Ok(copied)
    }

    /// One file, of which `size` bytes count, or all.
    fn file(
        &mut self,
        folder: &Path,
        name: &str,
        size: Option<u64>,
        same: bool,
        pace: Pace<'_>,
    ) -> Result<u64, Side> {
        let from = folder.join(name);
        let Some(meta) = metadata(&from).map_err(Side::From)? else {
            return Ok(0);
        };
        let now = known_of(&meta, size);
        let before = self.known.get(name).copied();
        let settled = |known: Known| same || known.modified + GRAIN < self.looked_at;
        let at = match before {
            Some(known) if known == now && settled(known) => return Ok(0),
            Some(known)
                if known.inode == now.inode && known.len <= now.len && same && size.is_some() =>
            {
                known.len
            }
            _ => 0,
        };
        self.known.remove(name);
        if copy(
            &from,
            &self.to.join(name),
            (at, now.len),
            now.modified,
            pace,
        )? {
            self.known.insert(name.to_owned(), now);
        }
        Ok(now.len - at)
    }

    /// Removes what the log has no more.
    fn drop_others(&mut self, names: &[String]) -> Result<(), Side> {
        for name in disk::names(&self.to).map_err(Side::To)? {
            if !names.contains(&name) || !self.known.contains_key(&name) {
                disk::remove(&self.to.join(&name)).map_err(Side::To)?;
                self.known.remove(&name);
            }
        }
        Ok(())
    }

    /// Removes all that was copied.
    pub fn give_up(self) -> Result<(), LogError> {
        disk::remove_folder(&self.to)
    }
}

/// Files that are half-made, or on their way out, are none of the log's.
fn is_kept(name: &str) -> bool {
    let suffix = name.rsplit_once('.').map(|(_, suffix)| suffix);
    !suffix.is_some_and(|suffix| ["tmp", DELETED, CLEANED, SWAP].contains(&suffix))
}

fn known_of(meta: &Metadata, size: Option<u64>) -> Known {
    Known {
        inode: meta.ino(),
        len: size.unwrap_or(meta.len()).min(meta.len()),
        modified: meta.modified().unwrap_or(UNIX_EPOCH),
    }
}

/// None if there is no such file (any more).
fn metadata(path: &Path) -> Result<Option<Metadata>, LogError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LogError::io("stat", path, e)),
    }
}

/// Copies the bytes from the first of `range` to the second, and the time. False if the file went meanwhile.
fn copy(
    from: &Path,
    to: &Path,
    (mut at, end): (u64, u64),
    modified: SystemTime,
    pace: Pace<'_>,
) -> Result<bool, Side> {
    let source = match std::fs::File::open(from) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Side::From(LogError::io("open", from, e))),
    };
    let target = match at {
        0 => disk::create(to),
        _ => disk::open_to_write(to),
    };
    let target = target.map_err(Side::To)?;
    let mut piece = Vec::new();
    while at < end {
        let wanted = (end - at).min(PIECE as u64);
        if !pace(wanted) {
            return Err(Side::Stopped);
        }
        // A piece is at most `PIECE`, which is a usize.
        disk::read_into(&source, from, at, wanted as usize, &mut piece).map_err(Side::From)?;
        if piece.is_empty() {
            // It was cut off meanwhile: the next pass finds that out.
            return Ok(false);
        }
        disk::write_at(&target, to, at, &piece, &[]).map_err(Side::To)?;
        at += piece.len() as u64;
    }
    disk::sync(&target, to).map_err(Side::To)?;
    let ms = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(ms.as_millis()).unwrap_or(i64::MAX);
    disk::set_modified(&target, to, ms).map_err(Side::To)?;
    Ok(true)
}
