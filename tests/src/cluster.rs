//! A real Kubernetes, as `tests/kubernetes/up` made it: its objects, its pods, and ways to hurt them.
//!
//! `brokers.rs` is about the pods, `wishes.rs` about the Clusters and Topics that scenes ask for.

mod brokers;
mod wishes;

pub use wishes::{fresh, manifest, topic_manifest};

use crate::wait;
use anyhow::{Context as _, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use leasehold_crds::{Cluster, Topic};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long pods, images and volumes may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

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
