//! Several directories: which one a partition gets, which are refused, and what goes on when one fails.

use super::*;
use crate::batch::RecordBatchBuilder;
use crate::faults::{Fault, Watched, flush_in_steps};
use leasehold_types::LeaderEpoch;
use rustix::io::Errno;

static TOPIC: std::sync::LazyLock<TopicId> = std::sync::LazyLock::new(TopicId::random);

fn open(paths: &[PathBuf]) -> Result<Arc<LogDirs>, LogError> {
    LogDirs::open(&paths[0], paths, &ClusterId("c1".into()), BrokerId(3))
}

fn begun(paths: &[PathBuf], life: i64) -> Arc<LogDirs> {
    let dirs = open(paths).unwrap();
    dirs.begin(Incarnation(life)).unwrap();
    dirs.confirm(Incarnation(life)).unwrap();
    dirs
}

struct Home {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn home(names: &[&str]) -> Home {
    let folder = crate::faults::scratch();
    let paths = names.iter().map(|name| folder.path().join(name)).collect();
    Home { folder, paths }
}

fn append(log: &PartitionLog) -> Result<crate::AppendInfo, crate::AppendError> {
    log.begin_epoch(LeaderEpoch(0))?;
    let mut batch = RecordBatchBuilder::new();
    batch.push(1000, None, Some(b"x"));
    log.append_leader(&batch.build(), LeaderEpoch(0), 1000)
}

fn place(dirs: &LogDirs, partition: i32) -> PathBuf {
    let (log, dir) = dirs
        .open_partition(*TOPIC, partition, LogConfig::default())
        .unwrap();
    append(&log).unwrap();
    dir.path().to_owned()
}

#[test]
fn a_new_partition_gets_the_directory_with_the_fewest_and_keeps_it() {
    let home = home(&["a", "b", "c"]);
    let dirs = begun(&home.paths, 1);
    let places: Vec<PathBuf> = (0..7).map(|n| place(&dirs, n)).collect();
    for path in &home.paths {
        let here = places.iter().filter(|place| *place == path).count();
        assert!((2..=3).contains(&here), "{places:?}");
    }
    dirs.delete_partition(*TOPIC, 2).unwrap();
    dirs.delete_partition(*TOPIC, 5).unwrap();
    assert_eq!(place(&dirs, 8), places[2], "the emptied one");
    drop(dirs);
    let dirs = begun(&home.paths, 2);
    for n in [0, 1, 3, 4, 6] {
        assert_eq!(place(&dirs, n), places[n as usize]);
    }
    assert_eq!(dirs.partitions().unwrap().len(), 6);
}

#[test]
fn a_new_partition_is_begun_where_it_is_preferred_if_that_is_online_and_it_lies_nowhere_yet() {
    let home = home(&["a", "b"]);
    let dirs = begun(&home.paths, 1);
    let first = place(&dirs, 0);
    let to = dirs.all().iter().find(|dir| dir.path() == first).unwrap();
    dirs.prefer((*TOPIC, 1), to.id(), |_| true);
    assert_eq!(place(&dirs, 1), first, "and not the emptier one");
    // Not for one that lies somewhere, that is unknown, or that is known no more when another is preferred.
    let other = dirs.all().iter().find(|dir| dir.path() != first).unwrap();
    dirs.prefer((*TOPIC, 1), other.id(), |_| true);
    assert_eq!(place(&dirs, 1), first);
    dirs.prefer((*TOPIC, 2), to.id(), |_| false);
    let second = place(&dirs, 2);
    assert_eq!(second, other.path());
    dirs.prefer((*TOPIC, 3), to.id(), |_| true);
    dirs.prefer((*TOPIC, 4), to.id(), |id| id.1 != 3);
    assert_eq!(place(&dirs, 3), second);
    assert_eq!(place(&dirs, 4), first);
}

#[test]
fn a_partition_in_two_directories_is_refused_by_both_names_and_no_other_is() {
    let home = home(&["a", "b"]);
    let dirs = begun(&home.paths, 1);
    let at = place(&dirs, 0);
    drop(dirs);
    let other = home.paths.iter().find(|path| **path != at).unwrap();
    std::fs::create_dir(other.join(format!("{}-0", *TOPIC))).unwrap();
    let dirs = begun(&home.paths, 2);
    let refused = dirs.open_partition(*TOPIC, 0, LogConfig::default());
    let refused = refused.err().unwrap().to_string();
    for path in &home.paths {
        assert!(refused.contains(&path.display().to_string()), "{refused}");
    }
    place(&dirs, 1);
    assert!(dirs.states().iter().all(|state| state.failure.is_none()));
    // Taken out of service by an administrator, it is gone from both.
    dirs.delete_partition(*TOPIC, 0).unwrap();
    place(&dirs, 0);
}

#[test]
fn the_same_directory_twice_and_a_copy_of_one_are_refused() {
    let home = home(&["a", "b"]);
    let a = home.paths[0].clone();
    let again = home.folder.path().join("link");
    drop(open(std::slice::from_ref(&a)).unwrap());
    std::os::unix::fs::symlink(&a, &again).unwrap();
    let refused = open(&[a.clone(), again]).err().unwrap();
    assert!(matches!(refused, LogError::Twice { .. }), "{refused}");
    std::fs::create_dir(&home.paths[1]).unwrap();
    std::fs::copy(a.join("meta"), home.paths[1].join("meta")).unwrap();
    let refused = open(&home.paths).err().unwrap();
    assert!(matches!(refused, LogError::Twice { .. }), "{refused}");
}

#[test]
fn a_directory_of_another_broker_is_refused_whatever_the_others_are() {
    let home = home(&["a", "b"]);
    let theirs = [home.paths[1].clone()];
    let other = LogDirs::open(&theirs[0], &theirs, &ClusterId("c1".into()), BrokerId(4));
    drop(other.unwrap());
    let refused = open(&home.paths).err().unwrap().to_string();
    assert!(refused.contains("4 of cluster c1"), "{refused}");
    assert!(refused.contains(&theirs[0].display().to_string()));
}

#[test]
fn an_id_is_kept_for_life_and_given_to_a_directory_of_an_earlier_release() {
    let home = home(&["a", "b"]);
    let ids = |paths: &[PathBuf]| -> Vec<DirectoryId> {
        let dirs = open(paths).unwrap();
        dirs.all().iter().map(|dir| dir.id()).collect()
    };
    let before = ids(&home.paths);
    let swapped: Vec<PathBuf> = home.paths.iter().rev().cloned().collect();
    assert_eq!(ids(&swapped), [before[1], before[0]]);
    let old = br#"{"version":1,"cluster_id":"c1","broker_id":3}"#;
    std::fs::write(home.paths[0].join("meta"), old).unwrap();
    let given = ids(&home.paths);
    assert_ne!(given[0], before[0]);
    assert_eq!(ids(&home.paths), given);
}

#[test]
fn files_of_the_broker_itself_may_lie_beside_the_log_directories_and_are_locked_too() {
    let home = home(&["home", "a"]);
    let (own, logs) = (&home.paths[0], &home.paths[1..]);
    let open = || LogDirs::open(own, logs, &ClusterId("c1".into()), BrokerId(3));
    let dirs = open().unwrap();
    assert_eq!(dirs.all().len(), 1);
    let lock = std::fs::File::open(own.join(".lock")).unwrap();
    let flock = |operation| rustix::fs::flock(&lock, operation);
    let held = flock(rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(held, Err(Errno::WOULDBLOCK));
    drop(dirs);
    flock(rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn a_directory_that_cannot_be_opened_is_left_out_and_the_last_is_an_error() {
    let home = home(&["a", "b"]);
    let blocked = home.paths[1].clone();
    std::fs::write(&blocked, b"a file where a folder should be").unwrap();
    let dirs = begun(&home.paths, 1);
    let states = dirs.states();
    assert_eq!(states.len(), 2);
    assert!(states[0].failure.is_none() && states[1].failure.is_some());
    let (starts, unreadable) = dirs.begin(Incarnation(1)).unwrap();
    assert_eq!((starts.len(), unreadable), (1, 1));
    assert_eq!(place(&dirs, 0), home.paths[0]);
    let error = open(std::slice::from_ref(&blocked))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains(&blocked.display().to_string()), "{error}");
}

/// Appends to a log in each of two directories until the one fails, at its call number `at`. Returns whether
/// it came to that.
fn fail_one(errno: Errno, at: usize) -> bool {
    flush_in_steps();
    let home = home(&["a", "b"]);
    let dirs = begun(&home.paths, 1);
    let config = || LogConfig {
        segment_bytes: 300,
        ..LogConfig::default()
    };
    let open = |n| dirs.open_partition(*TOPIC, n, config()).unwrap();
    let logs: Vec<_> = (0..4).map(open).collect();
    let doomed = logs[0].1.path().to_owned();
    let disk = Watched::new(&doomed);
    disk.fail(Fault { at, errno });
    let mut acknowledged = [0; 4];
    let mut met = None;
    for round in 0..12 {
        for (n, (log, dir)) in logs.iter().enumerate() {
            let done = append(log).map_err(|e| e.to_string()).and_then(|_| {
                acknowledged[n] += 1;
                log.flush().map_err(|e| e.to_string())
            });
            match done {
                Ok(()) if dir.path() == doomed => assert_eq!(met, None, "{round}"),
                Ok(()) => {}
                Err(e) => {
                    assert_eq!(dir.path(), doomed, "{e}");
                    let first = met.get_or_insert_with(|| e.clone());
                    assert!(!first.is_empty());
                }
            }
        }
    }
    let Some((action, path)) = disk.failed() else {
        return false;
    };
    let named = format!("cannot {action} {}", path.display());
    for (log, dir) in &logs {
        let reason = log.offline().map(|e| e.reason.to_string());
        let failed = reason.is_some_and(|reason| reason.contains(&named));
        assert_eq!(failed, dir.path() == doomed, "{named}");
    }
    let failed: Vec<_> = dirs
        .states()
        .into_iter()
        .filter(|s| s.failure.is_some())
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].path, doomed);
    assert!(dirs.none_left().is_none());
    // Nothing new comes to it, and what lies in it is not begun elsewhere.
    assert_ne!(place(&dirs, 9), doomed);
    let again = dirs.open_partition(*TOPIC, 0, config());
    assert!(again.is_err());
    assert!(dirs.close_clean().is_err());
    drop((logs, dirs, disk));
    // The other was closed in order, and the failed one has what was acknowledged.
    let dirs = begun(&home.paths, 2);
    for dir in dirs.all() {
        assert_eq!(dir.was_clean(), dir.path() != doomed);
    }
    for (n, acknowledged) in (0..).zip(acknowledged) {
        let (log, _) = dirs.open_partition(*TOPIC, n, config()).unwrap();
        assert!(log.log_end_offset() >= Offset(acknowledged), "{named}");
    }
    true
}

#[test]
fn one_error_at_any_call_takes_its_directory_and_no_other() {
    for errno in [Errno::IO, Errno::NOSPC, Errno::ROFS] {
        let calls = (0..).find(|at| !fail_one(errno, *at)).unwrap();
        assert!(calls > 40, "{calls}");
    }
}

#[test]
fn the_last_directory_gone_is_told_with_what_each_met() {
    let home = home(&["a", "b"]);
    let dirs = begun(&home.paths, 1);
    let (told, hear) = std::sync::mpsc::channel();
    for dir in dirs.all() {
        let told = told.clone();
        dir.on_failure(move || told.send(()).unwrap());
    }
    for (n, path) in home.paths.iter().enumerate() {
        assert_eq!(hear.try_iter().count(), n.min(1), "{n}");
        assert!(dirs.none_left().is_none());
        let disk = Watched::new(path);
        disk.fail(Fault {
            at: 0,
            errno: Errno::ROFS,
        });
        assert!(dirs.all()[n].checkpoint_high_watermarks([]).is_err());
    }
    let told = dirs.none_left().unwrap();
    for path in &home.paths {
        assert!(told.contains(&path.display().to_string()), "{told}");
    }
    let none = dirs.open_partition(*TOPIC, 0, LogConfig::default());
    assert!(none.err().unwrap().to_string().contains("no log directory"));
}

#[test]
fn short_of_handles_is_no_failure_of_the_disk_and_neither_is_a_damaged_file() {
    let home = home(&["a"]);
    let dirs = begun(&home.paths, 1);
    place(&dirs, 0);
    let start = home.paths[0].join(format!("{}-0/log-start", *TOPIC));
    drop(dirs);
    std::fs::write(&start, b"nonsense").unwrap();
    let dirs = begun(&home.paths, 2);
    let damaged = dirs.open_partition(*TOPIC, 0, LogConfig::default());
    assert!(matches!(damaged, Err(LogError::Unreadable { .. })));
    place(&dirs, 1);
    for errno in [Errno::MFILE, Errno::NFILE] {
        dirs.all()[0]
            .shared
            .judge(&LogError::io("open", &start, errno));
    }
    assert_eq!(dirs.all()[0].failure(), None);
}

#[test]
fn a_watermark_is_believed_only_from_the_directory_that_has_the_partition() {
    let home = home(&["a", "b"]);
    let dirs = begun(&home.paths, 1);
    let at = place(&dirs, 0);
    for dir in dirs.all() {
        let mark = if dir.path() == at { 1 } else { 700 };
        let marks = [((*TOPIC, 0), Offset(mark))];
        dir.checkpoint_high_watermarks(marks).unwrap();
    }
    let marks = dirs.high_watermark_checkpoints();
    assert_eq!(marks, HashMap::from_iter([((*TOPIC, 0), Offset(1))]));
}
