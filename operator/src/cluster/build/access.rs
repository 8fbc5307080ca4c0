//! What a broker may do with the Kubernetes API: its own metadata and its own Lease.
//!
//! RBAC limits by name what can be limited by name. It cannot for `create`, nor for chunks, whose
//! names carry nonces; the chart's ValidatingAdmissionPolicy holds those writes to the cluster's own
//! objects. Reads of ConfigMaps in the namespace remain possible, which docs/ says.

use super::super::names;
use super::super::validate::ValidCluster;
use super::owned;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

fn rule(group: &str, resource: &str, name: Option<String>, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: name.map(|name| vec![name]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

pub(super) fn service_account(cluster: &ValidCluster) -> ServiceAccount {
    ServiceAccount {
        metadata: owned(cluster, names::service_account(&cluster.name)),
        ..ServiceAccount::default()
    }
}

pub(super) fn role(cluster: &ValidCluster) -> Role {
    let head = Some(names::head(&cluster.name));
    let lease = Some(names::lease(&cluster.name));
    Role {
        metadata: owned(cluster, names::service_account(&cluster.name)),
        rules: Some(vec![
            rule("", "configmaps", head, &["get", "patch", "watch"]),
            rule("", "configmaps", None, &["get", "list", "create", "delete"]),
            rule(
                "coordination.k8s.io",
                "leases",
                lease,
                &["get", "update", "watch", "list"],
            ),
            rule("coordination.k8s.io", "leases", None, &["create"]),
        ]),
    }
}

pub(super) fn role_binding(cluster: &ValidCluster) -> RoleBinding {
    let account = names::service_account(&cluster.name);
    RoleBinding {
        metadata: owned(cluster, account.clone()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: account.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: account,
            namespace: Some(cluster.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
