//! `leasehold-broker dev` keeps its contract: ready at once, restarts what was killed, keeps data,
//! refuses a second one, stops cleanly.

use leasehold_tests::dev::{Dev, PATIENCE, broker_binary};
use leasehold_tests::tools::{kcat, run};
use leasehold_tests::wait;
use rustix::process::Signal;
use std::process::Command;
use std::time::Duration;

fn produce(dev: &Dev, topic: &str, value: &str) {
    let args = ["-P", "-b", &dev.bootstrap(), "-t", topic, "-X", "acks=all"];
    run(kcat(&args), format!("{value}\n").as_bytes()).expect_ok();
}

fn consume(bootstrap: &str, topic: &str) -> String {
    run(
        kcat(&[
            "-C",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
        ]),
        b"",
    )
    .expect_ok()
}

#[test]
fn three_brokers_are_ready_within_half_a_second_and_say_so() {
    let dev = Dev::start(3, &[]);
    let line = wait::until("the ready line", PATIENCE, || {
        let output = dev.output();
        output
            .lines()
            .find(|line| line.starts_with("ready after"))
            .map(str::to_owned)
            .ok_or(output)
    });
    let took = line
        .split_whitespace()
        .nth(2)
        .expect("a time")
        .trim_end_matches(';');
    let millis = took
        .strip_suffix("ms")
        .unwrap_or_else(|| panic!("not milliseconds: {line}"));
    let millis: u64 = millis.parse().expect("a number");
    println!("ready after {millis} ms");
    assert!(millis < 500, "{line}");
    assert!(line.contains(&dev.bootstrap()), "{line}");
    assert!(
        dev.output().contains("is controller, epoch"),
        "{}",
        dev.output()
    );
}

#[test]
fn a_killed_broker_is_started_again_and_its_elections_are_printed() {
    let dev = Dev::start(3, &[]);
    produce(&dev, "kept", "one");
    let victim = 1;
    let pid = dev.pid(victim).expect("pid");
    dev.signal(victim, Signal::KILL);
    wait::until("a new process", PATIENCE, || match dev.pid(victim) {
        Ok(now) if now != pid => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait::until("broker 1 to be ready again", PATIENCE, || {
        leasehold_tests::http::get(dev.http(victim), "/readyz").map(drop)
    });
    assert!(dev.output().contains("broker 1 ended"), "{}", dev.output());
    assert!(consume(&dev.bootstrap(), "kept").contains("one"));
}

#[test]
fn a_second_dev_on_the_same_directory_is_refused_with_a_reason() {
    let dev = Dev::start(1, &[]);
    let mut command = Command::new(broker_binary());
    command.args([
        "dev",
        "--brokers",
        "1",
        "--port",
        "39092",
        "--http-port",
        "38080",
        "--data",
    ]);
    let refused = run(
        {
            command.arg(dev.data());
            command
        },
        b"",
    );
    assert!(!refused.ok);
    assert!(
        refused.stderr.contains("another `leasehold-broker dev`"),
        "{}",
        refused.stderr
    );
}

#[test]
fn data_outlives_a_clean_stop() {
    let dev = Dev::start(3, &[]);
    produce(&dev, "kept", "one");
    let data = dev.data();
    let (clean, dir) = dev.interrupt();
    assert!(clean, "dev ends with status 0 on Ctrl-C");
    for id in 0..3 {
        let pid =
            std::fs::read_to_string(data.join(format!("broker-{id}/broker.pid"))).expect("pid");
        assert!(
            !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(),
            "broker {id} lives"
        );
    }
    let again = Dev::start_in(dir, 3, &[]);
    assert_eq!(consume(&again.bootstrap(), "kept"), "one\n");
}

#[test]
fn a_lost_head_is_mended_from_the_brokers_copies_and_never_replaced_by_an_empty_one() {
    let dev = Dev::start(3, &[]);
    produce(&dev, "kept", "one");
    let data = dev.data();
    let (clean, dir) = dev.interrupt();
    assert!(clean, "dev ends with status 0 on Ctrl-C");
    std::fs::remove_dir_all(data.join("metadata")).expect("lose the metadata");
    let leasehold = |args: &[&str]| {
        let mut command = Command::new(broker_binary());
        command.args(args).arg("--data").arg(&data);
        run(command, b"")
    };
    let refused = leasehold(&["dev", "--port", "39092", "--http-port", "38080"]);
    assert!(!refused.ok);
    assert!(
        refused.stderr.contains("leasehold-broker recover --data"),
        "{}",
        refused.stderr
    );
    let recovered = leasehold(&["recover"]);
    assert!(recovered.ok, "{}", recovered.stderr);
    println!("{}", recovered.stdout);
    let twice = leasehold(&["recover"]);
    assert!(
        !twice.ok && twice.stderr.contains("nothing to recover"),
        "{}",
        twice.stderr
    );
    let again = Dev::start_in(dir, 3, &[]);
    assert_eq!(consume(&again.bootstrap(), "kept"), "one\n");
    produce(&again, "kept", "two");
    produce(&again, "new", "three");
    assert_eq!(consume(&again.bootstrap(), "kept"), "one\ntwo\n");
}

#[test]
fn no_broker_outlives_a_killed_dev() {
    let dev = Dev::start(3, &[]);
    let pids: Vec<_> = (0..3)
        .map(|id| dev.pid(id).expect("pid").as_raw_nonzero())
        .collect();
    rustix::process::kill_process(dev.own_pid(), Signal::KILL).expect("kill");
    wait::until("the brokers to end", Duration::from_secs(20), || {
        let left: Vec<_> = pids
            .iter()
            .filter(|pid| {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|status| !status.contains("State:\tZ"))
            })
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}
