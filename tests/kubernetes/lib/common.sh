# Shared by the scripts of this folder: paths, names, addresses, and how processes are kept.
# Sourced, never run. Promises: a process is ended only if its recorded start time still fits.
# shellcheck shell=bash
set -euo pipefail

kube_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repo=$(cd "$kube_dir/../.." && pwd)
cache=${LEASEHOLD_CACHE:-$HOME/.cache/leasehold}
bin=$cache/bin
state=${LEASEHOLD_STATE:-/var/lib/leasehold-kubernetes}
runtime=/run/leasehold-kubernetes
pki=$state/pki
logs=$state/logs
admin=$state/admin.kubeconfig
nodes=(1 2 3)
api_address=198.18.0.1
dns_address=198.19.0.10

say() { printf '%s\n' "$*" >&2; }
die() { say "$0: $*"; exit 1; }

node_name() { echo "node$1"; }
node_zone() { local zones=(- a b c); echo "zone-${zones[$1]}"; }
# Each node is the gateway of a /21 of its own.
node_address() { echo "198.18.$((($1 - 1) * 8)).1"; }
node_socket() { echo "$runtime/node$1/containerd.sock"; }

start_time() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null; }

# alive NAME: whether the process recorded under NAME still runs.
alive() {
  [ -f "$state/run/$1" ] || return 1
  local pid started
  read -r pid started <"$state/run/$1"
  [ "$(start_time "$pid")" = "$started" ]
}

# start NAME COMMAND...: runs it in the background unless it runs already.
start() {
  local name=$1
  shift
  alive "$name" && return
  mkdir -p "$state/run" "$logs"
  setsid "$@" </dev/null >>"$logs/$name.log" 2>&1 &
  local pid=$!
  echo "$pid $(start_time "$pid")" >"$state/run/$name"
}

# stop NAME [SIGNAL]: ends it and waits until it is gone.
stop() {
  local pid _
  if alive "$1"; then
    read -r pid _ <"$state/run/$1"
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    wait_for "the end of $1" 20 not_running "$pid" || kill -KILL "$pid"
  fi
  rm -f "$state/run/$1"
}

not_running() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

# wait_for WHAT SECONDS COMMAND...: until the command succeeds; otherwise says what was waited for.
wait_for() {
  local what=$1 limit=$(($(date +%s) + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$(date +%s)" -ge "$limit" ]; then
      say "gave up waiting for $what: $*"
      return 1
    fi
    sleep 0.1
  done
}

kube() { "$bin/kubectl" --kubeconfig "$admin" "$@"; }
