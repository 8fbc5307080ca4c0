//! What the product itself says in its log, as lines of the trace of a run that is replayed.

use crate::process::running;
use std::cell::RefCell;
use std::io::Write;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

thread_local! {
    /// Said while the world was held: told with the next line.
    static HELD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// As long as this lives, the trace has the log lines of all processes.
#[must_use]
pub fn listen() -> DefaultGuard {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .without_time()
        .with_ansi(false)
        .with_writer(Voice)
        .finish();
    tracing::subscriber::set_default(subscriber)
}

/// Before a run: nothing is left of the one before.
pub(crate) fn forget() {
    HELD.take();
}

struct Voice;

impl MakeWriter<'_> for Voice {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

/// A line that is being said.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let said = String::from_utf8_lossy(&self.0);
        let Some((core, node)) = running() else {
            return;
        };
        let line = format!("says  {node}: {}", said.trim());
        match core.try_lock() {
            Some(mut core) => {
                for line in HELD.take() {
                    core.note(line);
                }
                core.note(line);
            }
            None => HELD.with_borrow_mut(|held| held.push(line)),
        }
    }
}
