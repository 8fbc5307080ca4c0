//! Reading batches out of a segment, whole ones and few reads.

use super::Segment;
use crate::batch::{BatchHeader, HEADER_LEN};
use crate::scan::ScanError;
use crate::{LogError, disk};
use bytes::Bytes;
use leasehold_types::Offset;

impl Segment {
    /// The bytes of one batch.
    pub fn batch(&self, at: u64, header: &BatchHeader) -> Result<Bytes, LogError> {
        let mut bytes = Vec::new();
        disk::read_into(
            &*self.reader()?,
            &self.path,
            at,
            header.total_len(),
            &mut bytes,
        )?;
        Ok(bytes.into())
    }

    /// Whole batches from the one that holds `from`, all below `limit`; see `PartitionLog::read`.
    /// `None` if the segment ends before `from`.
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        limit: Offset,
        at_least_one: bool,
        interval: u32,
    ) -> Result<Option<Bytes>, LogError> {
        let size = self.size();
        let file = self.reader()?;
        let entry = self.find(from, interval)?;
        let mut at = u64::from(entry.position);
        // The batches between the index entry and `from` are read along: one read, as a rule.
        let slack = match self.base.0 + i64::from(entry.relative) == from.0 {
            true => 0,
            false => interval as usize,
        };
        let mut want = max_bytes.saturating_add(slack).max(1024);
        let mut buffer = Vec::new();
        loop {
            let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            disk::read_into(&file, &self.path, at, want.min(left), &mut buffer)?;
            let Some((start, first)) = self.skip_before(&buffer, at, size, from)? else {
                return Ok(None);
            };
            let Some(header) = first else {
                at += start as u64;
                continue;
            };
            let len = header.total_len();
            if header.next_offset() > limit || (len > max_bytes && !at_least_one) {
                return Ok(Some(Bytes::new()));
            }
            if start + len > buffer.len() {
                // Larger than what was read: again, from its start, and whole this time.
                at += start as u64;
                want = len.max(max_bytes);
                continue;
            }
            let end = start + whole_batches(&buffer[start..], max_bytes.max(len), limit);
            return Ok(Some(Bytes::from(buffer).slice(start..end)));
        }
    }

    /// Finds the first batch in `buffer`, which lies at `at` of the file, that ends after `from`. Its
    /// place and header; no header if another read must begin at that place; `None` at the file's end.
    fn skip_before(
        &self,
        buffer: &[u8],
        at: u64,
        size: u64,
        from: Offset,
    ) -> Result<Option<(usize, Option<BatchHeader>)>, LogError> {
        let mut start = 0;
        loop {
            let here = at + start as u64;
            if here >= size {
                return Ok(None);
            }
            let rest = buffer.get(start..).unwrap_or_default();
            if rest.len() < HEADER_LEN && start > 0 {
                return Ok(Some((start, None)));
            }
            let header =
                BatchHeader::parse(rest).map_err(|e| self.damaged(here, ScanError::Bad(e)))?;
            let len = header.total_len();
            if here + len as u64 > size {
                let what = crate::batch::BatchError::Truncated {
                    have: (size - here) as usize,
                    need: len,
                };
                return Err(self.damaged(here, ScanError::Bad(what)));
            }
            if header.next_offset() > from {
                return Ok(Some((start, Some(header))));
            }
            start += len;
        }
    }
}

/// Bytes of the whole batches at the front of `bytes` that end within `max_bytes` and `limit`.
fn whole_batches(bytes: &[u8], max_bytes: usize, limit: Offset) -> usize {
    let mut end = 0;
    while let Ok(header) = BatchHeader::parse(&bytes[end..]) {
        let next = end + header.total_len();
        if next > bytes.len() || next > max_bytes || header.next_offset() > limit {
            break;
        }
        end = next;
    }
    end
}
