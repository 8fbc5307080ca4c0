//! `helm uninstall` takes the operator away and nothing else; installed again, it goes on.

use kube::ResourceExt as _;
use leasehold_crds::Topic;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, helm, run_script};
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait};

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
