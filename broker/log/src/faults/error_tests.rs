//! A full disk, and a broken one, at every call that changes it: the error says what failed on what, and
//! nothing that was acknowledged is lost.

use super::check::{after_crash, goes_on};
use super::replay::Crash;
use super::scenario::{Moment, Step, World, all_of_it};
use super::{Fault, Watched, flush_in_steps, scratch};
use crate::PartitionLog;
use rustix::io::Errno;
use std::sync::Arc;

const THREADS: usize = 2;

/// Runs the scenario with one call failing. Whether it came to that call.
fn fail_at(steps: &[Step], past: &[Moment], fault: Fault) -> bool {
    let folder = scratch();
    let path = folder.path().join("data");
    let disk = Watched::new(folder.path());
    disk.fail(fault);
    let mut world = World::new(path.clone());
    let (done, failure) = world.live(steps, || 0);
    let Some((action, failed)) = disk.failed() else {
        assert_eq!(failure, None, "{fault:?}");
        return false;
    };
    let at = done.len() - 1;
    let step = past.get(at + 1).and_then(|m| m.step);
    let context = format!(
        "{fault:?}, cannot {action} {} in {step:?}",
        failed.display()
    );
    if let Some(e) = failure {
        let named = format!("cannot {action} {}", failed.display());
        assert!(e.contains(&named), "{context}: {e}");
        let why = std::io::Error::from(fault.errno).to_string();
        assert!(e.contains(&why), "{context}: {e}");
        let failed = |log: &Arc<PartitionLog>| {
            let offline = log.offline();
            offline.is_some_and(|e| e.reason.contains(&named))
        };
        if world.logs().iter().any(failed)
            && let Some(dir) = world.dir()
        {
            assert!(dir.close_clean().is_err(), "{context}: a clean marker");
        }
    }
    drop(world);
    let world = after_crash(&path, past, at, Crash::Killed, false);
    let goes_on = world.and_then(|world| goes_on(world, &path));
    goes_on.unwrap_or_else(|e| panic!("{context}: {e}"));
    true
}

fn fail_everywhere(errno: Errno) {
    flush_in_steps();
    let steps = all_of_it();
    let folder = scratch();
    let disk = Watched::new(folder.path());
    let mut world = World::new(folder.path().join("data"));
    let (past, failure) = world.live(&steps, || 0);
    assert_eq!(failure, None);
    let calls = disk.calls();
    drop(world);
    let (steps, past) = (&steps, &past);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                flush_in_steps();
                for at in (thread..calls).step_by(THREADS) {
                    assert!(
                        fail_at(steps, past, Fault { at, errno }),
                        "call {at} of {calls}"
                    );
                }
            });
        }
    });
    assert!(!fail_at(steps, past, Fault { at: calls, errno }));
    eprintln!("{calls} calls, each failed once");
}

#[test]
fn a_full_disk_at_any_call_is_named_and_loses_nothing_acknowledged() {
    fail_everywhere(Errno::NOSPC);
}

#[test]
fn an_io_error_at_any_call_is_named_and_loses_nothing_acknowledged() {
    fail_everywhere(Errno::IO);
}

#[test]
fn a_broken_folder_fails_whatever_changes_it_until_it_is_mended_and_no_other() {
    let folder = scratch();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let disk = Watched::new(folder.path());
    for path in [&one, &other] {
        crate::disk::create_folder(path).unwrap();
    }
    disk.take_journal();
    disk.break_folder(&one, Errno::IO);
    let failed = crate::disk::write_durably(&one.join("file"), b"12345678");
    let why = failed.unwrap_err().to_string();
    assert!(why.contains("cannot create"), "{why}");
    assert_eq!(disk.take_journal().len(), 0);
    crate::disk::write_durably(&other.join("file"), b"12345678").unwrap();
    disk.mend();
    crate::disk::write_durably(&one.join("file"), b"12345678").unwrap();
}
