# A node: a bridge, a containerd and a kubelet of its own, on the one machine. Sourced.
# shellcheck shell=bash

make_bridge() { # node
  local bridge=lhnode$1
  ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
  ip addr replace "$(node_address "$1")/21" dev "$bridge"
  ip link set "$bridge" up
}

make_cgroups() { # node: the kubelet wants its root to exist in every hierarchy
  local hierarchy
  for hierarchy in /sys/fs/cgroup/*/; do
    [ -f "$hierarchy/cgroup.procs" ] && [ "$hierarchy" != /sys/fs/cgroup/unified/ ] || continue
    mkdir -p "$hierarchy/leasehold-node$1"
    if [ -f "$hierarchy/cpuset.cpus" ]; then
      cat "$hierarchy/cpuset.cpus" >"$hierarchy/leasehold-node$1/cpuset.cpus"
      cat "$hierarchy/cpuset.mems" >"$hierarchy/leasehold-node$1/cpuset.mems"
    fi
  done
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then mkdir -p "/sys/fs/cgroup/leasehold-node$1"; fi
}

start_containerd() { # node
  local home=$state/node$1
  mkdir -p "$home/cni" "$home/opt" "$runtime/node$1"
  cat >"$home/cni/10-bridge.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "leasehold-node$1", "plugins": [
  {"type": "bridge", "bridge": "lhnode$1", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$home/addresses",
            "ranges": [[{"subnet": "${2}"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
  cat >"$home/containerd.toml" <<EOF
version = 2
root = "$home/containerd"
state = "$runtime/node$1/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$(node_socket "$1")"
[plugins."io.containerd.internal.v1.opt"]
  path = "$home/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$home/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
EOF
  start "containerd$1" containerd --config "$home/containerd.toml"
  wait_for "containerd of node$1 (see $logs/containerd$1.log)" 30 \
    ctr --address "$(node_socket "$1")" version
}

start_kubelet() { # node
  local home=$state/node$1
  cat >"$home/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/node$1.crt
tlsPrivateKeyFile: $pki/node$1.key
address: $(node_address "$1")
port: $((10250 + ($1 - 1) * 10))
healthzPort: $((10248 + ($1 - 1) * 10))
containerRuntimeEndpoint: unix://$(node_socket "$1")
clusterDNS: [$dns_address]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
cgroupRoot: /leasehold-node$1
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
resolvConf: /dev/null
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
syncFrequency: 10s
EOF
  start "kubelet$1" "$bin/kubelet" --config "$home/kubelet.yaml" --kubeconfig "$state/node$1.kubeconfig" \
    --hostname-override "node$1" --node-ip "$(node_address "$1")" --root-dir "$home/kubelet" \
    --cert-dir "$home/kubelet-pki" \
    --node-labels "topology.kubernetes.io/zone=$(node_zone "$1"),topology.kubernetes.io/region=test"
}

start_node() { # node
  make_bridge "$1"
  make_cgroups "$1"
  local address
  address=$(node_address "$1")
  start_containerd "$1" "${address%.1}.0/21"
}

# Ends every container of a node through its containerd, then the node's own processes.
stop_node() { # node
  local home=$state/node$1 mount
  stop "kubelet$1"
  start_containerd "$1" "198.18.$((($1 - 1) * 8)).0/21" || say "containerd of node$1 does not start"
  local task ctr=(ctr --address "$(node_socket "$1")" --namespace k8s.io)
  for task in $("${ctr[@]}" task ls -q 2>/dev/null); do
    "${ctr[@]}" task kill --all --signal SIGKILL "$task" >/dev/null 2>&1 || true
  done
  wait_for "the end of all containers of node$1" 10 no_task_runs "${ctr[@]}" || true
  for task in $("${ctr[@]}" container ls -q 2>/dev/null); do
    "${ctr[@]}" task rm --force "$task" >/dev/null 2>&1 || true
    "${ctr[@]}" container rm "$task" >/dev/null 2>&1 || true
  done
  stop "containerd$1"
  # Shims that outlived their containerd carry this node's socket in their command line.
  local shim
  for shim in $(pgrep -f "containerd-shim-runc-v2 .*$(node_socket "$1")" || true); do kill -KILL "$shim" || true; done
  awk '{print $5}' /proc/self/mountinfo | { grep -E "^($home|$runtime/node$1)/" || true; } | sort -r |
    while read -r mount; do umount -l "$(printf '%b' "$mount")" || true; done
  rm -rf "$home/addresses" "$runtime/node$1"
  ip link del "lhnode$1" 2>/dev/null || true
  local cgroup
  find /sys/fs/cgroup -type d -path "*/leasehold-node$1*" -depth 2>/dev/null |
    while read -r cgroup; do rmdir "$cgroup" 2>/dev/null || true; done
}

no_task_runs() { ! "$@" task ls | grep -q RUNNING; }

# Network namespaces of pods that no one tears down any more.
remove_pod_networks() {
  local ns
  for ns in $(ip netns list 2>/dev/null | awk '/^cni-/{print $1}'); do ip netns del "$ns" || true; done
}
