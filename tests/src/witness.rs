//! A witness of the machine: when it stood still, so that a limit in milliseconds is one of the software.
//!
//! A thread writes a page and has it synced, twenty times a second, and notes every round that took far longer than
//! it does on an idle disk: the processor was given to another machine, or the disk was busy with somebody else's
//! data. What a broker, etcd or a client waited for meanwhile was not theirs to speed up.
//!
//! Promise: it only ever tells of its own file and its own sleep. A slow broker is no stall.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(50);
/// A round of an idle machine takes less than a millisecond beyond its pause.
const STALLED: Duration = Duration::from_millis(20);

/// From when to when the machine stood still.
pub type Stall = (Instant, Instant);

/// The running witness; it ends when dropped.
pub struct Witness {
    stalls: Arc<Mutex<Vec<Stall>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Watches the disk of the folder for temporary files, where the clusters of the tests are as well.
    pub fn start() -> Self {
        let file = tempfile::tempfile().expect("a temporary file");
        let (stalls, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (stalls, stop) = (Arc::clone(&stalls), stop.clone());
            move || watch(&file, &stalls, &stop)
        });
        Self {
            stalls,
            stop,
            thread: Some(thread),
        }
    }

    /// How long of `[from, to]` the machine stood still.
    pub fn stood_still(&self, from: Instant, to: Instant) -> Duration {
        within(&self.stalls.lock().expect("stalls"), from, to)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has said its word; a second one here would hide the first.
            let _ = thread.join();
        }
    }
}

fn watch(file: &File, stalls: &Mutex<Vec<Stall>>, stop: &AtomicBool) {
    let page = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let due = Instant::now() + PAUSE;
        std::thread::sleep(PAUSE);
        file.write_all_at(&page, 0).expect("the witness' page");
        file.sync_data().expect("the witness' page is synced");
        let done = Instant::now();
        if done - due > STALLED {
            stalls.lock().expect("stalls").push((due, done));
        }
    }
}

fn within(stalls: &[Stall], from: Instant, to: Instant) -> Duration {
    let overlap = |(begun, over): &Stall| {
        (*over)
            .min(to)
            .saturating_duration_since((*begun).max(from))
    };
    stalls.iter().map(overlap).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_within_the_time_asked_for_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let stalls = [(at(0), at(100)), (at(200), at(260)), (at(400), at(900))];
        let asked = |from, to| within(&stalls, at(from), at(to)).as_millis();
        assert_eq!(asked(50, 500), 50 + 60 + 100);
        assert_eq!(asked(100, 200), 0);
        assert_eq!(asked(210, 220), 10);
        assert_eq!(asked(950, 1000), 0);
    }
}
