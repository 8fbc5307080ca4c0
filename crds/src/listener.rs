//! `spec.listeners` of a Cluster, and what `status.listeners` tells of them.

use crate::network::Peer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One way for clients to come in.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'Internal' || (!has(self.host) && !has(self.externalTrafficPolicy) && !has(self.loadBalancerClass) && !has(self.annotations))").message("host, externalTrafficPolicy, loadBalancerClass and annotations are for listeners of type NodePort or LoadBalancer: take them off, or change the type"))]
#[x_kube(validation = Rule::new("self.type != 'LoadBalancer' || !has(self.host) || self.host.contains('{broker}')").message("each broker has a load balancer of its own: host must contain {broker}, such as broker-{broker}.kafka.example.com, or be left out for the address that the provider gives"))]
#[x_kube(validation = Rule::new("self.type == 'LoadBalancer' || !has(self.loadBalancerClass)").message("loadBalancerClass is for listeners of type LoadBalancer"))]
pub struct ListenerSpec {
    /// Its name: part of the names of its Services.
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("a listener's name is part of its Services' names: lower-case letters, digits and '-', beginning with a letter"))]
    #[schemars(length(min = 1, max = 11))]
    pub name: String,

    /// From where it is reached: `Internal`, from inside the Kubernetes cluster; `NodePort`, through a port of the nodes;
    /// `LoadBalancer`, through a load balancer of each broker's own.
    #[serde(rename = "type")]
    pub kind: ListenerKind,

    /// The brokers' own port of this listener, another for each. Clients of an `Internal` listener or a load balancer
    /// use it too; node ports are given out by Kubernetes.
    #[x_kube(validation = Rule::new("self != 8080 && self != 9091").message("the brokers use the ports 8080 and 9091 themselves: take another"))]
    #[schemars(range(min = 1024, max = 65_535))]
    pub port: i32,

    /// What clients use instead of the address that the operator finds (a node's ExternalIP, else its InternalIP; a load
    /// balancer's address). `{broker}` stands for the broker's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.replace('{broker}', '0').matches('^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$')").message("host must be a host name or an IP address without a port, such as kafka.example.com or broker-{broker}.kafka.example.com"))]
    #[schemars(length(min = 1, max = 200))]
    pub host: Option<String>,

    /// Which nodes pass on what comes to a broker. Default: `Local`, the broker's own node alone, without a detour and with
    /// the client's address; `Cluster`, every node, where `host` is one name for all brokers' node ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,

    /// The `loadBalancerClass` of the Services. Default: the Kubernetes cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,

    /// Annotations of the Services, for whoever provides load balancers or DNS names. `{broker}` in a value stands for the
    /// broker's number; such an annotation is not on the Service for the first connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::annotations")]
    pub annotations: BTreeMap<String, String>,

    /// Who may reach this listener, by the brokers' NetworkPolicy. Default: everyone. A change restarts nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub from: Vec<Peer>,
}

/// From where a listener is reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    Internal,
    NodePort,
    LoadBalancer,
}

/// Which nodes pass on what comes from outside.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    Local,
    Cluster,
}

impl TrafficPolicy {
    /// As Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Cluster => "Cluster",
        }
    }
}

/// How clients of a listener reach the brokers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    #[schemars(length(max = 11))]
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ListenerKind,
    /// What clients are given as `bootstrap.servers`; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub bootstrap: Option<String>,
    /// The brokers, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub brokers: Vec<ListenerBroker>,
}

/// How clients of a listener reach one broker.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListenerBroker {
    /// The broker's number.
    pub broker: i32,
    /// What clients are told; absent while that is not known, and the broker is in no answer of this listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub address: Option<String>,
    /// What its address, or another one, waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub waiting: Option<String>,
}
