//! What the HTTP port tells: whether the broker started, whether it serves, what it is and has.

use super::groups;
use super::listeners::{NOT_ADDRESSED, Opened};
use crate::config::BrokerConfig;
use crate::controller::Role;
use crate::group::GroupCoordinator;
use crate::http::Source;
use crate::replica::{ReplicaManager, status::ReplicaStatus};
use crate::server::Server;
use crate::session::find::holder_of;
use crate::session::{Membership, SessionStatus, copy_path};
use crate::txn::TxnCoordinator;
use futures::future::BoxFuture;
use leasehold_metadata::image::{Endpoint, Listeners};
use leasehold_metadata::store::LeaseRecord;
use leasehold_types::BrokerId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// The parts of a running broker that have something to tell.
pub struct Parts {
    pub member: Membership,
    pub session: watch::Receiver<SessionStatus>,
    pub role: watch::Receiver<Role>,
    pub lease: watch::Receiver<Option<LeaseRecord>>,
    pub replicas: Arc<ReplicaManager>,
    pub groups: Arc<GroupCoordinator>,
    pub transactions: Arc<TxnCoordinator>,
    pub clients: Arc<Server>,
    /// The further listeners for clients that are open.
    pub listeners: Vec<Opened>,
}

/// The endpoints of a broker's further listeners, by name; null where it is not known.
fn shown(listeners: &Listeners) -> BTreeMap<&str, Option<String>> {
    let text = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string);
    let each = listeners.iter();
    each.map(|(name, endpoint)| (name.as_str(), text(endpoint)))
        .collect()
}

/// Knows why the broker is not there yet, and what it is once it is.
pub struct Status {
    broker: BrokerId,
    config: Arc<BrokerConfig>,
    data: PathBuf,
    waiting: Mutex<String>,
    parts: OnceLock<Parts>,
}

impl Status {
    /// The status of a broker that begins to start, with its log directory.
    pub fn new(broker: BrokerId, config: Arc<BrokerConfig>, data: PathBuf) -> Self {
        Self {
            broker,
            config,
            data,
            waiting: Mutex::new("starting".to_owned()),
            parts: OnceLock::new(),
        }
    }

    /// What the start is waiting for now.
    pub fn waiting(&self, what: &str) {
        what.clone_into(&mut self.waiting.lock());
    }

    /// The start is over.
    pub fn running(&self, parts: Parts) {
        if self.parts.set(parts).is_err() {
            tracing::error!("the broker was started twice");
        }
    }

    /// The parts, once they exist.
    pub fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    fn reasons(&self, parts: &Parts) -> Vec<String> {
        let mut reasons = Vec::new();
        let session = parts.session.borrow().clone();
        if !session.registered {
            reasons.push("not registered with the controller".to_owned());
        }
        let image = parts.member.image.borrow().clone();
        let me = image.brokers.get(&self.broker);
        match me.filter(|me| me.incarnation == parts.member.incarnation) {
            None => {
                reasons.push("the metadata does not show this process as registered".to_owned())
            }
            // Without any controller nobody is worse off for being served here: the last word stands.
            Some(me) if me.fenced => {
                reasons.push("fenced: the controller has not admitted it to service".to_owned());
            }
            Some(me) if me.shutting_down => reasons.push("shutting down".to_owned()),
            Some(_) => {}
        }
        if let (false, Some(trouble)) = (reasons.is_empty(), session.trouble) {
            reasons.push(trouble);
        }
        reasons
    }
}

impl Source for Status {
    fn started(&self) -> Result<(), Vec<String>> {
        match self.parts.get() {
            Some(_) => Ok(()),
            None => Err(vec![self.waiting.lock().clone()]),
        }
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        self.started()?;
        let reasons = self
            .parts
            .get()
            .map(|parts| self.reasons(parts))
            .unwrap_or_default();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons)
        }
    }

    fn metadata_copy(&self) -> PathBuf {
        copy_path(&self.data)
    }

    fn groups(&self) -> BoxFuture<'static, Value> {
        let coordinator = self.parts.get().map(|parts| parts.groups.clone());
        Box::pin(async move {
            match coordinator {
                Some(coordinator) => groups::report(&coordinator).await,
                None => json!({"groups": [], "incomplete": "the broker is starting"}),
            }
        })
    }

    fn status(&self) -> Value {
        let Some(parts) = self.parts.get() else {
            return json!({"broker": self.broker, "starting": *self.waiting.lock()});
        };
        let image = parts.member.image.borrow().clone();
        let session = parts.session.borrow().clone();
        let role = *parts.role.borrow();
        let lease = parts.lease.borrow().clone();
        let holder = lease.as_ref().and_then(holder_of).map(|(holder, _)| holder);
        let confirmed = parts.member.health.last_confirmed().map(|at| at.elapsed());
        let brokers: Vec<Value> = image
            .brokers
            .values()
            .map(|b| {
                json!({
                    "broker": b.id, "incarnation": b.incarnation, "client": b.client.to_string(),
                    "listeners": shown(&b.listeners),
                    "rack": b.rack, "fenced": b.fenced, "shutting_down": b.shutting_down, "cordoned": b.cordoned,
                })
            })
            .collect();
        let listeners: Vec<Value> = parts
            .listeners
            .iter()
            .map(|opened| {
                let known = image
                    .broker(self.broker)
                    .and_then(|me| me.endpoint(Some(&opened.name)));
                json!({
                    "name": opened.name,
                    "listens": opened.address.to_string(),
                    "advertised": known.map(ToString::to_string),
                    "waiting": known.is_none().then_some(NOT_ADDRESSED),
                })
            })
            .collect();
        let ReplicaStatus {
            partitions,
            leaders,
            under_replicated,
            under_min_isr,
            offline,
        } = parts.replicas.status();
        json!({
            "broker": self.broker,
            "incarnation": parts.member.incarnation,
            "cluster_id": parts.member.cluster_id,
            "version": env!("CARGO_PKG_VERSION"),
            "role": match role {
                Role::Standby => "standby",
                Role::Claiming => "claiming",
                Role::Controller { frozen: false, .. } => "controller",
                Role::Controller { frozen: true, .. } => "frozen controller",
            },
            "controller": {
                "broker": holder.map(|holder| holder.broker),
                "incarnation": holder.map(|holder| holder.incarnation),
                "epoch": image.position.epoch,
            },
            "metadata": {
                "epoch": image.position.epoch,
                "seq": image.position.seq,
                "claim_id": image.position.claim_id,
                "confirmed_ms_ago": confirmed.as_ref().map(Duration::as_millis).map(|ms| ms as u64),
            },
            "session": {
                "registered": session.registered,
                "trouble": session.trouble,
                "frozen": session.frozen,
                "timeout_ms": self.config.broker_session_timeout_ms,
            },
            "listeners": listeners,
            "brokers": brokers,
            "leaders": leaders,
            "under_replicated": under_replicated,
            "under_min_isr": under_min_isr,
            "offline": offline,
            "log_dirs": parts.replicas.disks().status(),
            "partitions": partitions,
        })
    }
}
