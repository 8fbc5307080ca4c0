//! DescribeCluster: who is here.

use super::call::Call;
use super::context::Shared;
use super::convert::{ALL_ON_CLUSTER, node, operations, opt_text, text};
use super::metadata::controller_id;
use super::seen::Seen;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::describe_cluster_response::DescribeClusterBroker;
use leasehold_wire::kafka::messages::{DescribeClusterRequest, DescribeClusterResponse};

/// The request's endpoint types.
const BROKERS: i8 = 1;
/// A separate quorum of controllers.
const CONTROLLERS: i8 = 2;

pub(super) fn answer(
    shared: &Shared,
    call: &Call,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    describe(call.sees(&shared.image()), call.version, &request)
}

fn describe(
    image: Seen<'_>,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut reply = DescribeClusterResponse::default();
    reply.endpoint_type = BROKERS;
    if version >= 1 && request.endpoint_type != BROKERS {
        let error = match request.endpoint_type {
            CONTROLLERS => ErrorCode::MismatchedEndpointType,
            _ => ErrorCode::UnsupportedEndpointType,
        };
        reply.error_code = error.code();
        reply.error_message = Some(text(
            "the controller is one of the brokers; ask for endpoint type 1",
        ));
        return reply;
    }
    reply.cluster_id = text(&image.cluster_id.0);
    reply.controller_id = controller_id(image);
    reply.cluster_authorized_operations = operations(
        request.include_cluster_authorized_operations,
        ALL_ON_CLUSTER,
    );
    reply.brokers = image
        .brokers
        .values()
        .filter(|broker| !broker.fenced || (version >= 2 && request.include_fenced_brokers))
        .filter_map(|broker| {
            let (host, port) = image.address(broker)?;
            Some(
                DescribeClusterBroker::default()
                    .with_broker_id(node(broker.id))
                    .with_host(host)
                    .with_port(port)
                    .with_rack(opt_text(broker.rack.as_deref()))
                    .with_is_fenced(version >= 2 && broker.fenced),
            )
        })
        .collect();
    reply
}
