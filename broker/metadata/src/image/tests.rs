//! What the image promises.

use super::*;
use crate::balance::Mode;
use crate::features::{Level, METADATA_VERSION, Unsupported, supported};
use crate::quotas::{QuotaEntity, QuotaLimit, Who};
use crate::records::*;

fn claim(epoch: i64, id: u128, seq: u64) -> Entry {
    let claim = Claim {
        epoch: ControllerEpoch(epoch),
        claim_id: ClaimId(id),
        first_seq: Seq(seq),
        broker: BrokerId(0),
        incarnation: Incarnation(1),
    };
    entry(epoch, seq, vec![Record::Claim(claim)])
}

fn entry(epoch: i64, seq: u64, records: Vec<Record>) -> Entry {
    Entry {
        seq: Seq(seq),
        epoch: ControllerEpoch(epoch),
        nonce: "00".to_owned(),
        records,
    }
}

fn register(id: i32) -> Record {
    let endpoint = Endpoint {
        host: "10.0.0.1".to_owned(),
        port: 9092,
    };
    Record::RegisterBroker(RegisterBroker {
        broker: BrokerId(id),
        incarnation: Incarnation(7),
        client: endpoint.clone(),
        internal: endpoint,
        http: None,
        rack: Some("a".to_owned()),
        version: "1".to_owned(),
        fenced: true,
        shutting_down: false,
        cordoned: false,
        registered_at: None,
        changed_at: None,
        directories: vec![DirectoryId(uuid::Uuid::from_u128(9))],
        listeners: Default::default(),
        features: supported(),
    })
}

const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(5));

fn topic() -> Vec<Record> {
    let state = Partition {
        replicas: vec![BrokerId(0), BrokerId(1)],
        isr: vec![BrokerId(0), BrokerId(1)],
        leader: Some(BrokerId(0)),
        ..Partition::default()
    };
    vec![
        Record::Topic {
            id: TOPIC,
            name: "t".to_owned(),
            internal: false,
            configs: BTreeMap::new(),
        },
        Record::Partition {
            topic: TOPIC,
            partition: 0,
            state,
        },
    ]
}

fn level(name: &str, level: Level) -> Record {
    Record::FeatureLevel {
        name: name.to_owned(),
        level,
    }
}

fn change() -> PartitionChange {
    PartitionChange {
        topic: TOPIC,
        partition: 0,
        partition_epoch: PartitionEpoch(1),
        leader_epoch: None,
        leader: None,
        isr: None,
        elr: None,
        lossy: None,
        offline: None,
        replicas: None,
        adding: None,
        removing: None,
        draining: None,
        balancing: None,
        recovering: None,
    }
}

/// Claimed at 1, two brokers at 2, a topic at 3.
fn image() -> Image {
    let mut image = Image::genesis(ClusterId("c".to_owned()));
    image.apply(&claim(1, 11, 1)).unwrap();
    image
        .apply(&entry(1, 2, vec![register(0), register(1)]))
        .unwrap();
    image.apply(&entry(1, 3, topic())).unwrap();
    image
}

fn refused(records: Vec<Record>) -> ApplyError {
    let mut image = image();
    let before = image.clone();
    let error = image.apply(&entry(1, 4, records)).unwrap_err();
    assert_eq!(image, before, "a refused entry leaves the image as it was");
    error
}

#[test]
fn an_entry_that_does_not_follow_is_refused() {
    let mut image = image();
    for seq in [3, 5] {
        let error = image.apply(&entry(1, seq, vec![Record::NoOp])).unwrap_err();
        assert_eq!(
            error,
            ApplyError::Gap {
                at: Seq(3),
                found: Seq(seq)
            }
        );
    }
    image.apply(&entry(1, 4, vec![Record::NoOp])).unwrap();
}

#[test]
fn after_a_claim_no_entry_carries_another_epoch() {
    let mut image = image();
    image.apply(&claim(2, 22, 4)).unwrap();
    for epoch in [1, 3] {
        let error = image.apply(&entry(epoch, 5, vec![])).unwrap_err();
        assert!(matches!(error, ApplyError::WrongEpoch { .. }), "{error}");
    }
    assert!(matches!(
        image.apply(&claim(2, 33, 5)),
        Err(ApplyError::BadClaim { .. })
    ));
    assert!(matches!(
        image.apply(&claim(3, 33, 9)),
        Err(ApplyError::Gap { .. })
    ));
}

#[test]
fn an_entry_is_applied_whole_or_not_at_all() {
    let error = refused(vec![
        register(5),
        Record::UnregisterBroker {
            broker: BrokerId(9),
        },
    ]);
    assert_eq!(error, ApplyError::UnknownBroker(BrokerId(9)));
}

#[test]
fn records_that_do_not_fit_are_errors() {
    let with = |set: &dyn Fn(&mut PartitionChange)| {
        let mut change = change();
        set(&mut change);
        refused(vec![Record::PartitionChange(change)])
    };
    let jump =
        |error: ApplyError| assert!(matches!(error, ApplyError::EpochJump { .. }), "{error}");
    jump(with(&|c| c.partition_epoch = PartitionEpoch(2)));
    jump(with(&|c| c.partition_epoch = PartitionEpoch(0)));
    jump(with(&|c| c.leader = Some(Some(BrokerId(1)))));
    jump(with(&|c| c.leader_epoch = Some(LeaderEpoch(2))));
    let bad =
        |error: ApplyError| assert!(matches!(error, ApplyError::BadPartition { .. }), "{error}");
    bad(with(&|c| c.isr = Some(vec![BrokerId(1)])));
    bad(with(&|c| c.isr = Some(vec![BrokerId(0), BrokerId(4)])));
    bad(with(&|c| c.isr = Some(vec![BrokerId(0), BrokerId(0)])));
    bad(with(&|c| c.elr = Some(vec![BrokerId(1)])));
    bad(with(&|c| c.replicas = Some(vec![])));
    let unknown = with(&|c| c.partition = -1);
    assert!(matches!(unknown, ApplyError::UnknownPartition { .. }));
    let other = BrokerChange {
        broker: BrokerId(0),
        incarnation: Incarnation(8),
        fenced: Some(false),
        shutting_down: None,
        cordoned: None,
        listeners: Default::default(),
    };
    assert!(matches!(
        refused(vec![Record::BrokerChange(other)]),
        ApplyError::OtherIncarnation { .. }
    ));
    assert!(matches!(refused(topic()), ApplyError::TopicExists { .. }));
    let gap = Record::Partition {
        topic: TOPIC,
        partition: 2,
        state: Partition {
            replicas: vec![BrokerId(0)],
            ..Partition::default()
        },
    };
    assert!(matches!(refused(vec![gap]), ApplyError::NotDense { .. }));
    let gone = Record::DeleteTopic {
        id: TopicId::default(),
    };
    assert!(matches!(refused(vec![gone]), ApplyError::UnknownTopic(_)));
    let falling = vec![
        Record::ProducerIds {
            next: leasehold_types::ProducerId(9),
        },
        Record::ProducerIds {
            next: leasehold_types::ProducerId(8),
        },
    ];
    assert!(matches!(
        refused(falling),
        ApplyError::ProducerIdsFall { .. }
    ));
}

#[test]
fn a_level_that_this_release_does_not_know_is_refused_and_none_falls() {
    let newer = Level(Level::NEWEST.0 + 1);
    for (name, newer) in [(METADATA_VERSION, newer), ("no.such.feature", Level(1))] {
        let unsupported = ApplyError::Unsupported(Unsupported {
            feature: name.to_owned(),
            level: newer,
        });
        assert_eq!(refused(vec![level(name, newer)]), unsupported);
        // In a snapshot too.
        let image = image();
        let mut records = image.to_records();
        records.insert(2, level(name, newer));
        let read = Image::from_snapshot(image.cluster_id.clone(), image.position, &records);
        assert_eq!(read.unwrap_err(), unsupported);
    }
    let falling = refused(vec![
        level(METADATA_VERSION, Level::NEWEST),
        level(METADATA_VERSION, Level::FIRST),
    ]);
    assert!(matches!(falling, ApplyError::LevelFalls { .. }));
}

#[test]
fn no_leader_and_unchanged_leader_are_told_apart_in_json() {
    let none = PartitionChange {
        leader: Some(None),
        leader_epoch: Some(LeaderEpoch(1)),
        ..change()
    };
    let json = serde_json::to_string(&none).unwrap();
    assert!(json.contains("\"leader\":null"), "{json}");
    assert_eq!(
        serde_json::from_str::<PartitionChange>(&json).unwrap(),
        none
    );
    let json = serde_json::to_string(&change()).unwrap();
    assert!(!json.contains("\"leader\""), "{json}");
    assert_eq!(
        serde_json::from_str::<PartitionChange>(&json).unwrap(),
        change()
    );
}

#[test]
fn an_image_survives_its_snapshot() {
    let mut image = image();
    image.apply(&claim(4, 44, 4)).unwrap();
    let records = vec![
        level(METADATA_VERSION, Level::NEWEST),
        Record::Config {
            resource: ConfigResource::Cluster,
            key: "retention.ms".to_owned(),
            value: Some("5".to_owned()),
        },
        Record::Config {
            resource: ConfigResource::Broker(BrokerId(1)),
            key: "max.connections".to_owned(),
            value: Some("8".to_owned()),
        },
        Record::Config {
            resource: ConfigResource::Group("g".to_owned()),
            key: "consumer.session.timeout.ms".to_owned(),
            value: Some("50000".to_owned()),
        },
        Record::Config {
            resource: ConfigResource::ClientMetrics("m".to_owned()),
            key: "interval.ms".to_owned(),
            value: Some("500".to_owned()),
        },
        Record::Config {
            resource: ConfigResource::Static,
            key: "segment.ms".to_owned(),
            value: Some("6".to_owned()),
        },
        Record::Config {
            resource: ConfigResource::Topic(TOPIC),
            key: "retention.ms".to_owned(),
            value: Some("7".to_owned()),
        },
        Record::ClientQuota {
            entity: QuotaEntity {
                user: Some(Who::Default),
                client_id: Some(Who::Named("a".to_owned())),
            },
            key: "producer_byte_rate".to_owned(),
            limit: QuotaLimit::new("producer_byte_rate", 5.0).ok(),
        },
        Record::Balancing(Balancing {
            mode: Mode::PlanOnly,
            max_moves: 3,
            bytes_per_second: None,
            due: true,
        }),
        Record::ProducerIds {
            next: leasehold_types::ProducerId(1000),
        },
        Record::BrokerChange(BrokerChange {
            broker: BrokerId(0),
            incarnation: Incarnation(7),
            fenced: Some(false),
            shutting_down: None,
            cordoned: Some(true),
            listeners: [(ListenerName::parse("public").unwrap(), None)].into(),
        }),
        Record::PartitionChange(PartitionChange {
            isr: Some(vec![BrokerId(0)]),
            elr: Some(vec![BrokerId(1)]),
            offline: Some(vec![BrokerId(1)]),
            balancing: Some(true),
            ..change()
        }),
    ];
    image.apply(&entry(4, 5, records)).unwrap();
    let lines: Vec<String> = image
        .to_records()
        .iter()
        .map(|r| serde_json::to_string(r).unwrap())
        .collect();
    let records: Vec<Record> = lines
        .iter()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let rebuilt = Image::from_snapshot(image.cluster_id.clone(), image.position, &records).unwrap();
    assert_eq!(rebuilt, image);
    let elsewhere = Position {
        claim_id: ClaimId(1),
        ..image.position
    };
    assert!(Image::from_snapshot(image.cluster_id.clone(), elsewhere, &records).is_err());
}

#[test]
fn further_listeners_are_kept_and_changed_one_by_one_and_older_records_have_none() {
    let mut image = image();
    let at = |port| {
        let host = "kafka.example.org".to_owned();
        Some(Endpoint { host, port })
    };
    let name = |text: &str| ListenerName::parse(text).unwrap();
    let (public, partner) = (name("public"), name("partner"));
    let Record::RegisterBroker(mut registration) = register(0) else {
        unreachable!()
    };
    registration.listeners = [(public.clone(), None), (partner.clone(), at(31_000))].into();
    let mut seq = image.position.seq.0;
    let mut apply = |image: &mut Image, record| {
        seq += 1;
        let epoch = image.position.epoch.0;
        image.apply(&entry(epoch, seq, vec![record])).unwrap();
    };
    apply(&mut image, Record::RegisterBroker(registration));
    let before = image.broker(BrokerId(0)).unwrap().clone();
    assert_eq!(before.endpoint(None), Some(&before.client));
    assert_eq!(before.endpoint(Some(&public)), None);
    assert_eq!(before.endpoint(Some(&partner)), at(31_000).as_ref());
    assert_eq!(before.endpoint(Some(&name("other"))), None);

    let change = BrokerChange {
        broker: BrokerId(0),
        incarnation: Incarnation(7),
        fenced: None,
        shutting_down: None,
        cordoned: None,
        listeners: [(public.clone(), at(31_001))].into(),
    };
    apply(&mut image, Record::BrokerChange(change));
    let mut expected = (*before).clone();
    expected.listeners.insert(public, at(31_001));
    assert_eq!(**image.broker(BrokerId(0)).unwrap(), expected);
    let rebuilt = Image::from_snapshot(
        image.cluster_id.clone(),
        image.position,
        &image.to_records(),
    );
    assert_eq!(rebuilt.unwrap(), image);

    // As a release without them wrote it, and as such a release finds it.
    let older = serde_json::to_value(register(0)).unwrap();
    assert_eq!(older["register_broker"].get("listeners"), None);
    assert_eq!(
        serde_json::from_value::<Record>(older).unwrap(),
        register(0)
    );
}

#[test]
fn a_topics_own_value_comes_before_the_brokers_and_that_before_the_clusters() {
    let mut image = image();
    let key = "retention.ms";
    let mut seq = image.position.seq.0;
    let mut set = |image: &mut Image, resource: ConfigResource, value: Option<&str>| {
        seq += 1;
        let record = Record::Config {
            resource,
            key: key.to_owned(),
            value: value.map(str::to_owned),
        };
        let epoch = image.position.epoch.0;
        image.apply(&entry(epoch, seq, vec![record])).unwrap();
    };
    let seen = |image: &Image| {
        let topic = image.topic(&TOPIC).unwrap();
        let of = |broker| {
            let found = image.topic_config_source_at(BrokerId(broker), topic, key);
            found
                .map(|(value, source)| (value.to_owned(), source))
                .unwrap()
        };
        let at_another = image.topic_config(topic, key).map(str::to_owned);
        assert_eq!(at_another, Some(of(2).0), "for the broker alone");
        (of(1), of(2).0)
    };
    let was = seen(&image);
    assert_eq!(was.0.1, ConfigSource::Default);
    set(&mut image, ConfigResource::Static, Some("4"));
    assert_eq!(seen(&image).0, ("4".to_owned(), ConfigSource::Static));
    set(&mut image, ConfigResource::Cluster, Some("5"));
    assert_eq!(seen(&image).0, ("5".to_owned(), ConfigSource::Cluster));
    assert_eq!(image.dynamic_config(BrokerId(1), key), Some("5"));
    set(&mut image, ConfigResource::Broker(BrokerId(1)), Some("6"));
    assert_eq!(
        seen(&image),
        (("6".to_owned(), ConfigSource::Broker), "5".to_owned())
    );
    assert_eq!(image.dynamic_config(BrokerId(1), key), Some("6"));
    set(&mut image, ConfigResource::Topic(TOPIC), Some("7"));
    assert_eq!(seen(&image).0, ("7".to_owned(), ConfigSource::Topic));
    // What is taken away leaves nothing behind.
    set(&mut image, ConfigResource::Broker(BrokerId(1)), None);
    assert!(image.broker_configs.is_empty());
    let (group, metrics) = ("g".to_owned(), "m".to_owned());
    for value in [Some("8"), None] {
        set(&mut image, ConfigResource::Group(group.clone()), value);
        set(
            &mut image,
            ConfigResource::ClientMetrics(metrics.clone()),
            value,
        );
        let own = |all: &Named, name| all.get(name).map(|values| values[key].clone());
        let kept = [
            own(&image.group_configs, &group),
            own(&image.client_metrics, &metrics),
        ];
        assert_eq!(kept, [value, value].map(|value| value.map(str::to_owned)));
    }
}

#[test]
fn a_position_is_acceptable_only_on_the_line_of_claims() {
    let mut image = image();
    image.apply(&claim(2, 22, 4)).unwrap();
    image.apply(&entry(2, 5, vec![])).unwrap();
    let at = |epoch, id, seq| {
        let position = Position {
            epoch: ControllerEpoch(epoch),
            claim_id: ClaimId(id),
            seq: Seq(seq),
        };
        image.locate(&position)
    };
    for on in [
        at(0, 0, 0),
        at(1, 11, 1),
        at(1, 11, 3),
        at(2, 22, 4),
        at(2, 22, 5),
    ] {
        assert_eq!(on, Standing::OnTable);
    }
    for off in [
        at(1, 11, 4),
        at(1, 12, 2),
        at(2, 22, 3),
        at(2, 23, 5),
        at(0, 0, 1),
    ] {
        assert_eq!(off, Standing::OffTable, "another line, however new");
    }
    assert_eq!(at(3, 1, 2), Standing::Newer);
    assert_eq!(at(2, 22, 6), Standing::Newer);
    image.claims.pop_front();
    let position = Position {
        epoch: ControllerEpoch(0),
        claim_id: ClaimId(0),
        seq: Seq(0),
    };
    assert_eq!(image.locate(&position), Standing::TooOld);
}

#[test]
fn a_recorded_recovery_raises_every_epoch() {
    let mut image = image();
    let recovery = Record::Recovery {
        epoch_jump: 1024,
        producer_id_jump: 5000,
        reason: "restored".to_owned(),
    };
    image.apply(&entry(1, 4, vec![recovery])).unwrap();
    let p = image.partition(&TOPIC, 0).unwrap();
    assert_eq!(
        (p.leader_epoch, p.partition_epoch),
        (LeaderEpoch(1024), PartitionEpoch(1024))
    );
    assert_eq!(image.next_producer_id.0, 5000);
    let falling = Record::Recovery {
        epoch_jump: 0,
        producer_id_jump: 0,
        reason: String::new(),
    };
    assert!(matches!(refused(vec![falling]), ApplyError::BadRecovery(0)));
}
