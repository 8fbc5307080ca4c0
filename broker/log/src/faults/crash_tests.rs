//! A crash at every call that changes the disk: by a kill, which loses nothing, and by a power cut, which
//! loses of what was not fsynced whatever it likes. And a second crash, in or after what the first one
//! makes the broker do.

use super::check::{after_crash, goes_on};
use super::replay::{Change, Crash, Replay, Tree, lay_out, tree_of};
use super::scenario::{COMPACTED, Failure, Moment, PLAIN, Step, World, all_of_it, anything};
use super::{Watched, flush_in_steps, scratch};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

const THREADS: usize = 2;

/// What was lived, and what it did to the disk.
pub(super) struct Lived {
    pub past: Vec<Moment>,
    pub journal: Vec<Change>,
    /// The disk before.
    pub first: Replay,
}

impl Lived {
    /// The last moment before call `k`.
    fn before(&self, k: usize) -> Option<usize> {
        self.past.iter().rposition(|m| m.calls <= k)
    }
}

pub(super) fn live(steps: &[Step]) -> Lived {
    flush_in_steps();
    let folder = scratch();
    let disk = Watched::new(folder.path());
    let first = Replay::of(folder.path());
    let mut world = World::new(folder.path().join("data"));
    let (past, failure) = world.live(steps, || disk.journal().len());
    assert_eq!(failure, None);
    let journal = disk.journal();
    // The journal tells all that was done to the disk.
    let mut replay = first.clone();
    journal.iter().for_each(|change| replay.apply(change));
    let told = replay.crash(Crash::Killed, &mut StdRng::seed_from_u64(0));
    assert_eq!(told, tree_of(folder.path()));
    Lived {
        past,
        journal,
        first,
    }
}

/// The crashes to be tried at one point.
fn crashes(lived: &Lived, replay: &Replay, k: usize, rng: &mut StdRng) -> Vec<(Crash, Tree)> {
    let kinds = [
        Crash::Killed,
        Crash::Lost,
        Crash::InOrder,
        Crash::InOrder,
        Crash::OutOfOrder,
        Crash::OutOfOrder,
    ];
    let mut all: Vec<_> = kinds.map(|kind| (kind, replay.crash(kind, rng))).into();
    // Killed in the middle of a write.
    if let Some(Change::Write { inode, at, bytes }) = lived.journal.get(k) {
        let mut torn = replay.clone();
        torn.apply(&Change::Write {
            inode: *inode,
            at: *at,
            bytes: bytes.slice(..rng.random_range(0..=bytes.len())),
        });
        all.push((Crash::Killed, torn.crash(Crash::Killed, rng)));
    }
    all
}

/// Crashes at every point, each thread at its share of them. Returns how many different disks there were.
fn crash_everywhere(lived: &Lived, seed: u64) -> usize {
    let tried = std::thread::scope(|scope| {
        let one = |thread| scope.spawn(move || crash_at_some(lived, seed, thread));
        let all: Vec<_> = (0..THREADS).map(one).collect();
        all.into_iter().map(|t| t.join().unwrap()).sum()
    });
    eprintln!(
        "{} steps, {} calls, {tried} disks after a crash",
        lived.past.len(),
        lived.journal.len()
    );
    tried
}

fn crash_at_some(lived: &Lived, seed: u64, thread: usize) -> usize {
    flush_in_steps();
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut replay = lived.first.clone();
    for k in 0..=lived.journal.len() {
        if k > 0 {
            replay.apply(&lived.journal[k - 1]);
        }
        let mut rng = StdRng::seed_from_u64(seed * 1_000_003 + k as u64);
        let at = lived.before(k).unwrap();
        if at % THREADS != thread {
            continue;
        }
        for (crash, tree) in crashes(lived, &replay, k, &mut rng) {
            let again = rng.random_bool(0.1).then(|| rng.random());
            if !seen.insert(hasher.hash_one((at, crash == Crash::Killed, &tree))) {
                continue;
            }
            if let Err(e) = try_crash(lived, at, crash, &tree, again) {
                let step = lived.past.get(at + 1).and_then(|m| m.step);
                let call = lived.journal.get(k);
                panic!(
                    "seed {seed}, crash {crash:?} at call {k}, {call:?}, in step {step:?} (after {at}): {e}"
                );
            }
        }
    }
    seen.len()
}

fn try_crash(
    lived: &Lived,
    at: usize,
    crash: Crash,
    tree: &Tree,
    again: Option<u64>,
) -> Result<(), Failure> {
    let folder = scratch();
    lay_out(tree, folder.path());
    let path = folder.path().join("data");
    let Some(seed) = again else {
        let world = after_crash(&path, &lived.past, at, crash, false)?;
        return goes_on(world, &path);
    };
    let disk = Watched::new(folder.path());
    let first = Replay::of(folder.path());
    let mut world = after_crash(&path, &lived.past, at, crash, false)?;
    let begun = disk.journal().len();
    let mut rng = StdRng::seed_from_u64(seed);
    let (past, failure) = world.live(&second_life(&mut rng), || disk.journal().len());
    if let Some(e) = failure {
        return Err(format!("in the second life: {e}"));
    }
    let second = Lived {
        past: past
            .into_iter()
            .map(|m| Moment {
                calls: m.calls.max(begun),
                ..m
            })
            .collect(),
        journal: disk.journal(),
        first,
    };
    drop((world, disk));
    crash_again(lived, at, crash, &second, &mut rng)
}

/// What is done between two crashes.
fn second_life(rng: &mut StdRng) -> Vec<Step> {
    use Step::{Clean, Close, Epoch, Flush, FlushSealed, Follow, Lead, Produce};
    let mut steps = vec![Epoch(PLAIN), Lead(PLAIN), Epoch(COMPACTED)];
    for _ in 0..rng.random_range(0..8) {
        let p = rng.random_range(0..2);
        let follow = Follow(PLAIN, 3, true);
        let some = [
            Lead(p),
            Produce(p),
            Flush(p),
            FlushSealed(p),
            Epoch(p),
            Clean,
            follow,
        ];
        steps.push(some[rng.random_range(0..some.len())]);
    }
    if rng.random_bool(0.3) {
        steps.push(Close);
    }
    steps
}

/// Once at a point of the recovery, once after it.
fn crash_again(
    lived: &Lived,
    at: usize,
    crash: Crash,
    second: &Lived,
    rng: &mut StdRng,
) -> Result<(), Failure> {
    let begun = second.past[0].calls;
    let points = [
        rng.random_range(0..=begun),
        rng.random_range(begun..=second.journal.len()),
        rng.random_range(begun..=second.journal.len()),
    ];
    for k in points {
        let mut replay = second.first.clone();
        second.journal[..k].iter().for_each(|c| replay.apply(c));
        for kind in [Crash::Killed, Crash::InOrder, Crash::OutOfOrder] {
            let folder = scratch();
            lay_out(&replay.crash(kind, rng), folder.path());
            let path = folder.path().join("data");
            let world = match second.before(k) {
                Some(then) => after_crash(&path, &second.past, then, kind, false),
                // What the first crash spared, a second one in the recovery does not take.
                None => after_crash(&path, &lived.past, at, worse(crash, kind), true),
            };
            let done = world.and_then(|world| goes_on(world, &path));
            done.map_err(|e| format!("{kind:?} again, at call {k} ({begun} to recover): {e}"))?;
        }
    }
    Ok(())
}

fn worse(a: Crash, b: Crash) -> Crash {
    match a {
        Crash::Killed => b,
        _ => a,
    }
}

#[test]
fn whatever_was_acknowledged_survives_a_kill_and_whatever_was_flushed_a_power_cut_at_any_call() {
    let lived = live(&all_of_it());
    assert!(crash_everywhere(&lived, 1) > 1000);
}

#[test]
fn a_crash_at_any_call_of_whatever_a_broker_does_loses_nothing_that_was_promised() {
    for seed in seeds() {
        crash_everywhere(&live(&anything(seed, 40)), seed);
    }
}

/// A few; in the last of them, retention takes a log's every segment. For a longer search, how many:
/// `FAULT_SEEDS`.
fn seeds() -> Vec<u64> {
    let told = std::env::var("FAULT_SEEDS").ok();
    match told.and_then(|n| n.parse().ok()) {
        Some(n) => (0..n).collect(),
        None => vec![0, 1, 9],
    }
}
