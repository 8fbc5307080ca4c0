//! The file operations of this crate, in one place.
//!
//! Each names what it did on what in its error. Reads and writes are positional, so that readers
//! and the writer share a file without a cursor between them. Whatever changes the disk goes through
//! `seam.rs`, where tests have it fail, or the machine crash.

mod seam;
mod writer;

pub(crate) use seam::Op;
pub(crate) use writer::Writer;

use crate::LogError;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread, pwritev};
use seam::{change, has_read};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

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
    sync(&write(&tmp, content)?, &tmp)?;
    rename(&tmp, path)
}

/// Writes a whole file, without a promise for a crash: its reader checks it.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<File> {
    let file = create(path)?;
    write_at(&file, path, 0, content, &[])?;
    Ok(file)
}

/// Appends to a file that exists, and fsyncs it.
pub(crate) fn append_durably(path: &Path, content: &[u8]) -> Result<()> {
    let file = open_to_write(path)?;
    let end = file_len(&file, path)?;
    write_at(&file, path, end, content, &[])?;
    sync(&file, path)
}

/// The whole file, or `None` if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => {
            has_read(path, content.len());
            Ok(Some(content))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LogError::io("read", path, e)),
    }
}

/// A new, empty file to read and write.
pub(crate) fn create(path: &Path) -> Result<File> {
    change(Op::Create, path, || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    })
}

/// A file to read and write; a new one if there is none.
pub(crate) fn open_or_create(path: &Path) -> Result<File> {
    match exists(path)? {
        true => open_to_write(path),
        false => create(path),
    }
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
    has_read(path, into.len());
    into.truncate(len);
    Ok(())
}

/// Writes `head` and `body` at `at`, one after the other.
pub(crate) fn write_at(file: &File, path: &Path, at: u64, head: &[u8], body: &[u8]) -> Result<()> {
    let parts = [head, body];
    change(Op::Write { file, at, parts }, path, || put(file, at, parts))
}

/// The write itself.
pub(crate) fn put(file: &File, at: u64, [mut head, mut body]: [&[u8]; 2]) -> io::Result<()> {
    let mut here = at;
    while !(head.is_empty() && body.is_empty()) {
        let written = match pwritev(file, &[IoSlice::new(head), IoSlice::new(body)], here) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
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
    change(Op::SetLen { file, len }, path, || file.set_len(len))
}

/// Has a file look as if last written at `ms`, in milliseconds since 1970.
pub(crate) fn set_modified(file: &File, path: &Path, ms: i64) -> Result<()> {
    let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    change(Op::SetModified, path, || file.set_modified(time))
}

/// fsyncs what a reader needs of a file: content and length.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    change(Op::Sync(file), path, || file.sync_data())
}

/// fsyncs a folder: which files it holds.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = open(path)?;
    change(Op::SyncFolder, path, || folder.sync_all())
}

/// Creates a folder and what is above it, unless there.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    change(Op::CreateFolder, path, || std::fs::create_dir_all(path))
}

/// Renames within one folder.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    change(Op::Rename(to), from, || std::fs::rename(from, to))
}

/// Removes a file, unless it is gone already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    change(Op::Remove, path, || unless_gone(std::fs::remove_file(path)))
}

/// Removes a folder with all that is in it, unless it is gone already.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    change(Op::RemoveFolder, path, || {
        unless_gone(std::fs::remove_dir_all(path))
    })
}

fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether there is a file or a folder.
pub(crate) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| LogError::io("stat", path, e))
}

/// The names in a folder, in order; those that are not UTF-8 are none of ours. Empty if it is not there.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let failed = |e| LogError::io("list", path, e);
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A file's length.
pub(crate) fn len(path: &Path) -> Result<u64> {
    let meta = std::fs::metadata(path).map_err(|e| LogError::io("stat", path, e))?;
    Ok(meta.len())
}

/// An open file's length.
pub(crate) fn file_len(file: &File, path: &Path) -> Result<u64> {
    let meta = file.metadata().map_err(|e| LogError::io("stat", path, e))?;
    Ok(meta.len())
}

/// When a file was last written, in milliseconds since 1970.
pub(crate) fn modified_ms(path: &Path) -> Result<i64> {
    let time = std::fs::metadata(path)
        .and_then(|meta| meta.modified())
        .map_err(|e| LogError::io("stat", path, e))?;
    Ok(match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    })
}
