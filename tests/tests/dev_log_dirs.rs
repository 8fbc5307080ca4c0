//! A laptop cluster whose brokers have two log directories each.
//!
//! Replicas of a broker that is led and written to move from one to the other, and it is killed while they do.
//!
//! The disk of one directory fills up to the last byte under its broker. Producers go on, the partitions on that disk get other leaders, the broker serves the
//! rest, an alert fires, and with room on the disk and a restart everything is in sync again.
//!
//! The second scene mounts a small tmpfs for that disk, so it runs as root; the mount goes with the scene.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::Load;
use leasehold_tests::prometheus::Prometheus;
use leasehold_tests::topics::{self, Seen, Viewer};
use leasehold_tests::witness::Witness;
use leasehold_tests::{http, log_dirs, readback, wait};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const TOPIC: &str = "on-two-disks";
const PARTITIONS: i32 = 6;
/// No bytes are kept free: the disk is to be full to the last.
const CONFIG: &str =
    "log.dirs: disk-a,disk-b\nlog.dir.min.free.bytes: 0\nleader.restore.delay.ms: 500\n";
/// The broker whose second disk fills up.
const VICTIM: u16 = 1;
/// As for a leader that was killed, with some room for a busy machine.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A disk of a few megabytes, unmounted when it is dropped, and its folder removed.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounted at a folder of its own, to which `path` leads.
    fn mount(path: &Path) -> Self {
        let folder = tempfile::tempdir().expect("mount point");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "leasehold-test"]);
        let mounted = mount.arg(folder.path()).status().expect("mount");
        assert!(mounted.success(), "no tmpfs was mounted: only root may");
        let disk = Self(folder);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::os::unix::fs::symlink(disk.0.path(), path).expect("symlink");
        disk
    }

    /// Writes until not a byte more goes in.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).expect("ballast");
        for size in [1 << 20, 4096, 1] {
            let piece = vec![7; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, as a broker may still be there when a scene fails.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.0.path().display());
        }
    }
}

/// Partitions of the topic that lie in a directory of the victim.
fn partitions_in(directory: &Path) -> Vec<usize> {
    let names = std::fs::read_dir(directory).expect("log directory");
    let mut numbers: Vec<usize> = names
        .filter_map(|name| {
            let name = name.ok()?.file_name().into_string().ok()?;
            let (topic, number) = name.rsplit_once('-')?;
            (topic.len() == 22).then(|| number.parse().ok())?
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Where Prometheus finds the brokers.
fn scrape(dev: &Dev) -> serde_yaml::Value {
    let target = |id| json!({"targets": [dev.http(id)], "labels": {"pod": format!("broker-{id}")}});
    let targets: Vec<_> = (0..3).map(target).collect();
    serde_yaml::to_value(
        json!({"scrape_configs": [{"job_name": "brokers", "static_configs": targets}]}),
    )
    .expect("YAML")
}

#[test]
fn replicas_move_between_directories_under_load_and_a_killed_broker_goes_on_with_it() {
    // So little that a kill falls into it.
    let config = format!("{CONFIG}replica.alter.log.dirs.io.max.bytes.per.second: 30000\n");
    let dev = Dev::start_with_config(3, &["--no-restart"], &config);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let bootstrap = dev.bootstrap();
    let create = topics::create(&bootstrap, TOPIC, PARTITIONS, 3, &[]);
    runtime.block_on(create).expect("the topic is created");
    let viewer = Viewer::new(&bootstrap);
    viewer.wait_in_sync(TOPIC, PATIENCE);
    let load = Load::start(&bootstrap, TOPIC, PARTITIONS, 300, &[]);
    load.wait_flowing(PATIENCE);
    let address = dev.client(VICTIM).to_string();
    let ask = || runtime.block_on(log_dirs::describe(&address, TOPIC));
    wait::until("enough to copy", PATIENCE, || {
        let acked = load.peek(|history| history.acked_total());
        anyhow::ensure!(acked > 1500, "{acked} records");
        anyhow::Ok(())
    });

    let before = ask().expect("log directories");
    assert_eq!(before.now.len(), PARTITIONS as usize);
    let other = |path: &String| {
        let mut others = before.directories.iter().filter(|one| *one != path);
        others.next().expect("another").clone()
    };
    let wishes: BTreeMap<i32, String> = before.now.iter().map(|(p, at)| (*p, other(at))).collect();
    let witness = Witness::start();
    let begun = Instant::now();
    runtime
        .block_on(log_dirs::alter(&address, TOPIC, &wishes))
        .expect("every wish is taken");
    wait::until("one to have moved, and one not to", PATIENCE, || {
        let lie = ask()?;
        let moved = lie.now.iter().filter(|(p, at)| wishes[p] == **at).count();
        anyhow::ensure!(moved > 0 && !lie.future.is_empty(), "{lie:?}");
        anyhow::Ok(())
    });
    let gap = load.peek(|history| history.longest_gap(begun, Instant::now()));
    println!(
        "  longest wait for an acknowledgement while replicas move: {:.1?}",
        gap.length()
    );
    assert!(gap.of_the_software(&witness) < LONGEST_GAP, "{gap:?}");

    let process = dev.pid(VICTIM).expect("pid file");
    dev.signal(VICTIM, Signal::KILL);
    dev.wait_ended(process);
    dev.restart_killed();
    wait::until("all to have moved", PATIENCE, || {
        let lie = ask()?;
        anyhow::ensure!(lie.now == wishes && lie.future.is_empty(), "{lie:?}");
        anyhow::Ok(())
    });
    viewer.wait_in_sync(TOPIC, PATIENCE);
    load.wait_flowing(PATIENCE);
    let home = dev.data().join(format!("broker-{VICTIM}/data"));
    for disk in ["disk-a", "disk-b"] {
        let names = std::fs::read_dir(home.join(disk)).expect("log directory");
        let names = names.map(|name| name.expect("entry").file_name().into_string());
        let left: Vec<_> = names
            .filter_map(Result::ok)
            .filter(|name| name.ends_with(".left") || name.ends_with(".future"))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&bootstrap, TOPIC, &history);
    println!("  {} acknowledged records read back", history.acked_total());
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_costs_its_broker_only_what_lies_on_it() {
    let root = tempfile::Builder::new()
        .prefix("leasehold-dev-")
        .tempdir()
        .expect("temp dir");
    let home = root.path().join(format!("data/broker-{VICTIM}/data"));
    let disk = Disk::mount(&home.join("disk-b"));
    let mut dev = Dev::start_over(root, 3, &["--no-restart"], CONFIG);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let settings = [("min.insync.replicas", "2"), ("segment.bytes", "1048576")];
    runtime
        .block_on(topics::create(
            &dev.bootstrap(),
            TOPIC,
            PARTITIONS,
            3,
            &settings,
        ))
        .expect("the topic is created");
    let viewer = Viewer::new(&dev.bootstrap());
    let before = viewer.wait_in_sync(TOPIC, PATIENCE);
    let load = Load::start(&dev.bootstrap(), TOPIC, PARTITIONS, 300, &[]);
    load.wait_flowing(PATIENCE);
    let doomed = partitions_in(&home.join("disk-b"));
    let safe = partitions_in(&home.join("disk-a"));
    assert_eq!(
        (doomed.len(), safe.len()),
        (3, 3),
        "as few on each as can be"
    );

    let witness = Witness::start();
    let struck = Instant::now();
    disk.fill();
    let me = i32::from(VICTIM);
    let gave_up = |p: &Seen| p.leader >= 0 && p.leader != me && !p.isr.contains(&me);
    wait::until(
        "the partitions on the full disk to be led by others",
        PATIENCE,
        || {
            let seen = viewer.partitions(TOPIC)?;
            let done = doomed.iter().all(|n| gave_up(&seen[*n]));
            anyhow::ensure!(done, "{seen:?}");
            anyhow::Ok(())
        },
    );
    load.wait_flowing(PATIENCE);
    let flowing = Instant::now();
    let seen = viewer.partitions(TOPIC).expect("metadata");
    for n in &safe {
        assert!(seen[*n].isr.contains(&me), "{seen:?}");
        assert_eq!(seen[*n].leader, before[*n].leader, "{seen:?}");
    }
    let status = dev.status(VICTIM).expect("status");
    let online: Vec<bool> = status["log_dirs"]
        .as_array()
        .expect("log_dirs")
        .iter()
        .map(|dir| dir["online"].as_bool().expect("online"))
        .collect();
    assert_eq!(online, [true, false], "{}", status["log_dirs"]);
    let reason = status["log_dirs"][1]["reason"].to_string();
    assert!(reason.contains("No space left"), "{reason}");
    http::get(dev.http(VICTIM), "/readyz").expect("one of two is no reason to be left alone");
    let metrics = http::get(dev.http(VICTIM), "/metrics").expect("metrics");
    assert!(
        metrics.contains("leasehold_log_dirs_offline 1"),
        "{metrics}"
    );
    let prometheus = Prometheus::start(scrape(&dev));
    prometheus.wait("LeaseholdLogDirOffline", &[("pod", "broker-1")], true);
    let alarms = prometheus.firing().expect("alerts");
    let offline = alarms
        .iter()
        .filter(|labels| labels["alertname"] == "LeaseholdLogDirOffline");
    let directories: Vec<&str> = offline
        .filter_map(|labels| labels["directory"].as_str())
        .collect();
    assert!(
        matches!(directories[..], [one] if one.ends_with("disk-b")),
        "{directories:?}"
    );
    let gap = load.peek(|history| history.longest_gap(struck, flowing));
    println!(
        "  longest wait for an acknowledgement: {:.1?}",
        gap.length()
    );
    assert!(gap.of_the_software(&witness) < LONGEST_GAP, "{gap:?}");

    // Only a restart brings that disk back, and its replicas only by what they copy.
    disk.make_room();
    let process = dev.pid(VICTIM).expect("pid file");
    dev.signal(VICTIM, Signal::KILL);
    dev.wait_ended(process);
    dev.restart_killed();
    dev.wait_ready();
    viewer.wait_in_sync(TOPIC, PATIENCE);
    load.wait_flowing(PATIENCE);
    assert_eq!(partitions_in(&home.join("disk-b")), doomed);
    let bootstrap = dev.bootstrap();
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&bootstrap, TOPIC, &history);
    println!("  {} acknowledged records read back", history.acked_total());
}
