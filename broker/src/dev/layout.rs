//! Where `dev` keeps what, and which arguments each broker is started with. Pure.

use crate::cli::DevArgs;
use std::path::{Path, PathBuf};

/// Name of the cluster that `dev` runs.
pub const CLUSTER: &str = "dev";

/// Folder of the `directory` store that all brokers share.
pub const STORE: &str = "metadata";

/// Folder of a broker's own that is its log directory.
pub const LOGS: &str = "data";

/// Paths, ports and arguments of one `dev` cluster.
pub struct Layout {
    args: DevArgs,
    root: PathBuf,
}

impl Layout {
    /// `root` is the absolute form of `args.data`.
    pub fn new(args: DevArgs, root: PathBuf) -> Self {
        Self { args, root }
    }

    /// The ids of the brokers, from 0.
    pub fn ids(&self) -> std::ops::Range<u16> {
        0..self.args.brokers
    }

    /// The directory of the cluster.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that belongs to broker `id`.
    pub fn broker_dir(&self, id: u16) -> PathBuf {
        self.root.join(format!("broker-{id}"))
    }

    /// The log directory of broker `id`.
    pub fn log_dir(&self, id: u16) -> PathBuf {
        self.broker_dir(id).join(LOGS)
    }

    /// The `directory` store that all brokers share.
    pub fn store_dir(&self) -> PathBuf {
        self.root.join(STORE)
    }

    /// Where the configuration for all brokers is written.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("broker.yaml")
    }

    /// Where clients find the cluster.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self
            .ids()
            .map(|id| format!("127.0.0.1:{}", self.args.port + id))
            .collect();
        addresses.join(",")
    }

    /// Kafka keys that `dev` sets where the user's file is silent: what a cluster of this size can
    /// honour, and no waiting for group members that are all started by hand.
    pub fn defaults(&self) -> Vec<(&'static str, String)> {
        let replicas = self.args.brokers.min(3);
        vec![
            ("default.replication.factor", replicas.to_string()),
            ("min.insync.replicas", replicas.div_ceil(2).to_string()),
            ("offsets.topic.replication.factor", replicas.to_string()),
            (
                "transaction.state.log.replication.factor",
                replicas.to_string(),
            ),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ]
    }

    /// The command line of broker `id`.
    pub fn broker_args(&self, id: u16) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let client = format!("127.0.0.1:{}", self.args.port + id);
        [
            ("--id", id.to_string()),
            ("--cluster", CLUSTER.to_owned()),
            ("--store", "directory".to_owned()),
            ("--store-dir", path(self.store_dir())),
            ("--data", path(self.log_dir(id))),
            ("--config", path(self.config_file())),
            ("--client-listen", client.clone()),
            ("--advertise", client),
            ("--internal-listen", "127.0.0.1:0".to_owned()),
            (
                "--http-listen",
                format!("127.0.0.1:{}", self.args.http_port + id),
            ),
            ("--end-with-parent", std::process::id().to_string()),
        ]
        .into_iter()
        .fold(vec!["run".to_owned()], |mut args, (name, value)| {
            args.extend([name.to_owned(), value]);
            args
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn layout(brokers: u16) -> Layout {
        let args = DevArgs {
            brokers,
            port: 9092,
            http_port: 8080,
            data: ".leasehold".into(),
            no_restart: false,
            config: None,
        };
        Layout::new(args, "/x".into())
    }

    #[test]
    fn the_brokers_own_command_line_accepts_the_arguments() {
        let args = layout(3).broker_args(2);
        let cli = crate::cli::Cli::try_parse_from(
            std::iter::once("leasehold-broker".to_owned()).chain(args),
        )
        .unwrap();
        let crate::cli::Command::Run(run) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.id, Some(2));
        assert_eq!(run.client_listen, "127.0.0.1:9094");
        assert_eq!(run.http_listen, "127.0.0.1:8082");
    }

    #[test]
    fn a_single_broker_asks_for_no_more_replicas_than_it_has() {
        let value = |brokers, key| {
            let defaults = layout(brokers).defaults();
            defaults
                .into_iter()
                .find(|(name, _)| *name == key)
                .unwrap()
                .1
        };
        assert_eq!(value(1, "default.replication.factor"), "1");
        assert_eq!(value(1, "min.insync.replicas"), "1");
        assert_eq!(value(3, "min.insync.replicas"), "2");
        assert_eq!(value(5, "default.replication.factor"), "3");
    }
}
