//! Seeds of the metadata and of what brokers send each other.

use super::put;
use leasehold_fuzz::image;
use leasehold_metadata::balance::{Balancing, Mode};
use leasehold_metadata::features::{Level, METADATA_VERSION};
use leasehold_metadata::head::copy::copy_text;
use leasehold_metadata::head::format::{entry_text, initial};
use leasehold_metadata::head::load::snapshot_text;
use leasehold_metadata::quotas::{QuotaEntity, QuotaLimit, Who};
use leasehold_metadata::records::{BrokerChange, ConfigResource, PartitionChange};
use leasehold_metadata::rpc::*;
use leasehold_metadata::{Claim, ClaimId, Entry, Image, Position, Record};
use leasehold_types::*;

pub(super) fn write() {
    let cluster = ClusterId("c".into());
    let image = image(&cluster);
    let entries = entries(&image);
    let mut folded = Image::genesis(cluster.clone());
    for entry in &entries {
        folded.apply(entry).expect("an entry that follows");
    }
    let text: String = entries.iter().map(entry_text).collect();
    let seed = |what: u8, name: &str, text: &str| {
        put("metadata", name, &[&[what], text.as_bytes()].concat())
    };
    seed(1, "snapshot", &snapshot_text(&folded));
    seed(2, "copy", &copy_text(&folded));
    seed(
        2,
        "copy-with-entries",
        &(copy_text(&Image::genesis(cluster.clone())) + &text),
    );
    seed(3, "entries", &text);
    seed(4, "head", &head(&cluster, &entries));
    for (name, text) in [("chunk", &text), ("chunk-of-zeros", &"\0".repeat(100_000))] {
        let packed = zstd_of(text.as_bytes());
        put("metadata", name, &[&[0][..], &packed].concat());
    }
    calls(&cluster, &folded, entries);
}

fn zstd_of(text: &[u8]) -> Vec<u8> {
    use leasehold_metadata::head::chunks::pack;
    use leasehold_metadata::store::ChunkBody;
    // Only what is long is compressed.
    let long = std::str::from_utf8(text).expect("text").repeat(20);
    match pack(&long, &ClusterId("c".into()), ControllerEpoch(1))
        .remove(0)
        .1
        .body
    {
        ChunkBody::Zstd(bytes) => bytes,
        ChunkBody::Lines(text) => text.into_bytes(),
    }
}

fn entries(image: &Image) -> Vec<Entry> {
    let claim = Claim {
        epoch: ControllerEpoch(1),
        claim_id: ClaimId(5),
        first_seq: Seq(1),
        broker: BrokerId(1),
        incarnation: Incarnation(7),
    };
    let topic = TopicId(uuid::Uuid::from_u128(1));
    let changes = vec![
        Record::BrokerChange(BrokerChange {
            broker: BrokerId(2),
            incarnation: Incarnation(8),
            fenced: Some(true),
            shutting_down: None,
            cordoned: Some(false),
            listeners: [(ListenerName::parse("public").expect("a name"), None)].into(),
        }),
        Record::PartitionChange(PartitionChange {
            topic,
            partition: 0,
            partition_epoch: PartitionEpoch(6),
            leader_epoch: Some(LeaderEpoch(4)),
            leader: Some(None),
            isr: Some(vec![BrokerId(1)]),
            elr: Some(vec![]),
            lossy: None,
            replicas: Some(vec![BrokerId(1), BrokerId(2)]),
            adding: None,
            removing: None,
            draining: Some(false),
            balancing: Some(true),
            recovering: None,
            offline: None,
        }),
        Record::Config {
            resource: ConfigResource::Topic(topic),
            key: "retention.ms".into(),
            value: Some("5".into()),
        },
        Record::Config {
            resource: ConfigResource::Group("g".into()),
            key: "consumer.session.timeout.ms".into(),
            value: Some("50000".into()),
        },
        Record::Config {
            resource: ConfigResource::ClientMetrics("m".into()),
            key: "metrics".into(),
            value: None,
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
            bytes_per_second: Some(5),
            due: true,
        }),
        Record::FeatureLevel {
            name: METADATA_VERSION.to_owned(),
            level: Level::NEWEST,
        },
        Record::ProducerIds {
            next: ProducerId(2000),
        },
        Record::Recovery {
            epoch_jump: 1024,
            producer_id_jump: 100,
            reason: "a test".into(),
        },
        Record::NoOp,
        Record::DeleteTopic { id: topic },
    ];
    let mut state = image.to_records();
    state.retain(|record| !matches!(record, Record::Claim(_)));
    let all = [vec![Record::Claim(claim)], state, changes];
    let entry = |(seq, records)| Entry {
        seq: Seq(seq),
        epoch: ControllerEpoch(1),
        nonce: format!("{seq:032x}"),
        records,
    };
    (1..).zip(all).map(entry).collect()
}

fn head(cluster: &ClusterId, entries: &[Entry]) -> String {
    let mut data = initial(cluster);
    data.insert("nonce".into(), "00".into());
    data.insert("controllerEpoch".into(), "1".into());
    data.insert("seq".into(), entries.len().to_string());
    for entry in entries {
        data.insert(format!("entry-{:020}", entry.seq.0), entry_text(entry));
    }
    let lines = data
        .iter()
        .map(|(key, value)| format!("{key}={}\n", value.replace('\n', "\x01")));
    lines.collect()
}

fn calls(cluster: &ClusterId, image: &Image, entries: Vec<Entry>) {
    let (broker, incarnation) = (BrokerId(1), Incarnation(7));
    let poll = Request::Poll(Poll {
        broker,
        incarnation,
        position: Some(image.position),
        state: BrokerState::default(),
    });
    let proposal = Request::AlterPartition(AlterPartition {
        broker,
        incarnation,
        proposals: vec![IsrProposal {
            topic: TopicId(uuid::Uuid::from_u128(1)),
            partition: 0,
            leader_epoch: LeaderEpoch(3),
            partition_epoch: PartitionEpoch(5),
            isr: vec![(broker, incarnation)],
        }],
    });
    let delete = Request::Admin {
        request: AdminRequest::DeleteTopics {
            topics: vec![TopicRef::Name("a".into())],
        },
        timeout_ms: 5,
    };
    let goodbye = Request::Goodbye {
        broker,
        incarnation,
    };
    let named = [
        ("poll", poll),
        ("alter", proposal),
        ("admin", delete),
        ("goodbye", goodbye),
    ];
    for (name, request) in named {
        let cluster_id = cluster.clone();
        let json = serde_json::to_vec(&Call {
            cluster_id,
            request,
        })
        .expect("a call");
        put(
            "internal",
            &format!("call-{name}"),
            &[&[4][..], &json].concat(),
        );
        put(
            "internal",
            &format!("frame-{name}"),
            &[&[2][..], &json].concat(),
        );
    }
    put("internal", "ping", &[1]);
    let committed = Position {
        seq: Seq(3),
        ..image.position
    };
    let news = [
        ("entries", News::Entries(entries)),
        (
            "snapshot",
            News::Snapshot {
                position: committed,
                records: image.to_records(),
            },
        ),
    ];
    for (name, news) in news {
        let answer = Response::Poll(PollAnswer {
            committed,
            news,
            may_stop: false,
            frozen: None,
        });
        let json = serde_json::to_vec(&answer).expect("an answer");
        put(
            "internal",
            &format!("answer-{name}"),
            &[&[5][..], &json].concat(),
        );
    }
}
