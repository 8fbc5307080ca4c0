//! AddPartitionsToTxn, of clients and between brokers: to and from this module's own values.

use super::types::{AddRequest, Partitions};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use leasehold_wire::kafka::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use leasehold_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TopicName, TransactionalId,
};
use leasehold_wire::kafka::protocol::StrBytes;
use std::collections::BTreeMap;

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// Adds partitions to a transaction for its producer, or asks whether they are in it.
pub fn broker_request(request: &AddRequest, adds: bool) -> AddPartitionsToTxnRequest {
    let topics = request.partitions.iter().map(|(topic, partitions)| {
        AddPartitionsToTxnTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(partitions.iter().copied().collect())
    });
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(text(&request.transactional_id)))
        .with_producer_id(request.producer.id.0.into())
        .with_producer_epoch(request.producer.epoch)
        .with_verify_only(!adds)
        .with_topics(topics.collect());
    AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
}

/// What the answer says of each partition that was asked for.
pub fn verified(
    answer: &AddPartitionsToTxnResponse,
    asked: &Partitions,
) -> Vec<(String, i32, ErrorCode)> {
    let mut told = BTreeMap::new();
    for transaction in &answer.results_by_transaction {
        for topic in &transaction.topic_results {
            for partition in &topic.results_by_partition {
                let error = ErrorCode::from_code(partition.partition_error_code);
                told.insert((topic.name.to_string(), partition.partition_index), error);
            }
        }
    }
    let missing = match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => ErrorCode::UnknownServerError,
        error => error,
    };
    let mut answers = Vec::new();
    for (topic, partitions) in asked {
        for partition in partitions {
            let error = told.get(&(topic.clone(), *partition)).copied();
            answers.push((topic.clone(), *partition, error.unwrap_or(missing)));
        }
    }
    answers
}

/// Partitions as a request has them.
pub fn partitions(topics: &[AddPartitionsToTxnTopic]) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in topics {
        let of_topic = partitions.entry(topic.name.to_string()).or_default();
        of_topic.extend(topic.partitions.iter().copied());
    }
    partitions
}

/// Errors by partition as a reply has them.
pub fn topic_results(answers: Vec<(String, i32, ErrorCode)>) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut topics: BTreeMap<String, Vec<AddPartitionsToTxnPartitionResult>> = BTreeMap::new();
    for (topic, partition, error) in answers {
        let result = AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(partition)
            .with_partition_error_code(error.code());
        topics.entry(topic).or_default().push(result);
    }
    let row = |(topic, results): (String, Vec<_>)| {
        AddPartitionsToTxnTopicResult::default()
            .with_name(TopicName(text(&topic)))
            .with_results_by_partition(results)
    };
    topics.into_iter().map(row).collect()
}
