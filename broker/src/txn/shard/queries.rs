//! Questions that change nothing.

use super::Shard;
use crate::coordinator::Now;
use crate::coordinator::write::Producer;
use crate::txn::state::Metadata;
use crate::txn::types::{AddRequest, Described, ListRequest, Listed};
use leasehold_wire::ErrorCode;
use std::collections::BTreeSet;

impl Shard {
    /// Whether each of the partitions is in the producer's transaction (KIP-890).
    pub fn verify(&self, request: &AddRequest) -> Vec<(String, i32, ErrorCode)> {
        let transaction = self.transactions.get(request.transactional_id.as_str());
        let verdict = match transaction {
            None => Err(ErrorCode::InvalidProducerIdMapping),
            Some(transaction) => transaction.verify(request.producer).map(|()| transaction),
        };
        let one = |topic: &str, partition: i32| match verdict {
            Err(error) => error,
            Ok(transaction) if transaction.holds(topic, partition) => ErrorCode::None,
            Ok(_) => ErrorCode::TransactionAbortable,
        };
        let of_topic = |(topic, partitions): (&String, &BTreeSet<i32>)| {
            let each = partitions
                .iter()
                .map(|p| (topic.clone(), *p, one(topic, *p)));
            each.collect::<Vec<_>>()
        };
        request.partitions.iter().flat_map(of_topic).collect()
    }

    /// One transactional id in detail.
    pub fn describe(&self, id: &str) -> Described {
        let Some(transaction) = self.transactions.get(id) else {
            return Described::refused(id, ErrorCode::TransactionalIdNotFound);
        };
        let metadata = transaction.metadata();
        Described {
            transactional_id: id.to_owned(),
            error: ErrorCode::None,
            state: metadata.state.name(),
            timeout_ms: metadata.timeout_ms,
            started: metadata.started,
            producer: Producer {
                id: metadata.producer,
                epoch: metadata.epoch,
            },
            partitions: metadata.partitions.clone(),
        }
    }

    /// The transactional ids that pass the filters.
    pub fn list(&self, request: &ListRequest, now: Now) -> Vec<Listed> {
        let passes = |id: &str, metadata: &Metadata| {
            (request.states.is_empty() || request.states.contains(&metadata.state))
                && (request.producers.is_empty() || request.producers.contains(&metadata.producer))
                && (request.longer_than_ms < 0
                    || now.wall.saturating_sub(metadata.started) > request.longer_than_ms)
                && request.pattern.as_ref().is_none_or(|p| p.is_match(id))
        };
        let all = self.transactions.iter().map(|(id, t)| (id, t.metadata()));
        all.filter(|(id, metadata)| !request.nothing && passes(id, metadata))
            .map(|(id, metadata)| Listed {
                transactional_id: id.to_string(),
                producer: metadata.producer,
                state: metadata.state.name(),
            })
            .collect()
    }
}
