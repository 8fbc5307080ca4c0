//! A Cluster's status from what is known of it; pure.

use super::balance::Balance;
use super::facts::Totals;
use super::genesis::Verdict;
use super::listeners::find::Told;
use super::maintenance::Maintenance;
use super::names;
use super::roll::{Restart, Roll};
use super::scale::Draining;
use super::volumes::Storage;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use leasehold_crds::{
    Cluster, ClusterStatus, Conditions, ListenerKind, MAINTENANCE_ANNOTATION, RECOVER_ANNOTATION,
};
use leasehold_metadata::image::Image;

/// What a reconcile found out.
#[derive(Default)]
pub struct Findings<'a> {
    /// Why the spec is refused.
    pub invalid: Option<String>,
    /// What the recovery that people asked for waits for.
    pub recovering: Option<String>,
    /// Why the cluster's controller decides nothing.
    pub frozen: Option<String>,
    /// Why nothing is done.
    pub held: Option<Verdict>,
    pub paused: bool,
    pub deleting: bool,
    /// The metadata and its totals.
    pub image: Option<(&'a Image, &'a Totals)>,
    /// Pods that the StatefulSet reports.
    pub pods: i32,
    /// Pods of today's specification.
    pub updated: i32,
    /// How the roll goes, and the pods that are still to be restarted; `None` if it is not known.
    pub roll: Option<(Roll, Vec<String>)>,
    /// Why a voluntary disruption may take no broker now; `None` if it is not known.
    pub indisposed: Option<Option<String>>,
    /// Pods that do not start, and why.
    pub troubles: Vec<(String, String)>,
    pub draining: Option<Draining>,
    /// How even the brokers are; `None` if it is not known.
    pub balance: Option<Balance>,
    /// Whether the brokers have their volumes; `None` if it is not known.
    pub storage: Option<Storage>,
    /// How the brokers fare that are to be kept empty; `None` if there are none.
    pub maintenance: Option<Maintenance>,
    /// How clients come in; `None` if it is not known, or nobody asked for a listener.
    pub listeners: Option<Told>,
    /// What could not be done just now.
    pub problems: Vec<String>,
}

/// The reason of a cluster whose controller decides nothing any more.
pub const FROZEN: &str = "MetadataFrozen";

/// The condition that tells how a roll goes, and its reason when a pod cannot start.
pub const ROLLING: &str = "Rolling";
pub const STUCK: &str = "Stuck";

/// The condition that tells whether clients reach every broker through every listener.
pub const LISTENERS: &str = "ListenersReady";

/// The condition that tells how even the brokers are.
pub const BALANCED: &str = "Balanced";

/// The condition that tells whether every broker has its volume, as large as it is wished for.
pub const STORAGE: &str = "StorageReady";

/// The condition that tells of brokers that are kept empty; there is none without such.
pub const MAINTENANCE: &str = "Maintenance";

/// The names of at most this many pods stand in a message.
const NAMED: usize = 20;

/// Puts the status together.
pub fn status(cluster: &Cluster, findings: &Findings<'_>, now: Time) -> ClusterStatus {
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let before = cluster.status.clone().unwrap_or_default();
    let wanted = cluster.spec.replicas;
    let mut status = ClusterStatus {
        observed_generation: cluster.metadata.generation,
        cluster_id: before.cluster_id.clone(),
        replicas: findings.pods,
        updated_replicas: findings.updated,
        selector: Some(names::selector_text(&name)),
        brokers: Some(format!("0/{wanted}")),
        controller_epoch: before.controller_epoch,
        bootstrap: Some(format!(
            "{}.{}.svc.{}:{}",
            names::bootstrap(&name),
            cluster.metadata.namespace.as_deref().unwrap_or_default(),
            cluster.spec.cluster_domain,
            main_port(cluster)
        )),
        // What is not known just now stays as it was: addresses do not go with a failed round.
        listeners: match &findings.listeners {
            Some(told) => told.listeners.clone(),
            None => before.listeners.clone(),
        },
        ..ClusterStatus::default()
    };
    if let Some((image, totals)) = findings.image {
        let serving = i32::try_from(totals.serving().count()).unwrap_or(i32::MAX);
        // Fixed at the object's first sight of its cluster.
        status.cluster_id = status
            .cluster_id
            .or_else(|| Some(image.cluster_id.to_string()));
        status.ready_replicas = serving;
        status.brokers = Some(format!("{serving}/{wanted}"));
        status.controller = crate::admin::controller(image)
            .filter(|broker| image.is_live(*broker))
            .map(|broker| names::pod(&name, broker.0));
        status.controller_epoch = Some(image.position.epoch.0);
        status.topics = totals.topics;
        status.partitions = totals.partitions;
        status.under_replicated_partitions = totals.under_replicated;
        status.offline_partitions = totals.offline;
    }
    status.conditions = conditions(cluster, &name, findings, &before, now);
    status
}

/// The port of the main listener, also where the spec is refused.
fn main_port(cluster: &Cluster) -> i32 {
    let mut listeners = cluster.spec.listeners.iter();
    let main = listeners.find(|listener| listener.kind == ListenerKind::Internal);
    main.map_or(names::CLIENT_PORT, |listener| listener.port)
}

fn conditions(
    cluster: &Cluster,
    name: &str,
    findings: &Findings<'_>,
    before: &ClusterStatus,
    now: Time,
) -> Vec<leasehold_crds::Condition> {
    let generation = cluster.metadata.generation;
    let mut conditions = Conditions::from_existing(&before.conditions);
    let mut set = |kind: &str, is: bool, reason: &str, message: &str| {
        conditions.set(kind, is, reason, message, generation, now.clone());
    };
    let (ready, reason, message) = readiness(cluster.spec.replicas, name, findings);
    set("Ready", ready, reason, &message);
    match &findings.invalid {
        Some(problems) => set("Accepted", false, "InvalidSpec", problems),
        None => set("Accepted", true, "Valid", ""),
    }
    if let Some((roll, behind)) = &findings.roll {
        let (is, reason, message) = rolling(roll, behind);
        set(ROLLING, is, reason, &message);
    }
    match &findings.indisposed {
        Some(Some(why)) => set("DisruptionAllowed", false, "NotEnoughReplicas", why),
        Some(None) => set("DisruptionAllowed", true, "EnoughReplicas", ""),
        None => {}
    }
    match &findings.draining {
        Some(Draining::Idle) => set("Draining", false, "Idle", ""),
        Some(Draining::InProgress(message)) => set("Draining", true, "InProgress", message),
        Some(Draining::Refused(message)) => {
            set("Draining", false, "ReplicationFactorTooLarge", message)
        }
        None => {}
    }
    match &findings.balance {
        Some(Balance::Even) => set(BALANCED, true, "Even", ""),
        Some(Balance::Settling(message)) => set(BALANCED, false, "Settling", message),
        Some(Balance::Moving(message)) => set(BALANCED, false, "Moving", message),
        Some(Balance::Planned(message)) => set(BALANCED, false, "PlanOnly", message),
        Some(Balance::Off(message)) => set(BALANCED, false, "Off", message),
        Some(Balance::Unknown(message)) => set(BALANCED, false, "ControllerNotTold", message),
        None => {}
    }
    match &findings.storage {
        Some(Storage::Ready) => set(STORAGE, true, "Ready", ""),
        Some(Storage::Growing(message)) => set(STORAGE, false, "Growing", message),
        Some(Storage::Refused(message)) => set(STORAGE, false, "CannotGrow", message),
        Some(Storage::Lost(message)) => set(STORAGE, false, "VolumeLost", message),
        Some(Storage::Replacing(message)) => set(STORAGE, false, "Replacing", message),
        None => {}
    }
    match &findings.maintenance {
        Some(Maintenance::Refused(why)) => set(MAINTENANCE, false, "Refused", why),
        Some(Maintenance::Emptying(message)) => set(MAINTENANCE, true, "Emptying", message),
        Some(Maintenance::LeadsNothing(message)) => set(MAINTENANCE, true, "LeadsNothing", message),
        Some(Maintenance::Empty(message)) => set(MAINTENANCE, true, "Empty", message),
        None => {}
    }
    match &findings.listeners {
        Some(Told { waiting: None, .. }) => set(LISTENERS, true, "AllAddressed", ""),
        Some(Told {
            waiting: Some(why), ..
        }) => set(LISTENERS, false, "AddressesPending", why),
        None => {}
    }
    if cluster.spec.listeners.is_empty() {
        conditions.remove(LISTENERS);
    }
    let asked = cluster.annotations().get(MAINTENANCE_ANNOTATION);
    if asked.is_none_or(|brokers| brokers.is_empty()) {
        conditions.remove(MAINTENANCE);
    }
    let mut set = |kind: &str, is: bool, reason: &str, message: &str| {
        conditions.set(kind, is, reason, message, generation, now.clone());
    };
    if findings.paused {
        set(
            "Paused",
            true,
            "Annotated",
            "the operator leaves this cluster alone until the annotation leasehold.dev/paused is removed",
        );
    } else {
        conditions.remove("Paused");
    }
    conditions.into_vec()
}

/// Status, reason and message of the condition `Rolling`.
fn rolling(roll: &Roll, behind: &[String]) -> (bool, &'static str, String) {
    let left = match behind.len() {
        0 => String::new(),
        1 => format!("; {} is still to be restarted", behind[0]),
        _ => format!("; {} are still to be restarted", listed(behind)),
    };
    match roll {
        Roll::Done => (false, "UpToDate", String::new()),
        Roll::Restart(restart) => {
            let Restart { pod, cause, .. } = restart;
            let others: Vec<String> = behind.iter().filter(|p| *p != pod).cloned().collect();
            let left = match others.len() {
                0 => String::new(),
                _ => format!("; {} will follow", listed(&others)),
            };
            (true, "Restarting", format!("{pod} restarts: {cause}{left}"))
        }
        Roll::Waiting(what) => (true, "Waiting", format!("waiting for {what}{left}")),
        Roll::Blocked(why) => (true, "Blocked", format!("{why}{left}")),
        Roll::Stuck(why) => (true, STUCK, format!("{why}{left}")),
    }
}

fn listed(pods: &[String]) -> String {
    let named = pods[..pods.len().min(NAMED)].join(", ");
    match pods.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn readiness(wanted: i32, name: &str, findings: &Findings<'_>) -> (bool, &'static str, String) {
    if findings.deleting {
        return (
            false,
            "Deleting",
            "the cluster, its volumes and its metadata are being deleted".to_owned(),
        );
    }
    if let Some(problems) = &findings.invalid {
        return (false, "InvalidSpec", problems.clone());
    }
    if let Some(why) = &findings.recovering {
        return (false, "Recovering", why.clone());
    }
    if let Some(Verdict::Hold { reason, message }) = &findings.held {
        return (false, reason, message.clone());
    }
    if let Some(why) = &findings.frozen {
        let message = format!(
            "no leader is elected and no topic changed, since {why}. Annotate the Cluster with {RECOVER_ANNOTATION}=newest to go on from the brokers' copies of the metadata"
        );
        return (false, FROZEN, message);
    }
    if let Some(problem) = findings.problems.first() {
        return (false, "Retrying", problem.clone());
    }
    if wanted == 0 {
        return (
            false,
            "Asleep",
            "replicas is 0: all brokers are stopped, disks and metadata are kept".to_owned(),
        );
    }
    let Some((image, totals)) = findings.image else {
        return (
            false,
            "Starting",
            "the metadata is not there yet".to_owned(),
        );
    };
    let missing: Vec<String> = (0..wanted)
        .filter(|id| !image.is_live(leasehold_types::BrokerId(*id)))
        .map(|id| names::pod(name, id))
        .collect();
    if !missing.is_empty() {
        let serving = usize::try_from(wanted).unwrap_or_default() - missing.len();
        let troubles = findings.troubles.iter().take(3);
        let why: String = troubles
            .map(|(pod, why)| format!("; {pod} does not start: {why}"))
            .collect();
        return (
            false,
            "BrokersMissing",
            format!(
                "{serving} of {wanted} brokers serve; missing: {}{why}",
                listed(&missing)
            ),
        );
    }
    if totals.offline > 0 {
        let message = format!(
            "{} of {} partitions have no leader",
            totals.offline, totals.partitions
        );
        return (false, "PartitionsOffline", message);
    }
    (
        true,
        "Ready",
        format!("all {wanted} brokers serve, every partition is led"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{add_topic, image};
    use super::super::facts::totals;
    use super::super::validate::tests::cluster;
    use super::*;

    fn at() -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(9).unwrap())
    }

    fn ready(findings: &Findings<'_>) -> String {
        let status = status(&cluster("{replicas: 3}"), findings, at());
        let ready = status
            .conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .unwrap();
        assert_eq!(ready.observed_generation, Some(4));
        format!("{} {}: {}", ready.status, ready.reason, ready.message)
    }

    #[test]
    fn ready_means_that_all_wanted_brokers_serve_and_every_partition_is_led() {
        let mut good = image("0 1 2");
        add_topic(&mut good, "a", &["012/012/0"]);
        let mut headless = image("0 1 2");
        add_topic(&mut headless, "a", &["012/0/-"]);
        let missing = image("0 2f");
        for (image, expected) in [
            (&good, "True Ready"),
            (
                &headless,
                "False PartitionsOffline: 1 of 1 partitions have no leader",
            ),
            (
                &missing,
                "False BrokersMissing: 1 of 3 brokers serve; missing: demo-broker-1, demo-broker-2",
            ),
        ] {
            let totals = totals(image);
            let findings = Findings {
                image: Some((image, &totals)),
                ..Findings::default()
            };
            let got = ready(&findings);
            assert!(got.starts_with(expected), "{got}");
        }
        assert!(ready(&Findings::default()).starts_with("False Starting"));
    }

    #[test]
    fn a_hold_and_an_invalid_spec_are_told_before_anything_else() {
        let held = Verdict::Hold {
            reason: "MetadataLost",
            message: "gone".into(),
        };
        assert_eq!(
            ready(&Findings {
                held: Some(held),
                ..Findings::default()
            }),
            "False MetadataLost: gone"
        );
        let invalid = Some("bad key".to_owned());
        assert_eq!(
            ready(&Findings {
                invalid,
                ..Findings::default()
            }),
            "False InvalidSpec: bad key"
        );
    }

    #[test]
    fn a_roll_tells_who_restarts_who_follows_and_what_it_waits_for() {
        let behind = || vec!["demo-broker-0".to_owned(), "demo-broker-2".to_owned()];
        let tell = |roll: Roll, behind: Vec<String>| {
            let findings = Findings {
                roll: Some((roll, behind)),
                ..Findings::default()
            };
            let all = status(&cluster("{}"), &findings, at()).conditions;
            let rolling = all.into_iter().find(|c| c.type_ == ROLLING).unwrap();
            format!("{} {}: {}", rolling.status, rolling.reason, rolling.message)
        };
        let restart = Restart {
            pod: "demo-broker-2".into(),
            uid: "u".into(),
            cause: "its image changed".into(),
            left: 1,
            joins: false,
        };
        assert_eq!(
            tell(Roll::Restart(restart), behind()),
            "True Restarting: demo-broker-2 restarts: its image changed; demo-broker-0 will follow"
        );
        assert_eq!(
            tell(Roll::Waiting("x to be ready".into()), behind()),
            "True Waiting: waiting for x to be ready; demo-broker-0, demo-broker-2 are still to be restarted"
        );
        assert_eq!(tell(Roll::Done, Vec::new()), "False UpToDate: ");
        let stuck = tell(Roll::Stuck("x does not start".into()), behind());
        assert!(stuck.starts_with("True Stuck: x does not"), "{stuck}");
    }

    #[test]
    fn how_even_the_brokers_are_is_told() {
        let tell = |balance: Option<Balance>| {
            let findings = Findings {
                balance,
                ..Findings::default()
            };
            let all = status(&cluster("{}"), &findings, at()).conditions;
            let told = all.into_iter().find(|c| c.type_ == BALANCED)?;
            Some(format!("{} {}: {}", told.status, told.reason, told.message))
        };
        assert_eq!(tell(None), None);
        assert_eq!(tell(Some(Balance::Even)).unwrap(), "True Even: ");
        let moving = Some(Balance::Moving("2 replicas left to move".into()));
        let expected = "False Moving: 2 replicas left to move";
        assert_eq!(tell(moving).unwrap(), expected);
        let planned = tell(Some(Balance::Planned("would".into()))).unwrap();
        assert_eq!(planned, "False PlanOnly: would");
    }

    #[test]
    fn columns_tell_at_a_glance() {
        let mut image = image("0 1 2f");
        add_topic(&mut image, "a", &["012/01/0", "12/1/1"]);
        let totals = totals(&image);
        let status = status(
            &cluster("{}"),
            &Findings {
                image: Some((&image, &totals)),
                ..Findings::default()
            },
            at(),
        );
        assert_eq!(status.brokers.as_deref(), Some("2/3"));
        assert_eq!(
            (
                status.topics,
                status.partitions,
                status.under_replicated_partitions
            ),
            (1, 2, 2)
        );
        assert_eq!(
            status.bootstrap.as_deref(),
            Some("demo-bootstrap.shop.svc.cluster.local:9092")
        );
    }
}
