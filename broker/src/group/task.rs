//! The task that owns one [`Shard`]: loads it from the log, then serves it until the leadership ends.
//!
//! Promises:
//! - serves only once all that was committed before the leadership is loaded;
//! - appends in the order in which the shard wrote, many writes in one batch where they come together;
//! - ends without leaving anybody waiting: whoever is parked sees their reply dropped, which the
//!   coordinator turns into NOT_COORDINATOR;
//! - after a write of which nobody can tell whether it was stored, loads anew instead of guessing.

use super::cluster::Cluster;
use super::log::{Leadership, StateLog};
use super::shard::{Output, Reply, Settings, Shard, Taken, WriteId};
use super::state::{Answer, Now, Token};
use super::store::loaded::Loaded;
use super::types::*;
use crate::coordinator::load::{load, surely_not_stored};
use crate::coordinator::write::pack;
use crate::replica::AppendedMarker;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use leasehold_log::batch::Batch;
use leasehold_metadata::image::Image;
use leasehold_types::Offset;
use leasehold_types::seams::{self, HashMap};
use leasehold_wire::ErrorCode;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Commands taken before what they want is appended.
const COMMANDS_AT_ONCE: usize = 256;
/// How often the gauges are set, at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A deadline that no process lives to see; the clock cannot hold every number.
const MAX_SLEEP_MS: u64 = 1000 * 60 * 60 * 24 * 365 * 100;

/// A question and where its answer goes.
pub enum Command {
    Join(Box<JoinRequest>, Arc<str>, oneshot::Sender<JoinResponse>),
    Sync(SyncRequest, oneshot::Sender<SyncResponse>),
    Heartbeat(HeartbeatRequest, oneshot::Sender<ErrorCode>),
    Leave(LeaveRequest, oneshot::Sender<LeaveResponse>),
    Commit(CommitRequest, oneshot::Sender<CommitResponse>),
    CommitInTransaction(TxnCommitRequest, oneshot::Sender<CommitResponse>),
    TransactionEnded(AppendedMarker),
    DeleteOffsets(
        DeleteOffsetsRequest,
        oneshot::Sender<Result<CommitResponse, ErrorCode>>,
    ),
    Fetch(FetchRequest, oneshot::Sender<FetchResponse>),
    List(Arc<ListRequest>, oneshot::Sender<Vec<ListedGroup>>),
    Describe(String, i16, oneshot::Sender<DescribedGroup>),
    Delete(String, oneshot::Sender<ErrorCode>),
    ConsumerHeartbeat(
        Box<ConsumerHeartbeatRequest>,
        Arc<str>,
        oneshot::Sender<ConsumerHeartbeatResponse>,
    ),
    ConsumerDescribe(String, oneshot::Sender<ConsumerDescribedGroup>),
    TopicsDeleted(Arc<HashSet<String>>),
    TopicsChanged(Arc<Image>),
}

/// What others may read of a shard without asking it.
#[derive(Debug, Default)]
pub struct Gauges {
    pub loaded: AtomicBool,
    pub groups: AtomicUsize,
    pub members: AtomicUsize,
    pub offsets: AtomicUsize,
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
    Join(oneshot::Sender<JoinResponse>),
    Sync(oneshot::Sender<SyncResponse>),
    Commit(Taken, oneshot::Sender<CommitResponse>),
    DeleteOffsets(Taken, oneshot::Sender<Result<CommitResponse, ErrorCode>>),
    Delete(oneshot::Sender<ErrorCode>),
    ConsumerHeartbeat(oneshot::Sender<ConsumerHeartbeatResponse>),
}

type Stored = (Vec<WriteId>, Result<Offset, ErrorCode>);

/// The task's own things.
pub struct Task {
    pub at: Leadership,
    pub settings: Settings,
    pub cluster: Arc<dyn Cluster>,
    pub log: Arc<dyn StateLog>,
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
        let end = load(&*self.log, self.at, |batch, from| {
            fold(&mut loaded, batch, from);
        })
        .await?;
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
        // Whatever changes after this comes as a command.
        let image = self.cluster.image();
        let (groups, open) = loaded.into_parts();
        let shard = Shard::new(self.settings, image, groups, open, self.now(), &mut out);
        let mut serving = Serving {
            shard,
            parked: HashMap::default(),
            next_token: 1,
            stored: FuturesOrdered::new(),
            count_at: Some(Instant::now()),
        };
        self.gauges.loaded.store(true, Ordering::Release);
        loop {
            serving.settle(&mut out, self);
            let due = serving.due(self.started);
            tokio::select! {
                // What is stored is shown before the next question is taken; there is never more of it than of those.
                biased;
                Some((ids, result)) = serving.stored.next() => {
                    let error = match result {
                        Ok(at) => {
                            ids.iter().for_each(|id| serving.shard.stored_at(*id, at));
                            None
                        }
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
            wall: seams::wall_ms(),
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
            Command::CommitInTransaction(request, reply) => {
                let token = Token(self.next_token);
                self.next_token += 1;
                let (taken, waits) = self.shard.commit_in_transaction(&request, token, now, out);
                match waits {
                    Some(token) => drop(self.parked.insert(token, Parked::Commit(taken, reply))),
                    None => drop(reply.send(CommitResponse { topics: taken })),
                }
            }
            Command::TransactionEnded(marker) => {
                let (producer, commit) = (marker.marker.producer_id, marker.marker.committed);
                self.shard
                    .transaction_ended(producer, marker.offset, commit, now);
            }
            Command::DeleteOffsets(request, reply) => {
                let token = Token(self.next_token);
                self.next_token += 1;
                match self.shard.delete_offsets(&request, token, now, out) {
                    Ok((taken, Some(token))) => {
                        let waiter = Parked::DeleteOffsets(taken, reply);
                        self.parked.insert(token, waiter);
                    }
                    Ok((topics, None)) => drop(reply.send(Ok(CommitResponse { topics }))),
                    Err(error) => drop(reply.send(Err(error))),
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
            Command::ConsumerHeartbeat(request, fresh_id, reply) => {
                let token = self.park(Parked::ConsumerHeartbeat(reply));
                self.shard
                    .consumer_heartbeat(*request, fresh_id, token, now, out);
            }
            Command::ConsumerDescribe(group_id, reply) => {
                let _ = reply.send(self.shard.consumer_describe(&group_id, now));
            }
            Command::TopicsChanged(image) => self.shard.topics_changed(image, now, out),
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
                (Some(Parked::DeleteOffsets(taken, waiter)), Reply::Commit(error)) => {
                    let _ = waiter.send(Ok(Reply::spread(taken, error)));
                }
                (Some(Parked::Delete(waiter)), Reply::Delete(error)) => {
                    let _ = waiter.send(error);
                }
                (Some(Parked::ConsumerHeartbeat(waiter)), Reply::ConsumerHeartbeat(response)) => {
                    let _ = waiter.send(response);
                }
                // Nobody waits for what the coordinator does by itself.
                _ => {}
            }
        }
        for packed in pack(out.writes.drain(..), seams::wall_ms()) {
            let stored = task.log.append(task.at, packed.batch, packed.verified);
            self.stored
                .push_back(Box::pin(async move { (packed.ids, stored.await) }));
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

/// Applies the records of `batch` from `from` on.
fn fold(loaded: &mut Loaded, batch: &Batch, from: Offset) {
    // What a broker writes comes to the log uncompressed; but the topic may have a `compression.type`
    // of its own.
    if let Ok(records) = batch.unpacked().and_then(|batch| batch.records()) {
        for record in records {
            match record {
                Ok(record) if record.offset >= from => {
                    loaded.apply_of(
                        &batch.header,
                        record.offset,
                        record.key.as_deref(),
                        record.value.as_deref(),
                    );
                }
                Ok(_) => {}
                Err(_) => loaded.skip(),
            }
        }
    } else {
        loaded.skip();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::load::each;
    use leasehold_log::batch::RecordBatchBuilder;
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
            let mut take = |batch: &Batch, from| fold(&mut loaded, batch, from);
            assert_eq!(each(bytes, Offset(0), &mut take), Offset(2));
            assert_eq!(loaded.counts().0, 2, "{compression:?}");
        }
    }

    /// Kafka's own figure for a partition that many groups commit to. Timed in release builds only.
    #[test]
    fn a_hundred_thousand_offsets_are_loaded_within_a_second() {
        use crate::group::store::records::OffsetValue;
        let mut log = Vec::new();
        for group in 0..100 {
            let mut batch = RecordBatchBuilder::new();
            for partition in 0..1000 {
                let key = crate::group::store::records::Key::Offset {
                    group: format!("group-{group}"),
                    topic: format!("topic-{}", partition % 10),
                    partition,
                };
                let value = OffsetValue {
                    offset: 7,
                    leader_epoch: 1,
                    metadata: String::new(),
                    commit_timestamp: 1,
                    expire_timestamp: None,
                };
                let (key, value) = (key.encode().unwrap(), value.encode().unwrap());
                batch.push(1, Some(&key), Some(&value));
            }
            log.push(batch.build());
        }
        let begun = Instant::now();
        let mut loaded = Loaded::default();
        for bytes in log {
            let mut take = |batch: &Batch, from| fold(&mut loaded, batch, from);
            each(bytes, Offset(0), &mut take);
        }
        let now = Now { mono: 0, wall: 1 };
        let settings = crate::group::wiring::default_settings();
        let image = Arc::new(Image::genesis(ClusterId("c".into())));
        let (groups, open) = loaded.into_parts();
        let shard = Shard::new(settings, image, groups, open, now, &mut Output::default());
        let took = begun.elapsed();
        println!("100,000 offsets loaded in {took:?}");
        assert_eq!(shard.counts().offsets, 100_000);
        if cfg!(not(debug_assertions)) {
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
    }
}
