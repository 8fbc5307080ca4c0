//! UpdateFeatures, by way of the controller: other levels of features, all or none.
//!
//! An error is one for all; before version 2 each feature gets its own success.

use super::call::Call;
use super::context::{READ_YOUR_WRITES, Shared, mismatch};
use super::convert::message_of;
use leasehold_metadata::Image;
use leasehold_metadata::features::Level;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Direction, FeatureUpdate, Outcome};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::update_features_request::FeatureUpdateKey;
use leasehold_wire::kafka::messages::update_features_response::UpdatableFeatureResult;
use leasehold_wire::kafka::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let asked = request.feature_updates.iter();
    let outcome = match asked.map(|key| update(key, call.version)).collect() {
        Ok(updates) => apply(&shared, updates, &request).await,
        Err(outcome) => outcome,
    };
    if call.version >= 2 || !outcome.is_ok() {
        return UpdateFeaturesResponse::default()
            .with_error_code(outcome.code)
            .with_error_message(message_of(&outcome));
    }
    let row = |key: &FeatureUpdateKey| {
        UpdatableFeatureResult::default().with_feature(key.feature.clone())
    };
    let rows = request.feature_updates.iter().map(row).collect();
    UpdateFeaturesResponse::default().with_results(rows)
}

async fn apply(
    shared: &Shared,
    updates: Vec<FeatureUpdate>,
    request: &UpdateFeaturesRequest,
) -> Outcome {
    let wish = AdminRequest::UpdateFeatures {
        updates: updates.clone(),
        validate_only: request.validate_only,
    };
    let outcome = match shared.admin(wish, request.timeout_ms).await {
        Ok(AdminResponse::UpdateFeatures(outcome)) => outcome,
        failed => failed.err().unwrap_or_else(mismatch),
    };
    if outcome.is_ok() && !request.validate_only {
        let shows = |image: &Image| {
            updates
                .iter()
                .all(|update| image.feature_level(&update.name) == update.level)
        };
        shared.image_shows(READ_YOUR_WRITES, shows).await;
    }
    outcome
}

fn update(key: &FeatureUpdateKey, version: i16) -> Result<FeatureUpdate, Outcome> {
    let direction = match (version, key.upgrade_type) {
        (0, _) if key.allow_downgrade => Direction::DownIfSafe,
        (0, _) | (_, 1) => Direction::Up,
        (_, 2) => Direction::DownIfSafe,
        (_, 3) => Direction::Down,
        (_, other) => {
            let message = format!(
                "Invalid update version {} for feature {}. There is no upgrade type {other}.",
                key.max_version_level,
                key.feature.as_str()
            );
            let code = ErrorCode::InvalidUpdateVersion.code();
            return Err(Outcome::refused(code, message));
        }
    };
    Ok(FeatureUpdate {
        name: key.feature.to_string(),
        level: Level(key.max_version_level),
        direction,
    })
}
