//! Through here goes every call that changes the disk, so that tests can record it, or have it fail.
//!
//! Promise: outside of this crate's tests and of the simulation (no release is built with its feature)
//! nothing is left of it but the call itself.

use crate::LogError;
use std::fs::File;
use std::io;
use std::path::Path;

/// What is about to be done to a path, or to a file that was opened at it.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(any(test, feature = "simulation")),
    expect(dead_code, reason = "only tests look at what is done")
)]
pub(crate) enum Op<'a> {
    /// A new file, or an old one emptied.
    Create,
    /// Bytes put into a file, one part after the other.
    Write {
        file: &'a File,
        at: u64,
        parts: [&'a [u8]; 2],
    },
    /// A file cut off.
    SetLen { file: &'a File, len: u64 },
    /// A file's time changed.
    SetModified,
    /// A file's content made durable.
    Sync(&'a File),
    /// Which files a folder holds made durable.
    SyncFolder,
    /// A name changed to another in the same folder.
    Rename(&'a Path),
    /// A file's name removed.
    Remove,
    /// A new folder, with those above it.
    CreateFolder,
    /// A folder removed with all that is in it.
    RemoveFolder,
}

impl Op<'_> {
    /// The word for it in an error: "cannot <action> <path>".
    pub fn action(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write { .. } => "write",
            Self::SetLen { .. } => "truncate",
            Self::SetModified => "set the time of",
            Self::Sync(_) | Self::SyncFolder => "fsync",
            Self::Rename(_) => "rename",
            Self::Remove | Self::RemoveFolder => "remove",
            Self::CreateFolder => "create the folder",
        }
    }
}

/// Does what `op` says of `path`, by calling `run`.
#[cfg(not(any(test, feature = "simulation")))]
#[inline(always)]
pub(crate) fn change<T>(
    op: Op<'_>,
    path: &Path,
    run: impl FnOnce() -> io::Result<T>,
) -> Result<T, LogError> {
    run().map_err(|e| LogError::io(op.action(), path, e))
}

/// That bytes of `path` were read.
#[cfg(not(any(test, feature = "simulation")))]
#[inline(always)]
pub(crate) fn has_read(_path: &Path, _bytes: usize) {}

#[cfg(any(test, feature = "simulation"))]
pub(crate) fn change<T>(
    op: Op<'_>,
    path: &Path,
    run: impl FnOnce() -> io::Result<T>,
) -> Result<T, LogError> {
    match crate::faults::disk_of(path) {
        Some(disk) => disk.change(op, path, run),
        None => run().map_err(|e| LogError::io(op.action(), path, e)),
    }
}

#[cfg(any(test, feature = "simulation"))]
pub(crate) fn has_read(path: &Path, bytes: usize) {
    if let Some(disk) = crate::faults::disk_of(path) {
        disk.has_read(bytes);
    }
}
