//! Objects as text for people; pure.

use super::table::{columns, row, span};
use crate::cluster::names;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use leasehold_crds::{Cluster, Condition, PartitionState, RACK_ANNOTATION, Topic};
use leasehold_metadata::head::format::ControllerRef;
use leasehold_metadata::head::keys;
use leasehold_metadata::lease::Holder;
use std::collections::BTreeMap;
use std::fmt::Display;

/// What follows a wish.
pub(super) fn asked(cluster: &str, what: &str) -> String {
    format!(
        "Cluster {cluster}: {what}, as soon as it may be; `kubectl leasehold status {cluster}` tells how far it is"
    )
}

/// A cluster with its brokers and conditions.
pub(super) fn cluster(cluster: &Cluster, pods: &[Pod], now: Timestamp) -> String {
    let name = cluster.name_any();
    let status = cluster.status.clone().unwrap_or_default();
    let id = status.cluster_id.as_deref().unwrap_or("not made yet");
    let controller = status.controller.as_deref().unwrap_or("nobody");
    let epoch = status.controller_epoch.unwrap_or_default();
    let mut facts = vec![
        row(["Cluster", &format!("{name} ({id})")]),
        row([
            "Brokers",
            &format!(
                "{} serve of {} wanted, {} are up to date",
                status.ready_replicas, cluster.spec.replicas, status.updated_replicas
            ),
        ]),
        row(["Controller", &format!("{controller}, epoch {epoch}")]),
        row([
            "Topics",
            &format!(
                "{} with {} partitions: {} under-replicated, {} offline",
                status.topics,
                status.partitions,
                status.under_replicated_partitions,
                status.offline_partitions
            ),
        ]),
        row(["Bootstrap", status.bootstrap.as_deref().unwrap_or("-")]),
    ];
    // The main one stands above.
    facts.extend(status.listeners.iter().skip(1).map(|listener| {
        let bootstrap = listener.bootstrap.as_deref().unwrap_or("-");
        let text = format!("{} ({:?}): {bootstrap}", listener.name, listener.kind);
        row(["Listener", &text])
    }));
    let mut brokers = vec![row([
        "POD", "READY", "RESTARTS", "ZONE", "NODE", "AGE", "ROLE",
    ])];
    let mut pods: Vec<&Pod> = pods.iter().collect();
    // By number: 10 comes after 9.
    pods.sort_by_key(|pod| (pod.name_any().len(), pod.name_any()));
    let role = |pod: &str| if pod == controller { "controller" } else { "" };
    brokers.extend(
        pods.iter()
            .map(|pod| broker(pod, role(&pod.name_any()), now)),
    );
    let mut text = columns(&facts);
    if brokers.len() > 1 {
        text += &format!("\n{}", columns(&brokers));
    }
    text + "\n" + &conditions(&status.conditions, now)
}

fn broker(pod: &Pod, role: &str, now: Timestamp) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let ready = match (&pod.metadata.deletion_timestamp, is_ready) {
        (Some(_), _) => "going",
        (None, true) => "yes",
        (None, false) => "no",
    };
    let containers = status.container_statuses.iter().flatten();
    let restarts: i32 = containers.map(|c| c.restart_count).sum();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let rack = pod.annotations().get(RACK_ANNOTATION).map(String::as_str);
    let made = pod.metadata.creation_timestamp.as_ref();
    let age = made.map_or("-".into(), |made| since(made.0, now));
    row([
        &pod.name_any(),
        ready,
        &restarts.to_string(),
        rack.unwrap_or("-"),
        node.unwrap_or("-"),
        &age,
        role,
    ])
}

fn since(then: Timestamp, now: Timestamp) -> String {
    span(now.as_second().saturating_sub(then.as_second()))
}

fn conditions(all: &[Condition], now: Timestamp) -> String {
    let mut rows = vec![row(["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"])];
    rows.extend(all.iter().map(|c| {
        let since = since(c.last_transition_time.0, now);
        row([&c.type_, &c.status, &c.reason, &since, &c.message])
    }));
    columns(&rows)
}

/// A topic, partition by partition.
pub(super) fn topic(topic: &Topic) -> String {
    let status = topic.status.clone().unwrap_or_default();
    let object = topic.name_any();
    let name = status.topic_name.as_deref().unwrap_or(&object);
    let id = status.topic_id.as_deref().unwrap_or("not there");
    let mut facts = vec![
        row([
            "Topic",
            &format!("{name} ({id}) of Cluster {}", topic.spec.cluster),
        ]),
        row([
            "Partitions",
            &format!(
                "{}, {} replicas each: {} led, {} under-replicated, {} offline",
                status.partitions,
                status.replication_factor,
                status.led_partitions,
                status.under_replicated_partitions,
                status.offline_partitions
            ),
        ]),
    ];
    for condition in &status.conditions {
        let Condition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        facts.push(row([type_, &format!("{status}, {reason}: {message}")]));
    }
    let mut rows = vec![row([
        "PARTITION",
        "LEADER",
        "LEADER-EPOCH",
        "REPLICAS",
        "ISR",
        "ELR",
        "MOVES",
    ])];
    rows.extend(status.partition_states.iter().map(partition));
    let mut text = columns(&facts);
    if rows.len() > 1 {
        text += &format!("\n{}", columns(&rows));
    }
    let shown = status.partition_states.len();
    match usize::try_from(status.partitions) {
        Ok(all) if all > shown => text + &format!("(the first {shown} of {all})\n"),
        _ => text,
    }
}

fn partition(state: &PartitionState) -> Vec<String> {
    let mut moves: Vec<String> = state.adding.iter().map(|b| format!("+{b}")).collect();
    moves.extend(state.removing.iter().map(|b| format!("-{b}")));
    if state.recovering {
        moves.push("recovering".to_owned());
    }
    row([
        &state.partition.to_string(),
        &state.leader.map_or("-".to_owned(), |b| b.to_string()),
        &state.leader_epoch.to_string(),
        &list(&state.replicas, ","),
        &list(&state.isr, ","),
        &list(&state.elr, ","),
        &list(&moves, " "),
    ])
}

fn list(items: &[impl Display], between: &str) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(between)
}

/// Who holds the Lease, and whose claim the head has: the same, but for moments.
pub(super) fn controller(
    cluster: &str,
    lease: Option<&LeaseSpec>,
    head: Option<&BTreeMap<String, String>>,
    now: Timestamp,
) -> String {
    let key = |key: &str| head.and_then(|head| head.get(key)).map(String::as_str);
    let claimed = key(keys::CONTROLLER)
        .and_then(|text| serde_json::from_str::<Option<ControllerRef>>(text).ok())
        .flatten();
    let epoch = key(keys::EPOCH).unwrap_or("-");
    let holder = lease
        .and_then(|lease| lease.holder_identity.as_deref())
        .and_then(Holder::parse);
    let head = match &claimed {
        Some(by) => format!(
            "{}: claimed by {} (run {}) at {}, epoch {epoch}, write {}",
            names::head(cluster),
            names::pod(cluster, by.broker.0),
            by.incarnation,
            by.address,
            key(keys::SEQ).unwrap_or("-"),
        ),
        None => format!("{}: nobody has claimed it", names::head(cluster)),
    };
    let Some((lease, holder)) = lease.zip(holder) else {
        let line = format!("Nobody is controller of {cluster}: nobody holds the Lease");
        return format!("{line}\n{}", columns(&[row(["Head", &head])]));
    };
    let pod = names::pod(cluster, holder.broker.0);
    let taken = lease.acquire_time.as_ref().map(|time| {
        let age = since(time.0, now);
        format!(" since {:.0} ({age})", time.0)
    });
    let renewed = lease.renew_time.as_ref();
    let age = renewed.map(|time| now.as_second().saturating_sub(time.0.as_second()));
    let lasts = i64::from(lease.lease_duration_seconds.unwrap_or_default());
    let is_claimed = claimed
        .is_some_and(|by| by.broker == holder.broker && by.incarnation == holder.incarnation);
    let standing = match age {
        Some(age) if age > lasts => format!(
            "{pod} was controller of {cluster}{}, and has been silent for {}",
            taken.unwrap_or_default(),
            span(age)
        ),
        _ if !is_claimed => format!(
            "{pod} holds the Lease of {cluster}{}, and has not claimed the head yet",
            taken.unwrap_or_default()
        ),
        _ => format!(
            "{pod} is controller of {cluster}{}, epoch {epoch}",
            taken.unwrap_or_default()
        ),
    };
    let lease = format!(
        "{}: held by {pod} (run {}), renewed {} ago, taken {} times",
        names::lease(cluster),
        holder.incarnation,
        age.map_or("-".to_owned(), span),
        lease.lease_transitions.unwrap_or_default(),
    );
    let rows = [row(["Lease", &lease]), row(["Head", &head])];
    format!("{standing}\n{}", columns(&rows))
}

#[cfg(test)]
mod tests;
