//! The exclusive lock on a log directory: one process at a time, whatever pods and restarts do.

use crate::{LogError, disk};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

const LOCK: &str = ".lock";

/// Takes the lock; blocks while another process has it, and says so. It is held until the file is
/// dropped. The kernel gives it back when the process ends, however it ends.
pub(super) fn wait_for(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK);
    let failed = |e: Errno| LogError::io("lock", &path, e);
    let file = disk::open_or_create(&path)?;
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
    disk::shorten(&file, &path, 0)?;
    let line = format!("process {}\n", std::process::id());
    disk::write_at(&file, &path, 0, line.as_bytes(), &[])?;
    Ok(file)
}
