//! One flipped bit, anywhere in a log directory: it is noticed, and never a panic.

use super::check::{indexes, open_all, reads_or_says_why};
use super::replay::{Tree, lay_out, tree_of};
use super::scenario::{Held, Moment, PLAIN, PRODUCER, START, Step, World, header};
use super::transactions::transactions;
use super::{flush_in_steps, scratch};
use crate::batch::{BatchHeader, HEADER_LEN};
use crate::dir::{marks::MARKS, meta::META, run::RUN};
use crate::inspect::{Finding, inspect};
use leasehold_types::{LeaderEpoch, Offset};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::path::Path;

/// A directory that was closed in order, with something in each kind of file.
fn closed() -> (Tree, Moment) {
    use Step::{Clean, Close, Delete, End, Epoch, FlushSealed, Lead, Mark, Produce, Transact};
    flush_in_steps();
    let folder = scratch();
    let mut world = World::new(folder.path().join("data"));
    let mut steps = START.to_vec();
    for p in 0..2 {
        for _ in 0..3 {
            steps.extend([Epoch(p), Lead(p), Produce(p), Lead(p), Lead(p)]);
        }
        steps.extend([
            Transact(p),
            Lead(p),
            End(p, false),
            Transact(p),
            Lead(p),
            Lead(p),
        ]);
    }
    steps.extend([FlushSealed(PLAIN), Delete(PLAIN, 1), Clean, Mark, Close]);
    let (past, failure) = world.live(&steps, || 0);
    assert_eq!(failure, None);
    (tree_of(folder.path()), past.last().unwrap().clone())
}

/// The files in it that hold something of a log.
fn files(tree: &Tree) -> Vec<(&Path, &Vec<u8>)> {
    let files = tree
        .iter()
        .filter_map(|(path, c)| Some((path.as_path(), c.as_ref()?)));
    files
        .filter(|(path, _)| path.file_name().is_some_and(|name| name != ".lock"))
        .collect()
}

fn suffix(path: &Path) -> &str {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    name.rsplit_once('.').map_or(name, |(_, suffix)| suffix)
}

/// Which byte of its batch a byte of a segment is.
fn of_batch(segment: &[u8], at: usize) -> usize {
    let mut from = 0;
    loop {
        let len = crate::batch::BatchHeader::parse(&segment[from..])
            .unwrap()
            .total_len();
        if at < from + len {
            return at - from;
        }
        from += len;
    }
}

fn damages(path: &Path) -> Vec<(String, u64, String)> {
    let mut found = Vec::new();
    let done = inspect(path, &mut |finding| {
        if let Finding::Damage { path, at, what } = finding {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            found.push((name.into_owned(), at, what));
        }
    });
    done.unwrap();
    found
}

#[test]
fn a_flipped_bit_in_any_file_is_found_by_an_inspection_and_gives_no_reader_wrong_records() {
    let (tree, was) = closed();
    let mut rng = StdRng::seed_from_u64(7);
    for (path, content) in files(&tree) {
        for at in 0..content.len() {
            let mut flipped = content.clone();
            flipped[at] ^= 1 << rng.random_range(0..8);
            let mut damaged = tree.clone();
            damaged.insert(path.to_owned(), Some(flipped));
            let folder = scratch();
            lay_out(&damaged, folder.path());
            let context = format!("{} byte {at}", path.display());
            let found = damages(&folder.path().join("data"));
            // Who the owner is, and which life was confirmed, a start compares with what it knows.
            if !["meta", "run"].contains(&suffix(path)) {
                let name = path.file_name().unwrap().to_string_lossy();
                assert!(
                    found.iter().any(|(file, ..)| *file == *name),
                    "{context}: {found:?}"
                );
            }
            flipped_and_opened(folder.path(), path, content, at, &was)
                .unwrap_or_else(|e| panic!("{context}: {e}"));
        }
    }
}

/// Whoever opens it finds what was there, or hears of the file that is damaged.
fn flipped_and_opened(
    root: &Path,
    file: &Path,
    content: &[u8],
    at: usize,
    was: &Moment,
) -> Result<(), String> {
    let (dir, logs) = match open_all(&root.join("data")) {
        Ok(opened) => opened,
        Err(e) => {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let named = e.contains(&name) || (name == META && e.contains("belongs to broker"));
            return named.then_some(()).ok_or(e);
        }
    };
    for (id, mark) in dir.high_watermark_checkpoints() {
        if was.marks.get(&id) != Some(&mark) {
            return Err(format!("{MARKS}: {mark} of {id:?}"));
        }
    }
    for (log, held) in logs.iter().zip(&was.logs) {
        let found = reads_or_says_why(log);
        // Kafka's checksum does not cover them: the base offset and the leader epoch.
        let uncovered = suffix(file) == "log" && of_batch(content, at) < 16;
        match &found {
            // It was noticed at once, at the log's end, and cut off.
            Some(found) if suffix(file) == "log" && log.log_end_offset().0 < held.end => {
                assert!(held.batches.starts_with(found));
            }
            Some(found) if !uncovered => same(log, found, held)?,
            None if suffix(file) != "log" => return Err("it cannot be read".into()),
            _ => {}
        }
    }
    Ok(())
}

fn same(log: &crate::PartitionLog, found: &[bytes::Bytes], held: &Held) -> Result<(), String> {
    if found != held.batches {
        let (a, b) = (found.len(), held.batches.len());
        return Err(format!("{a} batches are read, where {b} others were"));
    }
    if log.log_start_offset().0 != held.start {
        return Err(format!("it starts at {}", log.log_start_offset()));
    }
    // Read from the batches, an epoch starts with the first that compaction left of it.
    let epochs = log.epochs();
    let compacted = log.config().compact;
    let same = |(found, was): (&(LeaderEpoch, Offset), &(i32, i64))| {
        found.0.0 == was.0 && (found.1.0 == was.1 || compacted)
    };
    let count = epochs.len() == held.epochs.len();
    if held.created && !(count && epochs.iter().zip(&held.epochs).all(same)) {
        return Err(format!("epochs {epochs:?}, not {:?}", held.epochs));
    }
    let known = log.producers();
    let mine = |h: &BatchHeader| h.producer_id == PRODUCER;
    for h in held.batches.iter().map(header).filter(mine) {
        if known.check(&h, None).ok().flatten().is_none() {
            return Err(format!(
                "the producer's batch at {} is forgotten",
                h.base_offset
            ));
        }
    }
    indexes(log, found)?;
    transactions(log, found, found)
}

#[test]
fn recovery_cuts_before_the_batch_with_the_flipped_bit() {
    let (tree, was) = closed();
    let mut rng = StdRng::seed_from_u64(8);
    for (path, content) in files(&tree) {
        let ours = path.parent().unwrap().to_string_lossy().ends_with("-0");
        if suffix(path) != "log" || !ours {
            continue;
        }
        for at in 0..content.len() {
            let byte = of_batch(content, at);
            if byte < 8
                || (12..16).contains(&byte)
                || (byte > HEADER_LEN && !byte.is_multiple_of(7))
            {
                continue;
            }
            let mut damaged = tree.clone();
            let mut flipped = content.clone();
            flipped[at] ^= 1 << rng.random_range(0..8);
            damaged.insert(path.to_owned(), Some(flipped));
            damaged.retain(|path, _| !["recovery-point", RUN].contains(&suffix(path)));
            let folder = scratch();
            lay_out(&damaged, folder.path());
            let context = format!("{} byte {at}", path.display());
            let (_dir, logs) = open_all(&folder.path().join("data")).unwrap();
            let base: i64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let cut = base + first_offset(content, at - byte) - first_offset(content, 0);
            assert_eq!(logs[PLAIN].log_end_offset().0, cut, "{context}");
            let found = reads_or_says_why(&logs[PLAIN]);
            let want = was.logs[PLAIN].batches.iter();
            let want: Vec<_> = want
                .filter(|b| header(b).next_offset().0 <= cut)
                .cloned()
                .collect();
            assert_eq!(found, Some(want), "{context}");
        }
    }
}

fn first_offset(segment: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(segment[at..at + 8].try_into().unwrap())
}
