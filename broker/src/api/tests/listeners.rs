//! What clients of a further listener are told: the endpoints of that listener, and nothing else.

use super::data::{batch, fetch, produce};
use super::stage::*;
use leasehold_types::{BrokerId, ListenerName};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::{Request, StrBytes};
use leasehold_wire::{ApiKey, Client, ErrorCode};
use std::time::Duration;

const THIRD: BrokerId = BrokerId(3);

fn public() -> ListenerName {
    ListenerName::parse("public").unwrap()
}

async fn ask<R: Request>(client: &Client, request: &R, version: i16) -> R::Response {
    let limit = Duration::from_secs(10);
    client.call_within(request, version, limit).await.unwrap()
}

/// A stage whose brokers 1 and 3 are reached through `public`, while of broker 2 it is not known.
async fn stage() -> (Stage, Client) {
    let stage = Stage::up().await;
    let client = stage.client_through(&public()).await;
    stage.tell_endpoint(ME, &public(), Some(31_001));
    stage.tell_endpoint(OTHER, &public(), None);
    stage.tell_endpoint(THIRD, &public(), Some(31_003));
    (stage, client)
}

fn all() -> MetadataRequest {
    MetadataRequest::default().with_topics(None)
}

fn hosts(reply: &MetadataResponse) -> Vec<String> {
    let host = |b: &metadata_response::MetadataResponseBroker| format!("{}:{}", &*b.host, b.port);
    reply.brokers.iter().map(host).collect()
}

#[tokio::test]
async fn metadata_names_the_endpoints_of_the_listener_that_the_client_came_through() {
    let (stage, client) = stage().await;
    stage.add_topic("a", &[Some(ME), Some(OTHER)]);
    let (main, through) = (
        ask(&stage.client, &all(), 9).await,
        ask(&client, &all(), 9).await,
    );
    assert_eq!(hosts(&main), ["host-1:9092", "host-2:9092", "host-3:9092"]);
    assert_eq!(hosts(&through), ["public-1:31001", "public-3:31003"]);
    let led = |reply: &MetadataResponse| -> Vec<(i16, i32)> {
        let partitions = reply.topics[0].partitions.iter();
        partitions.map(|p| (p.error_code, p.leader_id.0)).collect()
    };
    assert_eq!(led(&main), [(0, ME.0), (0, OTHER.0)]);
    let not_found = ErrorCode::ListenerNotFound.code();
    assert_eq!(led(&through), [(0, ME.0), (not_found, -1)]);
    assert_eq!(through.topics[0].partitions[1].offline_replicas, [OTHER.0]);
    // Older clients do not know that error.
    let older = ask(&client, &all(), 5).await;
    assert_eq!(led(&older)[1], (ErrorCode::LeaderNotAvailable.code(), -1));
    assert_eq!(through.controller_id, ME.0);
}

#[tokio::test]
async fn a_new_endpoint_is_in_the_next_answer() {
    let (stage, client) = stage().await;
    stage.tell_endpoint(OTHER, &public(), Some(31_002));
    let told = hosts(&ask(&client, &all(), 9).await);
    assert_eq!(told, ["public-1:31001", "public-2:31002", "public-3:31003"]);
    stage.tell_endpoint(OTHER, &public(), Some(32_000));
    let told = hosts(&ask(&client, &all(), 9).await);
    assert_eq!(told[1], "public-2:32000");
    assert_eq!(
        hosts(&ask(&stage.client, &all(), 9).await)[1],
        "host-2:9092"
    );
}

#[tokio::test]
async fn a_controller_that_clients_cannot_reach_is_not_named() {
    let (stage, client) = stage().await;
    stage.tell_endpoint(ME, &public(), None);
    stage.tell_endpoint(OTHER, &public(), Some(31_002));
    let request = DescribeClusterRequest::default();
    assert_eq!(ask(&stage.client, &request, 0).await.controller_id, ME.0);
    assert_eq!(ask(&client, &request, 0).await.controller_id, OTHER.0);
}

#[tokio::test]
async fn describe_cluster_names_them_too() {
    let (_stage, client) = stage().await;
    for version in versions(ApiKey::DescribeCluster) {
        let reply = ask(&client, &DescribeClusterRequest::default(), version).await;
        let told: Vec<_> = reply
            .brokers
            .iter()
            .map(|b| (b.broker_id.0, &*b.host, b.port))
            .collect();
        assert_eq!(
            told,
            [(ME.0, "public-1", 31_001)],
            "3 is fenced, 2 has no address"
        );
    }
}

#[tokio::test]
async fn a_partitions_leader_elsewhere_is_told_by_describe_topic_partitions() {
    let (stage, client) = stage().await;
    stage.add_topic("a", &[Some(ME), Some(OTHER)]);
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(10);
    let reply = ask(&client, &request, 0).await;
    let partitions = &reply.topics[0].partitions;
    assert_eq!(
        (partitions[0].error_code, partitions[0].leader_id.0),
        (0, ME.0)
    );
    let not_found = ErrorCode::ListenerNotFound.code();
    assert_eq!(
        (partitions[1].error_code, partitions[1].leader_id.0),
        (not_found, -1)
    );
}

#[tokio::test]
async fn a_coordinator_is_named_where_the_client_reaches_it_or_not_yet() {
    let (stage, client) = stage().await;
    for version in versions(ApiKey::FindCoordinator) {
        let mut request = FindCoordinatorRequest::default();
        let key = StrBytes::from_static_str("g");
        match version < 4 {
            true => request.key = key,
            false => request.coordinator_keys = vec![key],
        }
        let of = async || {
            let reply = ask(&client, &request, version).await;
            match reply.coordinators.first() {
                Some(one) => (one.error_code, one.host.to_string(), one.port),
                None => (reply.error_code, reply.host.to_string(), reply.port),
            }
        };
        stage.tell_endpoint(ME, &public(), Some(31_001));
        assert_eq!(of().await, (0, "public-1".to_owned(), 31_001));
        stage.tell_endpoint(ME, &public(), None);
        assert_eq!(of().await.0, ErrorCode::CoordinatorNotAvailable.code());
    }
}

#[tokio::test]
async fn hints_of_another_leader_carry_endpoints_of_that_listener_only() {
    let (stage, client) = stage().await;
    let id = stage.add_topic("a", &[Some(OTHER)]);
    let hinted = async |client: &Client| {
        let request = produce(-1, "a", 0, Some(batch(b"x")));
        let produced = ask(client, &request, 10).await;
        let fetched = ask(client, &fetch(16, "a", id.0, 0, 0), 16).await;
        let partition = &produced.responses[0].partition_responses[0];
        assert_eq!(partition.current_leader.leader_id.0, OTHER.0);
        let produced: Vec<String> = produced
            .node_endpoints
            .iter()
            .map(|n| n.host.to_string())
            .collect();
        let fetched: Vec<String> = fetched
            .node_endpoints
            .iter()
            .map(|n| n.host.to_string())
            .collect();
        assert_eq!(produced, fetched);
        produced
    };
    assert_eq!(hinted(&stage.client).await, ["host-2"]);
    assert!(
        hinted(&client).await.is_empty(),
        "no address that does not exist"
    );
    stage.tell_endpoint(OTHER, &public(), Some(31_002));
    assert_eq!(hinted(&client).await, ["public-2"]);
}
