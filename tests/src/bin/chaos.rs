//! `tests/chaos`: every fault against a real cluster, for as long as is asked.

use anyhow::{Context as _, bail};
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let (mut minutes, mut seed, mut only) = (2.0, rand::random(), String::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--minutes" => minutes = value.parse().context("--minutes")?,
            "--seed" => seed = value.parse().context("--seed")?,
            "--only" => only = value,
            _ => bail!("unknown argument {arg}; known are --minutes N, --seed N and --only FAULT"),
        }
    }
    leasehold_tests::chaos::run(Duration::try_from_secs_f64(minutes * 60.0)?, seed, &only);
    Ok(())
}
