//! The two that are asked, one broker each, configured alike; and one connection to each.
//!
//! Promise: dropped, both have ended and their folders are gone. Both listen on 127.0.0.1 only.

use crate::dev::Dev;
use crate::kafka::Node;
use crate::wait;
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::time::Duration;

/// What both are told; all else is each one's own default.
const CONFIG: &[(&str, &str)] = &[
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("group.initial.rebalance.delay.ms", "0"),
    // The records of the scenes are of 2023.
    ("log.retention.ms", "-1"),
];

/// What Leasehold does without being told, and has no key for: a target is assigned at once (docs/limits.md).
const KAFKA_ONLY: (&str, &str) = ("group.consumer.assignment.interval.ms", "0");

/// No default of all brokers is written by itself. At level 2 of transactions Kafka fences a producer by two epochs, and
/// Leasehold by one; what a client does in version 2 goes by the versions of its requests at either level.
const FEATURES: &[&str] = &[
    "transaction.version=1",
    "eligible.leader.replicas.version=0",
];

/// How long a peer may take to start on a busy machine.
const START: Duration = Duration::from_secs(180);

/// How long an answer may take. The longest that a right one does is a rebalance.
const ANSWER: Duration = Duration::from_secs(10);

/// Both, running.
pub struct Peers {
    pub kafka: SocketAddr,
    pub leasehold: SocketAddr,
    _dev: Dev,
    _kafka: Kafka,
}

struct Kafka {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // It has nothing to keep, and a clean stop takes seconds.
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Peers {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("leasehold-differential-")
            .tempdir();
        let dir = dir.expect("a folder");
        let free: Vec<u16> = {
            let held: Vec<TcpListener> = (0..2)
                .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
                .collect();
            held.iter()
                .map(|one| one.local_addr().expect("an address").port())
                .collect()
        };
        let node = Node {
            dir: dir.path().to_owned(),
            id: 0,
            port: free[0],
            controller_port: free[1],
            features: FEATURES,
            config: CONFIG
                .iter()
                .chain([&KAFKA_ONLY])
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect(),
        };
        node.prepare();
        let kafka = Kafka {
            child: node.start("512m"),
            _dir: dir,
        };
        let yaml: String = CONFIG
            .iter()
            .map(|(key, value)| format!("{key}: \"{value}\"\n"))
            .collect();
        let dev = Dev::start_with_config(1, &[], &yaml);
        let peers = Self {
            kafka: ([127, 0, 0, 1], free[0]).into(),
            leasehold: dev.client(0),
            _dev: dev,
            _kafka: kafka,
        };
        for address in [peers.kafka, peers.leasehold] {
            wait::until("an answer to ApiVersions", START, || {
                let mut line = Line::new(address);
                let asked = Bytes::from_static(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
                match line.ask(&asked) {
                    Raw::Answer(_) => Ok(()),
                    other => Err(other),
                }
            });
        }
        peers
    }
}

/// What comes back for a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Without its length.
    Answer(Bytes),
    Closed,
    Silent,
}

/// One connection, opened again when it was closed.
pub struct Line {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Line {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
        }
    }

    pub fn ask(&mut self, frame: &Bytes) -> Raw {
        let raw = match self.send(frame) {
            Ok(()) => self.receive(),
            Err(error) => Err(error),
        };
        raw.unwrap_or_else(|error| {
            self.stream = None;
            match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Raw::Silent,
                _ => Raw::Closed,
            }
        })
    }

    /// For what has no answer.
    pub fn send(&mut self, frame: &Bytes) -> std::io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER))?;
                none.insert(stream)
            }
        };
        let length = (frame.len() as u32).to_be_bytes();
        stream.write_all(&[&length[..], frame].concat())
    }

    fn receive(&mut self) -> std::io::Result<Raw> {
        let stream = self.stream.as_mut().ok_or(ErrorKind::NotConnected)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer)?;
        Ok(Raw::Answer(answer.into()))
    }
}
