//! What administrators do with Apache Kafka's own tools on a laptop cluster: quotas of clients, brokers
//! that are forgotten.

use leasehold_tests::dev::Dev;
use leasehold_tests::tools::{kafka, run};
use leasehold_tests::wait;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn kafkas_tools_set_quotas_that_slow_clients_down() {
    let dev = Dev::start(3, &[]);
    let bootstrap = dev.bootstrap();
    let server = ["--bootstrap-server", bootstrap.as_str()];
    let create = ["--create", "--topic", "limited", "--partitions", "1"];
    let create = [&server[..], &create, &["--replication-factor", "3"]].concat();
    run(kafka("kafka-topics", &create), b"").expect_ok();
    let configs = |more: &[&str]| {
        let args = ["--entity-type", "clients", "--entity-name", "slow"];
        run(
            kafka("kafka-configs", &[&server[..], &args, more].concat()),
            b"",
        )
        .expect_ok()
    };
    configs(&[
        "--alter",
        "--add-config",
        "producer_byte_rate=20000,consumer_byte_rate=1048576",
    ]);
    let described = configs(&["--describe"]);
    assert!(
        described.contains("producer_byte_rate=20000"),
        "{described}"
    );

    // 400 KB: 200 KB are within the window of ten seconds, the rest waits.
    let produce = |client: &str| {
        let client = format!("client.id={client}");
        let bootstrap = format!("bootstrap.servers={bootstrap}");
        let props = [
            "--producer-props",
            &bootstrap,
            &client,
            "acks=all",
            "batch.size=20000",
        ];
        let args = [
            "--topic",
            "limited",
            "--num-records",
            "400",
            "--record-size",
            "1000",
        ];
        let args = [&args[..], &["--throughput", "-1"], &props].concat();
        let began = Instant::now();
        run(kafka("kafka-producer-perf-test", &args), b"").expect_ok();
        began.elapsed()
    };
    let (free, slow) = (produce("free"), produce("slow"));
    assert!(
        slow > free + Duration::from_secs(5),
        "free {free:?}, slow {slow:?}"
    );

    configs(&["--alter", "--delete-config", "producer_byte_rate"]);
    let described = configs(&["--describe"]);
    assert!(!described.contains("producer_byte_rate"), "{described}");
    assert!(described.contains("consumer_byte_rate"), "{described}");
}

/// What `kafka-configs` says and does of one broker and of all, and that it takes effect at once.
#[test]
fn kafkas_tool_configures_one_broker_and_all_while_they_run() {
    let dev = Dev::start(3, &[]);
    let bootstrap = dev.bootstrap();
    let server = ["--bootstrap-server", bootstrap.as_str()];
    let create = [
        "--create",
        "--topic",
        "sized",
        "--replica-assignment",
        "1:2:0",
    ];
    let create = [&server[..], &create].concat();
    run(kafka("kafka-topics", &create), b"").expect_ok();
    let configs = |whose: &[&str], more: &[&str]| {
        let args = [&server[..], &["--entity-type", "brokers"], whose, more].concat();
        run(kafka("kafka-configs", &args), b"")
    };
    let (one, all): (&[&str], &[&str]) = (&["--entity-name", "1"], &["--entity-default"]);
    let set = |whose, config| configs(whose, &["--alter", "--add-config", config]).expect_ok();
    let unset = |whose, key| configs(whose, &["--alter", "--delete-config", key]).expect_ok();

    // The leader's own bound is narrower than that of all: it is the one that counts there.
    let records = || {
        let args = [&server[..], &["--topic", "sized"]].concat();
        run(kafka("kafka-get-offsets", &args), b"").expect_ok()
    };
    let produced = |bytes: usize| {
        let before = records();
        let args = ["--topic", "sized", "--producer-property", "acks=all"];
        let args = [&server[..], &args].concat();
        // It says nothing of a record that was refused.
        run(kafka("kafka-console-producer", &args), &vec![b'x'; bytes]).expect_ok();
        records() != before
    };
    set(all, "message.max.bytes=30000");
    set(one, "message.max.bytes=3000");
    let described = configs(one, &["--describe"]).expect_ok();
    for part in [
        "message.max.bytes=3000 ",
        "DYNAMIC_BROKER_CONFIG:message.max.bytes=3000",
        "DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=30000",
        "DEFAULT_CONFIG:message.max.bytes=1048588",
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }
    assert_eq!((produced(1000), produced(5000)), (true, false));
    unset(one, "message.max.bytes");
    assert_eq!((produced(5000), produced(50_000)), (true, false));
    unset(all, "message.max.bytes");
    let described = configs(all, &["--describe"]).expect_ok();
    assert!(!described.contains("message.max.bytes"), "{described}");
    assert!(produced(50_000));
}

#[test]
fn kafkas_tool_unregisters_a_broker_that_is_gone_and_empty() {
    let dev = Dev::start(4, &["--no-restart"]);
    let bootstrap = dev.bootstrap();
    let server = ["--bootstrap-server", bootstrap.as_str()];
    let unregister = || {
        let args = [&["unregister"], &server[..], &["--id", "3"]].concat();
        run(kafka("kafka-cluster", &args), b"")
    };
    let alive = unregister();
    let said = format!("{}{}", alive.stdout, alive.stderr);
    assert!(said.contains("alive"), "{said}");
    dev.signal(3, rustix::process::Signal::KILL);
    wait::until("the broker to be forgotten", LIMIT, || {
        let said = unregister().stdout;
        match said.contains("no longer registered") {
            true => Ok(()),
            false => Err(said),
        }
    });
}
