//! `helm uninstall` takes the operator away and nothing else; installed again, it goes on. An upgrade brings the
//! definitions of its release along.

use kube::ResourceExt as _;
use leasehold_crds::Topic;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, helm, kubectl, manifest, run_script};
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait};
use serde_yaml::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn an_uninstall_leaves_definitions_clusters_and_data_and_a_new_install_goes_on() {
    let kube = Kube::with_cluster("operated", "main", 3);
    let topic = fresh("outlasting");
    kube.ready_topic(&topic, 3);
    let load = Load::start(&kube.bootstrap(), &topic, 3, 300, &[]);
    load.wait_flowing(PATIENCE);
    let pods = kube.restarts();
    helm(&[
        "uninstall",
        "leasehold",
        "--namespace",
        "leasehold-system",
        "--wait",
    ]);
    let cluster = kube.cluster().expect("the definition and the object stay");
    assert_eq!(
        cluster.finalizers(),
        [""; 0],
        "nothing hangs on an operator that is gone"
    );
    let topics = kube.block_on(kube.api::<Topic>().list(&Default::default()));
    let held: Vec<String> = topics
        .expect("the definition of Topic stays")
        .items
        .iter()
        .filter(|topic| !topic.finalizers().is_empty())
        .map(|topic| topic.name_any())
        .collect();
    assert_eq!(held, [""; 0], "topics without finalizers");
    load.wait_flowing(PATIENCE);
    run_script("install", &[]);
    // A Cluster that retains its data needs no guard.
    wait::until("the topic to be guarded again", PATIENCE, || {
        let guards = kube.topic(&topic)?.finalizers().len();
        anyhow::ensure!(guards > 0, "no finalizer");
        Ok(())
    });
    kube.wait_condition("Cluster", "main", "Ready", "True");
    kube.wait_condition("Topic", &topic, "Ready", "True");
    assert_eq!(pods, kube.restarts(), "no broker was restarted");
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
}

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/leasehold");
const SYSTEM: &str = "leasehold-system";

/// The chart as an older release may have had it: its Cluster knows no `networkPolicy`, and has no column `Brokers`.
fn older_chart(folder: &Path) -> String {
    let copied = Command::new("cp").arg("-r").arg(CHART).arg(folder).status();
    assert!(copied.expect("cp starts").success());
    let chart = folder.join("leasehold");
    let file = chart.join("templates/crd-cluster.yaml");
    let text = std::fs::read_to_string(&file).expect("the definition");
    let plain: Vec<&str> = text.lines().filter(|l| !l.starts_with("{{")).collect();
    let mut definition: Value = serde_yaml::from_str(&plain.join("\n")).expect("YAML");
    let version = &mut definition["spec"]["versions"][0];
    let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let spec = spec.as_mapping_mut().expect("properties");
    assert!(spec.remove("networkPolicy").is_some());
    let columns = version["additionalPrinterColumns"].as_sequence_mut();
    let columns = columns.expect("columns");
    let before = columns.len();
    columns.retain(|column| column["name"] != "Brokers");
    assert_eq!(columns.len() + 1, before);
    let text = serde_yaml::to_string(&definition).expect("YAML");
    std::fs::write(&file, text).expect("write");
    chart.display().to_string()
}

#[test]
fn an_upgrade_brings_the_definitions_of_its_release_along() {
    let kube = Kube::with_cluster("upgraded", "main", 1);
    let pods = kube.restarts();
    let columns = || {
        let told = kubectl("upgraded", &["get", "lc"]);
        told.lines().next().unwrap_or_default().to_owned()
    };
    let knows = || {
        let asked = ["explain", "clusters.spec.networkPolicy.metricsFrom"];
        kubectl("upgraded", &asked).contains("FIELD: metricsFrom")
    };
    assert!(columns().contains("BROKERS") && knows(), "{}", columns());

    let folder = tempfile::tempdir().expect("a folder");
    let older = older_chart(folder.path());
    let namespace = ["--namespace", SYSTEM, "--wait"];
    helm(
        &[
            &["upgrade", "leasehold", &older, "--reuse-values"][..],
            &namespace,
        ]
        .concat(),
    );
    wait::until("the older definition", PATIENCE, || {
        anyhow::ensure!(!columns().contains("BROKERS") && !knows(), "{}", columns());
        Ok(())
    });

    helm(
        &[
            &["upgrade", "leasehold", CHART, "--reuse-values"][..],
            &namespace,
        ]
        .concat(),
    );
    wait::until("the definition of today", PATIENCE, || {
        anyhow::ensure!(columns().contains("BROKERS") && knows(), "{}", columns());
        Ok(())
    });
    // Not in words alone: the API server keeps the field.
    kube.apply(&(manifest("main", 1) + "  networkPolicy: {metricsFrom: [{podSelector: {}}]}\n"));
    let cluster = kube.cluster().expect("the object");
    assert_eq!(cluster.spec.network_policy.metrics_from.len(), 1);
    kube.wait_condition("Cluster", "main", "Ready", "True");
    assert_eq!(pods, kube.restarts(), "no broker was restarted");
    kube.remove_namespace();
}
