//! `leasehold-simulate --seed N` replays one run with its trace, `--twice` instead shows where two runs of it part;
//! `--seeds N [--from M]` runs many (with `--twice` each of them twice, and compares), `--minutes N` as many as it can, `--new` from a seed drawn at random;
//! `--mutations [--seeds N]` takes out each rule in turn and prints which promise broke, and how soon; `--scale`
//! prints what losing one of 100 brokers costs. With `--wide` some runs delete records,
//! compact topics, have consumer groups and transactions; `--mutations` always does so, and with `--without PART` takes
//! out only the rules with that in their names. With `--transactions` only the wide runs that have some are run.

use leasehold_simulation::rules::{RULES, Rule};
use leasehold_simulation::world::{Outcome, run};
use leasehold_simulation::{scale, txns, voices};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "simulate --seed N [--without RULE] [--twice] | --seeds N [--from M] [--twice] | \
    --minutes N [--from M | --new] | --mutations [--seeds N] | --scale; with --wide also deletions, compaction, groups, transactions, with --transactions only runs that have these";

#[derive(Default)]
struct Wanted {
    seed: Option<u64>,
    seeds: Option<u64>,
    minutes: Option<u64>,
    from: u64,
    new: bool,
    without: Option<String>,
    mutations: bool,
    scale: bool,
    twice: bool,
    wide: bool,
    transactions: bool,
}

fn wanted() -> Option<Wanted> {
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => wanted.seed = Some(words.next()?.parse().ok()?),
            "--seeds" => wanted.seeds = Some(words.next()?.parse().ok()?),
            "--minutes" => wanted.minutes = Some(words.next()?.parse().ok()?),
            "--from" => wanted.from = words.next()?.parse().ok()?,
            "--new" => wanted.new = true,
            "--without" => wanted.without = Some(words.next()?),
            "--mutations" => wanted.mutations = true,
            "--scale" => wanted.scale = true,
            "--twice" => wanted.twice = true,
            "--wide" => wanted.wide = true,
            "--transactions" => (wanted.wide, wanted.transactions) = (true, true),
            _ => return None,
        }
    }
    Some(wanted)
}

fn main() -> std::io::Result<ExitCode> {
    let Some(wanted) = wanted() else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let rule = wanted.without.as_deref();
    if wanted.scale {
        scale::table();
        Ok(ExitCode::SUCCESS)
    } else if wanted.mutations {
        mutations(wanted.seeds.unwrap_or(300), rule)
    } else if wanted.twice && wanted.seed.is_none() {
        all_twice(wanted.from, wanted.seeds.unwrap_or(100), wanted.wide)
    } else if let Some(seed) = wanted.seed.filter(|_| wanted.twice) {
        twice(seed, rule, wanted.wide)
    } else if let Some(seed) = wanted.seed {
        let listening = voices::listen();
        let outcome = run(seed, rule, wanted.wide)?;
        drop(listening);
        for line in &outcome.trace {
            println!("{line}");
        }
        Ok(verdict(&outcome))
    } else {
        let from = match wanted.new {
            // Short enough to be typed.
            true => u64::from(rand::random::<u32>()),
            false => wanted.from,
        };
        let limit = match (wanted.minutes, wanted.seeds) {
            (Some(minutes), _) => Limit::Time(Duration::from_secs(60 * minutes)),
            (None, seeds) => Limit::Seeds(seeds.unwrap_or(100)),
        };
        let kind = Kind {
            wide: wanted.wide,
            transactions: wanted.transactions,
        };
        many(from, limit, rule, kind)
    }
}

/// One seed is one run: where two of it part, with what led there.
fn twice(seed: u64, rule: Option<&str>, wide: bool) -> std::io::Result<ExitCode> {
    let _listening = voices::listen();
    let (first, second) = (run(seed, rule, wide)?.trace, run(seed, rule, wide)?.trace);
    let same = first
        .iter()
        .zip(&second)
        .take_while(|(a, b)| a == b)
        .count();
    if same == first.len() && same == second.len() {
        println!("seed {seed}: {same} lines, twice the same");
        return Ok(ExitCode::SUCCESS);
    }
    for line in &first[same.saturating_sub(20)..same] {
        println!("{line}");
    }
    println!(
        "first:  {:?}\nsecond: {:?}",
        first.get(same),
        second.get(same)
    );
    Ok(ExitCode::FAILURE)
}

/// Each of many seeds is one run, also while other runs go on beside it.
fn all_twice(from: u64, seeds: u64, wide: bool) -> std::io::Result<ExitCode> {
    let (next, parted) = (AtomicU64::new(from), AtomicUsize::new(0));
    on_all_processors(|| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return Ok(());
            }
            let _listening = voices::listen();
            let (first, second) = (run(seed, None, wide)?.trace, run(seed, None, wide)?.trace);
            if first != second {
                parted.fetch_add(1, Ordering::Relaxed);
                let pairs = first.iter().zip(&second);
                let at = pairs.take_while(|(a, b)| a == b).count();
                let (one, other) = (first.get(at), second.get(at));
                println!("seed {seed} is two runs from line {at} on: {one:?} and {other:?}");
            }
        }
    })?;
    let parted = parted.into_inner();
    println!("{seeds} seeds run twice, {parted} not the same");
    Ok(match parted {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// When it is enough.
#[derive(Clone, Copy)]
enum Limit {
    Seeds(u64),
    Time(Duration),
}

/// Which seeds are run, and with how much.
#[derive(Clone, Copy)]
struct Kind {
    wide: bool,
    /// Only those that have transactions.
    transactions: bool,
}

/// Runs `work` on as many threads as there are processors; the first error, if there was one.
fn on_all_processors(work: impl Fn() -> std::io::Result<()> + Sync) -> std::io::Result<()> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => Err(std::io::Error::other(
                    "a run panicked outside of its processes",
                )),
            })
    })
}

fn verdict(outcome: &Outcome) -> ExitCode {
    let Outcome {
        seed,
        writes,
        claims,
        elections,
        acknowledged,
        consumed,
        groups: [commits, fetched, generations],
        txns: [ended, aborted, in_transactions, their_offsets],
        ..
    } = outcome;
    println!(
        "seed {seed}: {writes} head writes, {claims} claims, {elections} elections, {acknowledged} records acknowledged, {consumed} read, {commits} commits, {fetched} offsets fetched, {generations} generations, {ended} transactions committed, {aborted} aborted, {in_transactions} of their records and {their_offsets} of their offsets read"
    );
    match &outcome.broken {
        Some(line) => {
            println!("BROKEN {line}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(from: u64, limit: Limit, rule: Option<&str>, kind: Kind) -> std::io::Result<ExitCode> {
    println!("seeds from {from}");
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let sums: [AtomicU64; 13] = Default::default();
    let broken = AtomicUsize::new(0);
    on_all_processors(|| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let enough = match limit {
                Limit::Seeds(seeds) => seed >= from + seeds,
                Limit::Time(time) => begun.elapsed() >= time,
            };
            if enough {
                return Ok(());
            }
            if kind.transactions && !txns::are_in(seed) {
                continue;
            }
            let outcome = run(seed, rule, kind.wide)?;
            let counts = [
                1,
                outcome.writes,
                outcome.claims as u64,
                outcome.elections,
                outcome.acknowledged,
                outcome.consumed,
                outcome.groups[0],
                outcome.groups[1],
                outcome.groups[2],
                outcome.txns[0],
                outcome.txns[1],
                outcome.txns[2],
                outcome.txns[3],
            ];
            for (sum, count) in sums.iter().zip(counts) {
                sum.fetch_add(count, Ordering::Relaxed);
            }
            if let Some(line) = outcome.broken {
                broken.fetch_add(1, Ordering::Relaxed);
                println!("seed {seed}: {line}\n    tests/simulate --seed {seed} shows how");
            }
        }
    })?;
    let broken = broken.into_inner();
    let [
        seeds,
        writes,
        claims,
        elections,
        acknowledged,
        consumed,
        commits,
        fetched,
        generations,
        ended,
        aborted,
        in_transactions,
        their_offsets,
    ] = sums.map(AtomicU64::into_inner);
    println!(
        "{seeds} seeds in {:.1} s, {broken} broken: {writes} head writes, {claims} claims, {elections} elections, {acknowledged} records acknowledged, {consumed} read, {commits} commits, {fetched} offsets fetched, {generations} generations, {ended} transactions committed, {aborted} aborted, {in_transactions} of their records and {their_offsets} of their offsets read",
        begun.elapsed().as_secs_f64()
    );
    Ok(if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn mutations(most: u64, only: Option<&str>) -> std::io::Result<ExitCode> {
    println!("| rule taken out | what it says | caught by | seeds needed |\n|---|---|---|---|");
    let chosen = |rule: &&Rule| only.is_none_or(|only| rule.name.contains(only));
    let rules: Vec<&Rule> = RULES.iter().filter(chosen).collect();
    let next = AtomicUsize::new(0);
    // In their order, whichever is done first.
    let lines = Mutex::new((0, vec![None; rules.len()]));
    let missed = AtomicUsize::new(0);
    on_all_processors(|| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(rule) = rules.get(at) else {
                return Ok(());
            };
            let (by, seeds) = match caught(rule, most)? {
                Some((seed, by)) => (by, (seed + 1).to_string()),
                None => {
                    missed.fetch_add(1, Ordering::Relaxed);
                    ("**not caught**".to_owned(), format!("> {most}"))
                }
            };
            let line = format!("| `{}` | {} | {by} | {seeds} |", rule.name, rule.says);
            let mut lines = lines.lock().unwrap_or_else(|e| e.into_inner());
            let (told, all) = &mut *lines;
            all[at] = Some(line);
            while let Some(Some(line)) = all.get(*told) {
                println!("{line}");
                *told += 1;
            }
        }
    })?;
    Ok(match missed.into_inner() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The first seed that notices that `rule` is gone, and by which promise.
fn caught(rule: &Rule, most: u64) -> std::io::Result<Option<(u64, String)>> {
    let tells = |seed: &u64| !rule.of_transactions || txns::are_in(*seed);
    for seed in (0..most).filter(tells) {
        if let Some(line) = run(seed, Some(rule.name), true)?.broken {
            let by = line.split(' ').next().unwrap_or_default();
            return Ok(Some((seed, by.to_owned())));
        }
    }
    Ok(None)
}
