//! Prometheus metrics: read from the parts at each scrape, so that nothing is counted twice.

use super::status::Status;
use crate::controller::Role;
use crate::replica::DiskStatus;
use leasehold_types::ControllerEpoch;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The registry of one broker.
pub fn registry(status: Arc<Status>) -> Registry {
    let mut registry = Registry::with_prefix("leasehold");
    registry.register_collector(Box::new(Scrape(status)));
    registry
}

struct Scrape(Arc<Status>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        use crate::http::Source as _;
        let mut gauge = |name: &str, help: &str, value: i64| {
            let metric = ConstGauge::new(value);
            let described = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(described)
        };
        gauge(
            "ready",
            "Whether this broker serves clients",
            i64::from(self.0.ready().is_ok()),
        )?;
        let Some(parts) = self.0.parts() else {
            return Ok(());
        };
        let replicas = parts.replicas.status();
        let groups = parts.groups.stats();
        let clients = parts.clients.stats();
        let image = parts.member.image.borrow().clone();
        let role = *parts.role.borrow();
        let ControllerEpoch(epoch) = image.position.epoch;
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        gauge(
            "controller",
            "Whether this broker is the controller",
            i64::from(role.is_controller()),
        )?;
        gauge(
            "metadata_controller_epoch",
            "Controller epoch of the metadata that this broker has applied",
            epoch,
        )?;
        gauge(
            "metadata_seq",
            "Head write that this broker has applied",
            i64::try_from(image.position.seq.0).unwrap_or(i64::MAX),
        )?;
        gauge(
            "brokers_fenced",
            "Brokers of the cluster that are fenced",
            number(image.brokers.values().filter(|b| b.fenced).count()),
        )?;
        let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
        gauge(
            "partitions_without_leader",
            "Partitions of the cluster without a leader, by the metadata that this broker has applied",
            number(partitions.filter(|p| p.leader.is_none()).count()),
        )?;
        gauge(
            "metadata_frozen",
            "Whether this broker is the controller and decides nothing: brokers hold more than the head",
            i64::from(matches!(role, Role::Controller { frozen: true, .. })),
        )?;
        gauge(
            "partitions",
            "Replicas on this broker",
            number(replicas.partitions.len()),
        )?;
        gauge(
            "partitions_led",
            "Partitions that this broker leads",
            number(replicas.leaders),
        )?;
        gauge(
            "partitions_under_replicated",
            "Led here, with fewer in sync than assigned",
            number(replicas.under_replicated),
        )?;
        gauge(
            "partitions_under_min_isr",
            "Led here, with fewer in sync than acks=all needs",
            number(replicas.under_min_isr),
        )?;
        gauge(
            "partitions_offline",
            "Replicas here whose partition has no leader or that are out of service",
            number(replicas.offline),
        )?;
        let size = replicas
            .partitions
            .iter()
            .map(|p| p.size_bytes)
            .sum::<u64>();
        gauge(
            "log_size_bytes",
            "Size of all logs",
            i64::try_from(size).unwrap_or(i64::MAX),
        )?;
        let led = replicas.partitions.iter().filter(|p| p.role == "leader");
        gauge(
            "transactions_open",
            "Transactions that are open in partitions led here, each counted once per partition",
            number(led.map(|p| p.open_transactions).sum()),
        )?;
        let disks = parts.replicas.disks().status();
        gauge(
            "log_dirs_offline",
            "Log directories of this broker that are offline",
            number(disks.iter().filter(|disk| !disk.online).count()),
        )?;
        gauge(
            "groups",
            "Consumer groups coordinated here",
            number(groups.groups),
        )?;
        gauge(
            "group_members",
            "Members of those groups",
            number(groups.members),
        )?;
        gauge(
            "transactional_ids",
            "Transactional ids coordinated here",
            number(parts.transactions.stats().transactional_ids),
        )?;
        gauge(
            "connections",
            "Client connections",
            number(clients.connections),
        )?;
        gauge(
            "request_memory_bytes",
            "Memory taken by client requests",
            number(clients.request_memory),
        )?;
        per_directory(
            &mut encoder,
            &disks,
            "log_dir_online",
            "Whether the log directory is in service",
            |disk| i64::from(disk.online),
        )?;
        per_directory(
            &mut encoder,
            &disks,
            "log_dir_free_bytes",
            "Free bytes of the log directory's disk, where log.dir.min.free.bytes is not 0",
            |disk| {
                disk.free_bytes
                    .map_or(-1, |free| i64::try_from(free).unwrap_or(i64::MAX))
            },
        )?;
        per_directory(
            &mut encoder,
            &disks,
            "log_dir_nearly_full",
            "Whether records are refused because fewer bytes are free than log.dir.min.free.bytes",
            |disk| i64::from(disk.nearly_full),
        )?;
        let me = image.broker(parts.member.broker);
        let mut described = encoder.encode_descriptor(
            "listener_addressed",
            "Whether it is known how clients reach this broker through the further listener; if not, its answers leave this broker out",
            None,
            MetricType::Gauge,
        )?;
        for opened in &parts.listeners {
            let known = me.and_then(|me| me.endpoint(Some(&opened.name)));
            let labels = [("listener", opened.name.as_str())];
            ConstGauge::new(i64::from(known.is_some()))
                .encode(described.encode_family(&labels)?)?;
        }
        let mut counter = |name: &str, help: &str, value: u64| {
            let metric = ConstCounter::new(value);
            let described = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(described)
        };
        let counters = parts.replicas.counters();
        counter(
            "bytes_in",
            "Bytes of record batches appended for producers",
            counters.bytes_in.get(),
        )?;
        counter(
            "batches_in",
            "Record batches appended for producers",
            counters.batches_in.get(),
        )?;
        counter(
            "bytes_out",
            "Bytes of record batches sent to clients",
            counters.bytes_out.get(),
        )?;
        counter(
            "replication_bytes_in",
            "Bytes copied from leaders",
            counters.replication_bytes_in.get(),
        )?;
        counter(
            "replication_bytes_out",
            "Bytes sent to followers",
            counters.replication_bytes_out.get(),
        )?;
        counter(
            "isr_shrinks",
            "ISR changes that took a member out",
            counters.isr_shrinks.get(),
        )?;
        counter(
            "isr_expands",
            "ISR changes that brought a member in",
            counters.isr_expands.get(),
        )?;
        counter(
            "log_truncations",
            "Logs cut because they had parted from their leader's",
            counters.truncations.get(),
        )?;
        counter(
            "log_cleaner_runs",
            "Logs compacted",
            counters.cleaner_runs.get(),
        )?;
        counter(
            "log_cleaner_bytes_before",
            "Bytes of the segments that compaction looked at",
            counters.cleaner_bytes_before.get(),
        )?;
        counter(
            "log_cleaner_bytes_after",
            "Bytes that were left of them",
            counters.cleaner_bytes_after.get(),
        )?;
        counter(
            "log_cleaner_failures",
            "Compactions that failed; the log stays as it was",
            counters.cleaner_failures.get(),
        )?;
        counter(
            "connections_accepted",
            "Client connections accepted",
            clients.accepted,
        )?;
        counter(
            "connections_refused",
            "Client connections closed because there were too many",
            clients.refused,
        )?;
        counter(
            "connection_faults",
            "Client connections closed for malformed, oversized or slow input",
            clients.faults,
        )?;
        Ok(())
    }
}

/// One gauge with a value for each log directory.
fn per_directory(
    encoder: &mut DescriptorEncoder<'_>,
    disks: &[DiskStatus],
    name: &str,
    help: &str,
    value: impl Fn(&DiskStatus) -> i64,
) -> fmt::Result {
    let mut described = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for disk in disks {
        let labels = [("directory", disk.path.display().to_string())];
        ConstGauge::new(value(disk)).encode(described.encode_family(&labels)?)?;
    }
    Ok(())
}
