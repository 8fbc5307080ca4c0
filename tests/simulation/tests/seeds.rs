//! The seeds that every change is tried against, and the promise that a seed is a run.

use leasehold_simulation::world::run;

/// About fifteen seconds' worth.
const SEEDS: u64 = 60;

#[test]
fn no_promise_breaks_whatever_the_seed() {
    let (mut claims, mut elections, mut acknowledged, mut consumed) = (0, 0, 0, 0);
    let (mut groups, mut txns) = ([0; 3], [0; 3]);
    for seed in 0..SEEDS {
        let outcome = run(seed, None, true).unwrap();
        assert_eq!(
            outcome.broken, None,
            "replay with tests/simulate --seed {seed}"
        );
        claims += outcome.claims;
        elections += outcome.elections;
        acknowledged += outcome.acknowledged;
        consumed += outcome.consumed;
        let sums = groups.iter_mut().chain(&mut txns);
        for (sum, count) in sums.zip(outcome.groups.into_iter().chain(outcome.txns)) {
            *sum += count;
        }
    }
    // The runs must get somewhere to prove anything.
    assert!(claims > 150 && elections > 200 && acknowledged > 8_000 && consumed > 8_000);
    let [commits, fetched, generations] = groups;
    assert!(commits > 2_000 && fetched > 700 && generations > 60);
    let [committed, aborted, read] = txns;
    assert!(committed > 30 && aborted > 8 && read > 70, "{txns:?}");
}

#[test]
fn one_seed_is_one_run_to_the_last_byte() {
    for seed in 0..SEEDS / 3 {
        let _listening = leasehold_simulation::voices::listen();
        let (first, second) = (
            run(seed, None, true).unwrap().trace,
            run(seed, None, true).unwrap().trace,
        );
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        let from = |trace: &[String], at: usize| trace[at..trace.len().min(at + 4)].join("\n");
        if let Some(at) = differs {
            let (one, other) = (from(&first, at), from(&second, at));
            panic!("seed {seed}, line {at}:\n{one}\nand then:\n{other}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

#[test]
fn a_rule_taken_out_is_noticed() {
    for rule in [
        "head-tests-nonce",
        "effects-wait",
        "leader-change-raises-epoch",
        "logs-are-compared",
        "readers-stop-at-the-high-watermark",
        "a-repeat-is-recognised",
        "retention-leaves-its-bytes",
        "a-keys-last-record-stays",
        "aborted-transactions-are-told",
        "an-older-epoch-changes-nothing",
        "aborted-offsets-do-not-show",
    ] {
        let noticed = (0..40).any(|seed| run(seed, Some(rule), true).unwrap().broken.is_some());
        assert!(noticed, "{rule}");
    }
}
