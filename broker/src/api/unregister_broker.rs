//! UnregisterBroker, by way of the controller: forgets a broker that is stopped and holds nothing.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::message_of;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse};
use leasehold_types::BrokerId;
use leasehold_wire::kafka::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use std::sync::Arc;

/// The request has no timeout of its own.
const TIMEOUT_MS: i32 = 30_000;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let broker = BrokerId(request.broker_id.0);
    let wish = AdminRequest::UnregisterBroker { broker };
    let outcome = match shared.admin(wish, TIMEOUT_MS).await {
        Ok(AdminResponse::UnregisterBroker(outcome)) => outcome,
        failed => failed.err().unwrap_or_else(mismatch),
    };
    if outcome.is_ok() {
        let gone = |image: &leasehold_metadata::Image| image.broker(broker).is_none();
        shared.image_shows(READ_YOUR_WRITES, gone).await;
    }
    UnregisterBrokerResponse::default()
        .with_error_code(outcome.code)
        .with_error_message(message_of(&outcome))
}
