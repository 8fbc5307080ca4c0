//! The threads that touch the disk.
//!
//! Each partition has one lane, a thread that runs its jobs in the order in which they were
//! submitted: appends keep their callers' order, and whatever changes a log never overlaps with
//! another change of it. Reads do not come here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of lanes. Dropped, they finish what is queued and end.
pub struct IoPool {
    lanes: Vec<Sender<Job>>,
}

impl IoPool {
    /// Starts `lanes` threads.
    pub fn start(lanes: usize) -> std::io::Result<Self> {
        let mut pool = Self { lanes: Vec::new() };
        for n in 0..lanes.max(1) {
            let (sender, jobs) = channel();
            std::thread::Builder::new()
                .name(format!("log-{n}"))
                .spawn(move || run(&jobs))?;
            pool.lanes.push(sender);
        }
        Ok(pool)
    }

    /// Queues `job` on the lane that `key` belongs to.
    pub fn submit(&self, key: u64, job: impl FnOnce() + Send + 'static) {
        let lane = (key % self.lanes.len() as u64) as usize;
        // The thread, and with it the receiver, lives as long as this sender.
        let _ = self.lanes[lane].send(Box::new(job));
    }

    /// Resolves when everything submitted before has run.
    pub async fn drain(&self) {
        let mut ends = Vec::new();
        for lane in 0..self.lanes.len() {
            let (done, end) = oneshot::channel::<()>();
            self.submit(lane as u64, move || drop(done));
            ends.push(end);
        }
        for end in ends {
            let _ = end.await;
        }
    }
}

fn run(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        // A lane must outlive a fault in one job: many partitions depend on it. Whoever waited for
        // that job sees its channel closed.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of the log threads panicked; its request fails");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn jobs_of_one_key_run_in_the_order_of_their_submission() {
        let pool = IoPool::start(3).unwrap();
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for n in 0..100 {
            let seen = seen.clone();
            pool.submit(7, move || seen.lock().push(n));
        }
        pool.drain().await;
        assert_eq!(*seen.lock(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_in_one_job_does_not_take_its_lane_down() {
        let pool = IoPool::start(1).unwrap();
        pool.submit(0, || panic!("on purpose"));
        let (done, end) = oneshot::channel();
        pool.submit(0, move || {
            let _ = done.send(());
        });
        assert_eq!(end.await, Ok(()));
    }
}
