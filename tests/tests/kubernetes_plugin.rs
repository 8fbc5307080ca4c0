//! `kubectl leasehold`, started by kubectl as users start it: what it tells is true, what it asks for is done.

use kube::ResourceExt as _;
use leasehold_tests::cluster::{Kube, PATIENCE, fresh, kubeconfig, kubectl, topic_manifest};
use leasehold_tests::{dev, tools, wait};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::process::Command;

// The cluster of kubernetes_operator.
const NAMESPACE: &str = "operated";
const NAME: &str = "main";

/// The program lies beside the broker's.
fn run(args: &[&str]) -> tools::Output {
    let folder = dev::broker_binary().parent().expect("a folder").to_owned();
    let folder = std::path::absolute(folder).expect("a path");
    let path = std::env::var("PATH").expect("a PATH");
    let mut command = Command::new("kubectl");
    command
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("KUBECONFIG", kubeconfig())
        .arg("leasehold")
        .args(args)
        .args(["-n", NAMESPACE]);
    tools::run(command, b"")
}

fn told(args: &[&str]) -> String {
    let text = run(args).expect_ok();
    println!("$ kubectl leasehold {}\n{text}", args.join(" "));
    text
}

#[test]
fn it_tells_how_cluster_topic_and_controller_fare() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let topic = fresh("told");
    kube.ready_topic(&topic, 3);
    let text = told(&["status", NAME]);
    assert!(text.contains("3 serve of 3 wanted"), "{text}");
    for broker in 0..3 {
        assert!(text.contains(&kube.pod_name(broker)), "{text}");
        assert!(text.contains(&kube.node(broker)), "{text}");
    }
    // Leaders and the controller may change between what it tells and what is compared with it.
    wait::until("the topic as it is", PATIENCE, || {
        let text = told(&["topic", &topic]);
        for state in kube.wait_whole(&topic) {
            let leader = state.leader.expect("a leader").to_string();
            let row = |line: &&str| {
                let mut words = line.split_whitespace();
                words.next() == Some(&state.partition.to_string())
                    && words.next() == Some(&leader)
                    && words.next() == Some(&state.leader_epoch.to_string())
            };
            anyhow::ensure!(text.lines().any(|line| row(&line)), "{state:?}: {text}");
        }
        Ok(())
    });
    wait::until("the controller as it is", PATIENCE, || {
        let text = told(&["controller"]);
        let controller = kube.pod_name(kube.controller()?);
        let begun = format!("{controller} is controller of {NAME} since ");
        let epoch = format!("epoch {}", kube.controller_epoch()?);
        anyhow::ensure!(text.starts_with(&begun) && text.contains(&epoch), "{text}");
        Ok(())
    });
    let refused = run(&["status", "nobody"]);
    assert!(!refused.ok && refused.stderr.contains("no Cluster nobody"));
}

#[test]
fn what_it_asks_for_is_done() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    told(&["pause", NAME]);
    kube.wait_condition("Cluster", NAME, "Paused", "True");
    told(&["resume"]);
    wait::until("the operator to look after it again", PATIENCE, || {
        let cluster = kube.cluster()?;
        let left = cluster.annotations().contains_key("leasehold.dev/paused");
        let all = cluster.status.unwrap_or_default().conditions;
        let paused = all.iter().any(|c| c.type_ == "Paused");
        anyhow::ensure!(!left && !paused, "{all:?}");
        anyhow::Ok(())
    });
    let broker = (kube.controller().expect("a controller") + 1) % 3;
    let before = kube.pod(broker).expect("pod").uid().expect("uid");
    told(&["roll", &kube.pod_name(broker)]);
    kube.wait_replaced(broker, &before);
    kube.wait_condition("Cluster", NAME, "Ready", "True");
}

#[test]
fn a_drained_broker_leads_nothing_until_it_is_uncordoned() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (topic, meanwhile) = (fresh("drained"), fresh("meanwhile"));
    kube.ready_topic(&topic, 3);
    let leads = |broker| {
        let states = kube.states(&topic)?;
        anyhow::Ok(states.iter().any(|state| state.leader == Some(broker)))
    };
    wait::until("broker 1 to lead", PATIENCE, || {
        anyhow::ensure!(leads(1)?, "{:?}", kube.states(&topic)?);
        anyhow::Ok(())
    });
    told(&["drain", &kube.pod_name(1)]);
    kube.wait_reason("Cluster", NAME, "Maintenance", "True", "LeadsNothing");
    wait::until("broker 1 to lead nothing", PATIENCE, || {
        anyhow::ensure!(!leads(1)?, "{:?}", kube.states(&topic)?);
        let events = kubectl(NAMESPACE, &["get", "events"]);
        anyhow::ensure!(events.contains("LeadsNothing"), "{events}");
        anyhow::Ok(())
    });
    // Three brokers for three replicas: none may go.
    let states = kube.wait_whole(&topic);
    assert!(states.iter().all(|state| state.replicas.contains(&1)));
    kube.apply(&topic_manifest(&meanwhile, NAME, 3, 2));
    kube.wait_condition("Topic", &meanwhile, "Ready", "True");
    let states = kube.states(&meanwhile).expect("states");
    assert!(
        states.iter().all(|state| !state.replicas.contains(&1)),
        "{states:?}"
    );
    // What needs every one of its replicas would hold the restarts of other tests.
    kubectl(NAMESPACE, &["delete", "lt", &meanwhile, "--wait"]);
    told(&["uncordon", &kube.pod_name(1)]);
    wait::until("broker 1 to lead again", PATIENCE, || {
        let cluster = kube.cluster()?;
        let all = cluster.status.unwrap_or_default().conditions;
        anyhow::ensure!(all.iter().all(|c| c.type_ != "Maintenance"), "{all:?}");
        anyhow::ensure!(leads(1)?, "{:?}", kube.states(&topic)?);
        anyhow::Ok(())
    });
    let refused = run(&["drain", "leasehold-operator"]);
    assert!(!refused.ok, "{}", refused.stdout);
}

#[test]
fn it_tells_how_far_a_group_is_behind() {
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let (topic, group) = (fresh("behind"), fresh("readers"));
    kube.ready_topic(&topic, 1);
    let bootstrap = kube.bootstrap();
    let produce = ["-b", &bootstrap, "-P", "-t", &topic, "-p", "0"];
    tools::run(tools::kcat(&produce), b"a\nb\nc\nd\ne\n").expect_ok();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("group.id", &group)
        .create()
        .expect("a consumer");
    let mut read = TopicPartitionList::new();
    read.add_partition_offset(&topic, 0, Offset::Offset(2))
        .expect("an offset");
    wait::until("a commit", PATIENCE, || {
        consumer.commit(&read, CommitMode::Sync)
    });
    // High watermarks are told a moment after the acknowledgement to those who ask another broker.
    wait::until("the lag", PATIENCE, || {
        let text = told(&["lag", &group]);
        let mut lines = text
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>());
        let found = lines.any(|line| line == [&group, "Empty", &topic, "0", "2", "5", "3"]);
        anyhow::ensure!(found, "{text}");
        anyhow::Ok(())
    });
    assert!(told(&["lag"]).contains(&group));
    assert!(told(&["lag", "nobody"]).contains("a group nobody"));
}
