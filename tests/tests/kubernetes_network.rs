//! The NetworkPolicy of a Cluster, enforced: strangers reach no port that is not theirs, and the cluster goes on
//! as before, through a roll too. Without the policy the very same strangers get in.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, kubectl, manifest};
use leasehold_tests::load::Load;
use leasehold_tests::network_policy::Enforcer;
use leasehold_tests::{readback, wait};

const NAMESPACE: &str = "guarded";
const ELSEWHERE: &str = "guarded-elsewhere";
const NAME: &str = "main";
const INTERNAL: u16 = 9091;
const KAFKA: u16 = 9092;
const METRICS: u16 = 8080;

/// A cluster whose listener and NetworkPolicy say this besides.
fn spec(listener: &str, more: &str) -> String {
    let listener = format!("{{name: plain, type: Internal, port: {KAFKA}{listener}}}");
    manifest(NAME, 3)
        + &format!("  rolling: {{settleSeconds: 1}}\n  listeners: [{listener}]\n{more}")
}

/// A pod that does nothing until it is told.
fn idle(kube: &Kube, name: &str, labels: &str) {
    kube.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: main, image: 'localhost/kcat:1', imagePullPolicy: IfNotPresent, command: [sleep, infinity]}}"
    ));
    wait::until(&format!("pod {name} to run"), PATIENCE, || {
        let pod = kube.block_on(kube.api::<Pod>().get(name))?;
        let phase = pod.status.and_then(|status| status.phase);
        anyhow::ensure!(phase.as_deref() == Some("Running"), "{phase:?}");
        Ok(())
    });
}

/// Which brokers' ports a pod reaches.
fn reached(kube: &Kube, from: (&str, &str), port: u16) -> anyhow::Result<usize> {
    let addresses: Vec<String> = kube
        .bootstrap()
        .split(',')
        .filter_map(|address| Some(address.rsplit_once(':')?.0.to_owned()))
        .collect();
    let script = format!(
        "for ip in {}; do timeout 2 bash -c \"</dev/tcp/$ip/{port}\" 2>/dev/null && echo reached || echo cut; done",
        addresses.join(" ")
    );
    let told = kubectl(from.0, &["exec", from.1, "--", "bash", "-c", &script]);
    let (open, cut) = (told.matches("reached").count(), told.matches("cut").count());
    anyhow::ensure!(open + cut == 3, "{told:?} of {addresses:?}");
    Ok(open)
}

fn wait_reached(kube: &Kube, from: (&str, &str), port: u16, brokers: usize) {
    let what = format!("{from:?} to reach port {port} of {brokers} brokers");
    wait::until(&what, PATIENCE, || {
        let found = reached(kube, from, port)?;
        anyhow::ensure!(found == brokers, "of {found}");
        Ok(())
    });
}

fn policy(kube: &Kube) -> Option<NetworkPolicy> {
    let name = format!("{NAME}-brokers");
    let found = kube.block_on(kube.api::<NetworkPolicy>().get_opt(&name));
    found.expect("the API server")
}

#[test]
fn strangers_reach_only_what_is_theirs_and_the_cluster_replicates_and_rolls() {
    let kube = Kube::connect(NAMESPACE, NAME);
    let elsewhere = Kube::connect(ELSEWHERE, "none");
    for (wrong, why) in [
        (", from: [{}]", "a peer is either an ipBlock"),
        (", from: [{ipBlock: {cidr: here}}]", "cidr must be a range"),
    ] {
        let refused = kube.try_apply(&spec(wrong, "")).expect_err("refused");
        let refused = format!("{refused:#}");
        assert!(refused.contains(why), "{refused}");
    }
    kube.apply(&spec("", ""));
    idle(&kube, "stranger", "role: none");
    idle(&kube, "client", "role: client");
    // As the operator and as a broker, but in another namespace.
    let labels = format!(
        "app.kubernetes.io/name: leasehold-operator, app.kubernetes.io/instance: leasehold, app.kubernetes.io/component: broker, leasehold.dev/cluster: {NAME}"
    );
    idle(&elsewhere, "impostor", &labels);
    let (stranger, client, impostor) = (
        (NAMESPACE, "stranger"),
        (NAMESPACE, "client"),
        (ELSEWHERE, "impostor"),
    );
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    assert!(policy(&kube).is_some(), "there is one by default");

    // The control: nothing enforces it, and all come in.
    for from in [stranger, client, impostor] {
        for port in [INTERNAL, KAFKA, METRICS] {
            wait_reached(&kube, from, port, 3);
        }
    }

    let enforcer = Enforcer::start(&kube);
    for from in [stranger, client, impostor] {
        wait_reached(&kube, from, INTERNAL, 0);
        wait_reached(&kube, from, KAFKA, 3);
        wait_reached(&kube, from, METRICS, 3);
    }

    // A client in a pod, from the first connection on: through the Service, and to whichever broker leads.
    let topic = fresh("guarded");
    kube.ready_topic(&topic, 6);
    let script = format!(
        "echo hello | kcat -P -b {NAME}-bootstrap.{NAMESPACE}.svc:{KAFKA} -t {topic} -X acks=all && kcat -C -e -q -b {NAME}-bootstrap.{NAMESPACE}.svc:{KAFKA} -t {topic} -o beginning"
    );
    let told = kubectl(NAMESPACE, &["exec", "client", "--", "sh", "-c", &script]);
    assert_eq!(told.trim(), "hello");

    // Who may read is a change of the policy alone.
    let before = kube.restarts();
    let clients = ", from: [{podSelector: {matchLabels: {role: client}}}]";
    let readers =
        "  networkPolicy: {metricsFrom: [{podSelector: {matchLabels: {role: prometheus}}}]}\n";
    kube.apply(&spec(clients, readers));
    for (from, brokers) in [(client, 3), (stranger, 0), (impostor, 0)] {
        wait_reached(&kube, from, KAFKA, brokers);
        wait_reached(&kube, from, METRICS, 0);
        wait_reached(&kube, from, INTERNAL, 0);
    }
    assert_eq!(kube.restarts(), before, "nobody was restarted");

    // Every broker is restarted: all of their connections are made anew, the operator's too.
    let topic = fresh("rolled");
    kube.ready_topic(&topic, 6);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &[]);
    load.wait_flowing(PATIENCE);
    kubectl(
        NAMESPACE,
        &["annotate", "lc", NAME, "leasehold.dev/restart=now"],
    );
    wait::until("every broker to be another pod", PATIENCE, || {
        let now = kube.restarts();
        let stayed = now.iter().filter(|pod| before.contains(pod));
        let stayed: Vec<_> = stayed.filter(|pod| pod.0.starts_with(NAME)).collect();
        anyhow::ensure!(stayed.is_empty(), "{stayed:?}");
        Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    kube.wait_whole(&topic);
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
    kube.ready_topic(&fresh("after"), 3);
    wait_reached(&kube, stranger, INTERNAL, 0);
    wait_reached(&kube, client, KAFKA, 3);

    // Switched off, it is gone, and the strangers are in.
    kube.apply(&spec("", "  networkPolicy: {enabled: false}\n"));
    wait::until("the policy to be gone", PATIENCE, || {
        anyhow::ensure!(policy(&kube).is_none(), "it is there");
        Ok(())
    });
    wait_reached(&kube, stranger, INTERNAL, 3);
    kube.apply(&spec("", ""));
    wait_reached(&kube, stranger, INTERNAL, 0);
    // Who takes it away by mistake finds it made again.
    let gone = policy(&kube).and_then(|policy| policy.metadata.uid);
    kubectl(
        NAMESPACE,
        &["delete", "networkpolicy", &format!("{NAME}-brokers")],
    );
    wait::until("the policy to be made again", PATIENCE, || {
        let now = policy(&kube).and_then(|policy| policy.metadata.uid);
        anyhow::ensure!(now.is_some() && now != gone, "{now:?}");
        Ok(())
    });
    drop(enforcer);
    elsewhere.remove_namespace();
    kube.remove_namespace();
}
