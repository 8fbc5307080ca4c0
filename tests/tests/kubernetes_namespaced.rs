//! The chart's namespaced mode: an operator whose rights end at its namespace, with nothing of its own
//! that is cluster-scoped but the definitions, and clusters that work like others.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use leasehold_tests::cluster::{Kube, PATIENCE, helm, kubectl, manifest, run_script};
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait};

const NAMESPACE: &str = "confined";
const RELEASE: &str = "confined";

/// The release that looks after all namespaces is away while this lives: two operators on one object
/// would undo each other's work.
struct OnlyNamespaced;

impl OnlyNamespaced {
    fn install(image: &str) -> Self {
        let away = Self;
        helm(&[
            "uninstall",
            "leasehold",
            "--namespace",
            "leasehold-system",
            "--wait",
        ]);
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/leasehold");
        let (repository, tag) = image.rsplit_once(':').expect("an image with a tag");
        helm(&[
            "upgrade",
            "--install",
            RELEASE,
            chart,
            "--namespace",
            NAMESPACE,
            "--set",
            "namespaced=true,crds.install=false,operator.replicas=1,image.pullPolicy=IfNotPresent",
            "--set-string",
            &format!("image.repository={repository},image.tag={tag}"),
            "--wait",
        ]);
        away
    }
}

impl Drop for OnlyNamespaced {
    fn drop(&mut self) {
        helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]);
        run_script("install", &[]);
    }
}

fn image(kube: &Kube) -> String {
    let operators: Api<Deployment> = Api::namespaced(kube.client(), "leasehold-system");
    let operator = kube
        .block_on(operators.get("leasehold-operator"))
        .expect("the operator's deployment");
    let pod = operator.spec.and_then(|s| s.template.spec).expect("a pod");
    pod.containers[0].image.clone().expect("an image")
}

#[test]
fn an_operator_of_one_namespace_has_rights_in_no_other_and_its_clusters_serve() {
    let kube = Kube::connect(NAMESPACE, "main");
    let only = OnlyNamespaced::install(&image(&kube));
    let elsewhere = Kube::connect("unwatched", "other");
    elsewhere.apply(&manifest("other", 1));

    // What the release is made of, as the API server sees it.
    let release = |kinds: &str| {
        let label = format!("app.kubernetes.io/instance={RELEASE}");
        kubectl(NAMESPACE, &["get", kinds, "-l", &label, "-o", "name"])
    };
    let own = release("roles,rolebindings,serviceaccounts,deployments");
    assert_eq!(own.lines().count(), 4, "{own}");
    let cluster_scoped = release(
        "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings",
    );
    assert_eq!(cluster_scoped, "", "nothing cluster-scoped");
    let account = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}-leasehold-operator");
    let may = |namespace: &str| {
        let asked = ["auth", "can-i", "create", "configmaps", "--as", &account];
        kubectl(namespace, &asked).trim().to_owned()
    };
    assert_eq!(
        (may(NAMESPACE).as_str(), may("unwatched").as_str()),
        ("yes", "no")
    );

    kube.apply(&manifest("main", 3));
    kube.wait_condition("Cluster", "main", "Ready", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    kube.ready_topic("here", 3);
    let load = Load::start(&kube.bootstrap(), "here", 3, 300, &[]);
    load.wait_flowing(PATIENCE);
    let leader = kube.states("here").expect("status")[0]
        .leader
        .expect("a leader");
    kube.delete_pod(leader, false);
    kube.wait_led("here", leader);
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), "here", &history);

    // By now the operator has looked at its own namespace's objects many times.
    let other = elsewhere.cluster().expect("the object");
    assert!(other.status.is_none(), "{:?}", other.status);
    drop(only);
    // The operator of all namespaces looks after both from now on.
    wait::until("the other cluster to be looked after", PATIENCE, || {
        let status = elsewhere.cluster()?.status;
        anyhow::ensure!(status.is_some(), "no status");
        Ok(())
    });
    kube.wait_condition("Cluster", "main", "Ready", "True");
    kube.remove_namespace();
    elsewhere.remove_namespace();
}
