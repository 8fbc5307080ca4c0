//! The simulated Kubernetes API: the head, the chunks and the Lease, and what may happen to a call.
//!
//! Promises: a write is applied only under its condition; a read shows what was there when it arrived;
//! what was applied stays applied. But a request may get lost, arrive late (after its sender has given up,
//! was stopped or has died), arrive twice, or lose its answer; and the server may refuse or be away.

use crate::broker::{cluster_id, foreign_cluster};
use crate::core::{Core, Shared};
use async_trait::async_trait;
use leasehold_metadata::head::format::initial;
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::store::{
    CALL_TIMEOUT, Chunk, ChunkBody, ChunkInfo, HeadObject, HeadPatch, LeaseError, LeaseRecord,
    NONCE, PatchError, Store, StoreError,
};
use leasehold_types::seams::taken_out;
use leasehold_types::{ControllerEpoch, Incarnation};
use rand::Rng as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// What the API server holds.
#[derive(Clone, Default)]
pub struct Objects {
    pub head: Option<HeadObject>,
    pub lease: Option<LeaseRecord>,
    pub chunks: BTreeMap<String, Chunk>,
    versions: u64,
}

/// Why a call has no result.
enum NoResult {
    NotSent,
    Unknown,
}

/// The API server as one process reaches it.
#[derive(Clone)]
pub struct ApiClient {
    pub core: Shared,
    pub node: usize,
    pub life: Incarnation,
}

impl Core {
    fn api_reached(&self, node: usize) -> bool {
        self.api_down_until <= self.now && self.nodes[node].api_cut_until <= self.now
    }

    /// Puts everything back to the backup, as an etcd restore does; or as someone does who deletes the head
    /// and makes it anew from an older copy.
    pub(crate) fn restore(&mut self) {
        let Some(backup) = self.backup.take() else {
            return;
        };
        let versions = self.api.versions;
        let now = self.api.chunks.keys();
        let taken = now
            .filter(|name| !backup.chunks.contains_key(*name))
            .cloned();
        self.check.taken.extend(taken);
        self.api = backup;
        self.kept = None;
        // Versions of the Lease go on, so that no watch overlooks the change.
        self.api.versions = versions;
        let uid = format!("head-{}", self.now);
        if self.chance(500)
            && let Some(head) = &mut self.api.head
        {
            head.uid = uid;
        }
        let head = self.api.head.as_ref();
        let seq = head
            .and_then(|h| h.data.get("seq")?.parse().ok())
            .unwrap_or(0);
        self.note(format!("fault the API server is put back to seq {seq}"));
        self.check.restored(seq);
    }

    /// The head goes, with its chunks if `chunks`, and another cluster's takes its place if `foreign`; after
    /// `long` someone puts all back from a copy that has everything.
    pub(crate) fn lose_head(&mut self, chunks: bool, foreign: bool, long: u64) {
        if self.kept.is_some() {
            return;
        }
        self.note(format!(
            "fault the head is gone for {long} ms, chunks too: {chunks}, another cluster's is there: {foreign}"
        ));
        self.kept = Some(self.api.clone());
        if chunks {
            self.api.chunks.clear();
        }
        self.api.head = foreign.then(|| HeadObject {
            uid: format!("foreign-{}", self.now),
            data: initial(&foreign_cluster()),
        });
        self.later(long, Core::put_head_back);
    }

    /// What a server that is behind would list from now on; and the other cluster's leavings.
    pub(crate) fn note_listing(&mut self) {
        self.listing = self.api.chunks.values().map(info).collect();
    }

    /// The chunks of another cluster of this name, which nobody cleared away.
    pub(crate) fn leave_foreign_chunks(&mut self) {
        for n in 0..2 {
            let chunk = Chunk {
                name: format!("foreign-{n}"),
                cluster: foreign_cluster(),
                epoch: ControllerEpoch(n),
                body: ChunkBody::Lines(String::new()),
            };
            self.api.chunks.insert(chunk.name.clone(), chunk);
        }
    }

    /// What was lost is there again, as another object.
    pub(crate) fn put_head_back(&mut self) {
        let Some(kept) = self.kept.take() else {
            return;
        };
        self.note("api   the head is put back");
        let uid = format!("head-{}", self.now);
        self.api.head = kept.head.map(|head| HeadObject { uid, ..head });
        for (name, chunk) in kept.chunks {
            self.api.chunks.entry(name).or_insert(chunk);
        }
    }

    fn patch_head(
        &mut self,
        by: (usize, Incarnation),
        uid: &str,
        nonce: &str,
        patch: &HeadPatch,
    ) -> Result<(), PatchError> {
        let Some(head) = self.api.head.as_mut() else {
            return Err(PatchError::Gone);
        };
        let same = head.data.get(NONCE).is_some_and(|n| n == nonce);
        let holds = head.uid == uid && (same || taken_out("head-tests-nonce"));
        if !holds || patch.remove.iter().any(|k| !head.data.contains_key(k)) {
            self.note(format!("api   head write of {} refused", by.0));
            return Err(PatchError::Refused);
        }
        let before = head.data.clone();
        if before
            .get(CLUSTER_ID)
            .is_some_and(|id| *id != cluster_id().0)
        {
            let line = format!("I12 broker {} writes to another cluster's head", by.0);
            self.check.broke(line);
            return Ok(());
        }
        for key in &patch.remove {
            head.data.remove(key);
        }
        head.data.extend(patch.set.clone());
        head.data.insert(NONCE.to_owned(), patch.nonce.clone());
        let after = head.data.clone();
        let told = self
            .check
            .head_written(by, &before, &after, &self.api.chunks);
        for (key, node) in std::mem::take(&mut self.check.joins) {
            self.look(node);
            let disk = &self.nodes[node].disk;
            if !disk.damaged {
                self.check.joined(key, node, disk.log(key));
            }
        }
        self.note(format!("api   head write of {}: {told}", by.0));
        if self.chance(self.weather.api_usurped) {
            self.note("fault the Lease is deleted, and the answer to this write is late");
            self.api.lease = None;
            self.deaf_until = self.now + 400;
        }
        Ok(())
    }

    fn write_lease(
        &mut self,
        by: usize,
        expected: Option<(String, String)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        self.api.versions += 1;
        let version = self.api.versions.to_string();
        let uid = match (&self.api.lease, expected) {
            (None, None) => format!("lease-{version}"),
            (Some(now), Some((uid, old))) if now.uid == uid && now.version == old => uid,
            _ => return Err(LeaseError::Conflict),
        };
        let another = self.api.lease.as_ref().and_then(|l| l.holder.clone()) != record.holder;
        if another {
            self.note(format!(
                "api   Lease written by {by}: holder {:?}",
                record.holder
            ));
        }
        let written = LeaseRecord {
            uid,
            version,
            ..record.clone()
        };
        self.api.lease = Some(written.clone());
        Ok(written)
    }
}

fn info(chunk: &Chunk) -> ChunkInfo {
    ChunkInfo {
        name: chunk.name.clone(),
        cluster: chunk.cluster.clone(),
        epoch: chunk.epoch,
    }
}

impl ApiClient {
    /// Sends `op` to the server and waits for what it returns there.
    async fn call<T: Send + 'static>(
        &self,
        mut op: impl FnMut(&mut Core) -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let (sender, result) = oneshot::channel();
        let node = self.node;
        let throttled;
        // A proxy that holds a request up often gives up itself.
        let mut late = false;
        let sent = {
            let mut core = self.core.lock();
            let refused = core.weather.api_refused;
            let sent = core.api_reached(node) && !core.chance(refused);
            let (busy, rate) = (core.now < core.throttled_until, core.weather.api_throttled);
            throttled = sent && core.chance(if busy { 900 } else { rate });
            if sent && !throttled {
                let weather = core.weather.clone();
                late = core.chance(weather.api_late);
                let arrival = match (late, core.rng.random()) {
                    (true, true) => core.rng.random_range(8..100),
                    (true, false) => core.rng.random_range(100..4_000),
                    // So that something is under way, and more is wanted, when it is noticed.
                    (false, _) if core.check.is_unnoticed() => core.rng.random_range(0..60),
                    (false, _) => core.rng.random_range(0..6),
                };
                let twice = core.chance(weather.api_duplicate);
                let lost = core.chance(weather.api_lost_request);
                let silent = core.chance(weather.api_lost_reply);
                let apart = core.rng.random_range(0..1_500);
                if !lost {
                    core.later(arrival, move |core| {
                        let mut value = op(core);
                        if twice {
                            // A proxy sends it again: either at once, and its answer is the one that is
                            // heard, or much later.
                            match apart < 700 {
                                true => value = op(core),
                                false => core.later(apart, move |core| drop(op(core))),
                            }
                        }
                        if !silent {
                            let back = core.rng.random_range(0..6);
                            core.later(back, move |core| {
                                if core.api_reached(node) {
                                    let _ = sender.send(value);
                                }
                            });
                        }
                    });
                }
            }
            sent
        };
        if !sent {
            tokio::time::sleep(Duration::from_millis(2)).await;
            return Err(NoResult::NotSent);
        }
        if throttled {
            // 429: the server did nothing, but the sender does not conclude that from it.
            tokio::time::sleep(Duration::from_millis(4)).await;
            return Err(NoResult::Unknown);
        }
        let failed = {
            let mut core = self.core.lock();
            let error = core.weather.api_error;
            core.chance(if late { 500 } else { error })
        };
        if failed {
            // A 5xx of something in between: it says nothing about the request.
            tokio::time::sleep(Duration::from_millis(8)).await;
            return Err(NoResult::Unknown);
        }
        match tokio::time::timeout(CALL_TIMEOUT, result).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => {
                // The request or its answer got lost: the caller waits in vain.
                tokio::time::sleep(CALL_TIMEOUT).await;
                Err(NoResult::Unknown)
            }
            Err(_) => Err(NoResult::Unknown),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &str,
        op: impl FnMut(&mut Core) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(op).await.map_err(|_| StoreError::Unreachable {
            what: what.to_owned(),
            why: "no answer (simulated)".to_owned(),
        })
    }
}

#[async_trait]
impl Store for ApiClient {
    fn describe(&self) -> String {
        "the simulated API server".to_owned()
    }

    async fn read_head(&self) -> Result<Option<HeadObject>, StoreError> {
        self.read("reading the head", |core| core.api.head.clone())
            .await
    }

    async fn create_head(&self, data: &BTreeMap<String, String>) -> Result<HeadObject, StoreError> {
        let data = data.clone();
        let create = move |core: &mut Core| {
            if core.api.head.is_some() {
                let what = "creating the head".to_owned();
                return Err(StoreError::Exists { what });
            }
            let uid = format!("head-{}", core.now);
            let head = HeadObject {
                uid,
                data: data.clone(),
            };
            core.api.head = Some(head.clone());
            Ok(head)
        };
        self.read("creating the head", create).await?
    }

    async fn patch_head(
        &self,
        uid: &str,
        nonce: &str,
        patch: &HeadPatch,
    ) -> Result<(), PatchError> {
        let (uid, nonce, patch) = (uid.to_owned(), nonce.to_owned(), patch.clone());
        let by = (self.node, self.life);
        match self
            .call(move |core| core.patch_head(by, &uid, &nonce, &patch))
            .await
        {
            Ok(result) => {
                let (deaf, unanswered) = {
                    let mut core = self.core.lock();
                    let unanswered = core.unanswered.take_if(|node| *node == self.node);
                    if unanswered.is_some() {
                        core.note(format!(
                            "fault {} hears nothing of its head write",
                            self.node
                        ));
                        core.nodes[self.node].api_cut_until = core.now + 5_000;
                    }
                    (core.now < core.deaf_until, unanswered.is_some())
                };
                if unanswered {
                    return Err(PatchError::InDoubt("no answer (simulated)".into()));
                }
                if !deaf {
                    return result;
                }
                tokio::time::sleep(Duration::from_millis(400)).await;
                Err(PatchError::InDoubt(
                    "the answer got lost (simulated)".into(),
                ))
            }
            Err(NoResult::NotSent) => Err(PatchError::NotSent("refused (simulated)".into())),
            Err(NoResult::Unknown) => Err(PatchError::InDoubt("no answer (simulated)".into())),
        }
    }

    async fn create_chunk(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let chunk = chunk.clone();
        let create = move |core: &mut Core| {
            let what = format!("creating chunk {}", chunk.name);
            if core.api.chunks.contains_key(&chunk.name) {
                return Err(StoreError::Exists { what });
            }
            core.api.chunks.insert(chunk.name.clone(), chunk.clone());
            Ok(())
        };
        self.read("creating a chunk", create).await?
    }

    async fn read_chunk(&self, name: &str) -> Result<Option<ChunkBody>, StoreError> {
        let name = name.to_owned();
        let read = move |core: &mut Core| core.api.chunks.get(&name).map(|c| c.body.clone());
        self.read("reading a chunk", read).await
    }

    async fn list_chunks(&self) -> Result<Vec<ChunkInfo>, StoreError> {
        self.read("listing the chunks", move |core| {
            let stale = core.weather.api_stale;
            match core.chance(stale) {
                // From the cache of a server that is behind.
                true => core.listing.clone(),
                false => core.api.chunks.values().map(info).collect(),
            }
        })
        .await
    }

    async fn delete_chunk(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        let delete = move |core: &mut Core| {
            let gone = core.api.chunks.remove(&name);
            if gone.is_some_and(|chunk| chunk.cluster != cluster_id()) {
                let line = format!("I12 chunk {name}, which is another cluster's, is deleted");
                core.check.broke(line);
            }
            let head = core
                .api
                .head
                .as_ref()
                .map(|h| h.data.clone())
                .unwrap_or_default();
            core.check.chunk_deleted(&name, &head);
            core.note(format!("api   chunk {name} deleted"));
            core.collected += 1;
        };
        self.read("deleting a chunk", delete).await
    }

    async fn read_lease(&self) -> Result<Option<LeaseRecord>, StoreError> {
        self.read("reading the Lease", |core| core.api.lease.clone())
            .await
    }

    async fn write_lease(
        &self,
        expected: Option<(&str, &str)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        let expected = expected.map(|(uid, version)| (uid.to_owned(), version.to_owned()));
        let (record, by, sent) = (record.clone(), self.node, self.core.lock().now);
        match self
            .call(move |core| {
                let written = core.write_lease(by, expected.clone(), &record);
                if written.is_ok() {
                    core.check.lease_written(by, sent);
                }
                written
            })
            .await
        {
            Ok(result) => result,
            Err(NoResult::NotSent) => Err(LeaseError::NotSent("refused (simulated)".into())),
            Err(NoResult::Unknown) => Err(LeaseError::InDoubt("no answer (simulated)".into())),
        }
    }

    /// A watch that looks now and then, and stalls while the server cannot be reached. It may be behind, or
    /// fire for nothing.
    async fn lease_changed(&self, known: Option<&str>) {
        let behind = {
            let mut core = self.core.lock();
            let stale = core.weather.api_stale;
            let is = core.chance(stale);
            is.then(|| core.rng.random_range(0..3_000))
        };
        if let Some(behind) = behind {
            tokio::time::sleep(Duration::from_millis(behind)).await;
            if behind < 500 {
                return;
            }
        }
        loop {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let core = self.core.lock();
            let now = core.api.lease.as_ref().map(|l| l.version.as_str());
            if core.api_reached(self.node) && now != known {
                return;
            }
        }
    }
}
