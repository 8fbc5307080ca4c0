//! The corpus as an ordinary test: every input that is kept, and some near each of them, against its target.
//! Needs no special build; a coverage-guided search is `tests/fuzz/run`.
//!
//! All in one test, as the bound of memory counts the whole process.

use leasehold_fuzz::{TARGETS, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;

/// Inputs tried near each one that is kept.
const NEAR: usize = 3;

fn change(input: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut changed = input.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if changed.is_empty() {
            break;
        }
        let at = rng.random_range(0..changed.len());
        match rng.random_range(0..4) {
            0 => changed[at] ^= 1 << rng.random_range(0..8),
            1 => changed[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            2 => changed.truncate(at),
            _ => changed.insert(at, rng.random()),
        }
    }
    changed
}

#[test]
fn every_input_that_is_kept_and_those_near_it_hold_the_promises_of_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut rng = StdRng::seed_from_u64(1);
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let mut paths: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        assert!(paths.len() > 3, "{} has no corpus", target.name);
        for path in paths {
            let input = std::fs::read(&path).unwrap();
            // Shown if the test fails.
            println!("{}", path.display());
            run(target, &input);
            for _ in 0..NEAR {
                let near = change(&input, &mut rng);
                println!("  near it: {near:?}");
                run(target, &near);
            }
        }
    }
}
