//! ListConfigResources: what has a configuration. Version 0 knows subscriptions to client metrics only.

use super::call::Call;
use super::context::Shared;
use super::convert::text;
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use leasehold_metadata::Image;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::list_config_resources_response::ConfigResource;
use leasehold_wire::kafka::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

/// All that Kafka has, in its order.
const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(super) fn answer(
    shared: &Shared,
    call: &Call,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let reply = ListConfigResourcesResponse::default();
    let wanted: &[i8] = match (call.version, request.resource_types.as_slice()) {
        (0, _) => &[CLIENT_METRICS],
        (_, []) => &ALL,
        (_, some) => some,
    };
    if wanted.iter().any(|kind| !ALL.contains(kind)) {
        return reply.with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let image = shared.image();
    let kinds = ALL.iter().filter(|kind| wanted.contains(kind));
    let rows = kinds.flat_map(|kind| {
        names(&image, *kind).into_iter().map(|name| {
            let row = ConfigResource::default().with_resource_name(text(name));
            match call.version {
                0 => row,
                _ => row.with_resource_type(*kind),
            }
        })
    });
    reply.with_config_resources(rows.collect())
}

fn names(image: &Image, kind: i8) -> Vec<String> {
    match kind {
        TOPIC => image.names.keys().cloned().collect(),
        BROKER | BROKER_LOGGER => image.brokers.keys().map(|id| id.0.to_string()).collect(),
        CLIENT_METRICS => image.client_metrics.keys().cloned().collect(),
        GROUP => image.group_configs.keys().cloned().collect(),
        _ => Vec::new(),
    }
}
