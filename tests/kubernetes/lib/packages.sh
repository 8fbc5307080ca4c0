# Programs of Debian's packages that are only unpacked, into the cache: installed, they would become services of
# this machine. Sourced.
# shellcheck shell=bash

# unpacked PACKAGE: the folder that holds what the package would put below `/`.
unpacked() {
  local folder=$cache/packages/$1 part=$cache/packages/$1.part
  if [ ! -d "$folder" ]; then
    say "fetching $1 (once)"
    rm -rf "$part" && mkdir -p "$part"
    (cd "$part" && { apt-get download -q "$1" || { apt-get update -q && apt-get download -q "$1"; }; } >&2)
    dpkg -x "$part"/*.deb "$part" && rm "$part"/*.deb
    mv "$part" "$folder"
  fi
  echo "$folder"
}
