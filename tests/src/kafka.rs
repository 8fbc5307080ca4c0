//! A node of Apache Kafka on 127.0.0.1: its properties, the format of its folder, its process.
//!
//! Node 0 is the controller too. The caller ends the process.

use crate::tools::kafka_class_path;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// One node, and where its files go.
pub struct Node {
    pub dir: PathBuf,
    pub id: u16,
    pub port: u16,
    pub controller_port: u16,
    /// What its folder is formatted with, where that is not its release's default: `NAME=LEVEL`.
    pub features: &'static [&'static str],
    /// Beside what makes it listen.
    pub config: Vec<(&'static str, String)>,
}

impl Node {
    fn properties(&self) -> PathBuf {
        self.dir.join(format!("{}.properties", self.id))
    }

    pub fn is_prepared(&self) -> bool {
        self.properties().exists()
    }

    /// Writes its properties and formats its folder.
    pub fn prepare(&self) {
        let (id, port, controller_port) = (self.id, self.port, self.controller_port);
        let (roles, controller) = match id {
            0 => (
                "broker,controller",
                format!(",CONTROLLER://127.0.0.1:{controller_port}"),
            ),
            _ => ("broker", String::new()),
        };
        let logs = self.dir.join(format!("logs-{id}"));
        let mut text = format!(
            "process.roles={roles}
node.id={id}
controller.quorum.voters=0@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port}{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={}
",
            logs.display()
        );
        for (key, value) in &self.config {
            text += &format!("{key}={value}\n");
        }
        fs::write(self.properties(), text).expect("properties");
        let mut format = Command::new("java");
        format
            .arg("-cp")
            .arg(kafka_class_path())
            .arg("kafka.tools.StorageTool");
        format
            .args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"])
            .arg(self.properties());
        for feature in self.features {
            format.args(["--feature", feature]);
        }
        let done = format.output().expect("java");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// As Kafka's own start script has it, with G1, and with so much heap.
    pub fn start(&self, heap: &str) -> Child {
        let out = fs::File::create(self.dir.join(format!("output-{}", self.id)));
        let out = out.expect("a file for the output");
        let mut command = Command::new("java");
        command
            .args([
                &format!("-Xmx{heap}"),
                &format!("-Xms{heap}"),
                "-XX:+UseG1GC",
                "-cp",
            ])
            .arg(kafka_class_path());
        command.arg("kafka.Kafka").arg(self.properties());
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("dup"))
            .stderr(out);
        command.spawn().expect("java")
    }
}
