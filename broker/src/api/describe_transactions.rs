//! DescribeTransactions (KIP-664): transactional ids in detail, from their coordinator.

use super::call::Call;
use super::context::Shared;
use super::convert::{text, topic_name};
use crate::txn::types::Described;
use leasehold_wire::kafka::messages::describe_transactions_response::{
    TopicData, TransactionState,
};
use leasehold_wire::kafka::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TransactionalId,
};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let ids = request.transactional_ids.iter().map(|id| id.to_string());
    let coordinator = &shared.transactions.coordinator;
    let described = coordinator.describe(ids.collect()).await;
    DescribeTransactionsResponse::default()
        .with_transaction_states(described.into_iter().map(row).collect())
}

fn row(described: Described) -> TransactionState {
    let topics = described.partitions.into_iter().map(|(name, partitions)| {
        TopicData::default()
            .with_topic(topic_name(&name))
            .with_partitions(partitions.into_iter().collect())
    });
    TransactionState::default()
        .with_error_code(described.error.code())
        .with_transactional_id(TransactionalId(text(described.transactional_id)))
        .with_transaction_state(text(described.state))
        .with_transaction_timeout_ms(described.timeout_ms)
        .with_transaction_start_time_ms(described.started)
        .with_producer_id(described.producer.id.0.into())
        .with_producer_epoch(described.producer.epoch)
        .with_topics(topics.collect())
}
