//! The two that are compared, each with its own defaults, on 127.0.0.1, and what their processes cost.
//!
//! Promise: dropped, all processes of a peer have ended and its folder is gone.

use super::raw::Connection;
use crate::dev::broker_binary;
use crate::kafka::Node;
use crate::tools::kafka_version;
use crate::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 29_092;
const CONTROLLER_PORT: u16 = 29_080;
/// A Java starts late on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(180);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Leasehold,
    Kafka,
}

impl Who {
    pub fn name(self) -> String {
        match self {
            Self::Leasehold => "Leasehold".to_owned(),
            Self::Kafka => format!("Apache Kafka {}", kafka_version()),
        }
    }
}

/// Keys of the brokers beside their defaults.
type Config = Vec<(&'static str, &'static str)>;

/// A running peer.
pub struct Peer {
    who: Who,
    children: Vec<Child>,
    brokers: Vec<Pid>,
    folder: tempfile::TempDir,
    config: Config,
    /// From the start of the processes until the first answer that shows every broker.
    pub started_in: Duration,
}

impl Peer {
    /// Starts it with so many brokers and no data.
    pub fn start(who: Who, brokers: u16) -> Self {
        Self::start_with(who, brokers, &[])
    }

    /// The same with these keys of its brokers.
    pub fn start_with(who: Who, brokers: u16, config: &[(&'static str, &'static str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("leasehold-bench-")
            .tempdir();
        Self::start_in(who, brokers, config.to_vec(), folder.expect("a folder"))
    }

    fn start_in(who: Who, count: u16, config: Config, folder: tempfile::TempDir) -> Self {
        let mut peer = Self {
            who,
            children: Vec::new(),
            brokers: Vec::new(),
            folder,
            config,
            started_in: Duration::ZERO,
        };
        let dir = peer.folder.path().to_owned();
        let nodes: Vec<Node> = (0..count)
            .map(|id| node(&dir, id, count, &peer.config))
            .collect();
        if who == Who::Kafka && !nodes[0].is_prepared() {
            nodes.iter().for_each(Node::prepare);
        }
        let begun = Instant::now();
        match who {
            Who::Leasehold => peer.children.push(leasehold(&dir, count, &peer.config)),
            Who::Kafka => peer
                .children
                .extend(nodes.iter().map(|node| node.start("1g"))),
        }
        wait::until("all brokers in the metadata", PATIENCE, || {
            let seen = Connection::open(Self::address(0))?.brokers()?;
            anyhow::ensure!(seen == usize::from(count), "{seen} brokers");
            Ok(())
        });
        peer.started_in = begun.elapsed();
        peer.brokers = match who {
            Who::Leasehold => (0..count).map(|id| pid_file(&dir, id)).collect(),
            Who::Kafka => peer.children.iter().map(Pid::from_child).collect(),
        };
        peer
    }

    /// One broker's address.
    pub fn address(broker: u16) -> SocketAddr {
        ([127, 0, 0, 1], PORT + broker).into()
    }

    /// CPU seconds of all brokers so far.
    pub fn cpu(&self) -> f64 {
        let ticks = |pid: &Pid| -> f64 {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
            let fields = stat.rsplit_once(") ").expect("a name").1;
            let field = |n: usize| fields.split(' ').nth(n).and_then(|f| f.parse().ok());
            field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0)
        };
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        self.brokers.iter().map(ticks).sum::<f64>() / per_second
    }

    /// Resident memory of all brokers, in MiB.
    pub fn memory(&self) -> f64 {
        let resident = |pid: &Pid| -> f64 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
            let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
            let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
            kib.unwrap_or(0.0)
        };
        self.brokers.iter().map(resident).sum::<f64>() / 1024.0
    }

    /// Has the machine give this much memory to the kernel, which then has it at hand for the page cache. A
    /// virtual machine may get its memory only at the first touch of each page, which costs more than all that a
    /// broker does, and lose it again seconds after it was freed (free page reporting). `write` is the size of
    /// the writes that follow: by it the kernel chooses which pages it takes.
    pub fn warm_page_cache(&self, bytes: usize, write: usize) -> anyhow::Result<()> {
        let path = self.folder.path().join("warm");
        let mut file = fs::File::create(&path)?;
        let chunk = vec![1; write];
        for _ in 0..bytes.div_ceil(chunk.len()) {
            file.write_all(&chunk)?;
        }
        Ok(fs::remove_file(&path)?)
    }

    /// Kills every process at once, as by SIGKILL, and starts all anew over what they left.
    pub fn kill_all_and_restart(mut self) -> Self {
        let count = u16::try_from(self.brokers.len()).expect("few brokers");
        // Whoever would start them again goes first.
        self.children
            .iter()
            .for_each(|child| signal(Pid::from_child(child), Signal::KILL));
        self.brokers
            .iter()
            .for_each(|pid| signal(*pid, Signal::KILL));
        self.end();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        let config = std::mem::take(&mut self.config);
        Self::start_in(self.who, count, config, folder)
    }

    fn end(&mut self) {
        for child in &mut self.children {
            child.wait().expect("the end of a process");
        }
        for pid in self.brokers.drain(..) {
            wait::until("the end of a broker", PATIENCE, || {
                let there = Path::new(&format!("/proc/{pid}")).exists();
                if there { Err(pid) } else { Ok(()) }
            });
        }
        self.children.clear();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.children
            .iter()
            .for_each(|child| signal(Pid::from_child(child), Signal::TERM));
        self.end();
    }
}

fn signal(pid: Pid, signal: Signal) {
    // It may be gone already.
    let _ = kill_process(pid, signal);
}

fn pid_file(dir: &Path, broker: u16) -> Pid {
    let file = dir.join(format!("broker-{broker}/broker.pid"));
    let text = fs::read_to_string(file).expect("broker.pid");
    Pid::from_raw(text.trim().parse().expect("a process id")).expect("not 0")
}

fn output(dir: &Path, name: &str) -> fs::File {
    fs::File::create(dir.join(name)).expect("a file for the output")
}

fn leasehold(dir: &Path, brokers: u16, config: &[(&str, &str)]) -> Child {
    let mut command = Command::new(broker_binary());
    command.args([
        "dev",
        "--brokers",
        &brokers.to_string(),
        "--port",
        &PORT.to_string(),
    ]);
    command.args(["--http-port", "28080", "--data"]).arg(dir);
    if !config.is_empty() {
        let lines = config
            .iter()
            .map(|(key, value)| format!("{key}: \"{value}\"\n"));
        let file = dir.join("config.yaml");
        fs::write(&file, lines.collect::<String>()).expect("a file for the configuration");
        command.arg("--config").arg(file);
    }
    let out = output(dir, "output");
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("dup"))
        .stderr(out);
    command.spawn().expect("leasehold-broker")
}

fn node(dir: &Path, id: u16, count: u16, more: &[(&'static str, &str)]) -> Node {
    let mut config = vec![
        ("offsets.topic.replication.factor", count.to_string()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
    ];
    config.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    Node {
        dir: dir.to_owned(),
        id,
        port: PORT + id,
        controller_port: CONTROLLER_PORT,
        features: &[],
        config,
    }
}
