//! A candidate, run from its beginning with a list of answers: what does it want next, and what did it report?

use super::{Heads, Patch};
use crate::pool::fingerprint;
use crate::search::attempt;
use async_trait::async_trait;
use leasehold_metadata::head::{Committed, ControllerRef, Failed, HeadWriter, Limits, load};
use leasehold_metadata::records::Record;
use leasehold_metadata::store::{
    Chunk, ChunkBody, ChunkInfo, HeadObject, HeadPatch, LeaseError, LeaseRecord, PatchError, Store,
    StoreError,
};
use leasehold_types::seams::simulated::{self, World};
use leasehold_types::{BrokerId, Incarnation};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// The chunks that were ever created; what is in one follows from its name.
pub type Chunks = Arc<Mutex<BTreeMap<String, ChunkBody>>>;

/// Something that a candidate is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// The head, by a quorum read.
    Head(u32),
    Applied,
    Refused,
    /// No answer, or one that says nothing.
    Doubt,
    /// Commit a record.
    Commit,
    /// Its time is over.
    Late,
}

/// A process and what it was told so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub candidate: u8,
    pub life: u8,
    pub told: Vec<Told>,
}

/// What it waits for, and what it said last of a head write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    pub what: What,
    /// The last finished head write, and whether that was said to be applied (`None`: not known).
    pub said: Option<(u32, Option<bool>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    Patch(u32),
    /// It is controller, and has nothing to write.
    Record,
    /// It gave up.
    Over,
    Panicked,
}

/// What passes between a candidate and whoever runs it.
#[derive(Default)]
struct Script {
    answers: VecDeque<Told>,
    heads: BTreeMap<u32, HeadObject>,
    /// What it waits for, if that is an answer.
    asks: Option<Asks>,
    last_sent: Option<Asks>,
    /// Each finished write, and whether it is said to be applied.
    reports: Vec<(Asks, Option<bool>)>,
}

#[derive(Clone)]
enum Asks {
    Read,
    Patch(Patch),
    Record,
}

#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    chunks: Chunks,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    /// The next answer; none is there for ever once the list is at its end.
    async fn answer(&self, asks: Asks) -> Told {
        let told = {
            let mut script = lock(&self.script);
            match script.answers.front() {
                Some(Told::Late) | None => None,
                Some(_) => script.answers.pop_front(),
            }
        };
        match told {
            Some(told) => told,
            None => {
                lock(&self.script).asks = Some(asks);
                pending().await
            }
        }
    }
}

#[async_trait]
impl Store for Scripted {
    fn describe(&self) -> String {
        "the model".to_owned()
    }

    async fn read_head(&self) -> Result<Option<HeadObject>, StoreError> {
        match self.answer(Asks::Read).await {
            Told::Head(id) => Ok(lock(&self.script).heads.get(&id).cloned()),
            other => Err(StoreError::Unreachable {
                what: "the head".to_owned(),
                why: format!("{other:?}"),
            }),
        }
    }

    async fn create_head(&self, _: &BTreeMap<String, String>) -> Result<HeadObject, StoreError> {
        pending().await
    }

    async fn patch_head(
        &self,
        uid: &str,
        nonce: &str,
        patch: &HeadPatch,
    ) -> Result<(), PatchError> {
        let asks = Asks::Patch(Patch {
            uid: uid.to_owned(),
            tested: nonce.to_owned(),
            patch: patch.clone(),
        });
        lock(&self.script).last_sent = Some(asks.clone());
        match self.answer(asks).await {
            Told::Applied => Ok(()),
            Told::Refused => Err(PatchError::Refused),
            _ => Err(PatchError::InDoubt("no answer".to_owned())),
        }
    }

    async fn create_chunk(&self, chunk: &Chunk) -> Result<(), StoreError> {
        lock(&self.chunks).insert(chunk.name.clone(), chunk.body.clone());
        Ok(())
    }

    async fn read_chunk(&self, name: &str) -> Result<Option<ChunkBody>, StoreError> {
        Ok(lock(&self.chunks).get(name).cloned())
    }

    async fn list_chunks(&self) -> Result<Vec<ChunkInfo>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete_chunk(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn read_lease(&self) -> Result<Option<LeaseRecord>, StoreError> {
        Ok(None)
    }

    async fn write_lease(
        &self,
        _: Option<(&str, &str)>,
        _: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        Err(LeaseError::Conflict)
    }

    async fn lease_changed(&self, _: Option<&str>) {
        pending().await
    }
}

/// One candidate: loads, claims, and commits what it is told to.
async fn candidate(store: Scripted, me: ControllerRef, limits: Limits) {
    let report = |done: &Result<Committed, Failed>| {
        let applied = match done {
            Ok(_) => Some(true),
            Err(Failed::NotApplied(_)) => Some(false),
            Err(Failed::Unknown(_)) => None,
        };
        let deposed = done.as_ref().is_ok_and(|committed| committed.deposed);
        let mut script = lock(&store.script);
        if let Some(sent) = script.last_sent.take() {
            script.reports.push((sent, applied));
        }
        applied == Some(true) && !deposed
    };
    let Ok(loaded) = load(&store).await else {
        return;
    };
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let claimed = HeadWriter::claim(shared, loaded, me, limits, Arc::new(|| true)).await;
    let (mut writer, done) = match claimed {
        Ok((writer, committed)) => (writer, Ok(committed)),
        // Nobody waits for a claim: its failure is no report, and the next one begins anew.
        Err(_) => return,
    };
    let mut goes_on = report(&done);
    while goes_on && store.answer(Asks::Record).await == Told::Commit {
        goes_on = report(&writer.commit(vec![Record::NoOp]).await);
    }
}

impl Heads {
    /// The life of `candidate` in which it was told nothing yet.
    pub(super) fn born(&mut self, candidate: u8, life: u8) -> u32 {
        self.life(Life {
            candidate,
            life,
            told: Vec::new(),
        })
    }

    /// That life, told one thing more.
    pub(super) fn tell(&mut self, life: u32, told: Told) -> u32 {
        if let Some(known) = self.told.get(&(life, told)) {
            return *known;
        }
        let mut next = self.lives.value(life).clone();
        next.told.push(told);
        let next = self.life(next);
        self.told.insert((life, told), next);
        next
    }

    fn life(&mut self, life: Life) -> u32 {
        let id = fingerprint(&life);
        let wants = self.run(&life);
        self.lives.id(id, life, |_| wants)
    }

    /// Runs it from its beginning.
    fn run(&mut self, life: &Life) -> Wants {
        // What it writes follows from the head that it loaded; so must the nonces and names that it draws.
        let seed = fingerprint(&(life.candidate, life.life, life.told.first()));
        simulated::begin(seed, World::STILL, self.without.as_deref());
        let mut script = Script {
            answers: life.told.iter().copied().collect(),
            ..Script::default()
        };
        for told in &life.told {
            if let Told::Head(id) = told {
                script.heads.insert(*id, self.heads.value(*id).clone());
            }
        }
        let script = Arc::new(Mutex::new(script));
        let store = Scripted {
            script: Arc::clone(&script),
            chunks: Arc::clone(&self.chunks),
        };
        let me = ControllerRef {
            broker: BrokerId(i32::from(life.candidate)),
            incarnation: Incarnation(i64::from(life.life)),
            address: String::new(),
        };
        let limits = Limits {
            tail_bytes: self.bounds.tail_bytes,
            ..Limits::default()
        };
        let ended = attempt(|| play(Box::pin(candidate(store, me, limits)), &script));
        let script = std::mem::take(&mut *lock(&script));
        let what = match (ended, script.asks) {
            (None, _) => What::Panicked,
            (Some(true), _) | (_, None) => What::Over,
            (_, Some(Asks::Read)) => What::Read,
            (_, Some(Asks::Record)) => What::Record,
            (_, Some(Asks::Patch(patch))) => What::Patch(self.patch(patch)),
        };
        let said = match script.reports.into_iter().last() {
            Some((Asks::Patch(patch), applied)) => Some((self.patch(patch), applied)),
            _ => None,
        };
        Wants { what, said }
    }
}

/// Runs it until it has ended (true) or waits for an answer that is not in the list.
fn play(mut work: Pin<Box<dyn Future<Output = ()>>>, script: &Mutex<Script>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let Ok(runtime) = runtime else {
        return true;
    };
    runtime.block_on(async {
        loop {
            if poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await {
                return true;
            }
            let pause = {
                let mut script = lock(script);
                match (&script.asks, script.answers.front()) {
                    // It only rests.
                    (None, _) => Duration::from_millis(25),
                    (Some(_), Some(Told::Late)) => {
                        script.answers.pop_front();
                        script.asks = None;
                        Duration::from_secs(10)
                    }
                    (Some(_), _) => return false,
                }
            };
            tokio::time::advance(pause).await;
        }
    })
}
