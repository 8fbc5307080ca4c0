//! `tests/churn` in small: members of three groups join, leave and die while records flow, each group by another
//! protocol. Nothing is lost, and no partition is two members' at once.

use leasehold_tests::churn::{Plan, Protocol, SESSION, run};
use leasehold_tests::dev::Dev;
use leasehold_tests::readback::UNSAFE;
use std::time::Duration;

#[test]
fn members_join_leave_and_die_and_no_partition_is_two_members_and_no_record_is_nobodys() {
    let config: String = SESSION
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    let dev = Dev::start_with_config(3, &[], &config);
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_churn").into(),
        members: 12,
        partitions: 24,
        per_second: 200,
        restless: Duration::from_secs(4),
        pause: Duration::from_millis(200),
        rest: Duration::from_millis(1_200),
        patience: Duration::from_secs(60),
    };
    std::thread::scope(|scope| {
        let one = |protocol: Protocol| {
            let (dev, plan) = (&dev, &plan);
            scope.spawn(move || {
                (
                    protocol,
                    run(plan, &dev.bootstrap(), protocol.name(), protocol),
                )
            })
        };
        for group in Protocol::ALL.map(one) {
            let (protocol, outcome) = group.join().expect("the group");
            let outcome = outcome.unwrap_or_else(|why| panic!("{protocol:?}: {why:#}"));
            assert!(
                outcome.faults.is_empty(),
                "{UNSAFE}: {protocol:?}: {} faults, the first: {}",
                outcome.faults.len(),
                outcome.faults[0]
            );
            println!(
                "  {protocol:?}: {} records, each read, {} of them again after a death; {} members expelled",
                outcome.records, outcome.repeated, outcome.expelled
            );
        }
    });
}
