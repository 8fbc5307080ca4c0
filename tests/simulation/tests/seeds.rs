//! The seeds that every change is tried against, and the promise that a seed is a run.

use leasehold_simulation::world::run;

/// About ten seconds' worth.
const SEEDS: u64 = 60;

#[test]
fn no_promise_breaks_whatever_the_seed() {
    let (mut claims, mut elections, mut acknowledged) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = run(seed, None);
        assert_eq!(
            outcome.broken, None,
            "replay with tests/simulate --seed {seed}"
        );
        claims += outcome.claims;
        elections += outcome.elections;
        acknowledged += outcome.acknowledged;
    }
    // The runs must get somewhere to prove anything.
    assert!(claims > 150 && elections > 200 && acknowledged > 5_000);
}

#[test]
fn one_seed_is_one_run_to_the_last_byte() {
    for seed in 0..SEEDS / 3 {
        let (first, second) = (run(seed, None).trace, run(seed, None).trace);
        let differs = first.iter().zip(&second).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

#[test]
fn a_rule_taken_out_is_noticed() {
    for rule in [
        "head-tests-nonce",
        "effects-wait",
        "leader-change-raises-epoch",
    ] {
        let noticed = (0..40).any(|seed| run(seed, Some(rule)).broken.is_some());
        assert!(noticed, "{rule}");
    }
}
