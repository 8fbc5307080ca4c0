//! What others do to a topic that an object wishes: edits and a deletion through Kafka's own tools are
//! shown and left, or undone; and of two objects for one topic, one speaks and the other inherits.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use leasehold_crds::Topic;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, topic_manifest};
use leasehold_tests::conditions::condition;
use leasehold_tests::topics::Viewer;
use leasehold_tests::{tools, wait};
use serde_json::json;

// The cluster of kubernetes_operator.
const NAMESPACE: &str = "operated";
const NAME: &str = "main";

fn wished(kube: &Kube, name: &str) -> String {
    let plain = topic_manifest(name, &kube.name, 2, 3);
    plain.replace("spec: {", "spec: {config: {retention.ms: 3600000}, ")
}

fn set_drift(kube: &Kube, name: &str, policy: &str) {
    let patch = Patch::Merge(json!({"spec": {"drift": policy}}));
    kube.block_on(
        kube.api::<Topic>()
            .patch(name, &PatchParams::default(), &patch),
    )
    .expect("patch");
}

fn configs(kube: &Kube, topic: &str, args: &[&str]) -> String {
    let bootstrap = kube.bootstrap();
    let mut all = vec!["--bootstrap-server", &bootstrap];
    all.extend(["--entity-type", "topics", "--entity-name", topic]);
    all.extend(args);
    tools::run(tools::kafka("kafka-configs", &all), b"").expect_ok()
}

fn wait_config(kube: &Kube, topic: &str, wanted: &str) {
    wait::until(&format!("{topic} to have {wanted}"), PATIENCE, || {
        let all = configs(kube, topic, &["--describe"]);
        anyhow::ensure!(all.contains(wanted), "{all}");
        anyhow::Ok(())
    });
}

#[test]
fn an_edit_and_a_deletion_by_a_client_are_shown_or_undone() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let topic = fresh("drifts");
    kube.apply(&wished(&kube, &topic));
    kube.wait_condition("Topic", &topic, "Ready", "True");
    kube.wait_whole(&topic);
    wait::until("the fulfilled wish to be remembered", PATIENCE, || {
        let status = kube.topic(&topic)?.status.unwrap_or_default();
        anyhow::ensure!(status.fulfilled.is_some(), "{status:?}");
        anyhow::Ok(())
    });
    configs(
        &kube,
        &topic,
        &["--alter", "--add-config", "retention.ms=9000"],
    );
    kube.wait_reason("Topic", &topic, "Ready", "True", "Drifted");
    let object = kube.wait_reason("Topic", &topic, "Drifted", "True", "Edited");
    println!("edited: {:?}", condition(&object, "Drifted"));
    assert!(
        condition(&object, "Drifted")
            .1
            .contains("retention.ms: 9000, not 3600000")
    );
    wait_config(&kube, &topic, "retention.ms=9000");
    set_drift(&kube, &topic, "Revert");
    kube.wait_condition("Topic", &topic, "Drifted", "False");
    wait_config(&kube, &topic, "retention.ms=3600000");
    configs(
        &kube,
        &topic,
        &["--alter", "--delete-config", "retention.ms"],
    );
    wait_config(&kube, &topic, "retention.ms=3600000");
    kube.wait_condition("Topic", &topic, "Drifted", "False");

    set_drift(&kube, &topic, "Report");
    kube.wait_condition("Topic", &topic, "Ready", "True");
    let bootstrap = kube.bootstrap();
    let delete = [
        "--bootstrap-server",
        &bootstrap,
        "--delete",
        "--topic",
        &topic,
    ];
    tools::run(tools::kafka("kafka-topics", &delete), b"").expect_ok();
    let object = kube.wait_reason("Topic", &topic, "Drifted", "True", "Deleted");
    println!("deleted: {:?}", condition(&object, "Drifted"));
    kube.wait_condition("Topic", &topic, "Ready", "False");
    assert!(Viewer::new(&bootstrap).partitions(&topic).is_err());
    set_drift(&kube, &topic, "Revert");
    kube.wait_condition("Topic", &topic, "Ready", "True");
    kube.wait_condition("Topic", &topic, "Drifted", "False");
    wait_config(&kube, &topic, "retention.ms=3600000");

    let events = kube.api::<k8s_openapi::api::events::v1::Event>();
    wait::until("Events of the drift and its end", PATIENCE, || {
        let all = kube.block_on(events.list(&ListParams::default()))?.items;
        for reason in ["Drifted", "DriftOver"] {
            let about = |e: &k8s_openapi::api::events::v1::Event| {
                e.reason.as_deref() == Some(reason)
                    && e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(topic.as_str())
            };
            anyhow::ensure!(all.iter().any(about), "no {reason}");
        }
        anyhow::Ok(())
    });
}

#[test]
fn of_two_objects_for_one_topic_the_elder_speaks_and_the_other_inherits_it() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (elder, heir) = (fresh("elder"), fresh("heir"));
    kube.ready_topic(&elder, 2);
    let id = |name: &str| kube.topic(name).expect("topic").status?.topic_id;
    let before = id(&elder);
    assert!(before.is_some());
    // Creation times are full seconds, and among those of one the uid decides.
    let made = kube.topic(&elder).expect("topic").metadata;
    let made = made.creation_timestamp.expect("a time").0;
    wait::until("the next second", PATIENCE, || {
        let ahead = k8s_openapi::jiff::Timestamp::now().as_second() - made.as_second();
        (ahead > 0).then_some(()).ok_or(ahead)
    });
    let named = format!("spec: {{topicName: {elder}, ");
    kube.apply(&topic_manifest(&heir, NAME, 2, 3).replace("spec: {", &named));
    let object = kube.wait_reason("Topic", &heir, "Ready", "False", "Duplicate");
    println!("second: {:?}", condition(&object, "Ready"));
    let topics = kube.api::<Topic>();
    kube.block_on(topics.delete(&elder, &DeleteParams::default()))
        .expect("delete");
    kube.wait_condition("Topic", &heir, "Ready", "True");
    assert_eq!(id(&heir), before, "the very topic, with its records");
    kube.block_on(topics.delete(&heir, &DeleteParams::default()))
        .expect("delete");
}
