# A cluster of kind's in Docker, for machines that have it. Sourced.
# shellcheck shell=bash

kind_name=leasehold

# The user's own program, or one built from its Go module.
kind() {
  local program
  program=$(type -P kind) || program=$bin/kind
  "$program" "$@"
}

kind_cluster() {
  type -P docker >/dev/null || die "LEASEHOLD_KUBERNETES=kind needs Docker"
  type -P kind >/dev/null || build_tools kind
  type -P kubectl >/dev/null || build_tools kubernetes
  type -P helm >/dev/null || build_tools helm
  mkdir -p "$state"
  if kind get clusters 2>/dev/null | grep -qxF "$kind_name"; then
    kind get kubeconfig --name "$kind_name" >"$admin"
    return
  fi
  # The image of a node is kind's own choice, unless one is named that Docker has (kind-node).
  kind create cluster --name "$kind_name" --config "$kube_dir/manifests/kind.yaml" --kubeconfig "$admin" \
    ${LEASEHOLD_KIND_NODE:+--image "$LEASEHOLD_KIND_NODE"} --wait 180s >&2
  kube wait --for=condition=Ready node --all --timeout=120s >/dev/null
}

kind_down() {
  kind delete cluster --name "$kind_name" >&2
  rm -f "$admin"
}

# Hands an image that Docker has to the nodes.
kind_load() { # name
  docker tag "$1" localhost/leasehold:test
  kind load docker-image --name "$kind_name" "$1" localhost/leasehold:test >&2
}
