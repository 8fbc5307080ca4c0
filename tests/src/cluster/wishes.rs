//! Clusters and Topics as scenes ask for them, and waiting until they are there.

use super::{Kube, PATIENCE};
use crate::wait;
use anyhow::{Context as _, bail};

/// A Cluster manifest of `replicas` brokers for the tests: small volumes, RF 3.
pub fn manifest(name: &str, replicas: i32) -> String {
    format!(
        "apiVersion: leasehold.dev/v1alpha1
kind: Cluster
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  storage: {{type: Persistent, size: 1Gi}}
  config:
    default.replication.factor: 3
    min.insync.replicas: 2
    group.initial.rebalance.delay.ms: 0
"
    )
}

/// A name that no earlier run over the same cluster has used.
pub fn fresh(name: &str) -> String {
    format!("{name}-{:x}", rand::random::<u32>())
}

/// A Topic manifest.
pub fn topic_manifest(name: &str, cluster: &str, partitions: i32, replication: i32) -> String {
    format!(
        "apiVersion: leasehold.dev/v1alpha1
kind: Topic
metadata: {{name: {name}}}
spec: {{cluster: {cluster}, partitions: {partitions}, replicationFactor: {replication}}}
"
    )
}

impl Kube {
    /// Namespace `namespace` with a ready Cluster of `replicas` brokers in it.
    pub fn with_cluster(namespace: &str, name: &str, replicas: i32) -> Self {
        let kube = Self::connect(namespace, name);
        kube.apply(&manifest(name, replicas));
        kube.wait_condition("Cluster", name, "Ready", "True");
        (0..replicas).for_each(|broker| kube.wait_name(broker));
        kube
    }

    /// Applies a Topic and waits until it is ready and fully in sync.
    pub fn ready_topic(&self, name: &str, partitions: i32) {
        self.apply(&topic_manifest(name, &self.name, partitions, 3));
        self.wait_condition("Topic", name, "Ready", "True");
        self.wait_whole(name);
    }

    /// Waits until every partition of a Topic has a leader and all replicas in sync, by its status.
    pub fn wait_whole(&self, topic: &str) -> Vec<leasehold_crds::PartitionState> {
        wait::until(
            &format!("every replica of {topic} in sync"),
            PATIENCE,
            || {
                let states = self.states(topic)?;
                let whole = |p: &leasehold_crds::PartitionState| {
                    p.leader.is_some() && p.isr.len() == p.replicas.len()
                };
                if states.is_empty() || !states.iter().all(whole) {
                    bail!("{states:?}");
                }
                anyhow::Ok(states)
            },
        )
    }

    /// The partitions as the Topic's status tells them.
    pub fn states(&self, topic: &str) -> anyhow::Result<Vec<leasehold_crds::PartitionState>> {
        Ok(self
            .topic(topic)?
            .status
            .context("no status")?
            .partition_states)
    }

    /// Waits until every partition of a Topic is led by another broker than `gone`.
    pub fn wait_led(&self, topic: &str, gone: i32) -> Vec<leasehold_crds::PartitionState> {
        let what = format!("leaders of {topic} other than {gone}");
        wait::until(&what, PATIENCE, || {
            let states = self.states(topic)?;
            let led = |p: &leasehold_crds::PartitionState| p.leader.is_some_and(|l| l != gone);
            anyhow::ensure!(states.iter().all(led), "{states:?}");
            Ok(states)
        })
    }
}
