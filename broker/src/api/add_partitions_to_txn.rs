//! AddPartitionsToTxn: a producer is about to write to partitions within its transaction.
//!
//! From version 4 on it is what brokers ask each other: of several transactions, to add partitions or only to verify
//! that they are in.
//!
//! Trap: all partitions or none; those that could have been added are answered OPERATION_NOT_ATTEMPTED
//! where another does not exist.

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
use crate::txn::TxnCoordinator;
use crate::txn::types::{AddRequest, Partitions};
use crate::txn::verify::all;
use crate::txn::wire::{partitions, topic_results};
use leasehold_metadata::Image;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::add_partitions_to_txn_response::AddPartitionsToTxnResult;
use leasehold_wire::kafka::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use std::sync::Arc;

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

/// The first version that brokers use.
const OF_BROKERS: i16 = 4;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let coordinator = &shared.transactions.coordinator;
    let image = shared.image();
    let exists = |topic: &str, index: i32| exists(&image, topic, index);
    if call.version >= OF_BROKERS {
        return each(coordinator, &image, request).await;
    }
    let asked = AddRequest {
        transactional_id: request.v3_and_below_transactional_id.to_string(),
        producer: producer(
            request.v3_and_below_producer_id,
            request.v3_and_below_producer_epoch,
        ),
        partitions: partitions(&request.v3_and_below_topics),
    };
    let mut answers = match missing(&asked.partitions, exists) {
        Some(answers) => answers,
        None => add(coordinator, asked).await,
    };
    for (_, _, error) in &mut answers {
        *error = ErrorCode::from_code(fenced_since(KNOWS_FENCED, call.version, *error));
    }
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topic_results(answers))
}

/// Each transaction of a request of brokers. What `image`, the coordinator's own, does not know is no part of any,
/// though its leader may know it already: what is unknown at the end of a transaction counts as deleted, and gets no
/// marker.
pub async fn each(
    coordinator: &TxnCoordinator,
    image: &Image,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let exists = |topic: &str, index: i32| {
        exists(image, topic, index) || taken_out("a-coordinator-adds-what-it-knows")
    };
    let mut response = AddPartitionsToTxnResponse::default();
    for transaction in request.transactions {
        let asked = AddRequest {
            transactional_id: transaction.transactional_id.to_string(),
            producer: producer(transaction.producer_id, transaction.producer_epoch),
            partitions: partitions(&transaction.topics),
        };
        let answers = match missing(&asked.partitions, exists) {
            Some(answers) => answers,
            None if transaction.verify_only => coordinator.verify(asked).await,
            None => add(coordinator, asked).await,
        };
        response.results_by_transaction.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id)
                .with_topic_results(topic_results(answers)),
        );
    }
    response
}

async fn add(coordinator: &TxnCoordinator, asked: AddRequest) -> Vec<(String, i32, ErrorCode)> {
    let partitions = asked.partitions.clone();
    all(&partitions, coordinator.add(asked).await)
}

/// The answers if there is not every partition.
fn missing(
    partitions: &Partitions,
    exists: impl Fn(&str, i32) -> bool,
) -> Option<Vec<(String, i32, ErrorCode)>> {
    let mut answers = all(partitions, ErrorCode::OperationNotAttempted);
    let mut some = false;
    for (topic, index, error) in &mut answers {
        if !exists(topic, *index) {
            (*error, some) = (ErrorCode::UnknownTopicOrPartition, true);
        }
    }
    some.then_some(answers)
}

fn exists(image: &Image, topic: &str, index: i32) -> bool {
    let topic = image.topic_by_name(topic);
    topic.is_some_and(|topic| topic.partition(index).is_some())
}
