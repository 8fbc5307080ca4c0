//! A librdkafka producer under a steady load, and the history of what it was told.
//!
//! Every record says which it is (partition and number), so that reading everything back can tell
//! a lost record from a late one. Gaps are counted per partition: the time between two
//! acknowledgements of one partition, which is what its users notice of a failover.

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long after a broker came back a librdkafka client still holds its last failures against it.
///
/// The delay before a connection is tried again doubles with every attempt, and starts anew only
/// `reconnect.backoff.max.ms` (10 s) after the last one, successful or not. The attempts while the broker
/// was away may have been put off by a few seconds themselves.
pub const CLIENT_FORGETS: Duration = Duration::from_secs(13);

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
    /// The longest time between two acknowledgements of one partition that overlaps `[from, to]`,
    /// with its partition.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> (Duration, usize) {
        let gaps = self.acked.iter().enumerate().map(|(partition, acked)| {
            let mut times: Vec<Instant> =
                acked.iter().map(|a| a.at).filter(|at| *at <= to).collect();
            times.push(to);
            let pairs = times.windows(2).filter(|pair| pair[1] >= from);
            (
                pairs
                    .map(|pair| pair[1] - pair[0])
                    .max()
                    .unwrap_or_default(),
                partition,
            )
        });
        gaps.max().unwrap_or_default()
    }

    /// Number of acknowledged records of all partitions.
    pub fn acked_total(&self) -> usize {
        self.acked.iter().map(Vec::len).sum()
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
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
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
        let context = Context {
            begun: Instant::now(),
            history: history.clone(),
        };
        let producer: ThreadedProducer<Context> = config
            .create_with_context(context)
            .expect("librdkafka accepts the configuration");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (history, stop, topic) = (history.clone(), stop.clone(), topic.to_owned());
            move || produce(&producer, &history, &stop, &topic, partitions, per_second)
        });
        Self {
            history,
            stop,
            thread: Some(thread),
        }
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

    /// Waits until the client treats a broker that was back at `back` like one that never failed, so
    /// that a second failure is not measured with the client's memory of the first.
    pub fn rest(&self, back: Instant) {
        let due = back + CLIENT_FORGETS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    /// Stops sending, waits for every outstanding record, and gives the history.
    pub fn stop(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("running")
            .join()
            .expect("the producer's thread");
        std::mem::take(&mut *self.history.lock().expect("history"))
    }
}

fn produce(
    producer: &ThreadedProducer<Context>,
    history: &Mutex<History>,
    stop: &AtomicBool,
    topic: &str,
    partitions: i32,
    per_second: u32,
) {
    let start = Instant::now();
    let mut sent: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = start + Duration::from_secs_f64(sent as f64 / f64::from(per_second));
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
