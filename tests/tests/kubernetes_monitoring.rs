//! The chart's alerts and dashboard in a real Prometheus that looks at brokers and operator: every panel
//! shows something, nothing fires while all is well, and each alert fires under its fault and ends with it.

use k8s_openapi::api::core::v1::{ConfigMap, ContainerPort, Pod, Service};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, helm, manifest, run_script, topic_manifest};
use leasehold_tests::prometheus::{Prometheus, chart_file};
use leasehold_tests::wait;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::path::Path;

const NAMESPACE: &str = "monitored";
const NAME: &str = "main";

const ACTING: &str = "leasehold_operator_acting == 1";

/// A cluster of one broker whose disk can never be free enough, and whose load balancer nobody provides.
const FULL: &str = "
apiVersion: leasehold.dev/v1alpha1
kind: Cluster
metadata: {name: full}
spec:
  replicas: 1
  storage: {type: Ephemeral}
  listeners: [{name: lb, type: LoadBalancer, port: 9095}]
  config: {default.replication.factor: 1, min.insync.replicas: 1, log.dir.min.free.bytes: 1000000000000000}
";

/// The pods' ports in all namespaces, with the labels under which Prometheus' own discovery of pods presents them:
/// Debian's build has none.
fn targets(kube: &Kube) -> Json {
    let pods: Api<Pod> = Api::all(kube.client());
    let pods = kube
        .block_on(pods.list(&ListParams::default()))
        .expect("pods");
    let ports = pods.items.iter().flat_map(|pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        ports.filter_map(move |port| target(pod, port))
    });
    ports.collect()
}

fn target(pod: &Pod, port: &ContainerPort) -> Option<Json> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?;
    let plain = |key: &str| key.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let labels = pod.labels().iter();
    let mut labels: BTreeMap<String, String> = labels
        .map(|(key, value)| {
            (
                format!("__meta_kubernetes_pod_label_{}", plain(key)),
                value.clone(),
            )
        })
        .collect();
    for (key, value) in [
        ("namespace", pod.namespace()),
        ("pod_name", Some(pod.name_any())),
        ("pod_container_port_name", port.name.clone()),
    ] {
        labels.insert(
            format!("__meta_kubernetes_{key}"),
            value.unwrap_or_default(),
        );
    }
    Some(json!({"targets": [format!("{address}:{}", port.container_port)], "labels": labels}))
}

/// scrape.yaml of the chart, with this file in place of Prometheus' own discovery.
fn scrape(targets: &Path) -> Value {
    let mut config: Value = serde_yaml::from_str(&chart_file("scrape.yaml")).expect("YAML");
    for job in config["scrape_configs"].as_sequence_mut().expect("jobs") {
        let job = job.as_mapping_mut().expect("a job");
        assert!(job.remove("kubernetes_sd_configs").is_some());
        let files = json!([{"files": [targets], "refresh_interval": "1s"}]);
        job.insert(
            "file_sd_configs".into(),
            serde_yaml::to_value(files).expect("YAML"),
        );
    }
    config
}

/// Each panel's title and queries.
fn panels() -> Vec<(String, Vec<String>)> {
    let board: Json = serde_json::from_str(&chart_file("dashboard.json")).expect("JSON");
    let text = |value: &Json| value.as_str().expect("text").to_owned();
    let queries = |panel: &Json| {
        let targets = panel["targets"].as_array().expect("targets").iter();
        targets.map(|target| text(&target["expr"])).collect()
    };
    let panels = board["panels"].as_array().expect("panels").iter();
    panels
        .map(|panel| (text(&panel["title"]), queries(panel)))
        .collect()
}

/// The API server is away as long as this lives.
struct Outage;

impl Outage {
    fn begin() -> Self {
        run_script("apiserver", &["stop"]);
        Self
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        run_script("apiserver", &["start"]);
    }
}

/// Waits until the pods of now, by way of `file`, give this query so many results.
fn see(kube: &Kube, prometheus: &Prometheus, file: &Path, query: &str, wanted: usize) {
    wait::until(query, PATIENCE, || {
        std::fs::write(file, targets(kube).to_string())?;
        let found = prometheus.query(query)?;
        anyhow::ensure!(found.len() == wanted, "{found:?}");
        Ok(())
    });
}

/// A cluster, and a Prometheus that sees it; the file says where the pods are.
fn begun(file: &Path) -> (Kube, Prometheus) {
    let kube = Kube::connect(NAMESPACE, NAME);
    let listeners = "  listeners: [{name: out, type: NodePort, port: 9094}]\n";
    kube.apply(&(manifest(NAME, 3) + listeners));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    kube.wait_condition("Cluster", NAME, "ListenersReady", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    kube.apply(FULL);
    kube.ready_topic("safe", 6);
    kube.apply(&topic_manifest("alone", NAME, 6, 1));
    kube.wait_condition("Topic", "alone", "Ready", "True");
    let prometheus = Prometheus::start(scrape(file));
    let up =
        |cluster| format!("up{{namespace=\"{NAMESPACE}\",leasehold_cluster=\"{cluster}\"}} == 1");
    see(&kube, &prometheus, file, &up(NAME), 3);
    see(&kube, &prometheus, file, &up("full"), 1);
    see(&kube, &prometheus, file, ACTING, 1);
    (kube, prometheus)
}

/// What fires for the cluster that this is about, or for the operator.
fn alarms(prometheus: &Prometheus) -> Vec<Json> {
    let mut firing = prometheus.firing().expect("alerts");
    firing.retain(|labels| {
        labels["alertname"] == "LeaseholdOperatorAbsent"
            || (labels["namespace"] == NAMESPACE && labels["leasehold_cluster"] == NAME)
    });
    firing
}

#[test]
fn every_panel_of_the_dashboard_shows_something_and_every_alert_fires_under_its_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("targets.json");
    let (kube, prometheus) = begun(&file);
    for (title, queries) in panels() {
        for query in queries {
            let query = query
                .replace("$namespace", NAMESPACE)
                .replace("$cluster", NAME)
                .replace("$__rate_interval", "10s");
            wait::until(&format!("{title}: {query}"), PATIENCE, || {
                let found = prometheus.query(&query)?;
                anyhow::ensure!(!found.is_empty(), "no data");
                Ok(())
            });
        }
    }
    wait::until("nothing to fire", PATIENCE, || match alarms(&prometheus) {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
    let main = [("namespace", NAMESPACE), ("leasehold_cluster", NAME)];
    let full = [("namespace", NAMESPACE), ("leasehold_cluster", "full")];
    prometheus.wait("LeaseholdDiskNearlyFull", &full, true);

    // Nobody says how clients come through the load balancer, and then somebody does.
    prometheus.wait("LeaseholdListenerUnaddressed", &full, true);
    let services = kube.api::<Service>();
    let given = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.18.200.9"}]}}});
    let (how, given) = (PatchParams::default(), Patch::Merge(&given));
    kube.block_on(services.patch_status("full-broker-0-lb", &how, &given))
        .expect("the load balancer's status");
    prometheus.wait("LeaseholdListenerUnaddressed", &full, false);

    // Two of three brokers stand still.
    let controller = kube.controller().expect("a controller");
    let stopped: Vec<i32> = (0..3).filter(|broker| *broker != controller).collect();
    let signal = |what| stopped.iter().for_each(|broker| kube.signal(*broker, what));
    let effects = [
        "LeaseholdBrokersFenced",
        "LeaseholdPartitionsWithoutLeader",
        "LeaseholdPartitionsUnderMinIsr",
        "LeaseholdPartitionsUnderReplicated",
    ];
    signal(Signal::STOP);
    for alert in effects {
        prometheus.wait(alert, &main, true);
    }
    signal(Signal::CONT);
    for alert in effects {
        prometheus.wait(alert, &main, false);
    }

    // Nobody can hold the Lease.
    let outage = Outage::begin();
    prometheus.wait("LeaseholdNoController", &main, true);
    drop(outage);
    prometheus.wait("LeaseholdNoController", &main, false);

    // No operator.
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    let usual = kube.scale_operator(0);
    prometheus.wait("LeaseholdOperatorAbsent", &[], true);
    kube.scale_operator(usual);
    see(&kube, &prometheus, &file, ACTING, 1);
    prometheus.wait("LeaseholdOperatorAbsent", &[], false);

    // The head is put back to an older state, and claimed.
    let maps = kube.api::<ConfigMap>();
    let head = format!("{NAME}-metadata");
    let mut old = kube.block_on(maps.get(&head)).expect("the head");
    kube.ready_topic(&fresh("after-backup"), 1);
    kube.wait_metadata_everywhere();
    (old.metadata.resource_version, old.metadata.managed_fields) = (None, None);
    kube.block_on(maps.replace(&head, &PostParams::default(), &old))
        .expect("put the head back");
    kube.delete_lease();
    prometheus.wait("LeaseholdMetadataFrozen", &main, true);
    kube.remove_namespace();
}

#[test]
fn the_chart_gives_the_prometheus_operator_and_grafana_what_they_take() {
    let folder = tempfile::tempdir().expect("a folder");
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/leasehold");
    let wanted =
        ["podMonitor", "rules", "dashboard"].map(|what| format!("monitoring.{what}.enabled=true"));
    let output = folder.path().display().to_string();
    let set = wanted.join(",");
    helm(&[
        "template",
        "--kube-version",
        "1.33.0",
        "monitored",
        chart,
        "--set",
        &set,
        "--output-dir",
        &output,
    ]);
    let text = std::fs::read_to_string(folder.path().join("leasehold/templates/monitoring.yaml"))
        .expect("the chart's objects");
    let objects: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|object| serde::Deserialize::deserialize(object).expect("YAML"))
        .collect();
    let of = |kind: &str| {
        objects
            .iter()
            .filter(|o| o["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let rules: Value = serde_yaml::from_str(&chart_file("alerts.yaml")).expect("YAML");
    assert_eq!(of("PrometheusRule")[0]["spec"]["groups"], rules["groups"]);
    let board = of("ConfigMap")[0]["data"]["leasehold.json"]
        .as_str()
        .expect("a dashboard");
    let (here, there): (Json, Json) = (
        serde_json::from_str(board).expect("JSON"),
        serde_json::from_str(&chart_file("dashboard.json")).expect("JSON"),
    );
    assert_eq!(here, there);
    let selected: Vec<&Value> = of("PodMonitor")
        .iter()
        .map(|monitor| &monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"])
        .collect();
    assert_eq!(selected, ["leasehold", "leasehold-operator"]);
}
