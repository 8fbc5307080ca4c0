//! The group coordinator as the rest of the broker sees it.
//!
//! Finds the shard that a group belongs to and asks it; says NOT_COORDINATOR where this broker does
//! not lead the group's partition, and COORDINATOR_LOAD_IN_PROGRESS while its log is being read. Holds
//! no group itself. A shard belongs to one leadership: when that ends, the shard is dropped at once,
//! and whoever it kept waiting is told NOT_COORDINATOR.

use super::cluster::Cluster;
use super::hash::partition_of;
use super::log::{Leadership, OffsetsLog};
use super::shard::Settings;
use super::task::{Command, Gauges, Task};
use super::types::*;
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Questions that may wait for a shard; more make their connections wait.
const QUEUE: usize = 1024;

/// What this broker coordinates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Partitions of the offsets topic that are led and loaded.
    pub partitions: usize,
    /// Partitions that are still being loaded.
    pub loading: usize,
    pub groups: usize,
    pub members: usize,
    pub offsets: usize,
}

struct Handle {
    at: Leadership,
    commands: mpsc::Sender<Command>,
    gauges: Arc<Gauges>,
    /// Ends the task when the handle is dropped.
    _guard: DropGuard,
}

/// Coordinates the groups whose `__consumer_offsets` partition this broker leads.
pub struct GroupCoordinator {
    pub(super) settings: Settings,
    session_timeouts: RangeInclusive<i32>,
    pub(super) cluster: Arc<dyn Cluster>,
    log: Arc<dyn OffsetsLog>,
    shards: RwLock<HashMap<i32, Handle>>,
    /// Held while somebody creates the offsets topic.
    pub(super) creating: Mutex<bool>,
    started: Instant,
}

impl GroupCoordinator {
    /// A coordinator that leads nothing yet.
    pub fn new(
        settings: Settings,
        session_timeouts: RangeInclusive<i32>,
        cluster: Arc<dyn Cluster>,
        log: Arc<dyn OffsetsLog>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            session_timeouts,
            cluster,
            log,
            shards: RwLock::new(HashMap::new()),
            creating: Mutex::new(false),
            started: Instant::now(),
        })
    }

    /// This broker leads a partition of the offsets topic from now on. Begins to load it.
    pub fn lead(&self, at: Leadership) {
        let mut shards = self.shards.write();
        if shards
            .get(&at.partition)
            .is_some_and(|handle| handle.at == at)
        {
            return;
        }
        let (sender, commands) = mpsc::channel(QUEUE);
        let gauges = Arc::new(Gauges::default());
        let cancel = CancellationToken::new();
        let task = Task {
            at,
            settings: self.settings,
            log: self.log.clone(),
            commands,
            gauges: gauges.clone(),
            started: self.started,
        };
        let cancelled = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = task.run() => {}
            }
        });
        let handle = Handle {
            at,
            commands: sender,
            gauges,
            _guard: cancel.drop_guard(),
        };
        shards.insert(at.partition, handle);
    }

    /// This broker leads the partition no longer, in whatever epoch it did.
    pub fn resign(&self, topic: TopicId, partition: i32) {
        let mut shards = self.shards.write();
        if let Some(handle) = shards.get(&partition)
            && handle.at.topic == topic
        {
            tracing::info!(partition, epoch = %handle.at.epoch, "the groups are let go");
            shards.remove(&partition);
        }
    }

    /// Lets all groups go: the broker stops.
    pub fn close(&self) {
        self.shards.write().clear();
    }

    /// Topics were deleted: the offsets committed for them are removed.
    pub fn topics_deleted(&self, names: HashSet<String>) {
        let names = Arc::new(names);
        for handle in self.shards.read().values() {
            let sent = handle
                .commands
                .try_send(Command::TopicsDeleted(names.clone()));
            // A shard that has ended has nothing to remove. One that is full must not hold up those
            // who tell it that its leadership is over.
            if let Err(TrySendError::Full(command)) = sent {
                let sender = handle.commands.clone();
                tokio::spawn(async move { sender.send(command).await });
            }
        }
    }

    /// How much this broker coordinates.
    pub fn stats(&self) -> GroupStats {
        let mut stats = GroupStats::default();
        for handle in self.shards.read().values() {
            let gauges = &handle.gauges;
            match gauges.loaded.load(Ordering::Acquire) {
                true => stats.partitions += 1,
                false => stats.loading += 1,
            }
            stats.groups += gauges.groups.load(Ordering::Relaxed);
            stats.members += gauges.members.load(Ordering::Relaxed);
            stats.offsets += gauges.offsets.load(Ordering::Relaxed);
        }
        stats
    }

    /// JoinGroup. Answers when the rebalance is complete, so it may take minutes.
    pub async fn join(&self, request: JoinRequest) -> JoinResponse {
        let member_id = request.member_id.clone();
        let refused = |error| JoinResponse::refused(&member_id, error);
        if request.group_id.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        if !self.session_timeouts.contains(&request.session_timeout_ms) {
            return refused(ErrorCode::InvalidSessionTimeout);
        }
        let fresh_id = fresh_member_id(&request);
        let group_id = request.group_id.clone();
        self.ask(&group_id, |reply| {
            Command::Join(Box::new(request), fresh_id, reply)
        })
        .await
        .unwrap_or_else(refused)
    }

    /// SyncGroup. Answers when the leader's assignment is stored.
    pub async fn sync(&self, request: SyncRequest) -> SyncResponse {
        if request.group_id.is_empty() {
            return SyncResponse::refused(ErrorCode::InvalidGroupId);
        }
        let group_id = request.group_id.clone();
        self.ask(&group_id, |reply| Command::Sync(request, reply))
            .await
            .unwrap_or_else(SyncResponse::refused)
    }

    /// Heartbeat.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> ErrorCode {
        if request.group_id.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let group_id = request.group_id.clone();
        match self
            .ask(&group_id, |reply| Command::Heartbeat(request, reply))
            .await
        {
            Ok(error) => error,
            // Sessions begin anew after the load: the member need not do anything.
            Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            Err(error) => error,
        }
    }

    /// LeaveGroup.
    pub async fn leave(&self, request: LeaveRequest) -> LeaveResponse {
        if request.group_id.is_empty() {
            return LeaveResponse::refused(ErrorCode::InvalidGroupId);
        }
        let group_id = request.group_id.clone();
        self.ask(&group_id, |reply| Command::Leave(request, reply))
            .await
            .unwrap_or_else(LeaveResponse::refused)
    }

    /// ListGroups. With an error, the groups of the partitions that are loaded come all the same.
    pub async fn list(&self, request: ListRequest) -> ListResponse {
        let request = Arc::new(request);
        let partitions: Vec<i32> = self.shards.read().keys().copied().collect();
        let mut response = ListResponse {
            error: ErrorCode::None,
            groups: Vec::new(),
        };
        for partition in partitions {
            let request = request.clone();
            match self
                .ask_shard(partition, |reply| Command::List(request, reply))
                .await
            {
                Ok(groups) => response.groups.extend(groups),
                // Lost since: another broker lists its groups.
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => response.error = error,
            }
        }
        response
    }

    /// DescribeGroups: one answer per id, in order.
    pub async fn describe(&self, api_version: i16, group_ids: Vec<String>) -> Vec<DescribedGroup> {
        let mut described = Vec::new();
        for id in group_ids {
            let asked = id.clone();
            let answer = self
                .ask(&id, |reply| Command::Describe(asked, api_version, reply))
                .await;
            described.push(answer.unwrap_or_else(|error| DescribedGroup::refused(&id, error)));
        }
        described
    }

    /// DeleteGroups: one answer per id, in order.
    pub async fn delete(&self, group_ids: Vec<String>) -> Vec<(String, ErrorCode)> {
        let mut deleted = Vec::new();
        for id in group_ids {
            let asked = id.clone();
            let answer = self.ask(&id, |reply| Command::Delete(asked, reply)).await;
            deleted.push((id, answer.unwrap_or_else(|error| error)));
        }
        deleted
    }

    /// OffsetCommit.
    pub async fn commit(&self, mut request: CommitRequest) -> CommitResponse {
        let unknown = self.take_out_unknown(&mut request);
        let order: Vec<String> = request
            .topics
            .iter()
            .map(|topic| topic.name.clone())
            .collect();
        if request
            .topics
            .iter()
            .all(|topic| topic.partitions.is_empty())
        {
            return merge(order, Vec::new(), unknown);
        }
        let group_id = request.group_id.clone();
        let asked: Vec<_> = request.all_partitions(ErrorCode::None);
        let answer = self
            .ask(&group_id, |reply| Command::Commit(request, reply))
            .await;
        let topics = match answer {
            Ok(response) => response.topics,
            Err(error) => super::shard::Reply::spread(asked, error).topics,
        };
        merge(order, topics, unknown)
    }

    /// OffsetFetch of one group.
    pub async fn fetch(&self, request: FetchRequest) -> FetchResponse {
        let group_id = request.group_id.clone();
        self.ask(&group_id, |reply| Command::Fetch(request, reply))
            .await
            .unwrap_or_else(|error| FetchResponse::refused(&group_id, error))
    }

    /// Offsets are kept for partitions that exist, only.
    fn take_out_unknown(&self, request: &mut CommitRequest) -> HashMap<(String, i32), ErrorCode> {
        let mut unknown = HashMap::new();
        for topic in &mut request.topics {
            let name = &topic.name;
            topic.partitions.retain(|commit| {
                let known = self.cluster.has_partition(name, commit.partition);
                if !known {
                    let key = (name.clone(), commit.partition);
                    unknown.insert(key, ErrorCode::UnknownTopicOrPartition);
                }
                known
            });
        }
        unknown
    }

    /// Asks the shard of `group_id`.
    async fn ask<R>(
        &self,
        group_id: &str,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Result<R, ErrorCode> {
        let partitions = self.cluster.offsets_partitions();
        let partitions = partitions.ok_or(ErrorCode::NotCoordinator)?;
        self.ask_shard(partition_of(group_id, partitions), command)
            .await
    }

    async fn ask_shard<R>(
        &self,
        partition: i32,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Result<R, ErrorCode> {
        let sender = {
            let shards = self.shards.read();
            let handle = shards.get(&partition).ok_or(ErrorCode::NotCoordinator)?;
            if !handle.gauges.loaded.load(Ordering::Acquire) {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            handle.commands.clone()
        };
        let (reply, answer) = oneshot::channel();
        let gone = ErrorCode::NotCoordinator;
        sender.send(command(reply)).await.map_err(|_| gone)?;
        // Without the sender the shard can see that nobody will ask it any more.
        drop(sender);
        answer.await.map_err(|_| gone)
    }
}

/// Kafka's form: what the client calls itself, and something that nobody can guess.
fn fresh_member_id(request: &JoinRequest) -> Arc<str> {
    let name = request.instance_id.as_deref().unwrap_or(&request.client_id);
    format!("{name}-{}", uuid::Uuid::new_v4()).into()
}

type Topics = Vec<(String, Vec<(i32, ErrorCode)>)>;

/// Puts the partitions that were taken out at the end of their topic.
fn merge(
    order: Vec<String>,
    answered: Topics,
    unknown: HashMap<(String, i32), ErrorCode>,
) -> CommitResponse {
    if unknown.is_empty() {
        return CommitResponse { topics: answered };
    }
    let mut topics: Topics = match answered.is_empty() {
        true => order.into_iter().map(|name| (name, Vec::new())).collect(),
        false => answered,
    };
    for ((topic, partition), error) in unknown {
        if let Some((_, partitions)) = topics.iter_mut().find(|(name, _)| *name == topic) {
            partitions.push((partition, error));
        }
    }
    CommitResponse { topics }
}
