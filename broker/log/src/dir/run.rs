//! The `run` file: what the controller needs to judge what a restart may have lost.
//!
//! One JSON object: the confirmed life (incarnation, kernel boot id, pod UID), the incarnation that
//! left a clean marker, and the incarnations attempted since. Each change is fsynced, file and
//! folder, before the call returns: `begin` before registering, `confirm` before the first append.
//! A file that cannot be read is reported as no confirmed life at all, which counts as a loss.

use crate::{LogError, disk};
use leasehold_types::Incarnation;
use leasehold_types::seams::taken_out;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

pub(crate) const RUN: &str = "run";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A confirmed life of a broker process on this directory: registered, and free to append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The kernel's boot id then.
    pub boot_id: String,
    /// The pod's UID then; empty outside of Kubernetes.
    pub pod_uid: String,
    /// Whether it closed everything in order and left its clean marker.
    pub clean: bool,
}

/// What the controller needs to judge what a restart may have lost. It decides; this only reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartReport {
    /// The last confirmed life; `None` if there was none, or the `run` file could not be read.
    pub confirmed: Option<Confirmed>,
    /// The incarnations that tried to register since, this one (the last) included.
    pub attempted: Vec<Incarnation>,
    /// The kernel's boot id now.
    pub boot_id: String,
    /// The pod's UID now; empty outside of Kubernetes.
    pub pod_uid: String,
}

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Run {
    confirmed: Option<Life>,
    /// The clean marker names who left it: one of another life means nothing.
    clean: Option<Incarnation>,
    attempted: Vec<Incarnation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Life {
    incarnation: Incarnation,
    boot_id: String,
    pod_uid: String,
}

impl Run {
    fn is_clean(&self) -> bool {
        self.clean.is_some() && self.clean == self.confirmed.as_ref().map(|c| c.incarnation)
    }

    /// The last confirmed life, as it is reported.
    fn last_life(&self, clean: bool) -> Option<Confirmed> {
        self.confirmed.clone().map(|life| Confirmed {
            incarnation: life.incarnation,
            boot_id: life.boot_id,
            pod_uid: life.pod_uid,
            clean,
        })
    }
}

/// The last confirmed life, and the incarnations attempted since, by the file's content; or the byte at
/// which it is damaged, and how.
pub(crate) fn parse(
    content: &[u8],
) -> Result<(Option<Confirmed>, Vec<Incarnation>), (u64, String)> {
    match serde_json::from_slice::<Run>(content) {
        Ok(run) => Ok((run.last_life(run.is_clean()), run.attempted)),
        Err(e) => Err((e.column().saturating_sub(1) as u64, e.to_string())),
    }
}

pub(super) struct RunFile {
    path: PathBuf,
    boot_id: String,
    pod_uid: String,
    run: Run,
    /// Whether the last life left its clean marker; `begin` removes it from the file only.
    was_clean: bool,
    /// Whether the confirmed life is this process.
    is_ours: bool,
}

impl RunFile {
    pub(super) fn load(folder: &Path) -> Result<Self, LogError> {
        #[cfg(feature = "simulation")]
        if let Some(world) = leasehold_types::seams::simulated::world() {
            let (boot_id, pod_uid) = (world.machine)();
            return Self::load_as(folder, boot_id, pod_uid);
        }
        let pod_uid = std::env::var("POD_UID").unwrap_or_default();
        Self::load_as(folder, boot_id(), pod_uid)
    }

    pub(super) fn load_as(
        folder: &Path,
        boot_id: String,
        pod_uid: String,
    ) -> Result<Self, LogError> {
        let path = folder.join(RUN);
        let run = match disk::read_if_there(&path)? {
            None => Run::default(),
            Some(content) => serde_json::from_slice(&content).unwrap_or_else(|e| {
                tracing::error!(file = %path.display(), "cannot be understood ({e}): counts as a loss");
                Run::default()
            }),
        };
        Ok(Self {
            was_clean: run.is_clean(),
            is_ours: false,
            path,
            boot_id,
            pod_uid,
            run,
        })
    }

    pub(super) fn is_clean(&self) -> bool {
        self.was_clean
    }

    pub(super) fn begin(&mut self, incarnation: Incarnation) -> Result<RestartReport, LogError> {
        let mut run = self.run.clone();
        if !taken_out("a-clean-marker-is-for-one-start") {
            run.clean = None;
        }
        if !run.attempted.contains(&incarnation) {
            run.attempted.push(incarnation);
        }
        self.save(run)?;
        Ok(RestartReport {
            confirmed: self.run.last_life(self.was_clean),
            attempted: self.run.attempted.clone(),
            boot_id: self.boot_id.clone(),
            pod_uid: self.pod_uid.clone(),
        })
    }

    pub(super) fn confirm(&mut self, incarnation: Incarnation) -> Result<(), LogError> {
        self.save(Run {
            confirmed: Some(Life {
                incarnation,
                boot_id: self.boot_id.clone(),
                pod_uid: self.pod_uid.clone(),
            }),
            clean: taken_out("a-clean-marker-is-for-one-start").then_some(incarnation),
            attempted: Vec::new(),
        })?;
        self.was_clean = false;
        self.is_ours = true;
        Ok(())
    }

    /// Leaves the clean marker of the confirmed life, if that is this process. One that was never
    /// confirmed has written nothing: it leaves the marker that it found, and none where it found
    /// none.
    pub(super) fn mark_clean(&mut self) -> Result<(), LogError> {
        if !self.is_ours && !self.was_clean {
            return Ok(());
        }
        let mut run = self.run.clone();
        run.clean = run.confirmed.as_ref().map(|life| life.incarnation);
        self.save(run)
    }

    fn save(&mut self, run: Run) -> Result<(), LogError> {
        if run == self.run {
            return Ok(());
        }
        let json = serde_json::to_vec(&run).map_err(|e| LogError::Unreadable {
            path: self.path.clone(),
            reason: e.to_string(),
        })?;
        disk::write_durably(&self.path, &json)?;
        self.run = run;
        Ok(())
    }
}

/// Changes when the kernel starts, and with it the page cache is lost. Where there is none to be
/// read, one that no other life has: every restart then counts as one of the kernel.
fn boot_id() -> String {
    let content = disk::read_if_there(Path::new(BOOT_ID)).ok().flatten();
    let id = content.and_then(|content| String::from_utf8(content).ok());
    match id.as_deref().map(str::trim) {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => format!("unknown-{}", Incarnation::random()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);
    const C: Incarnation = Incarnation(3);

    fn start(folder: &Path, boot: &str) -> RunFile {
        RunFile::load_as(folder, boot.into(), "pod".into()).unwrap()
    }

    #[test]
    fn a_first_start_reports_no_confirmed_life() {
        let folder = tempfile::tempdir().unwrap();
        let report = start(folder.path(), "x").begin(A).unwrap();
        assert_eq!((report.confirmed, report.attempted), (None, vec![A]));
    }

    #[test]
    fn a_crash_is_reported_with_the_boot_and_pod_of_the_confirmed_life() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = start(folder.path(), "x");
        run.begin(A).unwrap();
        run.confirm(A).unwrap();
        start(folder.path(), "y").begin(B).unwrap();
        let report = start(folder.path(), "y").begin(C).unwrap();
        let confirmed = report.confirmed.unwrap();
        assert_eq!((confirmed.incarnation, confirmed.clean), (A, false));
        assert_eq!((&*confirmed.boot_id, &*report.boot_id), ("x", "y"));
        assert_eq!(report.attempted, [B, C]);
    }

    #[test]
    fn the_clean_marker_is_gone_from_disk_once_begun_and_repeats_report_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = start(folder.path(), "x");
        run.begin(A).unwrap();
        run.confirm(A).unwrap();
        run.mark_clean().unwrap();
        let mut run = start(folder.path(), "x");
        assert!(run.is_clean());
        let report = run.begin(B).unwrap();
        assert!(report.confirmed.as_ref().unwrap().clean);
        assert_eq!(run.begin(B).unwrap(), report);
        assert!(!start(folder.path(), "x").is_clean());
    }

    #[test]
    fn who_was_never_confirmed_leaves_a_marker_only_where_one_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = start(folder.path(), "x");
        run.begin(A).unwrap();
        run.confirm(A).unwrap();
        // A crashed; B closes in order without having been confirmed.
        let mut run = start(folder.path(), "x");
        run.mark_clean().unwrap();
        run.begin(B).unwrap();
        run.mark_clean().unwrap();
        assert!(!start(folder.path(), "x").is_clean());
        // C was confirmed and left a marker; A again was not, and leaves it as it was.
        let mut run = start(folder.path(), "x");
        run.confirm(C).unwrap();
        run.mark_clean().unwrap();
        let mut run = start(folder.path(), "x");
        run.begin(A).unwrap();
        run.mark_clean().unwrap();
        let report = start(folder.path(), "x").begin(B).unwrap();
        let confirmed = report.confirmed.unwrap();
        assert_eq!((confirmed.incarnation, confirmed.clean), (C, true));
        assert_eq!(report.attempted, [A, B]);
    }

    #[test]
    fn a_marker_of_another_life_and_a_torn_file_mean_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RUN);
        let json = r#"{"confirmed":{"incarnation":1,"boot_id":"x","pod_uid":""},"clean":2,"attempted":[]}"#;
        std::fs::write(&path, json).unwrap();
        let mut run = start(folder.path(), "x");
        assert!(!run.is_clean());
        assert!(!run.begin(B).unwrap().confirmed.unwrap().clean);
        std::fs::write(&path, &json[..50]).unwrap();
        assert_eq!(start(folder.path(), "x").begin(C).unwrap().confirmed, None);
    }
}
