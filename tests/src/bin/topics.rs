//! `tests/topics`: thousands of Topic objects at once, and what they cost.

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use leasehold_crds::Topic;
use leasehold_tests::cluster::{Kube, PATIENCE, kubectl, run_script, topic_manifest};
use leasehold_tests::wait;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "thousands";
const NAME: &str = "main";
const OPERATORS: &str = "leasehold-system";
/// What is promised: after the last one was applied, and of the acting operator's memory.
const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 100;

fn main() -> anyhow::Result<()> {
    let (mut count, mut at_once) = (5_000, 50);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--count" => count = value.parse().context("--count")?,
            "--at-once" => at_once = value.parse().context("--at-once")?,
            _ => bail!("unknown argument {arg}; known are --count N and --at-once N"),
        }
    }
    let kube = Kube::with_cluster(NAMESPACE, NAME, 3);
    let before = writes()?;
    let begun = Instant::now();
    kube.block_on(apply(&kube, count, at_once))?;
    let applied = begun.elapsed();
    let last = Instant::now();
    kube.block_on(all_ready(&kube, count))?;
    let (ready, took) = (last.elapsed(), begun.elapsed());
    let memory = operator_memory(&kube)?;
    println!("{count} Topics of one partition, three replicas, {at_once} in flight:");
    println!("| applied in | {applied:.1?} |");
    println!("| the last ready after that | {ready:.1?} |");
    println!("| the acting operator's memory, at most | {memory} MiB |");
    for (what, now) in writes()? {
        let rose = now - before.get(&what).copied().unwrap_or(0.0);
        if rose >= 1.0 {
            let rate = rose / took.as_secs_f64();
            println!("| API: {what} | {rose}, {rate:.0}/s |");
        }
    }
    kube.remove_namespace();
    let gone = Instant::now();
    wait::until("the namespace to be gone", PATIENCE * 2, || {
        let topics = kube.block_on(kube.api::<Topic>().list_metadata(&Default::default()))?;
        anyhow::ensure!(topics.items.is_empty(), "{} Topics", topics.items.len());
        anyhow::Ok(())
    });
    println!(
        "| all deleted with their namespace in | {:.1?} |",
        gone.elapsed()
    );
    anyhow::ensure!(
        ready <= SOON,
        "ready {ready:.1?} after the last, not within {SOON:?}"
    );
    anyhow::ensure!(
        memory < MIB,
        "the operator needs {memory} MiB, not below {MIB}"
    );
    Ok(())
}

async fn apply(kube: &Kube, count: usize, at_once: usize) -> anyhow::Result<()> {
    let topics = kube.api::<Topic>();
    let one = |number: usize| {
        let topics = &topics;
        async move {
            let name = format!("topic-{number:05}");
            let object: Topic = serde_yaml::from_str(&topic_manifest(&name, NAME, 1, 3))?;
            let how = PatchParams::apply("tests").force();
            topics.patch(&name, &how, &Patch::Apply(&object)).await?;
            anyhow::Ok(())
        }
    };
    let all = stream::iter((0..count).map(one)).buffer_unordered(at_once);
    all.try_collect::<()>().await
}

/// Returns once so many Topics are ready.
async fn all_ready(kube: &Kube, count: usize) -> anyhow::Result<()> {
    let mut ready = std::collections::BTreeSet::new();
    let changes = watcher(kube.api::<Topic>(), watcher::Config::default()).default_backoff();
    let mut changes = std::pin::pin!(changes.applied_objects());
    let until = tokio::time::sleep(PATIENCE * 2);
    tokio::pin!(until);
    while ready.len() < count {
        tokio::select! {
            topic = changes.try_next() => {
                let topic = topic?.context("the watch ended")?;
                let conditions = topic.status.iter().flat_map(|status| &status.conditions);
                let is = |c: &leasehold_crds::Condition| c.type_ == "Ready" && c.status == "True";
                if conditions.into_iter().any(is) {
                    ready.insert(topic.name_any());
                }
            }
            () = &mut until => bail!("{} of {count} are ready", ready.len()),
        }
    }
    Ok(())
}

/// The most that the acting operator had in memory since it began, in MiB.
fn operator_memory(kube: &Kube) -> anyhow::Result<u64> {
    let leases: Api<Lease> = Api::namespaced(kube.client(), OPERATORS);
    let lease = kube.block_on(leases.get("leasehold-operator"))?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    let pid = run_script(
        "pod-pid",
        &[OPERATORS, &holder.context("an acting operator")?],
    );
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmHWM")?.parse::<u64>()? / 1_024)
}

/// How often the API server was asked to write, by resource and verb.
fn writes() -> anyhow::Result<BTreeMap<String, f64>> {
    let text = kubectl(NAMESPACE, &["get", "--raw", "/metrics"]);
    let mut all = BTreeMap::new();
    for line in text
        .lines()
        .filter(|l| l.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| {
            let rest = line.split_once(&format!("{name}=\""))?.1;
            rest.split('"').next()
        };
        let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else {
            continue;
        };
        if !["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb) {
            continue;
        }
        let part = label("subresource").filter(|part| !part.is_empty());
        let part = part.map_or_else(String::new, |part| format!("/{part}"));
        let value: f64 = line.rsplit(' ').next().context("a value")?.parse()?;
        *all.entry(format!("{verb} {resource}{part}")).or_default() += value;
    }
    Ok(all)
}
