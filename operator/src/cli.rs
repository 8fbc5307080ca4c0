//! The command line of `leasehold-operator`.

use crate::cluster::validate::{PodLabels, pod_labels};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;

/// Turns Leasehold's custom resources into brokers and topics.
#[derive(Debug, Parser)]
#[command(name = "leasehold-operator", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(RunArgs),
    /// Take this operator's finalizers off all objects, after stopping its Deployment. The chart does
    /// this before it is uninstalled, so that nothing hangs afterwards.
    Release(ReleaseArgs),
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Look after this namespace only. Default: all namespaces.
    #[arg(long, env = "WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// Namespace of the operator's own Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub own_namespace: String,
    /// Name of the operator's own Lease.
    #[arg(long, default_value = "leasehold-operator")]
    pub lease: String,
    /// This replica's name. Default: POD_NAME, else a random one.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Image of brokers whose Cluster names none.
    #[arg(long, env = "BROKER_IMAGE")]
    pub broker_image: String,
    /// When that image is pulled (Always, IfNotPresent, Never). Default: Kubernetes' own.
    #[arg(long, env = "BROKER_IMAGE_PULL_POLICY")]
    pub broker_image_pull_policy: Option<String>,
    /// Labels of this operator's pods, as `key=value,key=value`, by which brokers' NetworkPolicies let it in.
    /// Without them no NetworkPolicy is made.
    #[arg(long, env = "POD_SELECTOR", value_parser = pod_labels)]
    pub pod_selector: Option<PodLabels>,
    /// Where probes and metrics are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,
}

/// Arguments of `release`.
#[derive(Clone, Debug, Args)]
pub struct ReleaseArgs {
    /// Look after this namespace only. Default: all namespaces.
    #[arg(long, env = "WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// Namespace of the operator's Deployment.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub own_namespace: String,
    /// The operator's Deployment, which is stopped first.
    #[arg(long)]
    pub deployment: String,
}
