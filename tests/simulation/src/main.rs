//! `leasehold-simulate --seed N` replays one run with its trace; `--seeds N [--from M]` runs many;
//! `--mutations [--seeds N]` takes out each rule in turn and prints which promise broke, and how soon;
//! `--scale` prints what losing one of 100 brokers costs.

use leasehold_simulation::rules::RULES;
use leasehold_simulation::scale;
use leasehold_simulation::world::{Outcome, run};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str =
    "simulate --seed N [--without RULE] | --seeds N [--from M] | --mutations [--seeds N] | --scale";

#[derive(Default)]
struct Wanted {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: u64,
    without: Option<String>,
    mutations: bool,
    scale: bool,
}

fn wanted() -> Option<Wanted> {
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => wanted.seed = Some(words.next()?.parse().ok()?),
            "--seeds" => wanted.seeds = Some(words.next()?.parse().ok()?),
            "--from" => wanted.from = words.next()?.parse().ok()?,
            "--without" => wanted.without = Some(words.next()?),
            "--mutations" => wanted.mutations = true,
            "--scale" => wanted.scale = true,
            _ => return None,
        }
    }
    Some(wanted)
}

fn main() -> ExitCode {
    let Some(wanted) = wanted() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let rule = wanted.without.as_deref();
    if wanted.scale {
        scale::table();
        ExitCode::SUCCESS
    } else if wanted.mutations {
        mutations(wanted.seeds.unwrap_or(200), rule)
    } else if let Some(seed) = wanted.seed {
        let outcome = run(seed, rule);
        for line in &outcome.trace {
            println!("{line}");
        }
        verdict(&outcome)
    } else {
        many(wanted.from, wanted.seeds.unwrap_or(100), rule)
    }
}

fn verdict(outcome: &Outcome) -> ExitCode {
    let Outcome {
        seed,
        writes,
        claims,
        elections,
        acknowledged,
        ..
    } = outcome;
    println!(
        "seed {seed}: {writes} head writes, {claims} claims, {elections} elections, {acknowledged} records acknowledged"
    );
    match &outcome.broken {
        Some(line) => {
            println!("BROKEN {line}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(from: u64, seeds: u64, rule: Option<&str>) -> ExitCode {
    let begun = Instant::now();
    let (mut broken, mut sums) = (0, [0; 4]);
    for seed in from..from + seeds {
        let outcome = run(seed, rule);
        let counts = [
            outcome.writes,
            outcome.claims as u64,
            outcome.elections,
            outcome.acknowledged,
        ];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
        if let Some(line) = outcome.broken {
            broken += 1;
            println!("seed {seed}: {line}");
        }
    }
    let [writes, claims, elections, acknowledged] = sums;
    println!(
        "{seeds} seeds in {:.1} s, {broken} broken: {writes} head writes, {claims} claims, {elections} elections, {acknowledged} records acknowledged",
        begun.elapsed().as_secs_f64()
    );
    if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn mutations(most: u64, only: Option<&str>) -> ExitCode {
    let mut missed = 0;
    println!("| rule taken out | what it says | caught by | seeds needed |\n|---|---|---|---|");
    for rule in RULES
        .iter()
        .filter(|r| only.is_none_or(|o| r.name.contains(o)))
    {
        let caught = (0..most).find_map(|seed| Some((seed, run(seed, Some(rule.name)).broken?)));
        let (by, seeds) = match caught {
            Some((seed, line)) => (
                line.split(' ').next().unwrap_or_default().to_owned(),
                (seed + 1).to_string(),
            ),
            None => {
                missed += 1;
                ("**not caught**".to_owned(), format!("> {most}"))
            }
        };
        println!("| `{}` | {} | {by} | {seeds} |", rule.name, rule.says);
    }
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
