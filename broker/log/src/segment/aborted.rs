//! The aborted transactions of a segment: in memory until the segment is sealed, then in its file.

use super::{Aborted, Segment, TXN_INDEX};
use crate::aborted::{self, AbortedTxn};
use crate::{LogError, disk};
use leasehold_types::Offset;

impl Segment {
    /// A marker in this segment aborted a transaction.
    pub fn note_aborted(&self, txn: AbortedTxn) {
        if let Aborted::Memory(all) = &mut *self.aborted.write() {
            all.push(txn);
        }
    }

    /// The aborted transactions are these; they go into the file with the index.
    pub fn set_aborted(&self, all: Vec<AbortedTxn>) {
        *self.aborted.write() = Aborted::Memory(all);
    }

    /// Reads the file of a segment that stays in memory; whether it is sound.
    pub fn load_aborted(&self) -> Result<bool, LogError> {
        let content = disk::read_if_there(&self.path.with_extension(TXN_INDEX))?;
        let all = match content {
            Some(content) => aborted::decode(&content),
            None => Some(Vec::new()),
        };
        let sound = all.is_some();
        self.set_aborted(all.unwrap_or_default());
        Ok(sound)
    }

    /// Looks at the aborted transactions, in the order of their markers. `None` if the file that has them
    /// is damaged.
    pub fn look_aborted<R>(
        &self,
        look: impl FnOnce(&[AbortedTxn]) -> R,
    ) -> Result<Option<R>, LogError> {
        if let Aborted::Memory(all) = &*self.aborted.read() {
            return Ok(Some(look(all)));
        }
        let Some(content) = disk::read_if_there(&self.path.with_extension(TXN_INDEX))? else {
            // So it is not asked for again.
            let mut aborted = self.aborted.write();
            if matches!(&*aborted, Aborted::Disk) {
                *aborted = Aborted::Memory(Vec::new());
            }
            return Ok(Some(look(&[])));
        };
        Ok(aborted::decode(&content).map(|all| look(&all)))
    }

    /// Forgets those of `all` whose marker lies at `end` or after.
    pub fn cut_aborted(&self, mut all: Vec<AbortedTxn>, end: Offset) {
        all.retain(|txn| txn.last_offset < end);
        self.set_aborted(all);
    }

    /// Writes the file, fsynced, or sees to it that there is none.
    pub(super) fn save_aborted(&self) -> Result<(), LogError> {
        let path = self.path.with_extension(TXN_INDEX);
        match &*self.aborted.read() {
            Aborted::Memory(all) if all.is_empty() => disk::remove(&path),
            Aborted::Memory(all) => disk::replace(&path, &aborted::encode(all)),
            Aborted::Disk => Ok(()),
        }
    }

    /// The file is whole: gives up the memory, if that is any.
    pub(super) fn settle_aborted(&self) {
        let mut aborted = self.aborted.write();
        if matches!(&*aborted, Aborted::Memory(all) if !all.is_empty()) {
            *aborted = Aborted::Disk;
        }
    }
}
