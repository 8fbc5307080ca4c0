# A node: a bridge, a containerd and a kubelet of its own, on the one machine. Sourced.
# shellcheck shell=bash

start_containerd() { # node
  local home=$state/node$1
  mkdir -p "$home/cni" "$home/opt" "$runtime/node$1"
  cat >"$home/cni/10-bridge.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "leasehold-node$1", "plugins": [
  {"type": "bridge", "bridge": "lhnode$1", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$home/addresses",
            "ranges": [[{"subnet": "$(node_subnet "$1")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
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
  netns_mounts_under_state_dir = true
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
    node_ctr "$1" version
}

# Logs have a folder per node: a kubelet deletes those of pods that it does not know.
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
podLogsDir: $home/pod-logs
EOF
  start "kubelet$1" "$bin/kubelet" --config "$home/kubelet.yaml" --kubeconfig "$state/node$1.kubeconfig" \
    --hostname-override "node$1" --node-ip "$(node_address "$1")" --root-dir "$home/kubelet" \
    --cert-dir "$home/kubelet-pki" \
    --node-labels "topology.kubernetes.io/zone=$(node_zone "$1"),topology.kubernetes.io/region=test"
}

# Whatever its folder, every kubelet listens at one path below /var/lib/kubelet/device-plugins: of two that begin at once
# one may find it taken, and ends. While it is waited for, it is begun again.
kubelet_serves() { # node
  start_kubelet "$1"
  kubelet_healthy "$1"
}

node_ready() { # node
  start_kubelet "$1"
  kube wait --for=condition=Ready "node/node$1" --timeout=1s
}

# The part of a node that pods need before there is a kubelet.
start_node() { # node
  make_bridge "$1"
  make_cgroups "$1"
  start_containerd "$1"
}

# What the API says of a node may be from before it went away; the kubelet itself knows.
kubelet_healthy() { # node
  curl --silent --fail --max-time 2 "http://127.0.0.1:$((10248 + ($1 - 1) * 10))/healthz"
}

# As when the machine loses its power: the kubelet, containerd and every pod at once. Disks stay.
kill_node() { # node
  stop "kubelet$1" KILL
  stop "containerd$1" KILL
  kill_pods "$1"
  kill_shims "$1"
}

# A shim outlives its containerd. It is ours if it was started for our node's socket.
kill_shims() { # node
  local process
  for process in $(shims "$1"); do kill -KILL "$process" 2>/dev/null || true; done
  wait_for "the end of the shims of node$1" 10 no_shim "$1"
}

shims() { # node
  local process
  for process in /proc/[0-9]*; do
    [[ $(readlink "$process/exe" 2>/dev/null) == */containerd-shim-runc-v2* ]] || continue
    if tr '\0' '\n' <"$process/cmdline" 2>/dev/null | grep -qxF "$(node_socket "$1")"; then echo "${process#/proc/}"; fi
  done
}

no_shim() { [ -z "$(shims "$1")" ]; }

# Everything of a node, its data included.
remove_node() { # node
  kill_node "$1"
  unmount_below "$state/node$1"
  unmount_below "$runtime/node$1"
  ip link del "lhnode$1" 2>/dev/null || true
  remove_cgroups "$1"
  rm -rf --one-file-system "${state:?}/node$1" "${runtime:?}/node$1"
}
