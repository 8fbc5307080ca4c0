//! A member of a group.

use super::effects::Token;
use crate::group::types::{JoinRequest, Protocol};
use bytes::Bytes;
use std::sync::Arc;

/// A member, as it last joined.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: Arc<str>,
    pub instance: Option<Arc<str>>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    pub(super) awaiting_join: Option<Token>,
    pub(super) awaiting_sync: Option<Token>,
    /// Has not been in any generation yet: its session may end even while its join is parked.
    pub(super) is_new: bool,
}

impl Member {
    pub(super) fn joining(id: Arc<str>, request: &JoinRequest, token: Token) -> Self {
        let mut member = Self {
            id,
            instance: request.instance_id.as_deref().map(Arc::from),
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
        };
        member.take(request);
        member
    }

    /// Takes over what a newer join says.
    pub(super) fn take(&mut self, request: &JoinRequest) {
        self.client_id.clone_from(&request.client_id);
        self.client_host.clone_from(&request.client_host);
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = rebalance_timeout(request);
        self.protocols = distinct(&request.protocols);
    }

    /// Whether a join with `protocols` changes nothing about this member.
    pub(super) fn matches(&self, protocols: &[Protocol]) -> bool {
        self.protocols == distinct(protocols)
    }

    /// The member's metadata under `protocol`; empty if it has none.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let named = self.protocols.iter().find(|p| Some(&*p.name) == protocol);
        named.map(|p| p.metadata.clone()).unwrap_or_default()
    }

    /// Whether the member needs no heartbeat, because we owe it an answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(super) fn session_ms(&self) -> u64 {
        millis(self.session_timeout_ms)
    }
}

/// A timeout from the wire; a negative one is over at once.
pub(super) fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

/// JoinGroup v0 has no rebalance timeout: the session timeout serves as both.
fn rebalance_timeout(request: &JoinRequest) -> i32 {
    match request.rebalance_timeout_ms {
        timeout @ 0.. => timeout,
        _ => request.session_timeout_ms,
    }
}

/// The first of each name, copied out of the request's frame, which must not stay in memory.
fn distinct(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut kept: Vec<Protocol> = Vec::new();
    for protocol in protocols {
        if !kept.iter().any(|other| other.name == protocol.name) {
            kept.push(Protocol {
                name: protocol.name.clone(),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            });
        }
    }
    kept
}
