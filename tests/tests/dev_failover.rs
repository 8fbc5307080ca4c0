//! A laptop cluster loses brokers, twenty times each way: how long a librdkafka producer waits
//! between two acknowledgements, and whether everything acknowledged is still there afterwards.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::Load;
use leasehold_tests::topics::{self, Seen, Viewer};
use leasehold_tests::witness::Witness;
use leasehold_tests::{readback, wait};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const TOPIC: &str = "failover";
const PARTITIONS: i32 = 3;
const ROUNDS: usize = 20;
/// A broker that is back soon gets its leaderships again, so that there is always one to hit.
const CONFIG: &str = "leader.restore.delay.ms: 500\n";

/// Whom to hit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    /// A leader that is not the controller.
    Leader,
    /// The leader that is the controller too.
    Controller,
}

struct Scene {
    dev: Dev,
    viewer: Viewer,
    load: Load,
    witness: Witness,
}

impl Scene {
    fn start(settings: &[(&str, &str)]) -> Self {
        let dev = Dev::start_with_config(3, &["--no-restart"], CONFIG);
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        runtime
            .block_on(topics::create(
                &dev.bootstrap(),
                TOPIC,
                PARTITIONS,
                3,
                &[("min.insync.replicas", "2")],
            ))
            .expect("the topic is created");
        let viewer = Viewer::new(&dev.bootstrap());
        viewer.wait_in_sync(TOPIC, PATIENCE);
        let load = Load::start(&dev.bootstrap(), TOPIC, PARTITIONS, 600, settings);
        load.wait_flowing(PATIENCE);
        Self {
            dev,
            viewer,
            load,
            witness: Witness::start(),
        }
    }

    /// Waits until every replica is in sync and every partition led by its preferred replica.
    fn wait_restored(&self) {
        wait::until("every leadership to be back", PATIENCE, || {
            let seen = self.viewer.wait_in_sync(TOPIC, PATIENCE);
            let back = |p: &Seen| p.replicas.first() == Some(&p.leader);
            seen.iter().all(back).then_some(()).ok_or(seen)
        });
    }

    /// A broker that leads at least one partition, and is or is not the controller.
    fn choose(&self, victim: Victim) -> u16 {
        wait::until(&format!("a broker to hit as {victim:?}"), PATIENCE, || {
            let partitions = self.viewer.partitions(TOPIC)?;
            let leads = |id: u16| partitions.iter().any(|p| p.leader == i32::from(id));
            let controller = self.dev.controller_seen_by(0)?;
            let mut fitting = (0..3)
                .filter(|id| leads(*id) && (*id == controller) == (victim == Victim::Controller));
            fitting.next().ok_or_else(|| {
                anyhow::anyhow!("the controller is {controller}, the partitions {partitions:?}")
            })
        })
    }

    /// Strikes once, lets the broker come back, and gives the longest gap of any partition, without the time in
    /// which the machine itself stood still.
    fn strike(&mut self, victim: Victim, signal: Signal) -> Duration {
        self.load.renew();
        self.load.wait_flowing(PATIENCE);
        let id = self.choose(victim);
        let process = self.dev.pid(id).expect("pid file");
        let struck = Instant::now();
        self.dev.signal(id, signal);
        self.load.wait_flowing(PATIENCE);
        if signal == Signal::STOP {
            self.dev.signal(id, Signal::CONT);
            // It was replaced by its own successor if it found its registration gone.
        } else {
            self.dev.wait_ended(process);
        }
        self.dev.restart_killed();
        self.dev.wait_ready();
        // What the broker's return costs counts as well, and that it leads again.
        self.wait_restored();
        let closed = self.load.wait_flowing(PATIENCE);
        self.load
            .peek(|history| history.longest_gap(struck, closed))
            .of_the_software(&self.witness)
    }

    fn finish(self) {
        let bootstrap = self.dev.bootstrap();
        let history = self.load.stop();
        assert!(
            history.failed.is_empty(),
            "failed deliveries: {:?}",
            history.failed
        );
        readback::check(&bootstrap, TOPIC, &history);
        println!(
            "  {} acknowledged records read back, in order, once each",
            history.acked_total()
        );
    }
}

fn report(what: &str, mut gaps: Vec<Duration>, median: Duration, worst: Duration) {
    let millis: Vec<u128> = gaps.iter().map(Duration::as_millis).collect();
    gaps.sort();
    let (middle, last) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!(
        "{what}: median {middle:.1?}, worst {last:.1?} of {} (ms: {millis:?})",
        gaps.len()
    );
    assert!(
        middle <= median,
        "{what}: median {middle:?} is above {median:?}"
    );
    assert!(last <= worst, "{what}: worst {last:?} is above {worst:?}");
}

fn rounds(victim: Victim, signal: Signal, rounds: usize) -> Vec<Duration> {
    let settings: &[(&str, &str)] = match signal {
        // A frozen broker closes no connection: a client learns of it by its own patience only,
        // which is a minute by default.
        Signal::STOP => &[
            ("socket.timeout.ms", "1000"),
            ("request.timeout.ms", "1000"),
        ],
        _ => &[],
    };
    let mut scene = Scene::start(settings);
    let gaps = (0..rounds).map(|_| scene.strike(victim, signal)).collect();
    scene.finish();
    gaps
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_killed_leader_is_replaced_within_400_ms() {
    let gaps = rounds(Victim::Leader, Signal::KILL, ROUNDS);
    report("kill -9 of a leader", gaps, MS(400), MS(1000));
}

#[test]
fn a_killed_leader_and_controller_is_replaced_within_400_ms() {
    let gaps = rounds(Victim::Controller, Signal::KILL, ROUNDS);
    report(
        "kill -9 of a leader that is controller",
        gaps,
        MS(400),
        MS(1000),
    );
}

#[test]
fn a_stopping_leader_hands_over_within_150_ms() {
    let gaps = rounds(Victim::Leader, Signal::TERM, ROUNDS);
    report("SIGTERM of a leader", gaps, MS(150), MS(300));
}

#[test]
fn a_frozen_leader_is_replaced_after_the_session_timeout() {
    let gaps = rounds(Victim::Leader, Signal::STOP, 3);
    // The session timeout of 3 s and one more.
    report("SIGSTOP of a leader", gaps, MS(4000), MS(4000));
}
