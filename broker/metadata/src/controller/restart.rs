//! What a restart may have lost: judged per log directory, decided per replica.
//!
//! Anything that is not surely kept is a loss. The image names the directories that the registered incarnation
//! could write to; each must be there again and continue that incarnation. A replica counts as kept if its log was
//! found in one that is as it was, and in no other. One that was found nowhere had nothing yet if all are as they
//! were; if one is missing, was emptied or is a stranger, it may have lain there.

use super::At;
use crate::image::Broker;
use crate::rpc::{DirectoryReport, Registration, RestartReport};
use leasehold_types::seams::taken_out;
use leasehold_types::{DirectoryId, Incarnation};
use std::collections::{BTreeMap, BTreeSet};

/// Whether the directory of this report kept everything that `registered` ever confirmed in it. A loss: a report
/// without a confirmed run, of another directory, or of a kernel or pod that ended without a clean stop.
pub(super) fn is_intact(registered: Incarnation, report: &RestartReport) -> bool {
    if taken_out("restart-is-judged") {
        return true;
    }
    let Some(confirmed) = &report.confirmed else {
        return false;
    };
    let same_memory = confirmed.boot_id == report.boot_id
        && confirmed.pod_uid == report.pod_uid
        && !report.boot_id.is_empty();
    continues(registered, report)
        && (confirmed.clean || same_memory || taken_out("kernel-and-pod-are-compared"))
}

/// Whether the report is from a log directory that `registered` used.
fn continues(registered: Incarnation, report: &RestartReport) -> bool {
    let confirmed = report.confirmed.as_ref().map(|run| run.incarnation);
    confirmed == Some(registered) || report.attempted.contains(&registered)
}

/// Whether a process registers that took over a log directory of `registered`: its successor.
pub(super) fn succeeds(registered: Incarnation, r: &Registration) -> bool {
    let mut all = r.directories.iter().map(|directory| &directory.restart);
    continues(registered, &r.restart) || all.any(|report| continues(registered, report))
}

/// What one registration brings back of what the broker held.
pub(super) struct Verdict {
    /// Every directory is as it was: so is a replica that has no log in any.
    pub intact: bool,
    /// Replicas whose log was found in a directory that is as it was, and in no other.
    kept: BTreeSet<At>,
    /// How many directories have a log of a replica.
    found: BTreeMap<At, usize>,
    /// Whether a directory cannot be read, so that what was found nowhere may still be in it.
    unreadable: bool,
}

impl Verdict {
    /// Judges `r` by what was registered before; without such, there was nothing to lose.
    pub fn of(known: Option<&Broker>, r: &Registration) -> Self {
        let mut verdict = Self {
            intact: true,
            kept: BTreeSet::new(),
            found: BTreeMap::new(),
            unreadable: r.unreadable > 0,
        };
        let Some(known) = known else {
            return verdict;
        };
        let before = &known.directories;
        let is_kept = |d: &&DirectoryReport| {
            (before.is_empty() || before.contains(&d.id))
                && is_intact(known.incarnation, &d.restart)
        };
        if r.directories.is_empty() {
            verdict.intact = before.len() <= 1 && is_intact(known.incarnation, &r.restart);
            return verdict;
        }
        let kept: Vec<&DirectoryReport> = r.directories.iter().filter(is_kept).collect();
        let ids: BTreeSet<DirectoryId> = kept.iter().map(|d| d.id).collect();
        verdict.intact = match before.is_empty() {
            // It had one, of which no id was told; which of these it is, its run file says.
            true => !kept.is_empty(),
            false => before.iter().all(|id| ids.contains(id)),
        };
        for at in r.directories.iter().flat_map(|d| &d.partitions) {
            *verdict.found.entry(*at).or_default() += 1;
        }
        let once = |at: &&At| verdict.found.get(*at) == Some(&1);
        let all = kept.iter().flat_map(|d| &d.partitions);
        verdict.kept = all.filter(once).copied().collect();
        verdict
    }

    /// Whether the replica may have lost what it once confirmed.
    pub fn loses(&self, at: At) -> bool {
        match self.found.contains_key(&at) {
            true => !self.kept.contains(&at),
            false => !self.intact,
        }
    }

    /// Whether the replica may lie in a directory that cannot be read: the broker must not begin it anew. One
    /// that was out of service before may have lain there since an earlier life.
    pub fn is_out_of_reach(&self, at: At, was_offline: bool) -> bool {
        self.unreadable && !self.found.contains_key(&at) && (was_offline || self.loses(at))
    }
}
