//! What administrators ask for, by way of the controller.

use super::stage::*;
use crate::config::BrokerConfig;
use leasehold_metadata::rpc::AdminRequest;
use leasehold_wire::kafka::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use leasehold_wire::kafka::messages::create_partitions_request::CreatePartitionsTopic;
use leasehold_wire::kafka::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use leasehold_wire::kafka::messages::delete_topics_request::DeleteTopicState;
use leasehold_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use leasehold_wire::kafka::messages::elect_leaders_request::TopicPartitions;
use leasehold_wire::kafka::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use leasehold_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, ErrorCode};
use std::sync::atomic::Ordering;

fn word(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(text: &str) -> TopicName {
    TopicName(word(text))
}

fn create(names: &[&str]) -> CreateTopicsRequest {
    let topics = names.iter().map(|n| {
        let config = CreatableTopicConfig::default()
            .with_name(word("retention.ms"))
            .with_value(Some(word("5")));
        CreatableTopic::default()
            .with_name(name(n))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(vec![config])
    });
    CreateTopicsRequest::default()
        .with_topics(topics.collect())
        .with_timeout_ms(5_000)
}

#[tokio::test]
async fn a_created_topic_is_in_this_brokers_image_when_the_reply_comes() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::CreateTopics) {
        let topic = format!("t{version}");
        let reply = stage.ask(&create(&[&topic, "taken"]), version).await;
        assert_eq!(reply.topics[0].error_code, 0);
        assert_eq!(
            reply.topics[1].error_code,
            ErrorCode::TopicAlreadyExists.code()
        );
        // None, and not null: that would say that they may not be told.
        assert_eq!(reply.topics[1].configs, Some(Vec::new()));
        assert_eq!(
            reply.topics[1].error_message.as_deref(),
            Some("it is taken")
        );
        assert!(stage.image.borrow().topic_by_name(&topic).is_some());
        if version >= 5 {
            assert_eq!(reply.topics[0].num_partitions, 2);
            let configs = reply.topics[0].configs.as_ref().unwrap();
            let own = configs
                .iter()
                .find(|c| c.name.as_str() == "retention.ms")
                .unwrap();
            assert_eq!((own.value.as_deref(), own.config_source), (Some("5"), 1));
        }
    }
}

#[tokio::test]
async fn the_topic_of_offsets_may_be_created_by_hand_and_that_of_metadata_may_not() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::CreateTopics) {
        let reply = stage.ask(&create(&["__cluster_metadata"]), version).await;
        let refused = ErrorCode::TopicAuthorizationFailed.code();
        assert_eq!(reply.topics[0].error_code, refused, "version {version}");
    }
    let both = create(&["__cluster_metadata", "__consumer_offsets"]);
    let reply = stage.ask(&both, 7).await;
    assert_eq!(reply.topics[1].error_code, 0);
    let image = stage.image.borrow().clone();
    assert!(image.topic_by_name("__cluster_metadata").is_none());
}

#[tokio::test]
async fn a_topic_named_twice_in_one_request_is_refused_and_the_others_are_not() {
    let stage = Stage::up().await;
    let reply = stage.ask(&create(&["a", "b", "a"]), 7).await;
    let rows: Vec<(String, i16)> = reply
        .topics
        .iter()
        .map(|t| (t.name.to_string(), t.error_code))
        .collect();
    assert_eq!(
        rows,
        [
            ("a".into(), ErrorCode::InvalidRequest.code()),
            ("b".into(), 0)
        ]
    );
}

#[tokio::test]
async fn without_a_controller_every_wish_gets_a_retriable_error() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    stage.controller.down.store(true, Ordering::Relaxed);
    let created = stage.ask(&create(&["x"]), 7).await;
    let deleted = DeleteTopicsRequest::default().with_topic_names(vec![name("a")]);
    let deleted = stage.ask(&deleted, 5).await;
    let elected = stage
        .ask(
            &ElectLeadersRequest::default().with_topic_partitions(None),
            2,
        )
        .await;
    let moved = stage
        .ask(&AlterPartitionReassignmentsRequest::default(), 0)
        .await;
    let ids = stage
        .ask(
            &InitProducerIdRequest::default().with_transactional_id(None),
            4,
        )
        .await;
    for code in [
        created.topics[0].error_code,
        deleted.responses[0].error_code,
        elected.error_code,
        moved.error_code,
        ids.error_code,
    ] {
        assert!(ErrorCode::from_code(code).is_retriable(), "{code}");
    }
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let stage = Stage::up().await;
    for version in versions(ApiKey::DeleteTopics) {
        let id = stage.add_topic("a", &[Some(ME)]);
        let mut request = DeleteTopicsRequest::default().with_timeout_ms(5_000);
        if version < 6 {
            request.topic_names = vec![name("a")];
        } else {
            request.topics = vec![
                DeleteTopicState::default()
                    .with_name(None)
                    .with_topic_id(id.0),
            ];
        }
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.responses[0].error_code, 0);
        assert!(stage.image.borrow().topic_by_name("a").is_none());
    }
}

#[tokio::test]
async fn a_topic_to_delete_is_named_by_its_name_or_by_its_id() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    let topic = |name, id| {
        DeleteTopicState::default()
            .with_name(name)
            .with_topic_id(id)
    };
    let nil = uuid::Uuid::nil();
    for unclear in [topic(Some(name("a")), id.0), topic(None, nil)] {
        let request = DeleteTopicsRequest::default()
            .with_timeout_ms(5_000)
            .with_topics(vec![topic(Some(name("a")), nil), unclear.clone()]);
        let reply = stage.ask(&request, 6).await;
        let codes: Vec<_> = reply.responses.iter().map(|row| row.error_code).collect();
        assert_eq!(codes, [ErrorCode::InvalidRequest.code(); 2]);
        assert_eq!(reply.responses[1].topic_id, unclear.topic_id);
        assert!(stage.image.borrow().topic_by_name("a").is_some());
    }
}

#[tokio::test]
async fn partitions_are_added_in_every_version() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    for (version, count) in versions(ApiKey::CreatePartitions).zip(2..) {
        let topic = CreatePartitionsTopic::default()
            .with_name(name("a"))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(5_000);
        let reply = stage.ask(&request, version).await;
        assert_eq!(reply.results[0].error_code, 0);
        let partitions = stage
            .image
            .borrow()
            .topic_by_name("a")
            .unwrap()
            .partitions
            .len();
        assert_eq!(partitions, count as usize);
    }
}

#[tokio::test]
async fn configurations_are_changed_for_topics_for_all_and_for_the_broker_that_is_asked() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    for version in versions(ApiKey::IncrementalAlterConfigs) {
        let resource = |kind: i8, resource: &str, key: &str| {
            let config = AlterableConfig::default()
                .with_name(word(key))
                .with_value(Some(word("77")));
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(word(resource))
                .with_configs(vec![config])
        };
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            resource(4, "1", "num.partitions"),
            resource(2, "a", "retention.ms"),
            resource(4, "", "log.retention.ms"),
            resource(2, "a", "retention.ms"),
            resource(4, "2", "log.retention.ms"),
            resource(4, "x", "log.retention.ms"),
        ]);
        let reply = stage.ask(&request, version).await;
        let codes: Vec<i16> = reply.responses.iter().map(|row| row.error_code).collect();
        let invalid = ErrorCode::InvalidRequest.code();
        assert_eq!(codes, [invalid, 0, 0, invalid, invalid, invalid]);
        let message = reply.responses[0].error_message.as_deref();
        assert!(message.is_some_and(|m| m.contains("num.partitions")));
        let image = stage.image.borrow();
        assert_eq!(
            image.topic_by_name("a").unwrap().configs["retention.ms"],
            "77"
        );
        assert_eq!(image.cluster_configs["retention.ms"], "77");
        drop(image);
        let own = IncrementalAlterConfigsRequest::default().with_resources(vec![resource(
            4,
            "1",
            "max.connections",
        )]);
        let reply = stage.ask(&own, version).await;
        assert_eq!(reply.responses[0].error_code, 0);
        let image = stage.image.borrow();
        assert_eq!(image.broker_config(ME, "max.connections"), Some("77"));
    }
}

#[tokio::test]
async fn taking_away_from_a_single_broker_what_it_does_not_have_is_no_error() {
    let stage = Stage::up().await;
    let config = AlterableConfig::default()
        .with_name(word("ssl.keystore.location"))
        .with_config_operation(1)
        .with_value(None);
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(word("1"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let reply = stage.ask(&request, 1).await;
    assert_eq!(reply.responses[0].error_code, 0);
    assert!(stage.controller.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn elections_and_reassignments_are_answered_per_partition() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    for version in versions(ApiKey::ElectLeaders) {
        let asked = TopicPartitions::default()
            .with_topic(name("a"))
            .with_partitions(vec![0]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
        let reply = stage.ask(&request, version).await;
        let result = &reply.replica_election_results[0].partition_result[0];
        assert_eq!(result.error_code, ErrorCode::ElectionNotNeeded.code());
        let everywhere = ElectLeadersRequest::default().with_topic_partitions(None);
        let reply = stage.ask(&everywhere, version).await;
        let topic = &reply.replica_election_results[0];
        assert_eq!(
            (topic.topic.as_str(), topic.partition_result.len()),
            ("a", 0)
        );
    }
    for version in versions(ApiKey::AlterPartitionReassignments) {
        let partition = ReassignablePartition::default().with_replicas(None);
        let topic = ReassignableTopic::default()
            .with_name(name("a"))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let reply = stage.ask(&request, version).await;
        let code = reply.responses[0].partitions[0].error_code;
        assert_eq!(code, ErrorCode::NoReassignmentInProgress.code());
    }
}

#[tokio::test]
async fn asking_for_a_new_topic_creates_it_where_that_is_allowed() {
    let stage = Stage::up().await;
    let ask = |topic: &str, allow: bool| {
        let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(allow)
    };
    for version in versions(ApiKey::Metadata) {
        let topic = format!("new-{version}");
        let reply = stage.ask(&ask(&topic, true), version).await;
        assert_eq!(reply.topics[0].error_code, 0);
        assert!(
            reply.topics[0]
                .partitions
                .iter()
                .all(|p| p.leader_id == ME.0)
        );
    }
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(
        stage.ask(&ask("other", false), 12).await.topics[0].error_code,
        unknown
    );
    assert_eq!(
        stage.ask(&ask("__hidden", true), 12).await.topics[0].error_code,
        unknown
    );
    let wide = stage.ask(&ask("wide", true), 12).await;
    let later = ErrorCode::LeaderNotAvailable.code();
    assert_eq!(
        wide.topics[0].error_code, later,
        "clients give up on the real error"
    );
    stage.controller.down.store(true, Ordering::Relaxed);
    let later = stage.ask(&ask("later", true), 12).await;
    assert_eq!(
        later.topics[0].error_code,
        ErrorCode::LeaderNotAvailable.code()
    );

    let mut config = BrokerConfig::default();
    config.set("auto.create.topics.enable", "false").unwrap();
    let strict = Stage::with_config(config).await;
    assert_eq!(
        strict.ask(&ask("other", true), 12).await.topics[0].error_code,
        unknown
    );
    assert!(strict.controller.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_wish_to_check_only_changes_nothing() {
    let stage = Stage::up().await;
    let reply = stage.ask(&create(&["a"]).with_validate_only(true), 7).await;
    assert_eq!(reply.topics[0].error_code, 0);
    let calls = stage.controller.calls.lock().unwrap();
    assert!(matches!(
        calls[0],
        AdminRequest::CreateTopics {
            validate_only: true,
            ..
        }
    ));
}

#[tokio::test]
async fn levels_of_loggers_are_told_and_changed_by_the_broker_itself() {
    let stage = Stage::up().await;
    let level = |broker: &str, logger: &str, operation: i8, level: Option<&str>| {
        let config = AlterableConfig::default()
            .with_name(word(logger))
            .with_config_operation(operation)
            .with_value(level.map(word));
        let resource = AlterConfigsResource::default()
            .with_resource_type(8)
            .with_resource_name(word(broker))
            .with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    let module = "leasehold_broker::replica";
    let (invalid, config) = (
        ErrorCode::InvalidRequest.code(),
        ErrorCode::InvalidConfig.code(),
    );
    for (wish, code) in [
        (level("1", module, 0, Some("DEBUG")), 0),
        (level("2", module, 0, Some("TRACE")), invalid),
        (level("1", "no.such.module", 0, Some("TRACE")), config),
        (level("1", module, 0, Some("LOUD")), config),
        (level("1", module, 0, None), invalid),
        (level("1", module, 2, Some("TRACE")), invalid),
        (level("1", "root", 1, None), invalid),
    ] {
        for version in versions(ApiKey::IncrementalAlterConfigs) {
            let reply = stage.ask(&wish, version).await;
            assert_eq!(reply.responses[0].error_code, code, "{wish:?}");
        }
    }
    let asked = DescribeConfigsResource::default()
        .with_resource_type(8)
        .with_resource_name(word("1"))
        .with_configuration_keys(Some(vec![word(module)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    for version in versions(ApiKey::DescribeConfigs) {
        let rows = &stage.ask(&request, version).await.results[0].configs;
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.value.as_deref()))
            .collect();
        assert_eq!(told, [(module, Some("DEBUG"))]);
    }
    assert!(stage.controller.calls.lock().unwrap().is_empty());
}
