//! Transactions through the wire: each API in each version, one producer that goes through its life.

use super::stage::*;
use leasehold_wire::kafka::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use leasehold_wire::kafka::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, ErrorCode};

fn word(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn id(text: &str) -> TransactionalId {
    TransactionalId(word(text))
}

fn init(of: &str) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(id(of)))
        .with_transaction_timeout_ms(60_000)
}

/// A producer under `of`, as soon as no transaction of another is in its way.
async fn producer(stage: &Stage, of: &str, version: i16) -> (ProducerId, i16) {
    loop {
        let reply = stage.ask(&init(of), version).await;
        match ErrorCode::from_code(reply.error_code) {
            ErrorCode::None => return (reply.producer_id, reply.producer_epoch),
            ErrorCode::ConcurrentTransactions => tokio::task::yield_now().await,
            error => panic!("{error}"),
        }
    }
}

fn add(
    of: &str,
    (producer, epoch): (ProducerId, i16),
    topics: &[(&str, i32)],
) -> AddPartitionsToTxnRequest {
    let topic = |(name, partition): &(&str, i32)| {
        AddPartitionsToTxnTopic::default()
            .with_name(TopicName(word(name)))
            .with_partitions(vec![*partition])
    };
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id(of))
        .with_v3_and_below_producer_id(producer)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(topics.iter().map(topic).collect())
}

/// The same as brokers ask each other.
fn of_brokers(request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnRequest {
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(request.v3_and_below_transactional_id)
        .with_producer_id(request.v3_and_below_producer_id)
        .with_producer_epoch(request.v3_and_below_producer_epoch)
        .with_topics(request.v3_and_below_topics);
    AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
}

async fn added(stage: &Stage, request: &AddPartitionsToTxnRequest, version: i16) -> Vec<ErrorCode> {
    let mut topics = Vec::new();
    if version >= 4 {
        let reply = stage.ask(&of_brokers(request.clone()), version).await;
        let results = reply.results_by_transaction.into_iter();
        topics.extend(results.flat_map(|result| result.topic_results));
    } else {
        let reply = stage.ask(request, version).await;
        topics.extend(reply.results_by_topic_v3_and_below);
    }
    let topics = topics.into_iter();
    let results = topics.flat_map(|topic| topic.results_by_partition);
    results
        .map(|r| ErrorCode::from_code(r.partition_error_code))
        .collect()
}

async fn end(
    stage: &Stage,
    of: &str,
    (producer, epoch): (ProducerId, i16),
    commit: bool,
    version: i16,
) -> ErrorCode {
    let request = EndTxnRequest::default()
        .with_transactional_id(id(of))
        .with_producer_id(producer)
        .with_producer_epoch(epoch)
        .with_committed(commit);
    ErrorCode::from_code(stage.ask(&request, version).await.error_code)
}

async fn state(stage: &Stage, of: &str) -> (ErrorCode, String) {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id(of)]);
    let reply = stage.ask(&request, 0).await;
    let described = &reply.transaction_states[0];
    (
        ErrorCode::from_code(described.error_code),
        described.transaction_state.to_string(),
    )
}

#[tokio::test]
async fn a_producer_begins_fills_and_ends_a_transaction_in_every_version() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME), Some(ME)]);
    for version in versions(ApiKey::AddPartitionsToTxn) {
        let of = format!("id-{version}");
        let producer = producer(&stage, &of, version).await;
        assert_eq!(producer.1, 0);
        assert_eq!(state(&stage, &of).await, (ErrorCode::None, "Empty".into()));
        let request = add(&of, producer, &[("a", 0), ("a", 1)]);
        assert_eq!(added(&stage, &request, version).await, [ErrorCode::None; 2]);
        assert_eq!(state(&stage, &of).await.1, "Ongoing");
        let offsets = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id(&of))
            .with_producer_id(producer.0)
            .with_producer_epoch(producer.1)
            .with_group_id(GroupId(word("g")));
        let offsets = stage.ask(&offsets, version.min(4)).await;
        assert_eq!(offsets.error_code, 0);
        let commit = version % 2 == 0;
        let ended = end(&stage, &of, producer, commit, version).await;
        assert_eq!(ended, ErrorCode::None);
        let complete = if commit {
            "CompleteCommit"
        } else {
            "CompleteAbort"
        };
        while state(&stage, &of).await.1 != complete {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn partitions_are_added_all_or_none() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let producer = producer(&stage, "id", 4).await;
    let request = add("id", producer, &[("a", 0), ("b", 0)]);
    assert_eq!(
        added(&stage, &request, 3).await,
        [
            ErrorCode::OperationNotAttempted,
            ErrorCode::UnknownTopicOrPartition
        ]
    );
    assert_eq!(state(&stage, "id").await.1, "Empty");
}

#[tokio::test]
async fn a_fenced_producer_is_told_so_in_the_word_that_its_version_knows() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let old = producer(&stage, "id", 4).await;
    let new = producer(&stage, "id", 4).await;
    assert_eq!((old.0, old.1 + 1), new);
    for version in versions(ApiKey::EndTxn) {
        let error = match version {
            ..2 => ErrorCode::InvalidProducerEpoch,
            _ => ErrorCode::ProducerFenced,
        };
        let request = add("id", old, &[("a", 0)]);
        assert_eq!(added(&stage, &request, version).await, [error]);
        assert_eq!(end(&stage, "id", old, true, version).await, error);
    }
    for (version, error) in [
        (3, ErrorCode::InvalidProducerEpoch),
        (4, ErrorCode::ProducerFenced),
    ] {
        let request = init("id").with_producer_id(old.0).with_producer_epoch(7);
        assert_eq!(stage.ask(&request, version).await.error_code, error.code());
    }
}

#[tokio::test]
async fn a_second_producer_aborts_the_transaction_of_the_first() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let first = producer(&stage, "id", 4).await;
    added(&stage, &add("id", first, &[("a", 0)]), 3).await;
    let second = producer(&stage, "id", 4).await;
    assert_eq!(second, (first.0, first.1 + 2));
    let late = end(&stage, "id", first, true, 3).await;
    assert_eq!(late, ErrorCode::ProducerFenced);
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted_by_itself() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let request = init("id").with_transaction_timeout_ms(50);
    let reply = stage.ask(&request, 4).await;
    let producer = (reply.producer_id, reply.producer_epoch);
    added(&stage, &add("id", producer, &[("a", 0)]), 3).await;
    while state(&stage, "id").await.1 != "CompleteAbort" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        end(&stage, "id", producer, true, 3).await,
        ErrorCode::ProducerFenced
    );
}

#[tokio::test]
async fn offsets_are_committed_only_within_a_transaction_that_the_group_is_in() {
    let stage = Stage::up().await;
    stage.add_topic("t", &[Some(ME)]);
    let producer = producer(&stage, "id", 4).await;
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(11);
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(TopicName(word("t")))
        .with_partitions(vec![partition]);
    let commit = TxnOffsetCommitRequest::default()
        .with_transactional_id(id("id"))
        .with_group_id(GroupId(word("g")))
        .with_producer_id(producer.0)
        .with_producer_epoch(producer.1)
        .with_topics(vec![topic]);
    let committed = async |version| {
        let reply = stage.ask(&commit, version).await;
        ErrorCode::from_code(reply.topics[0].partitions[0].error_code)
    };
    // The leader of the group's partition asks; it takes a moment until it leads.
    stage.verify_transactions();
    stage.add_topic("__consumer_offsets", &[Some(ME)]);
    while committed(3).await != ErrorCode::InvalidTxnState {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for version in versions(ApiKey::TxnOffsetCommit) {
        // From then on the coordinator adds the group, as the test after this one shows.
        if version >= 5 {
            continue;
        }
        let invalid = match version {
            4.. => ErrorCode::TransactionAbortable,
            _ => ErrorCode::InvalidTxnState,
        };
        assert_eq!(committed(version).await, invalid);
        // What does not exist is told so, whatever the transaction is.
        let mut other = commit.clone();
        other.topics[0].partitions[0].partition_index = 7;
        other.topics.push(other.topics[0].clone());
        other.topics[1].name = TopicName(word("unknown"));
        other.topics.push(commit.topics[0].clone());
        let reply = stage.ask(&other, version).await;
        let rows = reply.topics.iter().map(|topic| {
            let codes = topic.partitions.iter().map(|p| p.error_code);
            (topic.name.to_string(), codes.collect::<Vec<_>>())
        });
        let invalid = invalid.code();
        let expected = [("t", vec![invalid, 3]), ("unknown", vec![3])];
        assert!(rows.eq(expected.map(|(name, codes)| (name.to_owned(), codes))));
    }
    let offsets = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id("id"))
        .with_producer_id(producer.0)
        .with_producer_epoch(producer.1)
        .with_group_id(GroupId(word("g")));
    assert_eq!(stage.ask(&offsets, 3).await.error_code, 0);
    for version in versions(ApiKey::TxnOffsetCommit) {
        assert_eq!(committed(version).await, ErrorCode::None);
        // The group without a name is for simple consumers alone.
        let nameless = commit.clone().with_group_id(GroupId::default());
        let reply = stage.ask(&nameless, version).await;
        let code = reply.topics[0].partitions[0].error_code;
        assert_eq!(code, ErrorCode::InvalidGroupId.code(), "{version}");
    }
}

#[tokio::test]
async fn transactions_are_listed_by_state_producer_age_and_name() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let one = producer(&stage, "one-1", 4).await;
    producer(&stage, "two-1", 4).await;
    added(&stage, &add("one-1", one, &[("a", 0)]), 3).await;
    let list = async |request: ListTransactionsRequest, version| {
        let reply = stage.ask(&request, version).await;
        let listed = reply.transaction_states.iter();
        let mut ids: Vec<String> = listed.map(|t| t.transactional_id.to_string()).collect();
        ids.sort();
        (
            ErrorCode::from_code(reply.error_code),
            ids,
            reply.unknown_state_filters,
        )
    };
    let all = ListTransactionsRequest::default;
    for version in versions(ApiKey::ListTransactions) {
        assert_eq!(list(all(), version).await.1, ["one-1", "two-1"]);
        let running = all().with_state_filters(vec![word("Ongoing"), word("Odd")]);
        let (error, ids, unknown) = list(running, version).await;
        assert_eq!((error, ids), (ErrorCode::None, vec!["one-1".to_owned()]));
        assert_eq!(unknown, [word("Odd")]);
        let odd = all().with_state_filters(vec![word("Odd")]);
        assert!(list(odd, version).await.1.is_empty());
        let mine = all().with_producer_id_filters(vec![one.0]);
        assert_eq!(list(mine, version).await.1, ["one-1"]);
    }
    let old = all().with_duration_filter(1_000_000);
    assert_eq!(
        list(old.clone(), 1).await.1,
        ["two-1"],
        "one that never ran"
    );
    let pattern = |p: &str| all().with_transactional_id_pattern(Some(word(p)));
    assert_eq!(list(pattern("one-.*"), 2).await.1, ["one-1"]);
    assert!(
        list(pattern("one"), 2).await.1.is_empty(),
        "the whole id counts"
    );
    let invalid = ErrorCode::InvalidRegularExpression;
    let bad = pattern("(").with_state_filters(vec![word("Odd")]);
    assert_eq!(list(bad, 2).await, (invalid, vec![], vec![]));
    assert_eq!(list(pattern("a{1000}{1000}{1000}"), 2).await.0, invalid);
}

#[tokio::test]
async fn the_coordinator_of_a_transactional_id_is_found_and_unknown_ids_are_told() {
    let stage = Stage::up().await;
    for version in 1..=*versions(ApiKey::FindCoordinator).end() {
        let mut request = FindCoordinatorRequest::default().with_key_type(1);
        match version {
            4.. => request.coordinator_keys = vec![word("id")],
            _ => request.key = word("id"),
        }
        let reply = stage.ask(&request, version).await;
        let node = match version {
            4.. => reply.coordinators[0].node_id,
            _ => reply.node_id,
        };
        assert_eq!(node.0, ME.0);
    }
    let unknown = ErrorCode::TransactionalIdNotFound;
    assert_eq!(state(&stage, "nobody").await.0, unknown);
    let nobody = end(&stage, "nobody", (ProducerId(1), 0), true, 3).await;
    assert_eq!(nobody, ErrorCode::InvalidProducerIdMapping);
    assert_eq!(
        end(&stage, "", (ProducerId(1), 0), true, 3).await,
        ErrorCode::InvalidRequest
    );
}

/// EndTxn 5: as whom the producer goes on.
async fn end_and_go_on(
    stage: &Stage,
    of: &str,
    (producer, epoch): (ProducerId, i16),
    commit: bool,
) -> Result<(ProducerId, i16), ErrorCode> {
    let request = EndTxnRequest::default()
        .with_transactional_id(id(of))
        .with_producer_id(producer)
        .with_producer_epoch(epoch)
        .with_committed(commit);
    loop {
        let reply = stage.ask(&request, 5).await;
        match ErrorCode::from_code(reply.error_code) {
            ErrorCode::None => return Ok((reply.producer_id, reply.producer_epoch)),
            ErrorCode::ConcurrentTransactions => tokio::task::yield_now().await,
            error => return Err(error),
        }
    }
}

#[tokio::test]
async fn in_version_2_each_end_brings_the_next_epoch_and_a_repeat_the_same_answer() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME)]);
    let first = producer(&stage, "id", 5).await;
    added(&stage, &add("id", first, &[("a", 0)]), 5).await;
    let second = end_and_go_on(&stage, "id", first, true).await.unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    // Its answer was lost.
    assert_eq!(end_and_go_on(&stage, "id", first, true).await, Ok(second));
    assert_eq!(state(&stage, "id").await.1, "CompleteCommit");
    // What comes late of the first transaction is no part of the second.
    let late = added(&stage, &add("id", first, &[("a", 0)]), 5).await;
    assert_eq!(late, [ErrorCode::ProducerFenced]);
    assert_eq!(
        added(&stage, &add("id", second, &[("a", 0)]), 5).await,
        [ErrorCode::None]
    );
    let late = end_and_go_on(&stage, "id", first, true).await;
    assert_eq!(late, Err(ErrorCode::ProducerFenced));
    let third = end_and_go_on(&stage, "id", second, false).await.unwrap();
    // A client that does not know whether anything of it got here aborts, and goes on as well.
    let fourth = end_and_go_on(&stage, "id", third, false).await.unwrap();
    assert_eq!((fourth.0, fourth.1), (third.0, third.1 + 1));
    let nothing = end_and_go_on(&stage, "id", fourth, true).await;
    assert_eq!(nothing, Err(ErrorCode::InvalidTxnState));
}
