//! Metadata lost or put back, and mended with one annotation: nothing acknowledged is lost, and clients
//! that need no change of metadata do not notice.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use leasehold_crds::{Cluster, RECOVER_ANNOTATION};
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest};
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait};
use serde_json::json;

const NAMESPACE: &str = "recovered";
const NAME: &str = "main";

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
    let patch = json!({"metadata": {"annotations": {RECOVER_ANNOTATION: wish}}});
    kube.block_on(kube.api::<Cluster>().patch_metadata(
        NAME,
        &PatchParams::default(),
        &Patch::Merge(&patch),
    ))
    .expect("annotate");
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

#[test]
fn lost_metadata_is_mended_from_the_brokers_copies() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let topic = fresh("precious");
    kube.ready_topic(&topic, 6);
    // All leaderships move at once here. A librdkafka that sends ahead then meets gaps, takes a new producer
    // epoch, and sends again what may have been stored (docs/limits.md): not what this is about.
    let one = [("max.in.flight", "1")];
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &one);
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
    let viewer = leasehold_tests::topics::Viewer::new(&kube.bootstrap());
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
