# What a suite's `prepare` shares. Sourced. Expects a function `make_it` that fills $TOOLS.
# shellcheck shell=bash

# present FILE...: calls make_it unless it was done already with these very files. Its output goes to the log.
present() {
  local wanted
  wanted=$(cat "$@" | sha256sum)
  [ "$(cat "$TOOLS/.complete" 2>/dev/null)" != "$wanted" ] || return 0
  rm -rf "${TOOLS:?}"
  mkdir -p "$TOOLS"
  make_it >&2
  echo "$wanted" >"$TOOLS/.complete"
}
