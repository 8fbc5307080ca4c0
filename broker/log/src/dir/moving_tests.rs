//! Moves of a log between directories: nothing of it is lost or comes back, whatever happens meanwhile and wherever
//! the process or the machine ends.

use super::*;
use crate::batch::{RecordBatchBuilder, batches};
use crate::faults::{Change, Crash, Fault, Replay, Watched, flush_in_steps, lay_out, scratch};
use leasehold_types::LeaderEpoch;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rustix::io::Errno;

fn topic() -> TopicId {
    TopicId::parse("AAAAAAAAAAAAAAAAAAAAAQ").unwrap()
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn open(root: &Path) -> Result<Arc<LogDirs>, LogError> {
    let paths = ["a", "b"].map(|name| root.join(name));
    LogDirs::open(&paths[0], &paths, &ClusterId("c1".into()), BrokerId(3))
}

fn begun(root: &Path, life: i64) -> Arc<LogDirs> {
    let dirs = open(root).unwrap();
    dirs.begin(Incarnation(life)).unwrap();
    dirs.confirm(Incarnation(life)).unwrap();
    dirs
}

fn append(log: &PartitionLog, value: &str) {
    let mut batch = RecordBatchBuilder::new();
    batch.push(1000, None, Some(value.as_bytes()));
    log.append_leader(&batch.build(), LeaderEpoch(0), 1000)
        .unwrap();
}

fn opened(dirs: &LogDirs) -> (Arc<PartitionLog>, Arc<LogDir>) {
    dirs.open_partition(topic(), 0, config()).unwrap()
}

/// A log with some segments in one of two directories, and the other.
fn begun_with_a_log(root: &Path) -> (Arc<LogDirs>, Arc<PartitionLog>, Arc<LogDir>, Arc<LogDir>) {
    let dirs = begun(root, 1);
    let (log, from) = opened(&dirs);
    log.begin_epoch(LeaderEpoch(0)).unwrap();
    (0..12).for_each(|n| append(&log, &format!("before {n}")));
    let to = dirs.all().iter().find(|dir| dir.id() != from.id());
    let to = to.unwrap().clone();
    (dirs, log, from, to)
}

/// All that can be read.
fn held(log: &PartitionLog) -> Vec<bytes::Bytes> {
    let (mut at, end) = (log.log_start_offset(), log.log_end_offset());
    let mut all = Vec::new();
    while at < end {
        let read = log.read(at, 1_000, end, true).unwrap();
        assert!(!read.is_empty(), "nothing at {at} of {end}");
        for batch in batches(read) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            at = batch.header.next_offset();
            all.push(batch.bytes);
        }
    }
    all
}

fn always(_: u64) -> bool {
    true
}

fn moved(dirs: &LogDirs, mut moving: Move) -> Arc<PartitionLog> {
    loop {
        match dirs.end_move(moving, || ()).unwrap() {
            Turn::Moved(log) => return log,
            Turn::Busy(same) => {
                // Old segments are flushed by a thread of their own.
                moving = *same.wait_for_rest();
            }
            Turn::Stayed(_, e) => panic!("{e}"),
        }
    }
}

fn names(dir: &LogDir) -> Vec<String> {
    let mut names = disk::names(dir.path()).unwrap();
    names.retain(|name| name.starts_with('A'));
    names
}

#[test]
fn a_log_that_is_compacted_is_moved_afterwards_and_nobody_waits_for_it_meanwhile() {
    let root = scratch();
    let (dirs, log, _, to) = begun_with_a_log(root.path());
    let moving = dirs.begin_move(&log, to.id()).unwrap();
    let before = held(&log);
    let moving = {
        let _compacting = log.pretend_to_compact();
        match dirs.end_move(moving, || panic!("not now")).unwrap() {
            Turn::Busy(moving) => moving,
            _ => panic!("it moved under the cleaner"),
        }
    };
    append(&log, "meanwhile");
    let log = moved(&dirs, *moving.wait_for_rest());
    assert_eq!(held(&log).len(), before.len() + 1);
}

#[test]
fn a_moved_log_is_the_same_and_goes_on_in_its_new_place() {
    let root = scratch();
    let (dirs, log, from, to) = begun_with_a_log(root.path());
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    assert!(moving.pass(&mut always).unwrap().unwrap() > 500);
    append(&log, "meanwhile");
    let before = held(&log);
    drop(log);
    let log = moved(&dirs, moving);
    assert_eq!(held(&log), before);
    append(&log, "after");
    dirs.clear_after_move(topic(), 0).unwrap();
    assert_eq!(names(&from), Vec::<String>::new());
    assert_eq!(dirs.states()[0].partitions + dirs.states()[1].partitions, 1);
    let after = held(&log);
    assert_eq!(after.len(), before.len() + 1);
    dirs.close_clean().unwrap();
    drop((dirs, log, from, to));
    let dirs = begun(root.path(), 2);
    let (log, dir) = opened(&dirs);
    assert_eq!(held(&log), after);
    assert!(dir.path().ends_with("b") != dir.path().ends_with("a"));
}

#[test]
fn a_pass_copies_only_what_is_new() {
    flush_in_steps();
    let root = scratch();
    let (dirs, log, _, to) = begun_with_a_log(root.path());
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    let all = moving.pass(&mut always).unwrap().unwrap();
    assert_eq!(moving.pass(&mut always).unwrap(), Some(0));
    append(&log, "one more");
    let more = moving.pass(&mut always).unwrap().unwrap();
    assert!(more > 0 && more < all / 4, "{more} of {all}");
}

#[test]
fn an_epoch_that_was_begun_before_a_move_and_has_no_record_yet_goes_on_after_it() {
    let root = scratch();
    let (dirs, log, _, to) = begun_with_a_log(root.path());
    let moving = dirs.begin_move(&log, to.id()).unwrap();
    assert_eq!(log.begin_epoch(LeaderEpoch(7)).unwrap(), Offset(12));
    let log = moved(&dirs, moving);
    assert_eq!(log.last_epoch(), Some(LeaderEpoch(7)));
    assert_eq!(log.begin_epoch(LeaderEpoch(7)).unwrap(), Offset(12));
}

#[test]
fn what_is_cut_off_during_a_move_does_not_come_back() {
    let root = scratch();
    let (dirs, log, _, to) = begun_with_a_log(root.path());
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    moving.pass(&mut always).unwrap();
    log.truncate_to(Offset(5)).unwrap();
    // As long as what was there, so that only the generation tells.
    (5..12).for_each(|n| append(&log, &format!("anew.. {n}")));
    moving.pass(&mut always).unwrap();
    log.truncate_to(Offset(10)).unwrap();
    let before = held(&log);
    assert_eq!(held(&moved(&dirs, moving)), before);
}

#[test]
fn what_is_deleted_during_a_move_does_not_come_back() {
    let root = scratch();
    let (dirs, log, _, to) = begun_with_a_log(root.path());
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    moving.pass(&mut always).unwrap();
    log.delete_records_before(Offset(7)).unwrap();
    let before = held(&log);
    let log = moved(&dirs, moving);
    assert_eq!((log.log_start_offset(), held(&log)), (Offset(7), before));
}

#[test]
fn a_target_that_fails_leaves_all_as_it_was() {
    let root = scratch();
    let (dirs, log, from, to) = begun_with_a_log(root.path());
    let disk = Watched::new(root.path());
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    disk.break_folder(to.path(), Errno::IO);
    assert!(moving.pass(&mut always).is_err());
    assert!(to.failure().is_some() && from.failure().is_none());
    append(&log, "on");
    assert_eq!(held(&log).len(), 13);
    let turned = dirs.end_move(moving, || panic!("it is not time")).unwrap();
    assert!(matches!(turned, Turn::Stayed(..)));
    append(&log, "and on");
}

#[test]
fn a_log_that_was_never_appended_to_moves_too() {
    let root = scratch();
    let dirs = begun(root.path(), 1);
    let (log, from) = opened(&dirs);
    let to = dirs.all().iter().find(|dir| dir.id() != from.id()).unwrap();
    log.begin_epoch(LeaderEpoch(0)).unwrap();
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    moving.pass(&mut always).unwrap();
    let log = moved(&dirs, moving);
    // In the epoch that was begun before.
    append(&log, "first");
    assert_eq!((names(&from).len(), names(to).len()), (0, 1));
}

/// What every start on what a crash left must find: the log once, with all that was flushed in it.
fn check(root: &Path, flushed: &[bytes::Bytes], most: &[bytes::Bytes]) {
    let dirs = begun(root, 2);
    let (log, _) = opened(&dirs);
    let held = held(&log);
    assert!(
        held.len() >= flushed.len() && held.len() <= most.len(),
        "{} of {} to {}",
        held.len(),
        flushed.len(),
        most.len()
    );
    assert_eq!(held, most[..held.len()]);
    append(&log, "it goes on");
    let places: usize = dirs.states().iter().map(|state| state.partitions).sum();
    assert_eq!(places, 1);
    let folders: Vec<String> = dirs.all().iter().flat_map(|dir| names(dir)).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
}

#[test]
fn a_crash_anywhere_in_a_move_loses_nothing_and_leaves_one_log() {
    flush_in_steps();
    let root = scratch();
    let (dirs, log, _, to) = begun_with_a_log(root.path());
    log.flush().unwrap();
    let disk = Watched::new(root.path());
    let first = Replay::of(root.path());
    let mut moving = dirs.begin_move(&log, to.id()).unwrap();
    moving.pass(&mut always).unwrap();
    let flushed = held(&log);
    append(&log, "meanwhile");
    let most = held(&log);
    drop(moved(&dirs, moving));
    dirs.clear_after_move(topic(), 0).unwrap();
    let journal: Vec<Change> = disk.journal();
    drop(disk);
    let mut replay = first;
    let mut tried = 0;
    for k in 0..=journal.len() {
        if k > 0 {
            replay.apply(&journal[k - 1]);
        }
        for (n, crash) in [
            Crash::Killed,
            Crash::Lost,
            Crash::InOrder,
            Crash::OutOfOrder,
        ]
        .into_iter()
        .enumerate()
        {
            let mut rng = StdRng::seed_from_u64((k * 7 + n) as u64);
            let tree = replay.crash(crash, &mut rng);
            let again = scratch();
            lay_out(&tree, again.path());
            check(again.path(), &flushed, &most);
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn any_call_that_fails_leaves_a_log_that_the_next_start_finds_whole() {
    flush_in_steps();
    for at in 0.. {
        let root = scratch();
        let (dirs, log, _, to) = begun_with_a_log(root.path());
        log.flush().unwrap();
        let all = held(&log);
        let disk = Watched::new(root.path());
        let before = disk.calls();
        disk.fail(Fault {
            at: before + at,
            errno: Errno::IO,
        });
        let done = dirs.begin_move(&log, to.id()).and_then(|mut moving| {
            moving.pass(&mut always)?;
            dirs.end_move(moving, || ())
        });
        let failed = disk.failed().is_some();
        drop((done, dirs, log, to, disk));
        check(root.path(), &all, &all);
        if !failed {
            assert!(at > 20, "{at}");
            return;
        }
    }
}

#[test]
fn a_target_that_is_offline_at_the_next_start_does_not_let_the_old_log_serve() {
    let root = scratch();
    let (dirs, log, from, to) = begun_with_a_log(root.path());
    let moving = dirs.begin_move(&log, to.id()).unwrap();
    drop(log);
    let log = moved(&dirs, moving);
    append(&log, "acknowledged");
    let all = held(&log);
    let (at, hidden) = (to.path().to_owned(), root.path().join("hidden"));
    let source = from.path().to_owned();
    drop((dirs, log, from, to));
    std::fs::rename(&at, &hidden).unwrap();
    std::fs::write(&at, "no folder").unwrap();
    let home = LogDirs::open(
        &source,
        &[source.clone(), at.clone()],
        &ClusterId("c1".into()),
        BrokerId(3),
    )
    .unwrap();
    let (starts, unreadable) = home.begin(Incarnation(2)).unwrap();
    assert_eq!(unreadable, 1);
    assert!(starts.iter().all(|start| start.partitions.is_empty()));
    drop(home);
    std::fs::remove_file(&at).unwrap();
    std::fs::rename(&hidden, &at).unwrap();
    let dirs = begun(root.path(), 3);
    assert_eq!(held(&opened(&dirs).0), all);
}
