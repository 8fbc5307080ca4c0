# A cluster of kind's in Docker, for machines that have both. Sourced.
# shellcheck shell=bash

kind_name=leasehold

kind_cluster() {
  command -v kind >/dev/null || die "LEASEHOLD_KUBERNETES=kind needs the program kind"
  build_tools kubernetes helm
  mkdir -p "$state"
  if ! kind get clusters 2>/dev/null | grep -qxF "$kind_name"; then
    kind create cluster --name "$kind_name" --config "$kube_dir/manifests/kind.yaml" --kubeconfig "$admin" >&2
  else
    kind get kubeconfig --name "$kind_name" >"$admin"
  fi
}

kind_down() {
  kind delete cluster --name "$kind_name" >&2
  rm -f "$admin"
}

# Builds the image with Docker, which has a registry at hand, and hands it to the nodes.
kind_image() { # name
  docker build --quiet --tag "$1" "$repo" >&2
  docker tag "$1" localhost/leasehold:test
  kind load docker-image --name "$kind_name" "$1" localhost/leasehold:test >&2
}
