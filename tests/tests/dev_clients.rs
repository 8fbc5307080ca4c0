//! Clients that others wrote, unchanged, against a laptop cluster: kcat, confluent-kafka, and Apache
//! Kafka's own tools create, describe, produce (by key, round-robin, by partition), consume (from the
//! beginning, as a queue, as publish-subscribe) and delete.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::tools::{kafka, kcat, python, run};
use leasehold_tests::topics::Viewer;
use leasehold_tests::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A member of a consumer group that prints its share and `partition:offset:value` of each record.
const MEMBER: &str = r#"
import sys
from confluent_kafka import Consumer
bootstrap, topic, group = sys.argv[1:4]
c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group, 'auto.offset.reset': 'earliest',
              'session.timeout.ms': 6000, 'heartbeat.interval.ms': 500})
c.subscribe([topic], on_assign=lambda c, ps: print('assigned', len(ps), flush=True))
while True:
    m = c.poll(1)
    if m is None: continue
    if m.error(): print('error', m.error(), file=sys.stderr); continue
    print(f'{m.partition()}:{m.offset()}:{m.value().decode()}', flush=True)
"#;

/// How long clients may take to start and to join their groups.
const LIMIT: Duration = Duration::from_secs(60);

/// A running member, and what it printed so far.
struct Member {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Member {
    fn start(dev: &Dev, topic: &str, group: &str) -> Self {
        let mut command = python(MEMBER, &[&dev.bootstrap(), topic, group]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("a member");
        let output = BufReader::new(process.stdout.take().expect("stdout"));
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                kept.lock().expect("lines").push(line);
            }
        });
        Self { process, lines }
    }

    /// Its records, as `partition:offset:value`.
    fn records(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("lines");
        lines.iter().filter(|l| l.contains(':')).cloned().collect()
    }

    /// How many partitions it was assigned last.
    fn assigned(&self) -> usize {
        let lines = self.lines.lock().expect("lines");
        let mut shares = lines
            .iter()
            .rev()
            .filter_map(|l| l.strip_prefix("assigned "));
        shares.next().map_or(0, |n| n.parse().expect("a number"))
    }

    /// Kills it, as a crash would.
    fn end(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Ended already unless the test failed.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn viewer(dev: &Dev) -> Viewer {
    Viewer::new(&dev.bootstrap())
}

/// Sends `count` numbered records with confluent-kafka, keyed by number modulo `keys`.
const SENDER: &str = r#"
import sys
from confluent_kafka import Producer
bootstrap, topic, count, keys = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
p = Producer({'bootstrap.servers': bootstrap, 'acks': 'all', 'enable.idempotence': True})
failed = []
for n in range(count):
    p.produce(topic, key=f'k{n % keys}', value=str(n),
              on_delivery=lambda e, m: failed.append(e) if e else None)
p.flush(30)
sys.exit(f'{failed[0]}' if failed else 0)
"#;

fn create(dev: &Dev, topic: &str, partitions: u32) {
    let bootstrap = dev.bootstrap();
    let partitions = partitions.to_string();
    let args = [
        "--bootstrap-server",
        &bootstrap,
        "--create",
        "--topic",
        topic,
    ];
    let args = [
        &args[..],
        &["--partitions", &partitions, "--replication-factor", "3"],
    ]
    .concat();
    run(kafka("kafka-topics", &args), b"").expect_ok();
}

fn send(dev: &Dev, topic: &str, count: usize, keys: usize) {
    let (count, keys) = (count.to_string(), keys.to_string());
    run(
        python(SENDER, &[&dev.bootstrap(), topic, &count, &keys]),
        b"",
    )
    .expect_ok();
}

/// Everything in `topic`, as kcat reads it: (partition, key, value).
fn read_all(dev: &Dev, topic: &str) -> Vec<(u32, String, String)> {
    let args = [
        "-C",
        "-b",
        &dev.bootstrap(),
        "-t",
        topic,
        "-o",
        "beginning",
        "-e",
        "-q",
    ];
    let args = [&args[..], &["-f", "%p\t%k\t%s\n"]].concat();
    let text = run(kcat(&args), b"").expect_ok();
    let line = |line: &str| {
        let mut parts = line.splitn(3, '\t');
        let mut next = || parts.next().expect("three fields").to_owned();
        (next().parse().expect("a partition"), next(), next())
    };
    text.lines().map(line).collect()
}

fn values(read: &[(u32, String, String)]) -> BTreeSet<usize> {
    read.iter()
        .map(|(_, _, value)| value.parse().expect("a number"))
        .collect()
}

#[test]
fn kafkas_own_tools_create_describe_produce_consume_and_delete() {
    let dev = Dev::start(3, &[]);
    let bootstrap = dev.bootstrap();
    create(&dev, "orders", 3);
    let topics = |args: &[&str]| {
        let args = [&["--bootstrap-server", bootstrap.as_str()], args].concat();
        run(kafka("kafka-topics", &args), b"").expect_ok()
    };
    let described = topics(&["--describe", "--topic", "orders"]);
    assert!(described.contains("PartitionCount: 3"), "{described}");
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
    let leaders: BTreeSet<&str> = described
        .lines()
        .filter_map(|line| line.split("Leader: ").nth(1)?.split_whitespace().next())
        .collect();
    assert_eq!(
        leaders,
        BTreeSet::from(["0", "1", "2"]),
        "leaders are spread: {described}"
    );

    let input: String = (0..30).map(|n| format!("{n}\n")).collect();
    let round_robin = "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner";
    let args = ["--bootstrap-server", &bootstrap, "--topic", "orders"];
    let produce = [&args[..], &["--producer-property", round_robin]].concat();
    run(kafka("kafka-console-producer", &produce), input.as_bytes()).expect_ok();
    let read = read_all(&dev, "orders");
    assert_eq!(values(&read), (0..30).collect());
    let partitions: BTreeSet<u32> = read.iter().map(|(partition, ..)| *partition).collect();
    assert_eq!(
        partitions,
        BTreeSet::from([0, 1, 2]),
        "round-robin reaches every partition"
    );

    let consume = [
        &args[..],
        &[
            "--from-beginning",
            "--max-messages",
            "30",
            "--group",
            "tools",
        ],
    ]
    .concat();
    let text = run(kafka("kafka-console-consumer", &consume), b"").expect_ok();
    let numbers: BTreeSet<usize> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers, (0..30).collect());

    let groups = |args: &[&str]| {
        let args = [&["--bootstrap-server", bootstrap.as_str()], args].concat();
        run(kafka("kafka-consumer-groups", &args), b"").expect_ok()
    };
    assert!(groups(&["--list"]).contains("tools"));
    let described = groups(&["--describe", "--group", "tools"]);
    let lags: Vec<&str> = described
        .lines()
        .filter(|line| line.starts_with("tools"))
        .filter_map(|line| line.split_whitespace().nth(5))
        .collect();
    assert_eq!(lags, ["0", "0", "0"], "{described}");
    let deleted = groups(&["--delete", "--group", "tools"]);
    assert!(deleted.contains("successful"), "{deleted}");

    delete_records(&dev, "orders");

    topics(&["--alter", "--topic", "orders", "--partitions", "5"]);
    assert!(topics(&["--describe", "--topic", "orders"]).contains("PartitionCount: 5"));
    topics(&["--delete", "--topic", "orders"]);
    assert!(!topics(&["--list"]).lines().any(|line| line == "orders"));
}

/// Deletes, with Kafka's tool, what partition 0 holds below 3 and all that partition 1 holds.
fn delete_records(dev: &Dev, topic: &str) {
    let bootstrap = dev.bootstrap();
    let offsets = |time: &str| -> Vec<i64> {
        let args = ["--bootstrap-server", &bootstrap, "--topic", topic];
        let args = [&args[..], &["--time", time]].concat();
        let text = run(kafka("kafka-get-offsets", &args), b"").expect_ok();
        let offset = |line: &str| line.rsplit(':').next()?.parse().ok();
        text.lines().filter_map(offset).collect()
    };
    let ends = offsets("latest");
    assert_eq!(ends.iter().sum::<i64>(), 30);
    let dir = tempfile::tempdir().expect("temp dir");
    let wish = dir.path().join("offsets.json");
    let text = format!(
        r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"offset":3}},
            {{"topic":"{topic}","partition":1,"offset":-1}}]}}"#
    );
    std::fs::write(&wish, text).expect("the wish");
    let wish = wish.to_str().expect("UTF-8");
    let args = ["--bootstrap-server", &bootstrap, "--offset-json-file", wish];
    let said = run(kafka("kafka-delete-records", &args), b"").expect_ok();
    for (partition, low) in [(0, 3), (1, ends[1])] {
        let row = format!("partition: {topic}-{partition}\tlow_watermark: {low}");
        assert!(said.contains(&row), "no {row:?} in {said}");
    }
    assert_eq!(offsets("earliest"), [3, ends[1], 0]);
    assert_eq!(offsets("latest"), ends);
    let left = read_all(dev, topic);
    let of = |wanted: u32| left.iter().filter(|(p, ..)| *p == wanted).count() as i64;
    assert_eq!([of(0), of(1), of(2)], [ends[0] - 3, 0, ends[2]]);
}

#[test]
fn a_key_stays_in_its_partition_and_an_explicit_partition_is_kept() {
    let dev = Dev::start(3, &[]);
    create(&dev, "keyed", 4);
    send(&dev, "keyed", 300, 30);
    let read = read_all(&dev, "keyed");
    assert_eq!(values(&read), (0..300).collect());
    let mut homes: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for (partition, key, _) in &read {
        homes.entry(key).or_default().insert(*partition);
    }
    assert_eq!(homes.len(), 30);
    assert!(homes.values().all(|home| home.len() == 1), "{homes:?}");
    assert!(
        homes.values().flatten().collect::<BTreeSet<_>>().len() > 1,
        "keys are spread"
    );

    create(&dev, "explicit", 4);
    let args = ["-P", "-b", &dev.bootstrap(), "-t", "explicit", "-p", "2"];
    run(kcat(&args), b"one\ntwo\n").expect_ok();
    let read = read_all(&dev, "explicit");
    let read: Vec<(u32, &str)> = read.iter().map(|(p, _, v)| (*p, v.as_str())).collect();
    assert_eq!(read, [(2, "one"), (2, "two")]);
}

#[test]
fn a_topic_has_a_codec_of_its_own_and_every_client_reads_it() {
    let dev = Dev::start(3, &[]);
    let bootstrap = dev.bootstrap();
    let server = ["--bootstrap-server", bootstrap.as_str()];
    let input: String = (0..500).map(|n| format!("{n}\n")).collect();
    for (codec, sent) in [
        ("gzip", "zstd"),
        ("snappy", "gzip"),
        ("lz4", "snappy"),
        ("zstd", "lz4"),
        ("uncompressed", "zstd"),
    ] {
        let topic = format!("in-{codec}");
        let wanted = format!("compression.type={codec}");
        let args = ["--create", "--topic", &topic, "--config", &wanted];
        run(kafka("kafka-topics", &[&server[..], &args].concat()), b"").expect_ok();
        let args = ["-P", "-b", &bootstrap, "-t", &topic, "-z", sent];
        run(kcat(&args), input.as_bytes()).expect_ok();
        let read: Vec<String> = read_all(&dev, &topic).into_iter().map(|r| r.2).collect();
        assert_eq!(read, input.lines().collect::<Vec<_>>(), "{codec}");
        let args = [
            "--topic",
            &topic,
            "--from-beginning",
            "--max-messages",
            "500",
        ];
        let consume = kafka("kafka-console-consumer", &[&server[..], &args].concat());
        assert_eq!(run(consume, b"").expect_ok(), input, "{codec}");
    }
    let args = ["--entity-type", "topics", "--entity-name", "in-zstd"];
    let configs = |more: &[&str]| {
        run(
            kafka("kafka-configs", &[&server[..], &args, more].concat()),
            b"",
        )
    };
    let described = configs(&["--describe", "--all"]).expect_ok();
    let own = "synonyms={DYNAMIC_TOPIC_CONFIG:compression.type=zstd, DEFAULT_CONFIG:compression.type=producer}";
    assert!(described.contains(own), "{described}");
    let refused = configs(&["--alter", "--add-config", "remote.storage.enable=true"]);
    let why = "remote.storage.enable=true is not supported";
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!refused.ok && said.contains(why), "{said}");
}

#[test]
fn a_topic_appears_as_the_brokers_are_configured_when_a_client_first_produces_to_it() {
    let config = "num.partitions: 4\ndefault.replication.factor: 2\n";
    let dev = Dev::start_with_config(3, &[], config);
    let args = ["-P", "-b", &dev.bootstrap(), "-t", "new"];
    run(kcat(&args), b"hello\n").expect_ok();
    assert_eq!(read_all(&dev, "new")[0].2, "hello");
    let seen = viewer(&dev).wait_in_sync("new", PATIENCE);
    let replicas: Vec<usize> = seen.iter().map(|p| p.replicas.len()).collect();
    assert_eq!(replicas, [2; 4]);
}

#[test]
fn no_topic_appears_where_that_is_switched_off() {
    let dev = Dev::start_with_config(1, &[], "auto.create.topics.enable: false\n");
    let soon = "topic.metadata.propagation.max.ms=1000";
    let args = ["-P", "-b", &dev.bootstrap(), "-t", "new", "-X", soon];
    let refused = run(kcat(&args), b"hello\n");
    assert!(
        !refused.ok && refused.stderr.contains("Unknown topic"),
        "{}",
        refused.stderr
    );
    assert!(viewer(&dev).topics().expect("metadata").is_empty());
}

#[test]
fn one_group_is_a_queue_and_two_groups_are_publish_subscribe() {
    let dev = Dev::start(3, &[]);
    create(&dev, "work", 4);
    let start = |group: &str| Member::start(&dev, "work", group);
    let (queue, other) = ([start("queue"), start("queue")], start("other"));
    send(&dev, "work", 200, 50);
    // More arrive once both of the queue's members have a share of the partitions.
    wait::until("two partitions each", LIMIT, || {
        let shares = queue.each_ref().map(|member| member.assigned());
        if shares == [2, 2] {
            Ok(())
        } else {
            Err(shares)
        }
    });
    send(&dev, "work", 200, 50);
    let all = |members: &[Member]| -> BTreeSet<String> {
        members.iter().flat_map(Member::records).collect()
    };
    wait::until(
        "every record in the queue and in the other group",
        LIMIT,
        || {
            let seen = [all(&queue).len(), all(std::slice::from_ref(&other)).len()];
            if seen == [400, 400] {
                Ok(())
            } else {
                Err(seen)
            }
        },
    );
    for member in &queue {
        assert!(!member.records().is_empty(), "both members worked");
    }
}

#[test]
fn a_surplus_member_idles_and_takes_over_from_a_dead_one() {
    let dev = Dev::start(3, &[]);
    create(&dev, "single", 1);
    let mut members = [(); 2].map(|()| Member::start(&dev, "single", "spare"));
    send(&dev, "single", 10, 1);
    let worker = wait::until("one member with all ten records", LIMIT, || {
        let counts = members.each_ref().map(|member| member.records().len());
        counts.iter().position(|n| *n == 10).ok_or(counts)
    });
    assert!(
        members[1 - worker].records().is_empty(),
        "the surplus member idles"
    );
    members[worker].end();
    send(&dev, "single", 10, 1);
    wait::until("the other one to take over", LIMIT, || {
        let records = members[1 - worker].records();
        let fresh = (10..20).all(|n| records.contains(&format!("0:{n}:{}", n - 10)));
        if fresh { Ok(()) } else { Err(records) }
    });
}

#[test]
fn kafkas_tools_move_replicas_and_elect_the_preferred_leader() {
    let dev = Dev::start(4, &[]);
    let bootstrap = dev.bootstrap();
    let server = ["--bootstrap-server", bootstrap.as_str()];
    create(&dev, "moved", 1);
    send(&dev, "moved", 100, 10);
    let before = viewer(&dev).wait_in_sync("moved", LIMIT)[0]
        .replicas
        .clone();
    let outside = (0..4)
        .find(|id| !before.contains(id))
        .expect("a fourth broker");
    let target = [outside, before[1], before[0]];
    let dir = tempfile::tempdir().expect("temp dir");
    let plan = dir.path().join("plan.json");
    let text = format!(
        r#"{{"version":1,"partitions":[{{"topic":"moved","partition":0,"replicas":[{},{},{}]}}]}}"#,
        target[0], target[1], target[2]
    );
    std::fs::write(&plan, text).expect("the plan");
    let plan = plan.to_str().expect("UTF-8");
    let reassign = |mode: &str| {
        let args = [&server[..], &["--reassignment-json-file", plan, mode]].concat();
        run(kafka("kafka-reassign-partitions", &args), b"").expect_ok()
    };
    let said = reassign("--execute");
    assert!(said.contains("Successfully started"), "{said}");
    wait::until("the reassignment to be complete", LIMIT, || {
        let said = reassign("--verify");
        match said.contains("is completed") {
            true => Ok(()),
            false => Err(said),
        }
    });
    let moved = viewer(&dev).wait_in_sync("moved", LIMIT)[0].clone();
    assert_eq!(moved.replicas, target);
    let args = [
        "--election-type",
        "preferred",
        "--topic",
        "moved",
        "--partition",
        "0",
    ];
    let said = run(
        kafka("kafka-leader-election", &[&server[..], &args[..]].concat()),
        b"",
    );
    let said = said.expect_ok();
    assert!(
        said.contains("Successfully completed") || said.contains("Valid replica already elected"),
        "{said}"
    );
    wait::until("the preferred leader", LIMIT, || {
        let leader = viewer(&dev)
            .partitions("moved")
            .map(|seen| seen[0].leader)?;
        anyhow::ensure!(leader == target[0], "leader {leader}");
        Ok(())
    });
    assert_eq!(values(&read_all(&dev, "moved")), (0..100).collect());
}
