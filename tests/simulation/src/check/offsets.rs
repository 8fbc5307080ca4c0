//! The records of `__consumer_offsets`, read by Kafka's documentation of them, not by the product's code.

use crate::groups::protocol::Reader;
use std::collections::{BTreeMap, BTreeSet};

/// Of which group, topic and partition an offset is.
pub type Slot = (String, String, i32);

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The offset, and the commit's id, which the client wrote into its metadata.
    Offset(Slot, i64, String),
    /// The offset is removed.
    Removed(Slot),
    /// A group in a generation.
    Group(String, i32),
    /// A group is deleted.
    Gone(String),
}

impl Meaning {
    /// The offset that it is about.
    pub fn slot(&self) -> Option<&Slot> {
        match self {
            Self::Offset(slot, ..) | Self::Removed(slot) => Some(slot),
            Self::Group(..) | Self::Gone(_) => None,
        }
    }
}

/// What the record with this key and value says.
pub fn meaning(key: &[u8], value: Option<&[u8]>) -> Option<Meaning> {
    let mut key = Reader(key);
    match (key.short()?, value.map(Reader)) {
        (0 | 1, value) => {
            let slot = (key.text()?, key.text()?, key.int()?);
            let Some(mut value) = value else {
                return Some(Meaning::Removed(slot));
            };
            let version = value.short()?;
            let offset = value.long()?;
            if version >= 3 {
                value.int()?;
            }
            Some(Meaning::Offset(slot, offset, value.text()?))
        }
        (2, Some(mut value)) => {
            value.short()?;
            value.text()?;
            Some(Meaning::Group(key.text()?, value.int()?))
        }
        (2, None) => Some(Meaning::Gone(key.text()?)),
        _ => None,
    }
}

/// All records that were ever written, by the number that stands for them in the logs.
#[derive(Debug, Default)]
pub struct Records {
    all: BTreeMap<u64, Meaning>,
    by_commit: BTreeMap<(Slot, String), BTreeSet<u64>>,
}

impl Records {
    /// A record was written to some log.
    pub fn written(&mut self, number: u64, key: &[u8], value: Option<&[u8]>) {
        let Some(meaning) = meaning(key, value) else {
            return;
        };
        if let Meaning::Offset(slot, _, id) = &meaning {
            let commit = (slot.clone(), id.clone());
            self.by_commit.entry(commit).or_default().insert(number);
        }
        self.all.insert(number, meaning);
    }

    /// What the record of this number says.
    pub fn get(&self, number: u64) -> Option<&Meaning> {
        self.all.get(&number)
    }

    /// The numbers of the records of one offset of one commit.
    pub fn of_commit(&self, slot: &Slot, id: &str) -> BTreeSet<u64> {
        let commit = (slot.clone(), id.to_owned());
        self.by_commit.get(&commit).cloned().unwrap_or_default()
    }
}
