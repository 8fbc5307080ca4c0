//! The transaction coordinator as the rest of the broker sees it.
//!
//! Finds the shard that a transactional id belongs to and asks it; says NOT_COORDINATOR where this broker
//! does not lead the id's partition, and COORDINATOR_LOAD_IN_PROGRESS while its log is being read. Holds no
//! transaction itself. A shard belongs to one leadership: when that ends, the shard is dropped at once, and
//! whoever it kept waiting is told NOT_COORDINATOR.

use super::markers::MarkerWriter;
use super::shard::Settings;
use super::task::{Command, Gauges, Task};
use super::types::*;
use crate::coordinator::find::{Finder, FoundCoordinator, StateTopic};
use crate::coordinator::hash::partition_of;
use crate::coordinator::log::{Leadership, StateLog};
use crate::coordinator::shards::Shards;
use crate::coordinator::write::Producer;
use async_trait::async_trait;
use leasehold_types::{BrokerId, ProducerId, TopicId};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Gives producer ids that nobody has.
#[async_trait]
pub trait FreshProducerIds: Send + Sync {
    /// One of them.
    async fn next(&self) -> Result<ProducerId, ErrorCode>;
}

/// What this broker coordinates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxnStats {
    /// Partitions of the transactions topic that are led and loaded.
    pub partitions: usize,
    /// Partitions that are still being loaded.
    pub loading: usize,
    pub transactional_ids: usize,
}

/// Coordinates the transactional ids whose `__transaction_state` partition this broker leads.
pub struct TxnCoordinator {
    settings: Settings,
    topic: Arc<dyn StateTopic>,
    finder: Finder,
    log: Arc<dyn StateLog>,
    markers: Arc<dyn MarkerWriter>,
    shards: Shards<Command, Gauges>,
    started: Instant,
}

impl TxnCoordinator {
    /// A coordinator that leads nothing yet.
    pub fn new(
        settings: Settings,
        topic: Arc<dyn StateTopic>,
        log: Arc<dyn StateLog>,
        markers: Arc<dyn MarkerWriter>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            finder: Finder::new(topic.clone()),
            topic,
            log,
            markers,
            shards: Shards::default(),
            started: Instant::now(),
        })
    }

    /// This broker leads a partition of the transactions topic from now on. Begins to load it.
    pub fn lead(&self, at: Leadership) {
        self.shards.lead(at, |commands, gauges| {
            let task = Task {
                at,
                settings: self.settings,
                log: self.log.clone(),
                markers: self.markers.clone(),
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

    /// Lets all transactions go: the broker stops.
    pub fn close(&self) {
        self.shards.close();
    }

    /// How much this broker coordinates.
    pub fn stats(&self) -> TxnStats {
        let mut stats = TxnStats::default();
        for gauges in self.shards.gauges() {
            match gauges.loaded.load(Ordering::Acquire) {
                true => stats.partitions += 1,
                false => stats.loading += 1,
            }
            stats.transactional_ids += gauges.transactional_ids.load(Ordering::Relaxed);
        }
        stats
    }

    /// FindCoordinator for one transactional id.
    pub async fn find(&self, key: &str) -> FoundCoordinator {
        self.finder.find(key).await
    }

    /// The broker that coordinates `id`, if there is one now.
    pub fn leader_for(&self, id: &str) -> Option<BrokerId> {
        let partitions = self.topic.partitions()?;
        let leader = self.topic.leader(partition_of(id, partitions))?;
        Some(leader.broker)
    }

    /// InitProducerId with a transactional id.
    pub async fn init(
        &self,
        request: InitRequest,
        ids: &dyn FreshProducerIds,
    ) -> Result<Producer, ErrorCode> {
        let id = request.transactional_id.clone();
        if id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let mut fresh = None;
        loop {
            let asked = request.clone();
            let answer = self
                .ask(&id, |reply| Command::Init(asked, fresh, reply))
                .await?;
            match (answer, fresh) {
                (InitAnswer::Done(producer), _) => return Ok(producer),
                (InitAnswer::Refused(error), _) => return Err(error),
                (InitAnswer::NeedsProducerId, None) => fresh = Some(ids.next().await?),
                (InitAnswer::NeedsProducerId, Some(_)) => {
                    return Err(ErrorCode::UnknownServerError);
                }
            }
        }
    }

    /// AddPartitionsToTxn of one transaction, AddOffsetsToTxn.
    pub async fn add(&self, request: AddRequest) -> ErrorCode {
        let id = request.transactional_id.clone();
        if id.is_empty() {
            return ErrorCode::InvalidRequest;
        }
        let answer = self.ask(&id, |reply| Command::Add(request, reply)).await;
        answer.unwrap_or_else(|error| error)
    }

    /// EndTxn: as which producer it goes on. Answers once the end is stored; the markers follow.
    pub async fn end(
        &self,
        request: EndRequest,
        ids: &dyn FreshProducerIds,
    ) -> Result<Producer, ErrorCode> {
        let id = request.transactional_id.clone();
        if id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let mut fresh = None;
        loop {
            let asked = request.clone();
            let answer = self
                .ask(&id, |reply| Command::End(asked, fresh, reply))
                .await?;
            match (answer, fresh) {
                (EndAnswer::Done(producer), _) => return Ok(producer),
                (EndAnswer::Refused(error), _) => return Err(error),
                (EndAnswer::NeedsProducerId, None) => fresh = Some(ids.next().await?),
                (EndAnswer::NeedsProducerId, Some(_)) => {
                    return Err(ErrorCode::UnknownServerError);
                }
            }
        }
    }

    /// Whether each partition is in the producer's transaction (KIP-890); in no promised order.
    pub async fn verify(&self, request: AddRequest) -> Vec<(String, i32, ErrorCode)> {
        let id = request.transactional_id.clone();
        let asked = request.partitions.clone();
        let answer = match id.is_empty() {
            true => Err(ErrorCode::InvalidRequest),
            false => self.ask(&id, |reply| Command::Verify(request, reply)).await,
        };
        answer.unwrap_or_else(|error| {
            let each = asked.into_iter().flat_map(|(topic, partitions)| {
                let one = move |p| (topic.clone(), p, error);
                partitions.into_iter().map(one)
            });
            each.collect()
        })
    }

    /// DescribeTransactions: one answer per id, in order.
    pub async fn describe(&self, ids: Vec<String>) -> Vec<Described> {
        let mut described = Vec::new();
        for id in ids {
            let asked = id.clone();
            let answer = match id.is_empty() {
                true => Err(ErrorCode::InvalidRequest),
                false => self.ask(&id, |reply| Command::Describe(asked, reply)).await,
            };
            described.push(answer.unwrap_or_else(|error| Described::refused(&id, error)));
        }
        described
    }

    /// ListTransactions: those that this broker coordinates, or an error.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<Listed>, ErrorCode> {
        let request = Arc::new(request);
        let mut listed = Vec::new();
        for partition in self.shards.partitions() {
            let asked = request.clone();
            match self
                .shards
                .ask(partition, |reply| Command::List(asked, reply))
                .await
            {
                Ok(more) => listed.extend(more),
                // Lost since: another broker lists its transactions.
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    /// Asks the shard of `id`.
    async fn ask<R>(
        &self,
        id: &str,
        command: impl FnOnce(oneshot::Sender<R>) -> Command,
    ) -> Result<R, ErrorCode> {
        let partitions = self.topic.partitions().ok_or(ErrorCode::NotCoordinator)?;
        self.shards.ask(partition_of(id, partitions), command).await
    }
}
