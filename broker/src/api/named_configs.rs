//! Configurations of what has but a name: groups, and subscriptions to what clients measure (KIP-714).
//!
//! They need not exist to have one, as in Kafka. Nothing is collected by a subscription: it is kept for whoever
//! describes it.

use super::convert::refused;
use leasehold_metadata::Image;
use leasehold_metadata::client_metrics::{self, MATCH};
use leasehold_metadata::controller::NAMED;
use leasehold_metadata::features::Level;
use leasehold_metadata::rpc::{ConfigTarget, Outcome};
use leasehold_wire::ErrorCode;
use regex::RegexBuilder;

/// What a pattern may become in memory, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

/// Whether the controller may be asked: one of an older release would not know what is meant.
pub(super) fn permitted(image: &Image, target: ConfigTarget) -> Result<ConfigTarget, Outcome> {
    match image.permits(Level::NAMED, NAMED) {
        Ok(()) => Ok(target),
        Err(message) => Err(refused(ErrorCode::UnsupportedVersion, message)),
    }
}

/// What the controller does not look at: whether the patterns of a subscription are expressions.
pub(super) fn check(target: &ConfigTarget, key: &str, value: Option<&str>) -> Result<(), Outcome> {
    if !matches!(target, ConfigTarget::ClientMetrics(_)) || key != MATCH {
        return Ok(());
    }
    for pattern in client_metrics::patterns(value.unwrap_or_default()) {
        let built = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
        if let Err(error) = built {
            let message = format!("Illegal client matching pattern: {pattern}: {error}");
            return Err(refused(ErrorCode::InvalidConfig, message));
        }
    }
    Ok(())
}
