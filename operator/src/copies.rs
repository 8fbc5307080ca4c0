//! Fetches the brokers' own copies of the metadata, over their HTTP ports.
//!
//! Promises: every broker is asked at once and within a bound of time and bytes; a broker that answers
//! that it never had a copy is told apart from one that does not answer.

use crate::cluster::fetch::BrokerPod;
use crate::cluster::names::HTTP_PORT;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use leasehold_metadata::head::copy::parse_copy;
use leasehold_metadata::image::Image;
use leasehold_types::{BrokerId, ClusterId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long one broker may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest copy: some millions of partitions.
const MAX_BYTES: usize = 512 << 20;

/// What the brokers told.
#[derive(Debug, Default)]
pub struct Copies {
    /// The image of each that answered; that of genesis for one that has no copy.
    pub told: BTreeMap<BrokerId, Image>,
    /// Why the others did not.
    pub silent: BTreeMap<BrokerId, String>,
}

/// Asks all of `pods`.
pub async fn fetch(pods: &[BrokerPod], cluster_id: &ClusterId) -> Copies {
    let asked = pods.iter().map(|pod| async move {
        let broker = BrokerId(pod.facts.ordinal);
        let answer = match &pod.address {
            None => Err("its pod has no address yet".to_owned()),
            Some(address) => tokio::time::timeout(LIMIT, one(address, cluster_id))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}"))),
        };
        (broker, answer)
    });
    let mut copies = Copies::default();
    for (broker, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(image) => drop(copies.told.insert(broker, image)),
            Err(why) => drop(copies.silent.insert(broker, why)),
        }
    }
    copies
}

async fn one(address: &str, cluster_id: &ClusterId) -> Result<Image, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect((address, HTTP_PORT as u16))
        .await
        .map_err(|e| text(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| text(&e))?;
    // It ends with the sender.
    let connection = tokio::spawn(connection);
    let request = Request::get("/metadata")
        .header("host", address)
        .body(Empty::<Bytes>::new())
        .map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|e| text(&e))?.to_bytes();
    drop(sender);
    connection.abort();
    match status {
        StatusCode::OK => {
            let copy = std::str::from_utf8(&body).map_err(|e| text(&e))?;
            let (image, _) = parse_copy(copy, Some(cluster_id)).map_err(|e| text(&e))?;
            Ok(image)
        }
        StatusCode::NOT_FOUND => Ok(Image::genesis(cluster_id.clone())),
        other => Err(format!("{other}: {}", String::from_utf8_lossy(&body))),
    }
}
