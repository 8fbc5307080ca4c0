//! Walks the batches of a segment's file, header by header, with bounded memory.
//!
//! A length in a torn or hostile file sizes nothing: the window is fixed, and the CRC of a batch
//! is taken window by window.

use crate::batch::{Batch, BatchError, BatchHeader, CRC_START, HEADER_LEN};
use crate::{LogError, disk};
use bytes::Bytes;
use std::fs::File;
use std::path::Path;

/// Enough for many small batches per read; the rest of a large batch is skipped unread.
const WINDOW: usize = 256 << 10;

/// Why a walk ended before the end.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The system refused to read.
    Io(LogError),
    /// There is no intact batch at the position.
    Bad(BatchError),
}

/// A walk over the batches between two positions of a file.
pub(crate) struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scan<'a> {
    /// From `at`, where a batch begins, to `end`.
    pub fn new(file: &'a File, path: &'a Path, at: u64, end: u64) -> Self {
        Self {
            file,
            path,
            at,
            end,
            window: Vec::new(),
            window_at: at,
        }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next batch's position and header; `None` at the end. It lies within the end wholly.
    pub fn next_header(&mut self) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let bytes = self.bytes(at, HEADER_LEN)?;
        let header = BatchHeader::parse(bytes).map_err(ScanError::Bad)?;
        let have = (self.end - at) as usize;
        let need = header.total_len();
        if need > have {
            return Err(ScanError::Bad(BatchError::Truncated { have, need }));
        }
        self.at += need as u64;
        Ok(Some((at, header)))
    }

    /// Checks the CRC of the batch that [`Scan::next_header`] gave.
    pub fn check_crc(&mut self, at: u64, header: &BatchHeader) -> Result<(), ScanError> {
        let end = at + header.total_len() as u64;
        let mut from = at + CRC_START as u64;
        let mut computed = 0;
        while from < end {
            let want = (end - from).min(WINDOW as u64) as usize;
            let bytes = self.bytes(from, want)?;
            let bytes = &bytes[..want.min(bytes.len())];
            if bytes.is_empty() {
                let (have, need) = ((from - at) as usize, header.total_len());
                return Err(ScanError::Bad(BatchError::Truncated { have, need }));
            }
            computed = crc32c::crc32c_append(computed, bytes);
            from += bytes.len() as u64;
        }
        if computed != header.crc {
            let stored = header.crc;
            return Err(ScanError::Bad(BatchError::Crc { stored, computed }));
        }
        Ok(())
    }

    /// All bytes of the batch that [`Scan::next_header`] gave, its CRC checked.
    pub fn batch(&mut self, at: u64, header: &BatchHeader) -> Result<Batch, ScanError> {
        let len = header.total_len();
        let bytes = match len <= WINDOW {
            true => {
                let there = self.bytes(at, len)?;
                Bytes::copy_from_slice(&there[..len.min(there.len())])
            }
            false => {
                let mut whole = Vec::new();
                disk::read_into(self.file, self.path, at, len, &mut whole)
                    .map_err(ScanError::Io)?;
                whole.into()
            }
        };
        header.check_crc(&bytes).map_err(ScanError::Bad)?;
        Ok(Batch {
            header: *header,
            bytes,
        })
    }

    /// The bytes at `at`: `want` of them or more, less only at the file's end.
    fn bytes(&mut self, at: u64, want: usize) -> Result<&[u8], ScanError> {
        let covered =
            at >= self.window_at && at + want as u64 <= self.window_at + self.window.len() as u64;
        if !covered {
            disk::read_into(self.file, self.path, at, WINDOW, &mut self.window)
                .map_err(ScanError::Io)?;
            self.window_at = at;
        }
        Ok(&self.window[(at - self.window_at) as usize..])
    }
}
