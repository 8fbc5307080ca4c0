//! A laptop cluster of five is drained to three under load, and producers hardly notice.
//!
//! Of a leader that moves they do: librdkafka sends a refused batch again after 100 ms (`retry.backoff.ms`), although
//! the answer named the new leader. So leaders move one after the other, and fewer than one record in a hundred waits.

use leasehold_tests::dev::{Dev, PATIENCE};
use leasehold_tests::load::Load;
use leasehold_tests::topics::{self, Viewer};
use leasehold_tests::{controller, readback, wait};
use leasehold_types::BrokerId;
use std::time::{Duration, Instant};

const TOPIC: &str = "scaled";
const PARTITIONS: i32 = 6;
/// How long what is quiet is looked at.
const QUIET: Duration = Duration::from_secs(5);
/// No record that met a refusal is acknowledged within this, and on a busy machine few others are not.
const REFUSED: Duration = Duration::from_millis(40);

#[test]
fn a_drain_doubles_the_p99_of_producers_at_most() {
    let dev = Dev::start_with_config(3, &["--no-restart"], "offsets.topic.num.partitions: 3\n");
    let bootstrap = dev.bootstrap();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let joined = [dev.join(3), dev.join(4)];
    let settings = [("min.insync.replicas", "2")];
    runtime
        .block_on(topics::create(&bootstrap, TOPIC, PARTITIONS, 3, &settings))
        .expect("the topic is created");
    Viewer::new(&bootstrap).wait_in_sync(TOPIC, PATIENCE);
    let load = Load::start(&bootstrap, TOPIC, PARTITIONS, 300, &[]);
    load.wait_flowing(PATIENCE);
    let quiet = load.wait_flowing(PATIENCE);
    std::thread::sleep(QUIET);

    let hosted = || {
        let image = runtime.block_on(controller::image(&dev))?;
        anyhow::Ok([3, 4].map(|id| image.hosted(BrokerId(id))))
    };
    let led: usize = hosted().expect("metadata").iter().map(|h| h.leaders).sum();
    assert!(led > 0, "there are leaders to move");
    let drains = Instant::now();
    runtime
        .block_on(controller::cordon(&dev, &[3, 4]))
        .expect("both are drained");
    wait::until("both brokers to be empty", PATIENCE * 2, || {
        let left = hosted()?;
        anyhow::ensure!(left.iter().all(|h| h.replicas == 0), "{left:?}");
        anyhow::Ok(())
    });
    drop(joined);
    let done = load.wait_flowing(PATIENCE);

    let history = load.stop();
    let (median, before) = history.latency(quiet, drains);
    println!("  at rest: median {median:.1?}, p99 {before:.1?}");
    let (median, during) = history.latency(drains, done);
    let took = done - drains;
    println!(
        "  from 5 to 3 brokers, {led} leaders in {took:.1?}: median {median:.1?}, p99 {during:.1?}"
    );
    assert!(during <= REFUSED.max(before * 2), "{during:?}");
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&bootstrap, TOPIC, &history);
    println!("  {} acknowledged records read back", history.acked_total());
}
