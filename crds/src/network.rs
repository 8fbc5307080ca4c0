//! Who may reach the brokers' pods: `spec.networkPolicy` of a Cluster, and the peers that a listener names.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The NetworkPolicy of a cluster's brokers. A change restarts nobody.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Whether there is one. It keeps everyone but the cluster's own brokers and the operator from the port on
    /// which brokers talk to each other, where Kubernetes' network enforces such policies.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// Who may read metrics and status on port 8080, besides the operator and the node itself. Default: everyone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics_from: Vec<Peer>,
}

fn yes() -> bool {
    true
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self {
            enabled: true,
            metrics_from: Vec::new(),
        }
    }
}

/// Who may reach a port, as in a NetworkPolicy: pods, by their labels and those of their namespaces, or addresses.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))").message("a peer is either an ipBlock, or pods by podSelector, namespaceSelector or both"))]
pub struct Peer {
    /// Pods: of the Cluster's namespace, or of those that `namespaceSelector` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Labels>,
    /// Namespaces; without `podSelector` all pods in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Labels>,
    /// Addresses, for those who are no pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// Labels that must all be there; none selects everything.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Labels {
    /// The labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// A range of addresses.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IpBlock {
    /// The range, such as `10.1.0.0/16`.
    #[x_kube(validation = Rule::new("isCIDR(self)").message("cidr must be a range of addresses such as 10.1.0.0/16"))]
    #[schemars(length(min = 1, max = 64))]
    pub cidr: String,
    /// Ranges within it that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(validation = Rule::new("self.all(range, isCIDR(range))").message("except must hold ranges of addresses such as 10.1.2.0/24"))]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub except: Vec<String>,
}
