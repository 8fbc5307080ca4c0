//! A process as a runtime of its own: it runs only when it is told to, up to a point in time, on a clock of
//! its own. Dropping it is a crash at that very point; not running it is a pause.

use crate::broker;
use crate::core::Shared;
use futures::future::BoxFuture;
use leasehold_broker::internal::peer::{Peer, simulated};
use leasehold_types::Incarnation;
use leasehold_types::seams::simulated as simulation;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance, sleep, sleep_until};

/// What the calendar says when a run begins, in milliseconds since 1970.
pub const CALENDAR: i64 = 1_700_000_000_000;

/// How many bytes are to stay free of each disk.
pub const MIN_FREE: u64 = 1_000;

/// How far the calendar of a process on `node` is after [`CALENDAR`], which someone set ahead by `jumped`: no two
/// machines agree on the time.
pub(crate) fn calendar_of(node: usize, jumped: i64, now: u64) -> i64 {
    jumped + 37 * node as i64 + i64::try_from(now).unwrap_or(0)
}

thread_local! {
    /// The running process's clock.
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
    /// Whose process is running.
    static RUNNING: RefCell<Option<(Shared, usize)>> = const { RefCell::new(None) };
}

#[derive(Clone, Copy)]
struct Clock {
    /// Where it began.
    base: Instant,
    /// What CLOCK_BOOTTIME is ahead of it.
    ahead: Duration,
    /// The calendar's milliseconds when it began.
    born: i64,
}

fn since_boot() -> Duration {
    let Some(clock) = CLOCK.get() else {
        return Duration::ZERO;
    };
    clock.ahead + Instant::now().saturating_duration_since(clock.base)
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn wall_ms() -> i64 {
    let Some(clock) = CLOCK.get() else {
        return CALENDAR;
    };
    let since = Instant::now().saturating_duration_since(clock.base);
    clock.born + i64::try_from(since.as_millis()).unwrap_or(0)
}

fn machine() -> (String, String) {
    RUNNING.with_borrow(|running| match running {
        Some((core, node)) => core.lock().nodes[*node].disk.machine(),
        None => Default::default(),
    })
}

/// Little or much: no disk here is filled by what is written to it.
fn free_bytes(_: &Path) -> u64 {
    RUNNING.with_borrow(|running| match running {
        Some((core, node)) if core.lock().nodes[*node].disk.full => MIN_FREE / 2,
        _ => u64::MAX,
    })
}

fn background(job: simulation::Job) {
    tokio::spawn(async move {
        sleep(Duration::from_millis(simulation::up_to(40))).await;
        job();
    });
}

/// Whose process is running.
pub(crate) fn running() -> Option<(Shared, usize)> {
    RUNNING.with_borrow(Clone::clone)
}

/// Puts the seams into the hands of this run; undone when it is dropped.
pub struct Seams;

impl Seams {
    pub fn take(seed: u64, rule: Option<&str>) -> Self {
        let world = simulation::World {
            since_boot,
            now,
            wall_ms,
            machine,
            background,
            free_bytes,
        };
        simulation::begin(seed, world, rule);
        simulated::WATCH.set(Some(watch));
        Self
    }
}

impl Drop for Seams {
    fn drop(&mut self) {
        simulation::end();
        simulated::WATCH.set(None);
        RUNNING.set(None);
        CLOCK.set(None);
    }
}

/// One process.
pub struct Process {
    core: Shared,
    pub node: usize,
    runtime: Runtime,
    base: Instant,
    born: u64,
    ahead: Duration,
    pub paused_until: u64,
    /// What its calendar jumped by.
    jumped: i64,
}

impl Process {
    /// Starts a broker on `node`.
    pub fn start(core: &Shared, node: usize, life: Incarnation) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let base = runtime.block_on(async { Instant::now() });
        let (sender, inbox) = mpsc::unbounded_channel();
        let born = {
            let mut core = core.lock();
            core.nodes[node].up = Some(life);
            core.nodes[node].inbox = Some(sender);
            core.nodes[node].calendar = 0;
            core.note(format!("node  {node} starts as {life}"));
            core.now
        };
        let process = Self {
            core: core.clone(),
            node,
            runtime,
            base,
            born,
            // No two machines agree on how long they have been up.
            ahead: Duration::from_secs(1_000 * (node as u64 + 1)),
            paused_until: 0,
            jumped: 0,
        };
        process.enter();
        process
            .runtime
            .spawn(broker::run(core.clone(), node, life, inbox));
        Ok(process)
    }

    fn enter(&self) {
        CLOCK.set(Some(Clock {
            base: self.base,
            ahead: self.ahead,
            born: CALENDAR + calendar_of(self.node, self.jumped, self.born),
        }));
        RUNNING.set(Some((self.core.clone(), self.node)));
    }

    /// Runs everything that happens here before `now`. After a pause its clock jumps first.
    pub fn run_until(&self, now: u64) {
        self.enter();
        let target = self.base + Duration::from_millis(now - self.born);
        self.runtime.block_on(async {
            let behind = target.saturating_duration_since(Instant::now());
            let step = Duration::from_millis(crate::core::STEP);
            if behind > step * 2 {
                self.core.lock().nodes[self.node].resumed_at = now;
                advance(behind - step).await;
            }
            sleep_until(target).await;
        });
    }

    /// Someone set the calendar.
    pub fn set_calendar(&mut self, by: i64) {
        self.jumped += by;
        self.core.lock().nodes[self.node].calendar = self.jumped;
    }

    /// The machine slept: CLOCK_BOOTTIME went on without the other clocks.
    pub fn sleep_through(&mut self, gone: Duration) {
        self.ahead += gone;
    }
}

/// What a held connection tells of `peer`: its end, if that can be heard from here.
fn watch(peer: Peer) -> BoxFuture<'static, String> {
    let running = running();
    Box::pin(async move {
        let Some((core, me)) = running else {
            return std::future::pending().await;
        };
        let them = broker::place(peer.broker);
        let (mut held, mut unanswered) = (false, 0);
        loop {
            let (linked, alive) = {
                let core = core.lock();
                let linked = core.linked(me, them) && core.linked(them, me);
                (
                    linked,
                    core.nodes
                        .get(them)
                        .is_some_and(|n| n.up == Some(peer.incarnation)),
                )
            };
            match (linked, alive) {
                (true, true) => (held, unanswered) = (true, 0),
                (true, false) => {
                    sleep(Duration::from_millis(20)).await;
                    return "its connection ended (simulated)".to_owned();
                }
                // A connection that stands tells nothing through a cut; a new one is not answered.
                (false, _) if !held => unanswered += 1,
                (false, _) => {}
            }
            if unanswered > 60 {
                return "it does not answer (simulated)".to_owned();
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
}
