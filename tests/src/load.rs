//! A librdkafka producer under a steady load, and the history of what it was told.
//!
//! Every record says which it is (partition and number), so that reading everything back can tell
//! a lost record from a late one. Gaps are counted per partition: the time between two
//! acknowledgements of one partition, which is what its users notice of a failover.

use crate::witness::Witness;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One acknowledged record.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// The record's number within its partition, from 0.
    pub number: u64,
    /// Where the broker says that it stands.
    pub offset: i64,
    /// When it was handed to the producer.
    pub sent: Instant,
    /// When the acknowledgement arrived.
    pub at: Instant,
}

/// What a producer was told, per partition.
#[derive(Debug, Default)]
pub struct History {
    /// Acknowledged records in the order of their acknowledgements.
    pub acked: Vec<Vec<Acked>>,
    /// Failed deliveries: partition, number, error.
    pub failed: Vec<(i32, u64, String)>,
    /// How many records were handed over, per partition.
    pub sent: Vec<u64>,
}

impl History {
    /// The longest time between two acknowledgements of one partition that overlaps `[from, to]`.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Gap {
        let gaps = self.acked.iter().enumerate().map(|(partition, acked)| {
            let mut times: Vec<Instant> =
                acked.iter().map(|a| a.at).filter(|at| *at <= to).collect();
            times.push(to);
            let pairs = times.windows(2).filter(|pair| pair[1] >= from);
            let longest = pairs.max_by_key(|pair| pair[1] - pair[0]);
            Gap {
                from: longest.map_or(to, |pair| pair[0]),
                to: longest.map_or(to, |pair| pair[1]),
                partition,
            }
        });
        gaps.max_by_key(Gap::length).unwrap_or(Gap {
            from: to,
            to,
            partition: 0,
        })
    }

    /// How long acknowledgements of what was sent within `[from, to]` took: the median and the 99th percentile.
    pub fn latency(&self, from: Instant, to: Instant) -> (Duration, Duration) {
        let acked = self.acked.iter().flatten();
        let sent = acked.filter(|record| from <= record.sent && record.sent <= to);
        let mut took: Vec<Duration> = sent.map(|record| record.at - record.sent).collect();
        took.sort();
        let at = |part: usize| {
            took.get(took.len() * part / 100)
                .copied()
                .unwrap_or_default()
        };
        (at(50), at(99))
    }

    /// Number of acknowledged records of all partitions.
    pub fn acked_total(&self) -> usize {
        self.acked.iter().map(Vec::len).sum()
    }
}

/// A time without an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    pub from: Instant,
    pub to: Instant,
    pub partition: usize,
}

impl Gap {
    pub fn length(&self) -> Duration {
        self.to - self.from
    }

    /// What is left of it without the time in which the machine stood still; says so where that is much.
    pub fn of_the_software(&self, witness: &Witness) -> Duration {
        let machine = witness.stood_still(self.from, self.to);
        if machine > Duration::from_millis(100) {
            println!(
                "  of a gap of {:.0?} the machine itself stood still for {machine:.0?}",
                self.length()
            );
        }
        self.length().saturating_sub(machine)
    }
}

struct Context {
    begun: Instant,
    history: Arc<Mutex<History>>,
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, fac: &str, message: &str) {
        if debug().is_some() {
            let at = self.begun.elapsed().as_secs_f64();
            eprintln!("{at:.4} {fac} {message}");
        }
    }
}

/// What librdkafka is to tell about itself, for whoever looks into a long gap.
fn debug() -> Option<String> {
    std::env::var("LEASEHOLD_TEST_CLIENT_DEBUG").ok()
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<(i32, u64, Instant)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let at = Instant::now();
        let (partition, number, sent) = *opaque;
        let mut history = self.history.lock().expect("history");
        match result {
            Ok(message) => history.acked[partition as usize].push(Acked {
                number,
                offset: message.offset(),
                sent,
                at,
            }),
            Err((error, _)) => history.failed.push((partition, number, error.to_string())),
        }
    }
}

/// A producer that writes at a steady rate until it is stopped.
pub struct Load {
    history: Arc<Mutex<History>>,
    work: Work,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What it writes, and how.
#[derive(Clone)]
struct Work {
    config: ClientConfig,
    topic: String,
    partitions: i32,
    per_second: u32,
}

/// What a record's value says: `<partition>:<number>:<padding>`.
pub fn value_of(partition: i32, number: u64, size: usize) -> Vec<u8> {
    let mut value = format!("{partition}:{number}:").into_bytes();
    value.resize(value.len().max(size), b'x');
    value
}

impl Load {
    /// Writes `per_second` records a second, spread over `partitions` partitions in turn, with
    /// `acks=all` and an idempotent producer; `settings` are librdkafka's and win over these.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        per_second: u32,
        settings: &[(&str, &str)],
    ) -> Self {
        let history = Arc::new(Mutex::new(History {
            acked: vec![Vec::new(); partitions as usize],
            failed: Vec::new(),
            sent: vec![0; partitions as usize],
        }));
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "1");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        if let Some(what) = debug() {
            config.set("debug", what);
            config.set_log_level(RDKafkaLogLevel::Debug);
        }
        let mut load = Self {
            history,
            work: Work {
                config,
                topic: topic.to_owned(),
                partitions,
                per_second,
            },
            stop: Arc::default(),
            thread: None,
        };
        load.begin();
        load
    }

    /// Goes on with a new producer, after the old one was told of every record.
    ///
    /// librdkafka holds failures against a broker for long: the delay before it connects again doubles with every
    /// attempt, and starts anew only `reconnect.backoff.max.ms` (10 s) after the last one, successful or not. A
    /// second failure is not to be measured with a client's memory of the first.
    pub fn renew(&mut self) {
        self.end();
        self.begin();
    }

    fn begin(&mut self) {
        let context = Context {
            begun: Instant::now(),
            history: self.history.clone(),
        };
        let producer: ThreadedProducer<Context> = self
            .work
            .config
            .create_with_context(context)
            .expect("librdkafka accepts the configuration");
        self.stop = Arc::default();
        self.thread = Some(std::thread::spawn({
            let (history, stop, work) =
                (self.history.clone(), self.stop.clone(), self.work.clone());
            move || produce(&producer, &history, &stop, &work)
        }));
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("running");
        thread.join().expect("the producer's thread");
    }

    /// Looks at the history while the load goes on.
    pub fn peek<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.history.lock().expect("history"))
    }

    /// Waits until every partition has got an acknowledgement of a record sent after now.
    pub fn wait_flowing(&self, limit: Duration) -> Instant {
        let from = Instant::now();
        crate::wait::until("acknowledgements on every partition", limit, || {
            self.peek(|history| {
                let fresh = |acked: &Vec<Acked>| acked.last().is_some_and(|last| last.sent >= from);
                let stuck: Vec<usize> = (0..history.acked.len())
                    .filter(|p| !fresh(&history.acked[*p]))
                    .collect();
                if stuck.is_empty() {
                    Ok(Instant::now())
                } else {
                    Err(format!("none on {stuck:?}"))
                }
            })
        })
    }

    /// Stops sending, waits for every outstanding record, and gives the history.
    pub fn stop(mut self) -> History {
        self.end();
        std::mem::take(&mut *self.history.lock().expect("history"))
    }
}

fn produce(
    producer: &ThreadedProducer<Context>,
    history: &Mutex<History>,
    stop: &AtomicBool,
    work: &Work,
) {
    let (topic, partitions) = (work.topic.as_str(), work.partitions);
    let before: u64 = history.lock().expect("history").sent.iter().sum();
    let start = Instant::now();
    let mut sent = before;
    while !stop.load(Ordering::Relaxed) {
        let due =
            start + Duration::from_secs_f64((sent - before) as f64 / f64::from(work.per_second));
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let partition = (sent % partitions as u64) as i32;
        let number = sent / partitions as u64;
        let value = value_of(partition, number, 100);
        let opaque = Box::new((partition, number, Instant::now()));
        let record = BaseRecord::<(), _, _>::with_opaque_to(topic, opaque)
            .partition(partition)
            .payload(&value);
        match producer.send(record) {
            Ok(()) => {
                history.lock().expect("history").sent[partition as usize] += 1;
                sent += 1;
            }
            // The local queue is full: the broker is slower than the load. Try the same again.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => {
                let fatal = producer.client().fatal_error();
                panic!("librdkafka refused a record: {error}; {fatal:?}")
            }
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("every outstanding record is answered");
}
