//! A store in memory that misbehaves on request: for tests of everything that stands on a store.
//!
//! Without injected faults it keeps every promise of [`super::suite`]. Each fault hits the next write
//! (or read) once: conflict, lost request, lost reply, late write, duplicate, refused connection, stale
//! read; [`SimulatedStore::restore`] rewinds everything to an earlier state, as an etcd restore does.

use super::{
    Chunk, ChunkBody, ChunkInfo, HeadObject, HeadPatch, LeaseError, LeaseRecord, NONCE, PatchError,
    Store, StoreError, random_nonce,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// What goes wrong with one head write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The connection is refused: nothing is sent.
    NotSent,
    /// Sent and lost; never applied.
    LostRequest,
    /// Applied; the reply is lost.
    LostReply,
    /// Not applied now, but at the next [`SimulatedStore::deliver_late`]; the reply is lost.
    Late,
    /// Applied, and a second copy arrives at once, whose refusal is what the caller hears.
    DuplicateRefused,
    /// Someone else's write comes first.
    Conflict,
}

#[derive(Clone, Default)]
struct Objects {
    head: Option<HeadObject>,
    lease: Option<LeaseRecord>,
    chunks: BTreeMap<String, Chunk>,
}

#[derive(Default)]
struct World {
    now: Objects,
    history: Vec<Objects>,
    faults: VecDeque<WriteFault>,
    lease_faults: VecDeque<WriteFault>,
    late: Vec<(String, String, HeadPatch)>,
    stale_head_reads: VecDeque<usize>,
    down: bool,
    reads_down: bool,
    versions: u64,
    head_writes: u64,
    refused: u64,
}

/// A store in memory. Clones share their content.
#[derive(Clone)]
pub struct SimulatedStore {
    world: Arc<Mutex<World>>,
    lease_version: Arc<watch::Sender<String>>,
}

impl Default for SimulatedStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedStore {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            world: Arc::default(),
            lease_version: Arc::new(watch::Sender::new(String::new())),
        }
    }

    /// The next head write that has no fault queued before it meets this one.
    pub fn inject(&self, fault: WriteFault) {
        self.world.lock().faults.push_back(fault);
    }

    /// As [`Self::inject`], for Lease writes. [`WriteFault::Late`] counts as a lost request there.
    pub fn inject_lease(&self, fault: WriteFault) {
        self.world.lock().lease_faults.push_back(fault);
    }

    /// Lets the late writes arrive now. Tells how many were applied.
    pub fn deliver_late(&self) -> usize {
        let mut world = self.world.lock();
        let late = std::mem::take(&mut world.late);
        late.into_iter()
            .filter(|(uid, nonce, patch)| world.apply(uid, nonce, patch).is_ok())
            .count()
    }

    /// The next head read shows the state of `back` writes ago.
    pub fn stale_head_read(&self, back: usize) {
        self.world.lock().stale_head_reads.push_back(back);
    }

    /// While down, every call fails as if the connection were refused.
    pub fn set_down(&self, down: bool) {
        self.world.lock().down = down;
    }

    /// While down, reads of the head fail; writes go through.
    pub fn set_reads_down(&self, down: bool) {
        self.world.lock().reads_down = down;
    }

    /// Rewinds to the state of `back` head writes ago, as a restored etcd does.
    pub fn restore(&self, back: usize) {
        let mut world = self.world.lock();
        let at = world.history.len().saturating_sub(back);
        if let Some(then) = world.history.get(at).cloned() {
            world.now = then;
            world.history.truncate(at);
        }
    }

    /// Deletes the head and creates it anew with the same content.
    pub fn recreate_head(&self) {
        if let Some(head) = self.world.lock().now.head.as_mut() {
            head.uid = random_nonce();
        }
    }

    /// Deletes the Lease, as someone may by hand.
    pub fn delete_lease(&self) {
        self.world.lock().now.lease = None;
        self.lease_version.send_replace(String::new());
    }

    /// Changes a chunk behind everybody's back.
    pub fn corrupt_chunk(&self, name: &str, body: ChunkBody) {
        if let Some(stored) = self.world.lock().now.chunks.get_mut(name) {
            stored.body = body;
        }
    }

    /// How many head writes were applied.
    pub fn head_writes(&self) -> u64 {
        self.world.lock().head_writes
    }

    /// How many head writes were refused.
    pub fn refused_writes(&self) -> u64 {
        self.world.lock().refused
    }
}

impl World {
    fn apply(&mut self, uid: &str, nonce: &str, patch: &HeadPatch) -> Result<(), PatchError> {
        let before = self.now.clone();
        let Some(head) = self.now.head.as_mut() else {
            return Err(PatchError::Gone);
        };
        let holds = head.uid == uid && head.data.get(NONCE).is_some_and(|n| n == nonce);
        if !holds || patch.remove.iter().any(|k| !head.data.contains_key(k)) {
            self.refused += 1;
            return Err(PatchError::Refused);
        }
        for key in &patch.remove {
            head.data.remove(key);
        }
        head.data
            .extend(patch.set.iter().map(|(k, v)| (k.clone(), v.clone())));
        head.data.insert(NONCE.to_owned(), patch.nonce.clone());
        self.history.push(before);
        self.head_writes += 1;
        Ok(())
    }

    fn reachable(&self, what: &str) -> Result<(), StoreError> {
        if self.down {
            return Err(StoreError::Unreachable {
                what: what.to_owned(),
                why: "connection refused (simulated)".to_owned(),
            });
        }
        Ok(())
    }

    fn write_lease(
        &mut self,
        expected: Option<(&str, &str)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        let uid = match (&self.now.lease, expected) {
            (None, None) => random_nonce(),
            (Some(now), Some((uid, version))) if now.uid == uid && now.version == version => {
                now.uid.clone()
            }
            _ => return Err(LeaseError::Conflict),
        };
        self.versions += 1;
        let written = LeaseRecord {
            uid,
            version: self.versions.to_string(),
            ..record.clone()
        };
        self.now.lease = Some(written.clone());
        Ok(written)
    }
}

#[async_trait]
impl Store for SimulatedStore {
    fn describe(&self) -> String {
        "simulated store".to_owned()
    }

    async fn read_head(&self) -> Result<Option<HeadObject>, StoreError> {
        tokio::task::yield_now().await;
        let mut world = self.world.lock();
        world.reachable("reading the head")?;
        if world.reads_down {
            return Err(StoreError::Unreachable {
                what: "reading the head".to_owned(),
                why: "timeout (simulated)".to_owned(),
            });
        }
        if let Some(back) = world.stale_head_reads.pop_front() {
            let at = world.history.len().saturating_sub(back);
            if let Some(then) = world.history.get(at) {
                return Ok(then.head.clone());
            }
        }
        Ok(world.now.head.clone())
    }

    async fn create_head(&self, data: &BTreeMap<String, String>) -> Result<HeadObject, StoreError> {
        let mut world = self.world.lock();
        world.reachable("creating the head")?;
        if world.now.head.is_some() {
            let what = "creating the head".to_owned();
            return Err(StoreError::Exists { what });
        }
        let head = HeadObject {
            uid: random_nonce(),
            data: data.clone(),
        };
        world.now.head = Some(head.clone());
        Ok(head)
    }

    async fn patch_head(
        &self,
        uid: &str,
        nonce: &str,
        patch: &HeadPatch,
    ) -> Result<(), PatchError> {
        tokio::task::yield_now().await;
        let in_doubt = |why: &str| Err(PatchError::InDoubt(format!("{why} (simulated)")));
        let mut world = self.world.lock();
        if world.down {
            return Err(PatchError::NotSent("connection refused (simulated)".into()));
        }
        match world.faults.pop_front() {
            None => world.apply(uid, nonce, patch),
            Some(WriteFault::NotSent) => {
                Err(PatchError::NotSent("connection refused (simulated)".into()))
            }
            Some(WriteFault::LostRequest) => in_doubt("timeout"),
            Some(WriteFault::LostReply) => {
                let _ = world.apply(uid, nonce, patch);
                in_doubt("timeout")
            }
            Some(WriteFault::Late) => {
                let late = (uid.to_owned(), nonce.to_owned(), patch.clone());
                world.late.push(late);
                in_doubt("timeout")
            }
            Some(WriteFault::DuplicateRefused) => {
                let _ = world.apply(uid, nonce, patch);
                world.apply(uid, nonce, patch)
            }
            Some(WriteFault::Conflict) => {
                let foreign = HeadPatch {
                    nonce: random_nonce(),
                    ..HeadPatch::default()
                };
                let _ = world.apply(uid, nonce, &foreign);
                world.apply(uid, nonce, patch)
            }
        }
    }

    async fn create_chunk(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let mut world = self.world.lock();
        world.reachable("creating a chunk")?;
        if world.now.chunks.contains_key(&chunk.name) {
            let what = format!("creating chunk {}", chunk.name);
            return Err(StoreError::Exists { what });
        }
        world.now.chunks.insert(chunk.name.clone(), chunk.clone());
        Ok(())
    }

    async fn read_chunk(&self, name: &str) -> Result<Option<ChunkBody>, StoreError> {
        let world = self.world.lock();
        world.reachable("reading a chunk")?;
        Ok(world.now.chunks.get(name).map(|c| c.body.clone()))
    }

    async fn list_chunks(&self) -> Result<Vec<ChunkInfo>, StoreError> {
        let world = self.world.lock();
        world.reachable("listing the chunks")?;
        let info = |chunk: &Chunk| ChunkInfo {
            name: chunk.name.clone(),
            cluster: chunk.cluster.clone(),
            epoch: chunk.epoch,
        };
        Ok(world.now.chunks.values().map(info).collect())
    }

    async fn delete_chunk(&self, name: &str) -> Result<(), StoreError> {
        let mut world = self.world.lock();
        world.reachable("deleting a chunk")?;
        world.now.chunks.remove(name);
        Ok(())
    }

    async fn read_lease(&self) -> Result<Option<LeaseRecord>, StoreError> {
        tokio::task::yield_now().await;
        let world = self.world.lock();
        world.reachable("reading the Lease")?;
        Ok(world.now.lease.clone())
    }

    async fn write_lease(
        &self,
        expected: Option<(&str, &str)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        tokio::task::yield_now().await;
        let in_doubt = || Err(LeaseError::InDoubt("timeout (simulated)".into()));
        let result = {
            let mut world = self.world.lock();
            if world.down {
                return Err(LeaseError::NotSent("connection refused (simulated)".into()));
            }
            match world.lease_faults.pop_front() {
                None => world.write_lease(expected, record),
                Some(WriteFault::NotSent) => {
                    Err(LeaseError::NotSent("connection refused (simulated)".into()))
                }
                Some(WriteFault::LostRequest | WriteFault::Late) => in_doubt(),
                Some(WriteFault::LostReply) => {
                    let _ = world.write_lease(expected, record);
                    in_doubt()
                }
                Some(WriteFault::DuplicateRefused) => {
                    let _ = world.write_lease(expected, record);
                    world.write_lease(expected, record)
                }
                Some(WriteFault::Conflict) => Err(LeaseError::Conflict),
            }
        };
        let version = self
            .world
            .lock()
            .now
            .lease
            .as_ref()
            .map(|l| l.version.clone());
        self.lease_version.send_replace(version.unwrap_or_default());
        result
    }

    async fn lease_changed(&self, known: Option<&str>) {
        let mut changes = self.lease_version.subscribe();
        let known = known.unwrap_or_default();
        // The sender lives in `self`, so waiting can only end by a change.
        let _ = changes.wait_for(|version| version != known).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_simulation_keeps_every_promise_of_a_store() {
        suite::run(Arc::new(SimulatedStore::new())).await.unwrap();
    }

    #[tokio::test]
    async fn a_late_write_is_refused_once_the_head_has_moved() {
        let store = SimulatedStore::new();
        let head = store.create_head(&suite::first_head("a")).await.unwrap();
        let patch = |nonce: &str| HeadPatch {
            nonce: nonce.into(),
            ..HeadPatch::default()
        };
        store.inject(WriteFault::Late);
        let late = store.patch_head(&head.uid, "a", &patch("late")).await;
        assert!(matches!(late, Err(PatchError::InDoubt(_))));
        store.patch_head(&head.uid, "a", &patch("b")).await.unwrap();
        assert_eq!(store.deliver_late(), 0);
    }
}
