//! AlterConfigs, the older way: what is not named goes back to its default.

use super::call::Call;
use super::context::Shared;
use super::context::mismatch;
use super::convert::{message_of, refused};
use super::incremental_alter_configs::{alter, key_of, target_of};
use super::named_configs;
use leasehold_metadata::rpc::{ConfigChange, ConfigChanges, ConfigOp, Outcome};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::alter_configs_request::AlterConfigsResource;
use leasehold_wire::kafka::messages::alter_configs_response::AlterConfigsResourceResponse;
use leasehold_wire::kafka::messages::{AlterConfigsRequest, AlterConfigsResponse};
use std::collections::HashSet;
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut seen = HashSet::new();
    let judged: Vec<Result<ConfigChanges, Outcome>> = request
        .resources
        .iter()
        .map(|resource| {
            if !seen.insert((resource.resource_type, resource.resource_name.as_str())) {
                let message = "the resource is named twice";
                return Err(refused(ErrorCode::InvalidRequest, message));
            }
            changes(resource, &shared)
        })
        .collect();
    let wanted: Vec<ConfigChanges> = judged.iter().flatten().cloned().collect();
    let outcomes = alter(&shared, wanted, request.validate_only).await;
    let mut outcomes = outcomes.into_iter();
    let rows = request
        .resources
        .iter()
        .zip(judged)
        .map(|(resource, judged)| {
            let outcome = match judged {
                Ok(_) => outcomes.next().unwrap_or_else(mismatch),
                Err(outcome) => outcome,
            };
            AlterConfigsResourceResponse::default()
                .with_error_code(outcome.code)
                .with_error_message(message_of(&outcome))
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
    AlterConfigsResponse::default().with_responses(rows.collect())
}

fn changes(resource: &AlterConfigsResource, shared: &Shared) -> Result<ConfigChanges, Outcome> {
    let target = target_of(resource.resource_type, &resource.resource_name, shared)?;
    let changes: Result<_, Outcome> = resource
        .configs
        .iter()
        .map(|config| {
            let Some(value) = &config.value else {
                let message = format!("Null value not supported for : {}", config.name.as_str());
                return Err(refused(ErrorCode::InvalidRequest, message));
            };
            named_configs::check(&target, &config.name, Some(value))?;
            Ok(ConfigChange {
                key: key_of(&target, &config.name)?,
                op: ConfigOp::Set,
                value: Some(value.to_string()),
            })
        })
        .collect();
    let changes = changes?;
    Ok(ConfigChanges {
        target,
        replace_all: true,
        changes,
    })
}
