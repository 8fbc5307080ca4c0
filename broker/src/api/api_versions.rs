//! ApiVersions: what this broker serves, which feature levels it supports, and which are in force.
//!
//! An unknown version is answered, not refused: a body of version 0 with error 35 and the range of
//! this very API, from which the client picks another. The reply's header is version 0 always.

use super::call::Call;
use super::context::Shared;
use crate::server::{Refusal, Reply};
use bytes::Bytes;
use leasehold_metadata::Image;
use leasehold_metadata::features::{self, Level, LevelRange};
use leasehold_wire::kafka::messages::api_versions_response::{
    FinalizedFeatureKey, SupportedFeatureKey,
};
use leasehold_wire::kafka::messages::{
    ApiVersionsRequest, ApiVersionsResponse, api_versions_response,
};
use leasehold_wire::versions::{SERVED, Served};
use leasehold_wire::{ApiKey, ErrorCode, RequestHead, StrBytes, encode_reply};

pub(super) fn serve(shared: &Shared, call: Call, body: Bytes) -> Result<Reply, Refusal> {
    let request: ApiVersionsRequest = call.decode(body)?;
    let mut reply = ApiVersionsResponse::default();
    let (name, version) = (
        &request.client_software_name,
        &request.client_software_version,
    );
    if call.version >= 3 && !(is_software_word(name) && is_software_word(version)) {
        reply.error_code = ErrorCode::InvalidRequest.code();
        return Ok(Reply::Ready(call.encode::<ApiVersionsRequest>(&reply)?));
    }
    if call.version >= 3 {
        // Said once per connection; a repeat changes nothing.
        let _first = call
            .connection
            .software
            .set((name.to_string(), version.to_string()));
    }
    reply.api_keys = SERVED.iter().map(row).collect();
    if call.version >= 3 {
        tell_features(&mut reply, &shared.image(), call.version);
    }
    Ok(Reply::Ready(call.encode::<ApiVersionsRequest>(&reply)?))
}

/// From this version on clients know that a feature may begin at level 0.
const KNOWS_LEVEL_0: i16 = 4;

/// The epoch is the position in the metadata that the levels are of: clients keep those of the highest.
fn tell_features(reply: &mut ApiVersionsResponse, image: &Image, version: i16) {
    let supported = features::supported();
    let known =
        |(_, range): &(&String, &LevelRange)| version >= KNOWS_LEVEL_0 || range.min > Level::OFF;
    let key = |(name, range): (&String, &LevelRange)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_min_version(range.min.0)
            .with_max_version(range.max.0)
    };
    reply.supported_features = supported.iter().filter(known).map(key).collect();
    let in_force = supported
        .keys()
        .map(|name| (name, image.feature_level(name)));
    let in_force = in_force.filter(|(_, level)| *level > Level::OFF);
    let row = |(name, level): (&String, Level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_min_version_level(level.0)
            .with_max_version_level(level.0)
    };
    reply.finalized_features = in_force.map(row).collect();
    reply.finalized_features_epoch = i64::try_from(image.position.seq.0).unwrap_or(i64::MAX);
}

/// The answer to a version of ApiVersions that is not served.
pub(super) fn unknown_version(head: &RequestHead) -> Result<Reply, Refusal> {
    let mut reply = ApiVersionsResponse::default();
    reply.error_code = ErrorCode::UnsupportedVersion.code();
    reply.api_keys = SERVED
        .iter()
        .filter(|served| served.key == ApiKey::ApiVersions)
        .map(row)
        .collect();
    encode_reply(head.correlation_id, &reply, 0)
        .map(Reply::Ready)
        .map_err(|error| Refusal::new(error.to_string()))
}

fn row(served: &Served) -> api_versions_response::ApiVersion {
    api_versions_response::ApiVersion::default()
        .with_api_key(served.key as i16)
        .with_min_version(served.advertised_min)
        .with_max_version(served.max)
}

/// Kafka's rule for software names and versions: letters, digits, `-` and `.`, beginning and ending
/// with a letter or digit.
fn is_software_word(word: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(word.chars().next())
        && edge(word.chars().next_back())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::is_software_word;

    #[test]
    fn software_names_follow_kafkas_rule() {
        for good in ["librdkafka", "apache-kafka-java", "2.11.1", "a"] {
            assert!(is_software_word(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä", "a\nb"] {
            assert!(!is_software_word(bad), "{bad}");
        }
    }
}
