//! In what Leasehold is meant to differ from Kafka. Each line is reviewed and has a reason; docs/differences.md is
//! made of it.

use super::compare::Difference;
use leasehold_metadata::group_configs::NO_GROUP_KEYS;
use serde_json::Value;

/// One intended difference.
pub struct Intended {
    /// The API, or `*`.
    pub api: &'static str,
    /// Where in the answer, without what stands in brackets: `Topics[].ErrorCode`. A `*` at an end is anything.
    pub place: &'static str,
    /// What more must hold.
    pub when: fn(&Difference, &Value) -> bool,
    pub reason: &'static str,
}

/// All of them, in the order of the table in docs/differences.md.
pub const INTENDED: &[Intended] = &[
    of(
        "ApiVersions",
        "ApiKeys[]*",
        always,
        "What is not built is not advertised; which versions are, and why not later ones, is in broker/wire/src/versions.rs.",
    ),
    of(
        "ApiVersions",
        "SupportedFeatures*",
        always,
        "Of Kafka's features there are those whose APIs are built (`group.version`, `transaction.version`); the levels of `metadata.version` are Leasehold's own.",
    ),
    of(
        "ApiVersions",
        "FinalizedFeatures*",
        always,
        "As above: the levels of `metadata.version` are Leasehold's own, and so is the count of the changes of all of them.",
    ),
    of(
        "*",
        "*ErrorMessage",
        says_more,
        "Texts are for people: an answer says why something was refused also where Kafka leaves it at the code.",
    ),
    of(
        "FindCoordinator",
        "ErrorMessage",
        always,
        "Kafka writes `NONE` where nothing is wrong; here there is no text then.",
    ),
    of(
        "*",
        "*",
        senseless_list,
        "A request that names a topic, a partition or an entity twice, or a topic without partitions, gets an answer for each as it stands, or one error, where Kafka's answer comes out of the maps that it collects them in.",
    ),
    of(
        "*",
        "*",
        senseless_isolation,
        "An isolation level that does not exist is read as `read_uncommitted`, where Kafka fails with UNKNOWN_SERVER_ERROR.",
    ),
    of(
        "Fetch",
        "Responses[].Partitions[].AbortedTransactions",
        nothing_or_none,
        "An empty list of aborted transactions and none at all mean the same to every client; Kafka has now this, now that beside an error.",
    ),
    of(
        "Fetch",
        "*",
        of_a_follower,
        "Followers fetch on the brokers' own listener. On that of clients a replica id is not looked at.",
    ),
    of(
        "Fetch",
        "ErrorCode",
        session_without_partitions,
        "A fetch session that lost its last partition stays until it is closed or makes room for another; Kafka forgets it at once and answers FETCH_SESSION_ID_NOT_FOUND, after which clients begin a new one.",
    ),
    of(
        "Fetch",
        "SessionId",
        without_topics,
        "A fetch without partitions begins no session.",
    ),
    of(
        "Fetch",
        "Responses[].Partitions[].Records[]",
        up_to_a_byte_limit,
        "Only whole batches are sent, as far as they are within the limits of bytes, and the first one whatever its size. Kafka fills up what is left of a limit with the beginning of the next batch, which clients throw away; the partitions after it then get less.",
    ),
    of(
        "Fetch",
        "Responses[].Partitions[].*",
        out_of_range,
        "OFFSET_OUT_OF_RANGE comes with where the log begins and ends, which Kafka leaves at -1.",
    ),
    of(
        "Produce",
        "Responses[].PartitionResponses[].LogAppendTimeMs",
        kafka_tells_a_time,
        "A batch that was stored already is answered as the first time. Kafka tells its newest timestamp then, also where the topic keeps the producer's times.",
    ),
    of(
        "Produce",
        "*",
        log_append_time,
        "A producer that marks its batch as stamped by the log is refused (INVALID_TIMESTAMP) in each topic; Kafka looks at that only where the topic has LogAppendTime.",
    ),
    of(
        "Produce",
        "*",
        cut,
        "A batch that ends before its header does, holds no record, or begins at an offset below zero, is corrupt (CORRUPT_MESSAGE, which producers send again). Kafka takes it for none at all (INVALID_RECORD).",
    ),
    of(
        "Produce",
        "*",
        two_faults,
        "Of two faults in one request (acks or a partition that do not exist, and a batch that cannot be) another one may be told.",
    ),
    of(
        "DescribeConfigs",
        "Results[].Configs[]*",
        of_brokers,
        "The keys of a broker are those of docs/configuration.md; their defaults are told where Kafka leaves a key that a coarser one fills at null.",
    ),
    of(
        "DescribeConfigs",
        "Results[].Configs[]*",
        of_absent_groups,
        "The keys of a group are those of docs/configuration.md: none of share groups and Streams groups, and none of when a target is assigned.",
    ),
    of(
        "DescribeConfigs",
        "Results[].Configs[].Synonyms*",
        always,
        "The key of a broker from which a topic's default comes is told by the name in the finest unit (`log.retention.ms`), where Kafka lists the coarser ones; for what no broker key gives a default (tiering, throttles) the topic's own name stands in.",
    ),
    of(
        "*",
        "*ErrorCode",
        kafka_failed,
        "Where Kafka fails on a senseless value (UNKNOWN_SERVER_ERROR), the answer is the error that says what is wrong, or what there is.",
    ),
    of(
        "Fetch",
        "Responses[]*",
        in_a_session,
        "Within a session, the partitions of one topic may come as several entries for that topic.",
    ),
    of(
        "Produce",
        "",
        without_answer,
        "A batch that is null is refused (INVALID_RECORD, with acks=0 by the end of the connection); Kafka never answers, and reads no more from the connection.",
    ),
    of(
        "AddPartitionsToTxn",
        "",
        without_transactions,
        "A request of brokers that names no transaction is answered at once; Kafka never answers.",
    ),
    of(
        "Fetch",
        "SessionId",
        lost_by_kafka,
        "As above: a session that Kafka has forgotten, or never began since it failed on the request that was to begin it.",
    ),
    of(
        "Metadata",
        "Topics[]",
        by_name_and_id,
        "Where some topics are asked for by name and others by id, all are told; Kafka passes over the names.",
    ),
    of(
        "Produce",
        "*",
        nobodys_transaction,
        "A transactional batch without a producer id is refused; Kafka stores it.",
    ),
    of(
        "ListGroups",
        "Groups[]",
        only_aborted,
        "A group whose only offsets were those of an aborted transaction is none; Kafka lists it, empty, until it looks for expired offsets.",
    ),
    of(
        "OffsetCommit",
        "Topics[].Partitions[].ErrorCode",
        of_no_group,
        "As above: such a group is none, so a generation of it is unknown (ILLEGAL_GENERATION) before its member is.",
    ),
    of(
        "EndTxn",
        "ErrorCode",
        fenced,
        "A producer that was fenced by one epoch is told so; Kafka takes its end in version 2 for a repeat of one that brought that epoch (INVALID_TXN_STATE, or a success).",
    ),
    of(
        "EndTxn",
        "ProducerEpoch",
        not_told,
        "As above: a producer that was fenced is given no epoch with which to go on.",
    ),
    of(
        "EndTxn",
        "ProducerId",
        not_told,
        "As above: a producer that was fenced is given no id with which to go on.",
    ),
    of(
        "DescribeClientQuotas",
        "Entries[]",
        told_by_kafka_only,
        "What a refused AlterClientQuotas (one that names a key twice, say) would have set is not there.",
    ),
    of(
        "DescribeClientQuotas",
        "ErrorCode",
        always,
        "Of two faults in one request (a kind of entity that does not exist, and a match that cannot be) another one may be told.",
    ),
    of(
        "Metadata",
        "Topics[].TopicAuthorizedOperations",
        not_there,
        "What one may do with a topic is told of topics that exist; Kafka tells it of a name that cannot be a topic's, too.",
    ),
    of(
        "Fetch",
        "Responses[].Partitions[].AbortedTransactions[]",
        told_by_kafka_only,
        "Those aborted transactions are told that reach into the records of the answer; Kafka tells some behind them, too, as far as its next index entry.",
    ),
    of(
        "Metadata",
        "*",
        nothing_named,
        "A topic that is asked for without name and without id is unknown (UNKNOWN_TOPIC_ID); Kafka fails the whole request with UNKNOWN_SERVER_ERROR.",
    ),
    of(
        "JoinGroup",
        "MemberId",
        told_by_leasehold_only,
        "A refused member is told its id again; Kafka leaves it out where it fails on the request (UNKNOWN_SERVER_ERROR), as on the id that it told a static member a moment before.",
    ),
    of(
        "ConsumerGroupHeartbeat",
        "MemberEpoch",
        both_joined,
        "Epochs of a group rise with each change of it; how many steps one change takes is the coordinator's own.",
    ),
    of(
        "ConsumerGroupDescribe",
        "Groups[].Members[].Assignment.TopicPartitions[]",
        being_given_up,
        "While a member is giving partitions up, its assignment is what it keeps; Kafka tells those it still has, too.",
    ),
    of(
        "ConsumerGroupDescribe",
        "*Epoch",
        both_joined,
        "As above: the epochs of a group, of its assignment and of its members.",
    ),
];

const fn of(
    api: &'static str,
    place: &'static str,
    when: fn(&Difference, &Value) -> bool,
    reason: &'static str,
) -> Intended {
    Intended {
        api,
        place,
        when,
        reason,
    }
}

fn always(_: &Difference, _: &Value) -> bool {
    true
}

fn says_more(found: &Difference, _: &Value) -> bool {
    found.kafka == Some(Value::Null) && found.leasehold.as_ref().is_some_and(Value::is_string)
}

/// Lists of partitions: numbers, or what is asked of each.
const PARTITIONS: &[&str] = &[
    "Partitions",
    "PartitionIndexes",
    "PartitionData",
    "V3AndBelowTopics",
];

/// Whether the request names something twice, or a topic without partitions. Not meant are lists that are
/// compared all the same, as the replicas of a partition or the configuration of a topic.
fn senseless_list(_: &Difference, request: &Value) -> bool {
    fn inside(name: &str, value: &Value) -> bool {
        match value {
            Value::Array(all) => {
                let partitions = PARTITIONS.contains(&name);
                let mut pairs = all.iter().enumerate();
                let twice = pairs.any(|(at, one)| {
                    let keys = one["Value"].is_string()
                        && all[..at].iter().any(|o| o["Name"] == one["Name"]);
                    let same = partitions || one.is_object() || one.is_string();
                    keys || (same && all[..at].contains(one))
                });
                twice || (partitions && all.is_empty()) || all.iter().any(|one| inside("", one))
            }
            Value::Object(map) => map.iter().any(|(name, one)| inside(name, one)),
            _ => false,
        }
    }
    inside("", request)
}

fn senseless_isolation(_: &Difference, request: &Value) -> bool {
    request["IsolationLevel"]
        .as_i64()
        .is_some_and(|level| !(0..=1).contains(&level))
}

fn nothing_or_none(found: &Difference, _: &Value) -> bool {
    let nothing = |value: &Option<Value>| {
        *value == Some(Value::Null) || *value == Some(Value::Array(Vec::new()))
    };
    nothing(&found.kafka) && nothing(&found.leasehold)
}

fn of_a_follower(_: &Difference, request: &Value) -> bool {
    request["ReplicaId"].as_i64().is_some_and(|id| id != -1)
}

fn up_to_a_byte_limit(found: &Difference, request: &Value) -> bool {
    const SMALL: i64 = 10_000;
    let small = |value: &Value| value.as_i64().is_some_and(|bytes| bytes < SMALL);
    let mut topics = request["Topics"].as_array().into_iter().flatten();
    let limited = small(&request["MaxBytes"])
        || in_a_session(found, request)
        || topics.any(|topic| {
            let mut partitions = topic["Partitions"].as_array().into_iter().flatten();
            partitions.any(|partition| small(&partition["PartitionMaxBytes"]))
        });
    let cut = found.kafka == Some(serde_json::json!({"cut": true}));
    limited && (cut || found.kafka.is_none())
}

fn out_of_range(found: &Difference, _: &Value) -> bool {
    let offsets = ["HighWatermark", "LastStableOffset", "LogStartOffset"];
    offsets.iter().any(|name| found.path.ends_with(name)) && found.kafka == Some(Value::from(-1))
}

fn session_without_partitions(found: &Difference, _: &Value) -> bool {
    found.kafka == Some(Value::from(70))
}

fn without_topics(_: &Difference, request: &Value) -> bool {
    request["Topics"].as_array().is_some_and(Vec::is_empty)
}

fn cut(found: &Difference, request: &Value) -> bool {
    let short = batches(request).any(|batch| {
        let nothing = batch["count"] == 0 || batch["baseOffset"] == -1;
        batch["cut"].is_i64() || batch.is_string() || nothing
    });
    let told_in_passing = found.path.ends_with("LogStartOffset");
    short && (told_in_passing || found.kafka != Some(Value::from(0)))
}

fn kafka_tells_a_time(found: &Difference, _: &Value) -> bool {
    found.kafka == Some(Value::from("a time"))
}

fn batches(request: &Value) -> impl Iterator<Item = &Value> {
    let topics = request["TopicData"].as_array().into_iter().flatten();
    let partitions =
        topics.flat_map(|topic| topic["PartitionData"].as_array().into_iter().flatten());
    partitions.map(|partition| &partition["Records"])
}

fn log_append_time(_: &Difference, request: &Value) -> bool {
    batches(request).any(|batch| {
        batch["attributes"]
            .as_i64()
            .is_some_and(|bits| bits & 0x08 != 0)
    })
}

fn two_faults(_: &Difference, request: &Value) -> bool {
    let acks = request["Acks"]
        .as_i64()
        .is_some_and(|acks| !(-1..=1).contains(&acks));
    let magic = batches(request).any(|batch| batch["magic"].is_i64() || batch["length"].is_i64());
    acks || magic
}

fn being_given_up(found: &Difference, _: &Value) -> bool {
    found.leasehold.is_none()
}

fn only_aborted(found: &Difference, _: &Value) -> bool {
    let without_type = |group: &Value| group["ProtocolType"] == "";
    found.leasehold.is_none() && found.kafka.as_ref().is_some_and(without_type)
}

fn of_brokers(_: &Difference, request: &Value) -> bool {
    let mut resources = request["Resources"].as_array().into_iter().flatten();
    resources.all(|resource| resource["ResourceType"] == 4)
}

/// A row of a key that Leasehold refuses by name.
fn of_absent_groups(found: &Difference, request: &Value) -> bool {
    let mut resources = request["Resources"].as_array().into_iter().flatten();
    let of_groups = resources.all(|resource| resource["ResourceType"] == 32);
    let row = found.kafka.as_ref().and_then(|row| row["Name"].as_str());
    let absent = |name| NO_GROUP_KEYS.iter().any(|(known, _)| *known == name);
    of_groups && found.leasehold.is_none() && row.is_some_and(absent)
}

fn kafka_failed(found: &Difference, _: &Value) -> bool {
    found.kafka == Some(Value::from(-1))
}

fn in_a_session(_: &Difference, request: &Value) -> bool {
    request["SessionEpoch"]
        .as_i64()
        .is_some_and(|epoch| epoch > 0)
}

fn without_answer(found: &Difference, request: &Value) -> bool {
    batches(request).any(Value::is_null) && found.kafka == Some(Value::from("no answer"))
}

fn of_no_group(found: &Difference, _: &Value) -> bool {
    found.kafka == Some(Value::from(25)) && found.leasehold == Some(Value::from(22))
}

fn fenced(found: &Difference, _: &Value) -> bool {
    found.leasehold == Some(Value::from(90))
}

fn not_told(found: &Difference, _: &Value) -> bool {
    found.leasehold == Some(Value::from(-1))
}

fn without_transactions(found: &Difference, request: &Value) -> bool {
    found.kafka == Some(Value::from("no answer"))
        && request["Transactions"]
            .as_array()
            .is_some_and(Vec::is_empty)
}

fn lost_by_kafka(found: &Difference, request: &Value) -> bool {
    in_a_session(found, request) && found.kafka == Some(Value::from("none"))
}

fn by_name_and_id(found: &Difference, request: &Value) -> bool {
    const NONE: [&str; 2] = ["00", "00000000000000000000000000000000"];
    let mut topics = request["Topics"].as_array().into_iter().flatten();
    let ids = |topic: &Value| {
        topic["TopicId"]
            .as_str()
            .is_some_and(|id| !NONE.contains(&id))
    };
    found.kafka.is_none() && topics.any(ids)
}

fn nobodys_transaction(_: &Difference, request: &Value) -> bool {
    batches(request).any(|batch| {
        let transactional = batch["attributes"]
            .as_i64()
            .is_some_and(|bits| bits & 0x10 != 0);
        transactional && batch["producerId"].is_null()
    })
}

fn not_there(found: &Difference, _: &Value) -> bool {
    found.leasehold == Some(Value::from(i32::MIN))
        && found.path.contains("00000000000000000000000000000000]")
}

fn told_by_kafka_only(found: &Difference, _: &Value) -> bool {
    found.leasehold.is_none()
}

fn told_by_leasehold_only(found: &Difference, request: &Value) -> bool {
    found.kafka == Some(Value::from("")) && found.leasehold.as_ref() == Some(&request["MemberId"])
}

fn nothing_named(_: &Difference, request: &Value) -> bool {
    let mut topics = request["Topics"].as_array().into_iter().flatten();
    topics.any(|topic| topic["Name"].is_null() && topic["TopicId"] == "00")
}

fn both_joined(found: &Difference, _: &Value) -> bool {
    let joined = |value: &Option<Value>| {
        value
            .as_ref()
            .and_then(Value::as_i64)
            .is_some_and(|epoch| epoch > 0)
    };
    joined(&found.kafka) && joined(&found.leasehold)
}

/// The reason why a difference is intended, if it is.
pub fn reason(api: &str, request: &Value, difference: &Difference) -> Option<&'static str> {
    let sort = difference.sort();
    let fits = |one: &&Intended| {
        let place = match (one.place.strip_suffix('*'), one.place.strip_prefix('*')) {
            (Some(start), _) => sort.starts_with(start),
            (_, Some(end)) => sort.ends_with(end),
            _ => sort == one.place,
        };
        (one.api == "*" || one.api == api) && place && (one.when)(difference, request)
    };
    INTENDED.iter().find(fits).map(|one| one.reason)
}

/// docs/differences.md.
pub fn document() -> String {
    let mut text = "<!-- Generated by tests/differential/run --document from tests/src/differential/intended.rs. Do not edit. -->
# Differences to Apache Kafka

Where Leasehold answers a request otherwise than Apache Kafka 4.3.1, on purpose. `tests/differential/run` sends both the same
requests, of every API in every version that Leasehold advertises, right ones and wrong ones, and compares the
answers field by field; a difference that is not in this table fails it. What is not compared since it cannot be the
same (times, addresses, sizes on disk, the wording of messages for people) is listed in
`tests/src/differential/normal.rs`. What is absent altogether is in [limits.md](limits.md).

| API | Field | Why |
|---|---|---|
"
    .to_owned();
    for one in INTENDED {
        let api = if one.api == "*" { "all" } else { one.api };
        let place = match one.place {
            "" => "the whole answer",
            "*" => "all",
            place => &format!("`{}`", place.replace('|', "\\|")),
        };
        text += &format!("| {api} | {place} | {} |\n", one.reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_that_nobody_listed_is_not_intended() {
        let difference = Difference {
            path: "Topics[a].ErrorCode".into(),
            kafka: Some(json!(0)),
            leasehold: Some(json!(-1)),
        };
        assert_eq!(reason("Metadata", &json!({}), &difference), None);
    }

    #[test]
    fn only_kafka_sends_cut_batches() {
        let cut = Some(json!({"cut": true}));
        let request = json!({"MaxBytes": 1_000_000, "Topics": [{"Partitions": [{"PartitionMaxBytes": 150}]}]});
        let found = |kafka: &Option<Value>, leasehold: &Option<Value>| Difference {
            path: "Responses[a].Partitions[0].Records[]".into(),
            kafka: kafka.clone(),
            leasehold: leasehold.clone(),
        };
        assert!(reason("Fetch", &request, &found(&cut, &None)).is_some());
        assert!(reason("Fetch", &json!({}), &found(&cut, &None)).is_none());
        let whole = Some(json!({"baseOffset": 1}));
        assert!(reason("Fetch", &request, &found(&whole, &cut)).is_none());
        assert!(reason("Fetch", &request, &found(&whole, &None)).is_none());
    }

    #[test]
    fn only_what_is_named_twice_or_has_no_partitions_is_senseless() {
        let difference = Difference {
            path: String::new(),
            kafka: None,
            leasehold: None,
        };
        let senseless = |request| senseless_list(&difference, &request);
        let topic = json!({"Name": "a", "Partitions": [0]});
        assert!(senseless(json!({"Topics": [topic.clone(), topic.clone()]})));
        assert!(senseless(
            json!({"Topics": [{"Name": "a", "Partitions": []}]})
        ));
        assert!(senseless(
            json!({"Topics": [{"Name": "a", "Partitions": [1, 1]}]})
        ));
        assert!(!senseless(json!({"Topics": [topic]})));
        let good = json!({"Topics": [{"Configs": [], "Assignments": [{"BrokerIds": [0, 0]}]}]});
        assert!(!senseless(good));
    }

    #[test]
    fn the_document_tells_every_intended_difference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md");
        let there = std::fs::read_to_string(path).unwrap();
        assert!(
            there == document(),
            "docs/differences.md is not current: tests/differential/run --document > docs/differences.md"
        );
    }

    #[test]
    fn every_intended_difference_has_a_place_of_its_own_and_a_reason() {
        let places: std::collections::BTreeSet<_> = INTENDED
            .iter()
            .map(|one| (one.api, one.place, one.reason))
            .collect();
        assert_eq!(places.len(), INTENDED.len());
        assert!(INTENDED.iter().all(|one| one.reason.len() > 20));
        let anything = |one: &&Intended| {
            one.place == "*"
                && std::ptr::fn_addr_eq(one.when, always as fn(&Difference, &Value) -> bool)
        };
        assert_eq!(
            INTENDED.iter().filter(anything).count(),
            0,
            "that would be everything"
        );
    }
}
