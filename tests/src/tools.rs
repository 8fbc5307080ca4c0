//! Clients that others wrote, run as their users run them: Apache Kafka's own tools, kcat, and
//! Python with confluent-kafka. `tests/lib/` makes them present; nothing here skips.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest run of one tool.
const LIMIT: Duration = Duration::from_secs(90);

/// What a tool printed.
#[derive(Debug)]
pub struct Output {
    /// The whole standard output.
    pub stdout: String,
    /// The whole standard error.
    pub stderr: String,
    /// Whether it ended with status 0.
    pub ok: bool,
}

impl Output {
    /// The standard output of a run that must have succeeded.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert!(self.ok, "the tool failed: {}\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `command` with `input` on its standard input, for [`LIMIT`] at most.
pub fn run(command: Command, input: &[u8]) -> Output {
    run_within(LIMIT, command, input)
}

/// The same for `limit` at most.
pub fn run_within(limit: Duration, mut command: Command, input: &[u8]) -> Output {
    let what = format!("{command:?}");
    // By cargo's, a tool would run with the librdkafka of these tests and not with its own.
    command
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_vec();
    // A tool that ends before it read everything closes the pipe: its status tells that.
    let writer = std::thread::spawn(move || stdin.write_all(&input).ok());
    let stdout = drain(child.stdout.take().expect("stdout"));
    let stderr = drain(child.stderr.take().expect("stderr"));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("wait") {
            Some(status) => break status,
            None if start.elapsed() > limit => {
                child.kill().ok();
                child.wait().ok();
                panic!(
                    "{what} did not end within {limit:?}: {}",
                    stderr.join().expect("stderr")
                );
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    writer.join().expect("writer");
    Output {
        stdout: stdout.join().expect("stdout"),
        stderr: stderr.join().expect("stderr"),
        ok: status.success(),
    }
}

fn drain(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.by_ref()
            .read_to_end(&mut bytes)
            .expect("the tool's output");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// `tests/lib/NAME`, which prints one path.
pub(crate) fn made_present(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib").join(name);
    let output = Command::new(&script)
        .output()
        .unwrap_or_else(|e| panic!("{script:?}: {e}"));
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && !path.is_empty(),
        "{} failed: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    path.into()
}

/// A Kafka tool's main classes, by the name of the script that starts it in Kafka's own package.
fn kafka_class(tool: &str) -> &'static str {
    match tool {
        "kafka-topics" => "org.apache.kafka.tools.TopicCommand",
        "kafka-console-producer" => "org.apache.kafka.tools.ConsoleProducer",
        "kafka-console-consumer" => "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "kafka-consumer-groups" => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "kafka-configs" => "kafka.admin.ConfigCommand",
        "kafka-reassign-partitions" => "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        "kafka-cluster" => "org.apache.kafka.tools.ClusterTool",
        "kafka-features" => "org.apache.kafka.tools.FeatureCommand",
        "kafka-delete-records" => "org.apache.kafka.tools.DeleteRecordsCommand",
        "kafka-get-offsets" => "org.apache.kafka.tools.GetOffsetShell",
        "kafka-producer-perf-test" => "org.apache.kafka.tools.ProducerPerformance",
        "kafka-e2e-latency" => "org.apache.kafka.tools.EndToEndLatency",
        "kafka-leader-election" => "org.apache.kafka.tools.LeaderElectionCommand",
        "transactional-message-copier" => "org.apache.kafka.tools.TransactionalMessageCopier",
        "kafka-transactions" => "org.apache.kafka.tools.TransactionsCommand",
        other => panic!("no main class is known for {other}"),
    }
}

/// The folder of Apache Kafka's jars; its name ends in the version.
fn kafka_jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| made_present("kafka-tools"))
}

/// All of Apache Kafka, for `java -cp`.
pub fn kafka_class_path() -> String {
    format!("{}/*", kafka_jars().display())
}

/// Its version.
pub fn kafka_version() -> String {
    let folder = kafka_jars().file_name().unwrap_or_default();
    folder.to_string_lossy().replace("kafka-", "")
}

/// The program around Kafka Streams (`tests/lib/Counts.java`) with its arguments, not started yet.
pub fn streams(args: &[&str]) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| made_present("kafka-streams"));
    let mut command = Command::new("java");
    command.args([
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xmx256m",
        "-cp",
    ]);
    command.arg(format!("{0}:{0}/*", folder.display()));
    command.arg("Counts").args(args);
    command
}

/// One of Apache Kafka's own tools with its arguments, not started yet.
pub fn kafka(tool: &str, args: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args([
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xmx256m",
        "-cp",
    ]);
    command
        .arg(kafka_class_path())
        .arg(kafka_class(tool))
        .args(args);
    command
}

/// The same with a Java that compiles what it runs for long, and room for full batches.
pub fn kafka_at_speed(tool: &str, args: &[&str]) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-XX:+UseSerialGC", "-Xmx512m", "-cp"])
        .arg(kafka_class_path())
        .arg(kafka_class(tool))
        .args(args);
    command
}

/// kcat with its arguments, not started yet.
pub fn kcat(args: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(args);
    command
}

/// A Python script with confluent-kafka at hand, not started yet.
pub fn python(script: &str, args: &[&str]) -> Command {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PYTHON.get_or_init(|| made_present("python-clients")));
    command.arg("-c").arg(script).args(args);
    command
}
