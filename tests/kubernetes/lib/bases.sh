# Local stand-ins for what the FROM lines of the Dockerfile name, for machines that reach no image
# registry: a Debian from debootstrap, and the same with a linker. The Rust toolchain is the
# machine's own, mounted when the image is built. Made once, kept in the cache. Sourced.
# shellcheck shell=bash

debian_release=bookworm
debian_stand_in=localhost/stand-in/debian:$debian_release-slim
linker_stand_in=localhost/stand-in/debian:$debian_release-gcc
rust_stand_in=localhost/stand-in/rust:$debian_release
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# Our own store: what the user keeps in buildah's is none of our business.
builder() {
  buildah --root "$cache/buildah" --runroot "$runtime-buildah" --storage-driver overlay "$@"
}

has_image() { builder images -q "$1" >/dev/null 2>&1; }

# The mirror that this machine's apt uses.
debian_mirror() {
  # shellcheck disable=SC2016 # the fields are for apt to fill in
  apt-get indextargets --format '$(SITE) $(RELEASE)' "Created-By: Packages" |
    awk -v release="$debian_release" '$2 == release {print $1; exit}'
}

debian_base() {
  has_image "$debian_stand_in" && return
  say "making a Debian base image (once)"
  local root container
  root=$(mktemp -d "$cache/debian.XXXXXX")
  debootstrap --variant=minbase --include=ca-certificates "$debian_release" "$root" "$(debian_mirror)" \
    >"$cache/debootstrap.log" || die "debootstrap failed, see $cache/debootstrap.log"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/{doc,info,locale,man}/*
  container=$(builder from scratch)
  builder add -q "$container" "$root" / >/dev/null
  builder config --cmd /bin/bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  builder commit -q --rm "$container" "$debian_stand_in" >/dev/null
  rm -rf "$root"
}

install_packages() { # container, packages...
  local container=$1
  shift
  builder run --isolation chroot "$container" -- sh -c "
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -y -q --no-install-recommends $*
    rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/* /usr/share/doc/* /usr/share/man/*" \
    >"$cache/apt.log" 2>&1 || die "apt-get failed in a build image, see $cache/apt.log"
}

# The toolchain's folder, which holds cargo and rustc whether rustup keeps it or not.
toolchain() { rustc --print sysroot; }

rust_base() {
  if ! has_image "$linker_stand_in"; then
    debian_base
    say "adding a linker to it for building (once)"
    local container
    container=$(builder from "$debian_stand_in")
    install_packages "$container" gcc libc6-dev make pkg-config
    builder commit -q --rm "$container" "$linker_stand_in" >/dev/null
  fi
  # Where things lie may differ from run to run, and costs nothing to say again.
  container=$(builder from "$linker_stand_in")
  builder config --env "CARGO_HOME=$cargo_home" \
    --env "PATH=$(toolchain)/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$container"
  builder commit -q --rm "$container" "$rust_stand_in" >/dev/null
}

# What our Dockerfile's build stage is given so that it compiles nothing a second time, as options in
# `caches`: the toolchain, cargo's downloads and the checkout's own target folder, at their own paths.
share_caches() {
  local target=${CARGO_TARGET_DIR:-$repo/target}
  mkdir -p "$target"
  # The network is for crates that this machine lacks; the stage itself then needs none.
  (cd "$repo" && cargo fetch --locked --quiet)
  # shellcheck disable=SC2034 # for whoever builds
  caches=(--build-arg "SOURCE=$repo" --build-arg "TARGET=$target"
    --volume "$target:$target" --volume "$cargo_home:$cargo_home" --volume "$(toolchain):$(toolchain):ro")
}
