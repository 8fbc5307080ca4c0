//! Groups of the newer protocol (KIP-848) on a laptop cluster, with clients that others wrote: librdkafka
//! and Apache Kafka's consumer share topics, their coordinator dies, topics grow, and nothing is lost.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::Load;
use leasehold_tests::tools::{kafka, run};
use leasehold_tests::topics::{self, Viewer};
use leasehold_tests::{wait, wire};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Members heartbeat ten times as often as by default: each step of a rebalance is one heartbeat.
const CONFIG: &str = "group.consumer.heartbeat.interval.ms: 500\n\
                      group.initial.rebalance.delay.ms: 0\n";

/// Which protocol a member speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Classic,
    Consumer,
}

/// Offsets by partition that somebody read.
type Read = Arc<Mutex<BTreeSet<(i32, i64)>>>;

/// A librdkafka consumer in a thread of its own, which commits what it has read.
struct Member {
    stop: Arc<AtomicBool>,
    assigned: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn join(dev: &Dev, topic: &str, group: &str, protocol: Protocol, read: &Read) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", dev.bootstrap())
            .set("group.id", group)
            .set("auto.commit.interval.ms", "200")
            .set("auto.offset.reset", "earliest");
        match protocol {
            Protocol::Consumer => config.set("group.protocol", "consumer"),
            Protocol::Classic => config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("heartbeat.interval.ms", "500"),
        };
        let consumer: BaseConsumer = config.create().expect("librdkafka accepts it");
        consumer.subscribe(&[topic]).expect("subscribe");
        let stop = Arc::<AtomicBool>::default();
        let assigned = Arc::<AtomicUsize>::default();
        let (told, shown, read) = (stop.clone(), assigned.clone(), read.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                    let at = (message.partition(), message.offset());
                    read.lock().expect("read").insert(at);
                }
                let share = consumer.assignment().expect("assignment").count();
                shown.store(share, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            assigned,
            thread: Some(thread),
        }
    }

    fn assigned(&self) -> usize {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Ends it: it commits and leaves the group.
    fn leave(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the member");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

/// A cluster with a topic to which records flow.
struct Scene {
    dev: Dev,
    runtime: tokio::runtime::Runtime,
    topic: &'static str,
    load: Load,
    read: Read,
}

impl Scene {
    fn start(topic: &'static str, partitions: i32) -> Self {
        let dev = Dev::start_with_config(3, &["--no-restart"], CONFIG);
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        runtime
            .block_on(topics::create(&dev.bootstrap(), topic, partitions, 3, &[]))
            .expect("the topic is created");
        Viewer::new(&dev.bootstrap()).wait_in_sync(topic, PATIENCE);
        let load = Load::start(&dev.bootstrap(), topic, partitions, 300, &[]);
        load.wait_flowing(PATIENCE);
        Self {
            dev,
            runtime,
            topic,
            load,
            read: Read::default(),
        }
    }

    fn join(&self, group: &str, protocol: Protocol) -> Member {
        Member::join(&self.dev, self.topic, group, protocol, &self.read)
    }

    fn wait_shares(&self, members: &[&Member], expected: &[usize]) {
        wait::until(&format!("shares of {expected:?}"), PATIENCE, || {
            let mut shares: Vec<usize> = members.iter().map(|m| m.assigned()).collect();
            shares.sort_unstable();
            if shares == expected {
                Ok(())
            } else {
                Err(shares)
            }
        });
    }

    /// `kafka-consumer-groups --describe`, with further arguments.
    fn describe(&self, group: &str, args: &[&str]) -> String {
        let bootstrap = self.dev.bootstrap();
        let all = [
            "--bootstrap-server",
            &bootstrap,
            "--describe",
            "--group",
            group,
        ];
        run(
            kafka("kafka-consumer-groups", &[&all[..], args].concat()),
            b"",
        )
        .expect_ok()
    }

    /// The group's row in `kafka-consumer-groups --list`: its type.
    fn kind(&self, group: &str) -> String {
        let bootstrap = self.dev.bootstrap();
        let args = ["--bootstrap-server", &bootstrap, "--list", "--type"];
        let list = run(kafka("kafka-consumer-groups", &args), b"").expect_ok();
        let row = list.lines().find(|line| line.starts_with(group));
        row.unwrap_or_default().to_owned()
    }

    /// Waits until everything that is there by now was read, by whomever.
    fn wait_read(&self) {
        wait_all_read(&self.dev, self.topic, &self.read);
    }
}

/// Waits until everything that is in `topic` by now was read, by whomever.
fn wait_all_read(dev: &Dev, topic: &str, read: &Read) {
    let viewer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", dev.bootstrap())
        .create()
        .expect("librdkafka accepts it");
    let partitions = Viewer::new(&dev.bootstrap())
        .partitions(topic)
        .expect("partitions");
    for partition in 0..partitions.len() as i32 {
        let (_, end) = wait::until("watermarks", PATIENCE, || {
            viewer.fetch_watermarks(topic, partition, Duration::from_secs(5))
        });
        let what = format!("all of partition {partition} to be read");
        wait::until(&what, PATIENCE, || {
            let read = read.lock().expect("read");
            let missing = (0..end).find(|offset| !read.contains(&(partition, *offset)));
            missing.map_or(Ok(()), Err)
        });
    }
}

#[test]
fn members_share_a_topic_and_go_on_when_their_coordinator_dies_and_when_the_topic_grows() {
    let scene = Scene::start("shared", 6);
    let group = "newer";
    let first = scene.join(group, Protocol::Consumer);
    scene.wait_shares(&[&first], &[6]);
    let second = scene.join(group, Protocol::Consumer);
    scene.wait_shares(&[&first, &second], &[3, 3]);
    scene.wait_read();

    let state = scene.describe(group, &["--state"]);
    assert!(
        state.contains("uniform") && state.contains("Stable"),
        "{state}"
    );
    let members = scene.describe(group, &["--members", "--verbose"]);
    assert_eq!(members.matches("rdkafka").count(), 2, "{members}");
    let offsets = scene.describe(group, &["--offsets"]);
    assert_eq!(offsets.matches("shared ").count(), 6, "{offsets}");

    let victim = scene
        .runtime
        .block_on(wire::coordinator(&scene.dev.bootstrap(), group))
        .expect("a coordinator");
    let process = scene.dev.pid(victim as u16).expect("pid file");
    scene.dev.signal(victim as u16, Signal::KILL);
    scene.dev.wait_ended(process);
    scene.load.wait_flowing(PATIENCE);
    scene.wait_read();
    scene.wait_shares(&[&first, &second], &[3, 3]);
    scene.dev.restart_killed();

    second.leave();
    scene.wait_shares(&[&first], &[6]);

    // Apache Kafka's own consumer is one of them for a while.
    let bootstrap = scene.dev.bootstrap();
    let args = [
        "--bootstrap-server",
        &bootstrap,
        "--topic",
        "shared",
        "--group",
        group,
    ];
    let property = [
        "--command-property",
        "group.protocol=consumer",
        "--max-messages",
        "50",
    ];
    let read = run(
        kafka("kafka-console-consumer", &[&args[..], &property].concat()),
        b"",
    );
    let lines = read.expect_ok();
    assert_eq!(lines.lines().count(), 50);
    scene.wait_shares(&[&first], &[6]);

    let args = [
        "--bootstrap-server",
        &bootstrap,
        "--alter",
        "--topic",
        "shared",
        "--partitions",
        "8",
    ];
    run(kafka("kafka-topics", &args), b"").expect_ok();
    scene.wait_shares(&[&first], &[8]);
    first.leave();
    let history = scene.load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
}

#[test]
fn a_group_moves_to_the_newer_protocol_and_back_while_it_reads_and_nothing_is_lost() {
    let scene = Scene::start("moved", 6);
    let group = "moving";
    let classics = [
        scene.join(group, Protocol::Classic),
        scene.join(group, Protocol::Classic),
    ];
    let [one, two] = &classics;
    scene.wait_shares(&[one, two], &[3, 3]);
    assert!(scene.kind(group).contains("Classic"));

    let newer = scene.join(group, Protocol::Consumer);
    scene.wait_shares(&[one, two, &newer], &[2, 2, 2]);
    assert!(scene.kind(group).contains("Consumer"));
    scene.wait_read();
    for classic in classics {
        classic.leave();
    }
    scene.wait_shares(&[&newer], &[6]);

    let back = scene.join(group, Protocol::Classic);
    scene.wait_shares(&[&newer, &back], &[3, 3]);
    newer.leave();
    scene.wait_shares(&[&back], &[6]);
    assert!(scene.kind(group).contains("Classic"));
    let (topic, dev, read) = (scene.topic, scene.dev, scene.read);
    let history = scene.load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    wait_all_read(&dev, topic, &read);
    println!("{} records read", read.lock().expect("read").len());
    assert!(read.lock().expect("read").len() >= history.acked_total());
    back.leave();
}
