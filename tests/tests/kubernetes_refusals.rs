//! What must not be is refused with a reason at the door: wishes by the definitions' own rules, a broker's writes
//! beside its own metadata by RBAC and the admission policy, values of the chart by its schema.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use leasehold_tests::cluster::{Kube, manifest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::process::Command;

const NAMESPACE: &str = "refusals";
/// Of the objects that the tests make themselves.
const MARK: &str = "leasehold.dev/cluster";

fn object<K: DeserializeOwned>(name: &str, cluster: Option<&str>) -> K {
    let labels = cluster.map_or_else(|| json!({}), |cluster| json!({MARK: cluster}));
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))
        .expect("an object")
}

/// The reason for which the API server refused, which must be this code.
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>, code: u16) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == code => status.message,
        other => panic!("not refused with {code}: {other:?}"),
    }
}

#[test]
fn a_broker_writes_its_own_clusters_metadata_and_nothing_else() {
    let kube = Kube::with_cluster(NAMESPACE, "guarded", 1);
    let account = format!("system:serviceaccount:{NAMESPACE}:guarded-leasehold-broker");
    let broker = kube.acting_as(&account);
    let (all, maps): (Api<ConfigMap>, Api<ConfigMap>) =
        (kube.api(), Api::namespaced(broker.clone(), NAMESPACE));
    let leases: Api<Lease> = Api::namespaced(broker.clone(), NAMESPACE);
    let make = PostParams::default();
    let create = |map: &ConfigMap| kube.block_on(maps.create(&make, map));
    let remove = |name: &str| kube.block_on(maps.delete(name, &DeleteParams::default()));

    // A chunk of its own comes and goes.
    create(&object("guarded-metadata-0-test", Some("guarded"))).expect("its own chunk");
    remove("guarded-metadata-0-test").expect("its own chunk");

    // Neither another's name, nor another's label, nor none.
    let own_objects_only = "a broker of cluster guarded may";
    for (name, label) in [
        ("stranger", Some("guarded")),
        ("other-metadata-0-test", Some("guarded")),
        ("guarded-metadata-0-test", Some("other")),
        ("guarded-metadata-0-test", None),
        // The head is the operator's to make.
        ("guarded-metadata", Some("guarded")),
    ] {
        let why = refusal(create(&object(name, label)), 403);
        println!("create {name}, label {label:?}: {why}");
        assert!(why.contains(own_objects_only), "{why}");
    }
    kube.block_on(all.create(&make, &object("belongs-to-the-user", None)))
        .expect("the user's own");
    let why = refusal(remove("belongs-to-the-user"), 403);
    assert!(why.contains(own_objects_only), "{why}");
    let lease = kube.block_on(leases.create(&make, &object("else", Some("guarded"))));
    let why = refusal(lease, 403);
    assert!(why.contains("guarded-controller, but not else"), "{why}");

    // What can be limited by name, RBAC limits.
    kube.block_on(all.create(&make, &object("other-metadata", Some("other"))))
        .expect("a head of another cluster");
    let change = Patch::Merge(json!({"data": {"controllerEpoch": "9"}}));
    let how = PatchParams::default();
    refusal(
        kube.block_on(maps.patch("other-metadata", &how, &change)),
        403,
    );
    let secrets: Api<Secret> = Api::namespaced(broker, NAMESPACE);
    refusal(kube.block_on(secrets.list(&Default::default())), 403);
    kube.remove_namespace();
}

#[test]
fn a_wish_that_cannot_be_is_refused_by_its_definition_with_the_way_out() {
    let kube = Kube::connect("wishes", "main");
    let cluster = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut object: Value = serde_yaml::from_str(&manifest(name, 1)).expect("yaml");
        change(&mut object["spec"]);
        object.to_string()
    };
    let refused = |object: &str, why: &str| {
        let error = kube.try_apply(object).expect_err(why);
        let text = format!("{error:#}");
        println!("{text}");
        assert!(text.contains(why), "{text}");
    };
    refused(
        &cluster("1st", &|_| ()),
        "beginning with a letter and without dots",
    );
    refused(
        &cluster("main", &|spec| {
            spec["terminationGracePeriodSeconds"] = 30.into()
        }),
        "set terminationGracePeriodSeconds to 60 or more",
    );
    refused(
        &cluster("main", &|spec| {
            spec["storage"] = json!({"type": "Persistent"})
        }),
        "storage.size is needed, such as 100Gi",
    );
    refused(
        &cluster("main", &|spec| spec["storage"]["size"] = "plenty".into()),
        "storage.size must be a quantity above zero",
    );
    refused(
        &cluster("main", &|spec| spec["clusterDomain"] = "-".into()),
        "clusterDomain must be a DNS name such as cluster.local",
    );
    refused(
        &cluster("main", &|spec| spec["replicas"] = (-1).into()),
        "spec.replicas",
    );
    // What only the operator can judge is told in a condition, and mended by the next wish.
    kube.apply(&cluster("odd", &|spec| {
        spec["config"]["num.partition"] = 3.into();
    }));
    let told = kube.wait_condition("Cluster", "odd", "Ready", "False");
    let told = told["status"]["conditions"].to_string();
    println!("{told}");
    assert!(told.contains("num.partition"), "{told}");
    kube.apply(&cluster("odd", &|_| ()));
    kube.wait_condition("Cluster", "odd", "Ready", "True");
    // What stands and would lose data by the change.
    kube.apply(&cluster("main", &|spec| spec["replicas"] = 0.into()));
    refused(
        &cluster("main", &|spec| spec["storage"]["size"] = "1Mi".into()),
        "storage.size can only grow",
    );
    refused(
        &cluster("main", &|spec| {
            spec["storage"] = json!({"type": "Ephemeral"})
        }),
        "storage.type cannot be changed",
    );
    let topic = |cluster: &str| {
        let spec = json!({"cluster": cluster, "partitions": 1, "replicationFactor": 1});
        let api = "leasehold.dev/v1alpha1";
        json!({"apiVersion": api, "kind": "Topic", "metadata": {"name": "t"}, "spec": spec})
            .to_string()
    };
    kube.apply(&topic("main"));
    refused(&topic("other"), "a topic does not move between clusters");
    kube.remove_namespace();
}

#[test]
fn the_chart_refuses_values_that_mean_nothing_and_its_default_image_is_its_own_version() {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/leasehold");
    let template = |values: &[&str]| {
        let mut helm = Command::new("helm");
        helm.args(["template", "leasehold", chart, "--kube-version", "1.34.0"]);
        for value in values {
            helm.args(["--set", value]);
        }
        let output = helm.output().expect("helm starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(error)
        }
    };
    for (value, named) in [
        ("operator.replicas=many", "replicas"),
        ("operator.replica=3", "replica"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("namespaced=perhaps", "namespaced"),
        ("monitoring.rules.enabled=2", "enabled"),
    ] {
        let error = template(&[value]).expect_err(value);
        assert!(error.contains(named), "{value}: {error}");
    }
    let image = format!("image: \"leasehold:{}\"", env!("CARGO_PKG_VERSION"));
    let whole = template(&[]).expect("the defaults are valid");
    assert!(
        whole.contains(&image) || whole.contains(&image.replace('"', "")),
        "no {image} in {whole}"
    );
}
