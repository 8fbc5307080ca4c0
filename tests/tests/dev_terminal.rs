//! What a person at a terminal sees of a laptop cluster and can tell it: elections as they happen, log lines
//! with the epochs, Enter and SIGUSR1 for brokers that were killed, a second signal for those in a hurry.

use leasehold_tests::dev::{Dev, PATIENCE, broker_binary};
use leasehold_tests::tools::run;
use leasehold_tests::topics::{self, Viewer};
use leasehold_tests::wait;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::time::{Duration, Instant};

const TOPIC: &str = "orders";

/// A cluster with one topic in sync, and who leads its partition 0 and who is controller.
fn start(args: &[&str]) -> (Dev, Viewer) {
    let dev = Dev::start(3, args);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime
        .block_on(topics::create(&dev.bootstrap(), TOPIC, 3, 3, &[]))
        .expect("the topic is created");
    let viewer = Viewer::new(&dev.bootstrap());
    viewer.wait_in_sync(TOPIC, PATIENCE);
    (dev, viewer)
}

/// The partition that a broker leads which is not the controller, and this broker.
fn leader_beside_the_controller(dev: &Dev, viewer: &Viewer) -> (usize, u16) {
    let controller = dev.controller_seen_by(0).expect("a controller");
    let partitions = viewer.wait_in_sync(TOPIC, PATIENCE);
    let mut leaders = partitions.iter().map(|p| p.leader as u16).enumerate();
    leaders
        .find(|(_, leader)| *leader != controller)
        .expect("three brokers lead one partition each")
}

/// A line of `text` that has all of `parts`.
fn line_with(text: String, parts: &[&str]) -> Result<String, String> {
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    text.lines()
        .find(has_all)
        .map(str::to_owned)
        .ok_or_else(|| format!("no line with {parts:?} in\n{text}"))
}

fn is_gone(process: Pid) -> bool {
    test_kill_process(process).is_err()
}

#[test]
fn a_lost_leader_is_one_line_each_of_fence_election_and_isr_with_the_epochs() {
    let (dev, viewer) = start(&["--no-restart"]);
    let (partition, victim) = leader_beside_the_controller(&dev, &viewer);
    let controller = dev.controller_seen_by(0).expect("a controller");
    dev.signal(victim, Signal::KILL);

    let printed = wait::until("dev to print the election", PATIENCE, || {
        let told = format!("{TOPIC}-{partition}: leader {victim} -> ");
        line_with(dev.output(), &[&told, "leader epoch"])
    });
    println!("dev: {printed}");

    let named = format!("partition={TOPIC}-{partition} ");
    let lost = format!("broker={victim} ");
    let lines: [&[&str]; 3] = [
        &[
            "broker fenced",
            "controller_epoch=",
            &lost,
            "incarnation=",
            "reason=",
        ],
        &[
            "election",
            "controller_epoch=",
            &named,
            "leader_epoch=",
            "partition_epoch=",
            "isr=",
        ],
        // Of a partition that it only followed: its leader stays, its ISR shrinks.
        &[
            "ISR changed",
            "controller_epoch=",
            "leader_epoch=",
            "partition_epoch=",
            "isr=",
        ],
    ];
    for parts in lines {
        let line = wait::until("the controller to log it", PATIENCE, || {
            line_with(dev.log(controller), parts)
        });
        println!("broker {controller}: {line}");
    }
}

#[test]
fn what_was_killed_stays_down_until_enter_or_sigusr1() {
    let (mut dev, _) = start(&["--no-restart"]);
    for by_enter in [true, false] {
        let killed = dev.pid(1).expect("pid file");
        dev.signal(1, Signal::KILL);
        wait::until("dev to say how to go on", PATIENCE, || {
            let output = dev.output();
            line_with(
                output,
                &[
                    "press Enter, or send SIGUSR1 to ",
                    &dev.own_pid().as_raw_nonzero().to_string(),
                ],
            )
        });
        // Long enough for a restart that nobody asked for.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(
            dev.pid(1).expect("pid file"),
            killed,
            "it was started unasked"
        );
        if by_enter {
            dev.press_enter();
        } else {
            dev.restart_killed();
        }
        wait::until("another process", PATIENCE, || match dev.pid(1) {
            Ok(now) if now != killed => Ok(()),
            other => Err(format!("{other:?}")),
        });
        dev.wait_ready();
    }
}

#[test]
fn a_second_signal_ends_at_once_a_broker_that_waits_for_its_leaders_to_move() {
    let (dev, viewer) = start(&["--no-restart"]);
    let (_, leader) = leader_beside_the_controller(&dev, &viewer);
    let process = dev.pid(leader).expect("pid file");
    let others: Vec<u16> = (0..3).filter(|id| *id != leader).collect();
    // Nobody is left who could take its leaderships over.
    others.iter().for_each(|id| dev.signal(*id, Signal::STOP));
    kill_process(process, Signal::TERM).expect("SIGTERM");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!is_gone(process), "it gave up its leaderships to nobody");

    let hurried = Instant::now();
    kill_process(process, Signal::TERM).expect("SIGTERM");
    dev.wait_ended(process);
    let took = hurried.elapsed();
    println!("ended {} ms after the second signal", took.as_millis());
    others.iter().for_each(|id| dev.signal(*id, Signal::CONT));
    assert!(took < Duration::from_millis(500), "{took:?}");
    line_with(
        dev.log(leader),
        &["a second signal (SIGTERM): ending at once"],
    )
    .expect("it says so");
}

#[test]
fn what_is_not_said_is_three_brokers_from_9092_and_8080_in_one_folder() {
    let mut command = std::process::Command::new(broker_binary());
    command.args(["dev", "--help"]);
    let help = run(command, b"").expect_ok();
    for (flag, default) in [
        ("--brokers", "3"),
        ("--port", "9092"),
        ("--http-port", "8080"),
        ("--data", ".leasehold"),
    ] {
        let said = help.split(flag).nth(1).unwrap_or_default();
        let said = said.split("--").next().unwrap_or_default();
        assert!(
            said.contains(&format!("[default: {default}]")),
            "{flag}: {said}"
        );
    }
    assert!(help.contains("--no-restart"), "{help}");
}
