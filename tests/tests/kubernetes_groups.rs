//! A consumer group on a real cluster loses the pod of its coordinator, gracefully and not, and goes
//! on from what it committed: nothing is skipped, and nothing that was committed is read again.

use leasehold_tests::cluster::{Kube, PATIENCE, fresh};
use leasehold_tests::load::Load;
use leasehold_tests::{readback, wait, wire};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 6;
const NAMESPACE: &str = "failover";

/// One member of the group, which commits what it has read.
struct Member {
    consumer: BaseConsumer,
    topic: String,
    /// Per partition: the offset that must come next, unless it was not read yet.
    next: BTreeMap<i32, i64>,
    /// Per partition: what the coordinator said is committed.
    committed: BTreeMap<i32, i64>,
}

impl Member {
    fn join(bootstrap: &str, topic: &str, group: &str, committed: BTreeMap<i32, i64>) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("librdkafka accepts the configuration");
        consumer.subscribe(&[topic]).expect("subscribe");
        Self {
            consumer,
            topic: topic.to_owned(),
            next: committed.clone(),
            committed,
        }
    }

    /// Reads what there is within `time`; panics if a record is skipped or one that was committed comes
    /// again. Gives how many were read.
    fn read(&mut self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < end {
            let Some(Ok(message)) = self.consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let (partition, offset) = (message.partition(), message.offset());
            let expected = self.next.get(&partition).copied().unwrap_or(0);
            let committed = self.committed.get(&partition).copied().unwrap_or(0);
            assert!(
                offset >= committed,
                "{partition}: {offset} is read again although {committed} was committed"
            );
            assert!(
                offset <= expected,
                "{partition}: {offset} comes where {expected} was due"
            );
            self.next.insert(partition, offset + 1);
            count += 1;
        }
        count
    }

    /// Commits everything that was read. `false`: the coordinator could not be reached or has moved.
    fn commit(&mut self) -> bool {
        let mut list = TopicPartitionList::new();
        for (partition, next) in &self.next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*next))
                .expect("a valid offset");
        }
        let done = self.consumer.commit(&list, CommitMode::Sync).is_ok();
        if done {
            self.committed = self.next.clone();
        }
        done
    }

    /// Reads and commits until a commit made after now succeeded and every partition was read from.
    fn go_on(&mut self) {
        wait::until("records and a commit", PATIENCE, || {
            let count = self.read(Duration::from_millis(300));
            match self.commit() {
                true if count > 0 && self.next.len() == PARTITIONS as usize => Ok(()),
                done => Err(format!("{count} records, committed {done}")),
            }
        });
    }
}

#[test]
fn a_group_whose_coordinators_pod_dies_goes_on_from_its_committed_offsets() {
    let kube = Kube::with_cluster(NAMESPACE, "chaos", 3);
    let (topic, group) = (fresh("grouped"), fresh("group"));
    kube.ready_topic(&topic, PARTITIONS);
    let load = Load::start(&kube.bootstrap(), &topic, PARTITIONS, 300, &[]);
    load.wait_flowing(PATIENCE);
    let mut member = Member::join(&kube.bootstrap(), &topic, &group, BTreeMap::new());
    member.go_on();
    for forced in [false, true, false, true] {
        let victim = kube
            .block_on(wire::coordinator(&kube.bootstrap(), &group))
            .expect("a coordinator");
        let uid = kube.pod(victim).expect("pod").metadata.uid.expect("uid");
        let struck = Instant::now();
        kube.delete_pod(victim, forced);
        member.go_on();
        println!(
            "coordinator {victim} deleted ({}): the group read and committed again {:.1?} later",
            if forced { "forced" } else { "gracefully" },
            struck.elapsed()
        );
        kube.wait_replaced(victim, &uid);
        kube.wait_name(victim);
        kube.wait_whole(&topic);
    }
    let committed = member.committed.clone();
    drop(member);
    // Another member starts where the commits stand, not where the first happened to be.
    let mut heir = Member::join(&kube.bootstrap(), &topic, &group, committed.clone());
    wait::until("every partition to be read on", PATIENCE, || {
        heir.go_on();
        let waits = |(partition, from): &(&i32, &i64)| heir.next[*partition] <= **from;
        match committed.iter().find(waits) {
            Some(partition) => Err(format!("{partition:?}")),
            None => Ok(()),
        }
    });
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
}
