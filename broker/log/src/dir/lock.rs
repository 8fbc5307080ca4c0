//! The exclusive lock on a log directory: one process at a time, whatever pods and restarts do.

use crate::{LogError, disk};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

const LOCK: &str = ".lock";

/// Takes the lock; blocks while another process has it, and says so. It is held until the file is
/// dropped. The kernel gives it back when the process ends, however it ends.
pub(super) fn wait_for(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK);
    let failed = |e: Errno| LogError::io("lock", &path, e);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| LogError::io("open", &path, e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let holder = disk::read_if_there(&path)?.unwrap_or_default();
            let holder = String::from_utf8_lossy(&holder).trim().to_owned();
            tracing::warn!(
                directory = %folder.display(), holder,
                "another process holds the log directory: waiting until it lets go"
            );
            loop {
                match flock(&file, FlockOperation::LockExclusive) {
                    Err(Errno::INTR) => {}
                    result => break result.map_err(failed)?,
                }
            }
            tracing::info!(directory = %folder.display(), "the log directory is free: going on");
        }
        Err(e) => return Err(failed(e)),
    }
    // For whoever waits next, and for people; nothing depends on it.
    let told = file
        .set_len(0)
        .and_then(|()| writeln!(file, "process {}", std::process::id()));
    told.map_err(|e| LogError::io("write", &path, e))?;
    Ok(file)
}
