//! Volumes that are to grow, and volumes that are gone: claims grow without a restart; a lost volume is told, and
//! replaced where the user wants that; nothing acknowledged is lost.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use leasehold_crds::Cluster;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, kubectl, manifest, run_script};
use leasehold_tests::conditions::condition;
use leasehold_tests::load::Load;
use leasehold_tests::topics::Viewer;
use leasehold_tests::{readback, wait};
use serde_json::{Value, json};

const NAME: &str = "main";
const STORAGE: &str = "StorageReady";

/// The cluster's own provisioner under a class that lets claims grow; it does not do it, see [`grow_by_hand`].
const GROWING: &str = "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: growing}
provisioner: rancher.io/local-path
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
";

fn claim(kube: &Kube, broker: i32) -> anyhow::Result<PersistentVolumeClaim> {
    let name = format!("data-{}", kube.pod_name(broker));
    Ok(kube.block_on(kube.api().get(&name))?)
}

fn asked(claim: &PersistentVolumeClaim) -> Option<String> {
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    Some(resources.requests.as_ref()?.get("storage")?.0.clone())
}

fn set(kube: &Kube) -> StatefulSet {
    kube.block_on(kube.api().get(&format!("{NAME}-broker")))
        .expect("the StatefulSet")
}

fn set_storage(kube: &Kube, storage: &Value) -> kube::Result<Cluster> {
    let patch = Patch::Merge(json!({"spec": {"storage": storage}}));
    kube.block_on(
        kube.api::<Cluster>()
            .patch(NAME, &PatchParams::default(), &patch),
    )
}

/// What a storage driver that can resize does: the volume gets its size, and the claim tells so.
fn grow_by_hand(kube: &Kube, broker: i32, size: &str) {
    let claim = claim(kube, broker).expect("the claim");
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
    let volumes: Api<PersistentVolume> = Api::all(kube.client());
    let (how, capacity) = (
        PatchParams::default(),
        json!({"capacity": {"storage": size}}),
    );
    let patch = Patch::Merge(json!({"spec": capacity}));
    kube.block_on(volumes.patch(&volume.expect("a volume"), &how, &patch))
        .expect("patch the volume");
    let patch = Patch::Merge(json!({"status": capacity}));
    let claims = kube.api::<PersistentVolumeClaim>();
    kube.block_on(claims.patch_status(&claim.name_any(), &how, &patch))
        .expect("patch the claim's status");
}

fn load(kube: &Kube) -> (String, Load) {
    let topic = fresh("stored");
    kube.ready_topic(&topic, 6);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &[]);
    load.wait_flowing(PATIENCE);
    (topic, load)
}

/// Stops the load, and finds all that it was told in place.
fn check(kube: &Kube, topic: &str, load: Load) {
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), topic, &history);
    println!("{} acknowledged records read back", history.acked_total());
}

/// The volume of `claim` is gone for good; gives what people are told of that.
fn lose(kube: &Kube, claim: &PersistentVolumeClaim) -> String {
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
    let volume = volume.expect("a volume");
    kube.delete_volume(&volume);
    let volumes: Api<PersistentVolume> = Api::all(kube.client());
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    kube.block_on(volumes.patch(&volume, &PatchParams::default(), &patch))
        .expect("take its guards away");
    let told = kube.wait_reason("Cluster", NAME, STORAGE, "False", "VolumeLost");
    condition(&told, STORAGE).1
}

#[test]
fn volumes_grow_under_running_pods_and_those_of_brokers_to_come_are_as_large() {
    let kube = Kube::connect("growing", NAME);
    kube.apply(GROWING);
    let class = |class: &str| format!("size: 1Gi, storageClassName: {class}");
    kube.apply(&manifest(NAME, 3).replace("size: 1Gi", &class("growing")));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    kube.wait_reason("Cluster", NAME, STORAGE, "True", "Ready");
    let (topic, load) = load(&kube);
    let (pods, old) = (kube.restarts(), set(&kube).uid());

    set_storage(&kube, &json!({"size": "2Gi"})).expect("more");
    let told = kube.wait_reason("Cluster", NAME, STORAGE, "False", "Growing");
    println!("growing: {}", condition(&told, STORAGE).1);
    for broker in 0..3 {
        wait::until("the claim to ask for more", PATIENCE, || {
            let asked = asked(&claim(&kube, broker)?);
            anyhow::ensure!(asked.as_deref() == Some("2Gi"), "{asked:?}");
            Ok(())
        });
        grow_by_hand(&kube, broker, "2Gi");
    }
    kube.wait_reason("Cluster", NAME, STORAGE, "True", "Ready");
    wait::until("another StatefulSet", PATIENCE, || {
        let all = kube.block_on(kube.api::<StatefulSet>().list(&Default::default()))?;
        let uids: Vec<_> = all.items.iter().map(|set| set.uid()).collect();
        anyhow::ensure!(uids.len() == 1 && uids[0] != old, "{uids:?}");
        Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    load.wait_flowing(PATIENCE);
    assert_eq!(pods, kube.restarts(), "no pod was restarted or replaced");

    let refused = set_storage(&kube, &json!({"size": "1Gi"})).expect_err("it is refused");
    assert!(refused.to_string().contains("can only grow"), "{refused}");
    let patch = Patch::Merge(json!({"spec": {"replicas": 4}}));
    kube.block_on(
        kube.api::<Cluster>()
            .patch(NAME, &PatchParams::default(), &patch),
    )
    .expect("scale");
    let size = wait::until("the new broker's claim", PATIENCE, || {
        asked(&claim(&kube, 3)?).ok_or_else(|| anyhow::anyhow!("no size"))
    });
    assert_eq!(size, "2Gi");
    kube.wait_name(3);
    check(&kube, &topic, load);

    // A class that does not let claims grow.
    let fixed = Kube::connect("growing", "fixed");
    fixed.apply(&manifest("fixed", 1));
    fixed.wait_condition("Cluster", "fixed", "Ready", "True");
    fixed.apply(&manifest("fixed", 1).replace("size: 1Gi", "size: 2Gi"));
    let told = fixed.wait_reason("Cluster", "fixed", STORAGE, "False", "CannotGrow");
    println!("refused: {}", condition(&told, STORAGE).1);
    assert!(
        condition(&told, STORAGE)
            .1
            .contains("data-fixed-broker-0 cannot grow to 2Gi")
    );
    fixed.wait_condition("Cluster", "fixed", "Ready", "True");
    kube.remove_namespace();
}

/// How many partitions' folders lie on each of a broker's two volumes.
fn spread(kube: &Kube, broker: i32) -> anyhow::Result<[usize; 2]> {
    let pod = kube.pod_name(broker);
    let count = |folder: &str| {
        // A partition's folder ends with its number, behind the topic's id.
        let script = format!("ls -d {folder}/*-[0-9]* 2>/dev/null | wc -l");
        let told = kubectl(&kube.namespace, &["exec", &pod, "--", "sh", "-c", &script]);
        told.trim()
            .parse::<usize>()
            .with_context(|| format!("{pod}: {told:?}"))
    };
    Ok([count("/var/lib/leasehold")?, count("/var/lib/leasehold-1")?])
}

fn wait_spread(kube: &Kube, broker: i32, expected: [usize; 2]) {
    let what = format!("the partitions of broker {broker} to lie on {expected:?} of its volumes");
    wait::until(&what, PATIENCE, || {
        let found = spread(kube, broker)?;
        anyhow::ensure!(found == expected, "{found:?}");
        Ok(())
    });
}

#[test]
fn several_volumes_share_what_a_broker_holds_and_one_that_is_lost_takes_only_its_own() {
    let kube = Kube::connect("several", NAME);
    let with = |storage: &str| manifest(NAME, 3).replace("size: 1Gi", storage);
    for (wrong, why) in [
        ("size: 1Gi, volumes: 9", "should be less than or equal to 8"),
        (
            "size: 1Gi, volumes: 0",
            "should be greater than or equal to 1",
        ),
    ] {
        let refused = kube.try_apply(&with(wrong)).expect_err("refused");
        let refused = format!("{refused:#}");
        assert!(refused.contains(why), "{refused}");
    }
    kube.apply(&with("size: 1Gi, volumes: 2, onLoss: Replace"));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    kube.wait_reason("Cluster", NAME, STORAGE, "True", "Ready");
    let refused = set_storage(&kube, &json!({"volumes": 3})).expect_err("it is refused");
    assert!(
        refused.to_string().contains("cannot be changed"),
        "{refused}"
    );

    // Six partitions on each of three brokers: three on each of its volumes.
    let (topic, load) = load(&kube);
    (0..3).for_each(|broker| wait_spread(&kube, broker, [3, 3]));

    // The second volume of broker 1 is gone for good; the first stays.
    let second = || -> anyhow::Result<PersistentVolumeClaim> {
        let name = format!("data-1-{}", kube.pod_name(1));
        Ok(kube.block_on(kube.api().get(&name))?)
    };
    let (first, old) = (
        claim(&kube, 1).expect("a claim"),
        second().expect("a claim"),
    );
    let told = lose(&kube, &old);
    assert!(
        told.contains("the volume of data-1-main-broker-1 is gone"),
        "{told}"
    );
    kube.delete_pod(1, true);
    wait::until("another claim of the second volume", PATIENCE, || {
        let now = second()?;
        anyhow::ensure!(now.uid() != old.uid(), "{:?}", now.status);
        Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    kube.wait_name(1);
    Viewer::new(&kube.bootstrap()).wait_in_sync(&topic, PATIENCE);
    kube.wait_reason("Cluster", NAME, STORAGE, "True", "Ready");
    let kept = claim(&kube, 1).expect("a claim");
    assert_eq!(kept.uid(), first.uid(), "the first volume is the same");
    let now = spread(&kube, 1).expect("folders");
    assert_eq!(now[0] + now[1], 6, "{now:?}");
    println!("after the loss: {now:?}");
    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);

    // Made again over the same volumes: with fewer of them it is refused, with all of them everything is there.
    let clusters = kube.api::<Cluster>();
    kube.block_on(clusters.delete(NAME, &DeleteParams::default()))
        .expect("delete the Cluster");
    wait::until("the brokers to be gone", PATIENCE, || {
        let left = kube.restarts();
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(())
    });
    kube.apply(&with("size: 1Gi"));
    let told = kube.wait_reason("Cluster", NAME, "Accepted", "False", "InvalidSpec");
    let told = condition(&told, "Accepted").1;
    assert!(
        told.contains("data-1-main-broker") && told.contains("set it to 2"),
        "{told}"
    );
    assert!(kube.restarts().is_empty(), "no broker was made");
    kube.block_on(clusters.delete(NAME, &DeleteParams::default()))
        .expect("delete the Cluster");
    kube.apply(&with("size: 1Gi, volumes: 2"));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    (0..3).for_each(|broker| kube.wait_name(broker));
    readback::check(&kube.bootstrap(), &topic, &history);
    println!("{} acknowledged records read back", history.acked_total());
    kube.remove_namespace();
}

#[test]
fn a_lost_volume_is_told_with_the_way_out_and_replaced_where_that_is_wished() {
    let kube = Kube::with_cluster("losing", NAME, 3);
    let (topic, load) = load(&kube);
    let old = claim(&kube, 1).expect("the claim");
    let told = lose(&kube, &old);
    println!("held: {told}");
    assert!(told.contains("kubectl -n losing delete pvc data-main-broker-1"));
    let pod = kube.pod(1).expect("the pod").uid().expect("uid");
    kube.delete_pod(1, true);
    load.wait_flowing(PATIENCE);
    wait::until("a pod without its volume", PATIENCE, || {
        let now = kube.pod(1)?;
        let phase = now.status.as_ref().and_then(|s| s.phase.clone());
        let waits = now.uid().as_ref() != Some(&pod) && phase.as_deref() == Some("Pending");
        anyhow::ensure!(waits, "{phase:?}");
        Ok(())
    });
    assert_eq!(claim(&kube, 1).expect("the claim").uid(), old.uid(), "held");

    set_storage(&kube, &json!({"onLoss": "Replace"})).expect("a wish");
    replaced(&kube, 1, &old);
    kube.wait_name(1);
    Viewer::new(&kube.bootstrap()).wait_in_sync(&topic, PATIENCE);
    kube.wait_reason("Cluster", NAME, STORAGE, "True", "Ready");
    check(&kube, &topic, load);

    // A node is gone for good, and with it the volume that could be used there only.
    let (topic, load) = self::load(&kube);
    let (old, node) = (claim(&kube, 2).expect("the claim"), kube.node(2));
    let gone = Gone::take(&kube, &node);
    replaced(&kube, 2, &old);
    Viewer::new(&kube.bootstrap()).wait_in_sync(&topic, PATIENCE);
    assert_ne!(kube.node(2), node, "it serves elsewhere");
    drop(gone);
    (0..3).for_each(|broker| kube.wait_name(broker));
    check(&kube, &topic, load);
    kube.remove_namespace();
}

fn replaced(kube: &Kube, broker: i32, old: &PersistentVolumeClaim) {
    wait::until("another claim", PATIENCE, || {
        let now = claim(kube, broker)?;
        anyhow::ensure!(now.uid() != old.uid(), "{:?}", now.status);
        Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Ready", "True");
}

/// A node that is no more, until this is dropped.
struct Gone(String);

impl Gone {
    fn take(kube: &Kube, node: &str) -> Self {
        let number = node.trim_start_matches("node").to_owned();
        run_script("node", &["stop", &number]);
        let gone = Self(number);
        let nodes: Api<Node> = Api::all(kube.client());
        kube.block_on(nodes.delete(node, &DeleteParams::default()))
            .expect("delete the node");
        gone
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        run_script("node", &["start", &self.0]);
    }
}
