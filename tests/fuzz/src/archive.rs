//! A partition's folder, or a log directory, as one run of bytes: what the targets of the disk take.
//!
//! `[flags] ([kind] [number] [length u16] [content])*`; the last content may be shorter. Any bytes are an
//! archive. Promise: what [`Archive::encode`] writes, [`Archive::decode`] reads back. Checksums that a
//! fuzzer cannot guess are put right by [`Archive::mend`], so that what lies behind them is reached.

use std::fs;
use std::io;
use std::path::Path;

/// Which file it is. Most are named after an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Log,
    Index,
    TimeIndex,
    Snapshot,
    Epochs,
    RecoveryPoint,
    LogStart,
    CleanedTo,
    /// `<base>.<end>.swap`; the base is the number's upper four bits.
    Swap,
    Cleaned,
    Run,
    Meta,
    HighWatermarks,
    TxnIndex,
}

const KINDS: [Kind; 14] = [
    Kind::Log,
    Kind::Index,
    Kind::TimeIndex,
    Kind::Snapshot,
    Kind::Epochs,
    Kind::RecoveryPoint,
    Kind::LogStart,
    Kind::CleanedTo,
    Kind::Swap,
    Kind::Cleaned,
    Kind::Run,
    Kind::Meta,
    Kind::HighWatermarks,
    Kind::TxnIndex,
];

/// A file and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub kind: Kind,
    /// The offset in its name.
    pub number: u8,
    pub content: Vec<u8>,
}

/// Files, and what a target is to do with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    pub flags: u8,
    pub files: Vec<File>,
}

impl File {
    /// The file's name.
    pub fn name(&self) -> String {
        let n = self.number;
        match self.kind {
            Kind::Log => format!("{n:020}.log"),
            Kind::Index => format!("{n:020}.index"),
            Kind::TimeIndex => format!("{n:020}.timeindex"),
            Kind::Snapshot => format!("{n:020}.snapshot"),
            Kind::TxnIndex => format!("{n:020}.txnindex"),
            Kind::Epochs => "leader-epoch-checkpoint".into(),
            Kind::RecoveryPoint => "recovery-point".into(),
            Kind::LogStart => "log-start".into(),
            Kind::CleanedTo => "cleaned-to".into(),
            Kind::Swap => format!("{:020}.{:020}.swap", n >> 4, (n >> 4) + (n & 15)),
            Kind::Cleaned => format!("{n:020}.cleaned"),
            Kind::Run => "run".into(),
            Kind::Meta => "meta".into(),
            Kind::HighWatermarks => "high-watermarks".into(),
        }
    }

    /// Whether it lies in the log directory, beside the partitions.
    pub fn is_of_directory(&self) -> bool {
        matches!(self.kind, Kind::Run | Kind::Meta | Kind::HighWatermarks)
    }

    /// The file of this name, if it is one that an archive can hold.
    pub fn named(name: &str, content: Vec<u8>) -> Option<Self> {
        let all = KINDS
            .iter()
            .flat_map(|kind| (0..=u8::MAX).map(|n| (*kind, n)));
        for (kind, number) in all {
            let file = Self {
                kind,
                number,
                content: Vec::new(),
            };
            if file.name() == name {
                return Some(Self { content, ..file });
            }
        }
        None
    }
}

impl Archive {
    /// Reads an archive; every run of bytes is one.
    pub fn decode(data: &[u8]) -> Self {
        let Some((flags, mut rest)) = data.split_first() else {
            return Self::default();
        };
        let mut files = Vec::new();
        while let Some(([kind, number, high, low], more)) = rest.split_first_chunk::<4>() {
            let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
            let (content, more) = more.split_at(len);
            files.push(File {
                kind: KINDS[usize::from(*kind) % KINDS.len()],
                number: *number,
                content: content.to_vec(),
            });
            rest = more;
        }
        Self {
            flags: *flags,
            files,
        }
    }

    /// The bytes that [`Archive::decode`] reads back. A content above 64 KiB is cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.flags];
        for file in &self.files {
            let kind = KINDS.iter().position(|kind| *kind == file.kind);
            let len = u16::try_from(file.content.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[kind.unwrap_or(0) as u8, file.number]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&file.content[..usize::from(len)]);
        }
        out
    }

    /// Puts the checksums of batches, snapshots and indexes of aborted transactions right.
    pub fn mend(&mut self) {
        for file in &mut self.files {
            match file.kind {
                Kind::Log | Kind::Swap | Kind::Cleaned => mend_batches(&mut file.content),
                Kind::Snapshot if file.content.len() >= 8 => {
                    let crc = crc32c::crc32c(&file.content[8..]);
                    file.content[4..8].copy_from_slice(&crc.to_be_bytes());
                }
                Kind::TxnIndex if file.content.len() >= 4 => {
                    let end = file.content.len() - 4;
                    let (entries, stored) = file.content.split_at_mut(end);
                    stored.copy_from_slice(&crc32c::crc32c(entries).to_be_bytes());
                }
                _ => {}
            }
        }
    }

    /// Writes the files that `chosen` picks into `folder`.
    pub fn write(&self, folder: &Path, chosen: impl Fn(&File) -> bool) -> io::Result<()> {
        for file in self.files.iter().filter(|file| chosen(file)) {
            fs::write(folder.join(file.name()), &file.content)?;
        }
        Ok(())
    }
}

/// Puts the CRC of each batch right, as far as the lengths make sense.
pub(crate) fn mend_batches(mut bytes: &mut [u8]) {
    while let Some(len) = bytes.get(8..12).and_then(|len| len.first_chunk::<4>()) {
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            return;
        };
        let Some((batch, rest)) = bytes.split_at_mut_checked(len.saturating_add(12)) else {
            return;
        };
        if batch.len() < 21 {
            return;
        }
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_back_as_it_was_written() {
        let archive = Archive {
            flags: 7,
            files: vec![
                File::named("00000000000000000012.log", b"abc".to_vec()).unwrap(),
                File::named("recovery-point", Vec::new()).unwrap(),
            ],
        };
        assert_eq!(Archive::decode(&archive.encode()), archive);
        assert_eq!(File::named("other", Vec::new()), None);
    }
}
