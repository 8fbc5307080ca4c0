//! `leasehold-explore` searches every world whole; `--world NAME` one of them; `--rules` takes out each rule in
//! turn; `--without RULE [--world NAME]` one, and prints the way to the promise that it breaks. A bound may be
//! given anew: `writes=6`.

use leasehold_model::cases::{MOST, MUTATIONS, Small, WORLDS, World, explore, world};
use leasehold_simulation::rules::RULES;
use std::process::ExitCode;

const USAGE: &str =
    "explore [--world NAME] [--without RULE] [--most STATES] [BOUND=N]... | explore --rules";

#[derive(Default)]
struct Wanted {
    world: Option<String>,
    without: Option<String>,
    rules: bool,
    most: Option<usize>,
    bounds: Vec<(String, u8)>,
}

fn wanted() -> Option<Wanted> {
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--world" => wanted.world = Some(words.next()?),
            "--without" => wanted.without = Some(words.next()?),
            "--rules" => wanted.rules = true,
            "--most" => wanted.most = Some(words.next()?.parse().ok()?),
            _ => {
                let (bound, n) = word.split_once('=')?;
                wanted.bounds.push((bound.to_owned(), n.parse().ok()?));
            }
        }
    }
    Some(wanted)
}

fn main() -> ExitCode {
    let Some(wanted) = wanted() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // Panics of the product are found and told as broken promises.
    std::panic::set_hook(Box::new(|_| {}));
    if wanted.rules {
        return rules();
    }
    let rule = wanted.without.as_deref();
    let usual = MUTATIONS.iter().find(|m| Some(m.rule) == rule);
    let name = wanted.world.as_deref().or(usual.map(|m| m.world));
    let mut worlds: Vec<World> = match name {
        Some(name) => world(name).into_iter().copied().collect(),
        None => WORLDS.to_vec(),
    };
    let known = rule.is_none_or(|rule| RULES.iter().any(|r| r.name == rule));
    let fits = |(bound, n): &(String, u8)| {
        worlds
            .iter_mut()
            .all(|world| set(&mut world.small, bound, *n))
    };
    if !wanted.bounds.iter().all(fits) || worlds.is_empty() || !known {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let mut good = true;
    for world in worlds {
        good &= one(world, rule, wanted.most.unwrap_or(MOST));
    }
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn set(small: &mut Small, bound: &str, n: u8) -> bool {
    match small {
        Small::Partition(bounds) => {
            let place = match bound {
                "min" => &mut bounds.min,
                "values" => &mut bounds.values,
                "writes" => &mut bounds.writes,
                "proposals" => &mut bounds.proposals,
                "crashes" => &mut bounds.crashes,
                "losses" => &mut bounds.losses,
                "late" => &mut bounds.late,
                "moves" => &mut bounds.moves,
                "apart" => &mut bounds.apart,
                "brokers" => {
                    bounds.brokers = usize::from(n);
                    return (2..=3).contains(&n);
                }
                _ => return false,
            };
            *place = n;
            bounds.writes <= 8 && bounds.values <= 3 && bounds.proposals <= 3
        }
        Small::Head(bounds) => {
            let place = match bound {
                "lives" => &mut bounds.lives,
                "doubts" => &mut bounds.doubts,
                "sends" => &mut bounds.sends,
                "records" => &mut bounds.records,
                _ => return false,
            };
            *place = n;
            true
        }
    }
}

fn one(world: World, rule: Option<&str>, most: usize) -> bool {
    let (report, asked) = explore(world.small, rule, most);
    println!(
        "{}: {} states, depth {}, {:.1} s; of the product: {asked}",
        world.name, report.states, report.depth, report.seconds
    );
    match &report.found {
        Some(found) => {
            println!("BROKEN {}", found.broken);
            for (number, line) in found.steps.iter().enumerate() {
                println!("{number:>4} {line}");
            }
            false
        }
        None if report.complete => {
            println!("nothing is broken anywhere within the bounds");
            true
        }
        None => {
            println!("given up: too many states");
            false
        }
    }
}

fn rules() -> ExitCode {
    let mut missed = false;
    println!("| rule taken out | what it says | world | caught by | steps | states |");
    println!("|---|---|---|---|---|---|");
    for mutation in MUTATIONS {
        let says = RULES.iter().find(|rule| rule.name == mutation.rule);
        let small = world(mutation.world).map(|world| world.small);
        let (Some(says), Some(small)) = (says, small) else {
            missed = true;
            println!(
                "| `{}` | **no such rule or world** | | | | |",
                mutation.rule
            );
            continue;
        };
        let (report, _) = explore(small, Some(mutation.rule), MOST);
        let (by, steps) = match &report.found {
            Some(found) => (
                found.broken.split(' ').next().unwrap_or_default(),
                found.steps.len() - 1,
            ),
            None => ("**not caught**", 0),
        };
        missed |= by != mutation.breaks;
        println!(
            "| `{}` | {} | {} | {by} | {steps} | {} |",
            mutation.rule, says.says, mutation.world, report.states
        );
    }
    match missed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
