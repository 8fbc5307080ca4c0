//! AddPartitionsToTxn: a producer is about to write to partitions within its transaction.
//!
//! Trap: all partitions or none; those that could have been added are answered OPERATION_NOT_ATTEMPTED
//! where another does not exist.

use super::call::Call;
use super::context::Shared;
use super::convert::{fenced_since, producer};
use crate::txn::types::{AddRequest, Partitions};
use crate::txn::wire::{partitions, topic_results};
use leasehold_metadata::Image;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use std::sync::Arc;

/// The first version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let asked = partitions(&request.v3_and_below_topics);
    let image = shared.image();
    let errors = if asked.iter().all(|(topic, p)| exist(&image, topic, p)) {
        let added = shared.transactions.coordinator.add(AddRequest {
            transactional_id: request.v3_and_below_transactional_id.to_string(),
            producer: producer(
                request.v3_and_below_producer_id,
                request.v3_and_below_producer_epoch,
            ),
            partitions: asked.clone(),
        });
        let code = fenced_since(KNOWS_FENCED, call.version, added.await);
        each(&asked, |_, _| ErrorCode::from_code(code))
    } else {
        each(&asked, |topic, index| match exists(&image, topic, index) {
            true => ErrorCode::OperationNotAttempted,
            false => ErrorCode::UnknownTopicOrPartition,
        })
    };
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topic_results(errors))
}

fn exists(image: &Image, topic: &str, index: i32) -> bool {
    let topic = image.topic_by_name(topic);
    topic.is_some_and(|topic| topic.partition(index).is_some())
}

fn exist(image: &Image, topic: &str, indexes: &std::collections::BTreeSet<i32>) -> bool {
    indexes.iter().all(|index| exists(image, topic, *index))
}

fn each(
    asked: &Partitions,
    error: impl Fn(&str, i32) -> ErrorCode,
) -> Vec<(String, i32, ErrorCode)> {
    let mut answers = Vec::new();
    for (topic, indexes) in asked {
        for index in indexes {
            answers.push((topic.clone(), *index, error(topic, *index)));
        }
    }
    answers
}
