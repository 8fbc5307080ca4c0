//! Two fsyncs that a crash at any call of an ordinary day hardly ever needs: each with the days on which it
//! does. Without the fsync its test fails; that is what it is here for.

use super::check::{after_crash, goes_on};
use super::crash_tests::live;
use super::replay::{Change, Crash, Replay, lay_out};
use super::scenario::{COMPACTED, Failure, PLAIN, START, Step, World};
use super::{Watched, flush_in_steps, scratch};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// What a recovery cuts off must not come back behind what is appended in its place: batches of one size,
/// of which the first was lost in a power cut and the next was not, are a log again as soon as another batch
/// fills the gap and the cut itself is forgotten.
#[test]
fn what_recovery_cut_off_does_not_come_back_behind_what_took_its_place() {
    let mut steps = START.to_vec();
    steps.push(Step::Epoch(PLAIN));
    steps.extend([Step::Lead(PLAIN); 5]);
    steps.push(Step::Flush(PLAIN));
    let flushed = steps.len();
    steps.extend([Step::Lead(PLAIN); 3]);
    let lived = live(&steps);
    let held = &lived.past[steps.len()].logs[PLAIN];
    let lost = &held.batches[5];

    // The batch that follows the flushed ones was not written, those after it were.
    let mut replay = lived.first.clone();
    lived.journal.iter().for_each(|change| replay.apply(change));
    let mut tree = replay.crash(Crash::Killed, &mut StdRng::seed_from_u64(0));
    let mut emptied = 0;
    for content in tree.values_mut().flatten() {
        let at = content
            .windows(lost.len())
            .position(|part| part == &lost[..]);
        if let Some(at) = at {
            content[at..at + lost.len()].fill(0);
            emptied += 1;
        }
    }
    assert_eq!(emptied, 1);

    flush_in_steps();
    let folder = scratch();
    lay_out(&tree, folder.path());
    let path = folder.path().join("data");
    let disk = Watched::new(folder.path());
    let first = Replay::of(folder.path());
    let mut world = after_crash(&path, &lived.past, flushed, Crash::Lost, false).unwrap();
    let begun = disk.journal().len();
    let (past, failure) = world.live(&[Step::Lead(PLAIN)], || disk.journal().len());
    assert_eq!(failure, None);
    let took_its_place = past[past.len() - 1].logs[PLAIN].batches.last();
    assert_eq!(
        took_its_place.map(|b| b.len()),
        Some(lost.len()),
        "it fills the gap"
    );
    let journal = disk.journal();
    drop((world, disk));
    let mut replay = first;
    journal.iter().for_each(|change| replay.apply(change));
    assert!(journal.len() > begun);
    for draw in 0..60 {
        let mut rng = StdRng::seed_from_u64(draw);
        let folder = scratch();
        lay_out(&replay.crash(Crash::OutOfOrder, &mut rng), folder.path());
        let path = folder.path().join("data");
        let done = after_crash(&path, &past, past.len() - 1, Crash::OutOfOrder, false)
            .and_then(|world| goes_on(world, &path));
        done.unwrap_or_else(|e| panic!("draw {draw}: {e}"));
    }
}

/// A merged segment and one that went into it must not lie in the folder together: the next cleaning would
/// take the records of both, one after the other, for those of two neighbours.
#[test]
fn a_merged_segment_never_stands_beside_what_went_into_it() {
    let mut steps = START.to_vec();
    steps.push(Step::Epoch(COMPACTED));
    // The first cleaning shrinks segments, the second makes one of them.
    for _ in 0..2 {
        steps.extend([Step::Lead(COMPACTED); 20]);
        steps.extend([Step::Flush(COMPACTED), Step::Clean]);
    }
    let lived = live(&steps);
    let cleaned = lived.past.len() - 1;
    let merging = lived.past[cleaned - 1].calls..lived.past[cleaned].calls;
    let retired = |change: &Change| matches!(change, Change::Rename { to, .. } if to.extension().is_some_and(|e| e == "deleted"));
    assert!(
        lived.journal[merging.clone()].iter().any(retired),
        "nothing was merged"
    );

    let mut replay = lived.first.clone();
    lived.journal[..merging.start]
        .iter()
        .for_each(|change| replay.apply(change));
    for k in merging {
        replay.apply(&lived.journal[k]);
        for draw in 0..8 {
            let mut rng = StdRng::seed_from_u64(draw);
            let tree = replay.crash(Crash::OutOfOrder, &mut rng);
            let folder = scratch();
            lay_out(&tree, folder.path());
            let path = folder.path().join("data");
            let done = after_crash(&path, &lived.past, cleaned - 1, Crash::OutOfOrder, false)
                .and_then(cleans_again);
            done.unwrap_or_else(|e| panic!("call {k}, draw {draw}: {e}"));
        }
    }
}

/// Appends enough for another cleaning, and cleans; what each step leaves is read from start to end.
fn cleans_again(mut world: World) -> Result<(), Failure> {
    flush_in_steps();
    let mut steps = vec![Step::Lead(COMPACTED); 12];
    steps.extend([Step::Flush(COMPACTED), Step::Clean, Step::Clean]);
    match world.live(&steps, || 0) {
        (_, None) => Ok(()),
        (_, Some(failure)) => Err(format!("it does not go on: {failure}")),
    }
}
