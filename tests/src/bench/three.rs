//! What is measured on three brokers with three replicas, by Kafka's own tools.

use super::one::{batches, read, write};
use super::peers::{Peer, Who};
use super::raw::Connection;
use super::table::Table;
use crate::tools;
use anyhow::Context as _;

/// One round of one peer.
pub fn round(table: &mut Table, who: Who, records: usize) -> anyhow::Result<()> {
    let peer = Peer::start(who, 3);
    let mut note = |row: &str, figure: f64| table.note(who, row, figure);
    note("three brokers: memory idle, MiB", peer.memory());
    let mut asking = Connection::open(Peer::address(0))?;
    asking.create(&["warm", "load"], 6, 3)?;
    asking.create(&["ends", "checked"], 1, 3)?;
    perf_test("warm", records / 4)?;
    peer.warm_page_cache(records * 3 * 1024, 250_123)?;
    let before = peer.cpu();
    let rate = perf_test("load", records)?;
    let gigabytes = records as f64 * 1024.0 / 1e9;
    note(
        "three brokers, RF 3, acks=all, ProducerPerformance, MB/s",
        rate,
    );
    note(
        "three brokers, ProducerPerformance: CPU-s/GB",
        (peer.cpu() - before) / gigabytes,
    );
    let (average, p99) = end_to_end("ends", 3_000)?;
    note(
        "three brokers, RF 3, acks=all, EndToEndLatency, average, ms",
        average,
    );
    note(
        "three brokers, RF 3, acks=all, EndToEndLatency, p99, ms",
        p99,
    );
    note(
        "three brokers: memory after all of this, MiB",
        peer.memory(),
    );

    // What was acknowledged is there after all brokers were killed at once.
    let batches = batches()?;
    write("checked", 500, &batches)?;
    let _peer = peer.kill_all_and_restart();
    read("checked", 500, &batches, true).context("after kill -9 of all brokers")?;
    Ok(())
}

/// MB/s that Kafka's load generator says it reached.
fn perf_test(topic: &str, records: usize) -> anyhow::Result<f64> {
    let (records, bootstrap) = (records.to_string(), Peer::address(0).to_string());
    let said = tools::run(
        tools::kafka_at_speed(
            "kafka-producer-perf-test",
            &[
                "--topic",
                topic,
                "--num-records",
                &records,
                "--record-size",
                "1024",
                "--throughput",
                "-1",
                "--producer-props",
                &format!("bootstrap.servers={bootstrap}"),
                "acks=all",
                "batch.size=262144",
                "linger.ms=5",
            ],
        ),
        b"",
    )
    .expect_ok();
    let last = said.lines().rfind(|line| line.contains("MB/sec"));
    let figure = last
        .and_then(|line| line.split_once('('))
        .and_then(|(_, rest)| rest.split_once(" MB/sec"))
        .and_then(|(figure, _)| figure.parse::<f64>().ok());
    // It counts in MiB.
    Ok(figure.with_context(|| said.clone())? * 1.048_576)
}

/// Average and p99, in ms.
fn end_to_end(topic: &str, records: usize) -> anyhow::Result<(f64, f64)> {
    let (records, bootstrap) = (records.to_string(), Peer::address(0).to_string());
    let said = tools::run(
        tools::kafka_at_speed(
            "kafka-e2e-latency",
            &[
                "--bootstrap-server",
                &bootstrap,
                "--topic",
                topic,
                "--num-records",
                &records,
                "--producer-acks",
                "all",
                "--record-size",
                "1024",
            ],
        ),
        b"",
    )
    .expect_ok();
    let after = |mark: &str| -> Option<f64> {
        let (_, rest) = said.split_once(mark)?;
        rest.trim().split([' ', ',', '\n']).next()?.parse().ok()
    };
    let average = after("Avg latency:").with_context(|| said.clone())?;
    let p99 = after("99th =").with_context(|| said.clone())?;
    Ok((average, p99))
}
