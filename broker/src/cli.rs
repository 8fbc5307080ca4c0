//! The command line of `leasehold-broker`: which command, with which arguments.

use crate::run::FurtherListener;
use clap::{Args, Parser, Subcommand};
use leasehold_metadata::head::recover::Wish;
use std::path::PathBuf;

/// A Kafka-compatible log broker whose control plane is the Kubernetes API.
#[derive(Debug, Parser)]
#[command(name = "leasehold-broker", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What the process is asked to be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one broker.
    Run(Box<RunArgs>),
    /// Start a whole cluster of brokers on this machine, for trying things out.
    Dev(DevArgs),
    /// Mend a `dev` cluster whose head was lost or put back, from its brokers' copies of the metadata.
    Recover(RecoverArgs),
    /// Print the configuration reference, in Markdown.
    Reference,
    /// Look at a log directory while no broker runs on it.
    #[command(subcommand)]
    Log(LogCommand),
}

/// What to do with a log directory.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print all that is in it and what is damaged; reads only. Exit code 0: sound, 1: damaged.
    Inspect {
        /// The log directory, or one partition's folder in it.
        dir: PathBuf,
    },
}

/// Where the cluster's metadata lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// ConfigMaps and a Lease, through the Kubernetes API.
    Kubernetes,
    /// Files in one directory of this machine.
    Directory,
}

/// Arguments of `run`. On Kubernetes the operator fills them in.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// This broker's id.
    #[arg(long, required_unless_present = "id_from_hostname")]
    pub id: Option<i32>,
    /// Take the broker id from the number at the end of the host name (a StatefulSet's pod).
    #[arg(long, conflicts_with = "id")]
    pub id_from_hostname: bool,
    /// Name of the cluster: prefix of its objects.
    #[arg(long, default_value = "dev")]
    pub cluster: String,
    /// Kubernetes namespace of the cluster.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Where the metadata lives.
    #[arg(long, value_enum, default_value = "kubernetes")]
    pub store: StoreKind,
    /// The directory of the `directory` store.
    #[arg(long, required_if_eq("store", "directory"))]
    pub store_dir: Option<PathBuf>,
    /// This broker's own directory: its copy of the metadata, and its logs unless `log.dirs` says otherwise.
    #[arg(long)]
    pub data: PathBuf,
    /// YAML file that maps Kafka's broker configuration keys to values.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Where Kafka clients connect.
    #[arg(long, default_value = "0.0.0.0:9092")]
    pub client_listen: String,
    /// A further listener for clients, with a name, where it listens, and what its clients are told. Without
    /// the latter the broker is in no answer to clients of this listener until the controller is told where
    /// it is reached (on Kubernetes: by the operator). May be given several times.
    #[arg(long = "listener", value_name = "NAME=LISTEN[,HOST:PORT]")]
    pub listeners: Vec<FurtherListener>,
    /// Where the other brokers connect.
    #[arg(long, default_value = "0.0.0.0:9091")]
    pub internal_listen: String,
    /// Where probes, metrics and status are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub http_listen: String,
    /// `host:port` that clients are told to use.
    #[arg(long)]
    pub advertise: String,
    /// `ip:port` that the other brokers use; default: the internal listener's own address.
    #[arg(long)]
    pub internal_advertise: Option<String>,
    /// File that holds this broker's rack (a downward-API file on Kubernetes).
    #[arg(long)]
    pub rack_file: Option<PathBuf>,
    /// End when the process of this id, which started this one, has ended.
    #[arg(long, hide = true)]
    pub end_with_parent: Option<u32>,
}

/// Arguments of `dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// How many brokers.
    #[arg(long, default_value_t = 3)]
    pub brokers: u16,
    /// Broker i listens for clients on this port + i.
    #[arg(long, default_value_t = 9092)]
    pub port: u16,
    /// Broker i serves probes, metrics and status on this port + i.
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// Where everything is kept; broker i has `broker-<i>/` in it.
    #[arg(long, default_value = ".leasehold")]
    pub data: PathBuf,
    /// Start a killed broker only when Enter is pressed or this process gets SIGUSR1.
    #[arg(long)]
    pub no_restart: bool,
    /// YAML file of Kafka broker configuration keys for every broker.
    #[arg(long)]
    pub config: Option<PathBuf>,
}

/// Arguments of `recover`.
#[derive(Clone, Debug, Args)]
pub struct RecoverArgs {
    /// The `--data` of the `dev` cluster, which must not run.
    #[arg(long, default_value = ".leasehold")]
    pub data: PathBuf,
    /// Whose copy counts: `newest`, or a broker's number.
    #[arg(long, default_value = "newest")]
    pub from: Wish,
}
