//! The kubectl plugin: what one asks of a cluster most, in words, and the wishes that annotations carry.
//!
//! Promises: it needs no more rights than to read and to annotate, talks to nothing but the Kubernetes API,
//! and decides nothing: what it asks for, the operator does by its own gates. [`show`] and [`choose`] are
//! pure.

mod lag;
mod show;
mod table;

use crate::cluster::names;
use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use leasehold_crds::{
    CLUSTER_LABEL, Cluster, MAINTENANCE_ANNOTATION, PAUSED_ANNOTATION, REBALANCE_ANNOTATION,
    RECOVER_ANNOTATION, RESTART_ANNOTATION, Topic,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use warp::http::Request;

/// Shows and steers Leasehold clusters.
#[derive(Debug, Parser)]
#[command(name = "kubectl-leasehold", bin_name = "kubectl leasehold", version)]
pub struct Cli {
    /// Namespace. Default: the one of the kubeconfig's context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Kubeconfig. Default: as kubectl finds it, else the pod's own account.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// Where CLUSTER may be left out, it is the only one of the namespace.
#[derive(Debug, Subcommand)]
enum Command {
    /// How a cluster, or each of the namespace, fares: brokers, conditions.
    Status { cluster: Option<String> },
    /// A topic's partitions: leaders, epochs, replicas, ISR.
    Topic {
        /// Name of the Topic object, or of the topic.
        name: String,
    },
    /// How far consumer groups are behind.
    Lag {
        /// One group. Default: all.
        group: Option<String>,
        /// The cluster, where the namespace has several.
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Who is controller, and since when.
    Controller { cluster: Option<String> },
    /// Restart a broker, or all brokers one after the other.
    Roll {
        /// The broker's pod. Default: all of the cluster.
        pod: Option<String>,
        /// The cluster, where the namespace has several.
        #[arg(long, conflicts_with = "pod")]
        cluster: Option<String>,
    },
    /// Let the operator leave a cluster alone; its brokers go on.
    Pause { cluster: Option<String> },
    /// Undo `pause`.
    Resume { cluster: Option<String> },
    /// Look at how even the brokers are.
    Rebalance { cluster: Option<String> },
    /// Keep a broker empty while it stays: it leads nothing, and what it holds moves as far as there is room.
    Drain {
        /// The broker's pod.
        pod: String,
    },
    /// Undo `drain`.
    Uncordon {
        /// The broker's pod.
        pod: String,
    },
    /// Make metadata that was lost or put back anew from the brokers' copies.
    Recover {
        /// Always named: it replaces the metadata that stands.
        cluster: String,
        /// Whose copy counts: `newest`, or a broker's number.
        #[arg(long, default_value = "newest", value_parser = copy)]
        from: String,
    },
}

fn copy(text: &str) -> Result<String, String> {
    let known = text == "newest" || text.parse::<u16>().is_ok();
    let wrong = || format!("{text:?} is neither `newest` nor a broker's number");
    known.then(|| text.to_owned()).ok_or_else(wrong)
}

/// Does what was asked for; gives what is to be printed.
pub async fn run(cli: Cli) -> anyhow::Result<String> {
    let config = config(&cli).await?;
    let namespace = cli
        .namespace
        .unwrap_or_else(|| config.default_namespace.clone());
    let session = Session {
        client: Client::try_from(config)?,
        namespace,
    };
    match cli.command {
        Command::Status { cluster } => session.status(cluster.as_deref()).await,
        Command::Topic { name } => session.topic(&name).await,
        Command::Lag { group, cluster } => session.lag(cluster.as_deref(), group.as_deref()).await,
        Command::Controller { cluster } => session.controller(cluster.as_deref()).await,
        Command::Roll { pod: Some(pod), .. } => session.roll(&pod).await,
        Command::Roll { pod: None, cluster } => {
            let wish = json!(Timestamp::now().to_string());
            let name = session.annotate(cluster.as_deref(), RESTART_ANNOTATION, wish);
            Ok(show::asked(&name.await?, "all brokers restart, one by one"))
        }
        Command::Pause { cluster } => {
            let name = session.annotate(cluster.as_deref(), PAUSED_ANNOTATION, json!("true"));
            Ok(format!(
                "Cluster {}: the operator leaves it alone until `kubectl leasehold resume`",
                name.await?
            ))
        }
        Command::Resume { cluster } => {
            let name = session.annotate(cluster.as_deref(), PAUSED_ANNOTATION, Value::Null);
            Ok(format!(
                "Cluster {}: the operator looks after it",
                name.await?
            ))
        }
        Command::Rebalance { cluster } => {
            let wish = json!(Timestamp::now().to_string());
            let name = session.annotate(cluster.as_deref(), REBALANCE_ANNOTATION, wish);
            Ok(show::asked(
                &name.await?,
                "brokers are made even, as spec.balancing says",
            ))
        }
        Command::Drain { pod } => session.keep_empty(&pod, true).await,
        Command::Uncordon { pod } => session.keep_empty(&pod, false).await,
        Command::Recover { cluster, from } => {
            let what = format!("the metadata is made anew, from the copy: {from}");
            let name = session.annotate(Some(&cluster), RECOVER_ANNOTATION, json!(from));
            Ok(show::asked(&name.await?, &what))
        }
    }
}

async fn config(cli: &Cli) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: cli.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &cli.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).context("cannot read the kubeconfig")?;
            Config::from_custom_kubeconfig(file, &options).await?
        }
        None if cli.context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer().await?,
    };
    Ok(config)
}

struct Session {
    client: Client,
    namespace: String,
}

impl Session {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn clusters(&self) -> anyhow::Result<Vec<Cluster>> {
        let all = self.api::<Cluster>().list(&ListParams::default()).await;
        Ok(all.context("cannot list the Clusters")?.items)
    }

    async fn status(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        let mut clusters = self.clusters().await?;
        if wanted.is_some() {
            let name = choose(wanted, &clusters, &self.namespace)?;
            clusters.retain(|cluster| cluster.name_any() == name);
        }
        if clusters.is_empty() {
            bail!("there is no Cluster in namespace {}", self.namespace);
        }
        let mut parts = Vec::new();
        for cluster in &clusters {
            let pods = self.pods(&cluster.name_any()).await?;
            parts.push(show::cluster(cluster, &pods, Timestamp::now()));
        }
        Ok(parts.join("\n"))
    }

    /// The brokers' pods.
    async fn pods(&self, cluster: &str) -> anyhow::Result<Vec<Pod>> {
        let labels = format!("{CLUSTER_LABEL}={cluster},app.kubernetes.io/component=broker");
        let chosen = ListParams::default().labels(&labels);
        let pods = self.api::<Pod>().list(&chosen).await;
        Ok(pods.context("cannot list the brokers' pods")?.items)
    }

    async fn lag(&self, wanted: Option<&str>, group: Option<&str>) -> anyhow::Result<String> {
        let name = choose(wanted, &self.clusters().await?, &self.namespace)?;
        let mut answers = BTreeMap::new();
        for pod in self.pods(&name).await? {
            let pod = pod.name_any();
            let answer = self.ask_of_groups(&pod).await;
            answers.insert(pod, answer.map_err(|error| format!("{error:#}")));
        }
        Ok(lag::table(&answers, group))
    }

    async fn ask_of_groups(&self, pod: &str) -> anyhow::Result<(lag::Groups, lag::Status)> {
        Ok((
            self.ask(pod, "groups").await?,
            self.ask(pod, "status").await?,
        ))
    }

    /// Asks a broker's HTTP port, through the API server.
    async fn ask<T: DeserializeOwned>(&self, pod: &str, what: &str) -> anyhow::Result<T> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:{}/proxy/{what}",
            self.namespace,
            names::HTTP_PORT
        );
        let request = Request::get(path).body(Vec::new())?;
        Ok(self.client.request(request).await?)
    }

    async fn topic(&self, name: &str) -> anyhow::Result<String> {
        let api = self.api::<Topic>();
        // Kafka allows names that Kubernetes does not; such a topic is found by the spec of its object.
        if let Some(topic) = api.get_opt(name).await? {
            return Ok(show::topic(&topic));
        }
        let all = api.list(&ListParams::default()).await?;
        let spoken_for = |topic: &&Topic| topic.spec.topic_name.as_deref() == Some(name);
        match all.items.iter().find(spoken_for) {
            Some(topic) => Ok(show::topic(topic)),
            None => bail!("there is no Topic {name} in namespace {}", self.namespace),
        }
    }

    async fn controller(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        let name = choose(wanted, &self.clusters().await?, &self.namespace)?;
        let lease = self.api::<Lease>().get_opt(&names::lease(&name)).await?;
        let head = self.api::<ConfigMap>().get_opt(&names::head(&name)).await?;
        let data = head.and_then(|head| head.data);
        Ok(show::controller(
            &name,
            lease.and_then(|lease| lease.spec).as_ref(),
            data.as_ref(),
            Timestamp::now(),
        ))
    }

    /// The Cluster whose broker runs in the pod.
    async fn cluster_of(&self, name: &str) -> anyhow::Result<String> {
        let pod = self.api::<Pod>().get(name).await?;
        let label = |key| pod.labels().get(key).map(String::as_str);
        match label(CLUSTER_LABEL) {
            Some(cluster) if label("app.kubernetes.io/component") == Some("broker") => {
                Ok(cluster.to_owned())
            }
            _ => bail!("pod {name} is no broker of a Cluster"),
        }
    }

    /// Adds the pod's broker to those in maintenance, or takes it out.
    async fn keep_empty(&self, pod: &str, wanted: bool) -> anyhow::Result<String> {
        let name = self.cluster_of(pod).await?;
        let broker = names::ordinal(&name, pod)
            .with_context(|| format!("pod {pod} has no broker's number"))?;
        let api = self.api::<Cluster>();
        let cluster = api.get(&name).await?;
        let now = cluster.annotations().get(MAINTENANCE_ANNOTATION);
        let asked = others(now.map_or("", String::as_str), broker, wanted);
        // Of two who do this at once one is told so, and does not undo what the other asked for.
        let patch = json!({"metadata": {
            "annotations": {MAINTENANCE_ANNOTATION: asked},
            "resourceVersion": cluster.resource_version(),
        }});
        api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("cannot change the Cluster's annotation")?;
        let what = match wanted {
            true => format!(
                "{pod} is emptied; the condition Maintenance tells how far, `kubectl leasehold uncordon {pod}` ends it"
            ),
            false => format!("{pod} takes leaders and replicas again"),
        };
        Ok(show::asked(&name, &what))
    }

    async fn roll(&self, name: &str) -> anyhow::Result<String> {
        let api = self.api::<Pod>();
        let cluster = self.cluster_of(name).await?;
        let wish = json!(Timestamp::now().to_string());
        let patch = json!({"metadata": {"annotations": {RESTART_ANNOTATION: wish}}});
        api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(show::asked(&cluster, &format!("{name} restarts")))
    }

    /// Sets an annotation on the Cluster; gives its name.
    async fn annotate(
        &self,
        wanted: Option<&str>,
        key: &str,
        value: Value,
    ) -> anyhow::Result<String> {
        let name = choose(wanted, &self.clusters().await?, &self.namespace)?;
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.api::<Cluster>()
            .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(name)
    }
}

/// The annotation's value with a broker in it or without; null for nobody.
fn others(now: &str, broker: i32, wanted: bool) -> Value {
    let broker = broker.to_string();
    let words = now.split(',').map(str::trim);
    let kept = words.filter(|word| !word.is_empty() && *word != broker);
    let all: Vec<&str> = kept.chain(wanted.then_some(&*broker)).collect();
    if all.is_empty() {
        Value::Null
    } else {
        all.join(",").into()
    }
}

/// The Cluster that is meant.
fn choose(wanted: Option<&str>, all: &[Cluster], namespace: &str) -> anyhow::Result<String> {
    let mut names: Vec<String> = all.iter().map(|cluster| cluster.name_any()).collect();
    match wanted {
        Some(wanted) if names.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
        Some(wanted) => bail!("there is no Cluster {wanted} in namespace {namespace}"),
        None if names.len() > 1 => bail!(
            "there are several Clusters in namespace {namespace}: name one of {}",
            names.join(", ")
        ),
        None => names
            .pop()
            .with_context(|| format!("there is no Cluster in namespace {namespace}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn clusters(names: &[&str]) -> Vec<Cluster> {
        let cluster = |name: &&str| {
            serde_json::from_value(json!({
                "apiVersion": "leasehold.dev/v1alpha1", "kind": "Cluster",
                "metadata": {"name": name}, "spec": {"replicas": 3, "storage": {"type": "Ephemeral"}},
            }))
        };
        names.iter().map(|name| cluster(name).unwrap()).collect()
    }

    #[test]
    fn a_cluster_need_not_be_named_where_there_is_one() {
        let chosen = |wanted, names: &[&str]| {
            choose(wanted, &clusters(names), "shop").map_err(|error| error.to_string())
        };
        assert_eq!(chosen(None, &["demo"]).unwrap(), "demo");
        assert_eq!(chosen(Some("b"), &["a", "b"]).unwrap(), "b");
        assert!(chosen(None, &["a", "b"]).unwrap_err().contains("a, b"));
        assert!(chosen(Some("c"), &["a"]).unwrap_err().contains("Cluster c"));
        assert!(chosen(None, &[]).unwrap_err().contains("shop"));
    }

    #[test]
    fn a_drain_keeps_what_others_asked_for() {
        assert_eq!(others("", 1, true), json!("1"));
        assert_eq!(others("2, 0", 1, true), json!("2,0,1"));
        assert_eq!(others("1,2", 1, true), json!("2,1"));
        assert_eq!(others("1,2", 1, false), json!("2"));
        assert_eq!(others("1", 1, false), Value::Null);
    }

    #[test]
    fn the_command_line_is_coherent() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("x status -n shop").is_ok());
        assert!(parse("x roll demo-broker-0").is_ok());
        assert!(parse("x roll demo-broker-0 --cluster demo").is_err());
        assert!(parse("x recover demo --from 2").is_ok());
        assert!(parse("x recover demo --from oldest").is_err());
        assert!(parse("x recover").is_err(), "never of a cluster unnamed");
    }
}
