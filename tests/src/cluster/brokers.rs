//! The pods of a cluster's brokers: their names, logs, nodes and processes, and how they are ended.

use super::{Kube, PATIENCE, run_script};
use crate::wait;
use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

/// CoreDNS lets its answers live for 5 s.
const NAMES_LIVE: Duration = Duration::from_secs(6);

impl Kube {
    /// A broker's pod name.
    pub fn pod_name(&self, broker: i32) -> String {
        format!("{}-broker-{broker}", self.name)
    }

    /// A broker's pod.
    pub fn pod(&self, broker: i32) -> anyhow::Result<Pod> {
        Ok(self.block_on(self.api::<Pod>().get(&self.pod_name(broker)))?)
    }

    /// Deletes a broker's pod; `forced` as `kubectl delete --force --grace-period=0` does.
    pub fn delete_pod(&self, broker: i32, forced: bool) {
        let mut how = DeleteParams::default();
        if forced {
            how = how.grace_period(0);
        }
        self.block_on(self.api::<Pod>().delete(&self.pod_name(broker), &how))
            .expect("delete the pod");
    }

    /// Waits until a pod of broker `broker` with another uid than `old` is ready.
    pub fn wait_replaced(&self, broker: i32, old: &str) {
        wait::until(&format!("a new pod of broker {broker}"), PATIENCE, || {
            let pod = self.pod(broker)?;
            let ready = pod
                .status
                .as_ref()
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
            if pod.metadata.uid.as_deref() == Some(old) || !ready {
                bail!("uid {:?}, ready {ready}", pod.metadata.uid);
            }
            anyhow::Ok(())
        });
    }

    /// Waits until the name of a broker resolves to its pod of now.
    pub fn wait_name(&self, broker: i32) {
        let what = format!("the name of broker {broker} to be the new pod's");
        wait::until(&what, PATIENCE, || self.name_is_right(broker));
    }

    /// Waits until it has done so for longer than an answer may be kept: then no resolver gives another.
    pub fn wait_name_settled(&self, broker: i32) {
        let what = format!("the name of broker {broker} to be the new pod's for every resolver");
        let mut since = None;
        wait::until(&what, PATIENCE, || {
            if let Err(error) = self.name_is_right(broker) {
                since = None;
                return Err(error);
            }
            let right = since.get_or_insert_with(Instant::now).elapsed();
            anyhow::ensure!(right > NAMES_LIVE, "right for {right:?}");
            Ok(())
        });
    }

    fn name_is_right(&self, broker: i32) -> anyhow::Result<()> {
        use std::net::ToSocketAddrs as _;
        let name = format!(
            "{}.{}-brokers.{}.svc.cluster.local:9092",
            self.pod_name(broker),
            self.name,
            self.namespace
        );
        let ip = self
            .pod(broker)?
            .status
            .and_then(|status| status.pod_ip)
            .context("no address")?;
        let found: Vec<String> = name
            .to_socket_addrs()?
            .map(|a| a.ip().to_string())
            .collect();
        anyhow::ensure!(found == [ip.clone()], "{name} is {found:?}, not {ip}");
        Ok(())
    }

    /// What a broker's container wrote in the last minutes, and what the one before it did.
    pub fn log(&self, broker: i32) -> String {
        let (pods, name) = (self.api::<Pod>(), self.pod_name(broker));
        let read = |previous: bool| {
            let how = kube::api::LogParams {
                previous,
                ..Default::default()
            };
            self.block_on(pods.logs(&name, &how))
        };
        // A kubelet has none of a container of whose start it has not heard yet.
        let now = wait::until(&format!("the log of {name}"), PATIENCE, || read(false));
        // There may be no previous one.
        read(true).unwrap_or_default() + &now
    }

    /// Waits until the first `brokers` brokers are registered with their nodes' zones as racks.
    pub fn wait_zones(&self, brokers: i32) {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        wait::until("every broker's rack to be its zone", PATIENCE, || {
            let racks = self.block_on(crate::wire::racks(&self.bootstrap()))?;
            for broker in 0..brokers {
                let spec = self.pod(broker)?.spec.context("a spec")?;
                let node = self.block_on(nodes.get(&spec.node_name.context("a node")?))?;
                let labels = node.metadata.labels.unwrap_or_default();
                let zone = labels.get("topology.kubernetes.io/zone").cloned();
                let rack = racks.get(&broker).cloned().flatten();
                anyhow::ensure!(
                    zone.is_some() && rack == zone,
                    "broker {broker} is in {zone:?}, its rack is {rack:?}"
                );
            }
            Ok(())
        });
    }

    /// The node that a broker's pod runs on.
    pub fn node(&self, broker: i32) -> String {
        let spec = self.pod(broker).expect("the pod").spec;
        spec.and_then(|spec| spec.node_name).expect("a node")
    }

    /// Names and restart counts of all broker pods.
    pub fn restarts(&self) -> Vec<(String, String, i32)> {
        let pods = self
            .block_on(self.api::<Pod>().list(&ListParams::default()))
            .expect("pods");
        let count = |pod: &Pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|s| s.container_statuses.as_ref());
            statuses.map_or(0, |all| all.iter().map(|s| s.restart_count).sum())
        };
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let mut all: Vec<_> = pods
            .items
            .iter()
            .map(|p| (name(p), uid(p), count(p)))
            .collect();
        all.sort();
        all
    }

    /// The process of a broker's container, as the node sees it.
    pub fn process(&self, broker: i32) -> Pid {
        let pid = run_script("pod-pid", &[&self.namespace, &self.pod_name(broker)]);
        Pid::from_raw(pid.parse().expect("a process id")).expect("not 0")
    }

    /// Sends a signal to a broker's process from its node.
    pub fn signal(&self, broker: i32, signal: Signal) {
        kill_process(self.process(broker), signal).expect("signal");
    }

    /// Waits until every broker has heard of the same state of the metadata.
    pub fn wait_metadata_everywhere(&self) {
        wait::until("all brokers to know the same metadata", PATIENCE, || {
            let mut positions = Vec::new();
            for broker in self.bootstrap().split(',') {
                let address: std::net::SocketAddr = broker.parse()?;
                let status = crate::http::get_json((address.ip(), 8080).into(), "/status")?;
                positions.push(["epoch", "claim_id", "seq"].map(|f| status["metadata"][f].clone()));
            }
            let first = positions.first();
            let same = positions.iter().all(|p| Some(p) == first);
            anyhow::ensure!(same && first.is_some(), "{positions:?}");
            Ok(())
        });
    }

    /// `bootstrap.servers` by the pods' addresses, which this machine can reach.
    pub fn bootstrap(&self) -> String {
        let labels = format!("leasehold.dev/cluster={}", self.name);
        let pods = self.block_on(
            self.api::<Pod>()
                .list(&ListParams::default().labels(&labels)),
        );
        let addresses: Vec<String> = pods
            .expect("pods")
            .items
            .iter()
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.clone())
            .map(|ip| format!("{ip}:9092"))
            .collect();
        addresses.join(",")
    }
}
