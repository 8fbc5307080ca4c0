# How host processes are kept: each has a file run/NAME with its process id and start time, so that
# an id which another process has got meanwhile is never taken for ours. Sourced.
# shellcheck shell=bash

start_time() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null; }

# alive NAME: whether the process recorded under NAME still runs.
alive() {
  [ -s "$state/run/$1" ] || return 1
  local pid started
  read -r pid started <"$state/run/$1"
  [ "$(start_time "$pid")" = "$started" ] && ! gone "$pid"
}

gone() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

# start NAME COMMAND...: runs it in the background, out of this terminal, unless it runs already. It
# records itself before it becomes the command, and gives up our lock only then: whoever takes the
# lock after us finds it recorded even if we are killed in between.
start() {
  local name=$1
  shift
  if alive "$name"; then return; fi
  mkdir -p "$state/run" "$logs"
  (
    cd /
    echo "$BASHPID $(start_time "$BASHPID")" >"$state/run/$name"
    exec 9>&-
    exec setsid "$@"
  ) </dev/null >>"$logs/$name.log" 2>&1 &
}

# stop NAME [SIGNAL]: ends it and waits until it is gone, however unwilling.
stop() {
  local pid _
  if alive "$1"; then
    read -r pid _ <"$state/run/$1"
    # A stopped process takes no other signal.
    kill -CONT "$pid" 2>/dev/null || true
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    wait_for "the end of $1" 10 gone "$pid" || {
      kill -KILL "$pid" 2>/dev/null || true
      wait_for "the end of $1" 10 gone "$pid"
    }
  fi
  rm -f "$state/run/$1"
}
