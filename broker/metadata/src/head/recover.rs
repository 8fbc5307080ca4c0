//! A head from the brokers' own copies, after the head was lost or put back to an older state.
//!
//! Promises: the copy that counts holds everything that any known broker acted on, unless people name
//! another; the new head is ahead of all that was ever seen (controller epoch, seq, leader epochs,
//! partition epochs, producer ids), so that every broker takes it in by its usual rules and no stale leader
//! can be believed; it is written only over the very head that was judged; and it is recorded, as the first
//! entry of its line. What a copy does not know (it is older than some broker's) stays lost, which is why
//! the brokers that do not tell theirs are named and waited for.

use super::chunks::store;
use super::format::{EntryHeader, Head, TailEntry, entry_text};
use super::load::{LoadError, load, snapshot_text};
use super::plan::{difference, to_data};
use crate::image::{Claim, ClaimId, Image, Position};
use crate::records::{Entry, Record};
use crate::store::{Chunk, PatchError, Store, StoreError, random_nonce};
use leasehold_types::{BrokerId, ControllerEpoch, Incarnation, Seq};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far all epochs, and the seq, go beyond what was seen: a broker may have gone on unseen.
pub const JUMP: i32 = 1_024;
/// Producer ids that may have been given out unseen.
pub const PRODUCER_ID_JUMP: i64 = 1_000_000;

/// Whose copy is to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The one that all others lead to.
    Newest,
    /// This broker's, whatever others hold.
    From(BrokerId),
}

impl std::str::FromStr for Wish {
    type Err = String;

    /// `newest`, or a broker's number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "newest" => Ok(Self::Newest),
            number => number
                .parse()
                .map(|id| Self::From(BrokerId(id)))
                .map_err(|_| format!("{text:?} is neither \"newest\" nor a broker's number")),
        }
    }
}

/// Why nothing is recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no broker has a copy of the metadata")]
    NoCopy,
    #[error(
        "brokers {0:?} have not told their copies, one of which may be the newest: bring them back, or name the broker whose copy shall count"
    )]
    Missing(Vec<i32>),
    #[error("broker {0} has no copy of the metadata")]
    NoSuchCopy(i32),
    #[error(
        "the copies do not lie on one line ({0}): name the broker whose copy shall count; what only others hold is lost"
    )]
    Forked(String),
    #[error("the head holds all that broker {0}'s copy holds: there is nothing to recover")]
    NotBehind(i32),
}

/// Chooses the copy. `expected` are brokers that should have one, beyond those that the copies name.
pub fn choose(
    copies: &BTreeMap<BrokerId, Image>,
    expected: &BTreeSet<BrokerId>,
    wish: Wish,
) -> Result<BrokerId, Refused> {
    let told: BTreeMap<BrokerId, &Image> = copies
        .iter()
        .filter(|(_, image)| image.position.seq > Seq(0))
        .map(|(id, image)| (*id, image))
        .collect();
    if let Wish::From(broker) = wish {
        let found = told.contains_key(&broker);
        return found.then_some(broker).ok_or(Refused::NoSuchCopy(broker.0));
    }
    if told.is_empty() {
        return Err(Refused::NoCopy);
    }
    let named = told
        .values()
        .flat_map(|image| image.brokers.keys().copied());
    let wanted: BTreeSet<BrokerId> = named.chain(expected.iter().copied()).collect();
    // A broker that answered, but never had a copy, never acted on anything.
    let missing: Vec<i32> = wanted
        .into_iter()
        .filter(|id| !copies.contains_key(id))
        .map(|id| id.0)
        .collect();
    if !missing.is_empty() {
        return Err(Refused::Missing(missing));
    }
    let newest = told.iter().find(|(_, image)| {
        let mut others = told.values();
        others.all(|other| image.leads_through(&other.position))
    });
    newest.map(|(id, _)| *id).ok_or_else(|| {
        let show = |(id, image): (&BrokerId, &&Image)| format!("{id}: {}", image.position);
        Refused::Forked(told.iter().map(show).collect::<Vec<_>>().join("; "))
    })
}

/// The head that a recovery replaces.
#[derive(Clone, Debug)]
pub struct OldHead {
    pub uid: String,
    pub head: Head,
    /// What it adds up to; `None` if its chunks are not all there, or do not fit.
    pub image: Option<Arc<Image>>,
}

impl OldHead {
    /// Reads it by a quorum read; `None` if there is none. Only a head that nobody can read, or a store
    /// that does not answer, is an error.
    pub async fn read(store: &dyn Store) -> Result<Option<Self>, LoadError> {
        match load(store).await {
            Ok(loaded) => Ok(Some(Self {
                uid: loaded.uid,
                head: loaded.head,
                image: Some(loaded.image),
            })),
            Err(LoadError::NoHead(_)) => Ok(None),
            Err(LoadError::Chunk(_) | LoadError::Missing { .. } | LoadError::Broken { .. }) => {
                let Some(object) = store.read_head().await? else {
                    return Ok(None);
                };
                Ok(Some(Self {
                    head: Head::parse(&object)?,
                    uid: object.uid,
                    image: None,
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Where it stands; of its claim only the epoch is known for certain.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.head.epoch,
            claim_id: self
                .image
                .as_ref()
                .map_or(ClaimId(0), |image| image.position.claim_id),
            seq: self.head.seq,
        }
    }

    /// Refuses to be replaced by `source`, the copy of `broker`, if it holds all of it.
    pub fn check_behind(&self, broker: BrokerId, source: &Image) -> Result<(), Refused> {
        match &self.image {
            Some(image) if image.leads_through(&source.position) => {
                Err(Refused::NotBehind(broker.0))
            }
            _ => Ok(()),
        }
    }
}

/// A recovered head, ready to be written.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// To be created first.
    pub chunks: Vec<Chunk>,
    pub head: Head,
    /// What the head adds up to.
    pub image: Image,
}

/// Plans the head from `source`, beyond all of `seen`. `reason` is recorded, for people.
pub fn plan(source: &Image, seen: &[Position], reason: &str) -> Result<Recovered, String> {
    let all = || seen.iter().chain(std::iter::once(&source.position));
    let jump = u64::from(JUMP.unsigned_abs());
    let last_epoch = all().map(|p| p.epoch.0).max().unwrap_or(0);
    let epoch = ControllerEpoch(last_epoch.saturating_add(i64::from(JUMP)));
    let last_seq = all().map(|p| p.seq.0).max().unwrap_or(0);
    let base = Seq(last_seq.saturating_add(jump));
    let claim = Claim {
        epoch,
        claim_id: ClaimId::random(),
        first_seq: base,
        broker: BrokerId(-1),
        incarnation: Incarnation(-1),
    };
    let mut image = source.clone();
    image.position = Position {
        epoch,
        claim_id: claim.claim_id,
        seq: base,
    };
    // The old claims are no part of this line: whoever followed them begins with a snapshot.
    image.claims = std::iter::once(claim.clone()).collect();
    let text = snapshot_text(&image);
    let span = Seq(0)..=base;
    let (snapshot, chunks) = store(&text, &image.cluster_id, epoch, span, &random_nonce());
    let entry = Entry {
        seq: base.next(),
        epoch,
        nonce: random_nonce(),
        records: vec![Record::Recovery {
            epoch_jump: JUMP,
            producer_id_jump: PRODUCER_ID_JUMP,
            reason: reason.to_owned(),
        }],
    };
    image.apply(&entry).map_err(|error| error.to_string())?;
    let header = EntryHeader::of(&entry);
    let text = entry_text(&entry);
    let head = Head {
        cluster_id: image.cluster_id.clone(),
        epoch,
        controller: None,
        seq: entry.seq,
        nonce: entry.nonce,
        snapshot: Some(snapshot),
        segments: Vec::new(),
        claims: vec![claim],
        tail: std::iter::once((entry.seq, TailEntry { header, text })).collect(),
        metadata_version: image.metadata_version,
    };
    Ok(Recovered {
        chunks,
        head,
        image,
    })
}

/// Why a recovered head is not known to stand.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the recovered head could not be written: {0}")]
    Patch(#[from] PatchError),
}

/// Writes it: over `over`, which must still stand, or where there is none. Safe to try again: what was
/// applied after all is found by the next look at the head.
pub async fn write(
    store: &dyn Store,
    recovered: &Recovered,
    over: Option<&OldHead>,
) -> Result<(), WriteError> {
    for chunk in &recovered.chunks {
        store.create_chunk(chunk).await?;
    }
    let data = to_data(&recovered.head);
    match over {
        None => {
            store.create_head(&data).await?;
        }
        Some(old) => {
            let patch = difference(&to_data(&old.head), &data, &recovered.head.nonce);
            store.patch_head(&old.uid, &old.head.nonce, &patch).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
