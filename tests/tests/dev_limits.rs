//! The bounds that a user sets hold at the door of a real broker: so many connections, so long idle, so large a
//! request; and of two processes on one log directory the second waits.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::wait;
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LIMITS: &str = "max.connections: 3
connections.max.idle.ms: 2000
socket.request.max.bytes: 5000
";

/// How long the broker keeps a connection, at most `limit`.
fn kept(stream: &mut TcpStream, limit: Duration) -> Option<Duration> {
    let begun = Instant::now();
    stream.set_read_timeout(Some(limit)).expect("timeout");
    match stream.read(&mut [0; 64]) {
        Ok(0) => Some(begun.elapsed()),
        Ok(_) => panic!("an answer to nothing"),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(_) => Some(begun.elapsed()),
    }
}

#[test]
fn connections_idleness_and_requests_are_bounded_as_the_configuration_says() {
    let dev = Dev::start_with_config(1, &[], LIMITS);
    let connect = || TcpStream::connect(dev.client(0)).expect("the broker listens");

    let mut oversized = connect();
    oversized.write_all(&5001_i32.to_be_bytes()).expect("send");
    let took = kept(&mut oversized, PATIENCE).expect("closed");
    assert!(
        took < Duration::from_millis(1500),
        "not for being idle: {took:?}"
    );
    // One of the largest legal size is waited for.
    let mut legal = connect();
    legal.write_all(&5000_i32.to_be_bytes()).expect("send");
    assert_eq!(kept(&mut legal, Duration::from_millis(1000)), None);
    drop(legal);

    let mut idle = connect();
    let took = kept(&mut idle, PATIENCE).expect("closed");
    println!("an idle connection is closed after {} ms", took.as_millis());
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    assert!(took < Duration::from_millis(6000), "{took:?}");

    let mut admitted: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    let mut surplus = connect();
    let took = kept(&mut surplus, PATIENCE).expect("closed");
    assert!(took < Duration::from_millis(1000), "{took:?}");
    for stream in &mut admitted {
        assert_eq!(
            kept(stream, Duration::from_millis(100)),
            None,
            "the others stay"
        );
    }
    let log = dev.log(0);
    for reason in ["(socket.request.max.bytes)", "max.connections is reached"] {
        assert!(log.contains(reason), "no {reason} in {log}");
    }
}

#[test]
fn a_second_process_on_a_log_directory_waits_says_so_and_goes_on_when_it_is_free() {
    let dev = Dev::start(1, &["--no-restart"]);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| dev.join(0));
        wait::until("the second process to say so", PATIENCE, || {
            let log = dev.log(0);
            let said = log.contains("another process holds the log directory: waiting");
            said.then_some(()).ok_or(log)
        });
        std::thread::sleep(Duration::from_secs(1));
        assert!(!second.is_finished(), "it serves beside the first");
        dev.signal(0, Signal::KILL);
        drop(second.join().expect("it is ready then"));
    });
}
