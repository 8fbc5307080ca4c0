//! A real Prometheus beside a scene, with the chart's alerts, to show that they fire and that the dashboard's
//! queries find something.

use crate::{http, tools, wait};
use serde_json::Value as Json;
use serde_yaml::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A file of the chart that is for Prometheus or Grafana.
pub fn chart_file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/leasehold/monitoring");
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A running Prometheus. Dropping it ends it.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with this configuration; it looks every second, and alerts do not wait before they fire, as it is
    /// to be shown that they do, not after what time.
    pub fn start(mut config: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        config["global"] = serde_yaml::from_str(
            "{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}",
        )
        .expect("YAML");
        config["rule_files"] = Value::Sequence(vec!["alerts.yaml".into()]);
        let write = |name: &str, value: &Value| {
            let text = serde_yaml::to_string(value).expect("YAML");
            std::fs::write(folder.path().join(name), text).expect("a file");
        };
        write("prometheus.yaml", &config);
        write("alerts.yaml", &at_once(&chart_file("alerts.yaml")));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let output = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(program())
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("dup"))
            .stderr(output)
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Self {
            child,
            address,
            folder,
        };
        wait::until("Prometheus to be ready", PATIENCE, || {
            http::get(address, "/-/ready").map_err(|e| format!("{e}: {}", prometheus.log()))
        });
        prometheus
    }

    /// What this query gives now.
    pub fn query(&self, query: &str) -> anyhow::Result<Vec<Json>> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer = http::get_json(self.address, &path)?;
        Ok(answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// The labels of every alert that fires.
    pub fn firing(&self) -> anyhow::Result<Vec<Json>> {
        let answer = http::get_json(self.address, "/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array().cloned();
        let firing = alerts.unwrap_or_default().into_iter();
        let firing = firing.filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| alert["labels"].clone()).collect())
    }

    /// Waits until this alert fires, or until it does not, for what has these labels.
    pub fn wait(&self, alert: &str, labels: &[(&str, &str)], fires: bool) {
        wait::until(&format!("{alert} {labels:?}: {fires}"), PATIENCE, || {
            let firing = self.firing()?;
            let fits = |found: &Json| {
                found["alertname"] == alert
                    && labels.iter().all(|(key, value)| found[key] == *value)
            };
            anyhow::ensure!(firing.iter().any(fits) == fires, "firing: {firing:?}");
            Ok(())
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    tools::made_present("prometheus")
}

/// The rules, without the time that each waits.
fn at_once(rules: &str) -> Value {
    let mut rules: Value = serde_yaml::from_str(rules).expect("alerts.yaml is YAML");
    let groups = rules["groups"].as_sequence_mut().expect("groups");
    for rule in groups
        .iter_mut()
        .flat_map(|group| group["rules"].as_sequence_mut().expect("rules"))
    {
        rule.as_mapping_mut().expect("a rule").remove("for");
    }
    rules
}

/// A query as part of a URL.
fn escaped(query: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    query.bytes().map(escape).collect()
}
