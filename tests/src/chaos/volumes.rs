//! Volumes that can be filled: each broker's claim is bound to a small disk in its node's memory.

use crate::cluster::{Kube, run_script};

/// Also the name of their class, for which there is no provisioner.
pub const CLASS: &str = "small-disks";
/// Room for some minutes of load, and little enough to have it thrice in memory.
const MEGABYTES: &str = "320";

/// The disk of a broker, as `tests/kubernetes/volume` knows it.
pub fn name(broker: i32) -> String {
    format!("{CLASS}-{broker}")
}

/// Makes the volumes of the first `brokers` brokers, one on each node, empty.
pub fn make(kube: &Kube, brokers: i32) {
    for broker in 0..brokers {
        let disk = name(broker);
        let path = run_script("volume", &["make", &disk, MEGABYTES]);
        let (namespace, cluster) = (&kube.namespace, &kube.name);
        kube.apply(&format!(
            "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {disk}}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: {CLASS}
  claimRef: {{namespace: {namespace}, name: data-{cluster}-broker-{broker}}}
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [node{node}]}}]
",
            node = broker + 1
        ));
    }
}

/// Forgets them; nobody may use them any more.
pub fn remove(kube: &Kube, brokers: i32) {
    for broker in 0..brokers {
        kube.delete_volume(&name(broker));
        run_script("volume", &["remove", &name(broker)]);
    }
}
