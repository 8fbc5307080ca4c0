# Builds every binary of a Kubernetes cluster from its Go module, once per version.
# Sourced. The versions stand in tools/*/go.mod; a changed go.mod builds anew.
# shellcheck shell=bash

build_tool() { # folder, packages...
  local from=$kube_dir/tools/$1 mark=$cache/built/$1 flags="-s -w"
  shift
  local name
  name=$(basename "$from")
  if cmp -s "$from/go.mod" "$mark"; then return; fi
  say "building $name (once)"
  if [ "$name" = kubernetes ]; then
    local version
    version=$(sed -nE 's:^(require)?[[:space:]]*k8s.io/kubernetes (v[0-9.]+).*:\2:p' "$from/go.mod")
    [ -n "$version" ] || die "no version of k8s.io/kubernetes in $from/go.mod"
    [ -n "$version" ] || die "no version of k8s.io/kubernetes in $from/go.mod"
    local info="-X k8s.io/component-base/version" minor=${version#*.}
    flags+=" $info.gitVersion=$version $info.gitMajor=1 $info.gitMinor=${minor%%.*}"
  fi
  mkdir -p "$bin" "$cache/built"
  (cd "$from" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$bin/" "$@")
  cp "$from/go.mod" "$mark"
}

build_tools() {
  local k=k8s.io/kubernetes/cmd
  build_tool kubernetes $k/kube-apiserver $k/kube-controller-manager $k/kube-scheduler $k/kubelet \
    $k/kube-proxy $k/kubectl
  build_tool etcd go.etcd.io/etcd/server/v3
  if [ -f "$bin/server" ]; then mv -f "$bin/server" "$bin/etcd"; fi
  build_tool coredns github.com/coredns/coredns
  build_tool local-path-provisioner github.com/rancher/local-path-provisioner
  build_tool helm helm.sh/helm/v3/cmd/helm
}
