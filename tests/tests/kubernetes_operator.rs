//! What a user does with kubectl: applies a cluster and topics, makes mistakes and mends them, scales
//! up and down under load, deletes and brings back; and what goes on while the operator is away.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event as News;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use leasehold_crds::{Cluster, Topic};
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest, topic_manifest};
use leasehold_tests::conditions::condition;
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait};
use serde_json::json;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "operated";
const NAME: &str = "main";
/// How long the load is watched before anything happens, to have something to compare with.
const QUIET: Duration = Duration::from_secs(5);

fn reason(object: &serde_json::Value, kind: &str) -> String {
    let (reason, message) = condition(object, kind);
    format!("{reason}: {message}")
}

#[test]
fn a_pod_produces_and_consumes_every_byte_through_the_bootstrap_service() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (topic, client) = (fresh("bytes"), fresh("client"));
    kube.ready_topic(&topic, 3);
    let script = "set -e; \
        head -c 300000 /dev/urandom | od -An -tx1 -v | tr -d ' ' > /tmp/in; \
        kcat -P -b $B -t $T -p 0 -X acks=all -l /tmp/in; \
        kcat -C -b $B -t $T -p 0 -o beginning -e -q > /tmp/out; \
        cmp /tmp/in /tmp/out && wc -c < /tmp/out";
    kube.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {client}}}
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: localhost/kcat:1
    imagePullPolicy: IfNotPresent
    env: [{{name: B, value: \"{NAME}-bootstrap.{NAMESPACE}.svc:9092\"}}, {{name: T, value: {topic}}}]
    command: [/bin/sh, -c, {script:?}]
    volumeMounts: [{{name: tmp, mountPath: /tmp}}]
  volumes: [{{name: tmp, emptyDir: {{}}}}]
"
    ));
    let pods = kube.api::<Pod>();
    wait::until("the client pod to succeed", PATIENCE, || {
        let pod = kube.block_on(pods.get(&client))?;
        let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
        let log = kube
            .block_on(pods.logs(&client, &Default::default()))
            .unwrap_or_default();
        assert_ne!(phase, "Failed", "{log}");
        anyhow::ensure!(phase == "Succeeded", "{phase}: {log}");
        Ok(())
    });
    kube.block_on(pods.delete(&client, &DeleteParams::default()))
        .expect("delete");
}

#[test]
fn a_topics_wishes_are_fulfilled_or_refused_with_a_reason_and_recover() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    kube.ready_topic("grown", 2);
    kube.ready_topic("grown", 4);
    assert_eq!(kube.states("grown").expect("status").len(), 4);
    let bad = [
        (topic_manifest("grown", NAME, 2, 3), "fewer partitions"),
        (
            topic_manifest("grown", NAME, 4, 9),
            "more replicas than brokers",
        ),
        (
            topic_manifest("grown", NAME, 4, 3)
                .replace("spec: {", "spec: {config: {no.such.key: 1}, "),
            "an unknown key",
        ),
    ];
    for (wish, what) in bad {
        kube.apply(&wish);
        let object = kube.wait_condition("Topic", "grown", "Ready", "False");
        println!("{what}: {}", reason(&object, "Ready"));
        assert!(
            reason(&object, "Ready").len() > 10,
            "{what} is refused with a reason"
        );
        kube.apply(&topic_manifest("grown", NAME, 4, 3));
        kube.wait_condition("Topic", "grown", "Ready", "True");
    }
    let zero = kube.try_apply(&topic_manifest("zero", NAME, 1, 0));
    assert!(
        zero.is_err()
            || !reason(
                &kube.wait_condition("Topic", "zero", "Ready", "False"),
                "Ready"
            )
            .is_empty()
    );
    kube.apply(
        &topic_manifest("Bad-Name".to_lowercase().as_str(), NAME, 1, 3)
            .replace("spec: {", "spec: {topicName: 'no spaces', "),
    );
    kube.wait_condition("Topic", "bad-name", "Ready", "False");
    kube.apply(&topic_manifest("orphan", "no-such-cluster", 1, 3));
    println!(
        "no cluster: {}",
        reason(
            &kube.wait_condition("Topic", "orphan", "Ready", "False"),
            "Ready"
        )
    );
    let topics = kube.api::<Topic>();
    for name in ["bad-name", "orphan"] {
        kube.block_on(topics.delete(name, &DeleteParams::default()))
            .expect("delete");
    }
    // The replication factor follows the wish too.
    kube.apply(&topic_manifest("grown", NAME, 4, 2));
    wait::until("two replicas each", PATIENCE, || {
        let states = kube.states("grown")?;
        anyhow::ensure!(
            states
                .iter()
                .all(|p| p.replicas.len() == 2 && p.isr.len() == 2),
            "{states:?}"
        );
        anyhow::Ok(())
    });
    kube.block_on(topics.delete("grown", &DeleteParams::default()))
        .expect("delete");
    let viewer = leasehold_tests::topics::Viewer::new(&kube.bootstrap());
    wait::until("the topic to be gone", PATIENCE, || {
        if viewer.partitions("grown").is_err() {
            Ok(())
        } else {
            Err("still there")
        }
    });
}

#[test]
fn a_cluster_scales_up_and_down_under_load_and_loses_nothing() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (scaled, after) = (fresh("scaled"), fresh("after"));
    kube.ready_topic(&scaled, 6);
    let load = Load::start(&kube.bootstrap(), &scaled, 6, 300, &[]);
    let quiet = load.wait_flowing(PATIENCE);
    std::thread::sleep(QUIET);
    let grows = Instant::now();
    let autoscalers = autoscale(&kube, 5);
    wait_brokers(&kube, 5);
    // Racks are learnt from the nodes a moment after a broker joins.
    kube.wait_zones(5);
    wait_even(&kube, &scaled, 5);
    let grown = Instant::now();
    kube.ready_topic(&after, 10);
    let hosts = |topic: &str| {
        let states = kube.states(topic).expect("status");
        states
            .iter()
            .flat_map(|p| p.replicas.clone())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(
        hosts(&after),
        (0..5).collect(),
        "new brokers get their share of new partitions"
    );
    let zones = kube
        .block_on(leasehold_tests::wire::racks(&kube.bootstrap()))
        .expect("racks");
    for state in kube.states(&after).expect("status") {
        let spread: std::collections::BTreeSet<_> =
            state.replicas.iter().map(|id| &zones[id]).collect();
        assert_eq!(
            spread.len(),
            3,
            "three replicas in three zones: {state:?}, {zones:?}"
        );
    }
    // It would scale up again at once.
    kube.block_on(autoscalers.delete(NAME, &DeleteParams::default()))
        .expect("delete the autoscaler");
    let shrinks = Instant::now();
    patch_replicas(&kube, 3);
    kube.wait_condition("Cluster", NAME, "Draining", "True");
    wait_brokers(&kube, 3);
    wait::until("the status to tell that all was drained", PATIENCE, || {
        let left = hosts(&after);
        anyhow::ensure!(left == (0..3).collect(), "{left:?}");
        anyhow::Ok(())
    });
    let sets = kube.api::<StatefulSet>();
    let set = kube
        .block_on(sets.get(&format!("{NAME}-broker")))
        .expect("statefulset");
    assert_eq!(set.spec.and_then(|s| s.replicas), Some(3));
    let shrunk = load.wait_flowing(PATIENCE);
    // Not while it is measured: pods that start take the machine's processors, whoever makes them.
    resumes_what_another_operator_began(&kube);
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    for (when, from, to) in [
        ("at rest", quiet, grows),
        ("from 3 to 5 brokers, until all are even", grows, grown),
        ("from 5 to 3 brokers", shrinks, shrunk),
    ] {
        let (median, p99) = history.latency(from, to);
        println!(
            "acknowledged {when} ({:.0?}): median {median:.1?}, p99 {p99:.1?}",
            to - from
        );
    }
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &scaled, &history);
    println!("{} acknowledged records read back", history.acked_total());
    // A replication factor of 3 cannot live on two brokers.
    patch_replicas(&kube, 2);
    let object = wait::until("the refusal", PATIENCE, || {
        let cluster = serde_json::to_value(kube.cluster()?)?;
        let text = cluster["status"]["conditions"].to_string();
        anyhow::ensure!(text.contains("replication factor"), "{text}");
        Ok(cluster)
    });
    println!("3 -> 2: {}", object["status"]["conditions"]);
    patch_replicas(&kube, 3);
    kube.wait_condition("Cluster", NAME, "Ready", "True");
}

/// Lets a HorizontalPodAutoscaler scale: of one that has no metrics the least is what counts.
fn autoscale(kube: &Kube, least: i32) -> Api<HorizontalPodAutoscaler> {
    let autoscalers = kube.api::<HorizontalPodAutoscaler>();
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME},
        "spec": {
            "scaleTargetRef": {"apiVersion": "leasehold.dev/v1alpha1", "kind": "Cluster", "name": NAME},
            "minReplicas": 3, "maxReplicas": least,
        },
    });
    let params = PatchParams::apply("tests").force();
    kube.block_on(autoscalers.patch(NAME, &params, &Patch::Apply(&object)))
        .expect("apply an autoscaler");
    let raised = Patch::Merge(json!({"spec": {"minReplicas": least}}));
    kube.block_on(autoscalers.patch(NAME, &PatchParams::default(), &raised))
        .expect("raise its least");
    autoscalers
}

fn patch_replicas(kube: &Kube, replicas: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    kube.block_on(
        kube.api::<Cluster>()
            .patch_scale(&kube.name, &PatchParams::default(), &patch),
    )
    .expect("scale");
}

/// What is there already moves to the new brokers by itself, and the status and an Event say so.
fn wait_even(kube: &Kube, topic: &str, brokers: i32) {
    wait::until("every broker to hold some of it", PATIENCE, || {
        let states = kube.states(topic)?;
        let hosts = states.iter().flat_map(|p| p.replicas.clone());
        let hosts: std::collections::BTreeSet<i32> = hosts.collect();
        anyhow::ensure!(hosts == (0..brokers).collect(), "{hosts:?}");
        anyhow::Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Balanced", "True");
    let events = kube.api::<News>();
    wait::until("an Event that tells", PATIENCE, || {
        let all = kube.block_on(events.list(&ListParams::default()))?;
        for reason in ["Balancing", "Balanced"] {
            let told = |e: &&News| e.reason.as_deref() == Some(reason);
            let found = all.items.iter().find(told);
            let found = found.ok_or_else(|| anyhow::anyhow!("no {reason}"))?;
            println!("{reason}: {}", found.note.as_deref().unwrap_or_default());
        }
        anyhow::Ok(())
    });
}

/// Up and down once more, each begun by operators that do not live to end it.
fn resumes_what_another_operator_began(kube: &Kube) {
    patch_replicas(kube, 4);
    wait::until("a fourth pod", PATIENCE, || kube.pod(3).map(drop));
    kill_operators(kube);
    wait_brokers(kube, 4);
    patch_replicas(kube, 3);
    kube.wait_condition("Cluster", NAME, "Draining", "True");
    kill_operators(kube);
    wait_brokers(kube, 3);
}

/// Whatever they were about to do, others have to take it up.
fn kill_operators(kube: &Kube) {
    let pods: Api<Pod> = Api::namespaced(kube.client(), "leasehold-system");
    let chosen = ListParams::default().labels("app.kubernetes.io/name=leasehold-operator");
    let killed = kube
        .block_on(pods.delete_collection(&DeleteParams::default().grace_period(0), &chosen))
        .expect("delete the operator's pods");
    assert!(
        killed.left().is_some_and(|list| !list.items.is_empty()),
        "there were operators to kill"
    );
}

fn scale(kube: &Kube, replicas: i32) {
    patch_replicas(kube, replicas);
    wait_brokers(kube, replicas);
}

fn wait_brokers(kube: &Kube, replicas: i32) {
    wait::until(&format!("{replicas} ready brokers"), PATIENCE, || {
        let status = kube.cluster()?.status.unwrap_or_default();
        anyhow::ensure!(
            status.ready_replicas == replicas && status.replicas == replicas,
            "{:?} {:?}",
            status.brokers,
            status.conditions
        );
        anyhow::Ok(())
    });
    kube.wait_condition("Cluster", &kube.name, "Ready", "True");
}

#[test]
fn elections_go_on_while_the_operator_is_away() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    kube.ready_topic("alone", 3);
    let usual = kube.scale_operator(0);
    let viewer = leasehold_tests::topics::Viewer::new(&kube.bootstrap());
    let old = viewer.wait_in_sync("alone", PATIENCE)[0].leader;
    let uid = kube.pod(old).expect("pod").metadata.uid.expect("uid");
    kube.delete_pod(old, true);
    wait::until("another leader", PATIENCE, || {
        let now = viewer.partitions("alone")?[0].leader;
        anyhow::ensure!(now >= 0 && now != old, "leader {now}");
        Ok(())
    });
    kube.wait_replaced(old, &uid);
    viewer.wait_in_sync("alone", PATIENCE);
    kube.scale_operator(usual);
    kube.wait_condition("Cluster", NAME, "Ready", "True");
}

#[test]
fn a_cluster_deleted_and_applied_again_is_back_with_its_data() {
    let kube = Kube::with_cluster("returning", "back", 3);
    let kept = fresh("kept");
    kube.ready_topic(&kept, 3);
    let load = Load::start(&kube.bootstrap(), &kept, 3, 300, &[]);
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    let clusters = kube.api::<Cluster>();
    kube.block_on(clusters.delete("back", &DeleteParams::default()))
        .expect("delete");
    let pods = kube.api::<Pod>();
    wait::until("the pods to be gone", PATIENCE, || {
        let left = kube.block_on(pods.list(&Default::default()))?.items.len();
        anyhow::ensure!(left == 0, "{left} pods");
        anyhow::Ok(())
    });
    kube.apply(&manifest("back", 3));
    kube.wait_condition("Cluster", "back", "Ready", "True");
    kube.wait_condition("Topic", &kept, "Ready", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    readback::check(&kube.bootstrap(), &kept, &history);
}

#[test]
fn a_cluster_of_no_replicas_sleeps_and_wakes_smaller_with_all_its_data() {
    let kube = Kube::connect("returning", "back");
    kube.apply(&manifest("back", 4).replace("size: 1Gi", "size: 1Gi, whenScaled: Delete"));
    kube.wait_condition("Cluster", "back", "Ready", "True");
    (0..4).for_each(|broker| kube.wait_name(broker));
    let topic = fresh("slept");
    kube.ready_topic(&topic, 8);
    let load = Load::start(&kube.bootstrap(), &topic, 8, 300, &[]);
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    let claims = || {
        let all = kube.api::<PersistentVolumeClaim>();
        let all = kube.block_on(all.list(&Default::default()))?.items;
        let mut names: Vec<String> = all.into_iter().filter_map(|c| c.metadata.name).collect();
        names.sort();
        anyhow::Ok(names)
    };
    let names = |count: i32| -> Vec<String> {
        (0..count)
            .map(|broker| format!("data-{}", kube.pod_name(broker)))
            .collect()
    };
    patch_replicas(&kube, 0);
    wait::until("no pods", PATIENCE, || {
        let left = kube.block_on(kube.api::<Pod>().list(&Default::default()))?;
        anyhow::ensure!(left.items.is_empty(), "{} pods", left.items.len());
        anyhow::Ok(())
    });
    assert_eq!(
        claims().expect("claims"),
        names(4),
        "sleep keeps every volume"
    );
    scale(&kube, 3);
    (0..3).for_each(|broker| kube.wait_name(broker));
    readback::check(&kube.bootstrap(), &topic, &history);
    // The volume may still be in use by its pod for a moment.
    wait::until("the drained broker's volume to be gone", PATIENCE, || {
        let left = claims()?;
        anyhow::ensure!(left == names(3), "{left:?}");
        anyhow::Ok(())
    });
}
