//! Topics that clients made show up as objects, which go when they go; an object that is edited, or that somebody
//! applies for such a topic, is a wish as any other.

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use leasehold_crds::{Cluster, Topic};
use leasehold_tests::cluster::{Kube, PATIENCE, fresh};
use leasehold_tests::topics::Viewer;
use leasehold_tests::{tools, wait};
use serde_json::{Value, json};

// The cluster of kubernetes_operator.
const NAMESPACE: &str = "operated";
const NAME: &str = "main";

fn by_client(kube: &Kube, what: &str, topic: &str, more: &[&str]) {
    let bootstrap = kube.bootstrap();
    let mut all = vec!["--bootstrap-server", &bootstrap, what, "--topic", topic];
    all.extend(more);
    tools::run(tools::kafka("kafka-topics", &all), b"").expect_ok();
}

/// The only object for a topic.
fn object(kube: &Kube, topic: &str) -> anyhow::Result<Topic> {
    let all = kube.block_on(kube.api::<Topic>().list(&ListParams::default()))?;
    let speaks = |object: &Topic| object.topic_name() == Some(topic);
    let mut found: Vec<Topic> = all.items.into_iter().filter(speaks).collect();
    ensure!(found.len() < 2, "{found:?}");
    found
        .pop()
        .with_context(|| format!("no object for {topic}"))
}

/// Waits until the topic has an object that only shows it, and that is ready.
fn shown(kube: &Kube, topic: &str) -> Topic {
    wait::until(&format!("an object that shows {topic}"), PATIENCE, || {
        let object = object(kube, topic)?;
        ensure!(object.is_found(), "{object:?}");
        let status = object.status.clone().unwrap_or_default();
        let ready = |c: &leasehold_crds::Condition| c.type_ == "Ready" && c.status == "True";
        ensure!(status.conditions.iter().any(ready), "{status:?}");
        anyhow::Ok(object)
    })
}

fn wait_gone(kube: &Kube, topic: &str) {
    wait::until(&format!("the object of {topic} to go"), PATIENCE, || {
        let left = object(kube, topic);
        left.map_or(Ok(()), |left| Err(format!("{:?}", left.spec)))
    });
}

fn delete(kube: &Kube, object: &str) {
    let topics = kube.api::<Topic>();
    kube.block_on(topics.delete(object, &DeleteParams::default()))
        .expect("delete");
}

fn patch<K>(kube: &Kube, name: &str, spec: Value)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let patch = Patch::Merge(json!({"spec": spec}));
    kube.block_on(kube.api::<K>().patch(name, &PatchParams::default(), &patch))
        .expect("patch");
}

#[test]
fn a_topic_of_a_client_has_an_object_as_long_as_it_exists() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let topic = fresh("Made_By.Client");
    by_client(&kube, "--create", &topic, &["--partitions", "4"]);
    let first = shown(&kube, &topic);
    println!("{} shows {topic}", first.name_any());
    let status = first.status.clone().expect("status");
    assert_eq!((status.partitions, status.replication_factor), (4, 3));
    // What another client changes is no drift: the object wishes for nothing.
    by_client(&kube, "--alter", &topic, &["--partitions", "6"]);
    wait::until("six partitions in the status", PATIENCE, || {
        let status = object(&kube, &topic)?.status.context("a status")?;
        ensure!(status.partitions == 6, "{status:?}");
        ensure!(status.conditions.iter().all(|c| c.type_ != "Drifted"));
        anyhow::Ok(())
    });
    // Without the object the topic stays, and is shown again.
    delete(&kube, &first.name_any());
    wait::until("another object", PATIENCE, || {
        let again = object(&kube, &topic)?;
        ensure!(again.uid() != first.uid(), "the first still");
        anyhow::Ok(())
    });
    let viewer = Viewer::new(&kube.bootstrap());
    assert_eq!(viewer.partitions(&topic).expect("the topic").len(), 6);
    by_client(&kube, "--delete", &topic, &[]);
    wait_gone(&kube, &topic);
    let events = kube.api::<k8s_openapi::api::events::v1::Event>();
    let events = kube.block_on(events.list(&ListParams::default()));
    let told = events.expect("events").items.into_iter().any(|event| {
        let note = event.note.unwrap_or_default();
        event.reason.as_deref() == Some("Found") && note.contains(&topic)
    });
    assert!(told, "no Event tells that {topic} was found");
}

#[test]
fn an_edited_one_is_a_wish_and_stays_when_its_topic_goes() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let topic = fresh("first-produce");
    let bootstrap = kube.bootstrap();
    let record = ["-b", &bootstrap, "-P", "-t", &topic];
    tools::run(tools::kcat(&record), b"a record\n").expect_ok();
    assert_eq!(shown(&kube, &topic).name_any(), topic);
    patch::<Topic>(&kube, &topic, json!({"partitions": 5, "drift": "Revert"}));
    let viewer = Viewer::new(&bootstrap);
    wait::until("five partitions", PATIENCE, || {
        let count = viewer.partitions(&topic)?.len();
        ensure!(count == 5, "{count}");
        anyhow::Ok(())
    });
    wait::until("the fulfilled wish to be remembered", PATIENCE, || {
        let status = kube.topic(&topic)?.status.context("a status")?;
        let generation = status.fulfilled.as_ref().map(|f| f.generation);
        ensure!(
            generation == kube.topic(&topic)?.metadata.generation,
            "{status:?}"
        );
        anyhow::Ok(())
    });
    // Reverted: made again by the object, which did not go with it.
    let id = |kube: &Kube| kube.topic(&topic).ok()?.status?.topic_id;
    let before = id(&kube).expect("an id");
    by_client(&kube, "--delete", &topic, &[]);
    wait::until("the topic again, with another id", PATIENCE, || {
        let now = id(&kube).context("no id")?;
        ensure!(now != before, "the first still");
        viewer.partitions(&topic).map(drop)
    });
    patch::<Topic>(&kube, &topic, json!({"reclaimPolicy": "Delete"}));
    delete(&kube, &topic);
    wait_gone(&kube, &topic);
}

#[test]
fn an_object_of_ones_own_takes_its_place_and_hidden_ones_go() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (topic, other) = (fresh("Claimed"), fresh("hidden"));
    by_client(&kube, "--create", &topic, &["--partitions", "2"]);
    by_client(&kube, "--create", &other, &["--partitions", "2"]);
    let shows = shown(&kube, &topic);
    let mine = fresh("mine");
    kube.apply(&format!(
        "{{apiVersion: leasehold.dev/v1alpha1, kind: Topic, metadata: {{name: {mine}}}, spec: {{cluster: {NAME}, topicName: {topic}, partitions: 3}}}}"
    ));
    kube.wait_condition("Topic", &mine, "Ready", "True");
    wait::until("one object only", PATIENCE, || {
        let left = object(&kube, &topic)?;
        ensure!(left.name_any() == mine && left.name_any() != shows.name_any());
        anyhow::Ok(())
    });
    let viewer = Viewer::new(&kube.bootstrap());
    assert_eq!(viewer.partitions(&topic).expect("the topic").len(), 3);
    // Its going deletes the topic, as its reclaimPolicy says, and nothing shows it then.
    delete(&kube, &mine);
    wait::until("the topic to go", PATIENCE, || {
        let left = viewer.partitions(&topic);
        left.map_or(Ok(()), |left| Err(format!("{left:?}")))
    });

    shown(&kube, &other);
    patch::<Cluster>(&kube, NAME, json!({"clientTopics": "Hide"}));
    wait_gone(&kube, &other);
    assert_eq!(viewer.partitions(&other).expect("the topic").len(), 2);
    patch::<Cluster>(&kube, NAME, json!({"clientTopics": "Show"}));
    shown(&kube, &other);
    by_client(&kube, "--delete", &other, &[]);
    wait_gone(&kube, &other);
    assert!(object(&kube, &topic).is_err(), "nothing shows what is gone");
}
