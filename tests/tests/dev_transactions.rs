//! Transactions as clients have them: librdkafka's transactional producer, and Apache Kafka's own tools, against a
//! laptop cluster that loses brokers meanwhile.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::tools::{kafka, run, run_within};
use leasehold_tests::topics::{self, Viewer};
use leasehold_tests::wait;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Producer = ThreadedProducer<DefaultProducerContext>;

const PARTITIONS: i32 = 3;
/// How long one step of a transaction may take; clients repeat what is refused for a while.
const STEP: Duration = Duration::from_secs(20);
/// Transactions that have timed out are looked for often, so that the scene need not wait for ten seconds.
const CONFIG: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms: 500\n\
                      leader.restore.delay.ms: 2000\n";

fn create(dev: &Dev, names: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let viewer = Viewer::new(&dev.bootstrap());
    for name in names {
        let config = [("min.insync.replicas", "2")];
        runtime
            .block_on(topics::create(
                &dev.bootstrap(),
                name,
                PARTITIONS,
                3,
                &config,
            ))
            .expect("the topic is created");
        viewer.wait_in_sync(name, PATIENCE);
    }
}

fn producer(dev: &Dev, id: &str, timeout_ms: u32) -> Producer {
    ClientConfig::new()
        .set("bootstrap.servers", dev.bootstrap())
        .set("transactional.id", id)
        .set("transaction.timeout.ms", timeout_ms.to_string())
        // The broker checks the timeout, and librdkafka that messages are given up before it.
        .set("message.timeout.ms", timeout_ms.to_string())
        .set("log_level", "0")
        .create()
        .expect("librdkafka accepts the configuration")
}

/// A producer that is the only one under its id.
fn initialised(dev: &Dev, id: &str, timeout_ms: u32) -> Producer {
    let producer = producer(dev, id, timeout_ms);
    producer.init_transactions(STEP).expect("init");
    producer
}

fn send(producer: &Producer, topic: &str, partition: i32, value: &str) {
    let record = BaseRecord::<str, str>::to(topic)
        .partition(partition)
        .payload(value);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("queued");
}

fn consumer(dev: &Dev, group: &str, committed: bool) -> BaseConsumer {
    let level = if committed {
        "read_committed"
    } else {
        "read_uncommitted"
    };
    ClientConfig::new()
        .set("bootstrap.servers", dev.bootstrap())
        .set("group.id", group)
        .set("isolation.level", level)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .set("enable.partition.eof", "true")
        .set("log_level", "0")
        .create()
        .expect("librdkafka accepts the configuration")
}

/// Everything that a consumer of this kind reads in `topic` until it has come to the end of each partition.
fn read(dev: &Dev, topic: &str, committed: bool) -> Vec<String> {
    let consumer = consumer(dev, "reader", committed);
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&all).expect("assign");
    let mut values = Vec::new();
    let mut open = PARTITIONS;
    let until = Instant::now() + PATIENCE;
    while open > 0 {
        assert!(
            Instant::now() < until,
            "{open} partitions were not read to their end"
        );
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let value = message.payload().expect("a value");
                values.push(String::from_utf8(value.to_vec()).expect("text"));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(_)) | None => {}
        }
    }
    values.sort();
    values
}

fn transactions(dev: &Dev, args: &[&str]) -> String {
    let bootstrap = dev.bootstrap();
    let args = [&["--bootstrap-server", &bootstrap], args].concat();
    run(kafka("kafka-transactions", &args), b"").expect_ok()
}

#[test]
fn what_is_committed_is_read_whole_and_what_is_aborted_is_not_read_at_all() {
    let dev = Dev::start_with_config(3, &[], CONFIG);
    create(&dev, &["out"]);
    let first = initialised(&dev, "writer", 60_000);
    for (round, commit) in [("a", true), ("b", false), ("c", true)] {
        first.begin_transaction().expect("begin");
        for n in 0..30 {
            send(&first, "out", n % PARTITIONS, &format!("{round}{n:02}"));
        }
        first.flush(STEP).expect("flush");
        if round == "c" {
            let listed = transactions(&dev, &["list"]);
            let line = listed
                .lines()
                .find(|l| l.contains("writer"))
                .expect("listed");
            assert!(line.contains("Ongoing"), "{listed}");
            let described = transactions(&dev, &["describe", "--transactional-id", "writer"]);
            for partition in 0..PARTITIONS {
                let name = format!("out-{partition}");
                assert!(described.contains(&name), "{described}");
            }
            assert_eq!(
                read(&dev, "out", true).len(),
                30,
                "an open transaction shows"
            );
        }
        match commit {
            true => first.commit_transaction(STEP).expect("commit"),
            false => first.abort_transaction(STEP).expect("abort"),
        }
    }
    let expected = |rounds: &[&str]| {
        let of_round = |round: &&str| {
            (0..30)
                .map(|n| format!("{round}{n:02}"))
                .collect::<Vec<_>>()
        };
        rounds.iter().flat_map(of_round).collect::<Vec<String>>()
    };
    // The answer to a commit says that it is decided; the markers follow.
    wait::until("the last transaction to show", PATIENCE, || {
        let values = read(&dev, "out", true);
        if values.len() == 60 {
            Ok(())
        } else {
            Err(values.len())
        }
    });
    assert_eq!(read(&dev, "out", true), expected(&["a", "c"]));
    assert_eq!(read(&dev, "out", false), expected(&["a", "b", "c"]));

    // A second instance under the same id: the first is a zombie, in the middle of its transaction.
    first.begin_transaction().expect("begin");
    send(&first, "out", 0, "zombie");
    first.flush(STEP).expect("flush");
    let second = initialised(&dev, "writer", 60_000);
    let fenced = first
        .commit_transaction(STEP)
        .expect_err("a zombie commits");
    assert!(
        matches!(&fenced, KafkaError::Transaction(error) if error.is_fatal()),
        "{fenced}"
    );
    second.begin_transaction().expect("begin");
    send(&second, "out", 0, "d");
    second.commit_transaction(STEP).expect("commit");

    // And one that never ends its transaction: what comes behind it is read once it has timed out.
    let silent = initialised(&dev, "silent", 1_500);
    silent.begin_transaction().expect("begin");
    send(&silent, "out", 1, "silent");
    silent.flush(STEP).expect("flush");
    second.begin_transaction().expect("begin");
    send(&second, "out", 1, "e");
    second.commit_transaction(STEP).expect("commit");
    wait::until(
        "what lies behind a transaction that timed out",
        PATIENCE,
        || {
            let values = read(&dev, "out", true);
            if values.contains(&"e".to_owned()) {
                Ok(())
            } else {
                Err(values.len())
            }
        },
    );
    let mut all = expected(&["a", "c"]);
    all.extend(["d".to_owned(), "e".to_owned()]);
    assert_eq!(read(&dev, "out", true), all);
    assert!(silent.commit_transaction(STEP).is_err(), "it was aborted");
    let listed = transactions(&dev, &["list"]);
    let line = listed
        .lines()
        .find(|l| l.contains("silent"))
        .expect("listed");
    assert!(line.contains("CompleteAbort"), "{listed}");
}

const INPUTS: usize = 1_500;

/// Consumes, transforms and produces until it is told to stop; whatever goes wrong, it begins anew.
fn process(dev: &Dev, stop: &AtomicBool, done: &AtomicUsize) -> usize {
    let mut lives = 0;
    while !stop.load(Ordering::Acquire) {
        lives += 1;
        let producer = producer(dev, "processor", 30_000);
        if producer.init_transactions(STEP).is_err() {
            continue;
        }
        let consumer = consumer(dev, "processors", true);
        consumer.subscribe(&["in"]).expect("subscribe");
        while !stop.load(Ordering::Acquire) {
            match step(&producer, &consumer) {
                Ok(count) => drop(done.fetch_add(count, Ordering::AcqRel)),
                Err(error) => {
                    println!("  the processor begins anew: {error}");
                    // What it has begun must not reach the next life; that fences it in any case.
                    let _ = producer.abort_transaction(STEP);
                    break;
                }
            }
        }
    }
    lives
}

/// One transaction over what is there, if anything is.
fn step(producer: &Producer, consumer: &BaseConsumer) -> Result<usize, KafkaError> {
    let mut batch = Vec::new();
    let until = Instant::now() + Duration::from_millis(100);
    while batch.len() < 25 && Instant::now() < until {
        match consumer.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => {
                let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
                batch.push((message.partition(), message.offset(), value.into_owned()));
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(error),
        }
    }
    if batch.is_empty() {
        return Ok(0);
    }
    producer.begin_transaction()?;
    let mut next = BTreeMap::new();
    for (partition, offset, value) in &batch {
        let record = BaseRecord::<str, str>::to("out")
            .partition(partition % PARTITIONS)
            .payload(value);
        producer.send(record).map_err(|(error, _)| error)?;
        next.insert(*partition, offset + 1);
    }
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset("in", partition, Offset::Offset(offset))?;
    }
    let group = consumer.group_metadata().ok_or(KafkaError::Canceled)?;
    producer.send_offsets_to_transaction(&offsets, &group, STEP)?;
    producer.commit_transaction(STEP)?;
    Ok(batch.len())
}

/// Kills the leader of a partition, and starts it again once it has ended and `meanwhile` is done.
fn kill_leader(
    dev: &Dev,
    viewer: &Viewer,
    (topic, partition): (&str, usize),
    meanwhile: impl FnOnce(),
) {
    let seen = viewer.wait_in_sync(topic, PATIENCE);
    let leader = u16::try_from(seen[partition].leader).expect("a leader");
    println!("  kill -9 of broker {leader}, which leads {topic}-{partition}");
    let process = dev.pid(leader).expect("pid file");
    dev.signal(leader, Signal::KILL);
    dev.wait_ended(process);
    meanwhile();
    dev.restart_killed();
}

/// The partition of 50 that Kafka keeps an id in.
fn partition_of(id: &str) -> usize {
    let hash = id.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.unsigned_abs() as usize % 50
}

#[test]
fn every_input_is_processed_exactly_once_while_leaders_and_coordinators_are_killed() {
    let dev = Dev::start_with_config(3, &["--no-restart"], CONFIG);
    create(&dev, &["in", "out"]);
    let viewer = Viewer::new(&dev.bootstrap());
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let feeder: Producer = ClientConfig::new()
        .set("bootstrap.servers", dev.bootstrap())
        .set("enable.idempotence", "true")
        .set("log_level", "0")
        .create()
        .expect("librdkafka accepts the configuration");
    let lives = std::thread::scope(|scope| {
        let processor = scope.spawn(|| process(&dev, &stop, &done));
        let victims: [(&str, usize); 3] = [
            ("__transaction_state", partition_of("processor")),
            ("__consumer_offsets", partition_of("processors")),
            ("out", 0),
        ];
        let share = INPUTS / (victims.len() + 1);
        let mut fed = 0;
        let mut feed = |until: usize| {
            for n in fed..until {
                send(&feeder, "in", n as i32 % PARTITIONS, &format!("{n:05}"));
            }
            fed = until;
        };
        for (n, (topic, partition)) in victims.into_iter().enumerate() {
            let before = done.load(Ordering::Acquire);
            feed(share * (n + 1));
            wait::until("the processor to be at work", PATIENCE, || {
                match done.load(Ordering::Acquire) {
                    now if now > before => Ok(()),
                    now => Err(now),
                }
            });
            kill_leader(&dev, &viewer, (topic, partition), || {
                feed(share * (n + 1) + share / 2);
            });
        }
        feed(INPUTS);
        feeder.flush(PATIENCE).expect("flush");
        wait::until("every input to be processed", PATIENCE, || {
            let values = read(&dev, "out", true);
            if values.len() >= INPUTS {
                Ok(())
            } else {
                Err(values.len())
            }
        });
        stop.store(true, Ordering::Release);
        processor.join().expect("the processor")
    });
    let expected: Vec<String> = (0..INPUTS).map(|n| format!("{n:05}")).collect();
    assert_eq!(read(&dev, "out", true), expected);
    println!("  {INPUTS} inputs processed exactly once, in {lives} lives of the processor");
}

const COPIES: usize = 2_000;
/// How long that may take with three brokers killed meanwhile.
const COPYING: Duration = Duration::from_secs(240);

/// How much lies in the first partition of a topic.
fn end_of(dev: &Dev, topic: &str) -> i64 {
    let known = consumer(dev, "reader", false).fetch_watermarks(topic, 0, STEP);
    known.map_or(-1, |(_, end)| end)
}

/// The epoch of the producer of that id.
fn epoch_of(dev: &Dev, id: &str) -> i16 {
    let described = transactions(dev, &["describe", "--transactional-id", id]);
    let mut lines = described.lines().map(str::split_whitespace);
    let mut named = lines.next().expect("a header");
    let at = named.position(|word| word == "ProducerEpoch");
    let epoch = lines.next().and_then(|mut row| row.nth(at?)?.parse().ok());
    epoch.unwrap_or_else(|| panic!("no epoch: {described}"))
}

/// Kafka's own producer takes the version of its transactions from the level of the feature.
fn kafkas_copier_copies_exactly_once_at(level: &str) -> i16 {
    let dev = Dev::start_with_config(3, &["--no-restart"], CONFIG);
    let bootstrap = dev.bootstrap();
    if level != "2" {
        let feature = format!("transaction.version={level}");
        let args = [
            "--bootstrap-server",
            &bootstrap,
            "downgrade",
            "--feature",
            &feature,
        ];
        run(kafka("kafka-features", &args), b"").expect_ok();
    }
    create(&dev, &["in", "out"]);
    let viewer = Viewer::new(&bootstrap);
    let feeder: Producer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("enable.idempotence", "true")
        .set("log_level", "0")
        .create()
        .expect("librdkafka accepts the configuration");
    for n in 0..COPIES {
        send(&feeder, "in", 0, &format!("{n:05}"));
    }
    feeder.flush(PATIENCE).expect("flush");
    let copies = COPIES.to_string();
    let args = [
        ["--broker-list", &bootstrap],
        ["--input-topic", "in"],
        ["--input-partition", "0"],
        ["--output-topic", "out"],
        ["--consumer-group", "copiers"],
        ["--transactional-id", "copier"],
        ["--transaction-size", "5"],
        ["--transaction-timeout", "20000"],
        ["--max-messages", &copies],
    ]
    .concat();
    let args = [
        &args[..],
        &["--enable-random-aborts", "--use-group-metadata"],
    ]
    .concat();
    let said = std::thread::scope(|scope| {
        let copier = scope.spawn(|| {
            let copier = kafka("transactional-message-copier", &args);
            run_within(COPYING, copier, b"")
        });
        let victims = [
            ("__transaction_state", partition_of("copier")),
            ("out", 0),
            ("__consumer_offsets", partition_of("copiers")),
        ];
        for (topic, partition) in victims {
            let before = end_of(&dev, "out");
            // It is a Java that starts, too.
            wait::until("the copier to be at work", 2 * PATIENCE, || {
                match end_of(&dev, "out") {
                    now if now > before || copier.is_finished() => Ok(()),
                    now => Err(now),
                }
            });
            assert!(!copier.is_finished(), "it was done before it lost a broker");
            kill_leader(&dev, &viewer, (topic, partition), || ());
        }
        copier.join().expect("the copier").expect_ok()
    });
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("\"remaining\":0"), "{last}");
    let expected: Vec<String> = (0..COPIES).map(|n| format!("{n:05}")).collect();
    wait::until("the last transaction to show", PATIENCE, || {
        match read(&dev, "out", true).len() {
            len if len >= COPIES => Ok(()),
            len => Err(len),
        }
    });
    assert_eq!(read(&dev, "out", true), expected);
    epoch_of(&dev, "copier")
}

#[test]
fn kafkas_own_producer_copies_exactly_once_in_version_2_while_leaders_and_coordinators_are_killed()
{
    let epoch = kafkas_copier_copies_exactly_once_at("2");
    let transactions = COPIES / 5;
    println!("  at least {transactions} transactions, epoch {epoch}");
    assert!(usize::try_from(epoch).expect("an epoch") >= transactions);
}

#[test]
fn kafkas_own_producer_copies_exactly_once_in_version_1_at_the_level_before() {
    let epoch = kafkas_copier_copies_exactly_once_at("1");
    println!("  epoch {epoch}");
    assert!(
        epoch < 50,
        "each transaction had an epoch of its own: {epoch}"
    );
}
