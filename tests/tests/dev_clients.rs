//! Clients that others wrote, unchanged, against a laptop cluster: kcat, confluent-kafka, and Apache
//! Kafka's own tools create, describe, produce (by key, round-robin, by partition), consume (from the
//! beginning, as a queue, as publish-subscribe) and delete.

use leasehold_tests::dev::Dev;
use leasehold_tests::tools::{kafka, kcat, python, run};
use std::collections::{BTreeMap, BTreeSet};

/// A member of a consumer group that prints `partition:offset:value` until it saw nothing for a while.
const MEMBER: &str = r#"
import sys, time
from confluent_kafka import Consumer
bootstrap, topic, group, quiet = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group, 'auto.offset.reset': 'earliest',
              'session.timeout.ms': 6000, 'heartbeat.interval.ms': 500})
c.subscribe([topic], on_assign=lambda c, ps: print('assigned', len(ps), flush=True))
last, started = time.time(), False
while time.time() - last < quiet:
    m = c.poll(0.1)
    if m is None: continue
    if m.error(): print('error', m.error(), file=sys.stderr); continue
    last = time.time()
    print(f'{m.partition()}:{m.offset()}:{m.value().decode()}', flush=True)
c.close()
"#;

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

    topics(&["--alter", "--topic", "orders", "--partitions", "5"]);
    assert!(topics(&["--describe", "--topic", "orders"]).contains("PartitionCount: 5"));
    topics(&["--delete", "--topic", "orders"]);
    assert!(!topics(&["--list"]).lines().any(|line| line == "orders"));
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
fn a_topic_appears_when_a_client_first_produces_to_it() {
    let dev = Dev::start(3, &[]);
    let args = ["-P", "-b", &dev.bootstrap(), "-t", "new"];
    run(kcat(&args), b"hello\n").expect_ok();
    assert_eq!(read_all(&dev, "new")[0].2, "hello");
}

#[test]
fn one_group_is_a_queue_and_two_groups_are_publish_subscribe() {
    let dev = Dev::start(3, &[]);
    create(&dev, "work", 4);
    let bootstrap = dev.bootstrap();
    let member = |group: &'static str| {
        let bootstrap = bootstrap.clone();
        std::thread::spawn(move || {
            run(python(MEMBER, &[&bootstrap, "work", group, "12"]), b"").expect_ok()
        })
    };
    let members = [member("queue"), member("queue"), member("other")];
    send(&dev, "work", 200, 50);
    // More arrive while all members have joined: both queue members must get a share.
    std::thread::sleep(std::time::Duration::from_secs(6));
    send(&dev, "work", 200, 50);
    let seen = members.map(|member| {
        let text = member.join().expect("a member");
        let records = text.lines().filter(|line| line.contains(':'));
        records.map(str::to_owned).collect::<Vec<_>>()
    });
    let [first, second, other] = &seen;
    let queue: BTreeSet<&String> = first.iter().chain(second).collect();
    assert_eq!(
        queue.len(),
        400,
        "the queue's members together saw every record"
    );
    assert!(
        !first.is_empty() && !second.is_empty(),
        "both members worked"
    );
    assert_eq!(
        other.iter().collect::<BTreeSet<_>>().len(),
        400,
        "the other group saw everything"
    );
}

#[test]
fn a_surplus_member_idles_and_takes_over_from_a_dead_one() {
    let dev = Dev::start(3, &[]);
    create(&dev, "single", 1);
    let bootstrap = dev.bootstrap();
    let start = |quiet: &str| {
        let mut command = python(MEMBER, &[&bootstrap, "single", "spare", quiet]);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a member")
    };
    let mut members = [start("60"), start("60")];
    send(&dev, "single", 10, 1);
    let mut lines = Vec::new();
    let (tell, told) = std::sync::mpsc::channel();
    for (index, member) in members.iter_mut().enumerate() {
        let (output, tell) = (member.stdout.take().expect("stdout"), tell.clone());
        std::thread::spawn(move || {
            use std::io::BufRead as _;
            for line in std::io::BufReader::new(output)
                .lines()
                .map_while(Result::ok)
            {
                if line.contains(':') && tell.send((index, line)).is_err() {
                    return;
                }
            }
        });
    }
    let limit = std::time::Duration::from_secs(40);
    while lines.len() < 10 {
        lines.push(told.recv_timeout(limit).expect("a record"));
    }
    let worker = lines.last().expect("a record").0;
    members[worker].kill().expect("kill");
    send(&dev, "single", 10, 1);
    let fresh = loop {
        let (index, line) = told
            .recv_timeout(limit)
            .expect("a record after the takeover");
        if index != worker {
            break line;
        }
    };
    assert!(fresh.starts_with("0:"), "{fresh}");
    for member in &mut members {
        member.kill().ok();
        member.wait().ok();
    }
}
