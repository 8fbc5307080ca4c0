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
  local name=$1 self outside=()
  shift
  if alive "$name"; then return; fi
  mkdir -p "$state/run" "$logs"
  # Not among the mounts of `with-dns`, which go with its command.
  if [ -n "${LEASEHOLD_MOUNTS:-}" ]; then outside=(nsenter "--mount=$LEASEHOLD_MOUNTS"); fi
  (
    cd /
    self=$BASHPID # which is another one inside $(...)
    echo "$self $(start_time "$self")" >"$state/run/$name"
    exec 9>&-
    exec setsid "${outside[@]}" "$@"
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

# Daemons of this cluster that no file names, told by the state folder in their command line.
strays() {
  local process program
  for process in /proc/[0-9]*; do
    program=$(readlink "$process/exe" 2>/dev/null) || continue
    case ${program% (deleted)} in
    "$bin"/* | */containerd) ;;
    *) continue ;;
    esac
    if tr '\0' '\n' 2>/dev/null <"$process/cmdline" | grep -qF "$state/"; then echo "${process#/proc/}"; fi
  done
}

stop_strays() {
  local process
  for process in $(strays); do
    say "ending process $process, which no file in $state/run names"
    kill -KILL "$process" 2>/dev/null || true
    wait_for "the end of process $process" 10 gone "$process"
  done
}

# Says which of our processes have ended by themselves, and their last words.
report_ended() {
  local file name
  for file in "$state"/run/*; do
    name=${file##*/}
    if [ ! -e "$file" ] || alive "$name"; then continue; fi
    say "$name has ended; from $logs/$name.log:"
    tail -n 3 "$logs/$name.log" >&2
  done
}
