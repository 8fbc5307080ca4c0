//! Exactly once as applications have it: Kafka Streams counts, with a repartition topic, a store and its changelog, and
//! is killed and started again while brokers are killed and started again. Whoever reads what is committed sees each
//! word counted from one to its number, each count once.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::readback::UNSAFE;
use leasehold_tests::tools::streams;
use leasehold_tests::topics::{self, Viewer};
use leasehold_tests::wait;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GUARANTEE: &str = "exactly_once_v2";
const PARTITIONS: i32 = 3;
const WORDS: usize = 7;
const PER_SECOND: u64 = 200;
/// Until counts flow again: a Java that starts, a member that is missed, a store read anew from its changelog.
const RECOVERY: Duration = Duration::from_secs(120);

/// The application; it ends with the value.
struct Application<'a> {
    dev: &'a Dev,
    state: tempfile::TempDir,
    process: Option<Child>,
    lives: usize,
}

impl<'a> Application<'a> {
    fn new(dev: &'a Dev) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        Self {
            dev,
            state,
            process: None,
            lives: 0,
        }
    }

    fn log(&self) -> std::path::PathBuf {
        self.dev.data().join("streams.log")
    }

    fn start(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log());
        let state = self.state.path().to_str().expect("UTF-8");
        let mut command = streams(&[&self.dev.bootstrap(), "counts", GUARANTEE, state]);
        let process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        self.process = Some(process.expect("java"));
        self.lives += 1;
    }

    /// It may end by itself at an error that it is not to outlive: then its user starts it again.
    fn keep_alive(&mut self) {
        let ended = self.process.as_mut().map(|process| process.try_wait());
        if let Some(Ok(Some(status))) = ended {
            println!("  the application ended by itself, with {status}");
            self.start();
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill");
            process.wait().expect("the end of the application");
        }
    }
}

impl Drop for Application<'_> {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let from = log.len().saturating_sub(6_000);
            eprintln!("{}", String::from_utf8_lossy(&log.as_bytes()[from..]));
        }
    }
}

/// Every count of every word, in the order in which whoever reads what is committed sees them.
struct Counts {
    consumer: BaseConsumer,
    seen: BTreeMap<String, Vec<i64>>,
    total: usize,
}

impl Counts {
    fn new(dev: &Dev) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", dev.bootstrap())
            .set("group.id", "reader")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("log_level", "0")
            .create()
            .expect("librdkafka accepts the configuration");
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset("out", partition, Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&all).expect("assign");
        Self {
            consumer,
            seen: BTreeMap::new(),
            total: 0,
        }
    }

    /// Reads what has come, for so long at most.
    fn read(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let word = String::from_utf8(message.key().expect("a word").to_vec());
            let count: [u8; 8] = message.payload().expect("a count").try_into().expect("i64");
            let counts = self.seen.entry(word.expect("text")).or_default();
            counts.push(i64::from_be_bytes(count));
            self.total += 1;
        }
    }

    /// Reads until so many have come.
    fn wait(&mut self, application: &mut Application<'_>, total: usize) {
        wait::until("counts to flow", RECOVERY, || {
            application.keep_alive();
            self.read(Duration::from_millis(100));
            if self.total >= total {
                Ok(())
            } else {
                Err(format!("{} of {total}", self.total))
            }
        });
    }
}

/// Sends words until told to stop; how often each was sent.
fn feed(dev: &Dev, stop: &AtomicBool) -> BTreeMap<String, usize> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", dev.bootstrap())
        .set("enable.idempotence", "true")
        .set("log_level", "0")
        .create()
        .expect("librdkafka accepts the configuration");
    let mut sent = BTreeMap::new();
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let word = format!("word-{}", n % WORDS);
        let record = BaseRecord::<str, str>::to("in")
            .partition(n as i32 % PARTITIONS)
            .payload(&word);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("queued");
        *sent.entry(word).or_default() += 1;
        std::thread::sleep(Duration::from_millis(1_000 / PER_SECOND));
    }
    producer.flush(PATIENCE).expect("flush");
    sent
}

#[test]
fn an_application_of_kafka_streams_counts_exactly_once_while_it_and_every_broker_are_killed() {
    let dev = Dev::start_with_config(3, &["--no-restart"], "leader.restore.delay.ms: 2000\n");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let viewer = Viewer::new(&dev.bootstrap());
    for topic in ["in", "out"] {
        let config = [("min.insync.replicas", "2")];
        runtime
            .block_on(topics::create(
                &dev.bootstrap(),
                topic,
                PARTITIONS,
                3,
                &config,
            ))
            .expect("the topic is created");
        viewer.wait_in_sync(topic, PATIENCE);
    }
    let stop = AtomicBool::new(false);
    let mut application = Application::new(&dev);
    let mut counts = Counts::new(&dev);
    let sent = std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(&dev, &stop));
        // However this thread ends, the feeder does too.
        let stopped = Stopped(&stop);
        application.start();
        counts.wait(&mut application, 200);
        // Together they lead everything that is written to, and coordinate the group and the transactions.
        for broker in 0..3 {
            println!(
                "  kill -9 of the application and of broker {broker}, at {}",
                counts.total
            );
            let process = dev.pid(broker).expect("pid file");
            if broker % 2 == 0 {
                application.kill();
                dev.signal(broker, Signal::KILL);
            } else {
                dev.signal(broker, Signal::KILL);
                // In the middle of what the loss set off.
                counts.read(Duration::from_millis(300));
                application.kill();
            }
            dev.wait_ended(process);
            application.start();
            let before = counts.total;
            counts.wait(&mut application, before + 200);
            dev.restart_killed();
            for topic in ["in", "out", "__transaction_state", "__consumer_offsets"] {
                viewer.wait_in_sync(topic, PATIENCE);
            }
        }
        drop(stopped);
        feeder.join().expect("the feeder")
    });
    counts.wait(&mut application, sent.values().sum());
    // What was counted twice may come late.
    counts.read(Duration::from_secs(2));
    for (word, times) in &sent {
        let expected: Vec<i64> = (1..=*times as i64).collect();
        let seen = counts.seen.remove(word).unwrap_or_default();
        let odd = seen.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(
            seen == expected,
            "{UNSAFE}: {word} was sent {times} times and counted {} times, the first odd one at {odd:?}",
            seen.len()
        );
    }
    let (total, lives) = (counts.total, application.lives);
    println!("  {total} inputs counted exactly once, in {lives} lives of the application");
}

/// Tells the feeder to end.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
