//! Probes and metrics. No probe asks the API server: an outage there must not restart the operator.

use crate::metrics::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use warp::Filter as _;
use warp::http::StatusCode;

/// What the probes report.
#[derive(Clone, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Ready: this replica has reached the API server and acts or stands by.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, health: Health, metrics: Metrics) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| {
            anyhow::anyhow!("cannot listen on {address} for probes and metrics: {error}")
        })?;
    let live = warp::path!("livez").map(|| "ok\n".to_owned());
    let ready = warp::path!("readyz").map(move || {
        if health.is_ready() {
            warp::reply::with_status("ok\n".to_owned(), StatusCode::OK)
        } else {
            let why = "the operator's Lease could not be read yet\n";
            warp::reply::with_status(why.to_owned(), StatusCode::SERVICE_UNAVAILABLE)
        }
    });
    let numbers = warp::path!("metrics").map(move || {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        warp::reply::with_header(metrics.text(), "content-type", kind)
    });
    let routes = warp::get().and(live.or(ready).or(numbers));
    warp::serve(routes).incoming(listener).run().await;
    Ok(())
}
