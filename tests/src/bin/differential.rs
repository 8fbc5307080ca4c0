//! `tests/differential/run`: Leasehold and Apache Kafka, asked the same.

use anyhow::{Context as _, bail};
use leasehold_tests::differential::{Plan, intended, run};
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let mut plan = Plan {
        seed: 1,
        requests: 2_000,
        episode: None,
        schemas: "".into(),
        verbose: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seed" => plan.seed = value()?.parse()?,
            "--requests" => plan.requests = value()?.parse()?,
            "--episode" => plan.episode = Some(value()?.parse()?),
            "--schemas" => plan.schemas = value()?.into(),
            "--verbose" => plan.verbose = true,
            "--document" => {
                print!("{}", intended::document());
                return Ok(ExitCode::SUCCESS);
            }
            _ => bail!(
                "unknown argument {arg}; known are --seed, --requests, --episode, --schemas, --verbose and --document"
            ),
        }
    }
    Ok(match run(&plan)? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
