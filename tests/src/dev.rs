//! A `leasehold-broker dev` cluster of a test's own: free ports, a directory that goes with it,
//! and the means to kill its brokers one by one.

use crate::{http, wait};
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// How long a cluster may take to do what a test waits for, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `dev` cluster. Dropping it ends its processes.
pub struct Dev {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
    http_port: u16,
    brokers: u16,
}

/// A broker beside those that `dev` started. Dropping it stops it cleanly.
pub struct Joined {
    child: Child,
    /// Where it serves probes, metrics and status.
    pub http: SocketAddr,
}

impl Joined {
    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(process) = Pid::from_raw(self.child.id() as i32) {
            kill_process(process, Signal::TERM).ok();
        }
        self.child.wait().ok();
    }
}

/// The release binary; `LEASEHOLD_BROKER` names another.
pub fn broker_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LEASEHOLD_BROKER") {
        return path.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    target.join("release/leasehold-broker")
}

/// `count` consecutive free ports below the range that the kernel gives out by itself, not given out
/// to another cluster of this process.
fn free_ports(count: u16) -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().expect("ports");
    let mut base = next.unwrap_or(10_000 + (std::process::id() as u16 % 500) * 40);
    loop {
        let all: Result<Vec<_>, _> = (base..base + count)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        let following = 10_000 + (base - 10_000 + count) % 20_000;
        if all.is_ok() {
            *next = Some(following);
            return base;
        }
        base = following;
    }
}

impl Dev {
    /// Starts `brokers` brokers with the given further arguments and waits until all are ready.
    pub fn start(brokers: u16, args: &[&str]) -> Self {
        Self::start_with_config(brokers, args, "")
    }

    /// As [`Dev::start`], with a configuration file of this text.
    pub fn start_with_config(brokers: u16, args: &[&str], config: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("leasehold-dev-")
            .tempdir()
            .expect("temp dir");
        Self::start_with(dir, brokers, args, config)
    }

    /// Starts a cluster over the directory that another left.
    pub fn start_in(dir: tempfile::TempDir, brokers: u16, args: &[&str]) -> Self {
        Self::start_with(dir, brokers, args, "")
    }

    /// As [`Dev::start_with_config`], over a directory in which something lies already.
    pub fn start_over(dir: tempfile::TempDir, brokers: u16, args: &[&str], config: &str) -> Self {
        Self::start_with(dir, brokers, args, config)
    }

    fn start_with(dir: tempfile::TempDir, brokers: u16, args: &[&str], config: &str) -> Self {
        let port = free_ports(brokers * 2);
        let mut dev = Self {
            child: Self::spawn(dir.path(), brokers, port, args, config),
            dir,
            port,
            http_port: port + brokers,
            brokers,
        };
        dev.wait_ready();
        dev
    }

    fn spawn(dir: &Path, brokers: u16, port: u16, args: &[&str], config: &str) -> Child {
        let binary = broker_binary();
        let mut command = Command::new(&binary);
        command.arg("dev");
        command.args([
            "--brokers",
            &brokers.to_string(),
            "--port",
            &port.to_string(),
        ]);
        command.args(["--http-port", &(port + brokers).to_string()]);
        command.arg("--data").arg(dir.join("data")).args(args);
        if !config.is_empty() {
            let file = dir.join("config.yaml");
            std::fs::write(&file, config).expect("config file");
            command.arg("--config").arg(file);
        }
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("dev.out"))
            .expect("dev.out");
        command
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", binary.display()))
    }

    /// Waits until every broker answers ready.
    pub fn wait_ready(&mut self) {
        for id in 0..self.brokers {
            wait::until(&format!("broker {id} to be ready"), PATIENCE, || {
                http::get(self.http(id), "/readyz").map(drop)
            });
        }
    }

    /// Starts another broker of this cluster, one that `dev` itself does not know, and waits until it is ready.
    pub fn join(&self, id: u16) -> Joined {
        self.join_with(id, &[])
    }

    /// As [`Dev::join`], with further arguments.
    pub fn join_with(&self, id: u16, more: &[String]) -> Joined {
        let port = free_ports(2);
        let [client, http] = [port, port + 1].map(|port| ([127, 0, 0, 1], port).into());
        let joined = self.run(&broker_binary(), id, (client, http), more);
        wait::until(&format!("broker {id} to be ready"), PATIENCE, || {
            http::get(http, "/readyz").map(drop)
        });
        joined
    }

    /// Starts broker `id`, which `dev --no-restart` started and which has ended, from another binary.
    pub fn start_from(&self, binary: &Path, id: u16) -> Joined {
        self.run(binary, id, (self.client(id), self.http(id)), &[])
    }

    fn run(
        &self,
        binary: &Path,
        id: u16,
        (client, http): (SocketAddr, SocketAddr),
        more: &[String],
    ) -> Joined {
        let dir = self.data().join(format!("broker-{id}"));
        std::fs::create_dir_all(&dir).expect("folder");
        let client = client.to_string();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("broker.log"))
            .expect("broker.log");
        let mut command = Command::new(binary);
        command.args(["run", "--id", &id.to_string(), "--cluster", "dev"]);
        command.args(["--store", "directory", "--store-dir"]);
        command.arg(self.data().join("metadata"));
        command.arg("--data").arg(dir.join("data"));
        command.arg("--config").arg(self.data().join("broker.yaml"));
        command.args(["--client-listen", &client, "--advertise", &client]);
        command.args(["--internal-listen", "127.0.0.1:0"]);
        command.args(["--http-listen", &http.to_string()]);
        command.args(more);
        command.args(["--end-with-parent", &std::process::id().to_string()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("start a broker");
        Joined { child, http }
    }

    /// Bootstrap addresses of all brokers.
    pub fn bootstrap(&self) -> String {
        let all: Vec<String> = (0..self.brokers)
            .map(|id| format!("127.0.0.1:{}", self.port + id))
            .collect();
        all.join(",")
    }

    /// The client address of one broker.
    pub fn client(&self, id: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.port + id).into()
    }

    /// The HTTP address of one broker.
    pub fn http(&self, id: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.http_port + id).into()
    }

    /// The directory given as `--data`.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What `dev` printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("dev.out")).unwrap_or_default()
    }

    /// The process of broker `id`, from its pid file.
    pub fn pid(&self, id: u16) -> anyhow::Result<Pid> {
        let path = self.data().join(format!("broker-{id}/broker.pid"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Pid::from_raw(text.trim().parse()?).context("pid 0")
    }

    /// Sends a signal to broker `id`.
    pub fn signal(&self, id: u16, signal: Signal) {
        kill_process(self.pid(id).expect("pid file"), signal).expect("signal");
    }

    /// Waits until a process that was told to end has ended.
    pub fn wait_ended(&self, process: Pid) {
        wait::until(&format!("process {process:?} to end"), PATIENCE, || {
            match rustix::process::test_kill_process(process) {
                Err(_) => Ok(()),
                Ok(()) => Err("it is there"),
            }
        });
    }

    /// Asks `dev --no-restart` to start the brokers that were killed.
    pub fn restart_killed(&self) {
        kill_process(self.own_pid(), Signal::USR1).expect("SIGUSR1");
    }

    /// The same, as a person at the terminal does: presses Enter.
    pub fn press_enter(&mut self) {
        let terminal = self.child.stdin.as_mut().expect("piped");
        terminal.write_all(b"\n").expect("dev reads its input");
    }

    /// The process of `dev` itself.
    pub fn own_pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).expect("pid")
    }

    /// `/status` of broker `id`.
    pub fn status(&self, id: u16) -> anyhow::Result<serde_json::Value> {
        http::get_json(self.http(id), "/status")
    }

    /// The controller as broker `id` knows it.
    pub fn controller_seen_by(&self, id: u16) -> anyhow::Result<u16> {
        let status = self.status(id)?;
        let controller = status["controller"]["broker"].as_u64();
        Ok(
            controller.with_context(|| format!("no controller in {}", status["controller"]))?
                as u16,
        )
    }

    /// Resident memory of broker `id` in KiB.
    pub fn resident_kib(&self, id: u16) -> u64 {
        let pid = self.pid(id).expect("pid file").as_raw_nonzero();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("proc status");
        let line = text
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number of KiB")
    }

    /// Stops with SIGINT, as Ctrl-C does, and waits for the end; gives whether it ended well.
    pub fn interrupt(mut self) -> (bool, tempfile::TempDir) {
        kill_process(self.own_pid(), Signal::INT).expect("SIGINT");
        let ended = self.child.wait().expect("wait").success();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("temp dir"));
        (ended, dir)
    }

    /// Everything that broker `id` logged.
    pub fn log(&self, id: u16) -> String {
        let path = self.data().join(format!("broker-{id}/broker.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The logs of all brokers, for a failure.
    pub fn logs(&self) -> String {
        let mut text = self.output();
        for id in 0..self.brokers {
            let log = self.log(id);
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            text += &format!("--- broker {id}\n");
            text.extend(tail.into_iter().rev().map(|line| format!("{line}\n")));
        }
        text
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // A broker that a test left stopped cannot hear SIGTERM.
        for id in 0..self.brokers {
            if let Ok(pid) = self.pid(id) {
                kill_process(pid, Signal::CONT).ok();
            }
        }
        kill_process(self.own_pid(), Signal::TERM).ok();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if std::time::Instant::now() > deadline {
                self.child.kill().ok();
                self.child.wait().ok();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
