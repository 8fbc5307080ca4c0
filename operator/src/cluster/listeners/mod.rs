//! Listeners: how clients come in, from inside the Kubernetes cluster and from outside.
//!
//! Each listener has a port of its own on the brokers, fixed at a pod's start: to add or remove one restarts the
//! brokers in turn. What clients are *told* is no part of the pod. The operator finds it ([`find`], pure) in the
//! Services and nodes ([`look`]) and tells the controller, which commits it ([`tell`]); the brokers hear of it
//! with the rest of the metadata within milliseconds. So no change of an address restarts a pod or concerns
//! another broker, a restarted broker keeps its addresses, and they outlive the operator. (The way of the rack, an
//! annotation that the broker reads from a file, would be a minute late each time, since a kubelet renews such
//! files that often, and would begin anew with each pod.)

pub mod check;
pub mod find;
pub mod look;
pub mod tell;

use leasehold_crds::{ListenerKind, ListenerSpec};
use leasehold_types::ListenerName;

/// The name of the listener that is there where none of type `Internal` is asked for.
pub const DEFAULT: &str = "internal";

/// The listeners of a valid Cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Listeners {
    /// The port of the main one, of type `Internal`: the first that is asked for, else [`DEFAULT`].
    pub main_port: i32,
    /// Its name.
    pub main: String,
    /// All others.
    pub further: Vec<Further>,
    /// Whether `spec.listeners` says anything.
    pub asked: bool,
}

impl Listeners {
    /// Those that are reached from outside the Kubernetes cluster.
    pub fn external(&self) -> impl Iterator<Item = &Further> {
        self.further
            .iter()
            .filter(|listener| listener.spec.kind != ListenerKind::Internal)
    }
}

/// A listener beside the main one.
#[derive(Clone, Debug, PartialEq)]
pub struct Further {
    pub name: ListenerName,
    pub spec: ListenerSpec,
}

impl Further {
    /// The host that is asked for, for one broker.
    pub fn host(&self, broker: i32) -> Option<String> {
        let host = self.spec.host.as_ref()?;
        Some(host.replace(BROKER, &broker.to_string()))
    }

    /// Whether one name is asked for all brokers.
    pub fn has_common_host(&self) -> bool {
        let host = self.spec.host.as_ref();
        host.is_some_and(|host| !host.contains(BROKER))
    }
}

/// Stands for a broker's number in hosts and annotations.
pub const BROKER: &str = "{broker}";
