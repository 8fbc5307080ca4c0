//! The coordinator over a log in memory, with its tasks and its clock.

use super::coordinator::{FreshProducerIds, TxnCoordinator};
use super::markers::MarkerWriter;
use super::shard::Settings;
use super::types::*;
use crate::coordinator::find::{Endpoint, StateTopic};
use crate::coordinator::log::{Bounds, Leadership, StateLog};
use crate::coordinator::write::Producer;
use crate::replica::Verified;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_log::batch::BatchHeader;
use leasehold_types::{LeaderEpoch, Offset, ProducerId, TopicId};
use leasehold_wire::ErrorCode;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(5));
const SETTINGS: Settings = Settings {
    max_timeout_ms: 60_000,
    abort_interval_ms: 1_000,
    expiration_ms: 1_000_000,
    expiration_interval_ms: 1_000_000,
    write_timeout_ms: 300,
};

/// The log of the one partition, as the brokers of a test share it.
#[derive(Default)]
struct Memory {
    batches: Mutex<Vec<(i64, Bytes)>>,
    epoch: Mutex<i32>,
    /// The next append is stored, but its writer is told this.
    fails: Mutex<Option<ErrorCode>>,
    loads: Mutex<usize>,
}

impl Memory {
    fn end(&self) -> i64 {
        let batches = self.batches.lock();
        batches.last().map_or(0, |(base, batch)| {
            base + i64::from(BatchHeader::parse(batch).unwrap().record_count)
        })
    }
}

#[async_trait]
impl StateLog for Memory {
    fn append(
        &self,
        at: Leadership,
        batch: Bytes,
        _: Verified,
    ) -> BoxFuture<'static, Result<Offset, ErrorCode>> {
        let base = self.end();
        let result = if at.epoch.0 != *self.epoch.lock() {
            Err(ErrorCode::NotLeaderOrFollower)
        } else {
            let mut bytes = batch.to_vec();
            bytes[..8].copy_from_slice(&base.to_be_bytes());
            self.batches.lock().push((base, bytes.into()));
            self.fails.lock().take().map_or(Ok(Offset(base)), Err)
        };
        Box::pin(async move { result })
    }

    fn bounds(&self, at: Leadership) -> Option<Bounds> {
        (at.epoch.0 == *self.epoch.lock()).then(|| Bounds {
            log_start: Offset(0),
            log_end: Offset(self.end()),
        })
    }

    async fn read(&self, _: Leadership, from: Offset) -> Result<Bytes, ErrorCode> {
        if from.0 == 0 {
            *self.loads.lock() += 1;
        }
        let batches = self.batches.lock();
        let batch = batches.iter().rev().find(|(base, _)| *base <= from.0);
        Ok(batch.map(|(_, batch)| batch.clone()).unwrap_or_default())
    }
}

struct OnePartition;

#[async_trait]
impl StateTopic for OnePartition {
    fn partitions(&self) -> Option<i32> {
        Some(1)
    }

    fn leader(&self, _: i32) -> Option<Endpoint> {
        None
    }

    async fn create(&self) -> Result<(), ErrorCode> {
        Ok(())
    }

    async fn changed(&self, _: Duration) {}
}

/// Markers that are written when the test lets them.
struct Gate {
    open: Semaphore,
    asked: Mutex<Vec<(Ending, LeaderEpoch)>>,
}

impl MarkerWriter for Arc<Gate> {
    fn write(
        &self,
        ending: Ending,
        epoch: LeaderEpoch,
    ) -> BoxFuture<'static, Result<(), ErrorCode>> {
        self.asked.lock().push((ending, epoch));
        let gate = self.clone();
        Box::pin(async move {
            gate.open.acquire().await.unwrap().forget();
            Ok(())
        })
    }
}

struct Ids;

#[async_trait]
impl FreshProducerIds for Ids {
    async fn next(&self) -> Result<ProducerId, ErrorCode> {
        Ok(ProducerId(7))
    }
}

struct Stage {
    log: Arc<Memory>,
    gate: Arc<Gate>,
}

impl Stage {
    fn new() -> Self {
        Self {
            log: Arc::default(),
            gate: Arc::new(Gate {
                open: Semaphore::new(0),
                asked: Mutex::default(),
            }),
        }
    }

    /// A broker that leads the partition in the next epoch, and has loaded it.
    async fn lead(&self) -> Arc<TxnCoordinator> {
        let epoch = {
            let mut epoch = self.log.epoch.lock();
            *epoch += 1;
            LeaderEpoch(*epoch)
        };
        let gate = Arc::new(self.gate.clone());
        let topic = Arc::new(OnePartition);
        let coordinator = TxnCoordinator::new(SETTINGS, topic, self.log.clone(), gate);
        assert_eq!(
            end(&coordinator, ending(true)).await,
            ErrorCode::NotCoordinator
        );
        coordinator.lead(Leadership {
            topic: TOPIC,
            partition: 0,
            epoch,
        });
        assert_eq!(
            end(&coordinator, ending(true)).await,
            ErrorCode::CoordinatorLoadInProgress
        );
        while coordinator.stats().partitions == 0 {
            tokio::task::yield_now().await;
        }
        coordinator
    }
}

fn producer(epoch: i16) -> Producer {
    Producer {
        id: ProducerId(7),
        epoch,
    }
}

fn ending(commit: bool) -> EndRequest {
    EndRequest {
        transactional_id: "id".to_owned(),
        producer: producer(0),
        commit,
        bump: false,
    }
}

async fn end(coordinator: &TxnCoordinator, request: EndRequest) -> ErrorCode {
    coordinator
        .end(request, &Ids)
        .await
        .err()
        .unwrap_or(ErrorCode::None)
}

async fn begin(coordinator: &TxnCoordinator) {
    let request = InitRequest {
        transactional_id: "id".to_owned(),
        timeout_ms: 10_000,
        expected: None,
    };
    assert_eq!(coordinator.init(request, &Ids).await, Ok(producer(0)));
    let added = coordinator.add(AddRequest {
        transactional_id: "id".to_owned(),
        producer: producer(0),
        partitions: Partitions::from([("t".to_owned(), [3].into())]),
    });
    assert_eq!(added.await, ErrorCode::None);
}

async fn state(coordinator: &TxnCoordinator) -> &'static str {
    let described = coordinator.describe(vec!["id".to_owned()]).await;
    assert_eq!(described[0].error, ErrorCode::None);
    described[0].state
}

#[tokio::test(start_paused = true)]
async fn the_next_coordinator_carries_out_what_was_decided_in_its_own_epoch() {
    let stage = Stage::new();
    let first = stage.lead().await;
    begin(&first).await;
    assert_eq!(end(&first, ending(true)).await, ErrorCode::None);
    assert_eq!(state(&first).await, "PrepareCommit");
    first.resign(TOPIC, 0);
    assert_eq!(end(&first, ending(true)).await, ErrorCode::NotCoordinator);

    let second = stage.lead().await;
    assert_eq!(state(&second).await, "PrepareCommit");
    let asked: Vec<_> = stage.gate.asked.lock().clone();
    assert_eq!(asked[0].0, asked[1].0);
    assert_eq!((asked[0].1, asked[1].1), (LeaderEpoch(1), LeaderEpoch(2)));
    stage.gate.open.add_permits(1);
    while state(&second).await != "CompleteCommit" {
        tokio::task::yield_now().await;
    }
    assert_eq!(end(&second, ending(true)).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_is_looked_up_in_the_log_and_not_guessed() {
    let stage = Stage::new();
    let coordinator = stage.lead().await;
    begin(&coordinator).await;
    *stage.log.fails.lock() = Some(ErrorCode::NotEnoughReplicasAfterAppend);
    let loads = *stage.log.loads.lock();
    assert_eq!(
        end(&coordinator, ending(false)).await,
        ErrorCode::NotCoordinator
    );
    while coordinator.stats().partitions == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*stage.log.loads.lock(), loads + 1);
    // It was stored: so it happens, and nothing else.
    assert_eq!(state(&coordinator).await, "PrepareAbort");
    assert_eq!(
        end(&coordinator, ending(true)).await,
        ErrorCode::InvalidTxnState
    );
    assert_eq!(stage.gate.asked.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_let_go_when_the_leadership_ends() {
    let stage = Stage::new();
    let coordinator = stage.lead().await;
    begin(&coordinator).await;
    *stage.log.epoch.lock() += 1;
    assert_eq!(
        end(&coordinator, ending(true)).await,
        ErrorCode::NotCoordinator
    );
    assert!(stage.gate.asked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_name_is_refused() {
    let coordinator = Stage::new().lead().await;
    let mut request = ending(true);
    request.transactional_id.clear();
    let refused = ErrorCode::InvalidRequest;
    assert_eq!(end(&coordinator, request).await, refused);
    let described = coordinator.describe(vec![String::new()]).await;
    assert_eq!(described[0].error, refused);
}
