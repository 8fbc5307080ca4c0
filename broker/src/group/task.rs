//! The task that owns one [`Shard`]: loads it from the log, then serves it until the leadership ends.
//!
//! Promises:
//! - serves only once all that was committed before the leadership is loaded;
//! - appends in the order in which the shard wrote, many writes in one batch where they come together;
//! - ends without leaving anybody waiting: whoever is parked sees their reply dropped, which the
//!   coordinator turns into NOT_COORDINATOR;
//! - after a write of which nobody can tell whether it was stored, loads anew instead of guessing.

use super::log::{Leadership, OffsetsLog};
use super::shard::{Output, Reply, Settings, Shard, Taken, Write, WriteId};
use super::state::{Answer, Now, Token};
use super::store::loaded::Loaded;
use super::types::*;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use leasehold_log::batch::{RecordBatchBuilder, batches};
use leasehold_types::Offset;
use leasehold_wire::ErrorCode;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Writes that come together go into batches of about this size.
const BATCH_TARGET: usize = 256 * 1024;
/// Commands taken before what they want is appended.
const COMMANDS_AT_ONCE: usize = 256;
/// How often the gauges are set, at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A deadline that no process lives to see; the clock cannot hold every number.
const MAX_SLEEP_MS: u64 = 1000 * 60 * 60 * 24 * 365 * 100;
/// Pause after a read of the log that failed while the leadership still stands.
const READ_RETRY: Duration = Duration::from_millis(100);

/// A question and where its answer goes.
pub enum Command {
    Join(Box<JoinRequest>, Arc<str>, oneshot::Sender<JoinResponse>),
    Sync(SyncRequest, oneshot::Sender<SyncResponse>),
    Heartbeat(HeartbeatRequest, oneshot::Sender<ErrorCode>),
    Leave(LeaveRequest, oneshot::Sender<LeaveResponse>),
    Commit(CommitRequest, oneshot::Sender<CommitResponse>),
    Fetch(FetchRequest, oneshot::Sender<FetchResponse>),
    List(Arc<ListRequest>, oneshot::Sender<Vec<ListedGroup>>),
    Describe(String, i16, oneshot::Sender<DescribedGroup>),
    Delete(String, oneshot::Sender<ErrorCode>),
    TopicsDeleted(Arc<HashSet<String>>),
}

/// What others may read of a shard without asking it.
#[derive(Debug, Default)]
pub struct Gauges {
    pub loaded: AtomicBool,
    pub groups: AtomicUsize,
    pub members: AtomicUsize,
    pub offsets: AtomicUsize,
}

/// Why serving ended.
enum End {
    /// Nobody is left to ask.
    Over,
    /// It cannot be told whether a write was stored.
    InDoubt,
}

enum Parked {
    Join(oneshot::Sender<JoinResponse>),
    Sync(oneshot::Sender<SyncResponse>),
    Commit(Taken, oneshot::Sender<CommitResponse>),
    Delete(oneshot::Sender<ErrorCode>),
}

type Stored = (Vec<WriteId>, Result<(), ErrorCode>);

/// The task's own things.
pub struct Task {
    pub at: Leadership,
    pub settings: Settings,
    pub log: Arc<dyn OffsetsLog>,
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
                    tracing::warn!(partition, %epoch, "a write is in doubt; loading the groups anew");
                }
            }
        }
    }

    /// Everything committed before this leadership began; `None` if it is over.
    async fn load(&self) -> Option<Loaded> {
        let begun = Instant::now();
        let mut loaded = Loaded::default();
        let mut next = self.log.bounds(self.at)?.log_start;
        // Nobody else appends in this epoch, and we do not while we load. Waiting until all of it is
        // committed keeps an offset from being shown that a later leader may not have.
        let end = self.log.bounds(self.at)?.log_end;
        loop {
            next = next.max(self.log.bounds(self.at)?.log_start);
            if next >= end {
                break;
            }
            match self.log.read(self.at, next).await {
                Ok(bytes) => next = fold(&mut loaded, bytes, next),
                Err(error) => {
                    let Leadership {
                        partition, epoch, ..
                    } = self.at;
                    tracing::debug!(partition, %epoch, %error, offset = %next, "cannot read the groups yet");
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
        }
        let (records, skipped) = loaded.counts();
        let Leadership {
            partition, epoch, ..
        } = self.at;
        let took = begun.elapsed();
        tracing::info!(partition, %epoch, %end, records, skipped, ?took, "the groups are loaded");
        Some(loaded)
    }

    async fn serve(&mut self, loaded: Loaded) -> End {
        let mut out = Output::default();
        let shard = Shard::new(self.settings, loaded.into_groups(), self.now(), &mut out);
        let mut serving = Serving {
            shard,
            parked: HashMap::new(),
            next_token: 1,
            stored: FuturesOrdered::new(),
            count_at: Some(Instant::now()),
        };
        self.gauges.loaded.store(true, Ordering::Release);
        loop {
            serving.settle(&mut out, self);
            let due = serving.due(self.started);
            tokio::select! {
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
                Some((ids, result)) = serving.stored.next() => {
                    let error = match result {
                        Ok(()) => None,
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
                () = tokio::time::sleep_until(due) => {}
            }
            serving.shard.tick(self.now(), &mut out);
        }
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            mono,
            wall: wall_clock(),
        }
    }
}

struct Serving {
    shard: Shard,
    parked: HashMap<Token, Parked>,
    next_token: u64,
    stored: FuturesOrdered<BoxFuture<'static, Stored>>,
    /// When the gauges are to be set next; `None` while nothing has changed.
    count_at: Option<Instant>,
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
            Command::Join(request, fresh_id, reply) => {
                let token = self.park(Parked::Join(reply));
                self.shard.join(&request, fresh_id, token, now, out);
            }
            Command::Sync(request, reply) => {
                let token = self.park(Parked::Sync(reply));
                self.shard.sync(&request, token, now, out);
            }
            Command::Heartbeat(request, reply) => {
                let _ = reply.send(self.shard.heartbeat(&request, now, out));
            }
            Command::Leave(request, reply) => {
                let _ = reply.send(self.shard.leave(&request, now, out));
            }
            Command::Commit(request, reply) => {
                let token = Token(self.next_token);
                self.next_token += 1;
                let (taken, waits) = self.shard.commit(&request, token, now, out);
                match waits {
                    Some(token) => drop(self.parked.insert(token, Parked::Commit(taken, reply))),
                    None => drop(reply.send(CommitResponse { topics: taken })),
                }
            }
            Command::Fetch(request, reply) => {
                let _ = reply.send(self.shard.fetch(&request));
            }
            Command::List(request, reply) => {
                let _ = reply.send(self.shard.list(&request));
            }
            Command::Describe(group_id, version, reply) => {
                let _ = reply.send(self.shard.describe(&group_id, version));
            }
            Command::Delete(group_id, reply) => {
                let token = self.park(Parked::Delete(reply));
                if let Err(error) = self.shard.delete(&group_id, token, now, out) {
                    out.replies.push((token, Reply::Delete(error)));
                }
            }
            Command::TopicsDeleted(topics) => self.shard.topics_deleted(&topics, now, out),
        }
    }

    /// Sends the answers, appends the writes, and shows how much there is.
    fn settle(&mut self, out: &mut Output, task: &Task) {
        for (token, reply) in out.replies.drain(..) {
            match (self.parked.remove(&token), reply) {
                (Some(Parked::Join(waiter)), Reply::Group(Answer::Join(response))) => {
                    let _ = waiter.send(response);
                }
                (Some(Parked::Sync(waiter)), Reply::Group(Answer::Sync(response))) => {
                    let _ = waiter.send(response);
                }
                (Some(Parked::Commit(taken, waiter)), Reply::Commit(error)) => {
                    let _ = waiter.send(Reply::spread(taken, error));
                }
                (Some(Parked::Delete(waiter)), Reply::Delete(error)) => {
                    let _ = waiter.send(error);
                }
                // Nobody waits for what the coordinator does by itself.
                _ => {}
            }
        }
        for (ids, batch) in pack(out.writes.drain(..), wall_clock()) {
            let stored = task.log.append(task.at, batch);
            self.stored
                .push_back(Box::pin(async move { (ids, stored.await) }));
        }
        self.show(&task.gauges);
    }

    /// Counting looks at every group, so it is done once in a while, however much happens.
    fn show(&mut self, gauges: &Gauges) {
        let now = Instant::now();
        match self.count_at {
            Some(at) if at <= now => {
                let counts = self.shard.counts();
                gauges.groups.store(counts.groups, Ordering::Relaxed);
                gauges.members.store(counts.members, Ordering::Relaxed);
                gauges.offsets.store(counts.offsets, Ordering::Relaxed);
                self.count_at = None;
            }
            Some(_) => {}
            None => self.count_at = Some(now + COUNT_EVERY),
        }
    }

    /// When there is something to do, even if nothing happens.
    fn due(&self, started: Instant) -> Instant {
        let deadline = self.shard.next_deadline().unwrap_or(MAX_SLEEP_MS);
        let shard = started + Duration::from_millis(deadline.min(MAX_SLEEP_MS));
        self.count_at.map_or(shard, |at| at.min(shard))
    }

    /// Lets those who wait go, and waits until no append of ours is on its way any more.
    async fn abandon(&mut self) -> End {
        self.parked.clear();
        while self.stored.next().await.is_some() {}
        End::InDoubt
    }
}

/// Refusals that come before anything is appended.
fn surely_not_stored(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotEnoughReplicas
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage
            | ErrorCode::InvalidRecord
            | ErrorCode::InvalidTimestamp
    )
}

fn wall_clock() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Puts writes into batches, in order; a write is never split.
fn pack(writes: impl Iterator<Item = Write>, now: i64) -> Vec<(Vec<WriteId>, Bytes)> {
    let mut packed = Vec::new();
    let mut builder = RecordBatchBuilder::new();
    let mut ids = Vec::new();
    for write in writes {
        let size = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            key.len() + value.as_ref().map_or(0, Vec::len) + 32
        };
        let added: usize = write.records.iter().map(size).sum();
        if !builder.is_empty() && builder.size() + added > BATCH_TARGET {
            let full = std::mem::take(&mut builder);
            packed.push((std::mem::take(&mut ids), full.build()));
        }
        for (key, value) in &write.records {
            builder.push(now, Some(key), value.as_deref());
        }
        ids.push(write.id);
    }
    if !builder.is_empty() {
        packed.push((ids, builder.build()));
    }
    packed
}

/// Applies the records of `bytes` from `next` on; returns the offset behind them.
fn fold(loaded: &mut Loaded, bytes: Bytes, mut next: Offset) -> Offset {
    for batch in batches(bytes) {
        let Ok(batch) = batch else {
            break;
        };
        let after = batch.header.next_offset();
        if after <= next {
            continue;
        }
        // Neither markers nor transactions are ever written here by a broker. They come to the log
        // uncompressed, too; but the topic may have a `compression.type` of its own.
        if batch.header.is_control() || batch.header.is_transactional() {
            loaded.skip();
        } else if let Ok(records) = batch.unpacked().and_then(|batch| batch.records()) {
            for record in records {
                match record {
                    Ok(record) if record.offset >= next => {
                        loaded.apply(record.key.as_deref(), record.value.as_deref());
                    }
                    Ok(_) => {}
                    Err(_) => loaded.skip(),
                }
            }
        } else {
            loaded.skip();
        }
        next = after;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::{Compression, LogConfig, LogDir};
    use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch, TopicId};

    #[test]
    fn what_a_topic_packed_in_its_own_codec_is_read_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let dir = LogDir::open(folder.path(), &ClusterId("c".into()), BrokerId(0)).unwrap();
        dir.begin(Incarnation(1)).unwrap();
        dir.confirm(Incarnation(1)).unwrap();
        for (partition, compression) in [(0, Compression::Producer), (1, Compression::Zstd)] {
            let config = LogConfig {
                compression,
                ..LogConfig::default()
            };
            let log = dir
                .open_partition(TopicId::random(), partition, config)
                .unwrap();
            log.begin_epoch(LeaderEpoch(0)).unwrap();
            let mut batch = RecordBatchBuilder::new();
            batch.push(1, Some(b"a"), None).push(1, Some(b"b"), None);
            log.append_leader(&batch.build(), LeaderEpoch(0), 1)
                .unwrap();
            let bytes = log.read(Offset(0), 1000, Offset(2), true).unwrap();
            let mut loaded = Loaded::default();
            assert_eq!(fold(&mut loaded, bytes, Offset(0)), Offset(2));
            assert_eq!(loaded.counts().0, 2, "{compression:?}");
        }
    }
}
