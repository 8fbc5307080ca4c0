//! Everything that must not reach a data port reaches it: noise, huge lengths, cut-off frames,
//! hostile array counts, slow senders, ten thousand idle connections. Memory stays bounded, others
//! are served as usual, nothing panics.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::{History, Load};
use leasehold_tests::{readback, topics};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const TOPIC: &str = "served";
const IDLE_CONNECTIONS: usize = 10_000;
/// What the broker may take beyond its idle memory, in KiB.
const ALLOWED_KIB: u64 = 128 * 1024;
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

#[test]
fn bad_input_costs_little_memory_and_disturbs_no_one() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).expect("more open files");

    let dev = Dev::start(1, &[]);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime
        .block_on(topics::create(&dev.bootstrap(), TOPIC, 1, 1, &[]))
        .expect("a topic");
    let pid = dev.pid(0).expect("pid");
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
    let idle = dev.resident_kib(0);

    let attack = Instant::now();
    let address = dev.client(0);
    let waiting: Vec<TcpStream> = (0..IDLE_CONNECTIONS).map(|_| connect(address)).collect();
    let slow = std::thread::spawn(move || slow_senders(address, attack + Duration::from_secs(15)));
    hostile_frames(address);
    let peak = dev.resident_kib(0);
    slow.join().expect("slow senders");
    let peak = peak.max(dev.resident_kib(0));
    let during = load.peek(|history| p99_of_acks(history, attack));
    drop(waiting);

    println!(
        "memory: idle {} MiB, under attack {} MiB; p99 of acknowledgements: usual {usual:.1?}, under attack {during:.1?}",
        idle / 1024,
        peak / 1024
    );
    assert!(
        peak <= idle + ALLOWED_KIB,
        "{peak} KiB under attack, {idle} KiB idle"
    );
    let allowed = (usual * 5).max(Duration::from_millis(50));
    assert!(
        during <= allowed,
        "p99 {during:?} under attack, {usual:?} before"
    );
    assert_eq!(
        dev.pid(0).expect("pid"),
        pid,
        "the broker is the same process"
    );
    let logs = dev.logs();
    assert!(!logs.contains("panicked"), "{logs}");
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&dev.bootstrap(), TOPIC, &history);
}
