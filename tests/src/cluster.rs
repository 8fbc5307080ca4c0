//! A real Kubernetes, as `tests/kubernetes/up` made it: its objects, its pods, and ways to hurt them.

use crate::wait;
use anyhow::{Context as _, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use leasehold_crds::{Cluster, Topic};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long pods, images and volumes may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// CoreDNS lets its answers live for 5 s.
const NAMES_LIVE: Duration = Duration::from_secs(6);

/// A namespace of one test with one `Cluster` in it. Everything in it goes when it is dropped.
pub struct Kube {
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
    /// The namespace.
    pub namespace: String,
    /// The cluster's name.
    pub name: String,
}

/// `tests/kubernetes/NAME`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("kubernetes")
        .join(name)
}

/// Of the administrator; `KUBECONFIG` names another.
pub fn kubeconfig() -> PathBuf {
    let own = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    own.unwrap_or_else(|| {
        let state = std::env::var("LEASEHOLD_STATE");
        let state = state.unwrap_or_else(|_| "/var/lib/leasehold-kubernetes".to_owned());
        Path::new(&state).join("admin.kubeconfig")
    })
}

/// Runs one of the scripts; panics with its output if it fails.
pub fn run_script(name: &str, args: &[&str]) -> String {
    let output = Command::new(script(name))
        .args(args)
        .output()
        .expect("the script starts");
    assert!(
        output.status.success(),
        "{name} {args:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Kube {
    /// Connects to namespace `namespace`, creating it, without applying anything.
    pub fn connect(namespace: &str, name: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let client = runtime.block_on(async {
            let file = kube::config::Kubeconfig::read_from(kubeconfig()).expect("kubeconfig");
            let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await;
            kube::Client::try_from(config.expect("config")).expect("client")
        });
        let kube = Self {
            runtime,
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        // One that an earlier run removed takes nothing new until it is gone.
        if kube.is_going() {
            kube.wait_removed();
        }
        kube.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}"
        ));
        kube
    }

    /// Applies one YAML document, as `kubectl apply --server-side` does.
    pub fn apply(&self, yaml: &str) {
        self.try_apply(yaml)
            .unwrap_or_else(|error| panic!("cannot apply {yaml}: {error:#}"));
    }

    /// As [`Kube::apply`], with the API server's refusal as the error.
    pub fn try_apply(&self, yaml: &str) -> anyhow::Result<()> {
        let object: DynamicObject = serde_yaml::from_str(yaml)?;
        let types = object.types.clone().context("apiVersion and kind")?;
        let kind = GroupVersionKind::try_from(&types)?;
        let resource = ApiResource::from_gvk(&kind);
        let outside =
            ["Namespace", "PersistentVolume", "StorageClass"].contains(&types.kind.as_str());
        let api: Api<DynamicObject> = if outside {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        };
        let name = object.metadata.name.clone().context("a name")?;
        let how = PatchParams::apply("tests").force();
        self.runtime
            .block_on(api.patch(&name, &how, &Patch::Apply(&object)))?;
        Ok(())
    }

    /// Runs a future on this connection's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A typed view of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Cluster objects of all other namespaces, each with a view of its own.
    pub fn other_clusters(&self) -> Vec<(Api<Cluster>, Cluster)> {
        let all: Api<Cluster> = Api::all(self.client.clone());
        let all = self.block_on(all.list(&Default::default()));
        let mut found = Vec::new();
        for cluster in all.expect("clusters").items {
            let namespace = cluster.metadata.namespace.clone().expect("a namespace");
            if namespace != self.namespace {
                found.push((Api::namespaced(self.client.clone(), &namespace), cluster));
            }
        }
        found
    }

    /// The cluster object.
    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(self.block_on(self.api::<Cluster>().get(&self.name))?)
    }

    /// A topic object.
    pub fn topic(&self, name: &str) -> anyhow::Result<Topic> {
        Ok(self.block_on(self.api::<Topic>().get(name))?)
    }

    /// Waits until an object's condition has this status; gives the object as JSON.
    pub fn wait_condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        status: &str,
    ) -> serde_json::Value {
        self.wait_reason(kind, name, condition, status, "")
    }

    /// The same, until its reason is `reason` too; an empty one stands for every reason.
    pub fn wait_reason(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        status: &str,
        reason: &str,
    ) -> serde_json::Value {
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk("leasehold.dev", "v1alpha1", kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        wait::until(
            &format!("{kind} {name} to be {condition}={status} {reason}"),
            PATIENCE,
            || {
                let object = self.block_on(api.get(name))?;
                let conditions = object.data["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let generation = object.metadata.generation;
                let found = conditions.iter().find(|c| c["type"] == condition);
                match found {
                    Some(c)
                        if c["status"] == status
                            && (reason.is_empty() || c["reason"] == reason)
                            && c["observedGeneration"].as_i64() == generation =>
                    {
                        Ok(serde_json::to_value(&object)?)
                    }
                    _ => bail!("generation {generation:?}, conditions {conditions:?}"),
                }
            },
        )
    }

    /// The head ConfigMap's epoch.
    pub fn controller_epoch(&self) -> anyhow::Result<i64> {
        let head = self.block_on(
            self.api::<ConfigMap>()
                .get(&format!("{}-metadata", self.name)),
        )?;
        let data = head.data.context("data")?;
        Ok(data
            .get("controllerEpoch")
            .context("controllerEpoch")?
            .parse()?)
    }

    /// The controller's broker id, from the Lease's holder.
    pub fn controller(&self) -> anyhow::Result<i32> {
        let lease = self.block_on(
            self.api::<Lease>()
                .get(&format!("{}-controller", self.name)),
        )?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .context("no holder")?;
        Ok(holder.split('/').next().context("an id")?.parse()?)
    }

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

    /// Has so many replicas of the operator run, and gives how many were wanted before. Waits only until there are
    /// none, if none are wanted.
    pub fn scale_operator(&self, replicas: i32) -> i32 {
        const NAME: &str = "leasehold-operator";
        let operators: Api<Deployment> = Api::namespaced(self.client.clone(), "leasehold-system");
        let before = self.block_on(operators.get(NAME)).expect("operator");
        let patch = Patch::Merge(serde_json::json!({"spec": {"replicas": replicas}}));
        self.block_on(operators.patch_scale(NAME, &PatchParams::default(), &patch))
            .expect("scale the operator");
        if replicas == 0 {
            wait::until("no operator", PATIENCE, || {
                let now = self.block_on(operators.get(NAME))?.status;
                let left = now.and_then(|status| status.replicas);
                anyhow::ensure!(left.unwrap_or(0) == 0, "{left:?}");
                Ok(())
            });
        }
        before.spec.and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// Deletes the namespace with all in it, without waiting: the machine has better things to do.
    pub fn remove_namespace(&self) {
        let all: Api<Namespace> = Api::all(self.client.clone());
        self.block_on(all.delete(&self.namespace, &DeleteParams::default()))
            .expect("delete the namespace");
    }

    fn is_going(&self) -> bool {
        let all: Api<Namespace> = Api::all(self.client.clone());
        let found = self.block_on(all.get_opt(&self.namespace));
        let found = found.expect("the API server answers");
        found.is_some_and(|n| n.metadata.deletion_timestamp.is_some())
    }

    /// Waits until the namespace is gone with all that was in it.
    pub fn wait_removed(&self) {
        let all: Api<Namespace> = Api::all(self.client.clone());
        let what = format!("namespace {} to be gone", self.namespace);
        wait::until(&what, PATIENCE, || {
            match self.block_on(all.get_opt(&self.namespace))? {
                None => Ok(()),
                Some(left) => bail!("{:?}", left.status),
            }
        });
    }

    /// Deletes the controller's Lease, as somebody by mistake.
    pub fn delete_lease(&self) {
        let name = format!("{}-controller", self.name);
        self.block_on(self.api::<Lease>().delete(&name, &DeleteParams::default()))
            .expect("delete the Lease");
    }

    /// Deletes a PersistentVolume.
    pub fn delete_volume(&self, name: &str) {
        let all: Api<k8s_openapi::api::core::v1::PersistentVolume> = Api::all(self.client.clone());
        self.block_on(all.delete(name, &DeleteParams::default()))
            .expect("delete the volume");
    }

    /// The node that a broker's pod runs on.
    pub fn node(&self, broker: i32) -> String {
        let spec = self.pod(broker).expect("the pod").spec;
        spec.and_then(|spec| spec.node_name).expect("a node")
    }

    /// The address at which pods find the API server.
    pub fn api_service(&self) -> String {
        let services: Api<k8s_openapi::api::core::v1::Service> =
            Api::namespaced(self.client.clone(), "default");
        let service = self
            .block_on(services.get("kubernetes"))
            .expect("the Service");
        service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .expect("an address")
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

    /// A connection that passes a refusal on at once; the usual one repeats what got 429 or 503 for minutes.
    pub fn without_retries(&self) -> kube::Client {
        self.block_on(async {
            let file = kube::config::Kubeconfig::read_from(kubeconfig()).expect("kubeconfig");
            let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await;
            let mut config = config.expect("config");
            config.default_retry = false;
            kube::Client::try_from(config).expect("client")
        })
    }

    /// A connection with the rights of another, such as a ServiceAccount.
    pub fn acting_as(&self, user: &str) -> kube::Client {
        self.block_on(async {
            let file = kube::config::Kubeconfig::read_from(kubeconfig()).expect("kubeconfig");
            let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await;
            let mut config = config.expect("config");
            config.auth_info.impersonate = Some(user.to_owned());
            kube::Client::try_from(config).expect("client")
        })
    }

    /// A connection for what is outside of the namespace.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The whole state of the namespace, for a failure.
    pub fn describe(&self) -> String {
        let kubectl = |args: &[&str]| kubectl(&self.namespace, args);
        let mut text = kubectl(&["get", "lc,lt,pods,pvc,statefulsets,leases", "-o", "wide"]);
        text += &kubectl(&["get", "lc", "-o", "yaml"]);
        text += &kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
        for broker in 0..3 {
            text += &format!("--- {}\n", self.pod_name(broker));
            text += &kubectl(&["logs", &self.pod_name(broker), "--tail=60"]);
        }
        text
    }
}

/// What `kubectl` prints in a namespace, or why it did not.
pub fn kubectl(namespace: &str, args: &[&str]) -> String {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig());
    let output = command.args(["-n", namespace]).args(args).output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// Runs helm; panics with its output if it fails.
pub fn helm(args: &[&str]) {
    let mut command = Command::new("helm");
    command.arg("--kubeconfig").arg(kubeconfig());
    let output = command.args(args).output().expect("helm starts");
    assert!(
        output.status.success(),
        "helm {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Drop for Kube {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
    }
}

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
}
