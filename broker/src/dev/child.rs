//! One broker of `dev` as a child process: how it is started, what it leaves on disk, how it ends.

use super::layout::Layout;
use anyhow::Context as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

/// A running broker process.
pub struct Broker {
    /// Its id, from 0.
    pub id: u16,
    /// When it was started, to tell a crash loop from a crash.
    pub started: tokio::time::Instant,
    child: Child,
}

impl Broker {
    /// Starts broker `id`. Its log goes to `broker.log`, its process id to `broker.pid`, both in
    /// its own directory.
    pub fn start(id: u16, layout: &Layout) -> anyhow::Result<Self> {
        let dir = layout.broker_dir(id);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let log_path = dir.join("broker.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot open {}", log_path.display()))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(&program)
            .args(layout.broker_args(id))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: Ctrl-C reaches `dev` alone, which then stops the brokers in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let broker = Self {
            id,
            started: tokio::time::Instant::now(),
            child,
        };
        broker.write_pid_file(dir.join("broker.pid"))?;
        Ok(broker)
    }

    fn write_pid_file(&self, path: PathBuf) -> anyhow::Result<()> {
        let Some(pid) = self.child.id() else {
            return Ok(());
        };
        let temporary = path.with_extension("pid.new");
        std::fs::write(&temporary, format!("{pid}\n"))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Waits for the process to end. Safe to cancel.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends SIGTERM; a second one makes the broker end at once.
    pub fn terminate(&self) {
        let Some(pid) = self
            .child
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
        else {
            return;
        };
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            // Gone already is what was wanted.
            tracing::debug!(broker = self.id, %error, "could not send SIGTERM");
        }
    }
}
