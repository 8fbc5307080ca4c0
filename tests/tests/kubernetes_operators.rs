//! The operator's own duties around a cluster: another replica takes over when the acting one dies,
//! reclaim policies decide over data, and `kubectl get` and Events tell what is happening.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams};
use leasehold_crds::{Cluster, Topic};
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, kubectl, run_script, topic_manifest};
use leasehold_tests::topics::Viewer;
use leasehold_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "operated";
const NAME: &str = "main";
const OPERATORS: &str = "leasehold-system";

fn acting(kube: &Kube) -> anyhow::Result<String> {
    let leases: Api<Lease> = Api::namespaced(kube.client(), OPERATORS);
    let lease = kube.block_on(leases.get("leasehold-operator"))?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    holder
        .filter(|holder| !holder.is_empty())
        .ok_or_else(|| anyhow::anyhow!("no holder"))
}

#[test]
fn another_operator_acts_within_20_s_of_the_acting_ones_death_and_nothing_is_done_twice() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let old = wait::until("an acting operator", PATIENCE, || acting(&kube));
    let topics: Vec<String> = (0..5).map(|_| fresh("twice")).collect();
    let pods: Api<Pod> = Api::namespaced(kube.client(), OPERATORS);
    let apply = |names: &[String]| {
        for name in names {
            kube.apply(&topic_manifest(name, NAME, 2, 3));
        }
    };
    // Some are applied before its death, so that it dies in the middle of them.
    apply(&topics[..3]);
    // Killed for good: without a chance to give its Lease back, and its pod does not come back.
    let pid = run_script("pod-pid", &[OPERATORS, &old]);
    let process = Pid::from_raw(pid.parse().expect("a process id")).expect("not 0");
    kill_process(process, Signal::KILL).expect("kill the acting operator");
    let killed = Instant::now();
    kube.block_on(pods.delete(&old, &DeleteParams::default().grace_period(0)))
        .expect("delete its pod");
    apply(&topics[3..]);
    let new = wait::until("another acting operator", Duration::from_secs(20), || {
        let now = acting(&kube)?;
        anyhow::ensure!(now != old, "{now} still");
        Ok(now)
    });
    for name in &topics {
        kube.wait_condition("Topic", name, "Ready", "True");
    }
    let took = killed.elapsed();
    println!("{old} killed: {new} acts, all topics ready after {took:.1?}");
    assert!(took <= Duration::from_secs(20), "{took:?}");
    let logs: String = (0..3).map(|broker| kube.log(broker)).collect();
    for name in &topics {
        let created = |line: &&str| {
            line.contains("topic created") && line.contains(&format!("topic=\"{name}\""))
        };
        let count = logs.lines().filter(created).count();
        assert_eq!(count, 1, "{name} is created once");
        let states = kube.states(name).expect("status");
        assert_eq!(states.len(), 2, "{states:?}");
    }
}

#[test]
fn the_reclaim_policy_decides_whether_a_deleted_object_takes_its_topic_along() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (kept, gone) = (fresh("kept"), fresh("gone"));
    let retained =
        topic_manifest(&kept, NAME, 1, 3).replace("spec: {", "spec: {reclaimPolicy: Retain, ");
    kube.apply(&retained);
    kube.apply(&topic_manifest(&gone, NAME, 1, 3));
    for name in [&kept, &gone] {
        kube.wait_condition("Topic", name, "Ready", "True");
    }
    let objects = kube.api::<Topic>();
    let viewer = Viewer::new(&kube.bootstrap());
    for name in [&kept, &gone] {
        kube.block_on(objects.delete(name, &DeleteParams::default()))
            .expect("delete");
    }
    wait::until("both objects to be gone", PATIENCE, || {
        for name in [&kept, &gone] {
            let left = kube.block_on(objects.get_opt(name))?;
            anyhow::ensure!(left.is_none(), "{name} is there");
        }
        Ok(())
    });
    wait::until("the deleted topic to be gone", PATIENCE, || {
        match viewer.partitions(&gone) {
            Err(_) => Ok(()),
            Ok(seen) => Err(seen),
        }
    });
    let seen = viewer.partitions(&kept).expect("Retain keeps the topic");
    assert_eq!(seen.len(), 1);
    // Applied again, the object finds its topic.
    kube.apply(&retained);
    kube.wait_condition("Topic", &kept, "Ready", "True");
}

#[test]
fn a_topic_object_does_not_outlive_the_namespace_of_a_cluster_that_is_gone() {
    let kube = Kube::with_cluster("leaving", "brief", 1);
    let topic = fresh("left");
    kube.apply(&topic_manifest(&topic, "brief", 1, 1));
    kube.wait_condition("Topic", &topic, "Ready", "True");
    let clusters = kube.api::<Cluster>();
    kube.block_on(clusters.delete("brief", &DeleteParams::default()))
        .expect("delete");
    let objects = kube.api::<Topic>();
    kube.block_on(objects.delete(&topic, &DeleteParams::default()))
        .expect("delete");
    wait::until("the finalizers to be given up", PATIENCE, || {
        let topic = kube.block_on(objects.get_opt(&topic))?.is_none();
        let cluster = kube.block_on(clusters.get_opt("brief"))?.is_none();
        anyhow::ensure!(
            topic && cluster,
            "topic gone {topic}, cluster gone {cluster}"
        );
        Ok(())
    });
    kube.remove_namespace();
}

#[test]
fn kubectl_and_events_tell_what_is_happening_and_each_broker_has_its_nodes_zone_as_rack() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let topic = fresh("told");
    kube.ready_topic(&topic, 2);
    let listed = kubectl(&kube.namespace, &["get", "lc,lt"]);
    for column in [
        "BROKERS",
        "CONTROLLER",
        "EPOCH",
        "TOPICS",
        "PARTITIONS",
        "LEADERS",
        "UNDER-REPLICATED",
    ] {
        assert!(listed.contains(column), "{column} is missing in {listed}");
    }
    assert!(listed.contains("3/3"), "{listed}");
    wait::until("the epoch of the head in the status", PATIENCE, || {
        let told = kube.cluster()?.status.unwrap_or_default().controller_epoch;
        let head = kube.controller_epoch()?;
        anyhow::ensure!(told == Some(head), "{told:?}, not {head}");
        Ok(())
    });

    let events = kube.api::<Event>();
    let before = kube.controller().expect("lease");
    let uid = kube.pod(before).expect("pod").metadata.uid.expect("uid");
    kube.delete_pod(before, false);
    for reason in ["ControllerElected", "BrokerFenced", "LeaderElected"] {
        wait::until(&format!("an Event {reason}"), PATIENCE, || {
            let all = kube.block_on(events.list(&Default::default()))?.items;
            let told = |e: &Event| {
                e.reason.as_deref() == Some(reason)
                    && e.involved_object.name.as_deref() == Some(NAME)
            };
            anyhow::ensure!(all.iter().any(told), "{} events", all.len());
            Ok(())
        });
    }
    kube.wait_replaced(before, &uid);
    kube.wait_whole(&topic);
    kube.wait_zones(3);
}
