//! A file written from its start in large pieces.

use super::{create, set_modified, sync, write_at};
use crate::LogError;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Enough that small batches cost few writes.
const PIECE: usize = 256 << 10;

/// What is pushed lies in the file once it is finished.
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    written: u64,
    waiting: Vec<u8>,
}

impl Writer {
    /// A new file; an old one of this name is emptied.
    pub fn create(path: PathBuf) -> Result<Self, LogError> {
        Ok(Self {
            file: create(&path)?,
            path,
            written: 0,
            waiting: Vec::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes were pushed.
    pub fn len(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// Adds `bytes` at the end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), LogError> {
        write_at(&self.file, &self.path, self.written, &self.waiting, &[])?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Writes what is left, and fsyncs all. The file looks as if last written at `modified_ms`.
    pub fn finish(mut self, modified_ms: i64) -> Result<File, LogError> {
        self.write()?;
        set_modified(&self.file, &self.path, modified_ms)?;
        sync(&self.file, &self.path)?;
        Ok(self.file)
    }
}
