//! Creating, growing, configuring and deleting topics.

use super::bench::*;
use crate::controller::Settings;
use crate::controller::TRANSACTIONS_TOPIC;
use crate::rpc::*;
use leasehold_types::*;
use std::collections::BTreeMap;

fn create(bench: &mut Bench, topic: NewTopic) -> CreatedTopic {
    let request = AdminRequest::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    match bench.admin(request) {
        AdminResponse::CreateTopics(mut created) => created.remove(0),
        other => panic!("{other:?}"),
    }
}

fn named(name: &str, partitions: i32, factor: i16) -> NewTopic {
    NewTopic {
        partitions,
        replication_factor: factor,
        ..NewTopic::with_defaults(name)
    }
}

#[test]
fn minus_one_means_the_defaults() {
    let settings = Settings {
        default_partitions: 6,
        default_replication_factor: 2,
        ..settings()
    };
    let mut bench = Bench::with(3, settings);
    let created = create(&mut bench, named("t", -1, -1));
    assert_eq!(
        (
            created.outcome.code,
            created.partitions,
            created.replication_factor
        ),
        (0, 6, 2)
    );
    let topic = bench.image.topic_by_name("t").unwrap();
    assert!(
        topic
            .partitions
            .iter()
            .all(|p| p.isr == p.replicas && p.leader == p.replicas.first().copied())
    );
    for id in 0..3 {
        let hosted = bench.image.hosted(b(id));
        assert_eq!((hosted.leaders, hosted.replicas), (2, 4));
    }
}

#[test]
fn what_cannot_be_is_refused_with_kafkas_codes() {
    let mut bench = Bench::new(2);
    bench.topic("a.b", &[&[0]], 1);
    let long = "x".repeat(250);
    for (topic, code) in [
        (named("", 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (named("..", 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (named("with space", 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (named("été", 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (named(&long, 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (named("a_b", 1, 1), codes::INVALID_TOPIC_EXCEPTION),
        (named("a.b", 1, 1), codes::TOPIC_ALREADY_EXISTS),
        (named("t", 0, 1), codes::INVALID_PARTITIONS),
        (named("t", -2, 1), codes::INVALID_PARTITIONS),
        (named("t", 1, 0), codes::INVALID_REPLICATION_FACTOR),
        (named("t", 1, 3), codes::INVALID_REPLICATION_FACTOR),
        (named("t", i32::MAX, 1), codes::POLICY_VIOLATION),
    ] {
        let created = create(&mut bench, topic);
        assert_eq!(created.outcome.code, code, "{created:?}");
        assert!(created.outcome.message.is_some_and(|m| !m.is_empty()));
    }
    assert_eq!(bench.image.topics.len(), 1);
}

#[test]
fn too_few_brokers_are_named_as_kafka_names_them() {
    let mut bench = Bench::new(1);
    let created = create(&mut bench, named("t", 1, 3));
    assert_eq!(
        created.outcome.message.as_deref(),
        Some(
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered."
        )
    );
}

#[test]
fn assignments_by_hand_are_taken_as_they_are_or_refused() {
    let mut bench = Bench::new(3);
    let by_hand = |assignments: &[(i32, &[i32])]| NewTopic {
        assignments: assignments.iter().map(|(n, r)| (*n, ids(r))).collect(),
        ..NewTopic::with_defaults("t")
    };
    for bad in [
        by_hand(&[(0, &[0, 0])]),
        by_hand(&[(0, &[0]), (2, &[1])]),
        by_hand(&[(0, &[0]), (0, &[1])]),
        by_hand(&[(0, &[0, 1]), (1, &[1])]),
        by_hand(&[(0, &[0, 8])]),
        by_hand(&[(0, &[])]),
    ] {
        assert_eq!(
            create(&mut bench, bad.clone()).outcome.code,
            codes::INVALID_REPLICA_ASSIGNMENT,
            "{bad:?}"
        );
    }
    let mixed = NewTopic {
        partitions: 1,
        ..by_hand(&[(0, &[0])])
    };
    assert_eq!(
        create(&mut bench, mixed).outcome.code,
        codes::INVALID_REQUEST
    );
    let created = create(&mut bench, by_hand(&[(1, &[1, 0]), (0, &[2, 1])]));
    assert_eq!(
        (
            created.outcome.code,
            created.partitions,
            created.replication_factor
        ),
        (0, 2, 2)
    );
    assert_eq!(
        (
            bench.p(created.id, 0).replicas,
            bench.p(created.id, 1).replicas
        ),
        (ids(&[2, 1]), ids(&[1, 0]))
    );
}

#[test]
fn a_repeated_creation_with_the_same_id_succeeds_and_changes_nothing() {
    let mut bench = Bench::new(1);
    let topic = named("t", 2, 1);
    assert_eq!(create(&mut bench, topic.clone()).outcome.code, 0);
    let before = bench.image.clone();
    let again = create(&mut bench, topic);
    assert_eq!((again.outcome.code, again.partitions), (0, 2));
    assert_eq!(bench.image, before);
}

#[test]
fn one_name_twice_in_a_request_is_refused() {
    let mut bench = Bench::new(1);
    let topics = vec![named("t", 1, 1), named("t", 1, 1)];
    let AdminResponse::CreateTopics(created) = bench.admin(AdminRequest::CreateTopics {
        topics,
        validate_only: false,
    }) else {
        panic!()
    };
    assert!(
        created
            .iter()
            .all(|c| c.outcome.code == codes::INVALID_REQUEST)
    );
}

#[test]
fn validating_creates_nothing() {
    let mut bench = Bench::new(1);
    let topics = vec![named("t", 3, 1)];
    let AdminResponse::CreateTopics(created) = bench.admin(AdminRequest::CreateTopics {
        topics,
        validate_only: true,
    }) else {
        panic!()
    };
    assert_eq!((created[0].outcome.code, created[0].partitions), (0, 3));
    assert!(bench.image.topics.is_empty());
}

#[test]
fn a_topic_that_asks_for_what_is_absent_is_refused_by_name() {
    let mut bench = Bench::new(1);
    for (key, value) in [
        ("remote.storage.enable", "true"),
        ("no.such.key", "1"),
        ("message.format.version", "3.0"),
        ("retention.ms", "soon"),
    ] {
        let mut topic = named("t", 1, 1);
        topic.configs.insert(key.to_owned(), Some(value.to_owned()));
        let created = create(&mut bench, topic);
        assert_eq!(created.outcome.code, codes::INVALID_CONFIG);
        assert!(created.outcome.message.unwrap().contains(key));
    }
}

#[test]
fn a_minimal_compaction_lag_above_the_maximal_one_is_refused_by_name() {
    let mut bench = Bench::new(1);
    let mut topic = named("t", 1, 1);
    let config = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    topic
        .configs
        .extend([config("max.compaction.lag.ms", "10")]);
    assert_eq!(create(&mut bench, topic.clone()).outcome.code, 0);
    let mut other = named("u", 1, 1);
    other.configs = topic.configs;
    other
        .configs
        .extend([config("min.compaction.lag.ms", "11")]);
    let refused = create(&mut bench, other).outcome;
    assert_eq!(refused.code, codes::INVALID_CONFIG);
    assert!(refused.message.unwrap().contains("min.compaction.lag.ms"));
    for (value, code) in [("11", codes::INVALID_CONFIG), ("10", 0)] {
        let target = ConfigTarget::Topic("t".to_owned());
        let change = ("min.compaction.lag.ms", ConfigOp::Set, Some(value));
        let outcome = alter(&mut bench, target, false, &[change]);
        assert_eq!(outcome.code, code, "{value}: {outcome:?}");
    }
}

#[test]
fn the_offsets_topic_has_its_own_defaults_and_is_compacted() {
    let mut bench = Bench::new(3);
    let created = create(&mut bench, NewTopic::with_defaults("__consumer_offsets"));
    assert_eq!(
        (
            created.outcome.code,
            created.partitions,
            created.replication_factor
        ),
        (0, 50, 3)
    );
    let topic = bench.image.topic_by_name("__consumer_offsets").unwrap();
    assert!(topic.internal);
    assert_eq!(
        bench.image.topic_config(topic, "cleanup.policy"),
        Some("compact")
    );
    assert_eq!(
        bench.image.topic_config(topic, "compression.type"),
        Some("producer")
    );
    assert_eq!(
        bench.image.topic_config(topic, "segment.bytes"),
        Some("104857600")
    );
}

#[test]
fn the_transactions_topic_is_created_as_kafka_does_it() {
    let mut bench = Bench::new(3);
    let created = create(&mut bench, NewTopic::with_defaults(TRANSACTIONS_TOPIC));
    let (partitions, factor) = (created.partitions, created.replication_factor);
    assert_eq!((created.outcome.code, partitions, factor), (0, 50, 3));
    let topic = bench.image.topic_by_name(TRANSACTIONS_TOPIC).unwrap();
    assert!(topic.internal);
    for (key, value) in [
        ("cleanup.policy", "compact"),
        ("compression.type", "uncompressed"),
        ("min.insync.replicas", "2"),
        ("segment.bytes", "104857600"),
        ("unclean.leader.election.enable", "false"),
    ] {
        assert_eq!(bench.image.topic_config(topic, key), Some(value), "{key}");
    }
}

#[test]
fn fenced_brokers_get_replicas_only_if_there_are_not_enough_others_and_never_lead() {
    let mut bench = Bench::new(3);
    bench.goodbye(2);
    let two = create(&mut bench, named("two", 6, 2));
    let three = create(&mut bench, named("three", 6, 3));
    for n in 0..6 {
        assert!(!bench.p(two.id, n).replicas.contains(&b(2)));
        let p = bench.p(three.id, n);
        assert!(p.replicas[2] == b(2) || p.replicas[1] == b(2), "{p:?}");
        assert!(p.isr.len() == 2 && !p.isr.contains(&b(2)));
    }
}

#[test]
fn partitions_grow_and_never_shrink() {
    let mut bench = Bench::new(3);
    let id = create(&mut bench, named("t", 2, 2)).id;
    let grow = |bench: &mut Bench, count, assignments: Option<Vec<Vec<BrokerId>>>| {
        let topics = vec![MorePartitions {
            name: "t".to_owned(),
            count,
            assignments,
        }];
        match bench.admin(AdminRequest::CreatePartitions {
            topics,
            validate_only: false,
        }) {
            AdminResponse::CreatePartitions(outcomes) => outcomes[0].1.code,
            other => panic!("{other:?}"),
        }
    };
    for bad in [2, 1, 0, -1] {
        assert_eq!(grow(&mut bench, bad, None), codes::INVALID_PARTITIONS);
    }
    assert_eq!(
        grow(&mut bench, 4, Some(vec![ids(&[0, 1])])),
        codes::INVALID_REPLICA_ASSIGNMENT
    );
    assert_eq!(
        grow(&mut bench, 3, Some(vec![ids(&[0])])),
        codes::INVALID_REPLICA_ASSIGNMENT
    );
    assert_eq!(grow(&mut bench, 3, None), 0);
    for id in 0..3 {
        assert_eq!(bench.image.hosted(b(id)).replicas, 2, "even over all three");
    }
    assert_eq!(bench.p(id, 2).isr.len(), 2);
}

#[test]
fn deletion_is_by_name_or_id_and_can_be_switched_off() {
    let mut bench = Bench::new(1);
    let (a, c) = (
        create(&mut bench, named("a", 1, 1)).id,
        create(&mut bench, named("c", 1, 1)).id,
    );
    let topics = vec![
        TopicRef::Name("a".to_owned()),
        TopicRef::Id(c),
        TopicRef::Name("a".to_owned()),
        TopicRef::Id(a),
    ];
    let AdminResponse::DeleteTopics(deleted) = bench.admin(AdminRequest::DeleteTopics { topics })
    else {
        panic!()
    };
    let codes_of: Vec<i16> = deleted.iter().map(|d| d.outcome.code).collect();
    assert_eq!(
        codes_of,
        [
            0,
            0,
            codes::UNKNOWN_TOPIC_OR_PARTITION,
            codes::UNKNOWN_TOPIC_ID
        ]
    );
    assert_eq!(deleted[1].name.as_deref(), Some("c"));
    assert!(bench.image.topics.is_empty() && bench.image.names.is_empty());

    let mut bench = Bench::with(
        1,
        Settings {
            delete_topics: false,
            ..settings()
        },
    );
    create(&mut bench, named("a", 1, 1));
    let topics = vec![TopicRef::Name("a".to_owned())];
    let AdminResponse::DeleteTopics(deleted) = bench.admin(AdminRequest::DeleteTopics { topics })
    else {
        panic!()
    };
    assert_eq!(deleted[0].outcome.code, codes::TOPIC_DELETION_DISABLED);
}

fn alter(
    bench: &mut Bench,
    target: ConfigTarget,
    replace_all: bool,
    changes: &[(&str, ConfigOp, Option<&str>)],
) -> Outcome {
    let changes = changes
        .iter()
        .map(|(key, op, value)| ConfigChange {
            key: (*key).to_owned(),
            op: *op,
            value: value.map(str::to_owned),
        })
        .collect();
    let resources = vec![ConfigChanges {
        target,
        replace_all,
        changes,
    }];
    match bench.admin(AdminRequest::AlterConfigs {
        resources,
        validate_only: false,
    }) {
        AdminResponse::AlterConfigs(outcomes) => outcomes[0].1.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn configurations_change_all_or_none() {
    let mut bench = Bench::new(1);
    create(&mut bench, named("t", 1, 1));
    let topic = || ConfigTarget::Topic("t".to_owned());
    let value = |bench: &Bench, key: &str| {
        let topic = bench.image.topic_by_name("t").unwrap();
        bench.image.topic_config(topic, key).map(str::to_owned)
    };
    use ConfigOp::{Append, Delete, Set};
    assert!(
        alter(
            &mut bench,
            topic(),
            false,
            &[("retention.ms", Set, Some("5000"))]
        )
        .is_ok()
    );
    let refused = alter(
        &mut bench,
        topic(),
        false,
        &[
            ("retention.ms", Set, Some("1")),
            ("segment.ms", Set, Some("-4")),
        ],
    );
    assert_eq!(refused.code, codes::INVALID_CONFIG);
    assert_eq!(value(&bench, "retention.ms").as_deref(), Some("5000"));
    assert_eq!(
        alter(
            &mut bench,
            topic(),
            false,
            &[("retention.ms", Append, Some("1"))]
        )
        .code,
        codes::INVALID_CONFIG
    );
    assert!(
        alter(
            &mut bench,
            topic(),
            false,
            &[("cleanup.policy", Append, Some("compact"))]
        )
        .is_ok()
    );
    assert!(
        alter(
            &mut bench,
            topic(),
            false,
            &[("cleanup.policy", Append, Some("delete"))]
        )
        .is_ok()
    );
    assert!(
        alter(
            &mut bench,
            topic(),
            false,
            &[("retention.ms", Delete, None)]
        )
        .is_ok()
    );
    assert_eq!(value(&bench, "retention.ms").as_deref(), Some("604800000"));
    assert!(
        alter(
            &mut bench,
            topic(),
            true,
            &[("segment.ms", Set, Some("60000"))]
        )
        .is_ok()
    );
    let own = &bench.image.topic_by_name("t").unwrap().configs;
    assert_eq!(
        own,
        &BTreeMap::from([("segment.ms".to_owned(), "60000".to_owned())])
    );
    let unknown = alter(&mut bench, ConfigTarget::Topic("u".to_owned()), false, &[]);
    assert_eq!(unknown.code, codes::UNKNOWN_TOPIC_OR_PARTITION);
    let impossible = ConfigTarget::Topic("a b".to_owned());
    let impossible = alter(&mut bench, impossible, false, &[]);
    assert_eq!(impossible.code, codes::INVALID_TOPIC_EXCEPTION);
}

#[test]
fn a_configuration_without_a_value_is_refused_and_not_passed_over() {
    let mut bench = Bench::new(1);
    let mut topic = named("t", 1, 1);
    topic.configs = BTreeMap::from([("segment.ms".to_owned(), None)]);
    let created = create(&mut bench, topic);
    assert_eq!(created.outcome.code, codes::INVALID_CONFIG);
    assert!(bench.image.topics.is_empty());
}

#[test]
fn defaults_come_from_the_cluster_then_the_brokers_file_then_kafka() {
    let mut settings = settings();
    settings
        .topic_defaults
        .insert("segment.ms".to_owned(), "1000".to_owned());
    settings
        .topic_defaults
        .insert("retention.ms".to_owned(), "2000".to_owned());
    let mut bench = Bench::with(1, settings);
    create(&mut bench, named("t", 1, 1));
    let set = [("log.retention.ms", ConfigOp::Set, Some("3000"))];
    assert!(
        alter(&mut bench, ConfigTarget::Cluster, false, &set).is_ok(),
        "under the broker key's name"
    );
    let topic = bench.image.topic_by_name("t").unwrap();
    let value = |key| bench.image.topic_config(topic, key);
    assert_eq!(value("segment.ms"), Some("1000"));
    assert_eq!(value("retention.ms"), Some("3000"));
    assert_eq!(value("max.message.bytes"), Some("1048588"));
    assert_eq!(value("no.such.key"), None);
}

/// Two controllers after each other, of which the second has another file; then `told` by an operator, if any.
fn defaults_after_two_files(told: Option<&[(&str, &str)]>, defaults_are_told: bool) -> Bench {
    let with = |value: &str| {
        let mut settings = settings();
        settings.defaults_are_told = defaults_are_told;
        let pair = ("segment.ms".to_owned(), value.to_owned());
        settings.topic_defaults.extend([pair]);
        settings
    };
    let mut bench = Bench::with(1, with("1000"));
    if let Some(told) = told {
        let pairs = told.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let configs = pairs.collect();
        let answer = bench.admin(AdminRequest::SetTopicDefaults { configs });
        assert_eq!(answer, AdminResponse::SetTopicDefaults(Outcome::ok()));
    }
    for epoch in 1..=2 {
        let claim = crate::Claim {
            epoch: leasehold_types::ControllerEpoch(epoch),
            broker: b(0),
            ..bench.image.claims[0].clone()
        };
        bench.image.claims.push_back(claim);
    }
    bench.controller.settings = with("2000");
    bench.take_over();
    bench.pass(1, &[0]);
    bench
}

#[test]
fn a_file_that_is_older_than_what_the_operator_told_undoes_nothing() {
    let segment_ms = |bench: &Bench| bench.image.static_configs.get("segment.ms").cloned();
    let found = |value: &str| Some(value.to_owned());
    let laptop = defaults_after_two_files(None, false);
    assert_eq!(
        segment_ms(&laptop),
        found("2000"),
        "its file is all there is"
    );
    let operated = defaults_after_two_files(None, true);
    assert_eq!(segment_ms(&operated), found("1000"));
    let told = defaults_after_two_files(Some(&[("log.roll.ms", "3000")]), true);
    assert_eq!(segment_ms(&told), found("3000"), "under either name");
    assert_eq!(segment_ms(&defaults_after_two_files(Some(&[]), true)), None);
}

#[test]
fn only_defaults_of_topics_are_taken_from_the_operator() {
    let mut bench = Bench::new(1);
    for (key, value) in [
        ("max.connections", "1"),
        ("no.such.key", "1"),
        ("segment.ms", "x"),
    ] {
        let configs = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let answer = bench.admin(AdminRequest::SetTopicDefaults { configs });
        let AdminResponse::SetTopicDefaults(outcome) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(outcome.code, codes::INVALID_CONFIG, "{key}");
    }
    assert!(bench.image.static_configs.is_empty());
}

#[test]
fn a_broker_has_values_of_its_own_for_keys_that_are_dynamic() {
    let mut bench = Bench::new(2);
    create(&mut bench, named("t", 1, 1));
    use ConfigOp::{Append, Delete, Set};
    let one = || ConfigTarget::Broker(b(1));
    let good = [
        ("log.retention.ms", Set, Some("3000")),
        ("max.connections", Set, Some(" 9 ")),
        ("log.cleanup.policy", Append, Some("compact")),
    ];
    assert!(alter(&mut bench, one(), false, &good).is_ok());
    let of = |bench: &Bench, id| bench.image.broker_configs.get(&b(id)).cloned();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = BTreeMap::from([
        pair("retention.ms", "3000"),
        pair("max.connections", "9"),
        pair("cleanup.policy", "delete,compact"),
    ]);
    assert_eq!(of(&bench, 1).as_ref(), Some(&expected));
    assert_eq!(of(&bench, 0), None);
    assert!(bench.image.cluster_configs.is_empty());

    for (key, value, code) in [
        ("num.partitions", "3", codes::INVALID_REQUEST),
        ("log.retention.hours", "3", codes::INVALID_REQUEST),
        ("no.such.key", "3", codes::INVALID_REQUEST),
        ("max.connections", "many", codes::INVALID_REQUEST),
        ("log.retention.ms", "-7", codes::INVALID_REQUEST),
        ("min.insync.replicas", "1", codes::INVALID_CONFIG),
        (
            "unclean.leader.election.enable",
            "true",
            codes::INVALID_CONFIG,
        ),
    ] {
        let both = [("max.connections", Delete, None), (key, Set, Some(value))];
        let both = &both[usize::from(key == "max.connections")..];
        let refused = alter(&mut bench, one(), false, both);
        assert_eq!(refused.code, code, "{key}");
        let name = key.strip_prefix("log.").unwrap_or(key);
        assert!(refused.message.unwrap().contains(name), "{key}");
        assert_eq!(of(&bench, 1).as_ref(), Some(&expected), "all or none");
    }
    let gone = alter(&mut bench, ConfigTarget::Broker(b(7)), false, &good);
    assert_eq!(gone.code, codes::BROKER_ID_NOT_REGISTERED);

    // For all, under the same names; the older way replaces what is not named.
    let set = [("max.connections", Set, Some("11"))];
    assert!(alter(&mut bench, ConfigTarget::Cluster, false, &set).is_ok());
    assert_eq!(bench.image.cluster_configs["max.connections"], "11");
    assert!(alter(&mut bench, one(), true, &set).is_ok());
    let left = BTreeMap::from([pair("max.connections", "11")]);
    assert_eq!(of(&bench, 1), Some(left));
    let taken = [("max.connections", Delete, None)];
    assert!(alter(&mut bench, one(), false, &taken).is_ok());
    assert_eq!(of(&bench, 1), None);
}

#[test]
fn producer_ids_are_given_out_in_blocks_that_do_not_overlap() {
    let mut bench = Bench::new(2);
    let mut next = 0;
    for id in [0, 1, 0] {
        let (to, incarnation) = (bench.token(), bench.incarnation(id));
        bench.step(crate::controller::Input::AllocateProducerIds {
            to,
            broker: b(id),
            incarnation,
        });
        let Response::ProducerIds { first, count } = *bench.answer() else {
            panic!()
        };
        assert_eq!(first, ProducerId(next));
        next += count;
    }
    bench.step(crate::controller::Input::AllocateProducerIds {
        to: crate::controller::ReplyTo(0),
        broker: b(0),
        incarnation: Incarnation(3),
    });
    assert_eq!(bench.error(), codes::STALE_BROKER_EPOCH);
}
