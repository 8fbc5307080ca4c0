//! Whether a partition is in its producer's transaction: what a leader asks the coordinator before it takes
//! the first records of a transaction (KIP-890, part 1).
//!
//! Why: without it, records that come late, when their transaction was aborted already, would begin another
//! one that nobody ever ends. In version 2 the leader has the partition added, and what comes late is of an older epoch.

use super::coordinator::TxnCoordinator;
use super::peers::Lines;
use super::types::{AddRequest, Partitions};
use super::wire;
use crate::coordinator::write::Producer;
use crate::replica::{TransactionQuestion, VerifyTransaction};
use async_trait::async_trait;
use leasehold_types::BrokerId;
use leasehold_types::seams::HashMap;
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// Asks the coordinator, wherever it is.
pub struct Verifier {
    me: BrokerId,
    coordinator: Arc<TxnCoordinator>,
    lines: Arc<dyn Lines>,
}

impl Verifier {
    /// For the broker `me`.
    pub fn new(me: BrokerId, coordinator: Arc<TxnCoordinator>, lines: Arc<dyn Lines>) -> Self {
        Self {
            me,
            coordinator,
            lines,
        }
    }

    /// Whether each partition is in the transaction, or is now; in no promised order.
    async fn ask(&self, request: AddRequest, adds: bool) -> Vec<(String, i32, ErrorCode)> {
        let asked = request.partitions.clone();
        match self.coordinator.leader_for(&request.transactional_id) {
            None => all(&asked, ErrorCode::CoordinatorNotAvailable),
            Some(leader) if leader == self.me && adds => {
                all(&asked, self.coordinator.add(request).await)
            }
            Some(leader) if leader == self.me => self.coordinator.verify(request).await,
            Some(leader) => {
                let question = wire::broker_request(&request, adds);
                match self.lines.verify(leader, question).await {
                    Ok(answer) => wire::verified(&answer, &asked),
                    Err(error) => {
                        tracing::debug!(%leader, %error, "the coordinator of a transaction cannot be asked");
                        all(&asked, ErrorCode::NetworkException)
                    }
                }
            }
        }
    }
}

#[async_trait]
impl VerifyTransaction for Verifier {
    async fn verify(&self, question: TransactionQuestion) -> Vec<ErrorCode> {
        let mut partitions = Partitions::new();
        for (topic, (_, partition)) in &question.partitions {
            let of_topic = partitions.entry(topic.to_string()).or_default();
            of_topic.insert(*partition);
        }
        let request = AddRequest {
            transactional_id: question.transactional_id,
            producer: Producer {
                id: question.producer_id,
                epoch: question.producer_epoch,
            },
            partitions,
        };
        let answers = self.ask(request, question.adds).await.into_iter();
        let answers: HashMap<_, _> = answers.map(|(t, p, error)| ((t, p), error)).collect();
        let answer = |(topic, (_, partition)): &(Arc<str>, (_, i32))| {
            let error = answers.get(&(topic.to_string(), *partition)).copied();
            error.unwrap_or(ErrorCode::UnknownServerError)
        };
        question.partitions.iter().map(answer).collect()
    }
}

/// One answer for all partitions.
pub(crate) fn all(partitions: &Partitions, error: ErrorCode) -> Vec<(String, i32, ErrorCode)> {
    let each = partitions.iter().flat_map(|(topic, partitions)| {
        let one = move |p: &i32| (topic.clone(), *p, error);
        partitions.iter().map(one)
    });
    each.collect()
}
