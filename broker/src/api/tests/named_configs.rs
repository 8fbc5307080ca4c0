//! Configurations of groups and of subscriptions to client metrics, as clients see them.

use super::stage::*;
use leasehold_metadata::broker_config::BrokerConfig;
use leasehold_metadata::features::Level;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use leasehold_wire::kafka::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use std::sync::Arc;

const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

fn word(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn at(stage: &Stage, level: Level) {
    let set = |image: &mut Arc<_>| {
        let image: &mut leasehold_metadata::Image = Arc::make_mut(image);
        image.metadata_version = Some(level);
    };
    stage.image.send_modify(set);
}

async fn set(stage: &Stage, kind: i8, name: &str, key: &str, value: &str) -> (i16, String) {
    let config = AlterableConfig::default()
        .with_name(word(key))
        .with_value(Some(word(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(word(name))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let told = &stage.ask(&request, 1).await.responses[0];
    let message = told.error_message.as_ref().map(ToString::to_string);
    (told.error_code, message.unwrap_or_default())
}

/// Each row as key=value, where it is from, its type, and its synonyms.
async fn described(stage: &Stage, kind: i8, name: &str) -> Result<Vec<String>, i16> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(word(name));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let result = &stage.ask(&request, 4).await.results[0];
    if result.error_code != 0 {
        return Err(result.error_code);
    }
    let text = |value: &Option<StrBytes>| value.as_ref().map_or("null", |v| v.as_str()).to_owned();
    let rows = result.configs.iter().map(|row| {
        assert!(!row.read_only && !row.is_sensitive);
        let mut line = format!(
            "{}={} {} {}",
            row.name.as_str(),
            text(&row.value),
            row.config_source,
            row.config_type
        );
        for synonym in &row.synonyms {
            let (name, value) = (synonym.name.as_str(), text(&synonym.value));
            line.push_str(&format!(" {name}={value}:{}", synonym.source));
        }
        line
    });
    Ok(rows.collect())
}

async fn listed(stage: &Stage, version: i16) -> Vec<String> {
    let kinds = match version {
        0 => Vec::new(),
        _ => vec![CLIENT_METRICS, GROUP],
    };
    let request = ListConfigResourcesRequest::default().with_resource_types(kinds);
    let reply = stage.ask(&request, version).await;
    let name = |row: &list_config_resources_response::ConfigResource| row.resource_name.to_string();
    reply.config_resources.iter().map(name).collect()
}

#[tokio::test]
async fn a_group_is_configured_described_with_its_defaults_and_listed() {
    let config = BrokerConfig {
        group_consumer_heartbeat_interval_ms: 6_000,
        ..BrokerConfig::default()
    };
    let stage = Stage::with_config(config).await;
    at(&stage, Level::NAMED);
    // Of a group that nobody knows, too.
    let interval = "consumer.heartbeat.interval.ms=6000 4 3 group.consumer.heartbeat.interval.ms=6000:4 group.consumer.heartbeat.interval.ms=5000:5";
    let default = "group.consumer.session.timeout.ms=45000:5";
    let session = format!("consumer.session.timeout.ms=45000 5 3 {default}");
    let found = described(&stage, GROUP, "g").await.unwrap();
    assert_eq!(found, [interval, &session]);
    assert!(listed(&stage, 1).await.is_empty());

    let key = "consumer.session.timeout.ms";
    assert_eq!(set(&stage, GROUP, "g", key, "50000").await.0, 0);
    let own = format!("{key}=50000 8 3 {key}=50000:8 {default}");
    let found = described(&stage, GROUP, "g").await.unwrap();
    assert_eq!(found, [interval, &own]);
    assert_eq!(listed(&stage, 1).await, ["g"]);
    assert!(listed(&stage, 0).await.is_empty());
    let nameless = described(&stage, GROUP, "").await.unwrap_err();
    assert_eq!(nameless, ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn a_subscription_is_kept_described_and_listed_and_its_patterns_are_expressions() {
    let stage = Stage::up().await;
    at(&stage, Level::NAMED);
    let defaults = ["interval.ms=300000 5 3", "match= 5 7", "metrics= 5 7"];
    let found = described(&stage, CLIENT_METRICS, "m").await.unwrap();
    assert_eq!(found, defaults);
    for pattern in ["client_id=[", "client_id=a, client_software_name=(b"] {
        let (code, message) = set(&stage, CLIENT_METRICS, "m", "match", pattern).await;
        assert_eq!(code, ErrorCode::InvalidConfig.code());
        assert!(
            message.contains("Illegal client matching pattern"),
            "{message}"
        );
    }
    assert!(stage.controller.calls.lock().unwrap().is_empty());
    let fine = set(&stage, CLIENT_METRICS, "m", "match", "client_id=a.*").await;
    assert_eq!(fine.0, 0);
    let own = "match=client_id=a.* 7 7 match=client_id=a.*:7";
    let found = described(&stage, CLIENT_METRICS, "m").await.unwrap();
    assert_eq!(found, [defaults[0], own, defaults[2]]);
    assert_eq!(listed(&stage, 0).await, ["m"]);
    assert_eq!(listed(&stage, 1).await, ["m"]);
    let nameless = described(&stage, CLIENT_METRICS, "").await.unwrap_err();
    assert_eq!(nameless, ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn a_controller_that_may_be_of_an_older_release_is_not_asked_for_either() {
    let stage = Stage::up().await;
    at(&stage, Level::RECORDED);
    for (kind, key, value) in [
        (GROUP, "consumer.session.timeout.ms", "50000"),
        (CLIENT_METRICS, "interval.ms", "500"),
    ] {
        let (code, message) = set(&stage, kind, "a", key, value).await;
        assert_eq!(code, ErrorCode::UnsupportedVersion.code());
        assert!(
            message.contains("--feature metadata.version=4"),
            "{message}"
        );
        assert!(described(&stage, kind, "a").await.is_ok());
    }
    assert!(stage.controller.calls.lock().unwrap().is_empty());
}
