//! Upgrade and downgrade between two releases, under load: this one, and one to come that knows one level of
//! `metadata.version` more and has a record that needs it (the feature `next-release`, `tests/lib/next-release`).
//!
//! Brokers are rolled to the new release, back, and forward again, and nothing is written that the older cannot read.
//! Once the level is raised the record is, and a broker of the older release says why it does not start.

use leasehold_tests::dev::{Dev, Joined, PATIENCE, broker_binary};
use leasehold_tests::load::Load;
use leasehold_tests::tools::{kafka, run};
use leasehold_tests::topics::{self, Viewer};
use leasehold_tests::{controller, http, readback, wait};
use std::path::{Path, PathBuf};
use std::process::Command;

const TOPIC: &str = "upgraded";
const PARTITIONS: i32 = 6;
const BROKERS: u16 = 3;
/// The record that only the release to come writes, as it stands in the store.
const NEW_RECORD: &str = "next_release";

/// A cluster whose brokers are replaced.
struct Cluster {
    /// Those that `dev` did not start. They end before it does.
    nodes: Vec<Option<Joined>>,
    runtime: tokio::runtime::Runtime,
    viewer: Viewer,
    dev: Dev,
}

impl Cluster {
    /// Ends the process of broker `id`, as SIGTERM does.
    fn stop(&mut self, id: u16) {
        match self.nodes[usize::from(id)].take() {
            Some(node) => drop(node),
            None => {
                let process = self.dev.pid(id).expect("pid file");
                self.dev.signal(id, rustix::process::Signal::TERM);
                self.dev.wait_ended(process);
            }
        }
    }

    fn replace(&mut self, id: u16, binary: &Path) {
        self.stop(id);
        self.start(id, binary);
    }

    fn start(&mut self, id: u16, binary: &Path) {
        self.nodes[usize::from(id)] = Some(self.dev.start_from(binary, id));
        wait::until(&format!("broker {id} to be ready"), PATIENCE, || {
            http::get(self.dev.http(id), "/readyz").map(drop)
        });
        self.viewer.wait_in_sync(TOPIC, PATIENCE);
    }

    /// The level in force, and the highest that each broker told that it supports.
    fn levels(&self) -> (i16, Vec<i16>) {
        let image = self.runtime.block_on(controller::image(&self.dev));
        let image = image.expect("metadata that this release reads");
        let highest = |b: &leasehold_metadata::image::Broker| b.features["metadata.version"].max.0;
        let brokers = image.brokers.values();
        (
            image.metadata_level().0,
            brokers.map(|b| highest(b)).collect(),
        )
    }

    /// Whether the store has the record that an older release cannot read.
    fn has_new_record(&self) -> bool {
        let dir = self.dev.data().join("metadata");
        let texts = texts(&dir);
        assert!(!texts.is_empty(), "nothing in {}", dir.display());
        texts.iter().any(|text| text.contains(NEW_RECORD))
    }

    /// What Kafka's tool says when it is to raise the level.
    fn raise(&self) -> String {
        let bootstrap = self.dev.bootstrap();
        let args = ["--bootstrap-server", &bootstrap, "upgrade"];
        let to = ["--feature", "metadata.version=5"];
        let said = run(kafka("kafka-features", &[&args[..], &to].concat()), b"");
        format!("{}{}", said.stdout, said.stderr)
    }
}

/// The content of all files in `dir`.
fn texts(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("the store").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                all.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    all
}

/// The broker of the release to come, built if it is not there.
fn next_release() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib/next-release");
    let output = Command::new(&script)
        .output()
        .expect("tests/lib/next-release");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", script.display());
    String::from_utf8_lossy(&output.stdout).trim().into()
}

#[test]
fn brokers_are_upgraded_taken_back_and_upgraded_again_and_the_level_bars_the_way_back() {
    let (old, new) = (broker_binary(), next_release());
    let dev = Dev::start(BROKERS, &["--no-restart"]);
    let bootstrap = dev.bootstrap();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let settings = [("min.insync.replicas", "2")];
    runtime
        .block_on(topics::create(&bootstrap, TOPIC, PARTITIONS, 3, &settings))
        .expect("the topic is created");
    let viewer = Viewer::new(&bootstrap);
    viewer.wait_in_sync(TOPIC, PATIENCE);
    let load = Load::start(&bootstrap, TOPIC, PARTITIONS, 300, &[]);
    load.wait_flowing(PATIENCE);
    let mut cluster = Cluster {
        nodes: (0..BROKERS).map(|_| None).collect(),
        runtime,
        viewer,
        dev,
    };
    assert_eq!(cluster.levels(), (4, vec![4; 3]));

    for (binary, supported, what) in [(&new, 5, "upgraded"), (&old, 4, "taken back")] {
        for id in 0..BROKERS {
            cluster.replace(id, binary);
        }
        load.wait_flowing(PATIENCE);
        assert_eq!(cluster.levels(), (4, vec![supported; 3]), "{what}");
        assert!(!cluster.has_new_record(), "written below its level");
        println!("  all brokers {what}; the level is 4");
    }

    cluster.replace(0, &new);
    cluster.replace(1, &new);
    let refused = cluster.raise();
    assert!(!refused.contains("upgraded to 5"), "{refused}");
    // By broker 2 as controller, or by another one of it.
    assert!(refused.contains("1 to 4"), "{refused}");
    assert_eq!(cluster.levels(), (4, vec![5, 5, 4]));
    cluster.replace(2, &new);
    assert!(!cluster.has_new_record(), "written below its level");
    let raised = cluster.raise();
    assert!(raised.contains("upgraded to 5"), "{raised}");
    wait::until("what is new to be written", PATIENCE, || {
        let written = cluster.has_new_record();
        written.then_some(()).ok_or("it is not there")
    });
    println!("  all brokers upgraded again; the level is raised, and what is new is written");

    // Whoever reads metadata by this release is told, the operator too.
    let read = cluster.runtime.block_on(controller::image(&cluster.dev));
    let read = read
        .expect_err("of a level that this release does not know")
        .to_string();
    assert!(read.contains("metadata.version 5"), "{read}");
    cluster.stop(2);
    let logged = cluster.dev.log(2).len();
    let mut late = cluster.dev.start_from(&old, 2);
    let status = wait::until("a broker of the older release to end", PATIENCE, || {
        late.ended().ok_or("it runs")
    });
    assert!(!status.success(), "{status}");
    let log = cluster.dev.log(2).split_off(logged);
    let why = log
        .lines()
        .find(|line| line.contains("the cluster is at metadata.version 5"));
    let why = why.unwrap_or_else(|| panic!("no reason that names the level: {log}"));
    assert!(why.contains("supports 1 to 4"), "{why}");
    println!("  the older release ends with {status}: {why}");
    load.wait_flowing(PATIENCE);
    cluster.start(2, &new);
    load.wait_flowing(PATIENCE);

    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&bootstrap, TOPIC, &history);
    println!("  {} acknowledged records read back", history.acked_total());
}
