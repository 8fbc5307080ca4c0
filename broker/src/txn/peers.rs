//! Calls to other brokers' internal listeners: one call per connection at a time, so that a slow answer
//! holds up nobody else's; connections are kept for the next call.
//!
//! Promise: a call ends when the metadata says that the broker it went to is gone, not later.

use crate::internal;
use crate::session::address_of;
use async_trait::async_trait;
use leasehold_metadata::image::Image;
use leasehold_types::seams::HashMap;
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use leasehold_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use leasehold_wire::kafka::protocol::Request;
use leasehold_wire::{Client, ClientError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a broker may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may take to answer: a marker is answered once it is replicated, within Kafka's
/// `request.timeout.ms`, a little before this.
const MARKERS: Duration = Duration::from_secs(31);
/// How long a producer is kept waiting for the question whether its partition is in its transaction.
const VERIFICATION: Duration = Duration::from_secs(5);
/// Connections kept per broker while nobody needs them.
const KEPT: usize = 4;

/// The version of WriteTxnMarkers between brokers.
pub const MARKERS_VERSION: i16 = 1;
/// The version of AddPartitionsToTxn between brokers: the first that can only verify.
pub const VERIFY_VERSION: i16 = 4;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("broker {0} is not there")]
    Gone(BrokerId),
}

/// What transactions ask of other brokers.
#[async_trait]
pub trait Lines: Send + Sync + 'static {
    async fn write_markers(
        &self,
        to: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, CallFailed>;

    async fn verify(
        &self,
        to: BrokerId,
        request: AddPartitionsToTxnRequest,
    ) -> Result<AddPartitionsToTxnResponse, CallFailed>;
}

/// Lines over TCP.
pub struct Peers {
    cluster_id: ClusterId,
    image: watch::Receiver<Arc<Image>>,
    idle: Mutex<HashMap<BrokerId, (Incarnation, Vec<Client>)>>,
}

impl Peers {
    /// Lines to the brokers of `image`.
    pub fn new(cluster_id: ClusterId, image: watch::Receiver<Arc<Image>>) -> Self {
        Self {
            cluster_id,
            image,
            idle: Mutex::default(),
        }
    }

    async fn call<R: Request>(
        &self,
        to: BrokerId,
        request: &R,
        (version, limit): (i16, Duration),
    ) -> Result<R::Response, CallFailed> {
        let broker = self.image.borrow().broker(to).cloned();
        let broker = broker.ok_or(CallFailed::Gone(to))?;
        let address = address_of(&broker.internal);
        let mut image = self.image.clone();
        let there = |image: &Arc<Image>| {
            let now = image.broker(to);
            now.is_some_and(|now| now.incarnation == broker.incarnation && !now.fenced)
        };
        let gone = async {
            // The image outlives whoever calls.
            let _ = image.wait_for(|image| !there(image)).await;
        };
        tokio::select! {
            biased;
            answer = self.ask(to, broker.incarnation, &address, request, (version, limit)) => answer,
            () = gone => Err(CallFailed::Gone(to)),
        }
    }

    async fn ask<R: Request>(
        &self,
        to: BrokerId,
        incarnation: Incarnation,
        address: &str,
        request: &R,
        (version, limit): (i16, Duration),
    ) -> Result<R::Response, CallFailed> {
        if let Some(client) = self.take(to, incarnation) {
            match client.call_within(request, version, limit).await {
                Ok(answer) => {
                    self.give_back(to, incarnation, client);
                    return Ok(answer);
                }
                // It may have ended for being idle. What is asked does no harm twice.
                Err(ClientError::Closed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let client = internal::connect(address, &self.cluster_id, CONNECT).await?;
        let answer = client.call_within(request, version, limit).await?;
        self.give_back(to, incarnation, client);
        Ok(answer)
    }

    fn take(&self, to: BrokerId, incarnation: Incarnation) -> Option<Client> {
        let mut idle = self.idle.lock();
        let (of, clients) = idle.get_mut(&to)?;
        if *of != incarnation {
            clients.clear();
        }
        clients.retain(|client| !client.is_closed());
        clients.pop()
    }

    fn give_back(&self, to: BrokerId, incarnation: Incarnation, client: Client) {
        let mut idle = self.idle.lock();
        let (of, clients) = idle.entry(to).or_insert((incarnation, Vec::new()));
        if *of != incarnation {
            *of = incarnation;
            clients.clear();
        }
        if clients.len() < KEPT {
            clients.push(client);
        }
    }
}

#[async_trait]
impl Lines for Peers {
    async fn write_markers(
        &self,
        to: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, CallFailed> {
        let how = (MARKERS_VERSION, MARKERS);
        self.call(to, &request, how).await
    }

    async fn verify(
        &self,
        to: BrokerId,
        request: AddPartitionsToTxnRequest,
    ) -> Result<AddPartitionsToTxnResponse, CallFailed> {
        let how = (VERIFY_VERSION, VERIFICATION);
        self.call(to, &request, how).await
    }
}
