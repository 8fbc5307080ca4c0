# What a cluster needs of the kernel and leaves in it: settings, bridges, cgroups, mounts, network
# namespaces, iptables rules. Everything made here carries our name or lies under our folders, and
# is found by that when it is removed, whether or not the run that made it ended well. Sourced.
# shellcheck shell=bash

# Settings of the machine, with what they were, for `down`.
prepare_kernel() {
  local saved=$state/kernel.before
  if [ ! -f "$saved" ]; then
    {
      echo "forward $(cat /proc/sys/net/ipv4/ip_forward)"
      echo "policy $(iptables -S FORWARD | awk '$1 == "-P" {print $3}')"
      echo "canaries $(iptables-save | grep -c '^:KUBE-KUBELET-CANARY' || true)"
    } >"$saved.part"
    mv "$saved.part" "$saved"
  fi
  echo 1 >/proc/sys/net/ipv4/ip_forward
  iptables -P FORWARD ACCEPT
  # Where bridged packets can pass iptables they must: Services between pods of one node need it.
  [ ! -e /proc/sys/net/bridge ] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
}

restore_kernel() {
  local saved=$state/kernel.before key value
  [ -f "$saved" ] || return 0
  while read -r key value; do
    case $key in
    forward) echo "$value" >/proc/sys/net/ipv4/ip_forward ;;
    policy) iptables -P FORWARD "$value" ;;
    canaries) [ "$value" != 0 ] || remove_rules ;;
    esac
  done <"$saved"
}

# Chains of kube-proxy, of the kubelets and of CNI. Only called where there were none before us.
remove_rules() {
  local program kept
  for program in iptables ip6tables; do
    kept=$("$program-save" 2>/dev/null | grep -vE '(^:|[[:space:]])(KUBE|CNI)-') || continue
    "$program-restore" <<<"$kept" || say "$program: the rules of Kubernetes are still there"
  done
}

make_bridge() { # node
  local bridge=lhnode$1
  ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
  ip addr replace "$(node_address "$1")/21" dev "$bridge"
  ip link set "$bridge" up
}

# The folders of a node's cgroup, one per hierarchy where there are several.
cgroups() { # node
  local hierarchy
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    echo "/sys/fs/cgroup/leasehold-node$1"
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    if [ "$hierarchy" != /sys/fs/cgroup/unified/ ] && [ -f "$hierarchy/cgroup.procs" ] && [ ! -L "${hierarchy%/}" ]; then
      echo "${hierarchy}leasehold-node$1"
    fi
  done
}

# Of the unified hierarchy: pods may be limited only by what every level above them hands down.
hand_down_controllers() { # group
  local controller level
  for level in "${1%/*}" "$1"; do
    for controller in $(<"$level/cgroup.controllers"); do
      echo "+$controller" >"$level/cgroup.subtree_control" 2>/dev/null || true
    done
  done
}

# The kubelet wants its root to exist in every hierarchy.
make_cgroups() { # node
  local group file
  for group in $(cgroups "$1"); do
    mkdir -p "$group"
    [ ! -f "$group/cgroup.subtree_control" ] || hand_down_controllers "$group"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -f "$group/$file" ] || [ -n "$(cat "$group/$file")" ] || cat "$group/../$file" >"$group/$file"
    done
  done
}

cgroup_processes() { # node
  local group
  for group in $(cgroups "$1"); do
    [ ! -d "$group" ] || find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | sort -un
}

no_cgroup_process() { [ -z "$(cgroup_processes "$1")" ]; }

# Ends every process of every pod of a node at once, paused ones too.
kill_pods() { # node
  local pid
  for pid in $(cgroup_processes "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
  wait_for "the end of the pods of node$1" 20 no_cgroup_process "$1"
}

# Container runtimes also make them in hierarchies that we did not.
remove_cgroups() { # node
  local group
  for group in /sys/fs/cgroup/"leasehold-node$1" /sys/fs/cgroup/*/"leasehold-node$1"; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}

# Unmounts whatever is mounted below a folder, the deepest first.
unmount_below() {
  local mount
  awk -v below="$1/" 'index($5, below) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while read -r mount; do umount -l "$(printf '%b' "$mount")" || true; done
}
