# Images made from what is on this machine, since no registry is in reach. Sourced.
# Each is kept as an archive in the cache and loaded into every node's containerd.
# shellcheck shell=bash

archives=$cache/images

# load_image ARCHIVE NAME [ALIAS]: into every node that does not have it yet.
load_image() {
  local i loads=()
  for i in "${nodes[@]}"; do
    load_into "$i" "$@" &
    loads+=($!)
  done
  for i in "${loads[@]}"; do wait "$i"; done
}

load_into() { # node, archive, name, [alias]
  local ctr=(ctr --address "$(node_socket "$1")" --namespace k8s.io)
  local mark=$state/node$1/loaded-${3//[\/:]/-}
  [ "$mark" -nt "$2" ] || "${ctr[@]}" images import "$2" >/dev/null
  [ -z "${4:-}" ] || "${ctr[@]}" images tag --force "$3" "$4" >/dev/null
  touch "$mark"
}

# Makes an image of files: from_files NAME ENTRYPOINT FILE:PATH...
from_files() {
  local name=$1 entrypoint=$2 archive container pair
  archive=$archives/$(tr '/:' '--' <<<"$name").tar
  shift 2
  local newer=no
  for pair in "$@"; do [ "$archive" -nt "${pair%%:*}" ] || newer=yes; done
  if [ $newer = yes ]; then
    mkdir -p "$archives"
    container=$(builder from scratch)
    for pair in "$@"; do builder copy -q "$container" "${pair%%:*}" "${pair#*:}" >/dev/null; done
    [ -z "$entrypoint" ] || builder config --entrypoint "$entrypoint" "$container"
    rm -f "$archive.part"
    builder commit -q --rm "$container" "docker-archive:$archive.part:$name" >/dev/null
    mv "$archive.part" "$archive"
  fi
  printf '%s\n' "$archive"
}

pause_image() {
  mkdir -p "$cache/pause"
  local program=$cache/pause/pause
  [ "$program" -nt "$kube_dir/images/pause.c" ] || gcc -static -O2 -o "$program" "$kube_dir/images/pause.c"
  from_files localhost/pause:1 '["/pause"]' "$program:/pause"
}

busybox_image() {
  local links=$cache/busybox/bin applet
  if [ ! -x "$links/busybox" ]; then
    rm -rf "$links.part"
    mkdir -p "$links.part"
    cp "$(command -v busybox)" "$links.part/busybox"
    for applet in $("$links.part/busybox" --list); do
      [ "$applet" = busybox ] || ln -s busybox "$links.part/$applet"
    done
    mv "$links.part" "$links"
  fi
  from_files localhost/busybox:1 '' "$links:/bin"
}

# kcat in a Debian, for producing and consuming from inside a pod; busybox there is wget, nc, httpd.
kcat_image() {
  local archive=$archives/localhost-kcat-1.tar container
  if [ ! -f "$archive" ]; then
    debian_base
    say "making an image with kcat (once)"
    mkdir -p "$archives"
    container=$(builder from "$debian_stand_in")
    install_packages "$container" kcat busybox
    builder config --cmd /bin/bash "$container"
    rm -f "$archive.part"
    builder commit -q --rm "$container" "docker-archive:$archive.part:localhost/kcat:1" >/dev/null
    mv "$archive.part" "$archive"
  fi
  printf '%s\n' "$archive"
}

load_base_images() {
  load_image "$(pause_image)" localhost/pause:1
  load_image "$(busybox_image)" localhost/busybox:1
  load_image "$(kcat_image)" localhost/kcat:1
  load_image "$(from_files localhost/coredns:1 '["/coredns"]' "$bin/coredns:/coredns")" localhost/coredns:1
  load_image "$(from_files localhost/local-path-provisioner:1 '["/local-path-provisioner"]' \
    "$bin/local-path-provisioner:/local-path-provisioner")" localhost/local-path-provisioner:1
}
