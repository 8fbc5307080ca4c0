//! What must not happen and does: metadata lost, or put back by a restore of etcd, and mended with one annotation;
//! a broker's volume lost. Nothing acknowledged is lost, and clients that need no change of metadata do not notice.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use leasehold_crds::{Cluster, RECOVER_ANNOTATION};
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest, run_script};
use leasehold_tests::load::Load;
use leasehold_tests::topics::Viewer;
use leasehold_tests::{readback, wait};
use serde_json::json;

const NAME: &str = "main";

/// All leaderships move at once when metadata is recovered. A librdkafka that sends ahead then meets gaps, takes a
/// new producer epoch, and sends again what may have been stored (docs/limits.md): not what this is about.
const ONE_AT_A_TIME: [(&str, &str); 1] = [("max.in.flight", "1")];

/// Waits until the Cluster is not ready for this reason; gives its message.
fn wait_reason(kube: &Kube, reason: &str) -> String {
    wait::until(&format!("Ready=False, {reason}"), PATIENCE, || {
        let status = kube.cluster()?.status.unwrap_or_default();
        let found = status.conditions.iter().find(|c| c.reason == reason);
        found
            .map(|c| c.message.clone())
            .ok_or_else(|| anyhow::anyhow!("{:?}", status.conditions))
    })
}

fn annotate(kube: &Kube, wish: &str) {
    ask(kube, &kube.api(), NAME, wish).expect("annotate");
}

/// Annotates one Cluster with what is wished for.
fn ask(kube: &Kube, clusters: &Api<Cluster>, name: &str, wish: &str) -> kube::Result<()> {
    let patch = json!({"metadata": {"annotations": {RECOVER_ANNOTATION: wish}}});
    let (how, patch) = (PatchParams::default(), Patch::Merge(&patch));
    kube.block_on(clusters.patch_metadata(name, &how, &patch))
        .map(drop)
}

/// Asks for a recovery once, and waits until it is over and the cluster well again, with a controller epoch
/// far above `before`. Gives the epoch.
fn recover(kube: &Kube, before: i64) -> i64 {
    annotate(kube, "newest");
    wait::until("the annotation to be taken off", PATIENCE, || {
        let cluster = kube.cluster()?;
        let left = cluster.metadata.annotations.unwrap_or_default();
        let status = cluster.status.unwrap_or_default();
        anyhow::ensure!(
            !left.contains_key(RECOVER_ANNOTATION),
            "{:?}",
            status.conditions
        );
        Ok(())
    });
    let epoch = wait::until("another claim", PATIENCE, || {
        let (epoch, holder) = (kube.controller_epoch()?, kube.controller()?);
        anyhow::ensure!(epoch > before + 1_024, "epoch {epoch}, holder {holder}");
        Ok(epoch)
    });
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    epoch
}

/// Whose controller had changed between the copy of etcd and the restore, is frozen too: recovers those clusters.
fn recover_others(kube: &Kube) {
    let ready = |cluster: &Cluster| {
        let conditions = cluster.status.clone().unwrap_or_default().conditions;
        conditions.into_iter().find(|c| c.type_ == "Ready")
    };
    for (api, cluster) in kube.other_clusters() {
        if ready(&cluster).is_none_or(|c| c.reason != "MetadataFrozen") {
            continue;
        }
        let name = cluster.metadata.name.expect("a name");
        println!("frozen as well: {:?}/{name}", cluster.metadata.namespace);
        ask(kube, &api, &name, "newest").expect("annotate");
        wait::until("the other cluster to be well again", PATIENCE, || {
            // Its scene is over, and it may be going.
            let Some(cluster) = kube.block_on(api.get_opt(&name))? else {
                return Ok(());
            };
            let condition = ready(&cluster);
            if condition
                .as_ref()
                .is_some_and(|c| c.message.contains("one line"))
            {
                ask(kube, &api, &name, "0")?;
            }
            let is_ready = condition.as_ref().is_some_and(|c| c.status == "True");
            anyhow::ensure!(is_ready, "{condition:?}");
            Ok(())
        });
    }
}

/// The head and all its chunks.
fn metadata(kube: &Kube) -> Vec<ConfigMap> {
    let label = format!("leasehold.dev/cluster={NAME}");
    let maps = kube.api::<ConfigMap>();
    let all = kube.block_on(maps.list(&ListParams::default().labels(&label)));
    let name = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
    let head = format!("{NAME}-metadata");
    let mut all = all.expect("config maps").items;
    all.retain(|map| name(map).starts_with(&head));
    all
}

/// Stops the load, and finds all that it was told in place.
fn check(kube: &Kube, topic: &str, load: Load) {
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), topic, &history);
    println!("{} acknowledged records read back", history.acked_total());
}

#[test]
fn a_broker_whose_volume_is_lost_is_rebuilt_from_the_others() {
    let kube = Kube::with_cluster("volume-lost", NAME, 3);
    let topic = fresh("kept");
    kube.ready_topic(&topic, 6);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &[]);
    load.wait_flowing(PATIENCE);
    let broker = 1;
    let claims = kube.api::<PersistentVolumeClaim>();
    let claim = format!("data-{NAME}-broker-{broker}");
    let uid = |claim: PersistentVolumeClaim| claim.metadata.uid.expect("uid");
    let old = uid(kube.block_on(claims.get(&claim)).expect("the claim"));
    let pod = kube.pod(broker).expect("pod").metadata.uid.expect("uid");
    // The claim goes once no pod uses it any more.
    kube.block_on(claims.delete(&claim, &DeleteParams::default()))
        .expect("delete the claim");
    kube.delete_pod(broker, true);
    kube.wait_replaced(broker, &pod);
    let new = uid(kube.block_on(claims.get(&claim)).expect("the claim"));
    assert_ne!(old, new, "the volume is another, and empty");
    kube.wait_name(broker);
    Viewer::new(&kube.bootstrap()).wait_in_sync(&topic, PATIENCE);
    // What the others hold now is on the new disk as well: it is enough by itself.
    load.wait_flowing(PATIENCE);
    check(&kube, &topic, load);
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    kube.remove_namespace();
}

#[test]
fn etcd_restored_from_an_older_copy_freezes_the_metadata_until_it_is_recovered() {
    let kube = Kube::with_cluster("restored", NAME, 3);
    let topic = fresh("precious");
    kube.ready_topic(&topic, 6);
    let copy = tempfile::tempdir().expect("a folder");
    let copy = copy.path().join("etcd").display().to_string();
    run_script("etcd", &["save", &copy]);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &ONE_AT_A_TIME);
    load.wait_flowing(PATIENCE);
    // What the copy does not know: a topic, and who controls.
    let later = fresh("later");
    kube.ready_topic(&later, 3);
    kube.delete_lease();
    let before = wait::until("another claim", PATIENCE, || {
        let (epoch, holder) = (kube.controller_epoch()?, kube.controller()?);
        anyhow::ensure!(epoch > 1, "epoch {epoch}, holder {holder}");
        Ok(epoch)
    });
    kube.wait_metadata_everywhere();
    run_script("etcd", &["restore", &copy]);
    // Who writes the head next finds it put back: whoever claims it. The same broker may have held the Lease in the
    // copy, and would have nothing to write.
    wait::until("the Lease to be deleted", PATIENCE, || {
        let leases = kube.api::<Lease>();
        let name = format!("{NAME}-controller");
        kube.block_on(leases.delete(&name, &DeleteParams::default()))
    });
    let why = wait_reason(&kube, "MetadataFrozen");
    println!("etcd restored: {why}");
    load.wait_flowing(PATIENCE);
    recover(&kube, before);
    let viewer = Viewer::new(&kube.bootstrap());
    viewer.wait_in_sync(&topic, PATIENCE);
    viewer.wait_in_sync(&later, PATIENCE);
    load.wait_flowing(PATIENCE);
    check(&kube, &topic, load);
    recover_others(&kube);
    kube.remove_namespace();
}

#[test]
fn lost_metadata_is_mended_from_the_brokers_copies() {
    let kube = Kube::with_cluster("recovered", NAME, 3);
    let topic = fresh("precious");
    kube.ready_topic(&topic, 6);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &ONE_AT_A_TIME);
    load.wait_flowing(PATIENCE);
    let maps = kube.api::<ConfigMap>();
    let head = format!("{NAME}-metadata");

    // 1. The head is deleted under load.
    let before = kube.controller_epoch().expect("epoch");
    kube.block_on(maps.delete(&head, &DeleteParams::default()))
        .expect("delete the head");
    let why = wait_reason(&kube, "MetadataLost");
    println!("head deleted: {why}");
    assert!(
        why.contains(RECOVER_ANNOTATION),
        "the way out is named: {why}"
    );
    load.wait_flowing(PATIENCE);
    let epoch = recover(&kube, before);
    load.wait_flowing(PATIENCE);
    let first = fresh("after-deletion");
    kube.ready_topic(&first, 3);

    // 2. The head is put back to an older state, as an etcd restore does.
    let backup = kube.block_on(maps.get(&head)).expect("the head");
    let second = fresh("after-backup");
    kube.ready_topic(&second, 3);
    // A broker that had not heard of it would follow the old head: then there are two lines, and a person must choose.
    kube.wait_metadata_everywhere();
    let mut restored = backup.clone();
    restored.metadata.resource_version = None;
    restored.metadata.managed_fields = None;
    kube.block_on(maps.replace(&head, &PostParams::default(), &restored))
        .expect("put the head back");
    // Whoever claims the old head finds that the brokers hold more.
    let controller = kube.controller().expect("a controller");
    kube.delete_pod(controller, true);
    let why = wait_reason(&kube, "MetadataFrozen");
    println!("head put back: {why}");
    assert!(
        why.contains(RECOVER_ANNOTATION),
        "the way out is named: {why}"
    );
    let again = recover(&kube, epoch);
    let viewer = Viewer::new(&kube.bootstrap());
    let topics = [&topic, &first, &second];
    for name in topics {
        viewer.wait_in_sync(name, PATIENCE);
    }
    (0..3).for_each(|broker| kube.wait_name(broker));
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);

    // 3. Every object is gone, and only the volumes are left.
    let clusters = kube.api::<Cluster>();
    kube.block_on(clusters.delete(NAME, &DeleteParams::default()))
        .expect("delete");
    wait::until("the pods to be gone", PATIENCE, || {
        let left = kube.block_on(kube.api::<Pod>().list(&Default::default()))?;
        anyhow::ensure!(left.items.is_empty(), "{} pods", left.items.len());
        anyhow::Ok(())
    });
    for map in metadata(&kube) {
        let name = map.metadata.name.expect("a name");
        kube.block_on(maps.delete(&name, &DeleteParams::default()))
            .expect("delete metadata");
    }
    kube.apply(&manifest(NAME, 3));
    let why = wait_reason(&kube, "MetadataLost");
    println!("only volumes left: {why}");
    recover(&kube, again);
    (0..3).for_each(|broker| kube.wait_name(broker));
    for name in topics {
        kube.wait_condition("Topic", name, "Ready", "True");
    }
    readback::check(&kube.bootstrap(), &topic, &history);
    kube.remove_namespace();
}
