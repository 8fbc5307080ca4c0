//! Restarts of a cluster's brokers, as its users and administrators meet them: a change of the configuration or of
//! the resources, a wish, an image that does not exist, a node that is drained. What happened is taken from
//! the pods' own events, not from what the operator says it did.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event as News;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, EvictParams, Patch, PatchParams};
use leasehold_crds::Cluster;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, kubectl, manifest, topic_manifest};
use leasehold_tests::load::Load;
use leasehold_tests::pods::Witness;
use leasehold_tests::witness as machine;
use leasehold_tests::{readback, tools, wait};
use serde_json::json;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "rolling";
const NAME: &str = "main";
const BROKERS: i32 = 3;
/// The longest time in which one partition may acknowledge nothing while brokers restart in order: the client
/// repeats what was refused after 100 ms, and connects anew after as much as a second.
const LIMIT: Duration = Duration::from_secs(3);

/// The brokers that went away since `mark`, in order. Fails if one went while another was away.
fn one_by_one(witness: &Witness, mark: usize) -> Vec<i32> {
    let alone = |(broker, away): (i32, Vec<i32>)| {
        assert_eq!(away, [broker], "one at a time, but {:?}", witness.log());
        broker
    };
    witness.restarted(mark).into_iter().map(alone).collect()
}

/// The cluster as it always is at the beginning, with `more` lines of its spec.
fn spec(more: &str) -> String {
    manifest(NAME, BROKERS) + "  rolling: {settleSeconds: 1}\n" + more
}

fn uids(kube: &Kube) -> Vec<String> {
    let all = (0..BROKERS).map(|broker| uid(kube, broker));
    let all: anyhow::Result<Vec<String>> = all.collect();
    all.expect("every pod is there")
}

fn uid(kube: &Kube, broker: i32) -> anyhow::Result<String> {
    kube.pod(broker)?.metadata.uid.context("a uid")
}

/// Waits until the roll that began after `old` were the pods' uids is over.
fn wait_rolled(kube: &Kube, replaced: &[i32], old: &[String]) {
    wait::until(&format!("{replaced:?} to be replaced"), PATIENCE, || {
        for broker in replaced {
            let now = uid(kube, *broker)?;
            anyhow::ensure!(now != old[*broker as usize], "{broker} is not");
        }
        anyhow::Ok(())
    });
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    kube.wait_condition("Cluster", NAME, "Ready", "True");
}

fn condition(kube: &Kube, kind: &str) -> (String, String) {
    let status = kube.cluster().expect("the Cluster").status;
    let conditions = status.map(|s| s.conditions).unwrap_or_default();
    let found = conditions.into_iter().find(|c| c.type_ == kind);
    found.map_or_else(Default::default, |c| (c.reason, c.message))
}

fn annotate<K>(api: &Api<K>, name: &str, key: &str, value: Option<&str>, kube: &Kube)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = json!({"metadata": {"annotations": {key: value}}});
    kube.block_on(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)))
        .expect("annotate");
}

/// A ready cluster as the scene before left it; a new one if there is none.
fn standing() -> Kube {
    let kube = Kube::connect(NAMESPACE, NAME);
    if kube.cluster().is_err() {
        kube.apply(&spec(""));
    }
    whole(&kube);
    kube
}

fn whole(kube: &Kube) {
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    (0..BROKERS).for_each(|broker| kube.wait_name(broker));
}

/// A ready cluster of one specification, whatever an earlier run left.
fn cluster() -> Kube {
    let kube = Kube::connect(NAMESPACE, NAME);
    kube.apply(&spec(""));
    whole(&kube);
    kube
}

#[test]
fn changes_roll_every_broker_once_the_controller_last_and_lose_nothing() {
    let kube = cluster();
    let topic = fresh("rolled");
    kube.ready_topic(&topic, 6);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &[]);
    load.wait_flowing(PATIENCE);
    let witness = Witness::start(&kube, BROKERS);
    let machine = machine::Witness::start();

    // Paused, nothing happens, whatever changes.
    let (clusters, old) = (kube.api::<Cluster>(), uids(&kube));
    annotate(&clusters, NAME, "leasehold.dev/paused", Some("true"), &kube);
    let configured = "    num.partitions: 4\n";
    let changed = manifest(NAME, BROKERS) + configured + "  rolling: {settleSeconds: 5}\n";
    kube.apply(&changed);
    kube.wait_condition("Cluster", NAME, "Paused", "True");
    load.wait_flowing(PATIENCE);
    assert_eq!(uids(&kube), old, "a paused cluster is left alone");

    let resources = "  resources: {requests: {cpu: 10m}}\n";
    for (what, wish) in [
        ("configuration", changed.clone()),
        ("resources", changed + resources),
    ] {
        let (mark, old, controller) = (
            witness.mark(),
            uids(&kube),
            kube.controller().expect("a controller"),
        );
        let begun = Instant::now();
        kube.apply(&wish);
        annotate(&clusters, NAME, "leasehold.dev/paused", None, &kube);
        wait_rolled(&kube, &[0, 1, 2], &old);
        let order = one_by_one(&witness, mark);
        assert_eq!(order.len(), 3, "each once: {order:?}");
        assert_eq!(order[2], controller, "the controller last: {order:?}");
        load.wait_flowing(PATIENCE);
        let gap = load.peek(|history| history.longest_gap(begun, Instant::now()));
        let took = begun.elapsed();
        println!(
            "{what}: {order:?} in {took:.1?}, longest gap {:.1?} (partition {})",
            gap.length(),
            gap.partition
        );
        let gap = gap.of_the_software(&machine);
        assert!(gap < LIMIT, "{what}: {gap:?} without an acknowledgement");
    }
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
    println!("{} records read back", history.acked_total());
    let status = kube.cluster().expect("the Cluster").status;
    assert_eq!(status.map(|s| s.updated_replicas), Some(BROKERS));
}

#[test]
fn defaults_of_topics_change_while_brokers_run_and_no_later_controller_undoes_that() {
    let kube = cluster();
    let topic = fresh("defaults");
    kube.ready_topic(&topic, 1);
    let retention = |wanted: &str| {
        let wanted = format!("retention.ms={wanted} ");
        wait::until(&wanted, PATIENCE, || {
            let bootstrap = kube.bootstrap();
            let asked = [
                "--bootstrap-server",
                &bootstrap,
                "--describe",
                "--all",
                "--topic",
                &topic,
            ];
            let told = tools::run(tools::kafka("kafka-configs", &asked), b"").expect_ok();
            anyhow::ensure!(told.contains(&wanted), "{told}");
            anyhow::Ok(())
        });
    };
    let old = uids(&kube);
    kube.apply(
        &(manifest(NAME, BROKERS)
            + "    log.retention.ms: 123456\n  rolling: {settleSeconds: 1}\n"),
    );
    retention("123456");
    wait::until("an Event that tells", PATIENCE, || {
        let news = kube.block_on(kube.api::<News>().list(&Default::default()))?;
        let tells = |event: &News| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("Configured") && note.contains("retention.ms=123456")
        };
        anyhow::ensure!(news.items.iter().any(tells), "none");
        anyhow::Ok(())
    });
    // The next controller started with a file that says otherwise.
    let controller = kube.controller().expect("a controller");
    kube.delete_pod(controller, true);
    wait::until("another controller", PATIENCE, || {
        let now = kube.controller()?;
        anyhow::ensure!(now != controller, "still {now}");
        anyhow::Ok(())
    });
    retention("123456");
    whole(&kube);
    kube.apply(&spec(""));
    retention("604800000");
    let now = uids(&kube);
    let kept = (0..BROKERS).filter(|id| *id != controller);
    for broker in kept {
        assert_eq!(
            now[broker as usize], old[broker as usize],
            "{broker} was restarted"
        );
    }
}

#[test]
fn sleep_is_refused_where_it_would_lose_everything() {
    let kube = Kube::connect(NAMESPACE, NAME);
    let asleep = |storage: &str| {
        format!(
            "apiVersion: leasehold.dev/v1alpha1
kind: Cluster
metadata: {{name: asleep}}
spec: {{replicas: 0, storage: {storage}}}
"
        )
    };
    let refused = kube.try_apply(&asleep("{type: Ephemeral}"));
    let why = format!("{:#}", refused.expect_err("it is refused"));
    assert!(why.contains("every record would be lost"), "{why}");
}

#[test]
fn an_image_that_does_not_exist_costs_one_broker_says_why_and_is_mended() {
    let kube = cluster();
    let topic = fresh("stuck");
    kube.ready_topic(&topic, 3);
    let load = Load::start(&kube.bootstrap(), &topic, 3, 100, &[]);
    load.wait_flowing(PATIENCE);
    let old = uids(&kube);
    kube.apply(&spec(
        "  image: localhost/no-such-image:1\n  imagePullPolicy: Never\n",
    ));
    let reason = wait::until("the roll to be stuck", PATIENCE, || {
        let (reason, message) = condition(&kube, "Rolling");
        anyhow::ensure!(reason == "Stuck", "{reason}: {message}");
        anyhow::Ok(message)
    });
    println!("{reason}");
    assert!(reason.contains("ErrImageNeverPull"), "{reason}");
    load.wait_flowing(PATIENCE);
    let now = uids(&kube);
    let hit: Vec<usize> = (0..3)
        .filter(|broker| now[*broker] != old[*broker])
        .collect();
    assert_eq!(hit.len(), 1, "one broker is away: {hit:?}");
    assert!(reason.contains(&kube.pod_name(hit[0] as i32)), "{reason}");
    wait::until("an Event that tells", PATIENCE, || {
        let news = kube.block_on(kube.api::<News>().list(&Default::default()))?;
        let tells = |event: &News| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("Stuck") && note.contains("ErrImageNeverPull")
        };
        anyhow::ensure!(news.items.iter().any(tells), "none");
        anyhow::Ok(())
    });
    kube.apply(&spec(""));
    wait_rolled(&kube, &[hit[0] as i32], &now);
    let mended = uids(&kube);
    let touched: Vec<usize> = (0..3)
        .filter(|broker| mended[*broker] != now[*broker])
        .collect();
    assert_eq!(touched, hit, "the others never were of that image");
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
}

#[test]
fn one_broker_or_all_restart_when_they_are_asked_to() {
    let kube = standing();
    kube.ready_topic(&fresh("asked"), 3);
    let witness = Witness::start(&kube, BROKERS);
    let (mark, old) = (witness.mark(), uids(&kube));
    let pods = kube.api::<Pod>();
    annotate(
        &pods,
        &kube.pod_name(1),
        "leasehold.dev/restart",
        Some("please"),
        &kube,
    );
    wait_rolled(&kube, &[1], &old);
    assert_eq!(one_by_one(&witness, mark), [1]);
    let (mark, old) = (witness.mark(), uids(&kube));
    let clusters = kube.api::<Cluster>();
    annotate(&clusters, NAME, "leasehold.dev/restart", Some("all"), &kube);
    wait_rolled(&kube, &[0, 1, 2], &old);
    let mut order = one_by_one(&witness, mark);
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2]);
    let left = kube.cluster().expect("the Cluster").metadata.annotations;
    let left = left.unwrap_or_default();
    assert!(!left.contains_key("leasehold.dev/restart"), "{left:?}");
}

#[test]
fn evictions_and_drains_take_one_broker_at_a_time_and_none_that_is_needed() {
    let kube = standing();
    let topic = fresh("kept");
    kube.ready_topic(&topic, 3);
    let load = Load::start(&kube.bootstrap(), &topic, 3, 100, &[]);
    load.wait_flowing(PATIENCE);
    wait_budget(&kube, 1);
    // While a partition has no other replica, nobody may be evicted.
    let single = fresh("single");
    kube.apply(&topic_manifest(&single, NAME, 1, 1));
    wait_budget(&kube, 0);
    wait::until("the reason to be told", PATIENCE, || {
        let told = condition(&kube, "DisruptionAllowed").1;
        told.contains(&single).then_some(()).ok_or(told)
    });
    assert_eq!(evict(&kube, 0), 429);
    let topics = kube.api::<leasehold_crds::Topic>();
    kube.block_on(topics.delete(&single, &Default::default()))
        .expect("delete");
    wait_budget(&kube, 1);
    // Of two at once, one is refused; once the first is back, the second may go.
    let old = uids(&kube);
    assert_eq!(evict(&kube, 0), 0);
    assert_eq!(evict(&kube, 1), 429);
    kube.wait_replaced(0, &old[0]);
    wait::until("the second eviction", PATIENCE, || match evict(&kube, 1) {
        0 => Ok(()),
        code => Err(code),
    });
    kube.wait_replaced(1, &old[1]);
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    wait_budget(&kube, 1);
    // A node goes: its volume holds the broker there, and the others go on.
    let node = kube.node(2);
    let selector = format!("--pod-selector=leasehold.dev/cluster={NAME}");
    let begun = Instant::now();
    kubectl(NAMESPACE, &["drain", &node, &selector, "--timeout=120s"]);
    let away = wait::until("the drained broker to be away", PATIENCE, || {
        let pod = kube.pod(2)?;
        let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
        anyhow::ensure!(phase == "Pending", "{phase}");
        anyhow::Ok(begun.elapsed())
    });
    load.wait_flowing(PATIENCE);
    println!("drained in {away:.1?}");
    kubectl(NAMESPACE, &["uncordon", &node]);
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    wait_budget(&kube, 1);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
}

/// The API server's answer to an eviction: 0 for yes.
fn evict(kube: &Kube, broker: i32) -> u16 {
    let pods: Api<Pod> = Api::namespaced(kube.without_retries(), &kube.namespace);
    match kube.block_on(pods.evict(&kube.pod_name(broker), &EvictParams::default())) {
        Ok(_) => 0,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until the budget allows as many evictions.
fn wait_budget(kube: &Kube, allowed: i32) {
    let budgets = kube.api::<PodDisruptionBudget>();
    wait::until(&format!("a budget of {allowed}"), PATIENCE, || {
        let budget = kube.block_on(budgets.get(&format!("{NAME}-broker")))?;
        let generation = budget.metadata.generation;
        let status = budget.status.unwrap_or_default();
        let current = status.observed_generation == generation;
        anyhow::ensure!(
            current && status.disruptions_allowed == allowed,
            "{status:?}"
        );
        anyhow::Ok(())
    });
}
