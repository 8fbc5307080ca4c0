//! Leasehold and Apache Kafka on this machine, in turns, each with its own defaults.
//!
//! Promises: both get the same requests from the same clients; each round starts both anew; a figure is
//! printed only if every answer was checked. Brokers and clients share the machine.

mod costs;
mod one;
pub mod peers;
pub mod raw;
mod table;
mod three;

use peers::Who;
use std::fs;
use table::Table;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// Written and read raw in each round.
    pub megabytes: usize,
    /// Of 1 KiB, by Kafka's load generator, in each round.
    pub records: usize,
    /// Only the part of this name, if any: `raw`, `partitions`, `costs` or `three`.
    pub part: Option<String>,
    /// Only Leasehold: for whoever looks into one figure.
    pub alone: bool,
}

/// Runs it and prints the table.
pub fn run(plan: &Plan) -> anyhow::Result<()> {
    let mut table = Table::default();
    let wanted = |part| plan.part.as_deref().is_none_or(|only| only == part);
    let peers: &[Who] = match plan.alone {
        true => &[Who::Leasehold],
        false => &[Who::Leasehold, Who::Kafka],
    };
    for round in 1..=plan.rounds {
        eprintln!("round {round}");
        for who in peers {
            if wanted("raw") {
                one::round(&mut table, *who, plan.megabytes)?;
            }
            if wanted("partitions") {
                one::partitions(&mut table, *who)?;
            }
            if wanted("costs") {
                costs::round(&mut table, *who)?;
            }
            if wanted("three") {
                three::round(&mut table, *who, plan.records)?;
            }
        }
    }
    println!("{}; {} rounds: median (all)\n", machine(), plan.rounds);
    table.print();
    Ok(())
}

fn machine() -> String {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<f64>().ok());
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    format!(
        "{processors} processors ({}), {:.0} GiB, Linux {}",
        model
            .unwrap_or("unknown")
            .trim_start_matches(['\t', ' ', ':']),
        kib.unwrap_or(0.0) / f64::from(1 << 20),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
