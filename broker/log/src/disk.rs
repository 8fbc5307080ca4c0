//! The file operations of this crate, in one place.
//!
//! Each names what it did on what in its error. Reads and writes are positional, so that readers
//! and the writer share a file without a cursor between them.

use crate::LogError;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread, pwritev};
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write as _};
use std::path::Path;

type Result<T> = std::result::Result<T, LogError>;

/// Replaces the file at `path` by `content` so that a crash leaves the old or the new, whole:
/// writes a neighbour, fsyncs it, renames it, fsyncs the folder.
pub fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// As [`write_durably`], but a power cut may leave the old content.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    let mut file = File::create(&tmp).map_err(|e| LogError::io("create", &tmp, e))?;
    file.write_all(content)
        .map_err(|e| LogError::io("write", &tmp, e))?;
    sync(&file, &tmp)?;
    rename(&tmp, path)
}

/// Writes a whole file, without a promise for a crash: its reader checks it.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<File> {
    let mut file = File::create(path).map_err(|e| LogError::io("create", path, e))?;
    file.write_all(content)
        .map_err(|e| LogError::io("write", path, e))?;
    Ok(file)
}

/// Appends to a file that exists, and fsyncs it.
pub(crate) fn append_durably(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(|e| LogError::io("open", path, e))?;
    file.write_all(content)
        .map_err(|e| LogError::io("append to", path, e))?;
    sync(&file, path)
}

/// The whole file, or `None` if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LogError::io("read", path, e)),
    }
}

/// A new, empty file to read and write.
pub(crate) fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|e| LogError::io("create", path, e))
}

/// A file to read and write.
pub(crate) fn open_to_write(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| LogError::io("open", path, e))
}

/// A file to read.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| LogError::io("open", path, e))
}

/// Reads up to `len` bytes at `at` in place of what `into` held; less only at the file's end. The
/// memory is not cleared first, so the only copy is the kernel's.
pub(crate) fn read_into(
    file: &File,
    path: &Path,
    at: u64,
    len: usize,
    into: &mut Vec<u8>,
) -> Result<()> {
    into.clear();
    into.reserve_exact(len);
    while into.len() < len {
        let here = at + into.len() as u64;
        // The allocator may have given more room than asked for.
        match pread(file, spare_capacity(into), here) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(e) => return Err(LogError::io("read", path, e)),
        }
    }
    into.truncate(len);
    Ok(())
}

/// Writes `head` and `body` at `at`, one after the other.
pub(crate) fn write_at(
    file: &File,
    path: &Path,
    at: u64,
    mut head: &[u8],
    mut body: &[u8],
) -> Result<()> {
    let mut here = at;
    while !(head.is_empty() && body.is_empty()) {
        let written = match pwritev(file, &[IoSlice::new(head), IoSlice::new(body)], here) {
            Ok(0) => {
                let full = std::io::Error::from(std::io::ErrorKind::WriteZero);
                return Err(LogError::io("write", path, full));
            }
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(LogError::io("write", path, e)),
        };
        here += written as u64;
        let of_head = written.min(head.len());
        head = &head[of_head..];
        body = &body[written - of_head..];
    }
    Ok(())
}

/// Shortens a file.
pub(crate) fn shorten(file: &File, path: &Path, len: u64) -> Result<()> {
    file.set_len(len)
        .map_err(|e| LogError::io("truncate", path, e))
}

/// fsyncs what a reader needs of a file: content and length.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map_err(|e| LogError::io("fsync", path, e))
}

/// fsyncs a folder: which files it holds.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = open(path)?;
    folder
        .sync_all()
        .map_err(|e| LogError::io("fsync", path, e))
}

/// Creates a folder and what is above it, unless there.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| LogError::io("create the folder", path, e))
}

/// Renames within one folder.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| LogError::io("rename", from, e))
}

/// Removes a file, unless it is gone already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(LogError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it, unless it is gone already.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(LogError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// The names in a folder; those that are not UTF-8 are none of ours. Empty if it is not there.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let failed = |e| LogError::io("list", path, e);
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file's length.
pub(crate) fn len(path: &Path) -> Result<u64> {
    let meta = std::fs::metadata(path).map_err(|e| LogError::io("stat", path, e))?;
    Ok(meta.len())
}

/// When a file was last written, in milliseconds since 1970.
pub(crate) fn modified_ms(path: &Path) -> Result<i64> {
    let time = std::fs::metadata(path)
        .and_then(|meta| meta.modified())
        .map_err(|e| LogError::io("stat", path, e))?;
    Ok(match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    })
}
