//! The HTTP port: probes, metrics and status, apart from the data port and from the API server.
//!
//! - `/livez` answers while the process runs its tasks; it depends on nothing else.
//! - `/startupz` is 200 once log recovery is over and the listeners are bound.
//! - `/readyz` is 200 while clients are served; otherwise 503 and one reason per line.
//! - `/metrics` is Prometheus' text format; `/status` is JSON for people and tests.
//! - `/groups` is JSON too: the consumer groups coordinated here and what they have committed; asked of every
//!   broker, and held against the high watermarks in `/status`, it gives the lag.
//! - `/metadata` is this broker's own copy of the metadata, from which the operator mends a lost head; it
//!   is there while the broker still waits for one.
//!
//! Nothing here but `/metadata` reads a disk or a socket: every answer comes from memory, so a probe cannot
//! hang.

use futures::future::BoxFuture;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use warp::Filter;
use warp::http::{Response, StatusCode};

/// Where the answers come from. All calls but `groups` are quick and never block.
pub trait Source: Send + Sync + 'static {
    /// `Err` holds one line per reason why start-up is not over.
    fn started(&self) -> Result<(), Vec<String>>;
    /// `Err` holds one line per reason why clients should not come here.
    fn ready(&self) -> Result<(), Vec<String>>;
    /// What this broker is and does, for `/status`.
    fn status(&self) -> serde_json::Value;
    /// The consumer groups coordinated here, for `/groups`. May wait for the coordinator's own tasks.
    fn groups(&self) -> BoxFuture<'static, serde_json::Value>;
    /// The file with this broker's copy of the metadata.
    fn metadata_copy(&self) -> PathBuf;
}

/// Serves `source` and `registry` on an already bound `listener` until the future is dropped.
pub fn serve(
    listener: tokio::net::TcpListener,
    source: Arc<dyn Source>,
    registry: Arc<Registry>,
) -> BoxFuture<'static, ()> {
    let livez = warp::path!("livez").map(|| text(StatusCode::OK, "ok\n".to_owned()));
    let for_startup = source.clone();
    let startupz = warp::path!("startupz").map(move || probe(for_startup.started()));
    let for_ready = source.clone();
    let readyz = warp::path!("readyz").map(move || probe(for_ready.ready()));
    let copy_at = source.metadata_copy();
    let metadata = warp::path!("metadata").then(move || copy(copy_at.clone()));
    let of_groups = source.clone();
    let groups = warp::path!("groups").then(move || {
        let groups = of_groups.groups();
        async move { respond(StatusCode::OK, "application/json", groups.await.to_string()) }
    });
    let status = warp::path!("status").map(move || {
        let body = serde_json::to_string_pretty(&source.status())
            .unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()));
        respond(StatusCode::OK, "application/json", body)
    });
    let metrics = warp::path!("metrics").map(move || {
        let mut body = String::new();
        match encode(&mut body, &registry) {
            Ok(()) => respond(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body,
            ),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    });
    let probes = livez.or(startupz).or(readyz);
    let routes = warp::get().and(probes.or(status).or(groups).or(metrics).or(metadata));
    Box::pin(warp::serve(routes).incoming(listener).run())
}

/// Binds the HTTP port. The error names the address.
pub async fn bind(address: &str) -> anyhow::Result<(tokio::net::TcpListener, SocketAddr)> {
    use anyhow::Context as _;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen for HTTP on {address}; is the port taken?"))?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

async fn copy(path: PathBuf) -> Response<String> {
    match tokio::fs::read_to_string(&path).await {
        Ok(copy) => respond(StatusCode::OK, "application/jsonl", copy),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let why = "this broker has no copy of the metadata yet\n";
            text(StatusCode::NOT_FOUND, why.to_owned())
        }
        Err(error) => {
            let why = format!("{}: {error}\n", path.display());
            text(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

fn probe(result: Result<(), Vec<String>>) -> Response<String> {
    match result {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}

fn text(status: StatusCode, body: String) -> Response<String> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        warp::http::header::CONTENT_TYPE,
        warp::http::HeaderValue::from_static(content_type),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct NotYet(tempfile::TempDir);
    impl Source for NotYet {
        fn started(&self) -> Result<(), Vec<String>> {
            Ok(())
        }
        fn ready(&self) -> Result<(), Vec<String>> {
            Err(vec!["no controller answered yet".to_owned()])
        }
        fn status(&self) -> serde_json::Value {
            serde_json::json!({"broker": 1})
        }
        fn groups(&self) -> BoxFuture<'static, serde_json::Value> {
            Box::pin(async { serde_json::json!({"groups": []}) })
        }
        fn metadata_copy(&self) -> PathBuf {
            self.0.path().join("log")
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_says_why_not_while_liveness_holds() {
        let (listener, address) = bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let source = Arc::new(NotYet(folder));
        let server = tokio::spawn(serve(listener, source, Arc::default()));
        let ready = get(address, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 503") && ready.contains("no controller"),
            "{ready}"
        );
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/startupz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/status").await.contains("\"broker\": 1"));
        assert!(get(address, "/groups").await.contains("\"groups\""));
        assert!(get(address, "/metrics").await.contains("# EOF"));
        let none = get(address, "/metadata").await;
        assert!(none.starts_with("HTTP/1.1 404"), "{none}");
        std::fs::write(&file, "a copy\n").unwrap();
        assert!(get(address, "/metadata").await.ends_with("a copy\n"));
        server.abort();
    }
}
