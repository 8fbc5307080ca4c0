//! APIs that are answered out of the image alone.

use super::stage::*;
use leasehold_metadata::Partition;
use leasehold_types::BrokerId;
use leasehold_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use leasehold_wire::kafka::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use leasehold_wire::kafka::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use leasehold_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::versions::SERVED;
use leasehold_wire::{ApiKey, Client, ClientOptions, ErrorCode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

fn by_name(names: &[&str]) -> MetadataRequest {
    let topics = names
        .iter()
        .map(|n| MetadataRequestTopic::default().with_name(Some(name(n))));
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false)
}

fn asks(names: &[&str], version: i16) -> MetadataRequest {
    // The field came with version 4.
    by_name(names).with_allow_auto_topic_creation(version < 4)
}

#[tokio::test]
async fn api_versions_lists_the_table_in_every_version() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::ApiVersions) {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request.client_software_name = StrBytes::from_static_str("test");
            request.client_software_version = StrBytes::from_static_str("1.0");
        }
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.error_code, 0);
        assert_eq!(reply.api_keys.len(), SERVED.len());
        let produce = &reply.api_keys[0];
        assert_eq!((produce.min_version, produce.max_version), (0, 12));
    }
    let nameless = stage.ask(&ApiVersionsRequest::default(), 3).await;
    assert_eq!(nameless.error_code, ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let stage = Stage::up().await;
    let body = stage
        .client
        .call_raw(18, 99, vec![1, 2, 3].into(), Duration::from_secs(5))
        .await;
    let reply: ApiVersionsResponse = leasehold_wire::decode(body.unwrap(), 0).unwrap();
    assert_eq!(reply.error_code, ErrorCode::UnsupportedVersion.code());
    assert_eq!(reply.api_keys.len(), 1);
    assert_eq!(
        (reply.api_keys[0].api_key, reply.api_keys[0].max_version),
        (18, 4)
    );
}

#[tokio::test]
async fn what_is_not_served_or_malformed_closes_the_connection() {
    let stage = Stage::up().await;
    for (key, version) in [
        (0, 2),
        (0, 13),
        (3, 14),
        (24, 0),
        (68, 1),
        (999, 0),
        (3, 5),
        (1, 11),
    ] {
        let client = Client::connect(&stage.address, ClientOptions::default())
            .await
            .unwrap();
        let reply = client
            .call_raw(key, version, vec![9; 3].into(), Duration::from_secs(5))
            .await;
        assert!(
            reply.is_err() && client.is_closed(),
            "{key} {version}: {reply:?}"
        );
    }
}

#[tokio::test]
async fn metadata_in_every_version_tells_topics_leaders_and_what_is_wrong() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME), Some(OTHER), None]);
    stage.add_topic("b", &[Some(ME)]);
    for version in versions(ApiKey::Metadata) {
        let reply = stage.ask(&asks(&["a", "bad name"], version), version).await;
        assert_eq!(
            reply.brokers.len(),
            3,
            "a broker fenced just now is still named"
        );
        let a = &reply.topics[0];
        assert_eq!((a.error_code, a.partitions.len()), (0, 3));
        assert_eq!(a.partitions[1].leader_id, OTHER.0);
        assert_eq!(
            a.partitions[2].error_code,
            ErrorCode::LeaderNotAvailable.code()
        );
        if version >= 7 {
            assert_eq!(a.partitions[0].leader_epoch, 3);
        }
        if version >= 10 {
            assert_eq!(a.topic_id, id.0);
        }
        assert_eq!(
            reply.topics[1].error_code,
            ErrorCode::InvalidTopicException.code()
        );
    }
}

#[tokio::test]
async fn metadata_of_all_topics_and_of_none() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    stage.add_topic("b", &[Some(ME)]);
    let count = |reply: MetadataResponse| reply.topics.len();
    let none = by_name(&[]);
    assert_eq!(
        count(
            stage
                .ask(&none.clone().with_allow_auto_topic_creation(true), 0)
                .await
        ),
        2
    );
    assert_eq!(
        count(
            stage
                .ask(&none.clone().with_allow_auto_topic_creation(true), 1)
                .await
        ),
        0
    );
    assert_eq!(count(stage.ask(&none, 12).await), 0);
    for version in 1..=13 {
        let all = MetadataRequest::default().with_topics(None);
        assert_eq!(count(stage.ask(&all, version).await), 2);
    }
}

#[tokio::test]
async fn metadata_by_id_is_served_from_version_12() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    let asked = |id| {
        let topic = MetadataRequestTopic::default()
            .with_topic_id(id)
            .with_name(None);
        MetadataRequest::default().with_topics(Some(vec![topic]))
    };
    for version in 12..=13 {
        let known = stage.ask(&asked(id.0), version).await;
        assert_eq!(known.topics[0].name, Some(name("a")));
        let unknown = stage.ask(&asked(uuid::Uuid::from_u128(5)), version).await;
        assert_eq!(
            unknown.topics[0].error_code,
            ErrorCode::UnknownTopicId.code()
        );
        assert_eq!(unknown.topics[0].name, None);
        let mut both = asked(uuid::Uuid::from_u128(5));
        both.topics.as_mut().unwrap()[0].name = Some(name("a"));
        let unknown = stage.ask(&both, version).await;
        assert_eq!(unknown.topics[0].name, None);
    }
    // As in Kafka, where it spoils the whole request.
    let mut early = asked(id.0);
    let fine = MetadataRequestTopic::default().with_name(Some(name("a")));
    early.topics.as_mut().unwrap().push(fine);
    let early = stage.ask(&early, 11).await;
    let codes = early.topics.iter().map(|topic| topic.error_code);
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [ErrorCode::InvalidRequest.code(); 2]
    );
    assert!(early.brokers.is_empty());
}

#[tokio::test]
async fn the_cluster_is_described_in_every_version() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::DescribeCluster) {
        let reply = stage.ask(&DescribeClusterRequest::default(), version).await;
        assert_eq!((reply.error_code, reply.brokers.len()), (0, 2));
        assert_eq!(reply.controller_id, ME.0);
        assert_eq!(reply.cluster_id.as_str(), "c");
    }
    let fenced = DescribeClusterRequest::default().with_include_fenced_brokers(true);
    let reply = stage.ask(&fenced, 2).await;
    assert_eq!(
        reply
            .brokers
            .iter()
            .filter(|broker| broker.is_fenced)
            .count(),
        1
    );
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    let reply = stage.ask(&controllers, 1).await;
    assert_eq!(reply.error_code, ErrorCode::MismatchedEndpointType.code());
    let nobody = DescribeClusterRequest::default().with_endpoint_type(3);
    let reply = stage.ask(&nobody, 1).await;
    assert_eq!(reply.error_code, ErrorCode::UnsupportedEndpointType.code());
}

#[tokio::test]
async fn topic_partitions_come_page_by_page_without_gap_or_repeat() {
    let stage = Stage::up().await;
    for topic in ["a", "b", "c"] {
        stage.add_topic(topic, &[Some(ME); 5]);
    }
    let mut request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(4);
    let mut seen = BTreeMap::<String, Vec<i32>>::new();
    for _page in 0..10 {
        let reply = stage.ask(&request, 0).await;
        for topic in &reply.topics {
            let indexes = topic.partitions.iter().map(|p| p.partition_index);
            seen.entry(topic.name.as_ref().unwrap().to_string())
                .or_default()
                .extend(indexes);
        }
        let Some(next) = reply.next_cursor else { break };
        let cursor = Cursor::default()
            .with_topic_name(next.topic_name)
            .with_partition_index(next.partition_index);
        request.cursor = Some(cursor);
    }
    assert_eq!(seen.len(), 3);
    assert!(
        seen.values().all(|indexes| *indexes == [0, 1, 2, 3, 4]),
        "{seen:?}"
    );

    let asked = ["b", "nowhere"].map(|n| TopicRequest::default().with_name(name(n)));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(asked.to_vec())
        .with_response_partition_limit(2000);
    let reply = stage.ask(&request, 0).await;
    let errors: Vec<i16> = reply.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(errors, [0, ErrorCode::UnknownTopicOrPartition.code()]);

    for (topic, partition) in [("b", -1), ("c", 0)] {
        let senseless = Cursor::default()
            .with_topic_name(name(topic))
            .with_partition_index(partition);
        let request = request.clone().with_cursor(Some(senseless));
        let reply = stage.ask(&request, 0).await;
        let errors: Vec<i16> = reply.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(errors, [ErrorCode::InvalidRequest.code(); 2]);
    }
}

#[tokio::test]
async fn reassignments_under_way_are_listed() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME), Some(ME)]);
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut topic = (*image.topics[&id]).clone();
        topic.partitions[1] = Arc::new(Partition {
            replicas: vec![ME, OTHER],
            adding: vec![OTHER],
            isr: vec![ME],
            leader: Some(ME),
            ..Partition::default()
        });
        image.topics.insert(id, Arc::new(topic));
    });
    let all = ListPartitionReassignmentsRequest::default().with_topics(None);
    let reply = stage.ask(&all, 0).await;
    assert_eq!(reply.topics.len(), 1);
    let moving = &reply.topics[0].partitions;
    assert_eq!((moving.len(), moving[0].partition_index), (1, 1));
    assert_eq!(moving[0].adding_replicas, [OTHER.0]);
    let other = ListPartitionReassignmentsTopics::default()
        .with_name(name("a"))
        .with_partition_indexes(vec![0]);
    let reply = stage.ask(&all.with_topics(Some(vec![other])), 0).await;
    assert!(reply.topics.is_empty());
}

/// As Kafka does it, where administrators look for a broker's address and place.
#[tokio::test]
async fn a_broker_describes_who_it_is() {
    let stage = Stage::up().await;
    let asked = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str("1"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let reply = stage.ask(&request, 4).await;
    let row = |name: &str| {
        let mut rows = reply.results[0].configs.iter();
        rows.find(|row| row.name.as_str() == name).expect("a row")
    };
    for key in ["node.id", "broker.id"] {
        assert_eq!(row(key).value.as_deref(), Some("1"));
        assert_eq!((row(key).config_source, row(key).config_type), (4, 3));
        assert!(row(key).read_only);
    }
    let listeners = row("advertised.listeners");
    let value = listeners.value.as_deref().expect("a value");
    assert!(value.starts_with("PLAINTEXT://"), "{value}");
    assert_eq!((listeners.config_source, listeners.config_type), (4, 7));
    assert!(listeners.read_only);
    assert!(row("broker.rack").read_only);
}

/// The order of KIP-226: for the one broker, for all, its file, Kafka.
#[tokio::test]
async fn a_brokers_values_come_before_those_of_all_and_those_before_its_file() {
    let config = crate::config::BrokerConfig {
        max_connections: 10,
        log_retention_ms: 20,
        ..crate::config::BrokerConfig::default()
    };
    let stage = Stage::with_config(config).await;
    let id = stage.add_topic("a", &[Some(ME)]);
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = [pair("max.connections", "11"), pair("retention.ms", "21")];
        image.cluster_configs = Arc::new(all.into());
        let one = BTreeMap::from([pair("max.connections", "12"), pair("retention.ms", "22")]);
        image.broker_configs =
            Arc::new([(ME, one), (OTHER, [pair("segment.ms", "9")].into())].into());
    });
    let describe = async |kind: i8, resource: &str, key: &str| {
        let asked = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(resource.to_owned()))
            .with_configuration_keys(Some(vec![StrBytes::from_string(key.to_owned())]));
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![asked])
            .with_include_synonyms(true);
        let reply = stage.ask(&request, 4).await;
        let row = reply.results[0].configs.first().cloned();
        row.map(|row| {
            let levels: Vec<(String, i8)> = row
                .synonyms
                .iter()
                .map(|s| (s.value.clone().unwrap_or_default().to_string(), s.source))
                .collect();
            let first = (row.value.unwrap_or_default().to_string(), row.config_source);
            assert_eq!(levels.first(), Some(&first));
            (levels, row.read_only)
        })
    };
    let levels = |values: &[(&str, i8)]| -> Vec<(String, i8)> {
        values.iter().map(|(v, s)| ((*v).to_owned(), *s)).collect()
    };
    let unbounded = i32::MAX.to_string();
    let week = "604800000";
    for (kind, resource, key, expected) in [
        (
            4,
            "1",
            "max.connections",
            vec![("12", 2), ("11", 3), ("10", 4), (&unbounded, 5)],
        ),
        (
            4,
            "",
            "max.connections",
            vec![("11", 3), ("10", 4), (&unbounded, 5)],
        ),
        (
            4,
            "1",
            "log.retention.ms",
            vec![("22", 2), ("21", 3), ("20", 4), (week, 5)],
        ),
        (4, "", "log.retention.ms", vec![("21", 3), (week, 5)]),
        (
            2,
            "a",
            "retention.ms",
            vec![("22", 2), ("21", 3), (week, 5)],
        ),
        (2, "a", "segment.ms", vec![(week, 5)]),
    ] {
        let found = describe(kind, resource, key).await;
        let expected = (levels(&expected), false);
        assert_eq!(found, Some(expected), "{resource} {key}");
    }
    assert_eq!(describe(4, "", "num.partitions").await, None);
    let fixed = describe(4, "1", "num.partitions").await;
    assert_eq!(fixed, Some((levels(&[("1", 5)]), true)), "read-only");
    stage.configure_topic(id, "retention.ms", "23");
    let own = describe(2, "a", "retention.ms")
        .await
        .map(|(levels, _)| levels);
    let expected = levels(&[("23", 1), ("22", 2), ("21", 3), (week, 5)]);
    assert_eq!(own, Some(expected));
}

#[tokio::test]
async fn configurations_are_described_with_their_sources_in_every_version() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut topic = (*image.topics[&id]).clone();
        topic.configs.insert("retention.ms".into(), "5".into());
        image.topics.insert(id, Arc::new(topic));
        image.cluster_configs = Arc::new(BTreeMap::from([("retention.ms".into(), "7".into())]));
        image.static_configs = Arc::new(BTreeMap::from([("segment.jitter.ms".into(), "9".into())]));
    });
    let resource = |kind: i8, name: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configuration_keys(None)
    };
    for version in versions(ApiKey::DescribeConfigs) {
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![
                resource(2, "a"),
                resource(2, "nowhere"),
                resource(4, "1"),
                resource(4, "2"),
                resource(4, ""),
                resource(9, "1"),
            ])
            .with_include_synonyms(true)
            .with_include_documentation(version >= 3);
        let reply = stage.ask(&request, version).await;
        let codes: Vec<i16> = reply
            .results
            .iter()
            .map(|result| result.error_code)
            .collect();
        let (unknown, invalid) = (
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::InvalidRequest,
        );
        assert_eq!(
            codes,
            [0, unknown.code(), 0, invalid.code(), 0, invalid.code()]
        );
        let retention = reply.results[0]
            .configs
            .iter()
            .find(|c| c.name.as_str() == "retention.ms");
        let retention = retention.unwrap();
        assert_eq!(retention.value.as_deref(), Some("5"));
        assert_eq!(retention.config_source, 1);
        let sources: Vec<i8> = retention
            .synonyms
            .iter()
            .map(|synonym| synonym.source)
            .collect();
        assert_eq!(sources, [1, 3, 5]);
        let jitter = reply.results[0]
            .configs
            .iter()
            .find(|c| c.name.as_str() == "segment.jitter.ms");
        let jitter = jitter.unwrap();
        assert_eq!(
            (jitter.value.as_deref(), jitter.config_source),
            (Some("9"), 4)
        );
        let synonyms: Vec<_> = jitter
            .synonyms
            .iter()
            .map(|s| (s.name.as_str(), s.value.as_deref(), s.source))
            .collect();
        let broker_key = "log.roll.jitter.ms";
        assert_eq!(
            synonyms,
            [(broker_key, Some("9"), 4), (broker_key, Some("0"), 5)]
        );
        let documented = retention
            .documentation
            .as_deref()
            .is_some_and(|doc| !doc.is_empty());
        assert_eq!(documented, version >= 3);
        let port = reply.results[2]
            .configs
            .iter()
            .find(|c| c.name.as_str() == "num.partitions");
        assert!(port.unwrap().read_only);
        assert_eq!(reply.results[4].configs.len(), 1);
        assert_eq!(
            reply.results[4].configs[0].name.as_str(),
            "log.retention.ms"
        );
    }
}

#[tokio::test]
async fn a_fenced_controller_is_not_named() {
    let stage = Stage::up().await;
    stage.image.send_modify(|image| {
        let image = Arc::make_mut(image);
        let mut claim = image.claims[0].clone();
        claim.broker = BrokerId(3);
        image.claims.push_back(claim);
    });
    let reply = stage.ask(&DescribeClusterRequest::default(), 0).await;
    assert_eq!(reply.controller_id, ME.0);
}

#[tokio::test]
async fn who_asks_what_it_may_do_hears_that_it_may_do_everything() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    for version in versions(ApiKey::Metadata) {
        let mut request = asks(&["a"], version);
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.topics[0].topic_authorized_operations, i32::MIN);
        if version < 8 {
            continue;
        }
        request.include_topic_authorized_operations = true;
        request.include_cluster_authorized_operations = version <= 10;
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.topics[0].topic_authorized_operations, 3576);
        let expected = if version <= 10 { 8096 } else { i32::MIN };
        assert_eq!(reply.cluster_authorized_operations, expected);
    }
    for version in versions(ApiKey::DescribeCluster) {
        let mut request = DescribeClusterRequest::default();
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.cluster_authorized_operations, i32::MIN);
        request.include_cluster_authorized_operations = true;
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.cluster_authorized_operations, 8096);
    }
    let asked = vec![TopicRequest::default().with_name(name("a"))];
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(asked)
        .with_response_partition_limit(1);
    let reply = stage.ask(&request, 0).await;
    assert_eq!(reply.topics[0].topic_authorized_operations, 3576);
    let before = Cursor::default().with_partition_index(-1);
    let reply = stage.ask(&request.with_cursor(Some(before)), 0).await;
    assert_eq!(reply.topics[0].topic_authorized_operations, i32::MIN);
}
