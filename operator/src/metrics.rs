//! What the operator counts, for `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByResult {
    kind: &'static str,
    result: &'static str,
}

/// The metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ByResult, Counter>,
    durations: Family<ByKind, Histogram>,
    status_writes: Family<ByResult, Counter>,
    status_waiting: Gauge,
    events: Family<ByResult, Counter>,
    acting: Gauge,
    clusters: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 8))
            }),
            status_writes: Family::default(),
            status_waiting: Gauge::default(),
            events: Family::default(),
            acting: Gauge::default(),
            clusters: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("leasehold_operator");
        registry.register(
            "reconciles",
            "Reconciles by kind and result",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "How long reconciles took",
            metrics.durations.clone(),
        );
        registry.register(
            "status_writes",
            "Writes of a status by result",
            metrics.status_writes.clone(),
        );
        registry.register(
            "status_waiting",
            "Statuses that wait to be written",
            metrics.status_waiting.clone(),
        );
        registry.register(
            "events",
            "Events by result: published, failed, dropped by the rate bound",
            metrics.events.clone(),
        );
        registry.register(
            "acting",
            "1 on the replica that acts",
            metrics.acting.clone(),
        );
        registry.register(
            "followed_clusters",
            "Clusters whose metadata is followed",
            metrics.clusters.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

fn result(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}

impl Metrics {
    pub fn reconciled(&self, kind: &'static str, ok: bool, took: Duration) {
        self.reconciles
            .get_or_create(&ByResult {
                kind,
                result: result(ok),
            })
            .inc();
        self.durations
            .get_or_create(&ByKind { kind })
            .observe(took.as_secs_f64());
    }

    pub fn status_written(&self, ok: bool) {
        self.status_writes
            .get_or_create(&ByResult {
                kind: "status",
                result: result(ok),
            })
            .inc();
    }

    pub fn status_waiting(&self, count: usize) {
        self.status_waiting
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn event(&self, result: &'static str) {
        self.events
            .get_or_create(&ByResult {
                kind: "event",
                result,
            })
            .inc();
    }

    pub fn acting(&self, acting: bool) {
        self.acting.set(i64::from(acting));
    }

    pub fn clusters(&self, count: usize) {
        self.clusters.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All of it in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _infallible = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn metrics_are_in_prometheus_format() {
        let metrics = super::Metrics::default();
        metrics.reconciled("Cluster", true, std::time::Duration::from_millis(3));
        let text = metrics.text();
        assert!(
            text.contains("leasehold_operator_reconciles_total{kind=\"Cluster\",result=\"ok\"} 1"),
            "{text}"
        );
    }
}
