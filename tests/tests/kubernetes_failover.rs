//! Pods of a real cluster die under load, gracefully and not; the controller is taken away, frozen
//! and fenced; the API server goes away for a minute. Leaders change by the rules, clients go on, and
//! everything acknowledged is read back.

use leasehold_tests::cluster::{Kube, PATIENCE, fresh, run_script};
use leasehold_tests::load::Load;
use leasehold_tests::wire::WireLoad;
use leasehold_tests::witness::Witness;
use leasehold_tests::{readback, wait};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 12;
const PER_SECOND: u32 = 600;
const NAMESPACE: &str = "failover";
const ROUNDS: usize = 10;

/// The cluster that all scenes share, and a topic of this scene's own.
fn cluster(scene: &str) -> (Kube, String) {
    let kube = Kube::with_cluster(NAMESPACE, "chaos", 3);
    let topic = fresh(scene);
    kube.ready_topic(&topic, PARTITIONS);
    (kube, topic)
}

fn load(kube: &Kube, topic: &str, settings: &[(&str, &str)]) -> Load {
    let load = Load::start(&kube.bootstrap(), topic, PARTITIONS, PER_SECOND, settings);
    load.wait_flowing(PATIENCE);
    load
}

fn finish(kube: &Kube, topic: &str, load: Load) {
    let history = load.stop();
    assert!(
        history.failed.is_empty(),
        "failed deliveries: {:?}",
        history.failed
    );
    readback::check(&kube.bootstrap(), topic, &history);
    println!(
        "  {} acknowledged records read back, in order, once each",
        history.acked_total()
    );
}

/// Deletes the pod of a broker that leads something, `ROUNDS` times, and gives the longest gaps.
fn delete_leaders(kube: &Kube, topic: &str, load: &mut Load, forced: bool) -> Vec<Duration> {
    let witness = Witness::start();
    let mut gaps = Vec::new();
    for round in 0..ROUNDS {
        let before = kube.wait_whole(topic);
        load.renew();
        load.wait_flowing(PATIENCE);
        let leaders: std::collections::BTreeSet<i32> =
            before.iter().filter_map(|p| p.leader).collect();
        let victim = *leaders.iter().nth(round % leaders.len()).expect("a leader");
        let uid = kube.pod(victim).expect("pod").metadata.uid.expect("uid");
        let struck = Instant::now();
        kube.delete_pod(victim, forced);
        kube.wait_replaced(victim, &uid);
        kube.wait_name(victim);
        let after = kube.wait_whole(topic);
        let closed = load.wait_flowing(PATIENCE);
        let gap = load.peek(|history| history.longest_gap(struck, closed));
        if gap.length() > Duration::from_secs(1) {
            println!(
                "  round {round}: {:.1?} on partition {}, from {:.1?} after broker {victim} was struck",
                gap.length(),
                gap.partition,
                gap.from.saturating_duration_since(struck)
            );
        }
        gaps.push(gap.of_the_software(&witness));
        // The next client may need this broker at once.
        kube.wait_name_settled(victim);
        for (old, new) in before.iter().zip(&after) {
            let rose = new.leader_epoch >= old.leader_epoch;
            assert!(rose, "{}: {old:?} -> {new:?}", readback::UNSAFE);
            if old.leader == Some(victim) {
                // A leader that left hands over once: one epoch. It may have got the partition back
                // meanwhile, which is one more.
                let changes = new.leader_epoch - old.leader_epoch;
                let back = new.leader == Some(victim);
                assert!(
                    (1..=2).contains(&changes) && (changes == 1) != back,
                    "{old:?} -> {new:?}"
                );
            }
        }
    }
    gaps
}

fn report(what: &str, gaps: &[Duration]) {
    let millis: Vec<u128> = gaps.iter().map(Duration::as_millis).collect();
    println!("{what}: longest gaps of acknowledgements per round, in ms: {millis:?}");
}

fn none_above(what: &str, gaps: &[Duration], worst: Duration) {
    let longest = gaps.iter().max().expect("rounds");
    assert!(*longest <= worst, "{what}: {longest:?} is above {worst:?}");
}

/// A pod that is deleted by force takes its network with it, often before its connections could say that they end:
/// then a client learns of it by its own patience only, which is 30 s for a request and for a new connection.
const IMPATIENT: &[(&str, &str)] = &[
    ("socket.timeout.ms", "1000"),
    ("request.timeout.ms", "1000"),
    ("socket.connection.setup.timeout.ms", "1000"),
];

#[test]
fn gracefully_deleted_leaders_are_replaced_within_a_second_and_nothing_is_lost() {
    let (kube, topic) = cluster("pods");
    let mut load = load(&kube, &topic, &[]);
    let gaps = delete_leaders(&kube, &topic, &mut load, false);
    finish(&kube, &topic, load);
    report("deleted gracefully", &gaps);
    none_above("deleted gracefully", &gaps, Duration::from_secs(1));
}

#[test]
fn leaders_deleted_by_force_are_replaced_within_two_seconds_and_nothing_acknowledged_is_lost() {
    let (kube, topic) = cluster("forced");
    let mut load = load(&kube, &topic, IMPATIENT);
    let gaps = delete_leaders(&kube, &topic, &mut load, true);
    finish(&kube, &topic, load);
    report("deleted with --force --grace-period=0", &gaps);
    none_above("forced", &gaps, Duration::from_secs(2));
}

#[test]
fn a_deleted_controller_is_followed_by_another_with_a_higher_epoch() {
    let (kube, topic) = cluster("controller");
    let topic = topic.as_str();
    let load = load(&kube, topic, &[]);
    let (old, epoch) = (
        kube.controller().expect("lease"),
        kube.controller_epoch().expect("head"),
    );
    let uid = kube.pod(old).expect("pod").metadata.uid.expect("uid");
    kube.delete_pod(old, true);
    let new = wait::until("another holder and a higher epoch", PATIENCE, || {
        let (holder, now) = (kube.controller()?, kube.controller_epoch()?);
        anyhow::ensure!(holder != old && now > epoch, "holder {holder}, epoch {now}");
        Ok(holder)
    });
    println!(
        "controller {old} -> {new}, epoch {epoch} -> {}",
        kube.controller_epoch().expect("head")
    );
    kube.wait_replaced(old, &uid);
    load.wait_flowing(PATIENCE);
    finish(&kube, topic, load);
}

#[test]
fn a_deleted_lease_gives_one_controller_again_and_no_epoch_falls() {
    let (kube, _) = cluster("lease");
    let epoch = kube.controller_epoch().expect("head");
    let leases = kube.api::<k8s_openapi::api::coordination::v1::Lease>();
    kube.block_on(leases.delete("chaos-controller", &Default::default()))
        .expect("delete the lease");
    wait::until("a holder and a higher epoch", PATIENCE, || {
        let (holder, now) = (kube.controller()?, kube.controller_epoch()?);
        anyhow::ensure!(now > epoch, "holder {holder}, epoch {now}");
        anyhow::Ok(())
    });
    kube.wait_condition("Cluster", "chaos", "Ready", "True");
}

#[test]
fn a_frozen_controller_resigns_when_it_wakes_and_says_so() {
    let (kube, topic) = cluster("frozen");
    let topic = topic.as_str();
    let load = load(&kube, topic, &[]);
    let (old, epoch) = (
        kube.controller().expect("lease"),
        kube.controller_epoch().expect("head"),
    );
    let process = kube.process(old);
    rustix::process::kill_process(process, Signal::STOP).expect("stop");
    wait::until("another controller", PATIENCE, || {
        let (holder, now) = (kube.controller()?, kube.controller_epoch()?);
        anyhow::ensure!(holder != old && now > epoch, "holder {holder}, epoch {now}");
        anyhow::Ok(())
    });
    let raised = kube.controller_epoch().expect("head");
    rustix::process::kill_process(process, Signal::CONT).expect("continue");
    // Its registration was replaced or fenced meanwhile; the process may have ended over that.
    wait::until(
        "the old controller to say that it resigned",
        PATIENCE,
        || {
            let log = kube.log(old);
            match log.contains("resigned") {
                true => Ok(()),
                false => Err(log.lines().last().unwrap_or_default().to_owned()),
            }
        },
    );
    assert!(
        kube.controller_epoch().expect("head") >= raised,
        "{}: the epoch never falls",
        readback::UNSAFE
    );
    kube.wait_whole(topic);
    load.wait_flowing(PATIENCE);
    finish(&kube, topic, load);
}

#[test]
fn a_minute_without_the_api_server_goes_unnoticed_by_clients() {
    let (kube, topic) = cluster("outage");
    let topic = topic.as_str();
    let load = load(&kube, topic, &[]);
    let before = kube.wait_whole(topic);
    let pods = kube.restarts();
    let bootstrap = kube.bootstrap();
    let topic_on_the_wire = fresh("wire");
    kube.ready_topic(&topic_on_the_wire, PARTITIONS);
    // The tools' own work is not to be counted as the outage's.
    load.wait_flowing(PATIENCE);
    let by_hand = WireLoad::start(&bootstrap, topic_on_the_wire.as_str());
    let witness = Witness::start();
    run_script("apiserver", &["stop"]);
    let stopped = Instant::now();
    let late = refused_create(&bootstrap, "surprise");
    wait::until("a minute to pass", Duration::from_secs(70), || {
        if stopped.elapsed() < Duration::from_secs(60) {
            Err("not yet")
        } else {
            Ok(())
        }
    });
    let end = Instant::now();
    let gap = load.peek(|history| history.longest_gap(stopped, end));
    let codes = by_hand.stop();
    run_script("apiserver", &["start"]);
    println!(
        "answers on the wire by error code: Produce {:?}, Fetch {:?}",
        codes.produce, codes.fetch
    );
    assert_eq!(codes.unanswered, [""; 0], "every request was answered");
    for (api, counts) in [("Produce", &codes.produce), ("Fetch", &codes.fetch)] {
        let others: Vec<_> = counts.iter().filter(|(code, _)| **code != 0).collect();
        assert!(
            others.is_empty(),
            "{api} answered with error codes: {others:?}"
        );
        assert!(
            counts.get(&0).is_some_and(|count| *count > 1_000),
            "{api} was hardly asked: {counts:?}"
        );
    }
    println!(
        "60 s without the API server: longest gap {:.0?} (partition {}); CreateTopics said {late}",
        gap.length(),
        gap.partition
    );
    let history = load.stop();
    assert!(
        history.failed.is_empty(),
        "failed deliveries: {:?}",
        history.failed
    );
    assert!(
        gap.of_the_software(&witness) <= Duration::from_secs(1),
        "{gap:?}"
    );
    kube.wait_condition("Cluster", "chaos", "Ready", "True");
    let after = kube.wait_whole(topic);
    let leaders = |states: &[leasehold_crds::PartitionState]| {
        states
            .iter()
            .map(|p| (p.leader, p.leader_epoch))
            .collect::<Vec<_>>()
    };
    assert_eq!(leaders(&before), leaders(&after), "no leader changed");
    assert_eq!(pods, kube.restarts(), "no pod was restarted");
    readback::check(&bootstrap, topic, &history);
    let viewer = leasehold_tests::topics::Viewer::new(&bootstrap);
    assert!(
        viewer.partitions("surprise").is_err(),
        "what was refused is not applied later"
    );
    kube.block_on(leasehold_tests::topics::create(
        &bootstrap,
        "welcome",
        1,
        3,
        &[],
    ))
    .expect("CreateTopics works again");
    // Kubernetes itself takes a while after such an outage: kubelets, controllers and its DNS come back one by one. The
    // scenes that follow are about brokers.
    let uid = kube.pod(0).expect("pod").metadata.uid.expect("uid");
    kube.delete_pod(0, false);
    kube.wait_replaced(0, &uid);
    kube.wait_name(0);
    kube.wait_whole(topic);
}

/// CreateTopics while nothing can be committed: how it is refused, which must be soon and retriable.
fn refused_create(bootstrap: &str, topic: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let asked = Instant::now();
    let answer = runtime.block_on(leasehold_tests::topics::create(bootstrap, topic, 1, 3, &[]));
    let took = asked.elapsed();
    let error = answer
        .expect_err("nothing can be committed without the API server")
        .to_string();
    assert!(
        took <= Duration::from_secs(2),
        "answered after {took:?}: {error}"
    );
    // What Kafka's clients try again by themselves.
    let retriable = ["Broker: Request timed out", "Broker: Not controller"];
    assert!(
        retriable.iter().any(|code| error.contains(code)),
        "not retriable: {error}"
    );
    error
}
