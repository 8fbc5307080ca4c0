//! Client quotas, fetch sessions and the older ways to configure, as clients see them.

use super::data::{fetch, produce, put};
use super::stage::*;
use leasehold_metadata::rpc::{AdminRequest, ConfigOp, ConfigTarget};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use leasehold_wire::kafka::messages::alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use leasehold_wire::kafka::messages::describe_client_quotas_request::ComponentData;
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use std::time::{Duration, Instant};

fn word(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Sets `key` of one part of an entity; without a value takes it away.
fn quota(kind: &str, name: Option<&str>, key: &str, value: Option<f64>) -> EntryData {
    let part = EntityData::default()
        .with_entity_type(word(kind))
        .with_entity_name(name.map(word));
    let op = OpData::default()
        .with_key(word(key))
        .with_value(value.unwrap_or(0.0))
        .with_remove(value.is_none());
    EntryData::default()
        .with_entity(vec![part])
        .with_ops(vec![op])
}

async fn set(stage: &Stage, entry: EntryData) -> i16 {
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    stage.ask(&request, 1).await.entries[0].error_code
}

/// (entity, key, value) of all that fit.
async fn described(stage: &Stage, components: Vec<ComponentData>, strict: bool) -> Vec<String> {
    let request = DescribeClientQuotasRequest::default()
        .with_components(components)
        .with_strict(strict);
    let reply = stage.ask(&request, 1).await;
    assert_eq!(reply.error_code, 0, "{reply:?}");
    let line = |entry: &describe_client_quotas_response::EntryData| {
        let parts = entry.entity.iter().map(|part| {
            let name = part.entity_name.as_ref().map_or("*", |name| name.as_str());
            format!("{}={name}", part.entity_type.as_str())
        });
        let values = entry
            .values
            .iter()
            .map(|v| format!("{}={}", v.key.as_str(), v.value));
        parts.chain(values).collect::<Vec<_>>().join(" ")
    };
    reply.entries.unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn quotas_are_set_described_and_taken_away() {
    let stage = Stage::up().await;
    let rate = "producer_byte_rate";
    assert_eq!(
        set(&stage, quota("client-id", Some("a"), rate, Some(1000.0))).await,
        0
    );
    assert_eq!(
        set(&stage, quota("client-id", None, rate, Some(500.0))).await,
        0
    );
    assert_eq!(
        set(
            &stage,
            quota("user", Some("u"), "request_percentage", Some(1.5))
        )
        .await,
        0
    );
    let all = [
        "client-id=* producer_byte_rate=500",
        "client-id=a producer_byte_rate=1000",
        "user=u request_percentage=1.5",
    ];
    assert_eq!(described(&stage, vec![], false).await, all);
    let is = |kind: &str, how, name: Option<&str>| {
        ComponentData::default()
            .with_entity_type(word(kind))
            .with_match_type(how)
            .with_match(name.map(word))
    };
    let client = |how, name| vec![is("client-id", how, name)];
    assert_eq!(
        described(&stage, client(0, Some("a")), true).await,
        all[1..2]
    );
    assert_eq!(described(&stage, client(1, None), true).await, all[..1]);
    assert_eq!(described(&stage, client(2, None), false).await, all[..2]);
    assert_eq!(described(&stage, vec![], true).await, [""; 0]);
    for (component, error) in [
        (is("planet", 2, None), ErrorCode::UnsupportedVersion),
        (is("user", 7, None), ErrorCode::InvalidRequest),
        (is("user", 0, None), ErrorCode::InvalidRequest),
    ] {
        let request = DescribeClientQuotasRequest::default().with_components(vec![component]);
        assert_eq!(stage.ask(&request, 0).await.error_code, error.code());
    }
    let bad = ErrorCode::InvalidRequest.code();
    for entry in [
        quota("client-id", Some("a"), rate, Some(0.0)),
        quota("client-id", Some("a"), "no_such_rate", Some(1.0)),
        quota("ip", Some("1.2.3.4"), "connection_creation_rate", Some(1.0)),
        EntryData::default(),
    ] {
        assert_eq!(set(&stage, entry.clone()).await, bad, "{entry:?}");
    }
    assert_eq!(
        set(&stage, quota("client-id", Some("a"), rate, None)).await,
        0
    );
    assert_eq!(
        described(&stage, client(0, Some("a")), false).await,
        [""; 0]
    );
}

#[tokio::test]
async fn a_producer_above_its_quota_is_answered_and_then_not_read_from() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    put(&stage, "a", 0, b"first").await;
    // What is sent below takes about a second and a half at this rate, on top of the window.
    set(
        &stage,
        quota(
            "client-id",
            Some("leasehold"),
            "producer_byte_rate",
            Some(8.0),
        ),
    )
    .await;
    let batch = super::data::batch(b"much too much");
    let began = Instant::now();
    let reply = stage.ask(&produce(-1, "a", 0, Some(batch)), 9).await;
    assert_eq!(reply.responses[0].partition_responses[0].error_code, 0);
    let wait = Duration::from_millis(reply.throttle_time_ms.unsigned_abs().into());
    assert!(wait > Duration::from_millis(500), "{wait:?}");
    assert!(began.elapsed() < wait, "the reply itself is not delayed");
    stage.ask(&MetadataRequest::default(), 12).await;
    assert!(
        began.elapsed() >= wait - Duration::from_millis(20),
        "then it is muted"
    );
}

#[tokio::test]
async fn a_consumer_above_its_quota_gets_its_records_after_the_wait() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME)]);
    for _ in 0..3 {
        put(&stage, "a", 0, b"some bytes").await;
    }
    set(
        &stage,
        quota("user", None, "consumer_byte_rate", Some(20.0)),
    )
    .await;
    let ask = fetch(13, "a", id.0, 0, 0);
    // Two of three batches fit into what the quota allows in its window; the next ones do not.
    let reply = stage.ask(&ask, 13).await;
    assert_eq!(reply.throttle_time_ms, 0, "{reply:?}");
    let reply = stage.ask(&ask, 13).await;
    assert!(
        reply.throttle_time_ms > 0 && reply.responses.is_empty(),
        "{reply:?}"
    );
    set(&stage, quota("user", None, "consumer_byte_rate", None)).await;
    let reply = stage.ask(&ask, 13).await;
    assert_eq!(reply.throttle_time_ms, 0);
    assert!(
        reply.responses[0].partitions[0]
            .records
            .as_ref()
            .unwrap()
            .len()
            > 100
    );
}

#[tokio::test]
async fn topics_beyond_the_mutation_quota_are_refused_where_the_client_knows_the_error() {
    let stage = Stage::up().await;
    let rate = "controller_mutation_rate";
    set(&stage, quota("client-id", None, rate, Some(0.1))).await;
    let create = |name: &str| {
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(TopicName(word(name)))
            .with_num_partitions(20)
            .with_replication_factor(-1);
        CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(5_000)
    };
    let reply = stage.ask(&create("burst"), 7).await;
    assert_eq!(reply.topics[0].error_code, 0);
    let reply = stage.ask(&create("more"), 7).await;
    let over = ErrorCode::ThrottlingQuotaExceeded.code();
    assert_eq!(reply.topics[0].error_code, over);
    assert!(
        reply.throttle_time_ms > 100_000,
        "{}",
        reply.throttle_time_ms
    );
}

#[tokio::test]
async fn a_consumers_session_answers_what_is_new() {
    let stage = Stage::up().await;
    let id = stage.add_topic("a", &[Some(ME), Some(ME)]);
    put(&stage, "a", 0, b"first").await;
    put(&stage, "a", 1, b"second").await;
    for version in [7, 12, 13, 17] {
        let mut first = fetch(version, "a", id.0, 0, 1);
        let mut other = first.topics[0].partitions[0].clone();
        other.partition = 1;
        first.topics[0].partitions.push(other);
        first.session_epoch = 0;
        let opened = stage.ask(&first, version).await;
        assert_eq!(opened.responses[0].partitions.len(), 2, "version {version}");
        let session = opened.session_id;
        assert_ne!(session, 0);
        let mut next = FetchRequest::default()
            .with_session_id(session)
            .with_session_epoch(1);
        next.max_wait_ms = 50;
        next.max_bytes = 1 << 20;
        next.min_bytes = 1;
        let nothing = stage.ask(&next, version).await;
        assert_eq!((nothing.error_code, nothing.responses.len()), (0, 0));
        // Partition 1 is asked for from its beginning; of partition 0 there is no news.
        let mut back = fetch(version, "a", id.0, 1, 0);
        (back.session_id, back.session_epoch) = (session, 2);
        let news = stage.ask(&back, version).await;
        let rows = &news.responses[0].partitions;
        assert_eq!((rows.len(), rows[0].partition_index), (1, 1));
        let late = stage.ask(&next, version).await;
        assert_eq!(late.error_code, ErrorCode::InvalidFetchSessionEpoch.code());
    }
}

#[tokio::test]
async fn the_older_alteration_replaces_all_of_a_topics_configuration() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let config = |value: Option<&str>| {
        AlterableConfig::default()
            .with_name(word("retention.ms"))
            .with_value(value.map(word))
    };
    let of = |kind, name: &str, value| {
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(word(name))
            .with_configs(vec![config(value)])
    };
    let resources = vec![
        of(2, "a", Some("5")),
        of(4, "2", Some("5")),
        of(2, "b", None),
        of(2, "a", Some("6")),
    ];
    let request = AlterConfigsRequest::default().with_resources(resources);
    for version in 0..=2 {
        let reply = stage.ask(&request, version).await;
        let bad = ErrorCode::InvalidRequest.code();
        let codes: Vec<i16> = reply.responses.iter().map(|row| row.error_code).collect();
        assert_eq!(codes, [0, bad, bad, bad]);
    }
    let calls = stage.controller.calls.lock().unwrap();
    let Some(AdminRequest::AlterConfigs { resources, .. }) = calls.last() else {
        panic!("{calls:?}");
    };
    assert!(resources[0].replace_all);
    assert_eq!(resources[0].target, ConfigTarget::Topic("a".into()));
    assert_eq!(resources[0].changes[0].op, ConfigOp::Set);
}

#[tokio::test]
async fn resources_with_a_configuration_are_listed_by_kind() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let list = async |kinds: Vec<i8>| {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds);
        stage.ask(&request, 1).await
    };
    let all = list(vec![]).await.config_resources;
    let rows: Vec<(i8, &str)> = all
        .iter()
        .map(|row| (row.resource_type, row.resource_name.as_str()))
        .collect();
    let brokers = |kind| [(kind, "1"), (kind, "2"), (kind, "3")];
    assert_eq!(rows, [&[(2, "a")][..], &brokers(4), &brokers(8)].concat());
    assert_eq!(list(vec![2]).await.config_resources.len(), 1);
    let unknown = list(vec![2, 99]).await;
    assert_eq!(unknown.error_code, ErrorCode::UnsupportedVersion.code());
    let old = stage.ask(&ListConfigResourcesRequest::default(), 0).await;
    assert_eq!((old.error_code, old.config_resources.len()), (0, 0));
}

#[tokio::test]
async fn a_broker_is_forgotten_by_the_controllers_word() {
    let stage = Stage::up().await;
    let forget = |id: i32| UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
    assert_eq!(stage.ask(&forget(3), 0).await.error_code, 0);
    let again = stage.ask(&forget(3), 0).await;
    assert_eq!(again.error_code, ErrorCode::BrokerIdNotRegistered.code());
}
