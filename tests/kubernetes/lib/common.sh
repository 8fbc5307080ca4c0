# Shared by the scripts of this folder: paths, names, addresses, which cluster is meant, and how to
# wait. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail

kube_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repo=$(cd "$kube_dir/../.." && pwd)
cache=${LEASEHOLD_CACHE:-$HOME/.cache/leasehold}
bin=$cache/bin
# All that one cluster is: forgotten by `down`. Only our own cluster needs root, for a user's a user will do.
if [ "$(id -u)" = 0 ]; then
  state=${LEASEHOLD_STATE:-/var/lib/leasehold-kubernetes}
  runtime=/run/leasehold-kubernetes
else
  state=${LEASEHOLD_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/leasehold-kubernetes}
  runtime=$state/run
  mkdir -p "$state"
fi
pki=$state/pki
logs=$state/logs
admin=$state/admin.kubeconfig
nodes=(1 2 3)
api_address=198.18.0.1
dns_address=198.19.0.10
# Where the chart goes.
release=leasehold
release_namespace=leasehold-system
# Label of that namespace where it was made here, so that only then it is taken away again.
installed_by=made-by
installed_value=leasehold-tests

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# Which cluster is meant: `own` is the one that `up` makes here, `kubeconfig` the user's, `kind` one in Docker.
cluster_kind() {
  local kind=${LEASEHOLD_KUBERNETES:-}
  if [ -z "$kind" ]; then
    kind=own
    # What `up` printed for the user's shell must not look like a cluster of the user's.
    if [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$admin" ]; then kind=kubeconfig; fi
  fi
  case $kind in
  own | kind) ;;
  kubeconfig) [ -n "${KUBECONFIG:-}" ] || die "LEASEHOLD_KUBERNETES=kubeconfig needs KUBECONFIG" ;;
  *) die "LEASEHOLD_KUBERNETES is '$kind'; it may be own, kubeconfig or kind" ;;
  esac
  echo "$kind"
}

# The file that leads to it.
cluster_config() {
  if [ "$(cluster_kind)" = kubeconfig ]; then echo "$KUBECONFIG"; else echo "$admin"; fi
}

need_own() { [ "$(cluster_kind)" = own ] || die "this works only on the cluster that 'up' makes on this machine"; }

# Only one script at a time changes the cluster. What it starts must not inherit the lock: see `start`.
take_turn() {
  exec 9>"$runtime.lock"
  flock --nonblock 9 || {
    say "waiting for another run of these scripts"
    flock 9
  }
}

node_name() { echo "node$1"; }
node_zone() { local zones=(- a b c); echo "zone-${zones[$1]}"; }
# Each node is the gateway of a /21 of its own.
node_subnet() { echo "198.18.$((($1 - 1) * 8)).0/21"; }
node_address() { echo "198.18.$((($1 - 1) * 8)).1"; }
node_socket() { echo "$runtime/node$1/containerd.sock"; }
node_ctr() { # node, arguments...
  local socket
  socket=$(node_socket "$1")
  shift
  ctr --address "$socket" --namespace k8s.io "$@"
}

# wait_for WHAT SECONDS COMMAND...: until the command succeeds; otherwise says what was waited for.
wait_for() {
  local what=$1 limit=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$limit" ]; then
      say "gave up waiting for $what: $*"
      return 1
    fi
    sleep 0.1
  done
}

# Our own kubectl where it was built; the user's own will do for a cluster of the user's.
kube() {
  local program=$bin/kubectl
  [ -x "$program" ] || program=kubectl
  "$program" --kubeconfig "$(cluster_config)" "$@"
}

# The same of helm.
helm() {
  local program=$bin/helm
  [ -x "$program" ] || program=$(type -P helm)
  "$program" --kubeconfig "$(cluster_config)" "$@"
}

has_release() { helm status "$release" --namespace "$release_namespace" >/dev/null 2>&1; }
