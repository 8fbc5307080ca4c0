//! A controller that is wrong about itself: its brokers run with the Lease deadline switched off, so
//! that only the head ConfigMap stands between a frozen controller's late write and the metadata.

use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest};
use leasehold_tests::{topics, wait};
use rustix::process::Signal;

const NAME: &str = "late";

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
    let (old, epoch) = (
        kube.controller().expect("lease"),
        kube.controller_epoch().expect("head"),
    );
    assert!(
        kube.log(old).contains("past its Lease deadline"),
        "the switch is on"
    );
    let process = kube.process(old);
    rustix::process::kill_process(process, Signal::STOP).expect("stop");
    wait::until("another controller", PATIENCE, || {
        let (holder, now) = (kube.controller()?, kube.controller_epoch()?);
        anyhow::ensure!(holder != old && now > epoch, "holder {holder}, epoch {now}");
        anyhow::Ok(())
    });
    let raised = kube.controller_epoch().expect("head");
    let led = kube.wait_led(&topic, old);
    // What it is asked first when it wakes: to create a topic, which takes a write of the head.
    let ip = kube.pod(old).expect("pod").status.and_then(|s| s.pod_ip);
    let address = format!("{}:9092", ip.expect("an address"));
    let (begun, begins) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        begun.send(()).expect("the test waits");
        runtime.block_on(topics::create(&address, &fresh("too-late"), 1, 3, &[]))
    });
    begins.recv().expect("the client begins");
    rustix::process::kill_process(process, Signal::CONT).expect("continue");
    let said = wait::until("the late write to be refused", PATIENCE, || {
        let log = kube.log(old);
        let resigned = log.lines().rfind(|line| line.contains("resigned"));
        match resigned {
            Some(line) if line.contains("refused (422)") => Ok(line.to_owned()),
            other => Err(other.unwrap_or("it has not resigned").to_owned()),
        }
    });
    println!("{said}");
    // Refused, or passed on to the controller of now: both are well.
    println!("CreateTopics: {:?}", asking.join().expect("the client"));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    assert!(
        kube.controller_epoch().expect("head") >= raised,
        "no epoch falls"
    );
    for (before, after) in led.iter().zip(kube.wait_whole(&topic)) {
        assert!(
            after.leader_epoch >= before.leader_epoch,
            "{before:?} -> {after:?}"
        );
    }
    kube.remove_namespace();
}
