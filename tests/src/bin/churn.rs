//! `tests/churn`: a group of a hundred whose members join, leave and die, on Leasehold and on Apache Kafka.

use anyhow::{Context as _, bail, ensure};
use leasehold_tests::bench::peers::{Peer, Who};
use leasehold_tests::churn::{Outcome, Plan, Protocol, SESSION, member, run};
use leasehold_tests::readback::UNSAFE;
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut plan = Plan {
        program: std::env::current_exe()?,
        members: 100,
        partitions: 200,
        per_second: 1_000,
        restless: Duration::from_secs(20),
        pause: Duration::from_millis(250),
        rest: Duration::from_secs(3),
        patience: Duration::from_secs(120),
    };
    let (mut peers, mut protocols) = (vec![Who::Leasehold, Who::Kafka], Protocol::ALL.to_vec());
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--member" => {
                let (bootstrap, topic, group) = (value()?, value()?, value()?);
                return member::run(&bootstrap, &topic, &group, Protocol::parse(&value()?)?);
            }
            "--members" => plan.members = value()?.parse().context("--members")?,
            "--partitions" => plan.partitions = value()?.parse().context("--partitions")?,
            "--seconds" => plan.restless = Duration::from_secs(value()?.parse()?),
            "--alone" => peers = vec![Who::Leasehold],
            "--protocol" => protocols = vec![Protocol::parse(&value()?)?],
            _ => bail!(
                "unknown argument {arg}; known are --members, --partitions, --seconds, --protocol and --alone"
            ),
        }
    }
    ensure!(plan.members >= 2, "--members: 2 at least");
    let mut columns = Vec::new();
    // In turns, so that whatever else the machine does meets both.
    for protocol in &protocols {
        for who in &peers {
            let named = format!("{}, {}", who.name(), protocol.name());
            eprintln!("{named}");
            let peer = Peer::start_with(*who, 3, &config(*who));
            let outcome = run(&plan, &Peer::address(0).to_string(), "churn", *protocol);
            drop(peer);
            columns.push((named.clone(), outcome.context(named)?));
            print(&plan, &columns[columns.len() - 1..]);
        }
    }
    print(&plan, &columns);
    let faults: Vec<String> = columns
        .iter()
        .flat_map(|(who, outcome)| {
            outcome
                .faults
                .iter()
                .map(move |fault| format!("{who}: {fault}"))
        })
        .collect();
    ensure!(
        faults.is_empty(),
        "{UNSAFE}: {} faults, the first: {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
    Ok(())
}

/// Kafka asks for the least that is allowed to be lowered, too.
fn config(who: Who) -> Vec<(&'static str, &'static str)> {
    let mut config = SESSION.to_vec();
    if who == Who::Kafka {
        config.push(("group.consumer.min.session.timeout.ms", "6000"));
        config.push(("group.consumer.min.heartbeat.interval.ms", "1000"));
    }
    config
}

fn print(plan: &Plan, columns: &[(String, Outcome)]) {
    println!(
        "{} members, {} partitions, {} records/s, {} s of churn:\n",
        plan.members,
        plan.partitions,
        plan.per_second,
        plan.restless.as_secs()
    );
    let row = |what: &str, cells: &dyn Fn(&Outcome) -> String| {
        let cells: Vec<String> = columns.iter().map(|(_, outcome)| cells(outcome)).collect();
        println!("| {what} | {} |", cells.join(" | "));
    };
    let heads: Vec<&str> = columns.iter().map(|(who, _)| who.as_str()).collect();
    println!("| | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
    let phases = columns
        .first()
        .map_or(0, |(_, outcome)| outcome.settled.len());
    for n in 0..phases {
        row(columns[0].1.settled[n].0, &|outcome| {
            format!("{:.1} s", outcome.settled[n].1.as_secs_f64())
        });
    }
    row("records, each read", &|outcome| outcome.records.to_string());
    row("of these more than once", &|outcome| {
        outcome.repeated.to_string()
    });
    row("members expelled before they knew", &|outcome| {
        outcome.expelled.to_string()
    });
    row("commits refused at a revocation", &|outcome| {
        outcome.refused.to_string()
    });
    row("faults", &|outcome| outcome.faults.len().to_string());
}
