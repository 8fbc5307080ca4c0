//! The threads that touch the disk.
//!
//! Each partition has one lane, a thread that runs its jobs in the order in which they were
//! submitted: appends keep their callers' order, and whatever changes a log never overlaps with
//! another change of it. Reads do not come here.
//!
//! In the simulation lanes, and what else may block, are tasks of the process' own runtime, which take
//! as long as the seed says.

use leasehold_types::seams;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

enum Lane {
    Thread(Sender<Job>),
    #[cfg(feature = "simulation")]
    Task(tokio::sync::mpsc::UnboundedSender<Job>),
}

/// A fixed number of lanes. Dropped, they finish what is queued and end.
pub struct IoPool {
    lanes: Vec<Lane>,
}

impl IoPool {
    /// Starts `lanes` threads.
    pub fn start(lanes: usize) -> std::io::Result<Self> {
        let mut pool = Self { lanes: Vec::new() };
        for n in 0..lanes.max(1) {
            if seams::one_thread() {
                #[cfg(feature = "simulation")]
                pool.lanes.push(simulated::lane());
                continue;
            }
            let (sender, jobs) = channel();
            std::thread::Builder::new()
                .name(format!("log-{n}"))
                .spawn(move || run(&jobs))?;
            pool.lanes.push(Lane::Thread(sender));
        }
        Ok(pool)
    }

    /// Queues `job` on the lane that `key` belongs to.
    pub fn submit(&self, key: u64, job: impl FnOnce() + Send + 'static) {
        let lane = (key % self.lanes.len() as u64) as usize;
        // The thread, and with it the receiver, lives as long as this sender.
        match &self.lanes[lane] {
            Lane::Thread(jobs) => drop(jobs.send(Box::new(job))),
            #[cfg(feature = "simulation")]
            Lane::Task(jobs) => drop(jobs.send(Box::new(job))),
        }
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
        run_one(job);
    }
}

fn run_one(job: Job) {
    // A lane must outlive a fault in one job: many partitions depend on it. Whoever waited for
    // that job sees its channel closed.
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a job of the log threads panicked; its request fails");
    }
}

/// Does what may block, and belongs to no lane, off the async workers.
pub fn blocking<R: Send + 'static>(job: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    #[cfg(feature = "simulation")]
    if seams::one_thread() {
        return simulated::blocking(job);
    }
    tokio::task::spawn_blocking(job)
}

#[cfg(feature = "simulation")]
mod simulated {
    use super::{Job, Lane, run_one};
    use leasehold_types::seams::simulated::up_to;
    use std::time::Duration;
    use tokio::sync::mpsc::unbounded_channel;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    pub(super) fn lane() -> Lane {
        let (sender, mut jobs) = unbounded_channel::<Job>();
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                the_disk().await;
                run_one(job);
            }
        });
        Lane::Task(sender)
    }

    pub(super) fn blocking<R: Send + 'static>(
        job: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        tokio::spawn(async move {
            the_disk().await;
            job()
        })
    }

    /// As long as a disk takes: now and then longer, and rarely so long that a leader may be replaced meanwhile.
    async fn the_disk() {
        let ms = match up_to(1_999) {
            0 => up_to(900),
            1..20 => up_to(60),
            n => n % 3,
        };
        sleep(Duration::from_millis(ms)).await;
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
