//! The Kafka APIs: one file each, from the decoded request to the reply.
//!
//! A file decides what a request means in each of its versions, asks the rest of the broker (the
//! image, the controller, the replicas, the groups), and fills the reply. It holds no state of its
//! own. [`KafkaHandler`] picks the file by the request's key.
//!
//! Promises: what is not in the table of versions closes the connection; what is malformed too, with
//! one log line; every broker takes every administrator's call and passes it to the controller; a
//! client that changed something finds it in this broker's next answer (as long as the controller's
//! news arrives within two seconds).

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod brokers;
mod call;
mod client_quotas;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod context;
mod convert;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod departed;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod describe_transactions;
mod elect_leaders;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod hints;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leaders;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod named_configs;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod producer_ids;
mod reassignments;
mod seen;
mod sync_group;
mod throttle;
mod txn_offset_commit;
mod unregister_broker;
mod update_features;
mod verified;
mod write_txn_markers;

#[cfg(test)]
mod tests;

pub use add_offsets_to_txn::add as add_offsets;
pub use add_partitions_to_txn::each as add_or_verify;
pub use context::{Context, ControllerCalls};
pub use producer_ids::ProducerIds;
pub use txn_offset_commit::commit as commit_offsets_in_transaction;
pub use write_txn_markers::write as write_markers;

use crate::server::{ConnectionContext, Handler, Refusal, Reply, ReplyFuture};
use async_trait::async_trait;
use bytes::Bytes;
use call::Call;
use context::Shared;
use leasehold_wire::versions::{Lookup, lookup};
use leasehold_wire::{ApiKey, RequestHead};
use std::sync::Arc;
use throttle::{Counted, Throttle};

/// Answers the requests of Kafka clients.
pub struct KafkaHandler {
    shared: Arc<Shared>,
}

impl KafkaHandler {
    /// A handler over the parts of a running broker.
    pub fn new(context: Context) -> Self {
        Self {
            shared: Arc::new(Shared::new(context)),
        }
    }
}

#[async_trait]
impl Handler for KafkaHandler {
    async fn handle(
        &self,
        connection: &Arc<ConnectionContext>,
        mut frame: Bytes,
    ) -> Result<Reply, Refusal> {
        let head = RequestHead::take(&mut frame)
            .map_err(|error| Refusal::new(format!("malformed request: {error}")))?;
        match lookup(head.key, head.version) {
            Lookup::Serve(key) => {
                let throttle = Throttle::new(&self.shared, head.client_id.clone());
                let throttle = Arc::new(throttle);
                let call = Call::new(head, connection, throttle.clone());
                let inner = Box::pin(self.serve(key, call, frame));
                let counted = |inner: ReplyFuture| {
                    let throttle = throttle.clone();
                    Box::pin(Counted { inner, throttle }) as ReplyFuture
                };
                let throttle = throttle.clone();
                match (Counted { inner, throttle }).await? {
                    Reply::Exclusive(reply) => Ok(Reply::Exclusive(counted(reply))),
                    Reply::Pipelined(reply) => Ok(Reply::Pipelined(counted(reply))),
                    done => Ok(done),
                }
            }
            Lookup::AnswerApiVersionsV0 => api_versions::unknown_version(&head),
            Lookup::Close => Err(Refusal::new(format!(
                "API key {} version {} is not served",
                head.key, head.version
            ))),
        }
    }
}

impl KafkaHandler {
    async fn serve(&self, key: ApiKey, call: Call, body: Bytes) -> Result<Reply, Refusal> {
        let shared = &self.shared;
        match key {
            ApiKey::Produce => produce::serve(shared, call, body).await,
            ApiKey::Fetch => call.waiting(shared, body, fetch::answer),
            ApiKey::ListOffsets => call.waiting(shared, body, list_offsets::answer),
            ApiKey::OffsetForLeaderEpoch => {
                call.waiting(shared, body, offset_for_leader_epoch::answer)
            }
            ApiKey::WriteTxnMarkers => call.waiting(shared, body, write_txn_markers::answer),
            ApiKey::DescribeProducers => call.waiting(shared, body, describe_producers::answer),
            ApiKey::InitProducerId => call.waiting(shared, body, init_producer_id::answer),

            ApiKey::ApiVersions => api_versions::serve(shared, call, body),
            ApiKey::Metadata => metadata::serve(shared, call, body),
            ApiKey::DescribeCluster => call.ready(shared, body, describe_cluster::answer),
            ApiKey::DescribeTopicPartitions => {
                call.ready(shared, body, describe_topic_partitions::answer)
            }
            ApiKey::DescribeConfigs => call.ready(shared, body, describe_configs::answer),
            ApiKey::ListConfigResources => call.ready(shared, body, list_config_resources::answer),
            ApiKey::DescribeClientQuotas => call.ready(shared, body, client_quotas::describe),
            ApiKey::ListPartitionReassignments => call.ready(shared, body, reassignments::list),

            ApiKey::CreateTopics => call.waiting(shared, body, create_topics::answer),
            ApiKey::DeleteTopics => call.waiting(shared, body, delete_topics::answer),
            ApiKey::DeleteRecords => call.waiting(shared, body, delete_records::answer),
            ApiKey::CreatePartitions => call.waiting(shared, body, create_partitions::answer),
            ApiKey::IncrementalAlterConfigs => {
                call.waiting(shared, body, incremental_alter_configs::answer)
            }
            ApiKey::AlterConfigs => call.waiting(shared, body, alter_configs::answer),
            ApiKey::AlterClientQuotas => call.waiting(shared, body, client_quotas::alter),
            ApiKey::UpdateFeatures => call.waiting(shared, body, update_features::answer),
            ApiKey::UnregisterBroker => call.waiting(shared, body, unregister_broker::answer),
            ApiKey::AlterPartitionReassignments => call.waiting(shared, body, reassignments::alter),
            ApiKey::ElectLeaders => call.waiting(shared, body, elect_leaders::answer),
            ApiKey::AlterReplicaLogDirs => {
                call.waiting(shared, body, alter_replica_log_dirs::answer)
            }
            ApiKey::DescribeLogDirs => call.waiting(shared, body, describe_log_dirs::answer),

            ApiKey::FindCoordinator => call.waiting(shared, body, find_coordinator::answer),
            ApiKey::JoinGroup => call.waiting(shared, body, join_group::answer),
            ApiKey::SyncGroup => call.waiting(shared, body, sync_group::answer),
            ApiKey::Heartbeat => call.waiting(shared, body, heartbeat::answer),
            ApiKey::LeaveGroup => call.waiting(shared, body, leave_group::answer),
            ApiKey::OffsetCommit => call.waiting(shared, body, offset_commit::answer),
            ApiKey::OffsetDelete => call.waiting(shared, body, offset_delete::answer),
            ApiKey::OffsetFetch => call.waiting(shared, body, offset_fetch::answer),
            ApiKey::ListGroups => call.waiting(shared, body, list_groups::answer),
            ApiKey::DescribeGroups => call.waiting(shared, body, describe_groups::answer),
            ApiKey::ConsumerGroupHeartbeat => {
                call.waiting(shared, body, consumer_group_heartbeat::answer)
            }
            ApiKey::ConsumerGroupDescribe => {
                call.waiting(shared, body, consumer_group_describe::answer)
            }
            ApiKey::DeleteGroups => call.waiting(shared, body, delete_groups::answer),

            ApiKey::AddPartitionsToTxn => call.waiting(shared, body, add_partitions_to_txn::answer),
            ApiKey::AddOffsetsToTxn => call.waiting(shared, body, add_offsets_to_txn::answer),
            ApiKey::EndTxn => call.waiting(shared, body, end_txn::answer),
            ApiKey::TxnOffsetCommit => call.waiting(shared, body, txn_offset_commit::answer),
            ApiKey::DescribeTransactions => {
                call.waiting(shared, body, describe_transactions::answer)
            }
            ApiKey::ListTransactions => call.waiting(shared, body, list_transactions::answer),

            other => Err(Refusal::new(format!(
                "{other:?} is listed but not served: a defect"
            ))),
        }
    }
}
