# Builds every program of a Kubernetes cluster from its Go module, once per version. Sourced.
# The versions stand in tools/*/go.mod; a changed go.mod, or a changed way to build, builds anew.
# shellcheck shell=bash

# build_tool FOLDER PROGRAM=PACKAGE...
build_tool() {
  local name=$1 from=$kube_dir/tools/$1 mark=$cache/built/$1 flags="-s -w" pair
  shift
  if [ "$name" = kubernetes ] || [ "$name" = kubeadm ]; then flags+=" $(kubernetes_version "$from/go.mod")"; fi
  local wanted
  wanted=$({ echo "$flags $*" && cat "$from/go.mod"; } | sha256sum)
  if [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ] && all_built "$@"; then return; fi
  say "building $name (once)"
  # All packages of a module in one go: they share most of what is compiled.
  mkdir -p "$cache/building" "$bin" "$cache/built"
  (cd "$from" && CGO_ENABLED=0 nice go build -mod=readonly -trimpath -ldflags "$flags" -o "$cache/building/" "${@#*=}")
  for pair in "$@"; do
    local package=${pair#*=}
    package=${package%/v[0-9]*}
    mv -f "$cache/building/${package##*/}" "$bin/${pair%%=*}"
  done
  echo "$wanted" >"$mark"
}

all_built() {
  local pair
  for pair in "$@"; do [ -x "$bin/${pair%%=*}" ] || return 1; done
}

# Without its version the API server does not start.
kubernetes_version() { # go.mod
  local version minor info="-X k8s.io/component-base/version"
  version=$(sed -nE 's:^(require)?[[:space:]]*k8s.io/kubernetes (v[0-9.]+).*:\2:p' "$1")
  [ -n "$version" ] || die "no version of k8s.io/kubernetes in $1"
  minor=${version#*.}
  echo "$info.gitVersion=$version $info.gitMajor=1 $info.gitMinor=${minor%%.*}"
}

# build_tools [MODULE...]: all of them, or only those named. Safe to call while another run builds:
# it waits for that one.
build_tools() {
  local module
  [ $# -gt 0 ] || set -- kubernetes etcd coredns local-path-provisioner helm
  command -v go >/dev/null || die "the programs of a cluster are built with Go, which is not on PATH"
  mkdir -p "$cache"
  (
    flock 8
    for module in "$@"; do build_module "$module"; done
  ) 8>"$cache/tools.lock"
}

build_module() {
  local program programs=()
  case $1 in
  kubernetes)
    for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
      programs+=("$program=k8s.io/kubernetes/cmd/$program")
    done
    ;;
  etcd) programs=(etcd=go.etcd.io/etcd/server/v3) ;;
  coredns) programs=(coredns=github.com/coredns/coredns) ;;
  local-path-provisioner) programs=(local-path-provisioner=github.com/rancher/local-path-provisioner) ;;
  helm) programs=(helm=helm.sh/helm/v3/cmd/helm) ;;
  # For kind's own way only (kind-node).
  kubeadm) programs=(kubeadm=k8s.io/kubernetes/cmd/kubeadm) ;;
  kind) programs=(kind=sigs.k8s.io/kind) ;;
  esac
  build_tool "$1" "${programs[@]}"
}
