//! What people get to read.

use super::*;
use serde::de::DeserializeOwned;
use serde_json::json;

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

#[test]
fn a_cluster_with_its_brokers_and_conditions() {
    let object: Cluster = read(
        "{apiVersion: leasehold.dev/v1alpha1, kind: Cluster, metadata: {name: demo}, spec: {replicas: 2, storage: {type: Ephemeral}}, status: {
          clusterId: abc, readyReplicas: 1, updatedReplicas: 2, controller: demo-broker-1, controllerEpoch: 7,
          topics: 3, partitions: 9, underReplicatedPartitions: 4, bootstrap: 'demo-bootstrap:9092',
          listeners: [{name: internal, type: Internal}, {name: out, type: NodePort, bootstrap: '192.0.2.1:30999'}],
          conditions: [{type: Ready, status: 'False', reason: BrokersMissing, message: 1 of 2 brokers serve, lastTransitionTime: '2026-01-01T11:58:30Z'}]}}",
    );
    let pod = |number: i32, ready: &str| -> Pod {
        read(&format!(
            "{{metadata: {{name: demo-broker-{number}, creationTimestamp: '2026-01-01T09:00:00Z', annotations: {{leasehold.dev/rack: west}}}},
              spec: {{nodeName: n{number}, containers: []}},
              status: {{conditions: [{{type: Ready, status: '{ready}'}}], containerStatuses: [{{name: broker, restartCount: 2, image: i, imageID: i, ready: true}}]}}}}"
        ))
    };
    let mut going = pod(10, "True");
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    let text = cluster(&object, &[going, pod(0, "False"), pod(1, "True")], now());
    let expected = "\
Cluster     demo (abc)
Brokers     1 serve of 2 wanted, 2 are up to date
Controller  demo-broker-1, epoch 7
Topics      3 with 9 partitions: 4 under-replicated, 0 offline
Bootstrap   demo-bootstrap:9092
Listener    out (NodePort): 192.0.2.1:30999

POD             READY  RESTARTS  ZONE  NODE  AGE   ROLE
demo-broker-0   no     2         west  n0    3h0m
demo-broker-1   yes    2         west  n1    3h0m  controller
demo-broker-10  going  2         west  n10   3h0m

CONDITION  STATUS  REASON          SINCE  MESSAGE
Ready      False   BrokersMissing  1m30s  1 of 2 brokers serve
";
    assert_eq!(text, expected);
}

#[test]
fn a_topic_partition_by_partition() {
    let object: Topic = read(
        "{apiVersion: leasehold.dev/v1alpha1, kind: Topic, metadata: {name: orders}, spec: {cluster: demo}, status: {
          topicName: Orders, topicId: xyz, partitions: 3, replicationFactor: 2, ledPartitions: 2, offlinePartitions: 1,
          conditions: [{type: Ready, status: 'True', reason: Drifted, message: 'partitions: 3, not 2', lastTransitionTime: '2026-01-01T11:58:30Z'}],
          partitionStates: [
            {partition: 0, leader: 1, leaderEpoch: 4, partitionEpoch: 9, replicas: [1, 0], isr: [1]},
            {partition: 1, leaderEpoch: 5, partitionEpoch: 9, replicas: [0, 1, 2], isr: [], elr: [0], adding: [2], removing: [1], recovering: true}]}}",
    );
    let expected = "\
Topic       Orders (xyz) of Cluster demo
Partitions  3, 2 replicas each: 2 led, 0 under-replicated, 1 offline
Ready       True, Drifted: partitions: 3, not 2

PARTITION  LEADER  LEADER-EPOCH  REPLICAS  ISR  ELR  MOVES
0          1       4             1,0       1    -    -
1          -       5             0,1,2     -    0    +2 -1 recovering
(the first 2 of 3)
";
    assert_eq!(topic(&object), expected);
}

fn lease(holder: &str, renewed: &str) -> LeaseSpec {
    read(&format!(
        "{{holderIdentity: '{holder}', leaseDurationSeconds: 4, leaseTransitions: 6,
          acquireTime: '2026-01-01T09:47:00.000000Z', renewTime: '2026-01-01T{renewed}.000000Z'}}"
    ))
}

fn head() -> BTreeMap<String, String> {
    let by = json!({"broker": 1, "incarnation": 77, "address": "10.0.0.1:9091"});
    let pairs = [
        (keys::CONTROLLER, by.to_string()),
        (keys::EPOCH, "7".into()),
        (keys::SEQ, "512".into()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

#[test]
fn who_is_controller_and_since_when() {
    let text = controller(
        "demo",
        Some(&lease("1/77", "11:59:59")),
        Some(&head()),
        now(),
    );
    let expected = "\
demo-broker-1 is controller of demo since 2026-01-01T09:47:00Z (2h13m), epoch 7
Lease  demo-controller: held by demo-broker-1 (run 77), renewed 1s ago, taken 6 times
Head   demo-metadata: claimed by demo-broker-1 (run 77) at 10.0.0.1:9091, epoch 7, write 512
";
    assert_eq!(text, expected);
}

#[test]
fn between_two_controllers_it_says_so() {
    let told = |lease: Option<LeaseSpec>, head: Option<BTreeMap<String, String>>| {
        let text = controller("demo", lease.as_ref(), head.as_ref(), now());
        text.lines().next().unwrap_or_default().to_owned()
    };
    let since = "since 2026-01-01T09:47:00Z (2h13m)";
    assert_eq!(
        told(Some(lease("1/77", "11:59:50")), Some(head())),
        format!("demo-broker-1 was controller of demo {since}, and has been silent for 10s")
    );
    for (holder, head) in [
        ("1/78", Some(head())),
        ("2/77", Some(head())),
        ("1/77", None),
    ] {
        let text = told(Some(lease(holder, "11:59:59")), head);
        assert!(text.ends_with("has not claimed the head yet"), "{text}");
    }
    let nobody = "Nobody is controller of demo: nobody holds the Lease";
    assert_eq!(told(Some(lease("", "11:59:59")), Some(head())), nobody);
    assert_eq!(told(None, None), nobody);
}
