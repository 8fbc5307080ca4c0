//! The task that owns one [`Shard`]: loads it from the log, then serves it until the leadership ends.
//!
//! Promises:
//! - serves only once all that was committed before the leadership is loaded;
//! - appends in the order in which the shard wrote, many writes in one batch where they come together;
//! - sends no marker before the end of its transaction is stored, and none after its leadership;
//! - ends without leaving anybody waiting: whoever is parked sees their reply dropped, which the
//!   coordinator turns into NOT_COORDINATOR;
//! - after a write of which nobody can tell whether it was stored, loads anew instead of guessing.

use super::markers::MarkerWriter;
use super::shard::{Output, Reply, Settings, Shard};
use super::store::Loaded;
use super::types::*;
use crate::coordinator::load::{load, surely_not_stored};
use crate::coordinator::log::{Leadership, StateLog};
use crate::coordinator::write::{Producer, WriteId, pack};
use crate::coordinator::{Now, Token};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use leasehold_types::seams::{HashMap, wall_ms};
use leasehold_types::{Offset, ProducerId};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Commands taken before what they want is appended.
const COMMANDS_AT_ONCE: usize = 256;
/// A deadline that no process lives to see; the clock cannot hold every number.
const MAX_SLEEP_MS: u64 = 1000 * 60 * 60 * 24 * 365 * 100;

/// A question and where its answer goes.
pub enum Command {
    Init(InitRequest, Option<ProducerId>, oneshot::Sender<InitAnswer>),
    Add(AddRequest, oneshot::Sender<ErrorCode>),
    End(EndRequest, Option<ProducerId>, oneshot::Sender<EndAnswer>),
    Verify(AddRequest, oneshot::Sender<Vec<(String, i32, ErrorCode)>>),
    Describe(String, oneshot::Sender<Described>),
    List(Arc<ListRequest>, oneshot::Sender<Vec<Listed>>),
}

/// What others may read of a shard without asking it.
#[derive(Debug, Default)]
pub struct Gauges {
    pub loaded: AtomicBool,
    pub transactional_ids: AtomicUsize,
}

impl crate::coordinator::shards::Gauges for Gauges {
    fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }
}

/// Why serving ended.
enum End {
    /// Nobody is left to ask.
    Over,
    /// It cannot be told whether a write was stored.
    InDoubt,
}

enum Parked {
    Init(oneshot::Sender<InitAnswer>),
    Change(oneshot::Sender<ErrorCode>),
    End(oneshot::Sender<EndAnswer>),
}

type Stored = (Vec<WriteId>, Result<Offset, ErrorCode>);
type Marked = (Arc<str>, Producer, Result<(), ErrorCode>);

/// The task's own things.
pub struct Task {
    pub at: Leadership,
    pub settings: Settings,
    pub log: Arc<dyn StateLog>,
    pub markers: Arc<dyn MarkerWriter>,
    pub commands: mpsc::Receiver<Command>,
    pub gauges: Arc<Gauges>,
    /// Zero of the shard's monotonic clock.
    pub started: Instant,
}

impl Task {
    /// Runs until the leadership is over. Dropping the future ends it at once.
    pub async fn run(mut self) {
        loop {
            self.gauges.loaded.store(false, Ordering::Release);
            let Some(loaded) = self.load().await else {
                return;
            };
            match self.serve(loaded).await {
                End::Over => return,
                End::InDoubt => {
                    let Leadership {
                        partition, epoch, ..
                    } = self.at;
                    tracing::warn!(partition, %epoch, "a write is in doubt; loading the transactions anew");
                }
            }
        }
    }

    /// Everything committed before this leadership began; `None` if it is over.
    async fn load(&self) -> Option<Loaded> {
        let begun = Instant::now();
        let mut loaded = Loaded::default();
        let take = |batch: &_, from| loaded.apply_batch(batch, from);
        let end = load(&*self.log, self.at, take).await?;
        let (records, skipped) = (loaded.records, loaded.skipped);
        let Leadership {
            partition, epoch, ..
        } = self.at;
        let took = begun.elapsed();
        tracing::info!(partition, %epoch, %end, records, skipped, ?took, "the transactions are loaded");
        Some(loaded)
    }

    async fn serve(&mut self, loaded: Loaded) -> End {
        let mut out = Output::default();
        let shard = Shard::new(self.settings, loaded.transactions, self.now(), &mut out);
        let mut serving = Serving {
            shard,
            parked: HashMap::default(),
            next_token: 1,
            stored: FuturesOrdered::new(),
            marked: FuturesUnordered::new(),
        };
        self.gauges.loaded.store(true, Ordering::Release);
        loop {
            serving.settle(&mut out, self);
            let due = serving.due(self.started);
            tokio::select! {
                biased;
                Some((ids, result)) = serving.stored.next() => {
                    let error = match result {
                        Ok(_) => None,
                        Err(error) if surely_not_stored(error) => Some(error),
                        Err(error) => {
                            tracing::debug!(%error, "a write is in doubt");
                            return serving.abandon().await;
                        }
                    };
                    for id in ids {
                        serving.shard.written(id, error, self.now(), &mut out);
                    }
                }
                Some((id, producer, result)) = serving.marked.next() => match result {
                    Ok(()) => serving.shard.ended(&id, producer, self.now(), &mut out),
                    // Another coordinator has taken over; it sees to the markers.
                    Err(error) => {
                        let (producer, epoch) = (producer.id, producer.epoch);
                        tracing::warn!(transactional_id = %id, %producer, epoch, %error, "the markers of a transaction are refused");
                    }
                },
                command = self.commands.recv() => {
                    let Some(command) = command else { return End::Over };
                    let now = self.now();
                    serving.command(command, now, &mut out);
                    // What is waiting already shares the next batch.
                    for _ in 1..COMMANDS_AT_ONCE {
                        let Ok(command) = self.commands.try_recv() else { break };
                        serving.command(command, now, &mut out);
                    }
                }
                () = tokio::time::sleep_until(due) => {}
            }
            serving.shard.tick(self.now(), &mut out);
        }
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            mono,
            wall: wall_ms(),
        }
    }
}

struct Serving {
    shard: Shard,
    parked: HashMap<Token, Parked>,
    next_token: u64,
    stored: FuturesOrdered<BoxFuture<'static, Stored>>,
    marked: FuturesUnordered<BoxFuture<'static, Marked>>,
}

impl Serving {
    fn park(&mut self, waiter: Parked) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.parked.insert(token, waiter);
        token
    }

    // A receiver that is gone does not want its answer: its client has hung up.
    fn command(&mut self, command: Command, now: Now, out: &mut Output) {
        match command {
            Command::Init(request, fresh, reply) => {
                let token = self.park(Parked::Init(reply));
                self.shard.init(&request, fresh, token, now, out);
            }
            Command::Add(request, reply) => {
                let token = self.park(Parked::Change(reply));
                self.shard.add(&request, token, now, out);
            }
            Command::End(request, fresh, reply) => {
                let token = self.park(Parked::End(reply));
                self.shard.end(&request, fresh, token, now, out);
            }
            Command::Verify(request, reply) => {
                let _ = reply.send(self.shard.verify(&request));
            }
            Command::Describe(id, reply) => {
                let _ = reply.send(self.shard.describe(&id));
            }
            Command::List(request, reply) => {
                let _ = reply.send(self.shard.list(&request, now));
            }
        }
    }

    /// Sends the answers, appends the writes, sets the markers going.
    fn settle(&mut self, out: &mut Output, task: &Task) {
        for (token, reply) in out.replies.drain(..) {
            match (self.parked.remove(&token), reply) {
                (Some(Parked::Init(waiter)), Reply::Init(answer)) => {
                    let _ = waiter.send(answer);
                }
                (Some(Parked::Change(waiter)), Reply::Changed(error)) => {
                    let _ = waiter.send(error);
                }
                (Some(Parked::End(waiter)), Reply::Ended(answer)) => {
                    let _ = waiter.send(answer);
                }
                _ => {}
            }
        }
        for packed in pack(out.writes.drain(..), wall_ms()) {
            let stored = task.log.append(task.at, packed.batch, packed.verified);
            self.stored
                .push_back(Box::pin(async move { (packed.ids, stored.await) }));
        }
        for ending in out.endings.drain(..) {
            let (id, producer) = (ending.transactional_id.clone(), ending.producer);
            let written = task.markers.write(ending, task.at.epoch);
            self.marked
                .push(Box::pin(async move { (id, producer, written.await) }));
        }
        let gauge = &task.gauges.transactional_ids;
        gauge.store(self.shard.len(), Ordering::Relaxed);
    }

    /// When there is something to do, even if nothing happens.
    fn due(&self, started: Instant) -> Instant {
        let deadline = self.shard.next_deadline().unwrap_or(MAX_SLEEP_MS);
        started + Duration::from_millis(deadline.min(MAX_SLEEP_MS))
    }

    /// Lets those who wait go, and waits until no append of ours is on its way any more.
    async fn abandon(&mut self) -> End {
        self.parked.clear();
        self.marked.clear();
        while self.stored.next().await.is_some() {}
        End::InDoubt
    }
}
