//! Everything that must not reach a data port reaches it: noise, huge lengths, cut-off frames,
//! hostile array counts, slow senders, frames that stop before their last byte, the longest frames
//! that are legal, ten thousand idle connections. Memory stays bounded at every moment, others are
//! served as usual, nothing panics.

use bytes::{BufMut as _, Bytes, BytesMut};
use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::{History, Load};
use leasehold_tests::{readback, topics};
use leasehold_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use leasehold_wire::kafka::messages::{ProduceRequest, TopicName};
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{Client, ClientOptions, batch};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const TOPIC: &str = "served";
const WIDE: &str = "wide";
const IDLE_CONNECTIONS: usize = 10_000;
/// Beside these the harder attacks run.
const IDLE_BESIDE: usize = 9_500;
/// A frame of so many bytes is within `socket.request.max.bytes`.
const GIANT: usize = 90 << 20;
/// Partitions of the giant that is legal: a batch for each may have a MiB.
const WIDE_PARTITIONS: i32 = 90;
/// What the broker may take beyond its idle memory, in KiB.
const ALLOWED_KIB: u64 = 128 * 1024;
/// How slow others may become, at the 99th percentile, by what costs the broker no work.
const UNDISTURBED: Duration = Duration::from_millis(50);
/// The same where 90 MiB of records are legally written to the disk ahead of theirs.
const BEHIND_A_GIANT: Duration = Duration::from_secs(2);
/// Every API key of Kafka 4.3, advertised or not.
const API_KEYS: std::ops::RangeInclusive<i16> = 0..=92;

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("connect");
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    stream
}

/// A request header (version 1, or 2 with an empty tag section) followed by `body`, with its length.
fn frame(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    request.extend(4_i16.to_be_bytes());
    request.extend(b"test");
    if flexible {
        request.push(0);
    }
    request.extend(body);
    let mut frame = (request.len() as i32).to_be_bytes().to_vec();
    frame.extend(request);
    frame
}

/// Writes as much as the broker takes. That it closes the connection meanwhile is what is wanted.
fn offer(stream: &mut TcpStream, bytes: &[u8]) {
    if let Err(error) = stream.write_all(bytes) {
        let kinds = [
            ErrorKind::BrokenPipe,
            ErrorKind::ConnectionReset,
            ErrorKind::WouldBlock,
        ];
        assert!(
            kinds.contains(&error.kind()),
            "an unexpected error: {error}"
        );
    }
}

/// Reads until the broker closes or the limit passes; gives whether it closed.
fn closed_within(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).expect("timeout");
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn p99_of_acks(history: &History, from: Instant) -> Duration {
    let recent = history
        .acked
        .iter()
        .flatten()
        .filter(|acked| acked.sent >= from);
    let mut latencies: Vec<Duration> = recent.map(|acked| acked.at - acked.sent).collect();
    latencies.sort();
    assert!(
        latencies.len() > 50,
        "only {} records were acknowledged",
        latencies.len()
    );
    latencies[latencies.len() * 99 / 100]
}

/// A linear congruential generator: noise that is the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn hostile_frames(address: SocketAddr) {
    for seed in 0..200 {
        offer(&mut connect(address), &noise(seed, 16 + seed as usize * 7));
    }
    for length in [i32::MAX, i32::MIN, -1, 0, 1, 200 << 20] {
        let mut stream = connect(address);
        offer(&mut stream, &length.to_be_bytes());
        offer(&mut stream, &noise(length as u64, 64));
        let refused = !(0..=100 << 20).contains(&length) || length < 8;
        assert!(
            !refused || closed_within(&mut stream, Duration::from_secs(5)),
            "a frame of length {length} must close its connection"
        );
    }
    for key in API_KEYS {
        for version in [0, 1, 4, 9, 12, 17] {
            // An array count of 0x7fffffff where a classic body has its first array, and the same
            // as an unsigned varint for a flexible one.
            for body in [
                &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1][..],
                &[0xff, 0xff, 0xff, 0xff, 0x0f, 1],
            ] {
                for flexible in [false, true] {
                    let mut stream = connect(address);
                    offer(&mut stream, &frame(key, version, flexible, body));
                    // Half a frame, and then nothing more.
                    let whole = frame(key, version, flexible, &noise(key as u64, 40));
                    offer(&mut stream, &whole[..whole.len() / 2]);
                }
            }
        }
    }
}

/// Many announce a large frame and send it byte by byte.
fn slow_senders(address: SocketAddr, until: Instant) {
    let mut streams: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(address);
            offer(&mut stream, &(90_i32 << 20).to_be_bytes());
            stream
        })
        .collect();
    while Instant::now() < until {
        for stream in &mut streams {
            offer(stream, &[0]);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One batch with one record, whose value has `size` bytes.
fn batch_of(size: usize) -> Bytes {
    let varint = |out: &mut BytesMut, number: usize| {
        let mut rest = number << 1;
        while rest > 0x7f {
            out.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.put_u8(rest as u8);
    };
    let mut record = BytesMut::new();
    // Attributes, timestamp delta, offset delta, null key, value, no headers.
    record.put_slice(&[0, 0, 0, 1]);
    varint(&mut record, size);
    record.put_bytes(7, size);
    record.put_u8(0);
    let mut rest = BytesMut::new();
    varint(&mut rest, record.len());
    rest.put_slice(&record);

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("a clock").as_millis() as i64;
    let mut whole = BytesMut::new();
    whole.put_i64(0);
    whole.put_i32((batch::HEADER_LEN - batch::LOG_OVERHEAD + rest.len()) as i32);
    whole.put_i32(-1);
    whole.put_i8(2);
    whole.put_u32(0);
    whole.put_i16(0);
    whole.put_i32(0);
    whole.put_i64(now);
    whole.put_i64(now);
    whole.put_i64(-1);
    whole.put_i16(-1);
    whole.put_i32(-1);
    whole.put_i32(1);
    whole.put_slice(&rest);
    let crc = batch::crc_of(&whole).expect("a whole batch");
    whole[17..21].copy_from_slice(&crc.to_be_bytes());
    whole.freeze()
}

/// A produce of almost 90 MiB, as a client with large batches may send it.
fn legal_giant() -> ProduceRequest {
    let batch = batch_of((1 << 20) - 200);
    let partitions = (0..WIDE_PARTITIONS).map(|n| {
        PartitionProduceData::default()
            .with_index(n)
            .with_records(Some(batch.clone()))
    });
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str(WIDE)))
        .with_partition_data(partitions.collect());
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![topic])
}

/// Sends `request` and waits until every partition has taken its batch.
async fn must_be_served(address: SocketAddr, request: ProduceRequest) {
    let address = address.to_string();
    let client = Client::connect(&address, ClientOptions::default()).await;
    let client = client.expect("connect");
    let reply = client.call_within(&request, 9, PATIENCE).await;
    let reply = reply.expect("a legal frame of 90 MiB is answered");
    let partitions = &reply.responses[0].partition_responses;
    assert_eq!(partitions.len() as i32, WIDE_PARTITIONS);
    for partition in partitions {
        assert_eq!(partition.error_code, 0, "{partition:?}");
    }
}

/// A broker with an ordinary client, and what is usual for both.
struct Victim {
    dev: Dev,
    runtime: tokio::runtime::Runtime,
    load: Load,
    idle_kib: u64,
    usual: Duration,
    attacked: Instant,
}

impl Victim {
    fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let all = rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, all)
            .expect("more open files");
        let dev = Dev::start(1, &[]);
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        for (topic, partitions) in [(TOPIC, 1), (WIDE, WIDE_PARTITIONS)] {
            runtime
                .block_on(topics::create(&dev.bootstrap(), topic, partitions, 1, &[]))
                .expect("a topic");
        }
        let load = Load::start(&dev.bootstrap(), TOPIC, 1, 100, &[]);
        let begun = load.wait_flowing(PATIENCE);
        leasehold_tests::wait::until("a usual latency", PATIENCE, || {
            load.peek(|history| {
                if history.acked_total() > 300 {
                    Ok(())
                } else {
                    Err(history.acked_total())
                }
            })
        });
        let usual = load.peek(|history| p99_of_acks(history, begun));
        let idle_kib = dev.resident_kib(0);
        let victim = Self {
            dev,
            runtime,
            load,
            idle_kib,
            usual,
            attacked: Instant::now(),
        };
        // From here on the kernel keeps the peak anew.
        std::fs::write(format!("/proc/{}/clear_refs", victim.pid()), "5").expect("clear_refs");
        victim
    }

    fn address(&self) -> SocketAddr {
        self.dev.client(0)
    }

    fn pid(&self) -> i32 {
        self.dev.pid(0).expect("pid").as_raw_nonzero().get()
    }

    /// The most that was ever resident since the attack began.
    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(path).expect("proc status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number of KiB")
    }

    /// Judges what the attack did; `pid` is the process that it began with.
    fn judge(self, what: &str, pid: i32, slowest: Duration) {
        let peak = self.peak_kib();
        let during = self
            .load
            .peek(|history| p99_of_acks(history, self.attacked));
        println!(
            "{what}: memory idle {} MiB, at most {} MiB; p99 of acknowledgements: usual {:.1?}, under attack {during:.1?}",
            self.idle_kib / 1024,
            peak / 1024,
            self.usual,
        );
        assert!(
            peak <= self.idle_kib + ALLOWED_KIB,
            "{peak} KiB under attack, {} KiB idle",
            self.idle_kib
        );
        let allowed = (self.usual * 5).max(slowest);
        assert!(
            during <= allowed,
            "p99 {during:?} under attack, {:?} before",
            self.usual
        );
        assert_eq!(self.pid(), pid, "the broker is the same process");
        let logs = self.dev.logs();
        assert!(!logs.contains("panicked"), "{logs}");
        let history = self.load.stop();
        assert!(history.failed.is_empty(), "{:?}", history.failed);
        readback::check(&self.dev.bootstrap(), TOPIC, &history);
    }
}

#[test]
fn bad_input_costs_little_memory_and_disturbs_no_one() {
    let victim = Victim::new();
    let (address, pid) = (victim.address(), victim.pid());
    let until = victim.attacked + Duration::from_secs(15);
    let waiting: Vec<TcpStream> = (0..IDLE_CONNECTIONS).map(|_| connect(address)).collect();
    let slow = std::thread::spawn(move || slow_senders(address, until));
    hostile_frames(address);
    slow.join().expect("slow senders");
    drop(waiting);
    victim.judge("noise", pid, UNDISTURBED);
}

#[test]
fn frames_that_stop_before_their_last_byte_cost_little_memory_and_make_way() {
    let victim = Victim::new();
    let (address, pid) = (victim.address(), victim.pid());
    let waiting: Vec<TcpStream> = (0..IDLE_BESIDE).map(|_| connect(address)).collect();
    let stalled = || {
        let mut stream = connect(address);
        let length = 8_usize << 20;
        offer(&mut stream, &(length as i32).to_be_bytes());
        offer(&mut stream, &vec![1; length - 1]);
        stream
    };
    let stalled: Vec<TcpStream> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..60).map(|_| scope.spawn(stalled)).collect();
        let ended = senders.into_iter().map(|sender| sender.join());
        ended.map(|stream| stream.expect("a sender")).collect()
    });
    println!("60 stalled frames: {} MiB", victim.peak_kib() / 1024);
    // Whoever sends the whole of a long frame is served in spite of them.
    victim
        .runtime
        .block_on(must_be_served(address, legal_giant()));
    drop((waiting, stalled));
    victim.judge("stalled frames of 8 MiB", pid, BEHIND_A_GIANT);
}

#[test]
fn the_longest_legal_frames_are_served_one_by_one_and_cost_little_memory() {
    let victim = Victim::new();
    let (address, pid) = (victim.address(), victim.pid());
    let waiting: Vec<TcpStream> = (0..IDLE_BESIDE).map(|_| connect(address)).collect();
    println!("idle connections: {} MiB", victim.peak_kib() / 1024);
    // Noise to decode, as a Produce and as a Metadata request.
    let senseless: Vec<_> = [(0, 9), (3, 12)]
        .map(|(key, version)| {
            std::thread::spawn(move || {
                let body = noise(key as u64, GIANT - 64);
                let mut stream = connect(address);
                offer(&mut stream, &frame(key, version, true, &body));
                assert!(closed_within(&mut stream, PATIENCE), "noise is answered");
            })
        })
        .into();
    let legal = (0..2).map(|_| must_be_served(address, legal_giant()));
    victim.runtime.block_on(futures::future::join_all(legal));
    for sender in senseless {
        sender.join().expect("a sender of noise");
    }
    drop(waiting);
    victim.judge("four frames of 90 MiB", pid, BEHIND_A_GIANT);
}
