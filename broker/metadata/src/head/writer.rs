//! Claims the head and commits through it: the only code that writes a cluster's head.
//!
//! Promises: writes are serial, and each is one patch; an outcome is reported only when it is known, by
//! the store's answer or by a quorum read; a write in doubt is sent again only identically, only while
//! the head is unmoved, only within its deadline and only while [`MayAct`] says so. Any [`Failed`] ends
//! the term: the writer must be dropped, with everything that was built on its image. It never rebases.

use super::collect::Collection;
use super::doubt::{Doubted, Verdict, judge};
use super::format::{ControllerRef, Head};
use super::load::{Loaded, snapshot_text};
use super::plan::{Limits, Planned, next_epoch, plan_claim, plan_commit};
use crate::image::{Claim, ClaimId, Image};
use crate::lease::BootInstant;
use crate::records::{Entry, Record};
use crate::store::{Chunk, ChunkInfo, PatchError, Store, StoreError};
use leasehold_types::seams::taken_out;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// A batch whose outcome is not known this long after it was first sent is given up.
pub const WRITE_DEADLINE: Duration = Duration::from_millis(1_500);

const PAUSE: Duration = Duration::from_millis(25);

/// Says whether the writer may still send: the Lease deadline, in production.
pub type MayAct = Arc<dyn Fn() -> bool + Send + Sync>;

/// A write that is known to be applied.
#[derive(Clone, Debug)]
pub struct Committed {
    pub entry: Arc<Entry>,
    /// The image that includes it.
    pub image: Arc<Image>,
    /// Another has claimed since: report this success, then resign.
    pub deposed: bool,
}

/// A write that is not known to be applied. The term is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It is not in, and never will be.
    #[error("the head write was not applied: {0}")]
    NotApplied(String),
    /// It may be in, or come in later (until another claims).
    #[error("it is not known whether the head write was applied: {0}")]
    Unknown(String),
}

/// The head, claimed by us.
pub struct HeadWriter {
    store: Arc<dyn Store>,
    uid: String,
    head: Head,
    image: Arc<Image>,
    claim: Claim,
    limits: Limits,
    may_act: MayAct,
    collection: Collection,
    last: Option<Arc<Entry>>,
    /// A write failed: nothing may be built on this image any more.
    over: bool,
}

impl HeadWriter {
    /// Claims the head as it was loaded. If that fails because the head moved, the caller keeps the
    /// Lease, loads again and claims again.
    pub async fn claim(
        store: Arc<dyn Store>,
        loaded: Loaded,
        controller: ControllerRef,
        limits: Limits,
        may_act: MayAct,
    ) -> Result<(Self, Committed), Failed> {
        let claim = Claim {
            epoch: next_epoch(&loaded.head),
            claim_id: ClaimId::random(),
            first_seq: loaded.head.seq.next(),
            broker: controller.broker,
            incarnation: controller.incarnation,
        };
        let planned = plan_claim(&loaded.head, controller, claim.clone(), limits);
        let mut writer = Self {
            store,
            uid: loaded.uid,
            head: loaded.head,
            image: loaded.image,
            claim,
            limits,
            may_act,
            collection: Collection::default(),
            last: None,
            over: false,
        };
        let committed = writer.write(planned).await?;
        if committed.deposed {
            let why = "another candidate claimed after us".to_owned();
            return Err(Failed::NotApplied(why));
        }
        Ok((writer, committed))
    }

    /// Commits `records` as one entry.
    pub async fn commit(&mut self, records: Vec<Record>) -> Result<Committed, Failed> {
        let image = Arc::clone(&self.image);
        let planned = plan_commit(&self.head, records, self.limits, &|| snapshot_text(&image));
        self.write(planned).await
    }

    /// Our claim.
    pub fn our_claim(&self) -> &Claim {
        &self.claim
    }

    /// The head as last committed.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The committed image.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// The entry that was committed last; after the claim, the claim.
    pub fn last_entry(&self) -> Option<&Arc<Entry>> {
        self.last.as_ref()
    }

    async fn write(&mut self, planned: Planned) -> Result<Committed, Failed> {
        if std::mem::replace(&mut self.over, true) {
            let why = "an earlier write of this term failed".to_owned();
            return Err(Failed::NotApplied(why));
        }
        let deadline = Instant::now() + WRITE_DEADLINE;
        let mut image = (*self.image).clone();
        image
            .apply(&planned.entry)
            .map_err(|error| Failed::NotApplied(error.to_string()))?;
        for chunk in &planned.chunks {
            self.create(chunk, deadline).await?;
        }
        let deposed = self.send(&planned, deadline).await?;
        self.over = deposed;
        self.head = planned.next;
        self.image = Arc::new(image);
        // Only now, when the write is known to be in, has the head stopped naming these.
        self.collection.dropped(planned.dropped, BootInstant::now());
        let entry = Arc::new(planned.entry);
        self.last = Some(Arc::clone(&entry));
        Ok(Committed {
            entry,
            image: Arc::clone(&self.image),
            deposed,
        })
    }

    /// Creates a chunk. Nothing was sent to the head yet, so any failure means "not applied".
    async fn create(&self, chunk: &Chunk, deadline: Instant) -> Result<(), Failed> {
        let name = &chunk.name;
        loop {
            let why = match timeout_at(deadline, self.store.create_chunk(chunk)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(StoreError::Exists { .. })) => {
                    // Its name is ours alone: an earlier copy of this request, unless it differs.
                    match timeout_at(deadline, self.store.read_chunk(name)).await {
                        Ok(Ok(Some(body))) if body == chunk.body => return Ok(()),
                        other => format!("chunk {name} exists otherwise: {other:?}"),
                    }
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("chunk {name} could not be created in time"),
            };
            if Instant::now() >= deadline || !(self.may_act)() {
                return Err(Failed::NotApplied(why));
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends the patch until its outcome is known. `Ok(true)`: applied, and another wrote after us.
    async fn send(&self, planned: &Planned, deadline: Instant) -> Result<bool, Failed> {
        let mut in_doubt = false;
        let mut reason = "the chunks took all of its time".to_owned();
        let give_up = |in_doubt: bool, why: String| match in_doubt {
            true => Failed::Unknown(why),
            false => Failed::NotApplied(why),
        };
        loop {
            if !(self.may_act)() {
                let why = "the Lease deadline passed".to_owned();
                return Err(give_up(in_doubt, why));
            }
            if Instant::now() >= deadline {
                return Err(give_up(in_doubt, reason));
            }
            let patch = self
                .store
                .patch_head(&self.uid, &self.head.nonce, &planned.patch);
            let why = match timeout_at(deadline, patch).await {
                Ok(Ok(())) => return Ok(false),
                Ok(Err(PatchError::NotSent(why))) => {
                    reason = why;
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(Err(error)) if taken_out("refusal-is-doubt") => {
                    return Err(Failed::NotApplied(error.to_string()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            in_doubt = true;
            if taken_out("doubt-is-resolved") {
                return Ok(false);
            }
            reason.clone_from(&why);
            match self.resolve(planned, deadline, &why).await? {
                Verdict::Applied => return Ok(false),
                Verdict::AppliedAndDeposed => return Ok(true),
                Verdict::NotApplied => {
                    let why = format!("another writer moved the head ({why})");
                    return Err(Failed::NotApplied(why));
                }
                Verdict::Unknown => return Err(Failed::Unknown(why)),
                Verdict::Unmoved => sleep(PAUSE).await,
            }
        }
    }

    /// Reads the head, by quorum, until it tells what became of the write.
    async fn resolve(
        &self,
        planned: &Planned,
        deadline: Instant,
        why: &str,
    ) -> Result<Verdict, Failed> {
        let write = Doubted {
            uid: &self.uid,
            tested_nonce: &self.head.nonce,
            nonce: &planned.entry.nonce,
            seq: planned.entry.seq,
        };
        loop {
            match timeout_at(deadline, self.store.read_head()).await {
                Ok(Ok(object)) => {
                    return judge(write, object.as_ref())
                        .map_err(|error| Failed::Unknown(error.to_string()));
                }
                Ok(Err(error)) => {
                    if Instant::now() >= deadline {
                        return Err(Failed::Unknown(format!("{why}; {error}")));
                    }
                    sleep(PAUSE).await;
                }
                Err(_) => return Err(Failed::Unknown(why.to_owned())),
            }
        }
    }

    /// Notes which chunks of earlier writers nobody needs. `listing` was made after our claim.
    pub fn survey(&mut self, listing: &[ChunkInfo]) {
        let named: HashSet<&str> = self.head.chunk_names().collect();
        let now = BootInstant::now();
        let (cluster, epoch) = (&self.head.cluster_id, self.claim.epoch);
        self.collection.listed(listing, cluster, epoch, &named, now);
    }

    /// Chunks whose time has come: the caller deletes them, in its own time.
    pub fn collectable(&mut self, now: BootInstant) -> Vec<String> {
        self.collection.due(now, self.limits.grace, 20)
    }
}
