//! The group coordinator as the rest of the broker sees it.
//!
//! Finds the shard that a group belongs to and asks it; says NOT_COORDINATOR where this broker does
//! not lead the group's partition, and COORDINATOR_LOAD_IN_PROGRESS while its log is being read. Holds
//! no group itself. A shard belongs to one leadership: when that ends, the shard is dropped at once,
//! and whoever it kept waiting is told NOT_COORDINATOR.

use super::cluster::Cluster;
use super::consumer::Refused;
use super::find::Offsets;
use super::hash::partition_of;
use super::log::{Leadership, StateLog};
use super::shard::Settings;
use super::task::{Command, Gauges, Task};
use super::types::*;
use crate::coordinator::find::Finder;
use crate::coordinator::shards::Shards;
use leasehold_metadata::image::Image;
use leasehold_types::TopicId;
use leasehold_types::seams::{self, HashMap};
use leasehold_wire::ErrorCode;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::Instant;

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

/// Coordinates the groups whose `__consumer_offsets` partition this broker leads.
pub struct GroupCoordinator {
    pub(super) settings: Settings,
    session_timeouts: RangeInclusive<i32>,
    pub(super) cluster: Arc<dyn Cluster>,
    log: Arc<dyn StateLog>,
    pub(super) shards: Shards<Command, Gauges>,
    pub(super) finder: Finder,
    started: Instant,
}

impl GroupCoordinator {
    /// A coordinator that leads nothing yet.
    pub fn new(
        settings: Settings,
        session_timeouts: RangeInclusive<i32>,
        cluster: Arc<dyn Cluster>,
        log: Arc<dyn StateLog>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            session_timeouts,
            finder: Finder::new(Arc::new(Offsets(cluster.clone()))),
            cluster,
            log,
            shards: Shards::default(),
            started: Instant::now(),
        })
    }

    /// This broker leads a partition of the offsets topic from now on. Begins to load it.
    pub fn lead(&self, at: Leadership) {
        self.shards.lead(at, |commands, gauges| {
            let task = Task {
                at,
                settings: self.settings,
                cluster: self.cluster.clone(),
                log: self.log.clone(),
                commands,
                gauges,
                started: self.started,
            };
            task.run()
        });
    }

    /// This broker leads the partition no longer, in whatever epoch it did.
    pub fn resign(&self, topic: TopicId, partition: i32) {
        self.shards.resign(topic, partition);
    }

    /// Lets all groups go: the broker stops.
    pub fn close(&self) {
        self.shards.close();
    }

    /// Topics were deleted: the offsets committed for them are removed.
    pub fn topics_deleted(&self, names: HashSet<String>) {
        let names = Arc::new(names);
        self.tell_all(|| Command::TopicsDeleted(names.clone()));
    }

    /// Topics were created, grew or were deleted: the groups that consume them learn of it.
    pub fn topics_changed(&self, image: Arc<Image>) {
        self.tell_all(|| Command::TopicsChanged(image.clone()));
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for sender in self.shards.senders() {
            // A shard that has ended has nothing to remove. One that is full must not hold up those
            // who tell it that its leadership is over.
            let sent = sender.try_send(command());
            if let Err(TrySendError::Full(command)) = sent {
                tokio::spawn(async move { sender.send(command).await });
            }
        }
    }

    /// How much this broker coordinates.
    pub fn stats(&self) -> GroupStats {
        let mut stats = GroupStats::default();
        for gauges in self.shards.gauges() {
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
        let partitions = self.shards.partitions();
        let mut response = ListResponse {
            error: ErrorCode::None,
            groups: Vec::new(),
        };
        for partition in partitions {
            let request = request.clone();
            match self
                .shards
                .ask(partition, |reply| Command::List(request, reply))
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

    /// ConsumerGroupHeartbeat.
    pub async fn consumer_heartbeat(
        &self,
        request: ConsumerHeartbeatRequest,
    ) -> ConsumerHeartbeatResponse {
        if request.group_id.is_empty() {
            let message = "GroupId can't be empty.";
            let refused = Refused::new(ErrorCode::InvalidRequest, message);
            return ConsumerHeartbeatResponse::refused(refused);
        }
        let group_id = request.group_id.clone();
        let fresh_id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        self.ask(&group_id, |reply| {
            Command::ConsumerHeartbeat(Box::new(request), fresh_id, reply)
        })
        .await
        .unwrap_or_else(ConsumerHeartbeatResponse::failed)
    }

    /// ConsumerGroupDescribe: one answer per id, in order.
    pub async fn consumer_describe(&self, group_ids: Vec<String>) -> Vec<ConsumerDescribedGroup> {
        let mut described = Vec::new();
        for id in group_ids {
            let asked = id.clone();
            let refused = |error| ConsumerDescribedGroup::refused(&id, error, None);
            if id.is_empty() {
                described.push(refused(ErrorCode::InvalidGroupId));
                continue;
            }
            let answer = self.ask(&id, |reply| Command::ConsumerDescribe(asked, reply));
            described.push(answer.await.unwrap_or_else(refused));
        }
        described
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

    /// OffsetDelete. `Err`: nothing of it was done.
    pub async fn delete_offsets(
        &self,
        request: DeleteOffsetsRequest,
    ) -> Result<CommitResponse, ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let group_id = request.group_id.clone();
        self.ask(&group_id, |reply| Command::DeleteOffsets(request, reply))
            .await?
    }

    /// OffsetFetch of one group.
    pub async fn fetch(&self, request: FetchRequest) -> FetchResponse {
        let group_id = request.group_id.clone();
        self.ask(&group_id, |reply| Command::Fetch(request, reply))
            .await
            .unwrap_or_else(|error| FetchResponse::refused(&group_id, error))
    }

    /// Offsets are kept for partitions that exist, only.
    pub(super) fn take_out_unknown(
        &self,
        request: &mut CommitRequest,
    ) -> HashMap<(String, i32), ErrorCode> {
        let mut unknown = HashMap::default();
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
    pub(super) async fn ask<R>(
        &self,
        group_id: &str,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Result<R, ErrorCode> {
        let partitions = self.cluster.offsets_partitions();
        let partitions = partitions.ok_or(ErrorCode::NotCoordinator)?;
        self.shards
            .ask(partition_of(group_id, partitions), command)
            .await
    }
}

/// Kafka's form: what the client calls itself, and something that nobody can guess.
fn fresh_member_id(request: &JoinRequest) -> Arc<str> {
    let name = request.instance_id.as_deref().unwrap_or(&request.client_id);
    let random = uuid::Builder::from_random_bytes(seams::random_u128().to_be_bytes());
    format!("{name}-{}", random.into_uuid()).into()
}

pub(super) type Topics = Vec<(String, Vec<(i32, ErrorCode)>)>;

/// Puts the partitions that were taken out at the end of their topic.
pub(super) fn merge(
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
