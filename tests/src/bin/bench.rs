//! `tests/bench`: Leasehold and Apache Kafka side by side.

use anyhow::{Context as _, bail};
use leasehold_tests::bench::{Plan, run};

fn main() -> anyhow::Result<()> {
    let mut plan = Plan {
        rounds: 3,
        megabytes: 2_000,
        records: 1_000_000,
        part: None,
        alone: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => plan.rounds = value()?.parse()?,
            "--megabytes" => plan.megabytes = value()?.parse()?,
            "--records" => plan.records = value()?.parse()?,
            "--part" => plan.part = Some(value()?),
            "--alone" => plan.alone = true,
            _ => bail!(
                "unknown argument {arg}; known are --rounds, --megabytes, --records, --part and --alone"
            ),
        }
    }
    run(&plan)
}
