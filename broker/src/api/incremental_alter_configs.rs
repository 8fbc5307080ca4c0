//! IncrementalAlterConfigs: of topics, and of the defaults that hold for all topics.
//!
//! The broker resource with an empty name stands for those defaults, under Kafka's broker keys
//! (`log.retention.ms`) or topic keys (`retention.ms`). A single broker's configuration is its file.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::{message_of, refused};
use super::describe_configs::{BROKER, TOPIC};
use leasehold_metadata::Image;
use leasehold_metadata::configs::TOPIC_KEYS;
use leasehold_metadata::rpc::{
    AdminRequest, AdminResponse, ConfigChange, ConfigChanges, ConfigOp, ConfigTarget, Outcome,
};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::incremental_alter_configs_request::AlterConfigsResource;
use leasehold_wire::kafka::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use leasehold_wire::kafka::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use std::collections::HashSet;
use std::sync::Arc;

/// Kafka's number of the operation that takes a value away.
const DELETE: i8 = 1;
/// The request has no timeout of its own.
const TIMEOUT_MS: i32 = 30_000;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut seen = HashSet::new();
    let judged: Vec<Result<ConfigChanges, Outcome>> = request
        .resources
        .iter()
        .map(|resource| {
            if !seen.insert((resource.resource_type, resource.resource_name.as_str())) {
                return Err(refused(
                    ErrorCode::InvalidRequest,
                    "the resource is named twice",
                ));
            }
            changes(resource)
        })
        .collect();
    let wanted: Vec<ConfigChanges> = judged.iter().flatten().cloned().collect();
    let mut outcomes = alter(&shared, wanted, request.validate_only)
        .await
        .into_iter();

    let mut reply = IncrementalAlterConfigsResponse::default();
    for (resource, judged) in request.resources.iter().zip(judged) {
        let outcome = match judged {
            Ok(_) => outcomes.next().unwrap_or_else(mismatch),
            Err(outcome) => outcome,
        };
        reply.responses.push(
            AlterConfigsResourceResponse::default()
                .with_error_code(outcome.code)
                .with_error_message(message_of(&outcome))
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone()),
        );
    }
    reply
}

/// Outcomes in the order of `wanted`.
async fn alter(shared: &Shared, wanted: Vec<ConfigChanges>, validate_only: bool) -> Vec<Outcome> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let wish = AdminRequest::AlterConfigs {
        resources: wanted.clone(),
        validate_only,
    };
    let outcomes = match shared.admin(wish, TIMEOUT_MS).await {
        Ok(AdminResponse::AlterConfigs(outcomes)) => {
            outcomes.into_iter().map(|(_, outcome)| outcome).collect()
        }
        failed => vec![failed.err().unwrap_or_else(mismatch); wanted.len()],
    };
    if !validate_only {
        let done = |image: &Image| {
            wanted
                .iter()
                .zip(&outcomes)
                .all(|(w, outcome)| !outcome.is_ok() || shows(image, w))
        };
        shared.image_shows(READ_YOUR_WRITES, done).await;
    }
    outcomes
}

/// Whether the image has the plain changes; what was appended or subtracted is not checked.
fn shows(image: &Image, wanted: &ConfigChanges) -> bool {
    let values = match &wanted.target {
        ConfigTarget::Cluster => &*image.cluster_configs,
        ConfigTarget::Topic(name) => match image.topic_by_name(name) {
            Some(topic) => &topic.configs,
            None => return true,
        },
    };
    wanted.changes.iter().all(|change| match change.op {
        ConfigOp::Set => values.get(&change.key) == change.value.as_ref(),
        ConfigOp::Delete => !values.contains_key(&change.key),
        ConfigOp::Append | ConfigOp::Subtract => true,
    })
}

/// What the controller is to change; or the answer, where it need not be asked.
fn changes(resource: &AlterConfigsResource) -> Result<ConfigChanges, Outcome> {
    let target = match (resource.resource_type, resource.resource_name.as_str()) {
        (TOPIC, name) => ConfigTarget::Topic(name.to_owned()),
        (BROKER, "") => ConfigTarget::Cluster,
        // Nothing is set on a single broker, so there is nothing to take away; Kafka's tool for
        // reassignments clears its throttles in this way.
        (BROKER, _)
            if resource
                .configs
                .iter()
                .all(|c| c.config_operation == DELETE) =>
        {
            return Err(Outcome::ok());
        }
        (BROKER, name) => {
            return Err(refused(
                ErrorCode::InvalidRequest,
                format!(
                    "the configuration of broker {name} is its file and cannot be changed here; \
                     defaults for all topics can, on the broker resource with an empty name"
                ),
            ));
        }
        (other, _) => {
            return Err(refused(
                ErrorCode::InvalidRequest,
                format!("resources of type {other} have no configuration here"),
            ));
        }
    };
    let changes: Result<_, Outcome> = resource
        .configs
        .iter()
        .map(|config| {
            let op = match config.config_operation {
                0 => ConfigOp::Set,
                DELETE => ConfigOp::Delete,
                2 => ConfigOp::Append,
                3 => ConfigOp::Subtract,
                other => {
                    return Err(refused(
                        ErrorCode::InvalidRequest,
                        format!("{other} is no operation on a configuration"),
                    ));
                }
            };
            let key = match target {
                ConfigTarget::Topic(_) => config.name.to_string(),
                ConfigTarget::Cluster => topic_key_of(&config.name),
            };
            Ok(ConfigChange {
                key,
                op,
                value: config.value.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    Ok(ConfigChanges {
        target,
        replace_all: false,
        changes: changes?,
    })
}

/// The topic key whose default a broker key gives; any other name stays, for the controller to judge.
fn topic_key_of(name: &str) -> String {
    let key = TOPIC_KEYS.iter().find(|key| key.broker_key == Some(name));
    key.map_or(name, |key| key.name).to_owned()
}
