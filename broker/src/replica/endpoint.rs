//! How a follower reaches its leader: Fetch v17 over the internal listener.

use super::image_view::LeaderAddress;
use super::types::{FetchEntry, FetchParams, FetchResult, PartitionKey};
use super::wire_fetch::FETCH_VERSION;
use crate::fetch_session::follower::FollowerSession;
use leasehold_types::ClusterId;
use leasehold_wire::{Client, ClientError, ClientOptions};
use std::time::Duration;

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the leader answered the fetch with error {0}")]
    Refused(leasehold_wire::ErrorCode),
    #[error("{0}")]
    Unreachable(String),
}

/// One leader, as its follower sees it.
#[async_trait::async_trait]
pub trait LeaderEndpoint: Send {
    /// Fetches. A partition without a result has nothing new. A call that is dropped leaves no connection
    /// with an unread answer behind.
    async fn fetch(
        &mut self,
        params: FetchParams,
        entries: Vec<FetchEntry>,
    ) -> Result<Vec<FetchResult>, EndpointError>;

    /// The last results of these did no good: they are to be given again, changed or not.
    fn repeat(&mut self, partitions: Vec<PartitionKey>);
}

/// Makes endpoints.
pub trait LeaderEndpoints: Send + Sync {
    /// An endpoint for `leader`; connects at its first fetch.
    fn to(&self, leader: &LeaderAddress) -> Box<dyn LeaderEndpoint>;
}

/// Endpoints over TCP.
pub struct TcpEndpoints {
    /// Rides as the client id; the listener refuses another cluster's.
    pub cluster_id: ClusterId,
    /// How long a leader may take beyond the fetch's own wait.
    pub timeout: Duration,
}

impl LeaderEndpoints for TcpEndpoints {
    fn to(&self, leader: &LeaderAddress) -> Box<dyn LeaderEndpoint> {
        let host = &leader.host;
        // An IPv6 address needs brackets before its port.
        let address = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{}", leader.port)
        } else {
            format!("{host}:{}", leader.port)
        };
        Box::new(TcpEndpoint {
            address,
            options: ClientOptions {
                client_id: Some(self.cluster_id.0.clone()),
                connect_timeout: self.timeout,
                request_timeout: self.timeout,
                ..ClientOptions::default()
            },
            client: None,
            session: FollowerSession::default(),
        })
    }
}

struct TcpEndpoint {
    address: String,
    options: ClientOptions,
    client: Option<Client>,
    session: FollowerSession,
}

#[async_trait::async_trait]
impl LeaderEndpoint for TcpEndpoint {
    async fn fetch(
        &mut self,
        params: FetchParams,
        entries: Vec<FetchEntry>,
    ) -> Result<Vec<FetchResult>, EndpointError> {
        // Taken out for the time of the call: if the call is dropped or fails, so is the connection.
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.address, self.options.clone()).await?,
        };
        let request = self.session.request(&params, &entries);
        let limit = params.max_wait + self.options.request_timeout;
        let response = client.call_within(&request, FETCH_VERSION, limit).await?;
        self.client = Some(client);
        self.session.take(response).map_err(EndpointError::Refused)
    }

    fn repeat(&mut self, partitions: Vec<PartitionKey>) {
        self.session.repeat(partitions);
    }
}
