//! What people are told of a Cluster: its status, left with the queue that writes it, and Events where something began
//! or ended.
//!
//! Promises: an Event tells of a change, once; what only goes on is in the status.

use super::balance::Balance;
use super::genesis::Verdict;
use super::maintenance::Maintenance;
use super::reconcile::KIND;
use super::roll::Roll;
use super::round::was_rolling;
use super::status::{
    BALANCED, FROZEN, Findings, LISTENERS, MAINTENANCE, ROLLING, STORAGE, STUCK, status,
};
use super::volumes::Storage;
use crate::context::Context;
use crate::events::News;
use crate::status_queue::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{Cluster, ClusterStatus};

fn key_of(cluster: &Cluster) -> Key {
    Key {
        kind: KIND,
        namespace: cluster.namespace().unwrap_or_default(),
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
    }
}

/// Leaves the status with the queue that writes it.
pub(super) fn publish(cluster: &Cluster, context: &Context, findings: &Findings<'_>) {
    let next = status(cluster, findings, Time(Timestamp::now()));
    warn(cluster, context, findings, &next);
    tell_roll(cluster, context, findings, &next);
    tell_balance(cluster, context, findings, &next);
    tell_storage(cluster, context, findings, &next);
    tell_maintenance(cluster, context, findings, &next);
    tell_listeners(cluster, context, &next);
    let current = serde_json::to_value(&cluster.status).unwrap_or_default();
    context.statuses.put(
        key_of(cluster),
        serde_json::to_value(next).unwrap_or_default(),
        &current,
    );
}

/// Tells people when a cluster begins to be refused or held.
fn warn(cluster: &Cluster, context: &Context, findings: &Findings<'_>, next: &ClusterStatus) {
    let (reason, note) = match (&findings.invalid, &findings.held, &findings.frozen) {
        (Some(problems), ..) => ("InvalidSpec", problems.clone()),
        (None, Some(Verdict::Hold { reason, message }), _) => (*reason, message.clone()),
        (None, None, Some(why)) => (FROZEN, why.clone()),
        _ => return,
    };
    if changed(cluster, next, "Ready") {
        context.events.tell(
            cluster.object_ref(&()),
            News {
                warning: true,
                reason,
                action: "Reconcile",
                note,
            },
        );
    }
}

/// Tells people of each restart, and when a roll begins to be stuck, blocked or over.
fn tell_roll(cluster: &Cluster, context: &Context, findings: &Findings<'_>, next: &ClusterStatus) {
    let Some((roll, _)) = &findings.roll else {
        return;
    };
    let (warning, reason, note) = match roll {
        Roll::Restart(restart) => {
            let note = format!(
                "{} restarts: {}; {} left after it",
                restart.pod, restart.cause, restart.left
            );
            (false, "Restarting", note)
        }
        _ if !changed(cluster, next, ROLLING) => return,
        Roll::Stuck(why) => (true, STUCK, format!("the roll stops: {why}")),
        Roll::Blocked(why) => (true, "Blocked", format!("the roll stops: {why}")),
        Roll::Done if was_rolling(cluster) => {
            let note = "every broker runs what the Cluster asks for".to_owned();
            (false, "Rolled", note)
        }
        Roll::Done | Roll::Waiting(_) => return,
    };
    // The status that this is held against may be older than what was told last.
    if !context.told.is_news(&key_of(cluster).uid, reason, &note) {
        return;
    }
    let news = News {
        warning,
        reason,
        action: "Roll",
        note,
    };
    context.events.tell(cluster.object_ref(&()), news);
}

/// Tells people when replicas begin to move to keep brokers even, when that is over, and of each new plan.
fn tell_balance(
    cluster: &Cluster,
    context: &Context,
    findings: &Findings<'_>,
    next: &ClusterStatus,
) {
    let Some(balance) = &findings.balance else {
        return;
    };
    let before = cluster.status.as_ref().and_then(|s| reason(s, BALANCED));
    let Some((reason, note)) = balance_news(before.as_deref(), balance) else {
        return;
    };
    // Apart from what is told of rolls; the figures alone are no news.
    let about = format!("{}/balance", key_of(cluster).uid);
    if !changed(cluster, next, BALANCED) || !context.told.is_news(&about, reason, "") {
        return;
    }
    let news = News {
        warning: false,
        reason,
        action: "Balance",
        note,
    };
    context.events.tell(cluster.object_ref(&()), news);
}

/// Tells people when a volume is lost, replaced, or may not grow, and when volumes have grown.
fn tell_storage(
    cluster: &Cluster,
    context: &Context,
    findings: &Findings<'_>,
    next: &ClusterStatus,
) {
    let Some(storage) = &findings.storage else {
        return;
    };
    let grew = || {
        let before = cluster.status.as_ref().and_then(|s| reason(s, STORAGE));
        before.as_deref() == Some("Growing")
    };
    let (warning, reason, note) = match storage {
        Storage::Ready if grew() => (
            false,
            "VolumesGrown",
            "every volume has its size".to_owned(),
        ),
        Storage::Ready => return,
        Storage::Growing(note) => (false, "VolumesGrow", note.clone()),
        Storage::Refused(note) => (true, "VolumeCannotGrow", note.clone()),
        Storage::Lost(note) => (true, "VolumeLost", note.clone()),
        Storage::Replacing(note) => (true, "VolumeReplaced", note.clone()),
    };
    let about = format!("{}/storage", key_of(cluster).uid);
    if !changed(cluster, next, STORAGE) || !context.told.is_news(&about, reason, &note) {
        return;
    }
    let news = News {
        warning,
        reason,
        action: "LookAfterVolumes",
        note,
    };
    context.events.tell(cluster.object_ref(&()), news);
}

/// Tells people when a wish for maintenance is refused, and when the brokers may be worked on.
fn tell_maintenance(
    cluster: &Cluster,
    context: &Context,
    findings: &Findings<'_>,
    next: &ClusterStatus,
) {
    let (warning, reason, note) = match &findings.maintenance {
        Some(Maintenance::Refused(why)) => (true, "MaintenanceRefused", why),
        Some(Maintenance::Emptying(note)) => (false, "Emptying", note),
        Some(Maintenance::LeadsNothing(note)) => (false, "LeadsNothing", note),
        Some(Maintenance::Empty(note)) => (false, "Empty", note),
        None => return,
    };
    let about = format!("{}/maintenance", key_of(cluster).uid);
    if !changed(cluster, next, MAINTENANCE) || !context.told.is_news(&about, reason, "") {
        return;
    }
    let news = News {
        warning,
        reason,
        action: "Empty",
        note: note.clone(),
    };
    context.events.tell(cluster.object_ref(&()), news);
}

/// Tells people when it is not known how clients reach a broker, and when it is again.
fn tell_listeners(cluster: &Cluster, context: &Context, next: &ClusterStatus) {
    let find = |status: &ClusterStatus| {
        let mut all = status.conditions.iter();
        all.find(|c| c.type_ == LISTENERS).cloned()
    };
    let before = cluster.status.as_ref().and_then(find);
    let Some(now) = find(next) else {
        return;
    };
    let before = before.map(|condition| condition.status == "True");
    let Some((warning, reason)) = listener_news(before, now.status == "True") else {
        return;
    };
    // What exactly is waited for changes with every broker; that it is waited at all is the news.
    let about = format!("{}/listeners", key_of(cluster).uid);
    if !context.told.is_news(&about, reason, "") {
        return;
    }
    let note = match now.message.as_str() {
        "" => "it is known how clients reach every broker".to_owned(),
        waiting => waiting.to_owned(),
    };
    let news = News {
        warning,
        reason,
        action: "FindAddresses",
        note,
    };
    context.events.tell(cluster.object_ref(&()), news);
}

/// Whether an Event is a warning, and its reason, if all addresses were known `before` and are known `now`. A listener
/// that was just asked for has none yet, which is as it should be.
fn listener_news(before: Option<bool>, now: bool) -> Option<(bool, &'static str)> {
    match (before, now) {
        (Some(true), false) => Some((true, "ListenerAddressMissing")),
        (None, false) => Some((false, "ListenerAddressMissing")),
        (Some(false), true) => Some((false, "ListenersAddressed")),
        (None | Some(true), true) | (Some(false), false) => None,
    }
}

/// The reason and note of an Event, if the condition's reason was `before` and the brokers are as `balance` says.
fn balance_news(before: Option<&str>, balance: &Balance) -> Option<(&'static str, String)> {
    let began = matches!(before, Some("Moving" | "Settling"));
    match balance {
        Balance::Moving(message) => Some(("Balancing", message.clone())),
        Balance::Planned(message) => Some(("BalancePlanned", message.clone())),
        Balance::Even if began => {
            let note = "replicas and leaders are even over the brokers".to_owned();
            Some(("Balanced", note))
        }
        _ => None,
    }
}

/// Whether a condition has another reason than the object that was read tells.
fn changed(cluster: &Cluster, next: &ClusterStatus, kind: &str) -> bool {
    let before = cluster.status.as_ref().and_then(|s| reason(s, kind));
    before != reason(next, kind)
}

fn reason(status: &ClusterStatus, kind: &str) -> Option<String> {
    let found = status.conditions.iter().find(|c| c.type_ == kind);
    found.map(|condition| condition.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_goes_missing_is_a_warning_and_one_that_is_not_there_yet_is_none() {
        let missing = "ListenerAddressMissing";
        assert_eq!(listener_news(Some(true), false), Some((true, missing)));
        assert_eq!(listener_news(None, false), Some((false, missing)));
        assert_eq!(
            listener_news(Some(false), true),
            Some((false, "ListenersAddressed"))
        );
        for (before, now) in [(None, true), (Some(true), true), (Some(false), false)] {
            assert_eq!(listener_news(before, now), None);
        }
    }

    #[test]
    fn people_hear_when_brokers_begin_to_be_evened_and_when_they_are() {
        let told =
            |before, balance: &Balance| balance_news(before, balance).map(|(reason, _)| reason);
        let moving = Balance::Moving("8 partitions are moving".into());
        let settling = Balance::Settling("about to end".into());
        assert_eq!(told(Some("Even"), &settling), None);
        assert_eq!(told(Some("Settling"), &moving), Some("Balancing"));
        assert_eq!(told(Some("Moving"), &settling), None);
        assert_eq!(told(Some("Settling"), &Balance::Even), Some("Balanced"));
        assert_eq!(told(Some("PlanOnly"), &Balance::Even), None);
        assert_eq!(
            told(None, &Balance::Even),
            None,
            "an operator that has just begun"
        );
        let planned = Balance::Planned("would move".into());
        assert_eq!(told(Some("Even"), &planned), Some("BalancePlanned"));
    }
}
