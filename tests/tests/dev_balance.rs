//! Two more brokers join a laptop cluster of three under load: replicas and leaders of what is there already become
//! even over all five by themselves, a few partitions at a time, while a producer and a consumer notice nothing.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::Load;
use leasehold_tests::reader::Reader;
use leasehold_tests::topics::{self, Seen, Viewer};
use leasehold_tests::witness::Witness;
use leasehold_tests::{readback, wait};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Topic, partitions, replicas.
const TOPICS: [(&str, i32, i32); 3] = [("loaded", 15, 3), ("quiet", 20, 2), ("alone", 5, 1)];
/// As for a leader that hands over, with some room for a busy machine.
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// What the controller moves at the same time, by default.
const AT_ONCE: usize = 8;

type All = BTreeMap<String, Vec<Seen>>;

/// How many each broker has of what `of` takes of a partition.
fn count(all: &All, brokers: i32, of: impl Fn(&Seen) -> Vec<i32>) -> Vec<usize> {
    let mut counts: BTreeMap<i32, usize> = (0..brokers).map(|id| (id, 0)).collect();
    for id in all.values().flatten().flat_map(of) {
        *counts.entry(id).or_default() += 1;
    }
    counts.into_values().collect()
}

fn spread(counts: &[usize]) -> usize {
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

/// Partitions with more replicas than their topic has.
fn moving(all: &All) -> usize {
    let factor = |topic: &str| {
        let known = TOPICS.iter().find(|(name, ..)| *name == topic);
        known.map_or(3, |(.., factor)| *factor as usize)
    };
    let partitions = all.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|p| p.replicas.len() > factor(topic))
    });
    partitions.filter(|moves| *moves).count()
}

#[test]
fn brokers_that_join_get_their_share_of_replicas_and_leaders_and_clients_notice_nothing() {
    let config = "leader.restore.delay.ms: 1000\noffsets.topic.num.partitions: 3\n";
    let dev = Dev::start_with_config(3, &["--no-restart"], config);
    let bootstrap = dev.bootstrap();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for (topic, partitions, factor) in TOPICS {
        let min = (factor - 1).max(1).to_string();
        let settings = [("min.insync.replicas", min.as_str())];
        runtime
            .block_on(topics::create(
                &bootstrap, topic, partitions, factor, &settings,
            ))
            .expect("the topic is created");
    }
    let viewer = Viewer::new(&bootstrap);
    let (loaded, partitions, _) = TOPICS[0];
    viewer.wait_in_sync(loaded, PATIENCE);
    let load = Load::start(&bootstrap, loaded, partitions, 500, &[]);
    load.wait_flowing(PATIENCE);
    let alone = Load::start(&bootstrap, TOPICS[2].0, TOPICS[2].1, 50, &[]);
    let reader = Reader::start(&bootstrap, loaded, partitions);

    let witness = Witness::start();
    let began = Instant::now();
    let joined = [dev.join(3), dev.join(4)];
    let mut most = 0;
    let seen = wait::until("replicas and leaders even over five", PATIENCE * 4, || {
        let seen = viewer.topics()?;
        most = most.max(moving(&seen));
        let replicas = count(&seen, 5, |p| p.replicas.clone());
        let leaders = count(&seen, 5, |p| vec![p.leader]);
        let whole = |p: &Seen| p.isr.len() == p.replicas.len();
        let done = moving(&seen) == 0
            && seen.values().flatten().all(whole)
            && spread(&replicas) <= 1
            // Of a partition with one replica nobody else can lead.
            && spread(&leaders) <= 2;
        anyhow::ensure!(done, "replicas {replicas:?}, leaders {leaders:?}");
        anyhow::Ok(seen)
    });
    let ended = Instant::now();
    println!(
        "  even after {:.1?}: replicas {:?}, leaders {:?}; at most {most} partitions moved at the same time",
        ended - began,
        count(&seen, 5, |p| p.replicas.clone()),
        count(&seen, 5, |p| vec![p.leader]),
    );
    assert!((1..=AT_ONCE).contains(&most), "{most}");
    load.wait_flowing(PATIENCE);
    alone.wait_flowing(PATIENCE);
    for (load, (topic, ..)) in [(load, TOPICS[0]), (alone, TOPICS[2])] {
        let gap = load.peek(|history| history.longest_gap(began, ended));
        println!(
            "  {topic}: longest wait for an acknowledgement: {:.1?}",
            gap.length()
        );
        assert!(gap.of_the_software(&witness) < LONGEST_GAP, "{gap:?}");
        let history = load.stop();
        assert!(history.failed.is_empty(), "{:?}", history.failed);
        readback::check(&bootstrap, topic, &history);
        println!("  {} acknowledged records read back", history.acked_total());
    }
    let stored = readback::read_all(&bootstrap, loaded, partitions);
    let seen = reader.stop();
    assert_eq!(seen.faults(&stored), Vec::<String>::new());
    drop(joined);
}
