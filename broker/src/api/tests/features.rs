//! Feature levels as clients see them: what ApiVersions tells, and how UpdateFeatures changes it.

use super::stage::*;
use leasehold_metadata::features::{GROUP_VERSION, Level, METADATA_VERSION, TRANSACTION_VERSION};
use leasehold_metadata::rpc::{AdminRequest, Direction};
use leasehold_types::Seq;
use leasehold_wire::kafka::messages::update_features_request::FeatureUpdateKey;
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, ErrorCode};
use std::sync::Arc;

fn word(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn told(stage: &Stage, version: i16) -> ApiVersionsResponse {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = word("test");
        request.client_software_version = word("1.0");
    }
    stage.ask(&request, version).await
}

/// The level in force, with the epoch.
async fn finalized(stage: &Stage) -> (i16, i64) {
    let reply = told(stage, 4).await;
    assert_eq!(reply.finalized_features.len(), 1);
    let feature = &reply.finalized_features[0];
    assert_eq!(feature.name.as_str(), METADATA_VERSION);
    assert_eq!(feature.min_version_level, feature.max_version_level);
    (feature.max_version_level, reply.finalized_features_epoch)
}

/// Asks for `level`; `kind` is the type of the upgrade, or for version 0 whether it may fall.
async fn update(
    stage: &Stage,
    version: i16,
    level: i16,
    kind: i8,
    only: bool,
) -> UpdateFeaturesResponse {
    let mut key = FeatureUpdateKey::default()
        .with_feature(word(METADATA_VERSION))
        .with_max_version_level(level);
    match version {
        0 => key.allow_downgrade = kind != 1,
        _ => key.upgrade_type = kind,
    }
    let request = UpdateFeaturesRequest::default()
        .with_timeout_ms(5_000)
        .with_feature_updates(vec![key])
        .with_validate_only(only);
    stage.ask(&request, version).await
}

/// The error of the one feature, wherever this version has it.
fn error_of(reply: &UpdateFeaturesResponse, version: i16) -> i16 {
    if version >= 2 || reply.error_code != 0 {
        assert!(reply.results.is_empty());
        return reply.error_code;
    }
    assert_eq!((reply.error_code, reply.results.len()), (0, 1));
    assert_eq!(reply.results[0].feature.as_str(), METADATA_VERSION);
    reply.results[0].error_code
}

#[tokio::test]
async fn api_versions_tells_levels_from_version_3_on() {
    let stage = Stage::up().await;
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        image.position.seq = Seq(41);
        image.metadata_version = Some(Level::NEWEST);
    });
    for version in versions(ApiKey::ApiVersions) {
        let reply = told(&stage, version).await;
        if version < 3 {
            assert!(reply.supported_features.is_empty() && reply.finalized_features.is_empty());
            continue;
        }
        let supported = reply.supported_features.iter();
        let supported = supported.map(|f| (f.name.as_str(), f.min_version, f.max_version));
        let mut expected = vec![(METADATA_VERSION, 1, Level::NEWEST.0)];
        // Before that, clients fail on a level 0.
        if version >= 4 {
            expected.insert(0, (GROUP_VERSION, 0, 1));
            expected.push((TRANSACTION_VERSION, 0, 2));
        }
        assert_eq!(supported.collect::<Vec<_>>(), expected, "version {version}");
        assert_eq!(finalized(&stage).await, (Level::NEWEST.0, 41));
    }
}

#[tokio::test]
async fn clients_are_told_of_kafkas_features_that_are_in_force() {
    let stage = Stage::up().await;
    stage.image.send_modify(|image| {
        let level = (TRANSACTION_VERSION.to_owned(), Level(2));
        Arc::make_mut(image).features = Arc::new([level].into());
    });
    let reply = told(&stage, 3).await;
    let told = reply.finalized_features.iter();
    let told: Vec<_> = told
        .map(|f| (f.name.as_str(), f.max_version_level))
        .collect();
    assert_eq!(told, [(METADATA_VERSION, 1), (TRANSACTION_VERSION, 2)]);
}

#[tokio::test]
async fn update_features_changes_levels_in_every_version() {
    for version in versions(ApiKey::UpdateFeatures) {
        let stage = Stage::up().await;
        assert_eq!(finalized(&stage).await.0, 1);
        if version >= 1 {
            let reply = update(&stage, version, 3, 1, true).await;
            assert_eq!(error_of(&reply, version), 0);
            assert_eq!(finalized(&stage).await.0, 1, "that was only a question");
        }
        let reply = update(&stage, version, 3, 1, false).await;
        assert_eq!(error_of(&reply, version), 0, "version {version}");
        assert_eq!(
            finalized(&stage).await.0,
            3,
            "whoever asked reads it at once"
        );
        let reply = update(&stage, version, 9, 1, false).await;
        let refused = ErrorCode::InvalidUpdateVersion.code();
        assert_eq!(error_of(&reply, version), refused, "version {version}");
        assert_eq!(finalized(&stage).await.0, 3);
    }
}

#[tokio::test]
async fn update_features_says_which_way_a_level_may_go() {
    let stage = Stage::up().await;
    for (version, kind, direction) in [
        (0, 1, Direction::Up),
        (0, 2, Direction::DownIfSafe),
        (1, 1, Direction::Up),
        (2, 2, Direction::DownIfSafe),
        (2, 3, Direction::Down),
    ] {
        update(&stage, version, 2, kind, false).await;
        let calls = std::mem::take(&mut *stage.controller.calls.lock().unwrap());
        match &calls[..] {
            [AdminRequest::UpdateFeatures { updates, .. }] => {
                assert_eq!(updates[0].direction, direction, "{version} {kind}");
            }
            other => panic!("{other:?}"),
        }
    }
    let reply = update(&stage, 2, 3, 7, false).await;
    assert_eq!(reply.error_code, ErrorCode::InvalidUpdateVersion.code());
    assert!(stage.controller.calls.lock().unwrap().is_empty());
}
