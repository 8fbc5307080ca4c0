//! Enforces NetworkPolicies on the tests' own Kubernetes, whose network does not.
//!
//! What the API server has of policies, pods and namespaces becomes rules of the machine's packet filter: all pods of all
//! nodes reach each other through it. Promises: a pod that no policy selects is open; one that is selected takes what
//! some policy allows, answers to what it asked itself, and what comes from its node; dropped, all rules are gone.
//! Only ingress, labels that must match, plain ranges and numbered ports are known here: anything else is a panic, not a guess.

use crate::cluster::Kube;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// `tests/kubernetes/down` takes chains of Kubernetes away, also after a run that was killed.
const CHAIN: &str = "KUBE-LEASEHOLD-POLICY";
/// How soon a changed pod or policy counts.
const STEP: Duration = Duration::from_millis(300);

/// Policies are enforced while this lives.
pub struct Enforcer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Enforcer {
    /// From when this returns, the policies of now are in force.
    pub fn start(kube: &Kube) -> Self {
        let client = kube.client();
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let mut known = kube.block_on(rules(&client)).expect("the API server");
        load(&known);
        iptables(&["-I", "FORWARD", "-j", CHAIN]);
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                match runtime.block_on(rules(&client)) {
                    Ok(now) if now != known => {
                        load(&now);
                        known = now;
                    }
                    Ok(_) => {}
                    Err(error) => eprintln!("the policies of before stay in force: {error}"),
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        iptables(&["-D", "FORWARD", "-j", CHAIN]);
        iptables(&["-F", CHAIN]);
        iptables(&["-X", CHAIN]);
        if matches!(ended, Some(Err(_))) && !std::thread::panicking() {
            panic!("the policies were not enforced to the end");
        }
    }
}

fn iptables(args: &[&str]) {
    let output = Command::new("iptables").arg("--wait").args(args).output();
    let output = output.expect("iptables starts");
    if !output.status.success() {
        eprintln!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// All at once: no packet sees half of the rules.
fn load(rules: &str) {
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iptables-restore starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(rules.as_bytes()).expect("the rules");
    drop(stdin);
    assert!(child.wait().expect("its end").success(), "{rules}");
}

async fn rules(client: &Client) -> kube::Result<String> {
    let all = ListParams::default();
    let policies: Api<NetworkPolicy> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client.clone());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let world = World {
        policies: policies.list(&all).await?.items,
        pods: pods.list(&all).await?.items,
        namespaces: namespaces.list(&all).await?.items,
    };
    Ok(world.rules())
}

struct World {
    policies: Vec<NetworkPolicy>,
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
}

impl World {
    fn rules(&self) -> String {
        let mut text = format!(
            "*filter\n:{CHAIN} - [0:0]\n-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n"
        );
        for pod in &self.pods {
            let Some(address) = address(pod) else {
                continue;
            };
            let policies: Vec<_> = self.policies.iter().filter(|p| selects(p, pod)).collect();
            let allowed: BTreeSet<String> = policies.iter().flat_map(|p| self.allowed(p)).collect();
            for what in &allowed {
                writeln!(text, "-A {CHAIN} -d {address} {what} -j RETURN").expect("text");
            }
            if !policies.is_empty() {
                writeln!(text, "-A {CHAIN} -d {address} -j DROP").expect("text");
            }
        }
        text + "COMMIT\n"
    }

    /// What a policy lets in, as matches of the packet filter.
    fn allowed(&self, policy: &NetworkPolicy) -> Vec<String> {
        let spec = policy.spec.as_ref().expect("a spec");
        assert_eq!(spec.policy_types, Some(vec!["Ingress".to_owned()]));
        let mut allowed = Vec::new();
        for rule in spec.ingress.iter().flatten() {
            let sources = rule.from.as_ref().map_or(vec![String::new()], |peers| {
                let home = policy.namespace().unwrap_or_default();
                let sources = peers.iter().flat_map(|peer| self.sources(&home, peer));
                sources.map(|source| format!("-s {source} ")).collect()
            });
            for port in rule.ports.as_ref().expect("every rule names its ports") {
                let Some(IntOrString::Int(number)) = port.port else {
                    panic!("a port without a number: {port:?}");
                };
                let one = |source: &String| format!("{source}-p tcp --dport {number}");
                allowed.extend(sources.iter().map(one));
            }
        }
        allowed
    }

    fn sources(&self, home: &str, peer: &NetworkPolicyPeer) -> Vec<String> {
        if let Some(block) = &peer.ip_block {
            assert_eq!(block.except, None, "not known here");
            return vec![block.cidr.clone()];
        }
        let everyone = LabelSelector::default();
        let labels = peer.pod_selector.as_ref().unwrap_or(&everyone);
        let is_of = |pod: &&Pod| {
            let namespace = pod.namespace().unwrap_or_default();
            let in_reach = match &peer.namespace_selector {
                None => namespace == home,
                Some(wanted) => self
                    .namespaces
                    .iter()
                    .filter(|n| n.name_any() == namespace)
                    .any(|n| fits(wanted, n.labels())),
            };
            in_reach && fits(labels, pod.labels())
        };
        let pods = self.pods.iter().filter(is_of);
        pods.filter_map(address).collect()
    }
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let everyone = LabelSelector::default();
    let spec = policy.spec.as_ref().expect("a spec");
    let selector = spec.pod_selector.as_ref().unwrap_or(&everyone);
    policy.namespace() == pod.namespace() && fits(selector, pod.labels())
}

fn fits(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    assert_eq!(selector.match_expressions, None, "not known here");
    let mut wanted = selector.match_labels.iter().flatten();
    wanted.all(|(key, value)| labels.get(key) == Some(value))
}

/// The pod's own address: one that is over has lost it, one in its node's network never had one.
fn address(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let over = ["Succeeded", "Failed"].contains(&status.phase.as_deref().unwrap_or_default());
    let of_node = pod
        .spec
        .as_ref()
        .is_some_and(|s| s.host_network == Some(true));
    status.pod_ip.clone().filter(|_| !over && !of_node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        let pod = |namespace: &str, ip: &str, label: &str| {
            format!(
                "{{metadata: {{name: p, namespace: {namespace}, labels: {{a: {label}}}}}, status: {{podIP: {ip}}}}}"
            )
        };
        let pods = [
            pod("n", "10.0.0.1", "x"),
            pod("n", "10.0.0.2", "y"),
            pod("m", "10.0.0.3", "y"),
        ];
        World {
            policies: vec![serde_yaml::from_str(
                "{metadata: {name: q, namespace: n}, spec: {podSelector: {matchLabels: {a: x}}, policyTypes: [Ingress], ingress: [
                    {from: [{podSelector: {matchLabels: {a: y}}}], ports: [{port: 1, protocol: TCP}]},
                    {from: [{namespaceSelector: {matchLabels: {k: m}}}], ports: [{port: 2, protocol: TCP}]},
                    {ports: [{port: 3, protocol: TCP}]}]}}",
            )
            .expect("a policy")],
            pods: pods.iter().map(|p| serde_yaml::from_str(p).expect("a pod")).collect(),
            namespaces: vec![serde_yaml::from_str("{metadata: {name: m, labels: {k: m}}}").expect("a namespace")],
        }
    }

    #[test]
    fn a_selected_pod_takes_what_is_allowed_and_nothing_else() {
        let rules = world().rules();
        let rules: Vec<&str> = rules.lines().filter(|line| line.contains("-d ")).collect();
        let of = |what: &str| format!("-A {CHAIN} -d 10.0.0.1 {what}");
        assert_eq!(
            rules,
            [
                of("-p tcp --dport 3 -j RETURN"),
                of("-s 10.0.0.2 -p tcp --dport 1 -j RETURN"),
                of("-s 10.0.0.3 -p tcp --dport 2 -j RETURN"),
                of("-j DROP"),
            ]
        );
    }
}
