//! Feature levels: what is refused below them, when they rise, and who may not be there.

use super::bench::*;
use crate::balance::Balancing;
use crate::controller::*;
use crate::features::*;
use crate::image::{Claim, ClaimId, Image, Partition};
use crate::quotas::{QuotaEntity, QuotaLimit, Who};
use crate::records::*;
use crate::rpc::*;
use leasehold_types::*;
use std::collections::BTreeMap;

pub fn raise(bench: &mut Bench, level: Level) -> Outcome {
    update(bench, METADATA_VERSION, level, Direction::Up, false)
}

fn update(
    bench: &mut Bench,
    name: &str,
    level: Level,
    direction: Direction,
    validate_only: bool,
) -> Outcome {
    let update = FeatureUpdate {
        name: name.to_owned(),
        level,
        direction,
    };
    let request = AdminRequest::UpdateFeatures {
        updates: vec![update],
        validate_only,
    };
    match bench.admin(request) {
        AdminResponse::UpdateFeatures(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

pub fn quota() -> AdminRequest {
    let key = "producer_byte_rate".to_owned();
    let limit = QuotaLimit::new(&key, 5.0).ok();
    AdminRequest::AlterClientQuotas {
        entities: vec![QuotaChanges {
            entity: client(),
            changes: vec![QuotaChange { key, limit }],
        }],
        validate_only: false,
    }
}

fn client() -> QuotaEntity {
    QuotaEntity {
        client_id: Some(Who::Named("a".into())),
        ..QuotaEntity::default()
    }
}

pub fn config_of(id: i32) -> AdminRequest {
    AdminRequest::AlterConfigs {
        resources: vec![ConfigChanges {
            target: ConfigTarget::Broker(b(id)),
            replace_all: false,
            changes: vec![ConfigChange {
                key: "max.connections".to_owned(),
                op: ConfigOp::Set,
                value: Some("8".to_owned()),
            }],
        }],
        validate_only: false,
    }
}

fn outcome(bench: &mut Bench, request: AdminRequest) -> Outcome {
    match bench.admin(request) {
        AdminResponse::AlterClientQuotas(outcomes) => outcomes[0].clone(),
        AdminResponse::AlterConfigs(outcomes) => outcomes[0].1.clone(),
        AdminResponse::SetBalancing(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn wishes() -> Vec<AdminRequest> {
    let balancing = Balancing {
        max_moves: 3,
        ..Balancing::default()
    };
    vec![
        quota(),
        config_of(0),
        AdminRequest::SetBalancing { balancing },
    ]
}

/// The state but for the position.
fn facts(image: &Image) -> Vec<Record> {
    image.to_records()
}

/// One record of every kind, newer ones in every form that is newer.
fn records() -> Vec<Record> {
    let topic = TopicId(uuid::Uuid::from_u128(77));
    let register = |directories| {
        Record::RegisterBroker(RegisterBroker {
            broker: b(0),
            incarnation: Incarnation(100),
            client: endpoint(1),
            internal: endpoint(2),
            http: None,
            rack: None,
            version: String::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
            registered_at: None,
            changed_at: None,
            directories,
            listeners: Default::default(),
            features: supported(),
        })
    };
    let config = |resource| Record::Config {
        resource,
        key: "max.connections".to_owned(),
        value: Some("8".to_owned()),
    };
    let state = Partition {
        replicas: ids(&[0, 1]),
        isr: ids(&[0]),
        leader: Some(b(0)),
        ..Partition::default()
    };
    let partition = |partition, state| Record::Partition {
        topic,
        partition,
        state,
    };
    let change = |partition, offline, balancing| {
        Record::PartitionChange(PartitionChange {
            topic,
            partition,
            partition_epoch: PartitionEpoch(1),
            leader_epoch: None,
            leader: None,
            isr: None,
            elr: None,
            lossy: None,
            offline,
            replicas: None,
            adding: None,
            removing: None,
            draining: None,
            balancing,
            recovering: None,
        })
    };
    vec![
        register(Vec::new()),
        register(vec![DirectoryId(uuid::Uuid::from_u128(1))]),
        Record::BrokerChange(BrokerChange {
            broker: b(0),
            incarnation: Incarnation(100),
            fenced: None,
            shutting_down: None,
            cordoned: Some(true),
            listeners: Default::default(),
        }),
        Record::Topic {
            id: topic,
            name: "of-every-kind".to_owned(),
            internal: false,
            configs: BTreeMap::new(),
        },
        partition(0, state.clone()),
        change(0, None, None),
        config(ConfigResource::Topic(topic)),
        config(ConfigResource::Cluster),
        config(ConfigResource::Static),
        config(ConfigResource::Broker(b(0))),
        config(ConfigResource::Group("a".to_owned())),
        config(ConfigResource::ClientMetrics("a".to_owned())),
        Record::ClientQuota {
            entity: client(),
            key: "producer_byte_rate".to_owned(),
            limit: QuotaLimit::new("producer_byte_rate", 5.0).ok(),
        },
        Record::Balancing(Balancing {
            due: true,
            ..Balancing::default()
        }),
        partition(
            1,
            Partition {
                offline: ids(&[1]),
                ..state.clone()
            },
        ),
        partition(
            2,
            Partition {
                balancing: true,
                ..state
            },
        ),
        change(1, Some(Vec::new()), None),
        change(2, None, Some(false)),
        Record::ProducerIds {
            next: ProducerId(5_000),
        },
        Record::Recovery {
            epoch_jump: 1,
            producer_id_jump: 1,
            reason: String::new(),
        },
        Record::NoOp,
        Record::DeleteTopic { id: topic },
        Record::UnregisterBroker { broker: b(0) },
    ]
}

fn kind(record: &Record) -> String {
    match serde_json::to_value(record).unwrap() {
        serde_json::Value::String(name) => name,
        serde_json::Value::Object(fields) => fields.keys().next().unwrap().clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn every_record_is_kept_back_below_its_level_and_none_above() {
    let mut newer = 0;
    for level in [Level::FIRST, Level::NEWEST] {
        let mut bench = match level {
            Level::FIRST => Bench::at_the_first_level(2, settings()),
            _ => Bench::new(2),
        };
        for record in records() {
            let before = facts(bench.controller.image());
            bench.controller.out = Output::default();
            bench.controller.emit(record.clone());
            let written = bench.controller.out.records.contains(&record);
            if record.needs() > level {
                newer += 1;
                assert!(!written, "at level {level}: {record:?}");
                assert_eq!(facts(bench.controller.image()), before);
            } else if !matches!(&record, Record::PartitionChange(c) if c.partition > 0 && level == Level::FIRST)
            {
                assert!(
                    written,
                    "at level {level}: {record:?}: {:?}",
                    bench.controller.out
                );
            }
        }
    }
    assert_eq!(newer, 10, "forms that came after the first level");
    let claim = Record::Claim(Claim {
        epoch: ControllerEpoch(1),
        claim_id: ClaimId(1),
        first_seq: Seq(1),
        broker: b(0),
        incarnation: Incarnation(1),
    });
    let level = Record::FeatureLevel {
        name: METADATA_VERSION.to_owned(),
        level: Level::NEWEST,
    };
    // The error names all kinds that there are: each is among those tried here.
    let error = serde_json::from_str::<Record>("{\"no_such_kind\":{}}").unwrap_err();
    let error = error.to_string();
    let all = error.split("expected one of").nth(1).unwrap();
    let all: Vec<&str> = all.split('`').skip(1).step_by(2).collect();
    let tried: Vec<String> = records().iter().chain([&claim, &level]).map(kind).collect();
    for kind in all {
        assert!(
            tried.iter().any(|tried| tried == kind),
            "{kind} was not tried"
        );
    }
}

#[test]
fn a_new_cluster_begins_at_the_newest_level() {
    let bench = Bench::new(1);
    assert_eq!(bench.image.metadata_version, Some(Level::NEWEST));
    assert_eq!(bench.image.broker(b(0)).unwrap().features, supported());
}

#[test]
fn a_cluster_of_an_earlier_release_stays_at_its_level_under_a_new_controller() {
    let mut bench = Bench::at_the_first_level(2, settings());
    bench.take_over();
    bench.pass(1_000, &[0, 1]);
    assert_eq!(bench.image.metadata_version, None);
    // The last release before levels were recorded named directories, and wrote all that came before.
    let mut image = bench.image.clone();
    let mut known = (**image.broker(b(0)).unwrap()).clone();
    known.directories = vec![DirectoryId(uuid::Uuid::from_u128(1))];
    image.brokers.insert(b(0), known.into());
    assert_eq!(image.metadata_level(), Level::ADMINISTERED);
}

#[test]
fn what_needs_a_higher_level_is_refused_with_the_level_and_the_way_to_it() {
    let mut bench = Bench::at_the_first_level(2, settings());
    let before = facts(&bench.image);
    for wish in wishes() {
        let refused = outcome(&mut bench, wish);
        assert_eq!(refused.code, codes::UNSUPPORTED_VERSION);
        let message = refused.message.unwrap();
        for part in [
            "need metadata.version 2",
            "at 1",
            "kafka-features.sh upgrade --feature metadata.version=3",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert_eq!(facts(&bench.image), before);
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
    for wish in wishes() {
        assert!(outcome(&mut bench, wish).is_ok());
    }
}

/// Registers broker `id` anew with what another release would tell.
fn register(bench: &mut Bench, id: i32, features: Supported, directories: &[u128]) -> Response {
    let mut r = bench.registration(id, 500 + i64::from(id), RestartReport::default());
    r.features = features;
    let report = |n: &u128| DirectoryReport {
        id: DirectoryId(uuid::Uuid::from_u128(*n)),
        restart: RestartReport::default(),
        partitions: Vec::new(),
    };
    r.directories = directories.iter().map(report).collect();
    let to = bench.token();
    bench.step(Input::Register {
        to,
        registration: Box::new(r),
    });
    bench.answer().clone()
}

fn range(min: i16, max: i16) -> Supported {
    let (min, max) = (Level(min), Level(max));
    BTreeMap::from([(METADATA_VERSION.to_owned(), LevelRange { min, max })])
}

#[test]
fn several_directories_wait_for_their_level() {
    let mut bench = Bench::at_the_first_level(1, settings());
    match register(&mut bench, 1, supported(), &[1, 2]) {
        Response::Error(outcome) => {
            assert_eq!(outcome.code, codes::UNSUPPORTED_VERSION);
            let message = outcome.message.unwrap();
            assert!(message.contains("several log directories"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // One is nothing new, and is not named to those who would pass over it.
    let admitted = register(&mut bench, 1, supported(), &[1]);
    assert!(matches!(admitted, Response::Registered { .. }));
    assert!(bench.image.broker(b(1)).unwrap().directories.is_empty());
    assert_eq!(bench.image.metadata_level(), Level::FIRST);
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
    let admitted = register(&mut bench, 2, supported(), &[1, 2]);
    assert!(matches!(admitted, Response::Registered { .. }));
    assert_eq!(bench.image.broker(b(2)).unwrap().directories.len(), 2);
}

#[test]
fn a_level_rises_only_once_every_registered_broker_supports_it() {
    let mut bench = Bench::at_the_first_level(2, settings());
    // An older release, which is away at present.
    register(&mut bench, 7, Supported::new(), &[]);
    bench.goodbye(7);
    let refused = raise(&mut bench, Level::NEWEST);
    assert_eq!(refused.code, codes::INVALID_UPDATE_VERSION);
    let message = refused.message.unwrap();
    assert!(
        message.contains("broker 7") && !message.contains("broker 0"),
        "{message}"
    );
    assert_eq!(bench.image.metadata_level(), Level::FIRST);
    register(&mut bench, 7, supported(), &[]);
    let asked = update(
        &mut bench,
        METADATA_VERSION,
        Level::NEWEST,
        Direction::Up,
        true,
    );
    assert!(asked.is_ok());
    assert_eq!(
        bench.image.metadata_level(),
        Level::FIRST,
        "that was only a question"
    );
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
    assert_eq!(bench.image.metadata_level(), Level::NEWEST);
    assert!(raise(&mut bench, Level::NEWEST).is_ok(), "a repeat");
    assert!(bench.records.is_empty());
}

#[test]
fn a_broker_that_an_older_controller_knew_by_less_tells_again_what_it_supports() {
    let mut bench = Bench::at_the_first_level(1, settings());
    register(&mut bench, 1, Supported::new(), &[]);
    assert!(!raise(&mut bench, Level::NEWEST).is_ok());
    // The same process, now that the controller asks for it.
    register(&mut bench, 1, supported(), &[]);
    assert_eq!(bench.image.broker(b(1)).unwrap().features, supported());
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
}

#[test]
fn a_level_never_falls_and_only_levels_that_there_are_are_set() {
    let mut bench = Bench::new(2);
    let newest = Level::NEWEST;
    let below = Level(newest.0 - 1);
    for (name, level, direction, why) in [
        (METADATA_VERSION, below, Direction::Up, "does not lower"),
        (
            METADATA_VERSION,
            below,
            Direction::DownIfSafe,
            "cannot be lowered",
        ),
        (
            METADATA_VERSION,
            below,
            Direction::Down,
            "cannot be lowered",
        ),
        (
            METADATA_VERSION,
            Level(0),
            Direction::Down,
            "cannot be lowered",
        ),
        (METADATA_VERSION, Level(-1), Direction::Up, "does not lower"),
        (
            METADATA_VERSION,
            Level(newest.0 + 1),
            Direction::Up,
            "supports 1 to 4",
        ),
        (
            METADATA_VERSION,
            Level(newest.0 + 1),
            Direction::Down,
            "does not raise",
        ),
        ("share.version", Level(1), Direction::Up, "no such feature"),
    ] {
        let refused = update(&mut bench, name, level, direction, false);
        assert_eq!(refused.code, codes::INVALID_UPDATE_VERSION, "{why}");
        let message = refused.message.unwrap();
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(bench.image.metadata_version, Some(newest));
    let mut first = Bench::at_the_first_level(1, settings());
    let refused = raise(&mut first, Level::ADMINISTERED);
    assert!(
        refused
            .message
            .unwrap()
            .contains("raise it to that at once")
    );
    let twice = FeatureUpdate {
        name: METADATA_VERSION.to_owned(),
        level: newest,
        direction: Direction::Up,
    };
    let request = AdminRequest::UpdateFeatures {
        updates: vec![twice.clone(), twice],
        validate_only: false,
    };
    match first.admin(request) {
        AdminResponse::UpdateFeatures(outcome) => assert_eq!(outcome.code, codes::INVALID_REQUEST),
        other => panic!("{other:?}"),
    }
    assert_eq!(first.image.metadata_version, None);
}

#[test]
fn who_does_not_support_the_level_in_force_is_not_admitted() {
    let mut bench = Bench::new(1);
    for (features, directories) in [
        (Supported::new(), &[][..]),
        (Supported::new(), &[1]),
        (range(1, 2), &[1]),
        (range(Level::NEWEST.0 + 1, 9), &[1]),
    ] {
        match register(&mut bench, 3, features, directories) {
            Response::Error(outcome) => {
                assert_eq!(outcome.code, codes::UNSUPPORTED_VERSION);
                let message = outcome.message.unwrap();
                let at = format!("the cluster is at {}", Level::NEWEST);
                assert!(message.contains(&at), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.image.broker(b(3)).is_none());
    let mut newer = supported();
    newer.extend(range(2, 9));
    let newer = register(&mut bench, 3, newer, &[1]);
    assert!(matches!(newer, Response::Registered { .. }));
}

#[test]
fn at_the_first_level_a_broker_with_a_failed_log_is_out_as_a_whole_until_the_level_rises() {
    let mut bench = Bench::at_the_first_level(3, settings());
    let topic = bench.topic("t", &[&[0, 1, 2]], 2);
    let failed = |bench: &mut Bench| {
        bench.poll_with(0, |poll| poll.state.offline = vec![(topic, 0)]);
    };
    for _ in 0..3 {
        failed(&mut bench);
        assert!(!bench.image.is_live(b(0)));
    }
    assert!(bench.leader(topic, 0).is_some_and(|leader| leader != 0));
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
    failed(&mut bench);
    assert!(bench.image.is_live(b(0)));
    assert!(bench.p(topic, 0).is_offline(b(0)));
}

fn level(bench: &mut Bench, level: i16, direction: Direction) -> Outcome {
    update(bench, TRANSACTION_VERSION, Level(level), direction, false)
}

#[test]
fn kafkas_features_rise_and_fall_and_a_new_cluster_has_the_newest() {
    let mut bench = Bench::new(2);
    let at = |bench: &Bench| bench.image.feature_level(TRANSACTION_VERSION);
    assert_eq!(at(&bench), Level(2));
    assert_eq!(bench.image.feature_level(GROUP_VERSION), Level(1));
    for (to, direction, why) in [
        (3, Direction::Up, "supports 0 to 2"),
        (1, Direction::Up, "does not lower"),
        (3, Direction::Down, "does not raise"),
        (-1, Direction::Down, "supports 0 to 2"),
    ] {
        let message = level(&mut bench, to, direction).message.unwrap();
        assert!(message.contains(why), "{message}");
        assert_eq!(at(&bench), Level(2));
    }
    assert!(level(&mut bench, 0, Direction::DownIfSafe).is_ok());
    assert_eq!(at(&bench), Level::OFF);
    assert!(!bench.image.features.contains_key(TRANSACTION_VERSION));
    assert!(level(&mut bench, 1, Direction::Up).is_ok());
    assert_eq!(at(&bench), Level(1));
    assert!(level(&mut bench, 2, Direction::Up).is_ok());
    // A snapshot has it.
    let image = &bench.image;
    let records = image.to_records();
    let again = Image::from_snapshot(image.cluster_id.clone(), image.position, &records);
    assert_eq!(again.unwrap().features, image.features);
}

#[test]
fn a_feature_of_kafka_waits_for_brokers_that_do_not_know_it_and_keeps_them_out_afterwards() {
    let mut bench = Bench::at_the_first_level(1, settings());
    let refused = level(&mut bench, 2, Direction::Up);
    assert!(refused.message.unwrap().contains("metadata.version"));
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
    register(&mut bench, 1, range(1, Level::NEWEST.0), &[1]);
    let refused = level(&mut bench, 2, Direction::Up);
    assert_eq!(refused.code, codes::INVALID_UPDATE_VERSION);
    let message = refused.message.unwrap();
    assert!(
        message.contains("broker 1") && !message.contains("broker 0"),
        "{message}"
    );
    register(&mut bench, 1, supported(), &[1]);
    assert!(level(&mut bench, 2, Direction::Up).is_ok());
    match register(&mut bench, 2, range(1, Level::NEWEST.0), &[1]) {
        Response::Error(outcome) => {
            let message = outcome.message.unwrap();
            assert!(message.contains("transaction.version=0"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}
