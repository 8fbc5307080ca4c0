//! FindCoordinator: which broker coordinates a group, or a transactional id.
//!
//! Trap: from version 4 on, a request asks for several keys and only the `coordinators` array of the
//! reply counts; before, only the fields beside it.

use super::call::Call;
use super::context::Shared;
use super::convert::{node, opt_text, text};
use crate::group::types::FoundCoordinator;
use futures::future::join_all;
use leasehold_metadata::Image;
use leasehold_types::ListenerName;
use leasehold_wire::ErrorCode;
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
        let found = join_all(asked.map(|key| find(&shared, &call, request.key_type, key)));
        reply.coordinators = found.await.into_iter().map(row).collect();
        return reply;
    }
    let found = find(&shared, &call, request.key_type, &request.key).await;
    reply.error_code = found.error.code();
    if call.version >= 1 {
        reply.error_message = opt_text(found.error_message);
    }
    reply.node_id = node(found.broker);
    reply.host = text(found.host);
    reply.port = found.port;
    reply
}

async fn find(shared: &Shared, call: &Call, key_type: i8, key: &str) -> FoundCoordinator {
    let found = match key_type {
        TRANSACTION => shared.transactions.coordinator.find(key).await,
        _ => shared.groups.find_coordinator(key_type, key).await,
    };
    match &call.connection.entrance {
        Some(listener) if found.error.is_ok() => at(&shared.image(), listener, found),
        _ => found,
    }
}

/// The same coordinator, where clients of this listener reach it.
fn at(image: &Image, listener: &ListenerName, found: FoundCoordinator) -> FoundCoordinator {
    let broker = image.broker(found.broker);
    match broker.and_then(|broker| broker.endpoint(Some(listener))) {
        Some(endpoint) => FoundCoordinator {
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            ..found
        },
        None => {
            let message = format!(
                "broker {} coordinates this key, and it is not known yet how clients reach it through listener {listener}; ask again",
                found.broker
            );
            FoundCoordinator::refused(&found.key, ErrorCode::CoordinatorNotAvailable, message)
        }
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
