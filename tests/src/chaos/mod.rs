//! Chaos on a real cluster: one fault after the other, each kind before any comes twice, under a load
//! whose history is checked at the end.
//!
//! Promises: a run ends only when every fault of its round has struck and the cluster is whole again; it panics
//! if anything acknowledged is lost, doubled or out of order, if a consumer was shown what is not stored, or if a
//! delivery failed. One seed gives one order of faults and victims.

mod fault;
mod network;
mod volumes;

use crate::cluster::{Kube, PATIENCE, fresh, manifest};
use crate::load::Load;
use crate::readback;
use crate::reader::Reader;
use crate::topics::Viewer;
pub use fault::Fault;
use leasehold_crds::PartitionState;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "chaos";
const NAME: &str = "main";
const BROKERS: i32 = 3;
const PARTITIONS: i32 = 12;
const PER_SECOND: u32 = 600;
/// A broker that is cut off closes no connection: a client learns of it by its own patience only, which is a
/// minute by default.
const SETTINGS: [(&str, &str); 2] = [
    ("socket.timeout.ms", "1000"),
    ("request.timeout.ms", "1000"),
];

/// One fault as it went.
#[derive(Debug)]
pub struct Row {
    /// Since the load began.
    pub at: Duration,
    pub fault: Fault,
    /// The broker that it struck, and what that broker was.
    pub victim: Option<(i32, String)>,
    /// The longest time between two acknowledgements of one partition.
    pub writing: Duration,
    /// The longest time in which a consumer of all partitions got nothing.
    pub reading: Duration,
    /// Partitions whose leader epoch rose.
    pub moved: usize,
    /// From the blow until every replica was in sync again.
    pub whole: Duration,
}

/// Runs rounds of all faults whose name holds `only` for at least `time`, at least one; prints each as it ends.
/// Gives them all.
pub fn run(time: Duration, seed: u64, only: &str) -> Vec<Row> {
    println!("chaos: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let kube = cluster();
    let topic = fresh("chaos");
    kube.ready_topic(&topic, PARTITIONS);
    let load = Load::start(&kube.bootstrap(), &topic, PARTITIONS, PER_SECOND, &SETTINGS);
    load.wait_flowing(PATIENCE);
    let reader = Reader::start(&kube.bootstrap(), &topic, PARTITIONS);
    reader.wait_begun(PARTITIONS as usize, PATIENCE);
    let begun = Instant::now();
    let (mut blows, mut rows) = (Vec::new(), Vec::new());
    while rows.is_empty() || begun.elapsed() < time {
        let mut round = fault::ALL.to_vec();
        round.retain(|fault| fault.name().contains(only));
        assert!(!round.is_empty(), "no fault is called '{only}'");
        round.shuffle(&mut rng);
        for fault in round {
            let (row, blow) = strike(&kube, &topic, &load, fault, &mut rng, begun);
            rows.push(row);
            blows.push(blow);
        }
    }
    let history = load.stop();
    let seen = reader.stop();
    for (row, (from, to)) in rows.iter_mut().zip(blows) {
        row.reading = seen.longest_silence(from, to);
    }
    print(&rows);
    let failed = &history.failed;
    assert!(failed.is_empty(), "failed deliveries: {failed:?}");
    let stored = readback::read_all(&kube.bootstrap(), &topic, PARTITIONS);
    let mut faults = readback::faults(&history, &stored);
    faults.extend(seen.faults(&stored));
    println!(
        "{} acknowledged records read back, in order, once each; {} read meanwhile, none undone",
        history.acked_total(),
        seen.total()
    );
    assert!(
        faults.is_empty(),
        "{}: {} faults: {:#?}",
        readback::UNSAFE,
        faults.len(),
        &faults[..faults.len().min(10)]
    );
    kube.remove_namespace();
    kube.wait_removed();
    volumes::remove(&kube, BROKERS);
    rows
}

fn cluster() -> Kube {
    let mut kube = Kube::connect(NAMESPACE, NAME);
    // What a run left that failed uses the disks of then.
    if kube.cluster().is_ok() {
        kube.remove_namespace();
        kube = Kube::connect(NAMESPACE, NAME);
    }
    volumes::make(&kube, BROKERS);
    kube.apply(&manifest(NAME, BROKERS).replace(
        "size: 1Gi",
        &format!("size: 1Gi, storageClassName: {}", volumes::CLASS),
    ));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    (0..BROKERS).for_each(|broker| kube.wait_name(broker));
    kube
}

type Blow = (Instant, Instant);

fn strike(
    kube: &Kube,
    topic: &str,
    load: &Load,
    fault: Fault,
    rng: &mut StdRng,
    begun: Instant,
) -> (Row, Blow) {
    let before = kube.wait_whole(topic);
    let victim = victim(kube, &before, rng);
    let roles = match fault.has_victim() {
        true => Some((victim, roles(kube, &before, victim))),
        false => None,
    };
    let uid = kube.pod(victim).expect("pod").metadata.uid.expect("uid");
    let struck = Instant::now();
    let injury = fault.strike(kube, victim);
    // The only thing to wait for is that it lasts.
    std::thread::sleep(fault.lasts().saturating_sub(struck.elapsed()));
    drop(injury);
    if matches!(fault, Fault::PodDeleted | Fault::PodDeletedByForce) {
        kube.wait_replaced(victim, &uid);
    }
    (0..BROKERS).for_each(|broker| kube.wait_name(broker));
    // What brokers say of themselves is newer than what the operator has written of them.
    Viewer::new(&kube.bootstrap()).wait_in_sync(topic, PATIENCE);
    let whole = struck.elapsed();
    let after = kube.wait_whole(topic);
    let closed = load.wait_flowing(PATIENCE);
    let gap = load.peek(|history| history.longest_gap(struck, closed));
    let moved = before.iter().zip(&after);
    let row = Row {
        at: struck - begun,
        fault,
        victim: roles,
        writing: gap.length(),
        reading: Duration::ZERO,
        moved: moved
            .filter(|(old, new)| new.leader_epoch > old.leader_epoch)
            .count(),
        whole,
    };
    println!(
        "{:>6.1} s  {} {}: {:?} without an acknowledgement of partition {}",
        row.at.as_secs_f64(),
        fault.name(),
        row.victim
            .as_ref()
            .map_or_else(String::new, |(id, roles)| format!("(broker {id}, {roles})")),
        row.writing,
        gap.partition
    );
    (row, (struck, closed))
}

/// Half of the time the controller, otherwise a leader: who does nothing is no loss.
fn victim(kube: &Kube, states: &[PartitionState], rng: &mut StdRng) -> i32 {
    let leaders: Vec<i32> = states.iter().filter_map(|p| p.leader).collect();
    let leader = *leaders.choose(rng).expect("a leader");
    match rng.random() {
        true => kube.controller().unwrap_or(leader),
        false => leader,
    }
}

fn roles(kube: &Kube, states: &[PartitionState], broker: i32) -> String {
    let leads = states.iter().filter(|p| p.leader == Some(broker)).count();
    let controller = kube.controller().is_ok_and(|holder| holder == broker);
    format!(
        "{}leads {leads}",
        if controller { "controller, " } else { "" }
    )
}

/// The longest of each fault, as Markdown.
fn print(rows: &[Row]) {
    println!(
        "\n| fault | times | longest without an acknowledgement | without a record read | until whole |"
    );
    println!("|---|---|---|---|---|");
    for fault in fault::ALL {
        let of: Vec<&Row> = rows.iter().filter(|row| row.fault == fault).collect();
        if of.is_empty() {
            continue;
        }
        let longest = |time: fn(&Row) -> Duration| {
            of.iter()
                .map(|row| time(row).as_millis())
                .max()
                .unwrap_or_default()
        };
        println!(
            "| {} | {} | {} ms | {} ms | {} ms |",
            fault.name(),
            of.len(),
            longest(|row| row.writing),
            longest(|row| row.reading),
            longest(|row| row.whole)
        );
    }
}
