//! A controller that is wrong about itself: its brokers run with the Lease deadline switched off, so
//! that only the head ConfigMap stands between a frozen controller's late write and the metadata.

use leasehold_tests::bench::raw::Connection;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest};
use leasehold_tests::readback::UNSAFE;
use leasehold_tests::wait;
use rustix::process::Signal;
use std::net::SocketAddr;

const NAME: &str = "late";
const ATTEMPTS: usize = 5;

/// Every broker goes on acting as controller past its Lease deadline.
fn careless() -> String {
    let template = "
  podTemplate:
    spec:
      containers:
      - name: broker
        env: [{name: LEASEHOLD_TEST_IGNORE_LEASE_DEADLINE, value: \"1\"}]
";
    manifest(NAME, 3) + template
}

#[test]
fn a_frozen_controllers_late_write_is_refused_by_the_head_and_it_resigns() {
    let kube = Kube::connect("fencing", NAME);
    kube.apply(&careless());
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    let topic = fresh("fenced");
    kube.ready_topic(&topic, 3);
    // The kubelet gives no log of a container of whose start it has not heard yet; the cluster may be ready by then.
    wait::until("the switch to be on", PATIENCE, || {
        let log = kube.log(kube.controller()?);
        anyhow::ensure!(log.contains("past its Lease deadline"), "{log}");
        Ok(())
    });
    // One that wakes may hear of its successor before it writes, and resign for that: the API server's
    // answers have no order. Then it is frozen again; one late write there must be.
    let refused = (0..ATTEMPTS).any(|_| {
        let end = freeze_and_wake(&kube, &topic);
        println!("{end}");
        end.contains("refused (422)")
    });
    assert!(refused, "no late write in {ATTEMPTS} attempts");
    kube.remove_namespace();
}

/// Freezes the controller until there is another, and lets it wake with a wish in its ears: to create a
/// topic, which takes a write of the head. Gives the line in which it says why it resigned.
fn freeze_and_wake(kube: &Kube, topic: &str) -> String {
    let (old, epoch) = (
        kube.controller().expect("lease"),
        kube.controller_epoch().expect("head"),
    );
    let resigned = || {
        let log = kube.log(old);
        let lines = log.lines().filter(|line| line.contains("resigned"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (process, before) = (kube.process(old), resigned().len());
    rustix::process::kill_process(process, Signal::STOP).expect("stop");
    wait::until("another controller", PATIENCE, || {
        let (holder, now) = (kube.controller()?, kube.controller_epoch()?);
        anyhow::ensure!(holder != old && now > epoch, "holder {holder}, epoch {now}");
        anyhow::Ok(())
    });
    let raised = kube.controller_epoch().expect("head");
    let led = kube.wait_led(topic, old);
    // The kernel takes the connection and the request for the frozen process.
    let ip = kube.pod(old).expect("pod").status.and_then(|s| s.pod_ip);
    let ip = ip.expect("an address").parse().expect("an IP address");
    let mut asking = Connection::open(SocketAddr::new(ip, 9092)).expect("the kernel listens");
    asking
        .ask_to_create(&[&fresh("too-late")], 1, 3)
        .expect("sent");
    rustix::process::kill_process(process, Signal::CONT).expect("continue");
    let end = wait::until("the old controller to resign", PATIENCE, || {
        let lines = resigned();
        let news = lines.get(before..).unwrap_or_default();
        news.last().cloned().ok_or(lines.len())
    });
    // Refused, or passed on to the controller of now: both are well.
    println!("CreateTopics: {:?}", asking.created());
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    assert!(
        kube.controller_epoch().expect("head") >= raised,
        "{UNSAFE}: no epoch falls"
    );
    for (before, after) in led.iter().zip(kube.wait_whole(topic)) {
        assert!(
            after.leader_epoch >= before.leader_epoch,
            "{UNSAFE}: {before:?} -> {after:?}"
        );
    }
    end
}
