//! ListTransactions (KIP-664; filters by age: KIP-994, by pattern: KIP-1152): the transactional ids that
//! this broker coordinates.

use super::call::Call;
use super::context::Shared;
use super::convert::text;
use crate::txn::state::State;
use crate::txn::types::ListRequest;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::list_transactions_response::TransactionState;
use leasehold_wire::kafka::messages::{
    ListTransactionsRequest, ListTransactionsResponse, TransactionalId,
};
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

/// Memory that a pattern may take when compiled.
const PATTERN_BYTES: usize = 1 << 20;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let mut reply = ListTransactionsResponse::default();
    let mut wanted = ListRequest {
        producers: request
            .producer_id_filters
            .iter()
            .map(|id| id.0.into())
            .collect(),
        longer_than_ms: match call.version {
            1.. => request.duration_filter,
            _ => -1,
        },
        ..ListRequest::default()
    };
    for name in &request.state_filters {
        match State::from_name(name) {
            Some(state) => wanted.states.push(state),
            None => reply.unknown_state_filters.push(name.clone()),
        }
    }
    wanted.nothing = wanted.states.is_empty() && !request.state_filters.is_empty();
    let pattern = request.transactional_id_pattern;
    wanted.pattern = match pattern.as_deref().filter(|p| !p.is_empty()).map(compiled) {
        None => None,
        Some(Ok(pattern)) => Some(pattern),
        Some(Err(error)) => {
            return ListTransactionsResponse::default().with_error_code(error.code());
        }
    };
    match shared.transactions.coordinator.list(wanted).await {
        Ok(listed) => {
            let rows = listed.into_iter().map(|listed| {
                TransactionState::default()
                    .with_transactional_id(TransactionalId(text(listed.transactional_id)))
                    .with_producer_id(listed.producer.0.into())
                    .with_transaction_state(text(listed.state))
            });
            reply.transaction_states = rows.collect();
        }
        Err(error) => reply.error_code = error.code(),
    }
    reply
}

/// A pattern that has to match the whole id.
fn compiled(pattern: &str) -> Result<Regex, ErrorCode> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_BYTES)
        .build()
        .map_err(|_| ErrorCode::InvalidRegularExpression)
}
