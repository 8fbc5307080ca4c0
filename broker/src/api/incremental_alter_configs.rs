//! IncrementalAlterConfigs: of topics, of this broker while it runs, of all brokers, of groups and of subscriptions
//! to client metrics; and the levels of this broker's loggers, which are its own business.
//!
//! The broker resource with an empty name stands for all. What is a default for topics has two names there and on
//! a broker: Kafka's broker key (`log.retention.ms`) and the topic key (`retention.ms`). What takes effect only at
//! the start of a broker is refused by name.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::{message_of, refused};
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::named_configs::{self, permitted};
use crate::loggers::LoggerError;
use leasehold_metadata::Image;
use leasehold_metadata::dynamic::DynamicKey;
use leasehold_metadata::rpc::{
    AdminRequest, AdminResponse, ConfigChange, ConfigChanges, ConfigOp, ConfigTarget, Outcome,
};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::incremental_alter_configs_request::AlterConfigsResource;
use leasehold_wire::kafka::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use leasehold_wire::kafka::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

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
            if resource.resource_type == BROKER_LOGGER {
                return Err(change_levels(&shared, resource, request.validate_only));
            }
            changes(resource, &shared)
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
pub(super) async fn alter(
    shared: &Shared,
    wanted: Vec<ConfigChanges>,
    validate_only: bool,
) -> Vec<Outcome> {
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
    let none = BTreeMap::new();
    let values = match &wanted.target {
        ConfigTarget::Cluster => &*image.cluster_configs,
        ConfigTarget::Broker(id) => image.broker_configs.get(id).unwrap_or(&none),
        ConfigTarget::Group(name) => image.group_configs.get(name).unwrap_or(&none),
        ConfigTarget::ClientMetrics(name) => image.client_metrics.get(name).unwrap_or(&none),
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
fn changes(resource: &AlterConfigsResource, shared: &Shared) -> Result<ConfigChanges, Outcome> {
    let target = target_of(resource.resource_type, &resource.resource_name, shared)?;
    let mut changes = Vec::new();
    for config in &resource.configs {
        let op = match config.config_operation {
            0 => ConfigOp::Set,
            1 => ConfigOp::Delete,
            2 => ConfigOp::Append,
            3 => ConfigOp::Subtract,
            other => {
                return Err(refused(
                    ErrorCode::InvalidRequest,
                    format!("{other} is no operation on a configuration"),
                ));
            }
        };
        if op != ConfigOp::Delete && config.value.is_none() {
            return Err(refused(
                ErrorCode::InvalidRequest,
                format!("{} has no value", config.name.as_str()),
            ));
        }
        let key = match key_of(&target, &config.name) {
            Ok(key) => key,
            // Nothing can be set there, so there is nothing to take away; Kafka's tool for reassignments clears its
            // throttles in this way.
            Err(_) if op == ConfigOp::Delete => continue,
            // As in Kafka, that comes before whether it can be set at all.
            Err(_) if op != ConfigOp::Set => {
                return Err(refused(
                    ErrorCode::InvalidConfig,
                    format!("{} is no list that can be changed", config.name.as_str()),
                ));
            }
            Err(outcome) => return Err(outcome),
        };
        let value = config.value.as_ref().map(ToString::to_string);
        if op == ConfigOp::Set {
            named_configs::check(&target, &key, value.as_deref())?;
        }
        changes.push(ConfigChange { key, op, value });
    }
    if changes.is_empty() && !resource.configs.is_empty() {
        return Err(Outcome::ok());
    }
    Ok(ConfigChanges {
        target,
        replace_all: false,
        changes,
    })
}

/// Sets levels of this broker's loggers.
fn change_levels(shared: &Shared, resource: &AlterConfigsResource, validate_only: bool) -> Outcome {
    let name = resource.resource_name.as_str();
    if name != shared.broker.0.to_string() {
        let message = format!(
            "this is broker {}; tell broker {name:?} itself",
            shared.broker
        );
        return refused(ErrorCode::InvalidRequest, message);
    }
    let mut changes = Vec::new();
    for config in &resource.configs {
        let logger = config.name.as_str();
        let level = match (config.config_operation, &config.value) {
            (0, Some(level)) => Some(level.to_string()),
            (1, _) => None,
            (0, None) => {
                let message = format!("{logger} has no value");
                return refused(ErrorCode::InvalidRequest, message);
            }
            (other, _) => {
                let message = format!(
                    "operation {other} is none on a logger: a level is set (0) or deleted (1)"
                );
                return refused(ErrorCode::InvalidRequest, message);
            }
        };
        changes.push((logger.to_owned(), level));
    }
    match shared.loggers.change(&changes, validate_only) {
        Ok(()) => Outcome::ok(),
        Err(error @ LoggerError::Root) => refused(ErrorCode::InvalidRequest, error.to_string()),
        Err(error @ (LoggerError::Unknown(_) | LoggerError::NoLevel(_))) => {
            refused(ErrorCode::InvalidConfig, error.to_string())
        }
        Err(error @ LoggerError::Failed(_)) => {
            refused(ErrorCode::UnknownServerError, error.to_string())
        }
    }
}

/// What a resource is to the controller. A broker answers for itself only, as in Kafka.
pub(super) fn target_of(kind: i8, name: &str, shared: &Shared) -> Result<ConfigTarget, Outcome> {
    let me = shared.broker;
    match (kind, name) {
        (TOPIC, name) => Ok(ConfigTarget::Topic(name.to_owned())),
        (BROKER, "") => Ok(ConfigTarget::Cluster),
        (BROKER, name) if name == me.0.to_string() => Ok(ConfigTarget::Broker(me)),
        (BROKER, name) => Err(refused(
            ErrorCode::InvalidRequest,
            format!("this is broker {me}; tell broker {name:?} itself what to change"),
        )),
        (GROUP, name) => permitted(&shared.image(), ConfigTarget::Group(name.to_owned())),
        (CLIENT_METRICS, name) => permitted(
            &shared.image(),
            ConfigTarget::ClientMetrics(name.to_owned()),
        ),
        (other, _) => Err(refused(
            ErrorCode::InvalidRequest,
            format!("resources of type {other} have no configuration here"),
        )),
    }
}

/// Under which name the controller keeps a key; a broker's is judged here, any other there.
pub(super) fn key_of(target: &ConfigTarget, name: &str) -> Result<String, Outcome> {
    match target {
        ConfigTarget::Topic(_) | ConfigTarget::Group(_) | ConfigTarget::ClientMetrics(_) => {
            Ok(name.to_owned())
        }
        ConfigTarget::Broker(_) | ConfigTarget::Cluster => match DynamicKey::find(name) {
            Ok(key) => Ok(key.kept_as().to_owned()),
            Err(error) => Err(refused(ErrorCode::InvalidRequest, error.to_string())),
        },
    }
}
