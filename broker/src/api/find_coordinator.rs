//! FindCoordinator: which broker coordinates a group, or a transactional id.
//!
//! Trap: from version 4 on, a request asks for several keys and only the `coordinators` array of the
//! reply counts; before, only the fields beside it.

use super::call::Call;
use super::context::Shared;
use super::convert::{node, opt_text, text};
use crate::group::types::FoundCoordinator;
use futures::future::join_all;
use leasehold_wire::kafka::messages::find_coordinator_response::Coordinator;
use leasehold_wire::kafka::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use std::sync::Arc;

/// The key is a transactional id.
const TRANSACTION: i8 = 1;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let mut reply = FindCoordinatorResponse::default();
    if call.version >= 4 {
        let asked = request.coordinator_keys.iter();
        let found = join_all(asked.map(|key| find(&shared, request.key_type, key)));
        reply.coordinators = found.await.into_iter().map(row).collect();
        return reply;
    }
    let found = find(&shared, request.key_type, &request.key).await;
    reply.error_code = found.error.code();
    if call.version >= 1 {
        reply.error_message = opt_text(found.error_message);
    }
    reply.node_id = node(found.broker);
    reply.host = text(found.host);
    reply.port = found.port;
    reply
}

async fn find(shared: &Shared, key_type: i8, key: &str) -> FoundCoordinator {
    match key_type {
        TRANSACTION => shared.transactions.coordinator.find(key).await,
        _ => shared.groups.find_coordinator(key_type, key).await,
    }
}

fn row(found: FoundCoordinator) -> Coordinator {
    Coordinator::default()
        .with_key(text(found.key))
        .with_node_id(node(found.broker))
        .with_host(text(found.host))
        .with_port(found.port)
        .with_error_code(found.error.code())
        .with_error_message(opt_text(found.error_message))
}
