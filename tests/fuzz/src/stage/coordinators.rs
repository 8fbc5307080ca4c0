//! The coordinators of the fuzzed broker: it coordinates everything, and their log forgets at once, as nothing is
//! loaded from it.

use super::ME;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use leasehold_broker::group::GroupCoordinator;
use leasehold_broker::group::cluster::{Cluster, Endpoint};
use leasehold_broker::group::consumer::ConsumerSettings;
use leasehold_broker::group::find::Offsets;
use leasehold_broker::group::log::{Bounds, Leadership, StateLog};
use leasehold_broker::group::shard::Settings;
use leasehold_broker::group::state::Limits;
use leasehold_broker::replica::Verified;
use leasehold_broker::txn::markers::MarkerWriter;
use leasehold_broker::txn::peers::{CallFailed, Lines};
use leasehold_broker::txn::shard::Settings as TxnSettings;
use leasehold_broker::txn::types::Ending;
use leasehold_broker::txn::verify::Verifier;
use leasehold_broker::txn::{Transactions, TxnCoordinator};
use leasehold_metadata::Image;
use leasehold_types::{BrokerId, ClusterId, LeaderEpoch, Offset, TopicId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The coordinator of every group.
pub(super) fn groups() -> Arc<GroupCoordinator> {
    let settings = Settings {
        limits: Limits {
            max_size: 100,
            initial_rebalance_delay_ms: 0,
            new_member_join_timeout_ms: 300_000,
            max_pending: 100,
        },
        consumer: ConsumerSettings::DEFAULT,
        offset_metadata_max: 4096,
        offsets_retention_ms: 3_600_000,
        offsets_check_interval_ms: 600_000,
        write_timeout_ms: 5_000,
    };
    let groups = GroupCoordinator::new(settings, 10..=1_800_000, Arc::new(One), Arc::new(One));
    groups.lead(led(2));
    groups
}

/// The coordinator of every transactional id; its markers are written at once.
pub(super) fn transactions() -> Transactions {
    let settings = TxnSettings {
        max_timeout_ms: 900_000,
        abort_interval_ms: 10_000,
        expiration_ms: 3_600_000,
        expiration_interval_ms: 600_000,
        write_timeout_ms: 5_000,
    };
    let topic = Arc::new(Offsets(Arc::new(One)));
    let coordinator = TxnCoordinator::new(settings, topic, Arc::new(One), Arc::new(One));
    coordinator.lead(led(98));
    let verifier = Verifier::new(ME, coordinator.clone(), Arc::new(One));
    Transactions {
        coordinator,
        verifier: Arc::new(verifier),
    }
}

fn led(topic: u128) -> Leadership {
    Leadership {
        topic: TopicId(Uuid::from_u128(topic)),
        partition: 0,
        epoch: LeaderEpoch(0),
    }
}

/// A cluster of one broker, and what that has around it.
struct One;

#[async_trait]
impl Cluster for One {
    fn offsets_partitions(&self) -> Option<i32> {
        Some(1)
    }

    fn offsets_leader(&self, _: i32) -> Option<Endpoint> {
        Some(Endpoint {
            broker: ME,
            host: "host".into(),
            port: 9092,
        })
    }

    fn has_partition(&self, topic: &str, _: i32) -> bool {
        topic == "a"
    }

    fn image(&self) -> Arc<Image> {
        Arc::new(super::image(&ClusterId("c".into())))
    }

    async fn create_offsets_topic(&self) -> Result<(), ErrorCode> {
        Ok(())
    }

    async fn changed(&self, timeout: Duration) {
        tokio::time::sleep(timeout).await;
    }
}

#[async_trait]
impl StateLog for One {
    fn append(
        &self,
        _: Leadership,
        _: Bytes,
        _: Verified,
    ) -> BoxFuture<'static, Result<Offset, ErrorCode>> {
        async { Ok(Offset(0)) }.boxed()
    }

    fn bounds(&self, _: Leadership) -> Option<Bounds> {
        Some(Bounds {
            log_start: Offset(0),
            log_end: Offset(0),
        })
    }

    async fn read(&self, _: Leadership, _: Offset) -> Result<Bytes, ErrorCode> {
        Ok(Bytes::new())
    }
}

impl MarkerWriter for One {
    fn write(&self, _: Ending, _: LeaderEpoch) -> BoxFuture<'static, Result<(), ErrorCode>> {
        async { Ok(()) }.boxed()
    }
}

#[async_trait]
impl Lines for One {
    async fn write_markers(
        &self,
        to: BrokerId,
        _: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, CallFailed> {
        Err(CallFailed::Gone(to))
    }

    async fn verify(
        &self,
        to: BrokerId,
        _: AddPartitionsToTxnRequest,
    ) -> Result<AddPartitionsToTxnResponse, CallFailed> {
        Err(CallFailed::Gone(to))
    }
}
